"""Manifests on the disk are written atomically."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail import manifest as manifest_module
from pkgjail.core.errors import InputError
from pkgjail.manifest import manifest_digest, read_manifest, write_manifest
from pkgjail.storage.atomic import replace_file
from tests.manifest_cases import (
    SAMPLE,
    sample,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def names(directory: Path) -> list[str]:
    """Return the names in a directory, including temporary files."""
    return sorted(path.name for path in directory.iterdir())


def test_write_then_read(tmp_path: Path) -> None:
    """The digest names the bytes on the disk, the mode follows the umask, nothing else is left."""
    path = tmp_path / "m.jsonl"
    for umask, mode in ((0o077, 0o600), (0o022, 0o644)):
        before = os.umask(umask)
        try:
            digest = write_manifest(sample(), path)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert digest == manifest_digest(path.read_bytes()) == f"sha256:{hashlib.sha256(SAMPLE).hexdigest()}"
    assert read_manifest(path) == sample()
    assert names(tmp_path) == ["m.jsonl"]


def test_a_relative_path_is_below_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-o m.jsonl` is the usual call."""
    monkeypatch.chdir(tmp_path)
    write_manifest(sample(), "m.jsonl")
    assert read_manifest("m.jsonl") == sample()


@pytest.mark.parametrize("failing", ["fsync", "rename"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: type[BaseException]
) -> None:
    """A full disk or a Ctrl-C at any step changes nothing and leaves no temporary files."""
    path = tmp_path / "m.jsonl"
    path.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise error(errno.ENOSPC, "full")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(error) as caught:
        write_manifest(sample(), path)
    assert getattr(caught.value, "filename", str(path)) == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["m.jsonl"]


def test_a_write_that_does_not_fit_leaves_the_old_manifest(tmp_path: Path) -> None:
    """A real refusal of the kernel in the middle of the bytes: a limit on the size of files."""
    path = tmp_path / "m.jsonl"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(SAMPLE) - 1, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_manifest(sample(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["m.jsonl"]


WRITE_FOR_EVER = """
import sys
from pkgjail.manifest import read_manifest, write_manifest

manifest = read_manifest(sys.argv[1])
while True:
    write_manifest(manifest, sys.argv[1])
    print(flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_manifest(tmp_path: Path) -> None:
    """Readers find a sound manifest, whenever the writer is killed."""
    path = tmp_path / "m.jsonl"
    write_manifest(sample(), path)
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(path)],
        stdout=subprocess.PIPE,
        cwd=Path(manifest_module.__file__).parents[1],
    ) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline()
            assert read_manifest(path) == sample()
        process.kill()
    assert read_manifest(path) == sample()


def test_a_filesystem_that_syncs_no_directories_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems return EINVAL, which is ignored after the rename; other errors are not."""
    real, code = os.fsync, errno.EINVAL

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_manifest(sample(), tmp_path / "m.jsonl")
    code = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_manifest(sample(), tmp_path / "m.jsonl")


@pytest.mark.parametrize("what", ["symlink", "fifo", "directory"])
def test_what_is_no_regular_file_is_not_written_over(tmp_path: Path, what: str) -> None:
    """`-o /dev/null` as root must not replace the device, and a link is neither followed nor replaced."""
    path = tmp_path / "m.jsonl"
    precious = tmp_path / "precious"
    precious.write_text("kept")
    make: dict[str, Callable[[], object]] = {
        "symlink": lambda: path.symlink_to(precious),
        "fifo": lambda: os.mkfifo(path),
        "directory": path.mkdir,
    }
    make[what]()
    kind = stat.S_IFMT(path.lstat().st_mode)
    with pytest.raises(InputError, match="name another path"):
        write_manifest(sample(), path)
    assert stat.S_IFMT(path.lstat().st_mode) == kind
    assert precious.read_text() == "kept"
    assert names(tmp_path) == ["m.jsonl", "precious"]


def test_a_failure_names_what_was_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a read-only directory, creating a temporary file fails, but the message has the target's name."""
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError) as caught:
        replace_file(tmp_path / "new", b"")
    assert caught.value.filename == str(tmp_path / "new")
