"""Debian's repositories: Packages files, and Contents for paths (DebianRepository/Format in the wiki)."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from pkgjail.backends.debian.relations import parse_entry
from pkgjail.core.architectures import known_architecture
from pkgjail.core.text import raw_path, text_path
from pkgjail.core.untrusted import FILE_LISTS
from pkgjail.repositories.formats import LoadedRepository
from pkgjail.repositories.metadata import Metadata, as_file, fault, first_packed, matching, parsing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pkgjail.core.model import DependencyGroup, Package
    from pkgjail.repositories.formats import Offer, PoolIndex

# Neither a field, nor the continuation of one, nor empty.
_BAD_LINE = re.compile(rb"^(?![A-Za-z0-9][!-9;-~]*:|[ \t]+[^ \t\n]|\n|\Z)", re.MULTILINE)
_STANZA = re.compile(rb"(?:[^\n]+\n)+")
# libsolv recurses for each alternative, and crashes with about ten thousand.
_MAX_ALTERNATIVES = 2000
_NEEDED = (b"Package", b"Version", b"Architecture")
_ESSENTIAL = b"\nEssential: yes\n"
_REQUIRED = b"\nPriority: required\n"  # Policy 2.5
_NAME = re.compile(rb"^Package: (.*)$", re.MULTILINE)
_SIZE = re.compile(rb"^Size: ([0-9]{1,18})$", re.MULTILINE)
_VERSION = re.compile(rb"^Version: (.*)$", re.MULTILINE)
_VERSIONED = re.compile(r"(\S+) (<<|<=|=|>=|>>) (\S+)")
# `path  section/name,section/name`: the last white space is before the packages.
_LINE = re.compile(rb"^(.*\S)[ \t]+(\S+)$", re.MULTILINE)


class DebianFormat:
    """`formats.RepositoryFormat` for Debian and its derivatives."""

    family = "debian"
    disttype = "DISTTYPE_DEB"
    everywhere = "all"
    multilib = False
    fields = ("Depends", "Pre-Depends")

    def architecture(self, machine: str) -> str:
        """Return `amd64` for `x86_64`."""
        known = known_architecture(machine)
        return known.debian if known else machine

    def load(
        self, solv: Any, solv_pool: Any, path: str, architecture: str, *, contents: bool
    ) -> tuple[LoadedRepository, ...]:
        """Read each Packages file at or below `path`."""
        found = tuple(_indices(path, architecture))
        if not found:
            raise fault(
                path,
                f"it has no Packages file for {architecture}",
                "name such a file, the directory of a suite (dists/bookworm), or apt's lists",
            )
        return tuple(_load(solv, solv_pool, one, architecture, contents=contents) for one in found)

    def parse(self, text: str, index: PoolIndex) -> tuple[DependencyGroup, ...]:
        """Parse one requirement in the syntax of Policy 7.1."""
        del index
        return parse_entry(text)

    def base(self, loaded: Collection[LoadedRepository]) -> tuple[tuple[str, ...], ...]:
        """Return the packages that are marked `Essential: yes`."""
        return tuple((name,) for name in sorted(frozenset().union(*(one.essential for one in loaded))))

    def alternatives(self, text: str) -> tuple[str, ...]:
        """Return the names between `|`."""
        return tuple(part.split()[0].partition(":")[0] for part in text.split(" | "))

    def groups(self, text: str, kind: str) -> tuple[DependencyGroup, ...]:
        """Return none: Debian's requirements are plain."""
        del text, kind
        return ()

    def is_satisfied(self, text: str, offer: Offer) -> bool:
        """Return true: libsolv has the same rules."""
        del text, offer
        return True

    def native(self, text: str) -> str:
        """Add the parentheses of Policy 7.1."""
        return " | ".join(_VERSIONED.sub(r"\1 (\2 \3)", part) for part in text.split(" | "))


def _indices(path: str, architecture: str) -> Iterator[str]:
    """The Packages files: `path` itself, or those of the first directory below it that has any."""
    if not os.path.isdir(path):
        yield path
        return
    for pattern in (
        "Packages",
        f"binary-{architecture}/Packages",
        f"*/binary-{architecture}/Packages",
        f"*_binary-{architecture}_Packages",
    ):
        found = matching(path, pattern)
        yield from found
        if found:
            return


def _load(solv: Any, solv_pool: Any, path: str, architecture: str, *, contents: bool) -> LoadedRepository:
    metadata = Metadata()
    data = metadata.unpacked(path)
    stanzas = _check(path, data)
    name, lists = _place(path, architecture)
    repository = solv_pool.add_repo(name)
    # libsolv prefers a package to those that it replaces. For dpkg, Replaces is only about files.
    with parsing(path), as_file(solv, data.replace(b"\nReplaces:", b"\nX-Replaces:")) as file:
        read = repository.add_debpackages(file)
    if not read or repository.nsolvables != stanzas:
        raise fault(path, f"libsolv read {repository.nsolvables} of its {stanzas} packages")
    return LoadedRepository(
        name=name,
        metadata=metadata,
        handle=repository,
        essential=frozenset(_marked(data, _ESSENTIAL)),
        preferred=frozenset(_marked(data, _REQUIRED)),
        groups={},
        contents=partial(_contents, metadata, lists) if contents and lists else None,
        downloads=partial(_downloads, data),
    )


