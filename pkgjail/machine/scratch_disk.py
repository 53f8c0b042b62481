"""A disk for what commands write: an empty ext4 file system in a file without a name."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

from pkgjail.core.errors import os_error_text
from pkgjail.core.text import printable
from pkgjail.machine.model import MachineError
from pkgjail.storage.locations import temporary_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "mke2fs"
_LIKELY = "/usr/sbin:/sbin"
# No journal: the disk is thrown away.
_OPTIONS = ("-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=1,nodiscard")


@contextlib.contextmanager
def scratch_disk(size: int) -> Iterator[tuple[int, bool]]:
    """Make a disk of `size` bytes, which takes space as it is written to; it is gone after the `with` block.

    Yields:
        A descriptor of it, and that it can be written.

    Raises:
        MachineError: the program is missing or fails, or there is no room.

    """
    program = shutil.which(PROGRAM, path=os.environ.get("PATH", os.defpath) + os.pathsep + _LIKELY)
    if program is None:
        raise MachineError(
            f"cannot make a scratch disk: the program {PROGRAM} is not in PATH; install e2fsprogs"
        )
    place = temporary_directory()
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(dir=place))
            file.truncate(size)
            _format(program, file.fileno())
        except OSError as error:
            why = os_error_text(error, place)
            raise MachineError(f"cannot make a scratch disk: {why}; set TMPDIR") from error
        yield file.fileno(), True


def _format(program: str, descriptor: int) -> None:
    path = os.path.join("/proc/self/fd", str(descriptor))
    done = subprocess.run(
        [program, *_OPTIONS, path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        pass_fds=(descriptor,),
        check=False,
        errors="replace",
    )
    if done.returncode:
        said = printable(" ".join(done.stderr.split()))
        raise MachineError(f"cannot make a scratch disk: {PROGRAM}: {said}; if it is full, set TMPDIR")
