"""Landlock's rules for the names of a run: what the processes may do themselves.

They may execute the manifest's programs, and read and write in binds. Everything else that they may read, the
supervisor opens for them. So a rule is needed for each program alone, not for each file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.sandbox import landlock as ll
from pkgjail.supervised.names import DEVICE, NEW_TERMINAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.supervised.names import Names

_EXECUTE = ll.EXECUTE | ll.READ_FILE
_DEVICE = ll.READ_FILE | ll.WRITE_FILE | ll.TRUNCATE | ll.IOCTL_DEV
_ANYBODY_EXECUTES = 0o111


def rules(names: Names) -> Iterator[tuple[bytes, int]]:
    """Yield the real path and the rights of each rule."""
    for path, mode in names.files.items():
        if mode & _ANYBODY_EXECUTES:
            yield path, _EXECUTE
    for path, kind in names.kinds.items():
        if kind == DEVICE and path != NEW_TERMINAL:
            yield path, _DEVICE
    for bind in names.binds:
        if not bind.is_read_by_us:
            rights = ll.EVERYTHING if bind.writable else _EXECUTE | ll.READ_DIR
            rights &= ~ll.IOCTL_DEV
            yield bind.path, rights if bind.is_directory else rights & ll.OF_FILES


def make_ruleset(names: Names) -> int:
    """Return a descriptor of the rules, for `landlock_restrict_self`.

    Raises:
        OSError: a path is not there, or the kernel does not have what is needed.

    """
    ruleset = ll.landlock_create_ruleset()
    for path, rights in rules(names):
        ll.landlock_add_rule(ruleset, path, rights)
    return ruleset
