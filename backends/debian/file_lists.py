"""Read the paths of packages: dpkg's file lists and conffiles, where diversions put them."""

from __future__ import annotations

import os
import re
from functools import cached_property
from typing import TYPE_CHECKING

from pkgjail.backends.debian.diversions import Diversions
from pkgjail.core.text import text_path
from pkgjail.core.untrusted import DATABASE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pkgjail.backends.debian.root import Root
    from pkgjail.backends.debian.status import Installation
    from pkgjail.core.model import Package

# Parts of paths that are not normal. No file list that dpkg wrote has them.
_UNUSUAL_PARTS = (b"//", b"/\n", b"/./", b"/.\n", b"/../", b"/..\n", b"\0")
_SCRIPTS = (b".preinst", b".postinst", b".prerm", b".postrm", b".config")
_WORD = re.compile(rb"[A-Za-z0-9_.+-]+")
_CONFFILE_FLAGS = ("obsolete", "remove-on-upgrade")


class FileLists:
    """The file lists of `installations` (by package key), each read when needed."""

    def __init__(self, root: Root, installations: Mapping[str, Installation]) -> None:
        """Read nothing yet."""
        self._root = root
        self._installations = installations
        self._diversions = Diversions(root)
        self._owned: dict[str, tuple[bytes, ...]] = {}

    def owned(self, package: Package) -> tuple[bytes, ...]:
        """Return the paths in the package's list file, as moved by dpkg-divert(1)."""
        found = self._owned.get(package.key)
        if found is None:
            found = self._owned[package.key] = self._read(package)
        return found

    def _read(self, package: Package) -> tuple[bytes, ...]:
        path = self._list_file(package)
        data = self._root.read(path, limit=DATABASE)
        if data and not data.endswith(b"\n"):
            raise self._root.error(f"{text_path(path)} was cut off within a line", _reinstall(package))
        # The first line, "/.", is the root directory; the others are normal in every list by dpkg.
        root, data = ([b"/"], data[3:]) if data.startswith(b"/.\n") else ([], data)
        lines = data.split(b"\n")[:-1]
        relative = data.count(b"\n/") + data.startswith(b"/") != len(lines)
        if relative or any(part in data for part in _UNUSUAL_PARTS):
            lines = self._root.normal_paths(path, lines, first=1 + len(root))
        if not self._diversions.targets.keys().isdisjoint(lines):
            lines = [self._diversions.moved(line, package) for line in lines]
        return tuple(dict.fromkeys(root + lines))

    def owners(self, paths: Collection[bytes], packages: Collection[Package]) -> dict[bytes, str]:
        """Return the key of the package that owns each of `paths`, in one pass over all lists."""
        found: dict[bytes, str] = {}
        recorded = {path for path, (target, _) in self._diversions.targets.items() if target in paths}
        recorded.update(paths)
        unique = frozenset(paths)
        directories = _outermost({path[: path.rfind(b"/") + 1] for path in recorded})
        for package in packages if paths else ():
            if package.key in self._owned or self._may_own(package, recorded, directories):
                for path in unique.intersection(self.owned(package)):
                    found.setdefault(path, package.key)
        return found

    def _may_own(self, package: Package, recorded: set[bytes], directories: Collection[bytes]) -> bool:
        """Return whether a list has one of the lines `recorded`, which are below `directories`.

        Most lists have nothing below any of these, which a search in their text shows quickly.
        """
        data = self._root.read(self._list_file(package), limit=DATABASE)
        return any(directory in data for directory in directories) and not recorded.isdisjoint(
            data.split(b"\n")
        )

    def conffiles(self, package: Package) -> frozenset[bytes]:
        """Return the Conffiles in the status file that the package still ships, as diversions moved them.

        The field is maintained by dpkg. The list in `info/*.conffiles` is as unpacked: it does not show
        which conffiles became obsolete, or are to be removed on upgrade.
        """
        value = self._installations[package.key].fields.get("Conffiles", "")
        found = set()
        for line in value.split("\n"):
            words = line.strip(" ").rsplit(" ", 2)
            if line and (len(words) == 1 or not words[0].startswith("/")):
                raise self._root.error(
                    f"the field Conffiles of the package {package.key} has the line {line!r}",
                    _reinstall(package),
                )
            if words[-1] not in _CONFFILE_FLAGS and line:
                name = line.strip(" ").rpartition(" ")[0]
                found.add(self._diversions.moved(name.encode("utf-8", "surrogateescape"), package))
        return frozenset(found) & frozenset(self.owned(package)) if found else frozenset()

    def digests(self, package: Package) -> dict[bytes, str]:
        """Return the digests in the package's md5sums file, which older packages may lack; deb-md5sums(5)."""
        path = self._list_file(package)[: -len(b".list")] + b".md5sums"
        found = {}
        for line in self._root.read(path, missing=b"", limit=DATABASE).split(b"\n"):
            digest, _, name = line.partition(b"  ")
            if name:
                recorded = b"/" + name.removeprefix(b"./").lstrip(b"/")
                found[self._diversions.moved(recorded, package)] = f"md5:{digest.decode('ascii', 'replace')}"
        return found

    def script_words(self, package: Package) -> frozenset[bytes]:
        """Return the words in the package's maintainer scripts; deb-postinst(5) and its like.

        A script that cannot be read has none: the words only show what a file is for.
        """
        stem = self._list_file(package)[: -len(b".list")]
        found: set[bytes] = set()
        for script in _SCRIPTS:
            name = stem + script
            if name.rpartition(b"/")[2] in self._info:
                found.update(_WORD.findall(self._root.read(name, missing=b"", limit=DATABASE)))
        return frozenset(found)

    @cached_property
    def _info(self) -> frozenset[bytes]:
        return frozenset(self._root.names(self._root.admin(b"info")))

    def _list_file(self, package: Package) -> bytes:
        return self._root.admin(b"info", self.info_name(package) + b".list")

    def info_name(self, package: Package) -> bytes:
        """Return the name of the package's files in `info`, before the dot.

        It has the architecture if the package may be installed for several. That is format 1 of the
        directory (as the file `format` says), since dpkg 1.16.
        """
        same = self._installations[package.key].multi_arch == "same"
        return os.fsencode(package.key if same and self._lists_name_architecture else package.name)

    @cached_property
    def _lists_name_architecture(self) -> bool:
        return self._root.read(self._root.admin(b"info", b"format"), missing=b"0").strip() == b"1"


def _outermost(directories: Collection[bytes]) -> list[bytes]:
    """Those of `directories`, which end in a slash, that are not in another of them."""
    found: list[bytes] = []
    for directory in sorted(directories):
        if not found or not directory.startswith(found[-1]):
            found.append(directory)
    return found


def _reinstall(package: Package) -> str:
    return f"install {package.key} again"
