"""Landlock: what a process and its descendants may still do with files; see landlock(7).

Rules only add rights. A rule on a directory is for everything below it. Calls that only look at names or at
metadata, chmod(2) and the like are not restricted.
"""

from __future__ import annotations

import ctypes
import errno
import os

# From linux/landlock.h.
EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
TRUNCATE = 1 << 14
IOCTL_DEV = 1 << 15
EVERYTHING = (1 << 16) - 1
"""All rights of ABI 6, the oldest one that is used here."""
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""The rights that a rule on a file can have; the others are for directories."""
NEEDED_ABI = 6
"""The ABI that also keeps signals and abstract sockets within; Linux 6.12."""

_SCOPE_ABSTRACT_UNIX_SOCKET, _SCOPE_SIGNAL = 1 << 0, 1 << 1
_CREATE_RULESET_VERSION = 1 << 0
_RULE_PATH_BENEATH = 1
_NR_CREATE_RULESET, _NR_ADD_RULE, _NR_RESTRICT_SELF = 444, 445, 446

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _RulesetAttr(ctypes.Structure):
    """struct landlock_ruleset_attr."""

    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    """struct landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """Return the version of Landlock's ABI, or 0 if the kernel has none or it is off."""
    number = ctypes.c_long(_NR_CREATE_RULESET)
    version = _libc.syscall(number, None, ctypes.c_size_t(0), ctypes.c_uint(_CREATE_RULESET_VERSION))
    return max(int(version), 0)


def landlock_create_ruleset() -> int:
    """Return the descriptor of a new set of rules, which forbids everything but what is added."""
    scoped = _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL
    attributes = _RulesetAttr(handled_access_fs=EVERYTHING, scoped=scoped)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    arguments = (ctypes.byref(attributes), size, ctypes.c_uint(0))
    return _check(_libc.syscall(ctypes.c_long(_NR_CREATE_RULESET), *arguments), "landlock_create_ruleset")


def landlock_add_rule(ruleset: int, path: bytes, access: int) -> None:
    """Allow `access` to what is at `path` and, if it is a directory, to what is below it."""
    opened = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        attributes = _PathBeneathAttr(access, opened)
        arguments = (ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), ctypes.byref(attributes))
        _check(_libc.syscall(ctypes.c_long(_NR_ADD_RULE), *arguments, ctypes.c_uint(0)), path)
    finally:
        os.close(opened)


def landlock_restrict_self(ruleset: int) -> None:
    """Restrict this process and all that it starts. It must have no_new_privs."""
    number = ctypes.c_long(_NR_RESTRICT_SELF)
    _check(_libc.syscall(number, ctypes.c_int(ruleset), ctypes.c_uint(0)), "landlock_restrict_self")


def _check(result: int, name: bytes | str) -> int:
    if result < 0:
        number = ctypes.get_errno() or errno.EINVAL
        raise OSError(number, os.strerror(number), name)
    return result
