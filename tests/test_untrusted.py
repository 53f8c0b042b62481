"""Files that others wrote: what is opened, how much of it is read, and where its links lead."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.core import untrusted
from pkgjail.core.untrusted import names_below, read_below, read_named
from pkgjail.sandbox import syscalls
from pkgjail.storage.digests import file_digests

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 1000


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernel's own resolution of names, and ours where that is missing."""

    def missing(*_: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if request.param == "walk":
        monkeypatch.setattr(syscalls, "openat2", missing)
    return str(request.param)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_directory(path: Path) -> None:
    path.mkdir()


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def make_sparse(path: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, 20 << 30)


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a FIFO": (make_fifo, "it is a FIFO"),
    "a socket": (make_socket, "it is a socket, and not a regular file"),
    "a directory": (make_directory, "Is a directory"),
    "a file of holes": (make_sparse, "it has more than 1000 bytes"),
    "a link to itself": (make_loop, "Too many levels of symbolic links"),
    "nothing": (lambda _: None, "No such file or directory"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, way: str, kind: str) -> None:
    """Protects from waiting for a FIFO's writer and from reading holes; the error names the file."""
    del way
    make, said = KINDS[kind]
    make(tmp_path / "x")
    for root in (b"/", os.fsencode(tmp_path)):
        with pytest.raises(OSError, match=said) as caught:
            read_below(root, os.fsencode(tmp_path / "x"), LIMIT)
        assert caught.value.filename == os.fsencode(tmp_path / "x")
    with pytest.raises(OSError, match=said):
        read_named(tmp_path / "x", LIMIT)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/tty", "/dev/full"])
def test_no_device_is_opened(tmp_path: Path, way: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from devices on which an opening acts: a watchdog, a tape."""
    del way
    opened = []
    real = os.open

    def noted(path: str | bytes, flags: int, *rest: int, **more: int) -> int:
        if not flags & os.O_PATH:
            opened.append(path)
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", noted)
    (tmp_path / "x").symlink_to(device)
    with pytest.raises(OSError, match="it is a character device, and not a regular file"):
        read_below(b"/", os.fsencode(device))
    with pytest.raises(OSError, match="it is a character device, and not a regular file"):
        read_named(tmp_path / "x", LIMIT)
    assert opened == []


# Where a link in the root stands, what it says, and the content that is read by it; "" for nothing.
LINKS = {
    "an absolute link begins at the root": ("etc/x", "/secret", "inside"),
    "a link to above stops at the root": ("etc/x", "../../../../../../secret", "inside"),
    "a link to what only the host has": ("etc/x", "/etc/hostname", ""),
    "a relative link": ("etc/x", "y", "beside"),
    "a directory that is a link": ("lib", "/usr/lib", ""),
    "a way through proc's links": ("etc/x", "/proc/self/root/etc/passwd", ""),
}


@pytest.mark.parametrize("summary", LINKS)
def test_links_stay_in_the_root(tmp_path: Path, way: str, summary: str) -> None:
    """Protects what root may read from links in a root that somebody else made."""
    del way
    where, target, content = LINKS[summary]
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "secret").write_text("inside", "utf-8")
    (root / "etc/y").write_text("beside", "utf-8")
    (tmp_path / "secret").write_text("outside", "utf-8")
    (root / where).symlink_to(target)
    path = os.fsencode(root / where)
    if content:
        assert read_below(os.fsencode(root), path) == content.encode()
    else:
        with pytest.raises(FileNotFoundError):
            read_below(os.fsencode(root), path)


def test_directories_are_listed_inside_the_root(tmp_path: Path, way: str) -> None:
    """Protects listings from links that lead out, and says for what is no directory that it is none."""
    del way
    root = os.fsencode(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "real/\n\udcff").write_bytes(b"")
    (tmp_path / "link").symlink_to("/real")
    (tmp_path / "out").symlink_to("/etc")
    make_fifo(tmp_path / "fifo")
    assert names_below(root, root + b"/link") == [b"\n\xff"]
    with pytest.raises(FileNotFoundError):
        names_below(root, root + b"/out")
    with pytest.raises(NotADirectoryError):
        names_below(root, root + b"/fifo")


def test_no_descriptor_stays_open(tmp_path: Path, way: str) -> None:
    """Protects a process that reads thousands of records."""
    del way
    root = os.fsencode(tmp_path)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x").write_bytes(b"1")
    (tmp_path / "a/l").symlink_to("/a/b/../b")
    (tmp_path / "a/loop").symlink_to("loop/x")
    before = os.listdir("/proc/self/fd")
    assert read_below(root, root + b"/a/l/x") == b"1"
    for name in (b"/a/loop", b"/a/none/x", b"/a/b"):
        with pytest.raises(OSError):  # noqa: PT011 - of three kinds
            read_below(root, root + name)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("size", [0, 1, LIMIT, LIMIT + 1])
def test_the_bound_is_exact(tmp_path: Path, size: int) -> None:
    """Protects what is read from being cut, and the bound from being one off."""
    (tmp_path / "x").write_bytes(b"x" * size)
    if size <= LIMIT:
        assert read_named(tmp_path / "x", LIMIT) == b"x" * size
    else:
        with pytest.raises(OSError, match="the most that is read of such a file"):
            read_named(tmp_path / "x", LIMIT)


def test_what_says_nothing_of_its_size_is_bounded_too() -> None:
    """Protects from files of proc(5), whose size is 0, and reads those that are small."""
    assert b"Name:" in read_named("/proc/self/status", 1 << 20)
    with pytest.raises(OSError, match="the most that is read of such a file"):
        read_named("/proc/self/status", 10)


def test_the_null_device_is_empty(tmp_path: Path) -> None:
    """Protects `/dev/null` for a list that has nothing."""
    (tmp_path / "x").symlink_to("/dev/null")
    assert read_named("/dev/null", LIMIT) == b""
    assert read_named(tmp_path / "x", LIMIT) == b""


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_what_a_shell_passes_is_read_to_its_end(name: str) -> None:
    """Protects `<(…)` and /dev/stdin, whose writer the user has started, and their bound."""
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb") as file:
            file.write(b"x" * 70_000)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert len(read_named(name.format(reading), 70_000)) == 70_000
    finally:
        writer.join()
        os.close(reading)


def test_standard_input_is_read_by_its_name() -> None:
    """Protects `/dev/stdin`: of a pipe what is left, of a file its whole content, of endless ones no more."""
    code = "from pkgjail.core.untrusted import read_named; print(len(read_named('/dev/stdin', 100)))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=b"12345", capture_output=True, check=False, timeout=60)
    assert done.stdout == b"5\n"
    for name in (__file__, "/dev/zero"):
        with Path(name).open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, check=False, timeout=60)
        assert b"it has more than 100 bytes" in done.stderr


def test_a_name_exchanged_meanwhile_makes_nobody_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects from a file that becomes a FIFO between the look at it and its opening."""
    path = tmp_path / "x"
    path.write_bytes(b"1")
    real = untrusted.refuse_irregular

    def exchange(found: os.stat_result, name: str | bytes) -> None:
        real(found, name)
        path.unlink()
        os.mkfifo(path)

    monkeypatch.setattr(untrusted, "refuse_irregular", exchange)
    with pytest.raises(OSError, match=r"exist|FIFO"):
        read_below(os.fsencode(tmp_path), os.fsencode(path))
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_files_that_became_something_else_are_not_waited_for(tmp_path: Path) -> None:
    """Protects digests that are asked for again, of a package manager or for a bill of materials."""
    os.mkfifo(tmp_path / "x")
    with pytest.raises(OSError, match="it is a FIFO, and not a regular file"):
        file_digests(os.fsencode(tmp_path / "x"), "md5")
    with pytest.raises(OSError, match="it is a character device, and not a regular file"):
        file_digests(b"/dev/zero", "sha1", "sha256")
