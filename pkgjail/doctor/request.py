"""A text for the administrators of a site, by which a user asks for what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.stage_names import DEFAULT, RUNGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.doctor.model import HostReport, Remedy, StageReport

_HEAD = """\
Hello,

I would like to use pkgjail on this machine. It runs a build in a jail that shows exactly the files of
packages that I name, so that the build cannot use anything else by accident. It needs no installation by
root, no daemon and no image: only user namespaces, which this machine does not let me make.
"""
_TAIL = """\
What is asked for, and what it opens, is described in pkgjail's documentation: "Hosts without user namespaces"
(doctor) and "Security". Each of these ways is enough by itself.
"""


def request_text(report: HostReport) -> str:
    """Return the text; one that says that nothing is needed if the default way works."""
    by_name = {stage.name: stage for stage in report.stages}
    if by_name[DEFAULT].works:
        return "Nothing is to be asked for: pkgjail's jails work here.\n"
    kernel = report.kernel
    facts = f"{report.system}, Linux {kernel.release} ({kernel.machine}), user {report.user}"
    lines = [_HEAD, f"  {facts}", f"  {by_name[DEFAULT].obstacle}", ""]
    others = (by_name[name] for name in RUNGS if name in by_name)
    for number, (_, remedy) in enumerate(_asked(others), 1):
        lines += [f"{number}. {remedy.what}:", "", *(f"     {line}" for line in remedy.lines), ""]
    return "\n".join([*lines, _TAIL])


def _asked(stages: Iterator[StageReport]) -> Iterator[tuple[str, Remedy]]:
    """Yield what others than the user can do, by stage."""
    for stage in stages:
        for remedy in stage.remedies:
            if remedy.who != "user":
                yield stage.name, remedy
