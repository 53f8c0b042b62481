"""Small manifests from a few lines of text, for tests.

    a 1                           a package for amd64, its version and perhaps its size in bytes
    w.toml:1 -> a                 an edge; the words that ask are the target's name
    a -> b [Pre-Depends] b | c    the same with its field and its words
    /usr/                         a directory
    /usr/bin/a 12 of a,b          a regular file of 12 bytes that two packages list
    /usr/bin/x -> a of a          a symbolic link
    /etc/f 3 of a, conffile       its origin; behind a colon, its detail
    /usr/lib/f 3 #aa of a         its content, of which the digest is made
    dropped /usr/share/doc docs.ignore:1: doc
    missing /usr/share/man/m absent of a

`essential` is a source of edges as ever. Directories above a path come by themselves, owned by nobody.
"""

from __future__ import annotations

import hashlib
import re
from textwrap import dedent
from typing import TYPE_CHECKING, Any, get_args

from pkgjail.core.model import (
    Closure,
    Dependency,
    Distribution,
    Dropped,
    FileEntry,
    FileSet,
    Header,
    Manifest,
    Missing,
    MissingReason,
    Origin,
    Package,
    Policy,
)
from pkgjail.core.text import raw_path
from pkgjail.manifest import build_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence


_ORIGINS: dict[str, Origin] = {origin: origin for origin in get_args(Origin)}
_REASONS: dict[str, MissingReason] = {reason: reason for reason in get_args(MissingReason)}
_EDGE = re.compile(r"(?P<source>\S+) -> (?P<target>\S+)(?: \[(?P<kind>[^]]+)\](?: (?P<text>.+))?)?")
_FILE = re.compile(
    r"(?P<path>/\S*)(?: -> (?P<target>\S+))?(?: (?P<size>\d+))?(?: #(?P<content>\S+))?"
    r"(?: of (?P<owners>[^ ,]+(?:,[^ ,]+)*))?(?:, (?P<origin>[a-z]+)(?:: (?P<detail>.+))?)?"
)


def manifest_of(text: str, *, whitelists: Sequence[str] = ("w",), blacklists: Sequence[str] = ()) -> Manifest:
    """Return the manifest that `text` describes."""
    packages: list[Package] = []
    edges: list[Dependency] = []
    files: dict[bytes, FileEntry] = {}
    dropped: list[Dropped] = []
    missing: list[Missing] = []
    for line in filter(None, map(str.strip, dedent(text).splitlines())):
        word, _, rest = line.partition(" ")
        if word == "dropped":
            path, _, rule = rest.partition(" ")
            dropped.append(Dropped(path=raw_path(path), rule=rule))
        elif word == "missing":
            path, reason, _, owners = rest.split()
            missing.append(Missing(path=raw_path(path), reason=_REASONS[reason], owners=_keys(owners)))
        elif word.startswith("/"):
            _add_file(files, line)
        elif " -> " in line:
            edges.append(_edge(line))
        else:
            name, version, *size = line.split()
            packages.append(
                Package(name=name, version=version, architecture="amd64", size=int(size[0]) if size else 0)
            )
    return build_manifest(
        Policy(whitelists=tuple(whitelists), blacklists=tuple(blacklists), packages=()),
        f"sha256:{'0' * 64}",
        Distribution(id="debian", version="12"),
        "amd64",
        Closure(packages=tuple(packages), dependencies=tuple(edges), reasons={}),
        FileSet(entries=tuple(files.values()), dropped=tuple(dropped), missing=tuple(missing)),
    )


def files_alone(files: tuple[FileEntry, ...], *, whitelists: Sequence[str] = ()) -> Manifest:
    """Return a manifest of these files, sorted by path, without packages."""
    header = Header(
        schema=1,
        distribution=Distribution(id="debian", version="12"),
        architecture="amd64",
        policy="sha256:0",
        whitelists=tuple(whitelists),
        blacklists=(),
        recommends=False,
        essential=False,
    )
    return Manifest(header=header, packages=(), dependencies=(), files=files)


def _keys(names: str | None) -> tuple[str, ...]:
    return tuple(sorted(f"{name}:amd64" for name in (names or "").split(",") if name))


def _edge(line: str) -> Dependency:
    match = _EDGE.fullmatch(line)
    assert match is not None, line
    source, name = match["source"], match["target"]
    is_rule = source == "essential" or ":" in source
    kind = match["kind"] or (
        "Depends" if not is_rule else "essential" if source == "essential" else "whitelist"
    )
    return Dependency(
        source=source if is_rule else f"{source}:amd64",
        target=f"{name}:amd64",
        kind=kind,
        text=match["text"] or name,
    )


def _add_file(files: dict[bytes, FileEntry], line: str) -> None:
    match = _FILE.fullmatch(line)
    assert match is not None, line
    path = raw_path(match["path"])
    place = path.rstrip(b"/")
    above = place.rpartition(b"/")[0]
    while above and above not in files:
        files[above] = FileEntry(path=above, kind="directory", mode=0o755, origin="parent")
        above = above.rpartition(b"/")[0]
    owners = _keys(match["owners"])
    fields: dict[str, Any] = {"kind": "directory", "mode": 0o755}
    if match["target"]:
        fields = {"kind": "symlink", "mode": 0o777, "target": raw_path(match["target"])}
    elif not path.endswith(b"/"):
        content = (match["content"] or "").encode()
        sha256 = hashlib.sha256(content).hexdigest() if match["content"] else None
        size = int(match["size"]) if match["size"] else None
        fields = {"kind": "regular", "mode": 0o644, "size": size, "sha256": sha256}
    files[place] = FileEntry(
        path=place,
        owners=owners,
        origin=_ORIGINS[match["origin"] or ("package" if owners else "parent")],
        detail=match["detail"] or "",
        **fields,
    )
