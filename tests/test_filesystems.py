"""File systems whose times the image has: a file's content is never believed for its times there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import DriftError
from pkgjail.core.options import JailOptions
from pkgjail.jails.drift import find_drift
from pkgjail.jails.run import run_in_jail
from pkgjail.storage.baseline import record_baseline, take_baseline
from pkgjail.storage.filesystems import identity
from pkgjail.storage.fingerprint import changed_directories, take_settled_fingerprint, unverifiable_paths
from pkgjail.storage.hashing import HashCache, hash_files
from tests.images import KINDS, shown
from tests.manifest_text import files_alone
from tests.test_drift import entries_of, make_host

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pkgjail.core.model import Verify


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Two trees that differ in the content of one file, and in nothing else."""
    found = (tmp_path / "first", tmp_path / "second")
    for tree in found:
        (tree / "d").mkdir(parents=True)
        (tree / "d/file").write_text(f"{tree.name:9}")
    return found


def facts(place: Path) -> Sequence[tuple[int, ...]]:
    """Return the recorded times of everything at `place`, without the device number.

    That is the same where the device is free again, which other tests may use meanwhile.
    """
    found = (path.lstat() for path in (place, *sorted(place.rglob("*"))))
    return [(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found]


@pytest.mark.parametrize("kind", KINDS)
def test_what_two_images_have_alike_is_not_believed(
    kind: str, trees: tuple[Path, Path], tmp_path: Path
) -> None:
    """Protects a manifest from the digests of another image, and records from its directories."""
    place, cache = tmp_path / "place", HashCache(tmp_path / "hashes.sqlite")
    seen, digests, observed = [], [], []
    stale: tuple[set[bytes], set[bytes]] = (set(), set())
    for tree in trees:
        with shown(kind, tree, place):
            seen.append(facts(place)[-1])
            digests.append(hash_files([b"/d/file"], root=bytes(place), cache=cache)[b"/d/file"])
            observed.append(take_settled_fingerprint([bytes(place), bytes(place / "d")]))
            if len(observed) == 2:
                stale = set(changed_directories(observed[0])), unverifiable_paths(observed[0])
    assert seen[0] == seen[1], "the images are told apart by their times"
    assert digests == [hashlib.sha256((tree / "d/file").read_bytes()).hexdigest() for tree in trees]
    assert stale == ({bytes(place), bytes(place / "d")},) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_believed_while_an_image_is_mounted(
    kind: str, trees: tuple[Path, Path], tmp_path: Path
) -> None:
    """Protects the speed of what lies in an image, but for FUSE: there anything may change at any time."""
    place = tmp_path / "place"
    code = (
        "import os, sys; from pkgjail.storage.fingerprint import changed_directories; "
        "from pkgjail.storage.filesystems import identity; "
        "print(changed_directories(eval(sys.argv[1])), identity(os.fsencode(sys.argv[2])))"
    )
    with shown(kind, trees[0], place):
        observed = take_settled_fingerprint([bytes(place)])
        assert changed_directories(observed) == []
        command = [sys.executable, "-c", code, repr(observed), str(place)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        expected = [bytes(place)] if kind == "fuse" else []  # to another process
        assert said == f"{expected} {identity(bytes(place))}\n"
        assert (identity(bytes(place)) is None) == (kind == "fuse")


def test_file_systems_that_set_times_have_an_identity(tmp_path: Path) -> None:
    """Protects the digests and jails that are kept on an ordinary host."""
    own, memory = identity(bytes(tmp_path)), identity(b"/dev/shm")
    assert own is not None
    assert memory is not None
    assert own != memory


def test_there_is_none_of_what_the_kernel_makes_up_or_of_nothing() -> None:
    """Protects from times that say nothing, as those of proc(5) do."""
    assert identity(b"/proc/self/status") is None
    assert identity(b"/nowhere") is None


def test_a_link_is_taken_for_itself(tmp_path: Path) -> None:
    """Protects the states of links: what one leads to is on another file system."""
    (tmp_path / "link").symlink_to("/proc")
    assert identity(bytes(tmp_path / "link")) == identity(bytes(tmp_path))
    assert os.path.exists(tmp_path / "link")


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two hosts that differ in the content of one file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = (tmp_path / "first", tmp_path / "second")
    for host in found:
        make_host(host)
    (found[1] / "usr/lib/library").write_bytes(b"abd")
    return found


@pytest.mark.parametrize("verify", ["", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_another_image_is_not_entered_by_the_manifest_of_the_first(
    kind: str, verify: Verify, hosts: tuple[Path, Path], tmp_path: Path
) -> None:
    """Protects a jail from content that the times of an image hide."""
    place = tmp_path / "place"
    options = JailOptions(network=False, verify=verify)
    command = ["busybox", "grep", "-q", "abc", "/usr/lib/library"]
    with shown(kind, hosts[0], place):
        manifest = files_alone(entries_of(place))
        record_baseline(manifest.files, bytes(place))
        before = take_baseline(manifest.files, bytes(place))
        assert run_in_jail(manifest, command, options, root=bytes(place)).returncode == 0
    with shown(kind, hosts[1], place):
        with pytest.raises(DriftError, match="/usr/lib/library has other content"):
            run_in_jail(manifest, command, options, root=bytes(place))
        ((path, mismatch),) = find_drift(manifest.files, bytes(place), before, verify=verify)
        assert (path, mismatch.what) == (b"/usr/lib/library", "content")
