"""Make an `Audit` of what the supervisor counted: add packages, rules, and lines of the build's own files."""

from __future__ import annotations

import marshal
import posixpath
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.audit.model import Audit, Listing, LookUp, Nowhere, Program
from pkgjail.audit.owners import Owners
from pkgjail.manifest import dump_manifest, manifest_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import Manifest, PackageDatabase

_MOST_PROGRAMS = 20
"""The most programs that are named for a path."""


class Source(NamedTuple):
    """Where a manifest's files come from: the root directory, and its packages, None without a database."""

    root: bytes
    database: PackageDatabase | None


def make_audit(manifest: Manifest, argv: Sequence[str], status: int, counted: bytes, source: Source) -> Audit:
    """Return the evidence of a run.

    Args:
        manifest: what the jail had.
        argv: the command.
        status: its exit status.
        counted: what `pkgjail.audit.supervisor.observe` returned.
        source: the host, or another root that the manifest was made from.

    Raises:
        DatabaseError: a record of the database cannot be read.

    """
    found: Any = marshal.loads(counted)  # noqa: S302 - of our own process, and of no other
    owners = Owners(source.database, source.root)
    look_ups = _look_ups(manifest, found["paths"], owners)
    return Audit(
        manifest=manifest_digest(dump_manifest(manifest)),
        family=source.database.family if source.database else "",
        command=tuple(argv),
        status=status,
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


def _look_ups(manifest: Manifest, paths: Sequence[Any], owners: Owners) -> tuple[LookUp, ...]:
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
            )
        )
    return tuple(made)


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