def _check(path: str, data: bytes) -> int:
    """Return the number of stanzas. Raises `DatabaseError` for a line that libsolv would ignore."""
    bad = _BAD_LINE.search(data)
    if bad:
        line = data.count(b"\n", 0, bad.start()) + 1
        raise fault(path, "neither a field nor the continuation of one", line=line)
    if data and not data.endswith(b"\n"):
        raise fault(path, "the file ends within a line", line=data.count(b"\n") + 1)
    if data.count(b"|") > _MAX_ALTERNATIVES:
        for match in _STANZA.finditer(data):
            if match[0].count(b"|") > _MAX_ALTERNATIVES:
                line = data.count(b"\n", 0, match.start()) + 1
                raise fault(path, f"this stanza has more than {_MAX_ALTERNATIVES} alternatives", line=line)
    counts = {data.count(b"\n%s:" % name) + data.startswith(b"%s:" % name) for name in _NEEDED}
    stanzas = data.count(b"\n\n") + bool(data) - data.endswith(b"\n\n")
    if counts != {stanzas}:
        for match in _STANZA.finditer(data):
            absent = [name for name in _NEEDED if (b"\n" + match[0]).count(b"\n%s:" % name) != 1]
            if absent:
                why = f"this stanza does not have one field '{absent[0].decode()}'"
                raise fault(path, why, line=data.count(b"\n", 0, match.start()) + 1)
        stanzas = counts.pop()  # empty lines in a row
    return stanzas


def _marked(data: bytes, line: bytes) -> Iterator[str]:
    """The names of packages with `line` among their fields."""
    at = data.find(line)
    while at >= 0:
        name = _NAME.search(data, data.rfind(b"\n\n", 0, at) + 1)
        if name:
            yield text_path(name[1].strip())
        end = data.find(b"\n\n", at)  # of the stanza, which may have the line twice
        at = data.find(line, end) if end >= 0 else -1


def _downloads(data: bytes, packages: Collection[Package]) -> dict[str, int]:
    """Return the download sizes in bytes by key: libsolv does not read them from this format."""
    keys = {(raw_path(one.name), raw_path(one.version)): one.key for one in packages}
    names = {name for name, _ in keys}
    found = {}
    for stanza in data.split(b"\n\n"):
        name = _NAME.search(stanza)
        if name is None or name[1] not in names:
            continue
        version, size = _VERSION.search(stanza), _SIZE.search(stanza)
        key = keys.get((name[1], version[1])) if version else None
        if key is not None and size:
            found[key] = int(size[1])
    return found


def _place(path: str, architecture: str) -> tuple[str, tuple[str, ...]]:
    """Return the repository's name, from only the last parts of `path`, and its Contents files."""
    directory, name = os.path.split(os.path.abspath(path))
    stem = name.partition("_binary-")[0] if "_binary-" in name else ""
    parts = directory.split("/")
    if stem:  # apt's lists, whose names have '_' for each '/' in the URL
        label = stem.rpartition("_dists_")[2].replace("_", "/")
        places = [os.path.join(directory, f"{stem}_")]
    elif parts[-1].startswith("binary-"):
        label = "/".join(parts[-3:-1])
        places = ["/".join(parts[:-1]) + "/", "/".join(parts[:-2]) + "/"]
    else:
        label, places = name.partition(".")[0], [directory + "/"]
    for place in places:
        found = [first_packed(f"{place}Contents-{one}") for one in (architecture, "all")]
        if any(found):
            return label, tuple(filter(None, found))
    return label, ()


def _contents(
    metadata: Metadata, lists: tuple[str, ...], packages: Collection[Package]
) -> dict[str, tuple[bytes, ...]]:
    """Return the files that Contents lists for each of `packages`, by key; it lists no directories."""
    keys = {raw_path(package.name): package.key for package in packages}
    found: dict[str, set[bytes]] = {key: set() for key in keys.values()}
    for path in lists:
        data = metadata.unpacked(path, FILE_LISTS)
        if data and not data.endswith(b"\n"):
            raise fault(path, "the file ends within a line", line=data.count(b"\n") + 1)
        for match in _LINE.finditer(data):
            for owner in match[2].split(b","):
                key = keys.get(owner.rpartition(b"/")[2])
                if key is not None:
                    found[key].add(b"/" + match[1].removeprefix(b"./"))
    return {key: tuple(sorted(paths)) for key, paths in found.items()}
