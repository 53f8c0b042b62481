"""Whether a manifest is closed: all that a file of the set needs of others to start is in the set.

Names are resolved in the manifest, by its own links (`pkgjail.core.paths`); contents are read from the
host, through the manifest's paths. One module a question: `loading` for libraries (`elf` reads the
files), `scripts`, `links`, `compiler`, `modules`; `blame` says who is responsible.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.paths import Names
from pkgjail.core.reporter import SILENT
from pkgjail.core.untrusted import SETTINGS, read_below
from pkgjail.review.check.attribution import Blame
from pkgjail.review.check.file_facts import read_facts
from pkgjail.review.check.findings import Check, Finding, Want
from pkgjail.review.check.ld_search import Loader
from pkgjail.review.check.links import link_wants
from pkgjail.review.check.objects import object_wants
from pkgjail.review.check.scripts import script_wants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.core.reporter import Reporter
    from pkgjail.review.check.file_facts import Facts
    from pkgjail.review.check.findings import FindingKind

__all__ = ["Check", "Finding", "check_manifest", "open_loader"]


def check_manifest(
    manifest: Manifest,
    *,
    root: bytes = b"/",
    database: PackageDatabase | None = None,
    run: bool = True,
    reporter: Reporter = SILENT,
) -> Check:
    """Prove that the set of `manifest` is closed, or say what is lacking, who took it away, and what to do.

    Args:
        manifest: what the jail holds.
        root: the directory that it was resolved from.
        database: the package database of that root, which tells who has on the host what the set
            lacks; None where there is none.
        run: ask the compilers, Python and Perl of the set as well, in a jail of it.
        reporter: hears of progress by shares of files ("reading").

    Raises:
        JailError: `run`, and the jail cannot be set up here, or the host has changed.
        OSError: the root cannot be read, or a file of it is larger than any of its kind.

    """
    root = os.path.realpath(root)
    names = Names(manifest.files)
    facts = read_facts(manifest.files, root, reporter)
    wants = [
        *object_wants(names, facts.objects, loader_of(names, facts, root)),
        *script_wants(names, facts.scripts),
        *link_wants(names),
        *_unknown(facts),
    ]
    if run:
        from pkgjail.review.check.in_jail import running_wants  # enters a jail

        wants += running_wants(manifest, names, root, reporter)
    blame = Blame(manifest, root, database, wants)
    # Several compilers want the same of one header: once is enough.
    single = {(want.path, want.kind, want.wanted): want for want in reversed(wants)}
    told = [want for want in single.values() if not blame.is_void(want)]
    told.sort(key=lambda want: (want.path, want.kind, want.wanted))
    return Check(
        findings=tuple(blame.finding(want) for want in told if not blame.is_note(want)),
        notes=tuple(blame.finding(want) for want in told if blame.is_note(want)),
        objects=len(facts.objects),
        scripts=len(facts.scripts),
        links=sum(entry.kind == "symlink" for entry in manifest.files),
    )


def open_loader(manifest: Manifest, *, root: bytes = b"/", reporter: Reporter = SILENT) -> Loader:
    """The dynamic loader of a manifest, to ask what it would load (`Loader.trace`)."""
    root = os.path.realpath(root)
    names = Names(manifest.files)
    return loader_of(names, read_facts(manifest.files, root, reporter), root)


def loader_of(names: Names, facts: Facts, root: bytes) -> Loader:
    """A loader over facts that were read."""

    def read(path: bytes) -> bytes:
        found = names.find(path)
        # One that cannot be read is told by itself.
        if found.entry is None or found.entry.kind != "regular" or found.place in facts.unreadable:
            return b""
        return read_below(root, root.rstrip(b"/") + found.place, SETTINGS)

    return Loader(names, facts.objects, read)


def _unknown(facts: Facts) -> Iterator[Want]:
    """What could not be read, or makes no sense, is told, and not taken for sound."""
    unknown: dict[FindingKind, Mapping[bytes, str]] = {
        "unreadable": facts.unreadable,
        "damaged": facts.damaged,
    }
    for kind, files in unknown.items():
        for path, why in files.items():
            said = why if kind == "damaged" else f"it cannot be read here ({why})"
            cause = f"{said}, so what it needs is not known"
            yield Want(path=path, kind=kind, wanted=path, cause=cause, places=(), optional=True)
