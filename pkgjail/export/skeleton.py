"""Write what a list of mounts cannot express: mount points, links, and files made at entry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.jail_names import DEVICES, KERNEL_DIRECTORIES
from pkgjail.core.text import text_path
from pkgjail.export.common import entry_files, missing_directories, on_host, own_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pkgjail.core.model import FileKind, Manifest

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# As in devtmpfs; proc(5) describes their targets.
_DEVICE_LINKS = {
    b"fd": b"/proc/self/fd",
    b"stderr": b"fd/2",
    b"stdin": b"fd/0",
    b"stdout": b"fd/1",
}


class Piece(NamedTuple):
    """A name of a tree to make: its kind, and its content or target."""

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
    """Make `directory`, which must not exist or be empty, into a jail's skeleton.

    Args:
        manifest: what the jail has.
        directory: absolute and normal; its parent must exist.
        content: the content of files made at entry, by path; a file without content is empty.
        mount_points: make all directories with their modes, all links, an empty file for each file of
            the host, and /dev with links and a file for each device. Otherwise make only the files
            made at entry and their directories.
        besides: with mount points, top directories that the launcher needs; they are made if the
            manifest lacks them.

    Raises:
        InputError: `directory` is not empty.
        OSError: it cannot be written; what was written so far stays.

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
    # Modes come last, deepest first, so that a directory without write permission can be filled.
    for place, mode in reversed(modes):
        os.chmod(place, mode)


def pieces_of_skeleton(
    manifest: Manifest,
    content: Mapping[bytes, bytes],
    *,
    mount_points: bool,
    besides: Sequence[bytes] = (),
) -> Iterator[Piece]:
    """Yield what `write_skeleton` makes, parents first; the arguments are the same."""
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
                        f"cannot make a skeleton in {text_path(directory)}: it exists and is not an "
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
