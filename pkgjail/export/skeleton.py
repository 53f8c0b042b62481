"""What a list of mounts can't carry, as a directory: names to mount on, links, files made at entry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.jail_names import DEVICES, KERNEL_DIRECTORIES
from pkgjail.core.model import text_path
from pkgjail.export.common import entry_files, missing_directories, on_host, own_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pkgjail.core.model import FileKind, Manifest

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# As devtmpfs has them; proc(5) tells what they lead to.
_DEVICE_LINKS = {
    b"fd": b"/proc/self/fd",
    b"stderr": b"fd/2",
    b"stdin": b"fd/0",
    b"stdout": b"fd/1",
}


class Piece(NamedTuple):
    """One name of a tree that is made: what kind it is, and what it holds or points to."""

    path: bytes
    kind: FileKind
    mode: int
    content: bytes = b""
    target: bytes = b""


def write_skeleton(
    manifest: Manifest,
    directory: bytes,
    content: Mapping[bytes, bytes],
    *,
    mount_points: bool,
    besides: Sequence[bytes] = (),
) -> None:
    """Make `directory`, which must not be there or be empty, into a jail's skeleton.

    Args:
        manifest: what the jail holds.
        directory: absolute and normal; its parent must be there.
        content: of the files made at entry, by path; one that is not there becomes empty.
        mount_points: make all directories with their modes, all links, an empty file for each of
            the host's, and /dev with links and with a file for each device. Without it, only the
            files made at entry, and the directories that they are in.
        besides: with mount points, top directories that the launcher wants and that are made too
            where the manifest does not have them.

    Raises:
        InputError: something is in `directory` already.
        OSError: it cannot be written; what was written stays.

    """
    _start(directory)
    modes: list[tuple[bytes, int]] = []
    for piece in pieces_of_skeleton(manifest, content, mount_points=mount_points, besides=besides):
        place = on_host(directory, piece.path)
        if piece.kind == "directory":
            if piece.path != b"/":
                os.mkdir(place, 0o700)
            modes.append((place, piece.mode))
        elif piece.kind == "symlink":
            os.symlink(piece.target, place)
        else:
            _write(place, piece.content, piece.mode)
    # Last and from below, so that a directory without write permission can be filled.
    for place, mode in reversed(modes):
        os.chmod(place, mode)


def pieces_of_skeleton(
    manifest: Manifest,
    content: Mapping[bytes, bytes],
    *,
    mount_points: bool,
    besides: Sequence[bytes] = (),
) -> Iterator[Piece]:
    """What `write_skeleton` makes, a directory before what it holds; takes what that takes."""
    made = {entry.path for entry in entry_files(manifest)}
    wanted = {parent for path in made for parent in _parents(path)}
    for entry in own_entries(manifest):
        if entry.path in made:
            yield Piece(entry.path, "regular", entry.mode, content.get(entry.path, b""))
        elif entry.kind == "directory" and (mount_points or entry.path in wanted):
            yield Piece(entry.path, "directory", entry.mode)
        elif mount_points and entry.kind == "symlink":
            yield Piece(entry.path, "symlink", 0o777, target=entry.target or b"")
        elif mount_points:
            yield Piece(entry.path, "regular", 0o444)
    if mount_points:
        yield from _kernel_directories(manifest, besides)


def _start(directory: bytes) -> None:
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        if os.path.islink(directory) or not os.path.isdir(directory) or os.listdir(directory):
            raise InputError(
                [
                    Problem(
                        "",
                        f"cannot make a skeleton in {text_path(directory)}: it is there and is not an "
                        "empty directory; name another",
                    )
                ]
            ) from None


def _kernel_directories(manifest: Manifest, besides: Sequence[bytes]) -> Iterator[Piece]:
    there = {entry.path for entry in own_entries(manifest)}
    for path in sorted({*KERNEL_DIRECTORIES, *missing_directories(manifest), *besides} - there):
        yield Piece(path, "directory", 0o755)
    yield Piece(b"/dev/shm", "directory", 0o755)
    for name in DEVICES:
        yield Piece(b"/dev/" + name, "regular", 0o444)
    for name, target in _DEVICE_LINKS.items():
        yield Piece(b"/dev/" + name, "symlink", 0o777, target=target)


def _parents(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:end]) or b"/" for end in range(1, len(parts))]


def _write(path: bytes, content: bytes, mode: int) -> None:
    with open(os.open(path, _NEW, 0o600), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
