"""Helpers of both bills of materials: names of packages and files, digests, and identifiers.

A manifest has neither a time nor a random number, so neither has a bill of materials: identifiers that a
format requires are derived from the manifest's digest.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.families import ARCH, DEBIAN, RHEL, SUSE, family_of
from pkgjail.core.parallel import in_processes
from pkgjail.core.untrusted import real_directories
from pkgjail.export.common import host_files, refuse
from pkgjail.jails.host_mismatch import absent_paths, explain_absence
from pkgjail.manifest import dump_manifest, manifest_digest
from pkgjail.storage.digests import file_digests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import FileEntry, Manifest, Package

# Both formats require a time. A manifest has none, so that its bytes do not change.
NO_TIME = datetime(1970, 1, 1, tzinfo=timezone.utc)
# The types of package URLs by family; that of any other, which a backend of others has, is not known.
_TYPES = {ARCH: "alpm", DEBIAN: "deb", RHEL: "rpm", SUSE: "rpm", "alpine": "apk"}
_SHARES = 16


def package_url(package: Package, manifest: Manifest) -> tuple[str, str, str, str, dict[str, str]]:
    """Return type, namespace, name, version and qualifiers of a package URL; purl-spec, list of types."""
    distribution = manifest.header.distribution
    kind = _TYPES.get(family_of(distribution), "generic")
    version, qualifiers = package.version, {"arch": package.architecture}
    if kind == "rpm" and ":" in version:
        qualifiers["epoch"], _, version = version.partition(":")
    qualifiers["distro"] = "-".join(filter(None, (distribution.id, distribution.version)))
    return kind, distribution.id, package.name, version, qualifiers


def title(manifest: Manifest) -> str:
    """Return the subject's name: the whitelists."""
    return "+".join(manifest.header.whitelists) or "manifest"


def identity(manifest: Manifest) -> tuple[str, uuid.UUID]:
    """Return the manifest's digest, and a UUID derived from it (RFC 9562, version 5)."""
    digest = manifest_digest(dump_manifest(manifest))
    return digest, uuid.uuid5(uuid.NAMESPACE_URL, f"pkgjail:{digest}")


def hashed_files(manifest: Manifest, form: str) -> list[FileEntry]:
    """Return the regular files with a digest, which a bill of materials lists.

    Raises:
        InputError: there are none, or names that are not UTF-8, which JSON cannot express.

    """
    files = [entry for entry in host_files(manifest) if entry.sha256 is not None]
    if not files:
        why = f"cannot export to {form}: the manifest has no digests; resolve it with them"
        raise InputError([Problem("", why)])
    refuse(form, [e.path for e in files if not _is_text(e.path)], "the name is not UTF-8")
    return files


def _is_text(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


def sha1_digests(manifest: Manifest, files: Sequence[FileEntry], root: bytes) -> dict[bytes, str]:
    """Return the SHA-1 of each file, which SPDX requires; the content must match the manifest.

    Raises:
        InputError: files below `root` are missing or differ from the manifest; lists each.

    """
    there = real_directories(manifest.files, root)
    pairs = [(e.path, e.sha256 or "") for e in files if e.path.rpartition(b"/")[0] in there]
    shares = [pairs[start::_SHARES] for start in range(_SHARES)]
    processes = min(len(os.sched_getaffinity(0)), _SHARES)
    digests: dict[bytes, str] = {}
    for found in in_processes(partial(_share, root.rstrip(b"/")), shares, processes, "hashing"):
        digests.update(found)
    lacking = sorted(entry.path for entry in files if entry.path not in digests)
    if lacking:
        cause = explain_absence(manifest, root, len(absent_paths(files, root)), len(files))
        why = "missing, or different from the manifest: its SHA-1 is unknown"
        refuse("spdx", lacking, why, cause)
    return digests


def _share(prefix: bytes, share: Sequence[tuple[bytes, str]]) -> dict[bytes, str]:
    found = {}
    for path, expected in share:
        with suppress(OSError):
            sha1, sha256 = file_digests(prefix + path, "sha1", "sha256")
            if sha256 == expected:
                found[path] = sha1
    return found
