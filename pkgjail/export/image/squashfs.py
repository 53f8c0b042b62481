"""Export a squashfs file system, by the program mksquashfs of squashfs-tools, which reads a tar archive."""

from __future__ import annotations

import os
import shutil
import subprocess

from pkgjail.core.errors import PkgjailError
from pkgjail.core.untrusted import shortened
from pkgjail.export.image.archive import opened_again
from pkgjail.export.image.tar import TIME

PROGRAM = "mksquashfs"
_MODE = slice(100, 108)  # of the first member of an archive, in octal
_GZIP = "gzip"
_MOST_SAID = 1000  # characters


def write(tar: int, descriptor: int, compression: str) -> None:
    """Write the file system of an archive's members into an empty file.

    Args:
        tar: a descriptor of the archive, which begins with the root directory.
        descriptor: a descriptor of the file.
        compression: "gzip", which "" stands for, or "zstd".

    Raises:
        PkgjailError: the program is missing or fails.

    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise PkgjailError(
            f"cannot export to squashfs: the program {PROGRAM} is not in PATH; install squashfs-tools"
        )
    mode = os.pread(tar, _MODE.stop, 0)[_MODE]
    command = [
        program, "-", opened_again(descriptor), "-tar", "-noappend", "-quiet", "-no-progress", "-no-xattrs",
        "-comp", compression or _GZIP, "-mkfs-time", str(TIME), "-all-time", str(TIME),
        "-root-mode", mode.rstrip(b"\0").decode(), "-root-uid", "0", "-root-gid", "0",
    ]  # fmt: skip
    # The program refuses a time of both the environment and the command line.
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
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
