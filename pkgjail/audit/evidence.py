"""Make an `Audit` of what the supervisor counted: add packages, rules, and lines of the build's own files."""

from __future__ import annotations

import marshal
import posixpath
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.audit.answers import kind_of
from pkgjail.audit.mentions import BuildFiles
from pkgjail.audit.model import Audit, Listing, LookUp, Nowhere, Program
from pkgjail.audit.owners import Owners
from pkgjail.core.untrusted import read_below
from pkgjail.manifest import dump_manifest, manifest_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.audit.model import Mention
    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.core.options import UserBind

_LARGEST = 1 << 20  # bytes of a file with macros that is read
_MOST_PROGRAMS = 20
"""The most programs that are named for a path."""


class Source(NamedTuple):
    """Where a manifest's files come from: the root directory, and its packages, None without a database."""

    root: bytes
    database: PackageDatabase | None


class Run(NamedTuple):
    """A run that was seen.

    `counted` is what `pkgjail.audit.supervisor.observe` returned; `binds` are the binds of the jail.
    """

    argv: Sequence[str]
    status: int
    counted: bytes
    binds: Sequence[UserBind]


def make_audit(manifest: Manifest, run: Run, source: Source) -> Audit:
    """Return the evidence of a run in a jail of `manifest`.

    Raises:
        DatabaseError: a record of the source's package database cannot be read.

    """
    found: Any = marshal.loads(run.counted)  # noqa: S302 - of our own process, and of no other
    owners = Owners(source.database, source.root)
    binds = {bind.destination: bind.source for bind in run.binds}
    own = [fields[0] for fields in found["paths"] if fields[2] == "bind" and fields[1] == "regular"]
    build_files = BuildFiles.read(own, binds)
    look_ups = _look_ups(manifest, found["paths"], owners, build_files)
    look_ups += _listed(found["listings"], look_ups, owners, build_files, source.root)
    return Audit(
        manifest=manifest_digest(dump_manifest(manifest)),
        family=source.database.family if source.database else "",
        architecture=manifest.header.architecture,
        command=tuple(run.argv),
        status=run.status,
        events=sum(sum(look_up.calls.values()) for look_up in look_ups) + sum(n[2] for n in found["nowhere"]),
        unread=found["unread"],
        rings=found["rings"],
        folded=found["folded"],
        programs=tuple(_program(*fields) for fields in sorted(found["programs"])),
        look_ups=look_ups,
        listings=_listings(found["listings"], owners),
        nowhere=tuple(Nowhere(directory=d, names=n, asked=c) for d, n, c in sorted(found["nowhere"])),
    )


def _program(number: int, path: bytes, script: bytes, parent: int) -> Program:
    return Program(number=number, path=path, script=script, parent=parent)


def _look_ups(
    manifest: Manifest, paths: Sequence[Any], owners: Owners, build_files: BuildFiles
) -> tuple[LookUp, ...]:
    """Return the paths with their owners: those of the manifest for what is inside, or else the source's."""
    inside = {entry.path: entry.owners for entry in manifest.files}
    rules = {dropped.path: dropped.rule for dropped in manifest.dropped}
    absent = [fields for fields in paths if fields[1] == "absent" and fields[3] != "absent"]
    of_files = owners.of_files([fields[0] for fields in absent if fields[3] != "directory"])
    of_directories = owners.of_directories([fields[0] for fields in absent if fields[3] == "directory"])
    made = []
    for path, kind, area, source, clue, calls, programs in sorted(paths):
        if kind != "absent":
            having = inside.get(path, ())
        elif path in of_directories:
            having = of_directories[path]
        else:
            having = (of_files[path],) if path in of_files else ()
        counts = sorted(programs.items(), key=lambda item: (-item[1], item[0]))[:_MOST_PROGRAMS]
        made.append(
            LookUp(
                path=path,
                inside=kind,
                area=area,
                source=source,
                clue=clue,
                owners=tuple(having),
                rule=rules.get(path, "") if kind == "absent" else "",
                calls=dict(sorted(calls.items())),
                programs=tuple(sorted(counts)),
                mentions=build_files.tests_for(path) if kind == "absent" and source != "absent" else (),
            )
        )
    return tuple(made)


def _listed(
    listings: Sequence[tuple[bytes, list[bytes]]],
    look_ups: Sequence[LookUp],
    owners: Owners,
    build_files: BuildFiles,
    root: bytes,
) -> tuple[LookUp, ...]:
    """Return the names that a listing lacked and the build's own files name, as if it had asked for them."""
    by_path = {look_up.path: look_up for look_up in look_ups}
    found: dict[bytes, tuple[tuple[Mention, ...], LookUp]] = {}
    for directory, names in listings:
        named = build_files.naming(
            directory, names, lambda path: read_below(root, _below(root, path), _LARGEST)
        )
        for name, mentions in named.items():
            path = posixpath.join(directory, name)
            if path not in by_path:
                found[path] = mentions, by_path[directory]
    of_files = owners.of_files(found)
    of_directories = owners.of_directories([path for path in found if path not in of_files])
    made = []
    for path, (mentions, listing) in sorted(found.items()):
        kind = kind_of(_below(root, path))
        if kind != "absent":
            made.append(
                LookUp(
                    path=path,
                    inside="absent",
                    area="manifest",
                    source=kind,
                    clue="listed",
                    owners=(of_files[path],) if path in of_files else of_directories.get(path, ()),
                    calls={"list": sum(listing.calls.values())},
                    programs=listing.programs,
                    mentions=mentions,
                )
            )
    return tuple(made)


def _below(root: bytes, path: bytes) -> bytes:
    return root.rstrip(b"/") + path


def _listings(listings: Sequence[tuple[bytes, list[bytes]]], owners: Owners) -> tuple[Listing, ...]:
    """Return the directories that were listed, with what they lacked counted by package."""
    joined = {directory: [posixpath.join(directory, name) for name in names] for directory, names in listings}
    every = {path for paths in joined.values() for path in paths}
    of = owners.of_files(every)
    several = owners.of_directories(every - of.keys())
    made = []
    for directory, paths in joined.items():
        counts = Counter(
            key for path in paths for key in ([of[path]] if path in of else several.get(path, ("",)))
        )
        made.append(Listing(path=directory, hidden=dict(sorted(counts.items()))))
    return tuple(made)
