"""Locks on what jails use, so that pkgjail removes none of it meanwhile (flock(2)): layers, environments.

In a mask that is half gone, hidden names of the host would appear. Others don't ask for locks: a logout
removes runtime directories, and a batch system's epilog what a job's user has in memory. An overlay shows
at once what is gone, so layers in use are watched. On the way into a jail, so light.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import threading

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

_LAST_STANDARD = 2
_WATCH_SECONDS = 1.0


def places_of(steps: Iterable[tuple[Any, ...]]) -> list[bytes]:
    """The places of the layers that the steps of a program use (`pkgjail.sandbox.steps.assemble`)."""
    return [os.path.dirname(step[2]) for step in steps if step[0] in ("Overlay", "MaskedOverlay")]


def hold(places: Iterable[bytes]) -> list[int]:
    """Hold directories or files, by their real paths, until the descriptors that it returns are closed.

    Raises:
        OSError: one of them is gone, or being removed.

    """
    held: list[int] = []
    try:
        for place in places:
            held.append(_open(place))
            fcntl.flock(held[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
            _refuse_renamed(held[-1], place)
    except BaseException:
        release(held)
        raise
    return held


def _open(place: bytes) -> int:
    """A descriptor that the command does not inherit: 0 to 2 may be closed, and are the command's."""
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor > _LAST_STANDARD:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LAST_STANDARD + 1)
    finally:
        os.close(descriptor)


def _refuse_renamed(descriptor: int, place: bytes) -> None:
    if not os.path.samestat(os.fstat(descriptor), os.lstat(place)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)


def release(held: Iterable[int]) -> None:
    """Let go of what `hold` holds."""
    for descriptor in held:
        os.close(descriptor)


class Watch:
    """Says, once, that a layer was removed or changed while a jail shows it: within a second.

    Looking needs no more than a call of fstatat(2) a layer. A watch by inotify(7) would tell sooner, but a
    user may have 128 of them, and more jails than that.
    """

    def __init__(self, layers: Mapping[bytes, int], warn: Callable[[str], None]) -> None:
        """Watch layers, by their places with the descriptors that `hold` gave, from `start` on."""
        self._layers = layers
        self._warn = warn
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. The thread gets no signal: those are for the one that waits for the jail."""
        self._before = {place: _state(descriptor) for place, descriptor in self._layers.items()}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="pkgjail-watch", daemon=True)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def stop(self) -> None:
        """End, if it began."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_WATCH_SECONDS):
            for place, descriptor in self._layers.items():
                if _state(descriptor) != self._before[place]:
                    with contextlib.suppress(OSError, ValueError):  # nobody listens
                        self._warn(_REMOVED.format(os.fsdecode(place)))
                    return


_REMOVED = (
    "the running jail is losing its files: {} was removed or changed; end it and run it again. Where a "
    "logout or a job's epilog removes such directories, set XDG_RUNTIME_DIR to one that stays, or use "
    "'--plan binds'"
)


def _state(place: int) -> tuple[int, int] | None:
    """What changes when the layer in a place, or a name directly in it, does; None where it is gone."""
    try:
        found = os.stat("layer", dir_fd=place, follow_symlinks=False)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns
