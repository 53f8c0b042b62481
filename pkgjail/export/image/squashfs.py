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
# Of the first member of an archive: the mode and the owner's numbers, in octal or (tar(5)) in binary.
_ROOT = (slice(100, 108), slice(108, 116), slice(116, 124))
_GZIP = "gzip"
_MOST_SAID = 1000  # characters


def write(tar: int, descriptor: int, compression: str, *, all_of: int | None = TIME) -> None:
    """Write the file system of an archive's members into an empty file.

    Args:
        tar: a descriptor of the archive, which begins with the root directory.
        descriptor: a descriptor of the file.
        compression: "gzip", which "" stands for, or "zstd".
        all_of: the time of all names; None for that of each member.

    Raises:
        PkgjailError: the program is missing or fails.

    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise PkgjailError(
            f"cannot export to squashfs: the program {PROGRAM} is not in PATH; install squashfs-tools"
        )
    first = os.pread(tar, _ROOT[-1].stop, 0)
    mode, uid, gid = (_number(first[field]) for field in _ROOT)
    command = [
        program, "-", opened_again(descriptor), "-tar", "-noappend", "-quiet", "-no-progress", "-no-xattrs",
        "-comp", compression or _GZIP, "-mkfs-time", str(TIME),
        *([] if all_of is None else ["-all-time", str(all_of)]),
        "-root-mode", f"{mode:o}", "-root-uid", str(uid), "-root-gid", str(gid),
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


def _number(field: bytes) -> int:
    return int.from_bytes(field[1:], "big") if field[0] & 0x80 else int(field.rstrip(b"\0"), 8)
