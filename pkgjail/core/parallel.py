"""Work in other processes: shares of it in several of them, or one task alongside another."""

from __future__ import annotations

import os
import signal
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from pkgjail.core.errors import PkgjailError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Share = TypeVar("Share")
    Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1


def in_processes(
    work: Callable[[Share], Result], shares: Sequence[Share], processes: int, doing: str
) -> Iterator[Result]:
    """Call `work`, a function of a module, with each of `shares`; yield the results as they come.

    `doing` names the work in messages ("hashing"). What `work` raises is raised here.

    Raises:
        PkgjailError: a process died.

    """
    # Slow to import, and needed only for much work.
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    executor = ProcessPoolExecutor(
        processes, mp_context=get_context("fork"), initializer=_start_worker, initargs=(os.getpid(),)
    )
    try:
        with without_fork_warning():
            futures = [executor.submit(work, share) for share in shares]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise PkgjailError(
            f"cannot finish {doing}: a {doing} process was killed, perhaps for want of memory; try again"
        ) from error
    finally:
        # Let running shares finish, which takes a moment, and start no others.
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def run_alongside(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` in a process of its own while the block runs, and wait for it at the block's end.

    The result is ignored, and so is a failure.
    """
    with without_fork_warning():
        child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.waitpid(child, 0)


@contextmanager
def without_fork_warning() -> Iterator[None]:
    """Silence the warning of Python 3.12 and later about fork in a process with threads (a progress bar).

    The child processes here touch nothing that a thread could have locked.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
        yield


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and die when it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with(parent)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its `parent` ends (prctl(2), PR_SET_PDEATHSIG)."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
