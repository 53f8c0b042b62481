"""The system calls that take user or group ids, for each ABI: chown(2), setuid(2) and their relatives.

For an id that the jail's user namespace does not have, the kernel answers EINVAL. Outside, the same call is
not permitted (EPERM), which fakeroot(1), tar(1), cp(1), install(1) and dpkg-deb(1) know how to take. So
`pkgjail.sandbox.seccomp` lets init answer these calls (`answer_calls`). In user namespaces that the command
made itself, the kernel answers as everywhere.
"""

from __future__ import annotations

import errno
import os

from pkgjail.sandbox import syscalls as sc

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    # The first and the last id of each range that is mapped, for users and for groups.
    Ranges = tuple[tuple[int, int], ...]
    Ids = tuple[Ranges, Ranges]
    # Numbers of calls, the positions of the user ids among their arguments, and those of the group ids.
    Shape = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    # The shapes of calls with ids of 32 bits, and of those with ids of 16 bits.
    Shapes = tuple[tuple[Shape, ...], tuple[Shape, ...]]


def _shapes(chown: tuple[int, ...], fchownat: int, users: tuple[int, ...], groups: tuple[int, ...]) -> Shapes:
    """Return the shapes of an ABI. `users` are setuid, setreuid and setresuid, `groups` those of groups."""
    return (*_usual(chown, users, groups), ((fchownat,), (2,), (3,))), ()


def _usual(chown: tuple[int, ...], users: tuple[int, ...], groups: tuple[int, ...]) -> tuple[Shape, ...]:
    of_users = tuple([((number,), tuple(range(count)), ()) for count, number in enumerate(users, 1)])
    of_groups = tuple([((number,), (), tuple(range(count))) for count, number in enumerate(groups, 1)])
    return ((chown, (1,), (2,)), *of_users, *of_groups)


def _old_shapes(fchownat: int) -> Shapes:
    """Return the shapes of an ABI that once had ids of 16 bits, and later got a second set of calls."""
    new, _ = _shapes((198, 207, 212), fchownat, (213, 203, 208), (214, 204, 210))
    return new, _usual((16, 95, 182), (23, 70, 164), (46, 71, 170))


_GENERIC = _shapes((55,), 54, (146, 145, 147), (144, 143, 149))
_POWER = _shapes((16, 95, 181), 289, (23, 70, 164), (46, 71, 169))
SHAPES: dict[int, Shapes] = {
    0xC000003E: _shapes((92, 93, 94), 260, (105, 113, 117), (106, 114, 119)),
    0x40000003: _old_shapes(298),
    0xC00000B7: _GENERIC,
    0x40000028: _old_shapes(325),
    0xC00000F3: _GENERIC,
    0x400000F3: _GENERIC,
    0xC0000102: _GENERIC,
    0xC0000015: _POWER,
    0x80000015: _POWER,
    0x00000014: _POWER,
    0x80000016: _shapes((198, 207, 212), 291, (213, 203, 208), (214, 204, 210)),
    0x00000016: _old_shapes(291),
}
"""By AUDIT_ARCH (linux/audit.h). setgroups(2) answers EPERM itself; setfsuid(2) has no errors."""


class IdRules:
    """Which calls with ids are refused, for a process that answers all calls of a jail.

    `ids` are those that the jail has, None for all. `namespaces` returns the inodes of its user namespaces.
    """

    def __init__(self, ids: Ids | None, namespaces: Callable[[], Iterable[int]]) -> None:
        self._ids = ids
        self._namespaces = namespaces

    def is_refused(self, architecture: int, number: int, arguments: Sequence[int], process: int) -> bool:
        """Return whether a call gets EPERM: as `answer_calls`. `architecture` is its ABI's AUDIT_ARCH."""
        if self._ids is None:
            return False
        wide, narrow = SHAPES[architecture]
        for shapes, mask in ((wide, 0xFFFFFFFF), (narrow, 0xFFFF)):
            for numbers, *positions in shapes:
                if number in numbers and not self._are_mapped(positions, arguments, mask):
                    return _user_namespace(process) in {0, *self._namespaces()}
        return False

    def _are_mapped(self, positions: Sequence[Sequence[int]], arguments: Sequence[int], mask: int) -> bool:
        """Check the user ids and the group ids at these positions. -1 leaves an id as it is."""
        for places, ranges in zip(positions, self._ids or ()):
            for place in places:
                value = arguments[place] & mask
                if value != mask and not any(first <= value <= last for first, last in ranges):
                    return False
        return True


def answer_calls(listener: int, namespaces: Iterable[int]) -> None:
    """Answer calls with ids that are not mapped, as long as the jail lasts.

    A process in one of these user namespaces (the inodes of their files in proc(5)) gets EPERM. For any
    other, which is in a namespace of its own, the kernel goes on with the call. The ids are in registers, so
    they cannot change in between.
    """
    try:
        while True:
            notice, process = sc.receive_notice(listener)
            known = _user_namespace(process) in {0, *namespaces}
            sc.answer_notice(listener, notice, errno.EPERM if known else 0)
    finally:
        os.close(listener)  # then the calls answer ENOSYS, and wait for nobody


def _user_namespace(process: int) -> int:
    """Return the inode of a process's user namespace, or 0 if it cannot be read."""
    try:
        return os.stat(f"/proc/{process}/ns/user").st_ino
    except OSError:  # it has ended, or may not be looked at
        return 0
