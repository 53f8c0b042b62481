"""The manifest: all that a jail is, as one file for people to review and machines to stream.

`build_manifest` makes it from what the stages before found, `dump_manifest` and `write_manifest`
give it its one canonical form, `parse_manifest` and `read_manifest` take nothing but that form.
docs/manifest.md tells the format, and manifest.schema.json what one line may be.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pkgjail.errors import InputError, ManifestError, Problem
from pkgjail.manifest_lines import (
    BY_DEPENDENCY,
    BY_KEY,
    BY_PATH,
    BY_UNMET,
    SCHEMA,
    manifest_bytes,
)
from pkgjail.manifest_reader import content_problems, sound_manifest
from pkgjail.model import Header, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.model import Closure, Distribution, FileSet, Policy

# Filesystems on which a directory can't be synced say so with one of these.
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})


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
    manifest = sound_manifest(data)
    if manifest is None or next(content_problems(manifest), None):
        # Wanted for a manifest that is refused only; its tables would cost every other one.
        from pkgjail.manifest_problems import manifest_problems

        raise ManifestError(manifest_problems(data, name))
    return manifest


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read the manifest at `path`. Raises as `parse_manifest` does, and `OSError`."""
    with open(path, "rb") as file:
        return parse_manifest(file.read(), os.fspath(path))


def write_manifest(manifest: Manifest, path: str | os.PathLike[str]) -> str:
    """Write the manifest to `path` at one stroke, and return its digest.

    Whoever reads `path` sees the old file or the whole new one, whatever happens meanwhile: the
    bytes go to a new file beside it, reach the disk, and then take the name (rename(2)). The file
    gets the mode of any new file, 0666 less the umask. On any failure the old file stays and the
    new one is removed; after a SIGKILL or a power failure a `.pkgjail-*` file may be left.

    Raises `InputError` when something else than a regular file stands at `path`: a symlink is
    neither followed nor replaced, and a device is not overwritten. Raises `OSError` otherwise.
    """
    data = dump_manifest(manifest)
    parent, name = os.path.split(path)
    directory = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _refuse_special(name, directory, os.fspath(path))
        with _temporary(directory) as (temporary, descriptor):
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        _sync(directory)
    except OSError as error:
        error.filename = error.filename or os.fspath(path)  # a full disk doesn't say where
        raise
    finally:
        os.close(directory)
    return manifest_digest(data)


def _refuse_special(name: str, directory: int, path: str) -> None:
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
        raise InputError(
            [Problem("", f"cannot write the manifest to {path}: it is {what}; name another path")]
        )


@contextmanager
def _temporary(directory: int) -> Iterator[tuple[str, int]]:
    """A new file in `directory`: its name and a descriptor; removed if the block raises."""
    name = f".pkgjail-{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o666, dir_fd=directory)
    try:
        yield name, descriptor
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise


def _sync(directory: int) -> None:
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
