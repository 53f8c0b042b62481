"""Shared locks that keep layers and environments from being removed while a jail uses them (flock(2)).

If a whiteout overlay were half removed, hidden names of the host would appear. Other programs ignore these
locks: a logout removes runtime directories, and the epilog of a batch job what the user has in memory. An
overlay shows at once that files are gone, so layers in use are also watched. Entering a jail imports this
module, so it must stay cheap to import.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

_LAST_STANDARD = 2
_INTERVAL_SECONDS = 1.0


def layer_directories(steps: Iterable[tuple[Any, ...]]) -> list[bytes]:
    """Return the directories of the layers that assembled steps use (`pkgjail.sandbox.steps.assemble`)."""
    return [os.path.dirname(step[2]) for step in steps if step[0] in ("Overlay", "MaskedOverlay")]


def lock_shared(paths: Iterable[bytes]) -> list[int]:
    """Lock directories or files, given by their real paths; returns descriptors for `unlock`.

    Raises:
        OSError: one of them does not exist, or is being removed.

    """
    locks: list[int] = []
    try:
        for path in paths:
            locks.append(_open(path))
            fcntl.flock(locks[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
            _refuse_renamed(locks[-1], path)
    except BaseException:
        unlock(locks)
        raise
    return locks


def _open(path: bytes) -> int:
    """Open a path; the command does not inherit the descriptor, which is none of the standard ones.

    Those may be closed here, and belong to the command.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor > _LAST_STANDARD:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LAST_STANDARD + 1)
    finally:
        os.close(descriptor)


def _refuse_renamed(descriptor: int, path: bytes) -> None:
    if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def unlock(locks: Iterable[int]) -> None:
    """Release the locks of `lock_shared`."""
    for descriptor in locks:
        os.close(descriptor)


class LayerMonitor:
    """Warns once, within a second, if a layer is removed or changed while a jail shows it.

    A check takes one fstatat(2) a layer. inotify(7) would be faster, but a user may have 128 instances
    of it, and more jails than that.
    """

    def __init__(self, layers: Mapping[bytes, int], warn: Callable[[str], None]) -> None:
        """Prepare to watch layers: their directories, with the descriptors that `lock_shared` returned."""
        self._layers = layers
        self._warn = warn
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start. The thread receives no signals: those are for the one that waits for the jail."""
        import threading  # takes a millisecond, while the jail is being set up

        self._before = {path: _state(descriptor) for path, descriptor in self._layers.items()}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pkgjail-watch", daemon=True)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def stop(self) -> None:
        """Stop, if it was started."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_INTERVAL_SECONDS):
            for path, descriptor in self._layers.items():
                if _state(descriptor) != self._before[path]:
                    from pkgjail.core.parameters import parameter  # not needed to enter

                    with contextlib.suppress(OSError, ValueError):  # nobody reads the warning
                        self._warn(_REMOVED.format(os.fsdecode(path), parameter("plan='binds'")))
                    return


_REMOVED = (
    "the running jail is losing its files: {} was removed or changed; end it and run it again. If a logout "
    "or a job's epilog removes such directories, set XDG_RUNTIME_DIR to one that stays, or use {}"
)


def _state(directory: int) -> tuple[int, int] | None:
    """Return what differs once the layer, or a name directly in it, has changed; None if it is gone."""
    try:
        found = os.stat("layer", dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns
