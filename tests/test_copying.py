"""Copies of files on any filesystem, and of whole trees."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import NamesError
from pkgjail.storage import copying

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("failing", [(), ("_clone",), ("_clone", "_copy_in_kernel")])
@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_content_is_copied_on_every_filesystem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...], size: int
) -> None:
    for name in failing:
        monkeypatch.setattr(copying, name, lambda *_: False)
    content = os.urandom(size)
    (tmp_path / "source").write_bytes(content)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "copy").open("xb") as destination:
        copying.copy_content(source.fileno(), destination.fileno())
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.parametrize("call", ["ioctl", "copy_file_range"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_in_a_copy_is_not_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(copying, "_clone", copying._clone if call == "ioctl" else lambda *_: False)
    monkeypatch.setattr(*((fcntl, "ioctl") if call == "ioctl" else (os, "copy_file_range")), fail)
    (tmp_path / "source").write_text("x")
    with (tmp_path / "source").open("rb") as source, (tmp_path / "copy").open("xb") as destination:
        descriptors = source.fileno(), destination.fileno()
        with pytest.raises(OSError, match=os.strerror(number)):
            copying.copy_content(*descriptors)


def _state(top: Path) -> dict[str, tuple[object, ...]]:
    """Return all below a directory that a copy has to have."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (top, *sorted(top.rglob("*"))):
        one = path.lstat()
        name = os.fsencode(path.relative_to(top)).decode("latin-1")
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        found[name] = (one.st_mode, one.st_mtime_ns, one.st_uid, one.st_rdev, content)
    return found


def _tree(top: Path) -> None:
    """A tree with everything that a build may have left."""
    inner = top / os.fsdecode(b"d\xff\n") / "e"
    inner.mkdir(parents=True)
    (inner / "file").write_bytes(b"content" * 1000)
    (inner / "file").chmod(0o751)
    os.link(inner / "file", top / "again")
    (top / "loop").symlink_to(".")
    (top / "nowhere").symlink_to("/no/such")
    os.mkfifo(top / "fifo", 0o640)
    (top / "empty").write_bytes(b"")
    (top / "read-only").mkdir()
    (top / "read-only/f").write_text("x")
    subprocess.run(["touch", "-h", "-d", "2001-02-03 04:05:06.789", top / "loop"], check=True)
    os.utime(inner / "file", ns=(1, 123456789_000000001))
    os.utime(inner, ns=(1, 2_000000003))
    (top / "read-only").chmod(0o555)


def test_a_tree_is_copied(tmp_path: Path) -> None:
    """Names of any bytes, modes, times, links and hard links, FIFOs: the copy has all of it."""
    (tmp_path / "a").mkdir()
    _tree(tmp_path / "a")
    if os.geteuid() == 0:
        os.chown(tmp_path / "a/empty", 12, 13)
        os.mknod(tmp_path / "a/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    copying.copy_tree(os.fsencode(tmp_path / "a"), os.fsencode(tmp_path / "b"))
    assert _state(tmp_path / "a") == _state(tmp_path / "b")
    assert (tmp_path / "b/again").stat().st_nlink == 2


def test_what_is_left_out(tmp_path: Path) -> None:
    """A socket, and the directory that the copy goes to, which may be in the tree itself."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    (tmp_path / "to").mkdir()
    (tmp_path / "file").write_text("x")
    found = (tmp_path / "to").stat()
    copying.copy_tree(
        os.fsencode(tmp_path), os.fsencode(tmp_path / "to/copy"), leaving_out={(found.st_dev, found.st_ino)}
    )
    assert os.listdir(tmp_path / "to/copy") == ["file"]


def test_one_file(tmp_path: Path) -> None:
    """A file is copied as it would be in a tree."""
    (tmp_path / "file").write_text("x")
    copying.copy_tree(os.fsencode(tmp_path / "file"), os.fsencode(tmp_path / "copy"))
    assert (tmp_path / "copy").read_text() == "x"


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All names that cannot be read are in one error; root reads everything, so the call is replaced."""
    for name in ("a", "b", "c"):
        (tmp_path / f"tree/{name}").mkdir(parents=True)
        (tmp_path / f"tree/{name}/f").write_text("x")
    really = os.open

    def opened(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path in {b"tree/a", b"tree/b/f"}:
            raise PermissionError(errno.EACCES, "no", path)
        return really(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(NamesError) as caught:
        copying.copy_tree(os.fsencode(tmp_path / "tree"), os.fsencode(tmp_path / "copy"))
    assert sorted(caught.value.names) == [b"tree/a", b"tree/b/f"]
