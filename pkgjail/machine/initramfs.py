"""Write the archive that Linux unpacks into memory before it starts the first program (cpio, "newc").

See initramfs-buffer-format.txt of Linux's documentation. The same files give the same bytes.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MAGIC = b"070701"
_END = b"TRAILER!!!"
_ALIGNMENT = 4
_DIRECTORY = stat.S_IFDIR | 0o755
_MOST = (1 << 32) - 1  # bytes of a member: its size has eight hexadecimal digits


def initramfs(files: Mapping[bytes, tuple[int, bytes]]) -> bytes:
    """Return an archive of regular files that belong to root, without times.

    Args:
        files: the mode (permission bits) and the content of each, by its absolute and normal path. The
            directories above them are made, with the mode 0755.

    Raises:
        ValueError: a path is not absolute and normal, is below another file, or a file has 4 GiB or more.

    """
    members: dict[bytes, tuple[int, bytes]] = {}
    for path, (mode, content) in files.items():
        _refuse_wrong(path, content, files)
        members.update((above, (_DIRECTORY, b"")) for above in _parents(path))
        members[path] = (stat.S_IFREG | stat.S_IMODE(mode), content)
    # By path: a directory comes before what is in it, as the kernel needs it.
    written = [
        _member(number, path[1:], *members[path]) for number, path in enumerate(sorted(members), start=1)
    ]
    return b"".join([*written, _member(0, _END, 0, b"")])


def _refuse_wrong(path: bytes, content: bytes, files: Mapping[bytes, object]) -> None:
    if not path.startswith(b"/") or b"\0" in path or {b"", b".", b".."}.intersection(path[1:].split(b"/")):
        raise ValueError(f"{path!r} is not absolute and normal")
    if any(above in files for above in _parents(path)):
        raise ValueError(f"{path!r} is below another file")
    if len(content) > _MOST:
        raise ValueError(f"{path!r} has 4 GiB or more")


def _parents(path: bytes) -> Iterator[bytes]:
    """Yield the directories above a path, without the root."""
    while path := path.rpartition(b"/")[0]:
        yield path


def _member(number: int, name: bytes, mode: int, content: bytes) -> bytes:
    """Return a member: its header, its name with a NUL, and its content, each filled up."""
    links = 2 if stat.S_ISDIR(mode) else 1
    # Inode, mode, user, group, links, time, size, device (two numbers), its own (two), name's size, checksum.
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    header = _MAGIC + b"".join(b"%08x" % field for field in fields) + name + b"\0"
    return _filled(header) + _filled(content)


def _filled(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
