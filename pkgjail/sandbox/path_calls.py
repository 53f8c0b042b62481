"""The system calls that take paths, for each ABI: open(2), stat(2), execve(2) and their relatives.

An audit sees them (`pkgjail.audit`): `pkgjail.sandbox.seccomp` lets another process look at each before the
kernel goes on with it. Calls that need privileges, such as mount(2), are left out, and fchdir(2), which
has no path. The numbers are those of the kernel's system call tables, as libseccomp has them.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    # The place of a path among a call's arguments: of the directory that it starts at (-1 for the working
    # directory), and of its text.
    Place = tuple[int, int]
    # A kind of call, the places of its paths, and the position of its flags, -1 for none or not needed.
    Shape = tuple[int, tuple[Place, ...], int]
    # A call's name, its shape, and its numbers in the ABIs of `_COLUMNS`; -1 if an ABI does not have it.
    _Row = tuple[str, int, tuple[Place, ...], int, tuple[int, ...]]

KINDS = ("look", "open", "list", "link", "exec", "change")
"""The kinds of calls by their number: stat(2), access(2) and chdir(2); open(2) of anything, and of a
directory; readlink(2); execve(2); all that make, change or remove a name."""
LOOK, OPEN, LIST, LINK, EXEC, CHANGE = range(len(KINDS))

SET_UP_RING = 425  # io_uring_setup(2), on all architectures

# By AUDIT_ARCH (linux/audit.h): the column of the table below. The generic numbers are those of newer
# architectures, which have only calls that start at a directory.
_X86_64, _I386, _GENERIC, _ARM, _POWER, _S390 = range(6)
_COLUMNS = {
    0xC000003E: _X86_64, 0x40000003: _I386, 0xC00000B7: _GENERIC, 0x40000028: _ARM, 0xC00000F3: _GENERIC,
    0x400000F3: _GENERIC, 0xC0000102: _GENERIC, 0xC0000015: _POWER, 0x80000015: _POWER, 0x00000014: _POWER,
    0x80000016: _S390, 0x00000016: _S390,
}  # fmt: skip

ARCHITECTURES = tuple(_COLUMNS)

_PATH = ((-1, 0),)
_AT = ((0, 1),)
_TWO = ((-1, 0), (-1, 1))
_TWO_AT = ((0, 1), (2, 3))
_NONE = -1
ROWS: tuple[_Row, ...] = (
    ("open", OPEN, _PATH, 1, (2, 5, _NONE, 5, 5, 5)),
    ("openat", OPEN, _AT, 2, (257, 295, 56, 322, 286, 288)),
    ("openat2", OPEN, _AT, _NONE, (437,) * 6),
    ("creat", CHANGE, _PATH, _NONE, (85, 8, _NONE, 8, 8, 8)),
    ("stat", LOOK, _PATH, _NONE, (4, 106, _NONE, 106, 106, 106)),
    ("lstat", LOOK, _PATH, _NONE, (6, 107, _NONE, 107, 107, 107)),
    ("stat64", LOOK, _PATH, _NONE, (_NONE, 195, _NONE, 195, 195, 195)),
    ("lstat64", LOOK, _PATH, _NONE, (_NONE, 196, _NONE, 196, 196, 196)),
    ("oldstat", LOOK, _PATH, _NONE, (_NONE, 18, _NONE, _NONE, 18, _NONE)),
    ("oldlstat", LOOK, _PATH, _NONE, (_NONE, 84, _NONE, _NONE, 84, _NONE)),
    ("newfstatat", LOOK, _AT, 3, (262, 300, 79, 327, 291, 293)),  # fstatat64, where numbers have 32 bits
    ("statx", LOOK, _AT, 2, (332, 383, 291, 397, 383, 379)),
    ("access", LOOK, _PATH, _NONE, (21, 33, _NONE, 33, 33, 33)),
    ("faccessat", LOOK, _AT, _NONE, (269, 307, 48, 334, 298, 300)),
    ("faccessat2", LOOK, _AT, _NONE, (439,) * 6),
    ("readlink", LINK, _PATH, _NONE, (89, 85, _NONE, 85, 85, 85)),
    ("readlinkat", LINK, _AT, _NONE, (267, 305, 78, 332, 296, 298)),
    ("execve", EXEC, _PATH, _NONE, (59, 11, 221, 11, 11, 11)),
    ("execveat", EXEC, _AT, _NONE, (322, 358, 281, 387, 362, 354)),
    ("uselib", OPEN, _PATH, _NONE, (134, 86, _NONE, 86, 86, 86)),
    ("chdir", LOOK, _PATH, _NONE, (80, 12, 49, 12, 12, 12)),
    ("chroot", LOOK, _PATH, _NONE, (161, 61, 51, 61, 61, 61)),
    ("statfs", LOOK, _PATH, _NONE, (137, 99, 43, 99, 99, 99)),
    ("statfs64", LOOK, _PATH, _NONE, (_NONE, 268, _NONE, 266, 252, 265)),
    ("getxattr", LOOK, _PATH, _NONE, (191, 229, 8, 229, 212, 227)),
    ("lgetxattr", LOOK, _PATH, _NONE, (192, 230, 9, 230, 213, 228)),
    ("listxattr", LOOK, _PATH, _NONE, (194, 232, 11, 232, 215, 230)),
    ("llistxattr", LOOK, _PATH, _NONE, (195, 233, 12, 233, 216, 231)),
    ("getxattrat", LOOK, _AT, _NONE, (464,) * 6),
    ("listxattrat", LOOK, _AT, _NONE, (465,) * 6),
    ("inotify_add_watch", LOOK, ((-1, 1),), _NONE, (254, 292, 27, 317, 276, 285)),
    ("name_to_handle_at", LOOK, _AT, _NONE, (303, 341, 264, 370, 345, 335)),
    ("setxattr", CHANGE, _PATH, _NONE, (188, 226, 5, 226, 209, 224)),
    ("lsetxattr", CHANGE, _PATH, _NONE, (189, 227, 6, 227, 210, 225)),
    ("removexattr", CHANGE, _PATH, _NONE, (197, 235, 14, 235, 218, 233)),
    ("lremovexattr", CHANGE, _PATH, _NONE, (198, 236, 15, 236, 219, 234)),
    ("setxattrat", CHANGE, _AT, _NONE, (463,) * 6),
    ("removexattrat", CHANGE, _AT, _NONE, (466,) * 6),
    ("mkdir", CHANGE, _PATH, _NONE, (83, 39, _NONE, 39, 39, 39)),
    ("mkdirat", CHANGE, _AT, _NONE, (258, 296, 34, 323, 287, 289)),
    ("rmdir", CHANGE, _PATH, _NONE, (84, 40, _NONE, 40, 40, 40)),
    ("unlink", CHANGE, _PATH, _NONE, (87, 10, _NONE, 10, 10, 10)),
    ("unlinkat", CHANGE, _AT, _NONE, (263, 301, 35, 328, 292, 294)),
    ("rename", CHANGE, _TWO, _NONE, (82, 38, _NONE, 38, 38, 38)),
    ("renameat", CHANGE, _TWO_AT, _NONE, (264, 302, 38, 329, 293, 295)),
    ("renameat2", CHANGE, _TWO_AT, _NONE, (316, 353, 276, 382, 357, 347)),
    ("link", CHANGE, _TWO, _NONE, (86, 9, _NONE, 9, 9, 9)),
    ("linkat", CHANGE, _TWO_AT, _NONE, (265, 303, 37, 330, 294, 296)),
    ("symlink", CHANGE, ((-1, 1),), _NONE, (88, 83, _NONE, 83, 83, 83)),  # the first is a text
    ("symlinkat", CHANGE, ((1, 2),), _NONE, (266, 304, 36, 331, 295, 297)),
    ("mknod", CHANGE, _PATH, _NONE, (133, 14, _NONE, 14, 14, 14)),
    ("mknodat", CHANGE, _AT, _NONE, (259, 297, 33, 324, 288, 290)),
    ("chmod", CHANGE, _PATH, _NONE, (90, 15, _NONE, 15, 15, 15)),
    ("fchmodat", CHANGE, _AT, _NONE, (268, 306, 53, 333, 297, 299)),
    ("fchmodat2", CHANGE, _AT, _NONE, (452,) * 6),
    ("chown", CHANGE, _PATH, _NONE, (92, 182, _NONE, 182, 181, 212)),
    ("lchown", CHANGE, _PATH, _NONE, (94, 16, _NONE, 16, 16, 198)),
    ("chown32", CHANGE, _PATH, _NONE, (_NONE, 212, _NONE, 212, _NONE, 182)),  # on s390, chown with 16 bits
    ("lchown32", CHANGE, _PATH, _NONE, (_NONE, 198, _NONE, 198, _NONE, 16)),  # likewise lchown
    ("fchownat", CHANGE, _AT, _NONE, (260, 298, 54, 325, 289, 291)),
    ("truncate", CHANGE, _PATH, _NONE, (76, 92, 45, 92, 92, 92)),
    ("truncate64", CHANGE, _PATH, _NONE, (_NONE, 193, _NONE, 193, 193, 193)),
    ("utime", CHANGE, _PATH, _NONE, (132, 30, _NONE, _NONE, 30, 30)),
    ("utimes", CHANGE, _PATH, _NONE, (235, 271, _NONE, 269, 251, 313)),
    ("futimesat", CHANGE, _AT, _NONE, (261, 299, _NONE, 326, 290, 292)),
    ("utimensat", CHANGE, _AT, _NONE, (280, 320, 88, 348, 304, 315)),
    ("utimensat_time64", CHANGE, _AT, _NONE, (_NONE, 412, _NONE, 412, 412, 412)),
)


def shapes(architecture: int) -> dict[int, Shape]:
    """Return the calls of an ABI by their numbers; `architecture` is its AUDIT_ARCH (linux/audit.h)."""
    column = _COLUMNS[architecture]
    found = ((numbers[column], (kind, places, flags)) for _, kind, places, flags, numbers in ROWS)
    return {number: shape for number, shape in found if number != _NONE}
