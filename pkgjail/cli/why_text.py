"""The answers of `why` as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.cli.project import place_of_line
from pkgjail.core.text import first_of, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import FileEntry
    from pkgjail.review.why import Answer, Reason

_FEW = 5
_ORIGINS = {
    "package": "listed by",
    "conffile": "a configuration file of",
    "alternative": "a link of update-alternatives, for",
    "generated": "generated on the host, for",
    "entry": "made at entry, for",
}


def text(answer: Answer) -> Iterator[str]:
    """Return an answer as lines of text."""
    if answer.verdict == "package":
        yield from _reasons(answer.reasons)
        return
    asked, path = printable(answer.asked), printable(answer.path)
    if path and path != asked:
        yield f"{asked} is {path}"
    yield f"{path or asked}: {_presence(answer, answer.entry) if answer.entry else _absence(answer)}"
    yield from (f"  {line}" for line in _reasons(answer.reasons))
    if answer.also:
        yield f"  so are named too: {', '.join(first_of(list(map(printable, answer.also)), _FEW))}"
    if answer.remedy:
        place, line = place_of_line(answer.remedy)
        yield f"  to add it, write in {place}: {line}"


def _presence(answer: Answer, entry: FileEntry) -> str:
    """Describe a path of the manifest and its origin."""
    kind = {"regular": "file", "directory": "directory"}.get(
        entry.kind
    ) or f"link to {printable(entry.target or b'')}"
    if entry.origin == "include":
        return f"{kind}, named by {printable(entry.detail)}"
    if answer.below:
        return f"{kind}, for what is below it: {printable(answer.below)}"
    if entry.origin == "parent":
        return f"{kind}, for what leads through it"
    owners = ", ".join(reason.package for reason in answer.reasons) or "every jail"
    others = len(entry.owners) - len(answer.reasons)
    more = f" and {others} more" if others else ""
    detail = f" ({printable(entry.detail)})" if entry.detail else ""
    return f"{kind}, {_ORIGINS[entry.origin]} {owners}{more}{detail}"


def _absence(answer: Answer) -> str:
    """Describe what keeps something out, or a device, which no manifest has as a name."""
    if answer.verdict == "device":
        return f"a device, allowed by {printable(answer.rule)}" if answer.rule else "every jail has it"
    if answer.missing is not None:
        owners = ", ".join(answer.missing.owners) or "no package"
        return f"not in the jail, because it is {answer.missing.reason} on the host; listed by {owners}"
    what = f"dropped by {printable(answer.rule)}" if answer.rule else "not in the manifest"
    if answer.owner:
        link = f", by the alternative {printable(answer.alternative)}" if answer.alternative else ""
        return f"{what}; the host has it from {answer.owner}{link}"
    return what if answer.rule else f"{what}{_elsewhere(answer)}"


def _elsewhere(answer: Answer) -> str:
    """Say who has what neither the manifest nor the host has, or what may have been meant."""
    if answer.installable == (answer.asked,):
        return ", and not installed; install the package to use it"
    if answer.installable:
        these = ", ".join(first_of(answer.installable, _FEW))
        return f"; no package of the host has it; packages to install that have it: {these}"
    near = f"; did you mean {' or '.join(map(repr, answer.nearest))}?" if answer.nearest else ""
    return f"; no package of the host has it{near}"


def _reasons(reasons: Sequence[Reason]) -> Iterator[str]:
    """Return each chain as a block of lines: the rule, then each package with the text that required it."""
    for reason in reasons:
        name = f"{reason.package} {reason.version}"
        if not reason.chains:
            yield f"{name}: nothing in the manifest requires it"
        for chain in reason.chains:
            yield name
            yield f"  {printable(chain[0].source)}"
            for depth, edge in enumerate(chain, 2):
                yield f"{'  ' * depth}{edge.kind} {printable(edge.text)} -> {edge.target}"
        if reason.cut:
            yield f"  and more than these {len(reason.chains):,} chains"
