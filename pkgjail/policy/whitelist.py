"""Read one whitelist, without the lists that it includes: TOML as docs/policy.md describes it."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from pkgjail.core.devices import pattern_fault
from pkgjail.core.globs import glob_fault
from pkgjail.core.model import record
from pkgjail.core.text import raw_path
from pkgjail.policy.lists import Entry
from pkgjail.policy.toml_reader import TableReader, read_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.policy.lists import ListProblems
    from pkgjail.policy.toml_lines import Key

FAMILIES = ("alpine", "arch", "debian", "rhel", "suse")
"""Families that a whitelist may name, including those without a backend."""


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
    document = read_document(data, "whitelist", problems)
    if document is None:
        return None
    return _Reader(problems, document.lines, {*FAMILIES, family}).whitelist(document.table)


class _Reader(TableReader):
    """Makes a `Whitelist` of tomllib's result. `lines` are those of `locate`."""

    def __init__(self, problems: ListProblems, lines: Mapping[Key, int], families: set[str]) -> None:
        super().__init__(problems, lines)
        self.families = families

    def whitelist(self, top: Mapping[str, Any]) -> Whitelist:
        """Return the whitelist of a whole document."""
        self.check_keys((), top, {"include", "packages", "files", "devices", "options"})
        packages = self.table(top, "packages")
        self.check_keys(("packages",), packages, self.families, "family")
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
