"""Builds that are run again from the same start, each with a private copy of what the build may write.

What the user binds writable is copied once, before the first run. Each run gets a copy of that copy, at the
same path inside: the paths that a build sees are equal, and the user's own files are never changed. Copies
share their content where the filesystem of TMPDIR has reflinks.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Union

from pkgjail.audit.differences import find_noise
from pkgjail.audit.model import Audit
from pkgjail.audit.outputs import take_outputs
from pkgjail.core.child import Child, first_ended
from pkgjail.core.errors import CommandError, PkgjailError, UsageError
from pkgjail.core.options import JailOptions
from pkgjail.core.reporter import SILENT
from pkgjail.core.text import text_path
from pkgjail.jails.run import default_environment, run_in_jail
from pkgjail.storage.copying import copy_tree
from pkgjail.storage.removal import remove_tree
from pkgjail.storage.scratch import scratch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from pkgjail.audit.differences import Noise
    from pkgjail.audit.outputs import Outputs
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import UserBind
    from pkgjail.core.reporter import Reporter
    from pkgjail.storage.baseline import Publisher

Runner = Callable[..., Union[int, Audit]]
"""A function that runs a command in a jail, with the arguments of `run_in_jail`."""

# So many seconds after the first run, the second one begins: archives record times in steps of two seconds.
_APART = 2.1
_MOST_LOG = 1 << 16  # bytes
_ATTEMPTS, _PAUSE = 100, 0.05  # seconds


def run_plainly(manifest: Manifest, argv: Sequence[str], options: JailOptions, **jail: Any) -> int:
    """Run a command in a jail without an audit, and return its exit status."""
    return run_in_jail(manifest, argv, options, **jail).returncode


class Rebuilt(NamedTuple):
    """One run: its exit status, what it put out, and the end of what it printed.

    `error` says why the command could not be run, if it could not. `audit` is that of an audited run.
    """

    status: int
    outputs: Outputs
    log: bytes
    error: str = ""
    audit: Audit | None = None


class Rebuilds:
    """Runs one command from the same start, with different manifests. Use it as a context manager.

    Raises:
        UsageError: the directory of outputs is in no writable bind.
        NamesError, OSError: what a bind shows cannot be copied.

    """

    def __init__(  # noqa: PLR0913 - all but three by keyword
        self,
        argv: Sequence[str],
        options: JailOptions | None,
        output: bytes,
        *,
        root: bytes = b"/",
        publisher: Publisher | None = None,
        reporter: Reporter = SILENT,
    ) -> None:
        """Check where the outputs will be.

        Args:
            argv: the command.
            options: the options of its jails; None as for `run_in_jail`.
            output: the directory with the outputs, in a writable bind: its path on the host, or inside.
            root: the directory that the manifests were resolved from.
            publisher: as for `run_in_jail`.
            reporter: receives the warnings of the first run.

        """
        self._options = JailOptions(environment=default_environment()) if options is None else options
        self._argv = tuple(argv)
        self._output = _find_output(self._options.binds, output)
        self._jail = {"root": root, "publisher": publisher}
        self._reporter = reporter
        self._stack = ExitStack()
        self._place = b""
        self._count = 0
        self._begun: dict[bytes, Child[Rebuilt]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._place = os.fsencode(stack.enter_context(scratch("rebuild")))
            found = os.stat(self._place)
            own = {(found.st_dev, found.st_ino)}
            os.mkdir(self._place + b"/start")
            for number, bind in enumerate(self._options.binds):
                if bind.writable:
                    copy_tree(os.path.realpath(bind.source), self._start(number), leaving_out=own)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._kill(list(self._begun))  # of an iterator that nobody closed
        finally:
            self._stack.close()

    def start_digest(self) -> str:
        """Return `sha256:` and a digest of what the runs start from: options, names, modes, contents."""
        environment = {name: value for name, value in self._options.environment.items() if name != "TERM"}
        options = replace(self._options, environment=dict(sorted(environment.items())), inputs=())
        digest = hashlib.sha256(repr(options).encode("utf-8", "backslashreplace"))
        for number, bind in enumerate(self._options.binds):
            if bind.writable:
                digest.update(b"bind %d %b\0" % (number, bind.destination))
                for path, each in sorted(take_outputs(self._start(number), 0).files.items()):
                    facts = f"{each.kind} {each.mode} {each.size} {each.sha256}".encode()
                    digest.update(b"%b\0%b\0%b\0" % (path, facts, each.target))
        return f"sha256:{digest.hexdigest()}"

    def run(self, manifest: Manifest, through: Runner = run_plainly) -> Rebuilt:
        """Run the command once, and return what came of it.

        Raises:
            DriftError, JailError, SourceError: as `run_in_jail`; but a command that cannot be executed is a
                result like any other.
            NamesError, OSError: a copy cannot be made.

        """
        return next(self.run_all([manifest], through=through))[1]

    def run_all(
        self, manifests: Iterable[Manifest], jobs: int = 1, through: Runner = run_plainly
    ) -> Iterator[tuple[int, Rebuilt]]:
        """Run the command with each manifest, at most `jobs` at a time; it is taken when it is needed.

        Yields the number (from 0) of each manifest with its result, in the order in which the runs end. The
        runs that have not ended are killed if the iterator is closed. Raises as `run`.
        """
        waiting = enumerate(manifests)
        running: dict[Child[Rebuilt], int] = {}
        with self._ending():
            while True:
                while len(running) < jobs and (one := next(waiting, None)) is not None:
                    running[self._begin(one[1], through)] = one[0]
                if not running:
                    return
                child = first_ended(running)
                found = child.result()
                yield running.pop(child), found

    def run_twice(self, manifest: Manifest, through: Runner = run_plainly) -> tuple[Rebuilt, Rebuilt, Noise]:
        """Run the command twice, the first time `through` a function; return both results and their noise.

        The second run begins later by as much as makes all recorded times differ. Raises as `run`.
        """
        with self._ending():
            one = self._begin(manifest, through)
            time.sleep(_APART)
            other = self._begin(manifest, run_plainly)
            first, second = one.result(), other.result()
        return first, second, find_noise(first.outputs, second.outputs)

    def _start(self, number: int) -> bytes:
        """Return where the first copy of a bind is."""
        return b"%s/start/%d" % (self._place, number)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """At the end of the block, kill the runs that were begun in it and have not ended."""
        before = set(self._begun)
        try:
            yield
        finally:
            self._kill(set(self._begun) - before)

    def _kill(self, places: Iterable[bytes]) -> None:
        for place in places:
            self._begun.pop(place).kill()
            _remove(place)

    def _begin(self, manifest: Manifest, through: Runner) -> Child[Rebuilt]:
        self._count += 1
        place = b"%s/%d" % (self._place, self._count)
        os.mkdir(place)
        log = place + b".log"
        child = Child(partial(self._build, place, log, manifest, through), log, "a build")
        self._begun[place] = child
        return child

    def _build(self, place: bytes, log: bytes, manifest: Manifest, through: Runner) -> Rebuilt:
        """Run the command with copies in `place`, which is removed at the end. In a process of its own."""
        binds = tuple(self._bind(number, bind, place) for number, bind in enumerate(self._options.binds))
        options = replace(self._options, binds=binds, inputs=(), warn_of_inputs=False)
        error = ""
        try:
            found = through(manifest, self._argv, options, **self._jail)
        except CommandError as failure:
            found, error = failure.status, str(failure)
        audit = found if isinstance(found, Audit) else None
        status = found.status if isinstance(found, Audit) else found
        number, below = self._output
        outputs = take_outputs(binds[number].source + below, status)
        end = _end_of(log)
        _remove(place)
        return Rebuilt(status=status, outputs=outputs, log=end, error=error, audit=audit)

    def _bind(self, number: int, bind: UserBind, place: bytes) -> UserBind:
        if not bind.writable:
            return bind
        copy = b"%s/%d" % (place, number)
        copy_tree(self._start(number), copy)
        return replace(bind, source=copy)


def refuse_unequal(first: Rebuilt, second: Rebuilt) -> None:
    """Refuse a build of which two equal runs end differently, or that puts out nothing.

    Raises:
        CommandError: the command could not be run.
        PkgjailError: says what is wrong otherwise.

    """
    if first.error:
        raise CommandError(first.error, first.status)
    if first.status != second.status:
        raise PkgjailError(
            f"cannot compare builds: two equal runs of the command ended with the statuses {first.status} "
            f"and {second.status}; make it repeatable first"
        )
    if not first.outputs.files:
        said = text_path(first.log[-1000:]).strip()
        raise PkgjailError(
            f"cannot compare builds: the command ended with status {first.status} and left nothing in the "
            f"directory of outputs; name the one that it writes to"
            + (f". It said last:\n{said}" if said else "")
        )


def _find_output(binds: Sequence[UserBind], output: bytes) -> tuple[int, bytes]:
    """Return the number of the writable bind that has the directory, and its path below the bind's source."""
    real = os.path.realpath(output)
    found = [
        (len(top), number, path[len(top) :])
        for number, bind in enumerate(binds)
        if bind.writable
        for path, top in ((real, os.path.realpath(bind.source)), (output, bind.destination))
        if (path + b"/").startswith(top.rstrip(b"/") + b"/")
    ]
    if not found:
        raise UsageError(
            f"cannot find the outputs in {text_path(output)}: no writable bind has it; bind the directory, "
            "or one above it"
        )
    _, number, below = max(found)
    return number, below


def _end_of(log: bytes) -> bytes:
    with open(log, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _MOST_LOG))
        return file.read()


def _remove(place: bytes) -> None:
    """Remove the copies of a run. After a kill, its processes may still be making files for a moment."""
    parent, name = os.path.split(place)
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            if _is_removed(descriptor, os.fsdecode(name)):
                return
            time.sleep(_PAUSE)
        remove_tree(descriptor, os.fsdecode(name))
    finally:
        os.close(descriptor)


def _is_removed(parent: int, name: str) -> bool:
    """Try to remove a directory; return False if somebody makes files in it."""
    try:
        remove_tree(parent, name)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True
