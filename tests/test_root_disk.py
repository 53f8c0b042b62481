"""The root disk of a machine: what it has, and that it is made once and stays while a machine uses it."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import DriftError, NamesError
from pkgjail.core.reporter import SILENT
from pkgjail.machine import root_disk as module
from pkgjail.machine.model import MachineError
from pkgjail.machine.root_disk import root_disk
from pkgjail.storage.cache import prune_cache
from tests.test_export import FIT, NOT_UTF8, directory, manifest_of, odd_tree, regular, symlink

if TYPE_CHECKING:
    from pkgjail.core.model import FileEntry, Manifest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/pkgjail"


def disks(cache: Path) -> list[str]:
    """Return the names of the disks in the cache."""
    return [path.name for path in sorted((cache / "layers").glob("disk-*"))]


def members(disk: str) -> dict[bytes, tarfile.TarInfo]:
    """Return what a disk has, by path, as another program reads it."""
    packed = subprocess.run(["sqfs2tar", disk], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(packed), encoding="utf-8", errors="surrogateescape") as archive:
        return {b"/" + each.name.encode("utf-8", "surrogateescape"): each for each in archive.getmembers()}


def content_of(disk: str, path: bytes) -> bytes:
    """Return the content of a file in a disk."""
    return subprocess.run(["rdsquashfs", "-c", path, disk], capture_output=True, check=True).stdout


def test_a_disk_has_exactly_the_manifest(tmp_path: Path) -> None:
    """Protects that a guest sees the manifest's names, owned by root, and the mount points of every jail."""
    manifest = odd_tree(tmp_path / "root", [*FIT, *NOT_UTF8])
    with root_disk(manifest, bytes(tmp_path / "root"), SILENT) as disk:
        found = members(disk)
        assert {path: each for path, each in found.items() if (each.uid, each.gid) != (0, 0)} == {}
        listed = {entry.path for entry in manifest.files if entry.path != b"/"}
        assert found.keys() == listed | {b"/sys", b"/dev"}
        assert {e.path for e in manifest.files if e.path in found and not is_like(e, found[e.path])} == set()
        assert content_of(disk, b"/odd/plain") == b"1plain"
        assert b"localhost" in content_of(disk, b"/etc/hosts")


def attempt(manifest: Manifest, root: bytes) -> None:
    """Make a disk that is not used."""
    with root_disk(manifest, root, SILENT):
        pass


def is_like(entry: FileEntry, member: tarfile.TarInfo) -> bool:
    """Return whether a member is of the entry's kind, mode and size."""
    if entry.kind == "symlink":
        return member.issym() and member.linkname.encode("utf-8", "surrogateescape") == entry.target
    if entry.kind == "directory":
        return member.isdir() and member.mode == entry.mode & 0o1777
    return (
        member.isreg()
        and member.mode == entry.mode
        and (entry.origin == "entry" or member.size == entry.size)
    )


def privileged(root: Path) -> Manifest:
    """Make a tree with a set-user-ID program, and a file of which the manifest has no digest."""
    root.mkdir()
    for name, content, mode in (("su", b"program", 0o4755), ("shadow", b"secret", 0o640)):
        (root / name).write_bytes(content)
        (root / name).chmod(mode)
    secret = regular(b"/shadow", b"secret", 0o640)._replace(sha256=None)
    return manifest_of(directory(b"/"), regular(b"/su", b"program", 0o4755), secret)


def test_nothing_in_it_gives_privileges(tmp_path: Path) -> None:
    """Protects against set-user-ID programs in the guest, and contents that others may not read."""
    with root_disk(privileged(tmp_path / "root"), bytes(tmp_path / "root"), SILENT) as disk:
        found = members(disk)
        assert (found[b"/su"].mode, found[b"/su"].size) == (0o755, 7)
        assert (found[b"/shadow"].mode, found[b"/shadow"].size) == (0, 0)


def test_it_is_made_once(tmp_path: Path, cache: Path) -> None:
    """Protects the time of the next start, and the manifest's files from the host's later changes."""
    manifest = odd_tree(tmp_path / "root", [b"plain"])
    root = bytes(tmp_path / "root")
    with root_disk(manifest, root, SILENT) as disk:
        first = Path(disk).read_bytes()
        inode = os.stat(disk).st_ino
    (tmp_path / "root/odd/plain").write_text("changed")
    with root_disk(manifest, root, SILENT) as disk:
        assert os.stat(disk).st_ino == inode
    Path(disk).chmod(0o600)
    Path(disk).write_bytes(first[:-1] + b"!")
    with pytest.raises(DriftError, match="the host has changed since the manifest was made"):
        attempt(manifest, root)
    (tmp_path / "root/odd/plain").write_text("1plain")
    with root_disk(manifest, root, SILENT) as disk:
        assert Path(disk).read_bytes() == first
    assert len(disks(cache)) == 1


def test_only_the_user_can_read_it(tmp_path: Path) -> None:
    """Protects what the user may read and others may not."""
    with root_disk(privileged(tmp_path / "root"), bytes(tmp_path / "root"), SILENT) as disk:
        assert stat.S_IMODE(os.stat(os.path.dirname(disk)).st_mode) == 0o700


def test_prune_spares_a_disk_in_use(tmp_path: Path, cache: Path) -> None:
    """Protects a running machine from losing its root, and the user's disk from being filled for ever."""
    manifest = privileged(tmp_path / "root")
    with root_disk(manifest, bytes(tmp_path / "root"), SILENT) as disk:
        prune_cache(older_than=time.time() + 10)
        assert os.path.exists(disk)
    removed = prune_cache(older_than=time.time() + 10)
    assert Path(disk).parent.parent.name in [item.path.name for item in removed]
    assert disks(cache) == []


def test_drift_is_refused_and_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    """Protects the exactness of what a guest sees: changes of a mode and of a content."""
    manifest = privileged(tmp_path / "root")
    (tmp_path / "root/su").chmod(0o755)
    with pytest.raises(DriftError):
        attempt(manifest, bytes(tmp_path / "root"))
    (tmp_path / "root/su").write_bytes(b"PROGRAM")
    (tmp_path / "root/su").chmod(0o4755)
    with pytest.raises(DriftError, match="cannot enter the jail"):
        attempt(manifest, bytes(tmp_path / "root"))
    assert [path.name for path in (cache / "layers").iterdir()] == ["lock"]


def test_what_no_disk_can_have_is_refused(tmp_path: Path) -> None:
    """Protects the messages: files without digests, and something else where the jail mounts its own."""
    root = bytes(tmp_path)
    undigested = regular(b"/a", b"")._replace(sha256=None)
    with pytest.raises(NamesError, match="cannot export /a to a machine's disk: the manifest has no digest"):
        attempt(manifest_of(directory(b"/"), undigested), root)
    with pytest.raises(NamesError, match="cannot export /proc to a machine's disk"):
        attempt(manifest_of(directory(b"/"), symlink(b"/proc", b"/odd")), root)


def test_a_full_disk_is_named(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the message, with what to do, and that nothing is left."""
    manifest = privileged(tmp_path / "root")

    def fail(*_: object) -> None:
        raise OSError(28, os.strerror(28), str(tmp_path))

    monkeypatch.setattr(module, "write_files", fail)
    with pytest.raises(
        MachineError, match=r"cannot make the disk of a machine: .*: No space.*XDG_CACHE_HOME"
    ):
        attempt(manifest, bytes(tmp_path / "root"))
    assert [path.name for path in (cache / "layers").iterdir()] == ["lock"]
