"""What the programs of the set say themselves: run in a jail of it, and listened to."""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.checking.compiler import compiler_wants
from pkgjail.checking.modules import perl_wants, python_wants
from pkgjail.errors import CommandError, DriftError, JailError, PkgjailError
from pkgjail.jail import default_environment, prepare_jail
from pkgjail.model import JailOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.checking.wants import Want
    from pkgjail.model import Manifest
    from pkgjail.names import Names
    from pkgjail.reporter import Reporter

_FAILED = 125


class Ran(NamedTuple):
    """How a program ended, and what it wrote."""

    status: int
    out: bytes
    err: bytes


def running_wants(manifest: Manifest, names: Names, root: bytes, reporter: Reporter) -> list[Want]:
    """What compilers, Python and Perl of the set want, by their own word.

    Raises:
        JailError: the jail cannot be set up here, or the host has changed.

    """
    inside = Inside(manifest, root)
    wants: list[Want] = []
    for done, ask in enumerate((compiler_wants, python_wants, perl_wants)):
        reporter.progress("asking", done, 3)
        wants += ask(names, inside)
    reporter.progress("asking", 3, 3)
    return wants


class Inside:
    """Runs programs in a jail of one manifest, without network."""

    def __init__(self, manifest: Manifest, root: bytes) -> None:
        """Prepare the jail. Names that the host has gained do not matter. Raises `JailError`."""
        options = JailOptions(network=False, environment=default_environment())
        try:
            self._jail = prepare_jail(manifest, options, root=root)
        except DriftError as drift:
            if any(change != "was added" for _, change in drift.changes):
                raise
            self._jail = prepare_jail(manifest, replace(options, allow_drift=True), root=root)
        self._root = root.rstrip(b"/")

    def run(self, argv: Sequence[str], given: bytes = b"") -> Ran:
        """Run a program with `given` as its standard input; a command that is not there has status 127.

        Raises:
            JailError: the jail cannot be set up here.

        """
        with (
            tempfile.TemporaryFile() as source,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            source.write(given)
            source.seek(0)
            with warnings.catch_warnings():
                # Of fork in a process with threads; the child only enters the jail.
                warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
                child = os.fork()
            if child == 0:
                os._exit(self._enter(argv, (source.fileno(), out.fileno(), err.fileno())))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            out.seek(0)
            err.seek(0)
            ran = Ran(status, out.read(), err.read())
        if status == _FAILED:
            raise JailError(ran.err.decode("utf-8", "backslashreplace").strip() or "cannot enter the jail")
        return ran

    def read(self, place: bytes) -> bytes:
        """The content of a file of the set, as the host has it."""
        with open(self._root + place, "rb") as file:
            return file.read()

    def _enter(self, argv: Sequence[str], streams: tuple[int, int, int]) -> int:
        """In the child: the command's status."""
        try:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            return self._jail.run(argv)
        except CommandError as error:
            return error.exit_status
        except PkgjailError as error:
            os.write(2, str(error).encode("utf-8", "backslashreplace"))
            return _FAILED
        except BaseException as error:  # noqa: BLE001 - nothing may run on in a fork
            os.write(2, repr(error).encode("utf-8", "backslashreplace"))
            return _FAILED
