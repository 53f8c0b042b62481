"""Compare files with the package manager's own record of them."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.core.parallel import in_processes
from pkgjail.core.paths import Names
from pkgjail.core.untrusted import real_directories
from pkgjail.review.verify.result import Difference
from pkgjail.storage.digests import file_digests

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.core.reporter import Reporter

_SHARES = 16


class PackageRecords:
    """The records that the package database of a root has of a manifest's files."""

    def __init__(
        self, manifest: Manifest, root: bytes, database: PackageDatabase | None, reporter: Reporter
    ) -> None:
        self._manifest = manifest
        self._prefix = root.rstrip(b"/")
        self._database = database
        self._reporter = reporter
        self._names = Names(manifest.files)
        self._versions = {package.key: package.version for package in manifest.packages}
        self._records: dict[str, Mapping[bytes, str]] = {}

    def annotate(self, differences: Iterable[Difference]) -> Iterator[Difference]:
        """Yield the differences, each with what its packages' records say."""
        for difference in differences:
            yield replace(difference, package_note=self._note(difference))

    def compare_files(self) -> Iterator[Difference]:
        """Yield every file of the set that differs from its package's record; conffiles have no record."""
        directories = real_directories(self._manifest.files, self._prefix)
        entries = [
            entry
            for entry in self._manifest.files
            if entry.kind == "regular"
            and entry.origin == "package"
            and entry.path.rpartition(b"/")[0] in directories
        ]
        expected = {}
        for entry in entries:
            recorded = self._recorded(entry.path, entry.owners)
            if recorded is not None and os.access(self._prefix + entry.path, os.R_OK):
                expected[entry.path] = (entry, *recorded)
        found = self._digests({path: algorithm for path, (_, _, algorithm, _) in expected.items()})
        for path, (entry, key, algorithm, digest) in expected.items():
            if found[path] != digest:
                detail = f"its {algorithm} digest is {found[path]}, and {key} installed {digest}"
                yield Difference(path=path, what="package", detail=detail, owners=entry.owners)

    def _note(self, difference: Difference) -> str:
        versions = "; ".join(filter(None, map(self._version, difference.owners)))
        if difference.what != "content":
            return versions
        recorded = self._recorded(difference.path, difference.owners)
        if recorded is None:
            return versions
        key, algorithm, digest = recorded
        try:
            same = file_digests(self._prefix + difference.path, algorithm) == (digest,)
        except OSError:
            return versions
        comparison = "it is as" if same else "it differs from what"
        return "; ".join(filter(None, (f"{comparison} {key} installed", versions)))

    def _version(self, key: str) -> str:
        """Return what happened to a package since the manifest was made, or ""."""
        if self._database is None:
            return ""
        now = self._database.packages.get(key)
        if now is None:
            return f"{key} is no longer installed"
        before = self._versions.get(key, now.version)
        return "" if now.version == before else f"{key} is {now.version} here, {before} in the manifest"

    def _recorded(self, path: bytes, owners: Sequence[str]) -> tuple[str, str, str] | None:
        """Return the package that recorded a digest of the file, the algorithm, and the digest in hex."""
        for key in owners:
            recorded = self._record(key).get(path)
            if recorded is not None:
                algorithm, _, digest = recorded.partition(":")
                return key, algorithm, digest
        return None

    def _record(self, key: str) -> Mapping[bytes, str]:
        """Return a package's digests by the manifest's paths, whose links include those of the /usr merge."""
        if key not in self._records:
            package = None if self._database is None else self._database.packages.get(key)
            listed = {} if package is None or self._database is None else self._database.digests(package)
            self._records[key] = {self._place(path): digest for path, digest in listed.items()}
        return self._records[key]

    def _place(self, path: bytes) -> bytes:
        directory, _, name = path.rpartition(b"/")
        return self._names.find(directory).place.rstrip(b"/") + b"/" + name

    def _digests(self, algorithms: Mapping[bytes, str]) -> dict[bytes, str]:
        """Return the digests of files, each by its own algorithm, read in parallel."""
        files = sorted(algorithms.items())
        shares = [files[start::_SHARES] for start in range(_SHARES)]
        processes = min(len(os.sched_getaffinity(0)), _SHARES)
        found: dict[bytes, str] = {}
        results = in_processes(partial(_digest_share, self._prefix), shares, processes, "hashing")
        for done, share in enumerate(results, start=1):
            found.update(share)
            self._reporter.progress("comparing with packages", done, _SHARES)
        return found


def _digest_share(prefix: bytes, share: Sequence[tuple[bytes, str]]) -> dict[bytes, str]:
    return {path: file_digests(prefix + path, algorithm)[0] for path, algorithm in share}
