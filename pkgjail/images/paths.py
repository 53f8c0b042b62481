"""The names in an archive, which may be anything: those that a system cannot have are refused."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# The most bytes of a name and of a path that Linux can open (limits.h), less the store's own.
_NAME_MAX, _PATH_MAX = 255, 3900
_MOST_TARGET = 4095


class RefusedError(ValueError):
    """A member that must not be in an image; the text says why, for a message that has named it."""


def normal_path(path: bytes) -> bytes:
    """Return a member's path relative to the root, without `.` and final slashes; b"" is the root.

    Raises:
        RefusedError: it is absolute, has `..` or NUL, or is too long.

    """
    if path.startswith(b"/"):
        raise RefusedError("its name is absolute")
    if b"\0" in path:
        raise RefusedError("its name has a NUL")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise RefusedError("its name has '..'")
    if not parts and not path:
        raise RefusedError("it has no name")
    normal = b"/".join(parts)
    if len(normal) > _PATH_MAX or any(len(part) > _NAME_MAX for part in parts):
        raise RefusedError("its name is too long for a file system")
    return normal


def check_target(path: bytes, target: bytes) -> None:
    """Check the text of the symbolic link at `path`.

    An absolute one begins at the image's root. One with more `..` than the link has directories above it
    leads out of the root for each program that follows it from outside.

    Raises:
        RefusedError: it is empty, too long, has NUL, or leads out of the root.

    """
    if not target or len(target) > _MOST_TARGET or b"\0" in target:
        raise RefusedError("it is a symbolic link that Linux cannot have")
    depth = 0 if target.startswith(b"/") else path.count(b"/")
    for part in target.split(b"/"):
        depth += -1 if part == b".." else part not in (b"", b".")
        if depth < 0:
            raise RefusedError("it is a symbolic link that leads out of the image")


def looks_alike(name: bytes) -> str:
    """Return what is the same for names that people cannot tell apart, in Unicode's forms; "" for ASCII."""
    return "" if name.isascii() else unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape"))


def same_in_another_case(name: bytes, names: Iterable[bytes]) -> bytes | None:
    """Return the one of `names` that differs from `name` in case or in the form of Unicode alone."""
    folded = _folded(name)
    return next((each for each in names if each != name and _folded(each) == folded), None)


def _folded(name: bytes) -> str:
    return unicodedata.normalize("NFKD", name.decode("utf-8", "surrogateescape")).casefold()
