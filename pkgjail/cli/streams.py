"""Standard input, output and error of the command line, whatever of them is closed or cannot be written.

Two things go wrong without this. A file that is opened while one of descriptors 0 to 2 is closed takes its
number, and then errors are written into it, or a jail gets it. And a stream that cannot be written (a full
disk, a pipe that nobody reads, a terminal that has hung up) raises in the middle of work that has been done,
or at Python's exit, which then ends with 120. Light: on the way into a jail.
"""

from __future__ import annotations

import errno
import io
import os
import sys

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from typing import Any, TextIO

_OUTPUT, _ERROR = 1, 2


class Output(io.FileIO):
    """A descriptor to write to that never raises: `error` is the first failure, and what follows is dropped.

    Dropped, so that what was written has an end and no holes.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write `data`, or drop it; how many bytes are done with."""
        while self.error is None:
            try:
                written = super().write(data)
            except OSError as error:
                self.error = error
                break
            if written is not None:
                return written
            _wait_for_room(self.fileno())
        return len(data)


def open_streams() -> None:
    """Open what is closed of descriptors 0 to 2, and make `sys.stdout` and `sys.stderr` streams of `Output`.

    A closed one becomes a placeholder that can be neither read nor written (EBADF, as before), and that
    no other program inherits: the command in a jail has it closed, as the caller had.
    """
    for number in range(_ERROR + 1):
        if not _is_open(number):
            os.open(os.devnull, os.O_PATH)  # takes the lowest number that is free, which is this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the process's life
    sys.stdout = _stream(_OUTPUT, sys.stdout)
    sys.stderr = _stream(_ERROR, sys.stderr)


def lost_output() -> OSError | None:
    """What kept standard output from being written, if anything did."""
    try:
        sys.stdout.flush()
    except OSError as error:  # a stream that `open_streams` has not made
        return error
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, Output) else None


def is_reader_gone(error: OSError) -> bool:
    """Whether output was lost because its reader has had enough, as with `| head`."""
    return error.errno == errno.EPIPE


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _stream(number: int, before: TextIO | None) -> TextIO:
    """A stream of `Output`, in the encoding of the one before; what that cannot write it escapes."""
    raw = Output(number, "w", closefd=False)
    encoding = before.encoding if before is not None else "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=number == _ERROR or raw.isatty(),
    )


def _wait_for_room(descriptor: int) -> None:
    """Wait until a descriptor can be written to, that another process has set to not block."""
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
