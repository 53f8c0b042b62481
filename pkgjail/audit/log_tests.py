"""The tests that configure, CMake and Meson wrote to their logs: what each looked for, and what it found."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING

from pkgjail.core.model import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pkgjail.audit.build_files import BuildFile, Form

_MOST_BODY = 2000  # lines of one test

_CHECKING = re.compile(r"configure:\d+: (checking .+)")
_RESULT = re.compile(r"configure:\d+: result: ?(.*)")
# As in: Determining if the include file zlib.h exists failed with the following output.
_DETERMINING = re.compile(r"(\S.{0,300}) (passed|failed) with the following (?:output|compile output):")
_FOUND = re.compile(r"(?:[\w-]+\| )?(\S.{0,300}?)(?: found| ):? ?:? +(YES|NO)\b")
_EVENT = re.compile(r"  - *")
_CHECK = re.compile(r' {6}- "((?:Looking|Check|Detecting|Performing) .{1,500})"')
_PACKAGE = re.compile(r' {4}name: "([^"]{1,200})"')
_NAME = re.compile(r' {6}- "([^"]{1,200})"')
_MOST_NAMES = 20
_OUTCOME = re.compile(r" {4}found: (.+)| {6}exitCode: (\d+)")
_OUTCOMES = {"0": "passed", "false": "not found", "null": "not found"}


@record
class LoggedTest:
    """One test of a log: the line where it begins, what it looks for and found, and the lines between."""

    file: bytes
    line: int
    title: str
    result: str
    body: tuple[str, ...] = ()


def logged_tests(file: BuildFile) -> tuple[LoggedTest, ...]:
    """Return the tests in a log in their order; none for a file that is no log."""
    reader = _READERS.get(file.form)
    return () if reader is None else tuple(reader(file.path, file.lines))


def _autoconf(path: bytes, lines: Sequence[str]) -> Iterator[LoggedTest]:
    """Read config.log. The lines of a program that failed, each behind a bar, say nothing that is new."""
    title, start, body = "", 0, list[str]()
    for number, line in enumerate(lines, 1):
        if match := _CHECKING.fullmatch(line):
            title, start, body = match[1], number, []
        elif title and (match := _RESULT.fullmatch(line)):
            yield LoggedTest(file=path, line=start, title=title, result=match[1], body=tuple(body))
            title = ""
        elif title and not line.startswith("|") and len(body) < _MOST_BODY:
            body.append(line)


def _cmake_log(path: bytes, lines: Sequence[str]) -> Iterator[LoggedTest]:
    """Read CMakeError.log or CMakeOutput.log, as CMake wrote them before 3.26."""
    title, result, start, body = "", "", 0, list[str]()
    for number, line in enumerate(lines, 1):
        match = _DETERMINING.fullmatch(line)
        if match:
            if title:
                yield LoggedTest(file=path, line=start, title=title, result=result, body=tuple(body))
            title, result, start, body = match[1], match[2], number, []
        elif len(body) < _MOST_BODY:
            body.append(line)
    if title:
        yield LoggedTest(file=path, line=start, title=title, result=result, body=tuple(body))


def _cmake_events(path: bytes, lines: Sequence[str]) -> Iterator[LoggedTest]:
    """Read CMakeConfigureLog.yaml, of CMake 3.26 and later, which writes it in one way only."""
    starts = [number for number, line in enumerate(lines) if _EVENT.fullmatch(line)]
    for start, end in zip(starts, [*starts[1:], len(lines)]):
        event = lines[start:end]
        title, line = _title(event)
        results = [match[1] or match[2] for each in event if (match := _OUTCOME.fullmatch(each))]
        if title and results:
            result = _OUTCOMES.get(results[-1], "failed" if results[-1].isdigit() else "found")
            is_tried = title.partition(" ")[0] != "find"
            body = tuple(event[:_MOST_BODY]) if is_tried else ()
            yield LoggedTest(file=path, line=start + line, title=title, result=result, body=body)


def _title(event: Sequence[str]) -> tuple[str, int]:
    """Return what an event says that it looks for, and in which of its lines; "" for other events."""
    for number, line in enumerate(event, 1):
        if match := _CHECK.fullmatch(line):
            return match[1], number
        if match := _PACKAGE.fullmatch(line):
            return f"find package {match[1]}", number
        if line == "    names:":
            names = list(takewhile(bool, map(_NAME.fullmatch, event[number : number + _MOST_NAMES])))
            return " ".join(["find", *(name[1] for name in names if name)]), number + 1
    return "", 0


def _meson(path: bytes, lines: Sequence[str]) -> Iterator[LoggedTest]:
    """Read meson-log.txt, where a line with the result follows what was tried."""
    body: list[str] = []
    for number, line in enumerate(lines, 1):
        match = _FOUND.match(line)
        if match:
            yield LoggedTest(file=path, line=number, title=match[1], result=match[2], body=tuple(body))
            body = []
        elif len(body) < _MOST_BODY:
            body.append(line)


_READERS: dict[Form, Callable[[bytes, Sequence[str]], Iterator[LoggedTest]]] = {
    "autoconf log": _autoconf,
    "cmake log": _cmake_log,
    "cmake events": _cmake_events,
    "meson log": _meson,
}
