"""Export a squashfs file system, by the program tar2sqfs of squashfs-tools-ng, which reads a tar archive.

The mksquashfs of squashfs-tools reads one too, but does not give the root directory the archive's owner.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from pkgjail.core.errors import PkgjailError
from pkgjail.core.untrusted import shortened
from pkgjail.export.image.archive import opened_again
from pkgjail.export.image.tar import TIME

PROGRAM = "tar2sqfs"
_GZIP = "gzip"
_MOST_SAID = 1000  # characters


def write(tar: int, descriptor: int, compression: str) -> None:
    """Write the file system of an archive's members into an empty file.

    Args:
        tar: a descriptor of the archive.
        descriptor: a descriptor of the file.
        compression: "gzip", which "" stands for, "zstd", or "lz4": that takes half a second for 550 MB, where
            the others take half a minute, and gives half as much again.

    Raises:
        PkgjailError: the program is missing or fails.

    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise PkgjailError(
            f"cannot export to squashfs: the program {PROGRAM} is not in PATH; install squashfs-tools-ng"
        )
    command = [
        program, "--quiet", "--force", "--no-skip", "--no-xattr", "--compressor", compression or _GZIP,
        opened_again(descriptor),
    ]  # fmt: skip
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(TIME)}  # of the file system itself
    os.lseek(tar, 0, os.SEEK_SET)
    done = subprocess.run(
        command, stdin=tar, capture_output=True, pass_fds=(descriptor,), env=environment, check=False
    )
    if done.returncode:
        words = (done.stderr or done.stdout).decode("utf-8", "replace").split()
        raise PkgjailError(
            f"cannot export to squashfs: {PROGRAM} ended with status {done.returncode}: "
            f"{shortened(' '.join(words), _MOST_SAID)}"
        )
