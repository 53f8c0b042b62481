"""The system calls that the supervisor answers, and those that nobody may make, by their numbers.

The first column is for x86-64, the second for newer architectures, which have the generic numbers
(include/uapi/asm-generic/unistd.h). -1: the architecture does not have the call. Programs of other ABIs,
such as those of 32 bits, cannot run under supervision: their calls answer ENOSYS.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.sandbox.path_calls import ROWS
from pkgjail.sandbox.seccomp import Supervised

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.sandbox.path_calls import Place

# By machine: the column here, that of `path_calls.ROWS`, and the bytes of struct stat.
_MACHINES = {
    "x86_64": (0, 0, 144),
    "aarch64": (1, 2, 128),
    "riscv64": (1, 2, 128),
    "loongarch64": (1, 2, 128),
}

# Calls that take a descriptor or an address, which the supervisor does itself.
_DONE = {
    "getdents64": (217, 61), "getdents": (78, -1), "connect": (42, 203), "bind": (49, 200),
    "fchmod": (91, 52), "fchown": (93, 55), "fsetxattr": (190, 7), "fremovexattr": (199, 16),
}  # fmt: skip
# Calls on another process, and the position of its id, which 0 stands for the caller in.
_ON_PROCESSES = {
    "prlimit64": ((302, 261), 0),
    "setpriority": ((141, 140), 1),
    "sched_setaffinity": ((203, 122), 0),
    "sched_setparam": ((142, 118), 0),
    "sched_setscheduler": ((144, 119), 0),
    "sched_setattr": ((314, 274), 0),
    "ioprio_set": ((251, 30), 1),
    "migrate_pages": ((256, 238), 0),
    "move_pages": ((279, 239), 0),
    "pidfd_open": ((434, 434), 0),
}
# Calls with paths that only a privileged process may make.
_PRIVILEGED = (
    (165, 40), (166, 39), (155, 41), (167, 224), (168, 225), (179, 60), (163, 89), (308, 268), (304, 265),
)  # fmt: skip
# Calls that programs do without: mounts by descriptors, fanotify(7), bpf(2), userfaultfd(2),
# perf_event_open(2), System V IPC, POSIX message queues, uselib(2), and newer calls with paths.
_UNKNOWN = (
    *((number, number) for number in (*range(428, 434), 442, 443, 457, 458, 463, 466, *range(467, 471))),
    (300, 262), (301, 263), (321, 280), (323, 282), (298, 241), (29, 194), (30, 196), (31, 195), (64, 190),
    (65, 193), (66, 191), (220, 192), (68, 186), (69, 189), (70, 188), (71, 187), (240, 180), (241, 181),
    (134, -1),
)  # fmt: skip
_PRCTL, _UNSHARE, _CLONE, _SOCKETPAIR = (157, 167), (272, 97), (56, 220), (53, 199)

# The calls that do not follow a link at the end of the path.
_NOT_FOLLOWING = (
    "lstat", "readlink", "readlinkat", "lgetxattr", "llistxattr", "lsetxattr", "lremovexattr", "lchown",
    "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat",
    "symlink", "symlinkat", "mknod", "mknodat",
)  # fmt: skip
_SYMLINK_NOFOLLOW, _SYMLINK_FOLLOW, _DONT_FOLLOW = 0x100, 0x400, 0x02000000
# The calls with a flag that changes that: its position, and its bit.
_FLAGS = {
    "newfstatat": (3, _SYMLINK_NOFOLLOW),
    "statx": (2, _SYMLINK_NOFOLLOW),
    "faccessat2": (3, _SYMLINK_NOFOLLOW),
    "fchmodat2": (3, _SYMLINK_NOFOLLOW),
    "fchownat": (4, _SYMLINK_NOFOLLOW),
    "utimensat": (3, _SYMLINK_NOFOLLOW),
    "getxattrat": (2, _SYMLINK_NOFOLLOW),
    "listxattrat": (2, _SYMLINK_NOFOLLOW),
    "execveat": (4, _SYMLINK_NOFOLLOW),
    "inotify_add_watch": (2, _DONT_FOLLOW),
    "name_to_handle_at": (4, _SYMLINK_FOLLOW),
    "linkat": (4, _SYMLINK_FOLLOW),
}
_FOLLOWING_BY_FLAG = ("name_to_handle_at", "linkat")


class Call(NamedTuple):
    """A call with paths: its name, the places of its paths, and whether it follows a link at their end.

    If a flag changes that, it has this `position` (otherwise -1) and `bit`.
    """

    name: str
    places: tuple[Place, ...]
    follows: bool
    position: int
    bit: int


class Calls(NamedTuple):
    """The calls of this machine by their numbers, and the size of its struct stat in bytes.

    `done` are those by descriptor or address, `on_processes` the positions of process ids.
    """

    paths: Mapping[int, Call]
    done: Mapping[int, str]
    on_processes: Mapping[int, int]
    filter: Supervised
    size_of_stat: int
    numbers: Mapping[str, int]


def calls_of(machine: str = "") -> Calls | None:
    """Return the calls of a machine, this one by default; None if its numbers are not known here."""
    columns = _MACHINES.get(machine or os.uname().machine)
    if columns is None:
        return None
    column, of_paths, size_of_stat = columns
    refused = {number[column]: errno.EPERM for number in _PRIVILEGED}
    refused.update((number[column], errno.ENOSYS) for number in _UNKNOWN)
    refused.pop(-1, None)
    numbers = {name: found[of_paths] for name, _, _, _, found in ROWS if found[of_paths] >= 0}
    paths = {
        number: _call(name, places)
        for name, _, places, _, found in ROWS
        if (number := found[of_paths]) >= 0 and number not in refused
    }
    done = {number[column]: name for name, number in _DONE.items() if number[column] >= 0}
    numbers.update((name, number) for number, name in done.items())
    on_processes = {number[column]: position for number, position in _ON_PROCESSES.values()}
    return Calls(
        paths=paths,
        done=done,
        on_processes=on_processes,
        filter=Supervised(
            asked=(*paths, *done),
            asked_unless_zero=tuple(on_processes.items()),
            refused=refused,
            prctl=_PRCTL[column],
            unshare=_UNSHARE[column],
            clone=_CLONE[column],
            socketpair=_SOCKETPAIR[column],
        ),
        size_of_stat=size_of_stat,
        numbers=numbers,
    )


def known_calls() -> Calls:
    """Return the calls of this machine, whose numbers are known."""
    calls = calls_of()
    if calls is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), f"supervision on {os.uname().machine}")
    return calls


def _call(name: str, places: tuple[Place, ...]) -> Call:
    position, bit = _FLAGS.get(name, (-1, 0))
    follows = name not in _NOT_FOLLOWING and name not in _FOLLOWING_BY_FLAG
    return Call(name, places, follows, position, bit)
