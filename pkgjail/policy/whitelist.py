"""Read one whitelist, without the lists that it includes: TOML as docs/policy.md describes it."""

from __future__ import annotations

import re
import sys
from dataclasses import field
from typing import TYPE_CHECKING, Any

from pkgjail.core.devices import pattern_fault
from pkgjail.core.globs import glob_fault
from pkgjail.core.model import raw_path, record
from pkgjail.policy.lists import Entry, nearest
from pkgjail.policy.patterns import MAX_CHARACTERS
from pkgjail.policy.toml_lines import Key, excess, locate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.policy.lists import ListProblems

FAMILIES = ("alpine", "arch", "debian", "rhel", "suse")
"""Families that a whitelist may name, including those without a backend."""

_TYPES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    list: "an array",
    dict: "a table",
}
_WHERE = re.compile(r" \((?:at line (?P<line>\d+), column \d+|at end of document)\)$")


@record
class Whitelist:
    """The content of one file. `packages` has a key for each family that the file names."""

    include: tuple[Entry, ...] = ()
    packages: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    packages_line: int = 1
    files: tuple[Entry, ...] = ()
    owners: tuple[Entry, ...] = ()
    devices: tuple[Entry, ...] = ()
    recommends: bool | None = None
    essential: bool | None = None
    package_database: bool | None = None
    blacklists: tuple[Entry, ...] = ()


def read_whitelist(data: bytes, family: str, problems: ListProblems) -> Whitelist | None:
    """Read the content of a whitelist, and add what is wrong with it to `problems`.

    `family` may be named in addition to `FAMILIES`. The result has everything that could be understood; it
    is None if the content is not TOML at all.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        problems.add(data.count(b"\n", 0, error.start) + 1, f"not UTF-8: byte 0x{data[error.start]:02x}")
        return None
    if found := excess(text):
        problems.add(*found)
        return None
    try:
        table = tomllib.loads(text)
        lines = locate(text)
    except RecursionError:
        problems.add(1, "not a whitelist: arrays or tables are nested too deeply")
        return None
    except ValueError as error:
        where = _WHERE.search(str(error))
        line = int(where["line"]) if where and where["line"] else text.rstrip("\n").count("\n") + 1
        problems.add(line if where else 1, f"not valid TOML: {_WHERE.sub('', str(error))}")
        return None
    return _Reader(problems, lines, {*FAMILIES, family}).whitelist(table)


class _Reader:
    """Makes a `Whitelist` of tomllib's result. `lines` are those of `locate`."""

    def __init__(self, problems: ListProblems, lines: Mapping[Key, int], families: set[str]) -> None:
        self.problems = problems
        self.lines = lines
        self.families = families

    def whitelist(self, top: Mapping[str, Any]) -> Whitelist:
        """Return the whitelist of a whole document."""
        self.check_keys((), top, {"include", "packages", "files", "devices", "options"})
        packages = self.table(top, "packages")
        self.check_keys(("packages",), packages, self.families)
        files = self.table(top, "files")
        self.check_keys(("files",), files, {"include", "owners"})
        devices = self.table(top, "devices")
        self.check_keys(("devices",), devices, {"include"})
        options = self.table(top, "options")
        self.check_keys(("options",), options, {"recommends", "essential", "package_database", "blacklists"})
        return Whitelist(
            include=self.strings(("include",), top),
            packages={
                family: self.requirements(family, packages) for family in packages if family in self.families
            },
            packages_line=self.lines.get(("packages",), 1),
            files=tuple(self.paths(files, "include")),
            owners=tuple(self.paths(files, "owners")),
            devices=tuple(self.devices(devices)),
            recommends=self.boolean(("options", "recommends"), options),
            essential=self.boolean(("options", "essential"), options),
            package_database=self.boolean(("options", "package_database"), options),
            blacklists=self.strings(("options", "blacklists"), options),
        )

    def check_keys(self, place: Key, table: Mapping[str, Any], known: set[str]) -> None:
        """Report the keys of a table that are not among the `known` ones."""
        noun = "family" if place == ("packages",) else "key"
        inside = f" in [{place[0]}]" if place else ""
        for key in table:
            if key not in known and not self.problems.is_full:
                message = f"unknown {noun} {key!r}{inside}{nearest(key, known)}"
                self.problems.add(self.lines[(*place, key)], message)

    def table(self, top: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """Return the table of a key; an empty one if the key is missing or has another type."""
        value = top.get(key, {})
        if isinstance(value, dict):
            return value
        self.wrong((key,), f"{key!r} must be a table", value)
        return {}

    def boolean(self, place: Key, table: Mapping[str, Any]) -> bool | None:
        """Return a boolean value; None if it is missing or has another type."""
        value = table.get(str(place[-1]))
        if value is None or isinstance(value, bool):
            return value
        self.wrong(place, f"{place[-1]!r} must be true or false", value)
        return None

    def strings(self, place: Key, table: Mapping[str, Any]) -> tuple[Entry, ...]:
        """Return the strings of an array with their lines, without those that cannot be used."""
        value = table.get(str(place[-1]), [])
        if not isinstance(value, list):
            self.wrong(place, f"{place[-1]!r} must be an array of strings", value)
            return ()
        entries = []
        for index, each in enumerate(value):
            here = (*place, index)
            if not isinstance(each, str):
                self.wrong(here, f"{place[-1]!r} must have only strings", each)
            elif not each.strip():
                self.problems.add(self.lines[here], f"an empty string in {place[-1]!r} names nothing")
            elif len(each) > MAX_CHARACTERS:
                message = f"a string in {place[-1]!r} has more than {MAX_CHARACTERS} characters"
                self.problems.add(self.lines[here], message)
            else:
                entries.append(Entry(text=each, line=self.lines[here]))
        return tuple(entries)

    def wrong(self, place: Key, message: str, value: object) -> None:
        """Report that a value has the wrong type."""
        self.problems.add(self.lines[place], f"{message}, not {_TYPES.get(type(value), 'a date or time')}")

    def requirements(self, family: str, packages: Mapping[str, Any]) -> tuple[Entry, ...]:
        """Return a family's requirements, with white space folded."""
        entries = self.strings(("packages", family), packages)
        return tuple(Entry(text=" ".join(each.text.split()), line=each.line) for each in entries)

    def paths(self, files: Mapping[str, Any], key: str) -> Iterator[Entry]:
        """Yield the patterns of a key of [files] that can name paths of the host."""
        for entry in self.strings(("files", key), files):
            fault = _path_fault(entry.text) or (glob_fault(raw_path(entry.text)) if key == "owners" else "")
            if fault:
                self.problems.add(entry.line, f"the pattern {entry.text!r} {fault}")
            else:
                yield entry

    def devices(self, devices: Mapping[str, Any]) -> Iterator[Entry]:
        """Yield the patterns of [devices] that can name devices."""
        for entry in self.strings(("devices", "include"), devices):
            if fault := pattern_fault(raw_path(entry.text)):
                self.problems.add(entry.line, f"the pattern {entry.text!r} {fault}")
            else:
                yield entry


def _path_fault(pattern: str) -> str:
    """Say why a pattern of [files] cannot name paths of the host; "" if it can."""
    if not pattern.startswith("/"):
        return "is relative; begin it with '/', because it names files of the host"
    if "\0" in pattern:
        return "has a NUL byte, which no path has"
    if pattern.endswith("/"):
        return f"ends in '/'; write {pattern + '**'!r} for everything in the directory"
    if not {"", ".", ".."}.isdisjoint(pattern[1:].split("/")):
        return "is not normal: leave out '.', '..' and doubled slashes"
    return ""
