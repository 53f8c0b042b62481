"""Where pkgjail keeps what it needs only as long as the host runs. On the way into a jail, so light."""

from __future__ import annotations

import os
import stat


def runtime_directory() -> str:
    """`$XDG_RUNTIME_DIR/pkgjail`, or `/dev/shm/pkgjail-UID`: in memory, and gone at the next boot.

    It may not be there. A relative XDG_RUNTIME_DIR is ignored (XDG Base Directory Specification).
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base):
        return f"{base}/pkgjail"
    return f"/dev/shm/pkgjail-{os.geteuid()}"  # noqa: S108 - see is_private


def is_private(directory: str) -> bool:
    """Whether a directory is the user's alone: theirs, and not to be written to by others.

    In a place like /dev/shm anybody may have made it. Raises `OSError` where there is none.
    """
    found = os.lstat(directory)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
