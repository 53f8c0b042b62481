"""The manifest: everything that is in a jail, as one file for people to review and machines to stream.

`build_manifest` makes it of a closure and a file set. `dump_manifest` and `write_manifest` write its one
canonical form, and `parse_manifest` and `read_manifest` accept only that form. docs/manifest.md describes
the format, schema.json a single line of it.

records    the kinds of records, their fields and types
codec      write records as lines
reader     read lines, and check them
problems   explain what is wrong with a manifest that was refused
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.errors import ManifestError, Problem, unreadable, unwritable
from pkgjail.core.given import path_text
from pkgjail.core.model import DevicePattern, Header, Manifest
from pkgjail.core.untrusted import MANIFEST, read_descriptor, read_named
from pkgjail.manifest.codec import manifest_bytes
from pkgjail.manifest.records import DEPENDENCY, DEVICE, DROPPED, FILE, MISSING, PACKAGE, UNMET, schema_of
from pkgjail.storage.atomic import replace_file

if TYPE_CHECKING:
    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Closure, Distribution, FileSet, Policy


def build_manifest(  # noqa: PLR0913, PLR0917 - one for each stage before it
    policy: Policy,
    policy_digest: str,
    distribution: Distribution,
    architecture: str,
    closure: Closure,
    file_set: FileSet,
    source: str = "",
) -> Manifest:
    """Make a manifest of the stages' results, with every section sorted.

    `policy_digest` identifies the policy's content, `architecture` is the database's native one, `source` is
    what is recorded of the source (`pkgjail.core.sources`).
    This does not validate, since the results of the stages are tested there.
    """
    manifest = Manifest(
        header=Header(
            schema=1,
            distribution=distribution,
            architecture=architecture,
            policy=policy_digest,
            whitelists=policy.whitelists,
            blacklists=policy.blacklists,
            recommends=policy.recommends,
            essential=policy.essential,
            source=source,
        ),
        packages=PACKAGE.sort(closure.packages),
        dependencies=DEPENDENCY.sort(closure.dependencies),
        files=FILE.sort(file_set.entries),
        dropped=DROPPED.sort(file_set.dropped),
        missing=MISSING.sort(file_set.missing),
        unmet=UNMET.sort(closure.unmet),
        devices=DEVICE.sort(DevicePattern(pattern=rule.pattern, rule=rule.origin) for rule in policy.devices),
    )
    return replace(manifest, header=replace(manifest.header, schema=schema_of(manifest)))


def dump_manifest(manifest: Manifest) -> bytes:
    """Return the manifest's canonical form: equal manifests give equal bytes."""
    return manifest_bytes(manifest)


def manifest_digest(data: bytes) -> str:
    """Return the name of a manifest: `sha256:` and the digest of its canonical form in hex."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Read a manifest from its canonical form; messages call its source `name`.

    Raises `ManifestError` if this version of pkgjail would not have written `data`, with every problem
    (twenty at most) and its line.
    """
    from pkgjail.manifest.reader import content_problems, sound_manifest  # not needed to write one

    manifest = sound_manifest(data)
    if manifest is None or next(content_problems(manifest), None):
        # Only a manifest that is refused needs this module, and loading it costs time.
        from pkgjail.manifest.problems import manifest_problems

        raise ManifestError(manifest_problems(data, name))
    return manifest


def read_manifest(path: AnyPath) -> Manifest:
    """Read the manifest at `path`.

    Raises:
        ManifestError: as `parse_manifest`.
        MissingFileError, UnreadableError: there is none, or it cannot be read; each is an `OSError`, too.

    """
    path = path_text(path, "path")
    try:
        data = read_named(path, MANIFEST)
    except OSError as error:
        raise unreadable(error, path) from None
    name = os.fspath(path)
    return parse_manifest(_unpacked(data, name), name)


def parse_stream(descriptor: int, name: str) -> Manifest:
    """Read a manifest from `descriptor` to its end; messages call it `name`. Raises as `read_manifest`."""
    return parse_manifest(_unpacked(read_descriptor(descriptor, name, MANIFEST), name), name)


def _unpacked(data: bytes, name: str) -> bytes:
    """Return a manifest's bytes, also if it is kept packed by gzip(1). Raises `ManifestError`."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    from pkgjail.core.unpacking import UnpackError, unpack  # loads what packed files alone need

    try:
        return unpack(data, MANIFEST)
    except UnpackError as error:
        raise ManifestError([Problem(name, f"cannot unpack it by gzip: {error}")]) from error


def write_manifest(manifest: Manifest, path: AnyPath) -> str:
    """Write the manifest to `path` atomically, and return its digest.

    Raises:
        InputError: something other than a regular file is at `path`.
        UnwritableError: it cannot be written; it is an `OSError`, too. The old file stays as it was.

    """
    path = path_text(path, "path")
    data = dump_manifest(manifest)
    try:
        replace_file(path, data)
    except OSError as error:
        raise unwritable(error, path) from error
    return manifest_digest(data)
