"""What jails rest on is held, so that nobody removes it meanwhile (flock(2)): layers, environments.

In a mask that is half gone, hidden names of the host would appear. On the way into a jail, so light.
"""

from __future__ import annotations

import errno
import fcntl
import os

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_LAST_STANDARD = 2


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
