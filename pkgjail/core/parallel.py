"""Work in other processes: shares of it in as many as are asked for, or one thing beside another."""

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
    """Call `work`, which must be a module's own, with each of `shares`; yield results as they are done.

    `doing` is what it is called in a message ("hashing"). What `work` raises is raised here.

    Raises:
        PkgjailError: a process died.

    """
    # Wanted for much work only, and slow to import.
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    executor = ProcessPoolExecutor(
        processes, mp_context=get_context("fork"), initializer=_start_worker, initargs=(os.getpid(),)
    )
    try:
        with _unwarned():
            futures = [executor.submit(work, share) for share in shares]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise PkgjailError(
            f"cannot finish {doing}: a {doing} process was killed, perhaps for want of memory; try again"
        ) from error
    finally:
        # What runs is let finish: a share takes a moment. Nothing else is begun.
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` in a process of its own while the block runs, and wait for it at the block's end.

    For what may as well fail: nothing is heard of it.
    """
    with _unwarned():
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
def _unwarned() -> Iterator[None]:
    """Python 3.12 and later warn of fork in a process with threads, such as a progress bar's.

    These children touch nothing that a thread could have locked.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
        yield


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
