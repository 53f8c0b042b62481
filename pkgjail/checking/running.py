"""What the programs of the set say themselves: run in a jail of it, and listened to."""

from __future__ import annotations

import os
import select
import signal
import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.checking.compiler import compiler_wants
from pkgjail.checking.modules import perl_wants, python_wants
from pkgjail.checking.wants import Want
from pkgjail.errors import CommandError, DriftError, JailError, PkgjailError
from pkgjail.jail import default_environment, prepare_jail
from pkgjail.model import JailOptions, raw_path
from pkgjail.untrusted import in_memory, opened_below, parsing, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.checking.compiler import Runner
    from pkgjail.model import Manifest
    from pkgjail.names import Names
    from pkgjail.reporter import Reporter

# Of a program that is asked: seconds, milliseconds between looks at what it has written, and bytes of that
# and of a file. Loading all modules of Perl takes a few seconds, and the longest answer has 21 KiB.
_LONGEST = 300
_LOOK = 20
_MOST_WRITTEN = 1 << 20
_MOST_READ = 1 << 20
_TOO_MUCH = f"it writes more than {_MOST_WRITTEN >> 10} KiB"
_MOST_TOLD = 4000  # characters of a failure: a pipe takes them without waiting


class Ran(NamedTuple):
    """How a program ended, and what it wrote."""

    status: int
    out: bytes
    err: bytes


class UnansweredError(ValueError):
    """Why a program of the set has not said what it wants."""


def running_wants(manifest: Manifest, names: Names, root: bytes, reporter: Reporter) -> list[Want]:
    """What compilers, Python and Perl of the set want, by their own word.

    Raises:
        JailError: the jail cannot be set up here, or the host has changed.

    """
    inside = Inside(manifest, root)
    wants: list[Want] = []
    for done, (kind, ask) in enumerate(_ASKED):
        reporter.progress("asking", done, len(_ASKED))
        wants += answered(kind, ask(names, inside), inside)
    reporter.progress("asking", len(_ASKED), len(_ASKED))
    return wants


def answered(kind: str, wants: Iterator[Want], inside: Runner) -> Iterator[Want]:
    """These wants, and one more where a program's answer cannot be had, or understood."""
    try:
        with parsing(UnansweredError):
            yield from wants
    except UnansweredError as error:
        cause = f"asked what it wants, {error}"
        yield Want(path=inside.asked, kind=kind, wanted=b"", cause=cause, places=())


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
        self._root = root
        self.asked = b""

    def run(self, argv: Sequence[str], given: bytes = b"") -> Ran:
        """Run a program with `given` as its standard input; a command that is not there has status 127.

        Raises:
            JailError: the jail cannot be set up here.
            UnansweredError: it writes too much, or does not end.

        """
        self.asked = raw_path(argv[0])
        with in_memory(given) as source, in_memory(b"") as out, in_memory(b"") as err:
            failure, end = os.pipe()
            with warnings.catch_warnings():
                # Of fork in a process with threads; the child only enters the jail.
                warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
                child = os.fork()
            if child == 0:
                os._exit(self._enter(argv, (source.fileno(), out.fileno(), err.fileno()), end))
            os.close(end)  # the child's is the last one
            with open(failure, "rb") as said:
                status = _watch(child, failure, (out.fileno(), err.fileno()))
                why = said.read()
            out.seek(0)
            err.seek(0)
            ran = Ran(status, out.read(), err.read())
        if why:
            raise JailError(why.decode("utf-8", "backslashreplace"))
        return ran

    def read(self, place: bytes) -> bytes:
        """The beginning of a file of the set, as the host has it: all of it, if it is what a person wrote."""
        with opened_below(self._root, self._root.rstrip(b"/") + place) as descriptor:
            return os.read(descriptor, _MOST_READ)

    def _enter(self, argv: Sequence[str], streams: tuple[int, int, int], failure: int) -> int:
        """In the child: the command's status. Why there is none is written to `failure`."""
        try:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            return self._jail.run(argv)
        except CommandError as error:
            return error.exit_status
        except PkgjailError as error:
            why = str(error)
        except BaseException as error:  # noqa: BLE001 - nothing may run on in a fork
            why = repr(error)
        os.write(failure, shortened(why, _MOST_TOLD).encode("utf-8", "backslashreplace"))
        return 1


def _watch(child: int, failure: int, written: Sequence[int]) -> int:
    """The status of the process `child`, when it and its jail have ended: the pipe `failure` has an end then.

    They are killed at a limit.

    Raises:
        UnansweredError: they have reached one.

    """
    started = time.monotonic()
    ended = select.poll()
    ended.register(failure)
    why = ""
    while not why and not ended.poll(_LOOK):
        if time.monotonic() - started > _LONGEST:
            why = f"it does not end within {_LONGEST} s"
        elif any(os.fstat(file).st_size > _MOST_WRITTEN for file in written):
            why = _TOO_MUCH
    if why:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if any(os.fstat(file).st_size > _MOST_WRITTEN for file in written):
        why = _TOO_MUCH
    if why:
        raise UnansweredError(why)
    return status


_ASKED = (("compiler", compiler_wants), ("module", python_wants), ("module", perl_wants))
