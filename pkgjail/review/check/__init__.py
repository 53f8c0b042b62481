"""Check whether a manifest is closed: it has everything that its files need in order to start.

Names are resolved in the manifest, by its own links (`pkgjail.core.paths`); contents are read from the host,
at the manifest's paths (`scan`). One module finds one kind of gap: `libraries` (by `ld_search`; `elf` reads
the files), `scripts`, `links`, and, by running programs of the set (`dynamic`), `compiler`, `modules` and
`languages`. `attribution` says who is responsible.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.given import path_bytes
from pkgjail.core.paths import Names
from pkgjail.core.reporter import SILENT
from pkgjail.core.sources import refuse_other_source
from pkgjail.core.untrusted import SETTINGS, read_below
from pkgjail.review.check.attribution import Attribution
from pkgjail.review.check.findings import Check, Finding, Gap
from pkgjail.review.check.ld_search import LdSearch
from pkgjail.review.check.libraries import library_gaps
from pkgjail.review.check.links import link_gaps
from pkgjail.review.check.scan import scan_files
from pkgjail.review.check.scripts import script_gaps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.core.reporter import Reporter
    from pkgjail.review.check.findings import FindingKind
    from pkgjail.review.check.scan import Scan

__all__ = ["Check", "Finding", "check_manifest", "open_ld_search"]


def check_manifest(
    manifest: Manifest,
    *,
    root: AnyPath = b"/",
    database: PackageDatabase | None = None,
    run: bool = True,
    reporter: Reporter = SILENT,
) -> Check:
    """Prove that `manifest` is closed, or say what is lacking, who is responsible, and how to fix it.

    Args:
        manifest: what the jail has.
        root: the directory that the manifest was resolved from.
        database: the package database of that root, which says who has on the host what the set lacks;
            None if there is none.
        run: also run the compilers, Python, Perl and other languages of the set, in a jail of it.
        reporter: receives progress ("reading", in shares of the files).

    Raises:
        JailError: `run`, and the jail cannot be set up here, or the host has changed.
        OSError: the root cannot be read, or one of its files is larger than any of its kind.
        SourceError: the manifest was made from another source.

    """
    root = path_bytes(root, "root")
    root = os.path.realpath(root)
    refuse_other_source(manifest, root)
    names = Names(manifest.files)
    scan = scan_files(manifest.files, root, reporter)
    gaps = [
        *library_gaps(names, scan.objects, _ld_search(names, scan, root), manifest.dependencies),
        *script_gaps(names, scan.scripts),
        *link_gaps(names),
        *_unknown(scan),
    ]
    if run:
        from pkgjail.review.check.dynamic import dynamic_gaps  # enters a jail

        gaps += dynamic_gaps(manifest, names, root, reporter)
    attribution = Attribution(manifest, root, database, gaps)
    # Several compilers need the same file of one header: report it once.
    unique = {(gap.path, gap.kind, gap.wanted): gap for gap in reversed(gaps)}
    reported = [gap for gap in unique.values() if attribution.is_reported(gap)]
    reported.sort(key=lambda gap: (gap.path, gap.kind, gap.wanted))
    return Check(
        findings=tuple(attribution.finding(gap) for gap in reported if not attribution.is_note(gap)),
        notes=tuple(attribution.finding(gap) for gap in reported if attribution.is_note(gap)),
        objects=len(scan.objects),
        scripts=len(scan.scripts),
        links=sum(entry.kind == "symlink" for entry in manifest.files),
    )


def open_ld_search(manifest: Manifest, *, root: bytes = b"/", reporter: Reporter = SILENT) -> LdSearch:
    """Return the ld.so search of a manifest, which finds the libraries of a program (`LdSearch.trace`)."""
    root = os.path.realpath(root)
    names = Names(manifest.files)
    return _ld_search(names, scan_files(manifest.files, root, reporter), root)


def _ld_search(names: Names, scan: Scan, root: bytes) -> LdSearch:
    def read(path: bytes) -> bytes:
        """Return the text of a file of the set, empty if it cannot be read."""
        found = names.find(path)
        # `_unknown` reports a file that cannot be read.
        if found.entry is None or found.entry.kind != "regular" or found.place in scan.unreadable:
            return b""
        return read_below(root, root.rstrip(b"/") + found.place, SETTINGS)

    return LdSearch(names, scan.objects, read)


def _unknown(scan: Scan) -> Iterator[Gap]:
    """Yield files that could not be read or understood, so that they do not pass for sound ones."""
    for path, why in scan.unreadable.items():
        yield _unknown_file(path, "unreadable", f"it cannot be read here ({why})")
    for path, why in scan.damaged.items():
        yield _unknown_file(path, "damaged", why)


def _unknown_file(path: bytes, kind: FindingKind, why: str) -> Gap:
    cause = f"{why}, so what it needs is not known"
    return Gap(path=path, kind=kind, wanted=path, cause=cause, candidates=(), optional=True)
