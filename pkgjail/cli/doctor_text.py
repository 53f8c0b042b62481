"""The report of `pkgjail doctor`, as text and as JSON."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pkgjail.cli.flags import with_flags
from pkgjail.core.text import counted, printable
from pkgjail.doctor.model import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pkgjail.doctor.model import (
        DefaultReport,
        DirectoryReport,
        Finding,
        HostReport,
        KernelReport,
        Remedy,
        StageReport,
        Who,
    )

_WHO: Mapping[Who, str] = {
    "administrator": "as root",
    "starter": "whoever starts it",
    "user": "you",
}
_NAME, _STATE, _CELL = 12, 7, 10
_WIDE = _NAME + _STATE + _CELL * len(COLUMNS)  # columns of the table
_WIDEST = 110
_THOUSAND = 1000
_GREEN, _RED, _BOLD, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[0m"


def as_json(report: HostReport) -> dict[str, Any]:
    """Return the report as JSON has it, with whether each stage, and all of it, works."""
    facts = asdict(report)
    for row, stage in zip(facts["stages"], report.stages):
        row["works"] = stage.works
    return {"works": report.works, **{name: _with_flags(each) for name, each in facts.items()}}


def _with_flags(value: Any) -> Any:
    """Return a value as JSON has it, with each text in the words of the command line."""
    if isinstance(value, str):
        return with_flags(value)
    if isinstance(value, dict):
        return {name: _with_flags(each) for name, each in value.items()}
    return [_with_flags(each) for each in value] if isinstance(value, (list, tuple)) else value


def print_report(report: HostReport) -> None:
    """Print the report: a table of the stages, what is wrong with remedies, and what was seen."""
    _Page().show(report)


class _Page:
    """Standard output: with colours on a terminal, and lines that are as wide as it is."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._coloured = (
            self._is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )
        self._width = min(shutil.get_terminal_size().columns, _WIDEST) if self._is_terminal else 0
        self._printed: dict[tuple[Remedy, ...], str] = {}

    def show(self, report: HostReport) -> None:
        """Print all of a report."""
        kernel = report.kernel
        self._say(f"{report.system}, Linux {kernel.release} ({kernel.machine}), user {report.user}")
        self._say(_default(report.default))
        print()
        self._table(report.stages)
        for stage in report.stages:
            if not stage.works:
                self._explain(stage)
        print()
        self._title("kernel")
        for name, value in _kernel(kernel):
            self._say(f"{name:16}{value}", indent="  ", further=18)
        self._findings(kernel.findings)
        print()
        self._title("directories")
        for directory in report.directories:
            self._say(f"{directory.role:16}{_directory(directory)}", indent="  ", further=18)
            self._findings(directory.findings)
        print()
        self._title("software")
        for software in report.software:
            self._say(f"{software.role:18}{software.found or 'none'}", indent="  ", further=20)
            self._findings(software.findings)
        if report.by_root:
            print()
            self._say("This is what root can do here. A user's own view: runuser -u USER -- pkgjail doctor")

    def _table(self, stages: Iterable[StageReport]) -> None:
        if self._width and self._width < _WIDE:
            for stage in stages:
                kept = [words for each, words in COLUMNS.items() if stage.promises[each]]
                state = self._colour("works" if stage.works else "no", good=stage.works)
                self._say(f"; {', '.join(kept)}", before=f"{stage.name}: {state}", further=2)
            return
        words = [each.partition(" ") for each in COLUMNS.values()]
        for index in (0, 2):
            print((" " * (_NAME + _STATE) + "".join(f"{word[index]:{_CELL}}" for word in words)).rstrip())
        for stage in stages:
            state = self._colour(f"{'works' if stage.works else 'no':{_STATE}}", good=stage.works)
            cells = "".join(f"{'yes' if stage.promises[each] else 'no':{_CELL}}" for each in COLUMNS)
            print(f"{stage.name:{_NAME}}{state}{cells}".rstrip())

    def _explain(self, stage: StageReport) -> None:
        """Print why a stage does not work, and what to do."""
        print()
        self._title(stage.name)
        self._say(f"does not work here: {with_flags(stage.why_not)}", indent="  ")
        same = self._printed.setdefault(stage.remedies, stage.name) if stage.remedies else stage.name
        if same != stage.name:
            self._say(f"to do: as for {same}", indent="  ")
        else:
            self._remedies(stage.remedies)

    def _findings(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            mark = self._colour("wrong" if finding.serious else "note", good=not finding.serious)
            self._say(f": {with_flags(finding.what)}", before=mark, indent="    ")
            self._remedies(finding.remedies, indent="    ")

    def _remedies(self, remedies: Iterable[Remedy], indent: str = "  ") -> None:
        for remedy in remedies:
            colon = ":" if remedy.lines else ""
            self._say(f"{with_flags(remedy.what)} ({_WHO[remedy.who]}){colon}", indent=indent)
            for line in remedy.lines:  # to be pasted, and so never broken
                print(f"{indent}    {line}".rstrip())

    def _title(self, text: str) -> None:
        print(f"{_BOLD}{text}{_PLAIN}" if self._coloured else text)

    def _say(self, text: str, *, before: str = "", indent: str = "", further: int = 0) -> None:
        """Print text after what may have colours, broken into lines on a terminal."""
        text = f"{indent}{before}{printable(text)}"
        if not self._width:
            print(text)
            return
        rest = " " * (further or len(indent))
        print(textwrap.fill(text, self._width, subsequent_indent=rest, break_on_hyphens=False))

    def _colour(self, text: str, *, good: bool) -> str:
        return f"{_GREEN if good else _RED}{text}{_PLAIN}" if self._coloured else text


def _default(default: DefaultReport) -> str:
    if default.fault:
        return f"no command can run, because of the settings: {default.fault}"
    origin = f" (from {default.origin})" if default.origin else ""
    if not default.taken:
        return f"commands cannot run here by default: the stage {default.stage}{origin} does not work"
    taken = "" if default.taken == default.stage else f", here {default.taken}"
    return f"commands run in the stage {default.stage}{origin}{taken}"


def _kernel(kernel: KernelReport) -> Iterator[tuple[str, str]]:
    """Yield rows on the kernel and the confinement of this process."""
    yield "Landlock", f"version {kernel.landlock}" if kernel.landlock else "none"
    for name, value in kernel.settings.items():
        yield "setting", f"{name} = {value}"
    for strategy, obstacle in kernel.strategies.items():
        yield f"strategy {strategy}", f"cannot show /usr: {obstacle}" if obstacle else "shows /usr"
    around = [
        *([f"a container of {kernel.container}"] if kernel.container else []),
        *(["a filter of system calls"] if kernel.filtered else []),
        *([f"the security profile {kernel.profile}"] if kernel.profile else []),
        *([f"a /proc with {counted(len(kernel.covered), 'part')} covered"] if kernel.covered else []),
        *(["a chroot"] if kernel.chrooted else []),
    ]
    yield "around this", ", ".join(around) or "nothing that can be seen"


def _size(number: float) -> str:
    """Return a size in words; not by rich, which a host that is examined may lack."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if number < _THOUSAND or unit == "TB":
            break
        number /= _THOUSAND
    return f"{number:.1f} {unit}" if unit != "bytes" else f"{number} {unit}"


def _directory(directory: DirectoryReport) -> str:
    room = f"{_size(directory.free)} free"
    files = f", {directory.names:,} more files" if directory.names >= 0 else ""
    also = ", noexec" if directory.noexec else ""
    is_new = "" if directory.exists else ", not made yet"
    return f"{directory.path}: {directory.filesystem or 'unknown'}{also}, {room}{files}{is_new}"
