"""Standard input, output and error of the command line, even if they are closed or cannot be written.

Two things would go wrong without this module. A file opened while one of descriptors 0 to 2 is closed gets
that number; then errors are written into the file, or a jail inherits it. And a stream that cannot be
written (a full disk, a pipe without a reader, a terminal that has hung up) raises in the middle of finished
work, or when Python exits, whose status is then 120. This module imports little, for it is on the way into
a jail.
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
    """A descriptor whose writes never raise. `error` is the first failure; all later output is dropped.

    It is dropped so that the output is cut off at one place and has no gaps.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write `data`, or drop it; return the number of bytes consumed."""
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
    """Open the closed ones of descriptors 0 to 2; make `sys.stdout` and `sys.stderr` streams of `Output`.

    A closed descriptor becomes a placeholder that can be neither read nor written (EBADF, as before) and
    that no other program inherits: for the command in a jail it is closed, as it was for the caller.
    """
    for number in range(_ERROR + 1):
        if not _is_open(number):
            os.open(os.devnull, os.O_PATH)  # takes the lowest free number, which is this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the process's life
    sys.stdout = _stream(_OUTPUT, sys.stdout)
    sys.stderr = _stream(_ERROR, sys.stderr)


def output_fault() -> OSError | None:
    """Return the error that kept standard output from being written, or None."""
    try:
        sys.stdout.flush()
    except OSError as error:  # a stream that `open_streams` did not make
        return error
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, Output) else None


def is_reader_gone(error: OSError) -> bool:
    """Return whether output was lost because its reader has closed the pipe, as with `| head`."""
    return error.errno == errno.EPIPE


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _stream(number: int, before: TextIO | None) -> TextIO:
    """Return a stream of `Output` in the encoding of `before`; what cannot be encoded is escaped."""
    raw = Output(number, "w", closefd=False)
    encoding = before.encoding if before is not None else "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=number == _ERROR or raw.isatty(),
    )


def _wait_for_room(descriptor: int) -> None:
    """Wait until a descriptor can be written; another process may have made it non-blocking."""
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
