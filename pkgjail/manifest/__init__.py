"""The manifest: all that a jail is, as one file for people to review and machines to stream.

`build_manifest` makes it from what the stages before found, `dump_manifest` and `write_manifest`
give it its one canonical form, `parse_manifest` and `read_manifest` take nothing but that form.
docs/manifest.md tells the format, and schema.json what one line may be.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import ManifestError
from pkgjail.core.model import Header, Manifest
from pkgjail.core.untrusted import MANIFEST, read_descriptor, read_named
from pkgjail.manifest.codec import BY_DEPENDENCY, BY_KEY, BY_PATH, BY_UNMET, SCHEMA, manifest_bytes
from pkgjail.storage.atomic import replace_file

if TYPE_CHECKING:
    from pkgjail.core.model import Closure, Distribution, FileSet, Policy


def build_manifest(  # noqa: PLR0913, PLR0917 - one for each stage that it gathers from
    policy: Policy,
    policy_digest: str,
    distribution: Distribution,
    architecture: str,
    closure: Closure,
    file_set: FileSet,
) -> Manifest:
    """Gather what the stages found into a manifest, every section sorted.

    `policy_digest` identifies the policy's content, `architecture` is the database's native one.
    Does not validate: what comes from the stages is right by their own tests.
    """
    return Manifest(
        header=Header(
            schema=SCHEMA,
            distribution=distribution,
            architecture=architecture,
            policy=policy_digest,
            whitelists=policy.whitelists,
            blacklists=policy.blacklists,
            recommends=policy.recommends,
            essential=policy.essential,
        ),
        packages=tuple(sorted(closure.packages, key=BY_KEY)),
        dependencies=tuple(sorted(closure.dependencies, key=BY_DEPENDENCY)),
        files=tuple(sorted(file_set.entries, key=BY_PATH)),
        dropped=tuple(sorted(file_set.dropped, key=BY_PATH)),
        missing=tuple(sorted(file_set.missing, key=BY_PATH)),
        unmet=tuple(sorted(closure.unmet, key=BY_UNMET)),
    )


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest's canonical form: equal manifests give equal bytes."""
    return manifest_bytes(manifest)


def manifest_digest(data: bytes) -> str:
    """The name of a manifest everywhere: `sha256:` and the digest of its canonical form in hex."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Read a manifest from its canonical form; `name` stands in messages for where it came from.

    Raises `ManifestError` with everything that is wrong (twenty problems at most), each with its
    line, when `data` is not what pkgjail of this version would have written.
    """
    from pkgjail.manifest.reader import content_problems, sound_manifest  # who writes does not read

    manifest = sound_manifest(data)
    if manifest is None or next(content_problems(manifest), None):
        # Wanted for a manifest that is refused only; its tables would cost every other one.
        from pkgjail.manifest.problems import manifest_problems

        raise ManifestError(manifest_problems(data, name))
    return manifest


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read the manifest at `path`, as `untrusted.read_named` does. Raises as `parse_manifest` and that do."""
    return parse_manifest(read_named(path, MANIFEST), os.fspath(path))


def parse_stream(descriptor: int, name: str) -> Manifest:
    """Read the manifest that `descriptor` gives, to its end; `name` stands in messages. Raises likewise."""
    return parse_manifest(read_descriptor(descriptor, name, MANIFEST), name)


def write_manifest(manifest: Manifest, path: str | os.PathLike[str]) -> str:
    """Write the manifest to `path` at one stroke, and return its digest.

    Raises `InputError` when something else than a regular file stands at `path`, `OSError`
    otherwise; `writer.replace_file` says what then is left.
    """
    data = dump_manifest(manifest)
    replace_file(path, data)
    return manifest_digest(data)
