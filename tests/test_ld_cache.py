"""The ld.so cache of a jail: made by the file set's own ldconfig, stored by all that it depends on."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.api import resolve
from pkgjail.core.errors import JailError
from pkgjail.core.jail_names import LD_CACHE
from pkgjail.core.model import FileEntry
from pkgjail.core.options import JailOptions
from pkgjail.jails import ld_cache, scratch
from pkgjail.jails.ld_cache import make_ld_cache
from pkgjail.jails.run import run_in_jail
from pkgjail.jails.strategy import choose_strategies, steps_by_directory
from pkgjail.manifest import write_manifest
from pkgjail.sandbox.steps import assemble
from pkgjail.storage.baseline import record_baseline
from pkgjail.storage.locations import cache_directory, runtime_directory
from tests.manifest_text import files_alone
from tests.test_drift import entries_of, make_host

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.core.model import Manifest
    from pkgjail.sandbox.rootfs import Program
    from pkgjail.sandbox.steps import Plan
    from tests.conftest import Caller

CACHE = "glibc-ld.so.cache1.1 "


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make_root(root: Path, script: str) -> None:
    """Make a root whose ldconfig is this script of busybox's shell."""
    make_host(root)
    (root / "sbin").mkdir()
    (root / "usr/lib/libx.so.1").write_bytes(b"library")
    (root / "usr/lib/libx.so").symlink_to("libx.so.1")
    (root / "etc/ld.so.conf").write_text("/usr/lib\n")
    rewrite(root, script)


def rewrite(root: Path, script: str) -> None:
    (root / "sbin/ldconfig").write_text(f"#!/bin/busybox sh\n{script}\n")
    (root / "sbin/ldconfig").chmod(0o755)


def set_of(root: Path) -> Manifest:
    """Return the manifest of such a root, in which ld.so.cache is made at entry."""
    more = [FileEntry(path=b"/sbin", kind="directory", mode=0o755)]
    for name in ("etc/ld.so.conf", "sbin/ldconfig", "usr/lib/libx.so.1"):
        found = (root / name).stat()
        path = b"/" + os.fsencode(name)
        more.append(FileEntry(path=path, kind="regular", mode=found.st_mode & 0o7777, size=found.st_size))
    target = os.readlink(bytes(root / "usr/lib/libx.so"))
    more += [
        FileEntry(path=b"/usr/lib/libx.so", kind="symlink", mode=0o777, target=target),
        FileEntry(path=LD_CACHE, kind="regular", mode=0o644, origin="entry"),
    ]
    return files_alone(tuple(sorted((*entries_of(root), *more), key=lambda entry: entry.path)))


def writing(text: str) -> str:
    """Return a script that makes an ld.so cache with this text in it."""
    return f"echo '{CACHE}{text}' > /tmp/ld.so.cache"


def made(root: Path) -> str:
    content = make_ld_cache(set_of(root), {}, bytes(root)).decode()
    assert content.startswith(CACHE)
    return content[len(CACHE) :].strip()


def kept(tmp_path: Path) -> list[str]:
    place = tmp_path / "cache/pkgjail/ld.so.cache"
    return sorted(os.listdir(place)) if place.exists() else []


def test_a_root_does_not_get_the_cache_of_another(tmp_path: Path) -> None:
    """Protects a trusted root's jails from another user's root with the same names and its own ldconfig."""
    roots = {name: tmp_path / name for name in ("good", "evil")}
    for name, root in reversed(roots.items()):
        make_root(root, writing(name))
    assert [made(roots[name]) for name in ("evil", "good", "evil")] == ["evil", "good", "evil"]


COUNTER = """
cat /etc/ld.so.conf /usr/lib/libx.so | busybox md5sum > /tmp/sum
""" + f'read sum rest < /tmp/sum; echo "{CACHE}$sum" > /tmp/ld.so.cache'  # fmt: skip


def _as_long(name: str, content: bytes) -> Callable[[Path], None]:
    """Write other content of the same length to a file, and set its times back."""

    def change(root: Path) -> None:
        before = (root / name).stat()
        time.sleep(0.03)
        (root / name).write_bytes(content)
        os.utime(root / name, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (root / name).stat().st_size == before.st_size

    return change


def _link_elsewhere(root: Path) -> None:
    (root / "usr/lib/libx.so").unlink()
    (root / "usr/lib/libx.so").symlink_to("library")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_as_long("usr/lib/libx.so.1", b"another"), id="a library"),
        pytest.param(_as_long("etc/ld.so.conf", b"/usr/LIB\n"), id="its configuration"),
        pytest.param(_link_elsewhere, id="a link"),
    ],
)
def test_a_change_of_an_input_makes_a_new_cache(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Protects from an old cache. The manifest has no digests here, so the files themselves are compared."""
    root = tmp_path / "root"
    make_root(root, COUNTER.replace("cat", "busybox cat"))
    before = made(root)
    assert made(root) == before
    assert len(kept(tmp_path)) == 1
    change(root)
    assert made(root) != before
    assert len(kept(tmp_path)) == 2


def test_another_ldconfig_of_the_same_length_makes_a_new_cache(tmp_path: Path) -> None:
    """Protects from the result of an ldconfig that has been replaced."""
    root = tmp_path / "root"
    make_root(root, writing("one"))
    assert made(root) == "one"
    time.sleep(0.03)
    rewrite(root, writing("two"))
    assert made(root) == "two"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        pytest.param("exit 1", "ended with status 1;", id="a status"),
        pytest.param(f"{writing('half')}; exit 1", "ended with status 1;", id="a status, and a file"),
        pytest.param("busybox kill -9 $$", "ended with status 137;", id="killed"),
        pytest.param("exit 0", "made no file that can be read", id="nothing"),
        pytest.param("> /tmp/ld.so.cache", "is no ld.so cache", id="an empty file"),
        pytest.param("echo '#!' > /tmp/ld.so.cache", "is no ld.so cache", id="something else"),
        pytest.param(
            f"{writing('x')}; busybox truncate -s 20G /tmp/ld.so.cache",
            "is no ld.so cache",
            id="too large",
        ),
        pytest.param("busybox mkdir /tmp/ld.so.cache", "made no file that can be read", id="a directory"),
    ],
)
def test_a_failure_is_reported_and_not_stored(tmp_path: Path, script: str, told: str) -> None:
    """Protects all later jails from an empty cache."""
    root = tmp_path / "root"
    make_root(root, script)
    for _ in range(2):
        with pytest.raises(JailError, match=f"cannot make /etc/ld.so.cache for the jail: .*{told}"):
            made(root)
    assert kept(tmp_path) == []
    time.sleep(0.03)
    rewrite(root, writing("well"))
    assert made(root) == "well"


def test_another_users_ldconfig_affects_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Protects the caller's terminal, input and time, and the target of a link that it leaves behind."""
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    mine = tmp_path / "mine"
    mine.touch(0o640)
    root = tmp_path / "root"
    left = f"busybox mkdir /tmp/closed; busybox ln -s {mine} /tmp/closed/link; busybox chmod 500 /tmp/closed"
    deep = "cd /tmp; i=0; while [ $i -lt 1500 ]; do busybox mkdir d; cd ./d; i=$((i+1)); done; cd /"
    make_root(root, f"printf '\\033[2J'; read line; {left}; {deep}; {writing('x')}")
    assert made(root) == "x"
    rewrite(root, "printf '\\033[2Jno' >&2; exit 1")
    with pytest.raises(JailError, match=r"ended with status 1: \\x1b\[2Jno; check"):
        made(root)
    rewrite(root, "while :; do :; done")
    monkeypatch.setattr(ld_cache, "_TIMEOUT", 0.5)
    with pytest.raises(JailError, match=r"ldconfig of the file set: it does not end within 0\.5 s"):
        made(root)
    assert capfd.readouterr() == ("", "")
    assert sorted(os.listdir(tmp_path)) == ["cache", "mine", "root", "run"]
    assert [path for path in (run / "pkgjail").iterdir() if path.name.startswith(".")] == []
    assert mine.stat().st_mode & 0o777 == 0o640


def test_a_limit_on_the_size_of_files_leaves_nothing_behind(caller: Caller, tmp_path: Path) -> None:
    """Protects the next jails from the effect of `ulimit -f 1` on one."""
    manifest = tmp_path / "m.jsonl"
    # Without dpkg's status file, which is made before, and is larger than the limit.
    write_manifest(resolve(["base"], hashed=False, package_database=False), manifest)
    own = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = ("run", manifest, "--", "wc", "-c", "/etc/ld.so.cache")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))

    refused = caller.pkgjail(*words, environment=own, preexec_fn=limit)
    assert (refused.returncode, refused.stdout) == (125, "")
    assert "cannot make /etc/ld.so.cache for the jail: " in refused.stderr
    assert kept(tmp_path) == []
    done = caller.pkgjail(*words, environment=own)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 512


def test_a_full_runtime_directory_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from a traceback, and from an empty cache."""
    make_root(tmp_path / "root", writing("x"))

    def full(*_where: object) -> None:
        raise OSError(28, "No space left on device", "/full")

    monkeypatch.setattr(scratch, "make_locked_directory", full)
    with pytest.raises(JailError, match=r"for the jail: /full: No space left on device; .*XDG_RUNTIME_DIR"):
        made(tmp_path / "root")


def test_it_is_made_where_no_jail_can_write(base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the next jails from a command in a jail that shows TMPDIR."""
    places: list[bytes] = []

    def look(plan: Plan) -> Program:
        program = assemble(plan)
        places.extend(step[2] for step in program[1] if step[:2] == ("Bind", b"/tmp"))
        return program

    monkeypatch.setattr(ld_cache, "assemble", look)
    monkeypatch.setattr(ld_cache, "_enter", lambda *_: 1)
    for _ in range(2):
        with pytest.raises(JailError, match="ended with status 1"):
            make_ld_cache(base_manifest, {}, b"/")
    assert [os.path.dirname(place) for place in places] == 2 * [os.fsencode(runtime_directory())]
    assert not any(map(os.path.lexists, places))


def test_the_strategy_makes_no_difference(spack_manifest: Manifest) -> None:
    """Protects exactness: ldconfig sees the same by file binds and by overlays."""
    steps = steps_by_directory(choose_strategies(spack_manifest, JailOptions(network=False), b"/"))
    assert steps
    few = make_ld_cache(spack_manifest, {}, b"/", lambda: steps)
    for path in Path(cache_directory(), "ld.so.cache").iterdir():
        path.unlink()
    many = make_ld_cache(spack_manifest, {}, b"/")
    assert few == many
    assert few.startswith(b"glibc-ld.so.cache")


def test_the_jail_of_ldconfig_has_few_mounts_too(
    spack_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects file sets with more files than a host allows mounts."""
    counts = []

    def count(plan: Plan) -> Program:
        program = assemble(plan)
        counts.append(sum(step[0] == "HostFile" for step in program[1]))
        return program

    monkeypatch.setattr(ld_cache, "assemble", count)
    monkeypatch.setattr(ld_cache, "run", lambda *_: 1)
    with pytest.raises(JailError, match="ended with status 1"):
        run_in_jail(spack_manifest, ["true"], JailOptions(network=False))
    assert counts[0] < 1000 < len(spack_manifest.files)


def test_it_is_not_stored_if_times_do_not_show_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects from the cache of another image, and the disk from entries that are never found again."""
    root = tmp_path / "root"
    make_root(root, writing("x"))
    monkeypatch.setattr(ld_cache, "is_lasting", lambda _states: False)
    assert made(root) == "x"
    assert kept(tmp_path) == []


@pytest.mark.long
def test_a_jail_can_have_more_names_than_mounts(tmp_path: Path) -> None:
    """Protects a jail of all installed packages: a host allows 100,000 mounts (fs.mount-max)."""
    root = tmp_path / "root"
    make_root(root, writing("x"))
    more = []
    for number in range(100):
        directory = root / f"usr/lib/{number}"
        directory.mkdir()
        directory.chmod(0o755)
        path = b"/usr/lib/%d" % number
        more.append(FileEntry(path=path, kind="directory", mode=0o755))
        for name in range(1200):
            (directory / f"{name}").touch(mode=0o644)
            more.append(FileEntry(path=b"%s/%d" % (path, name), kind="regular", mode=0o644, size=0))
    manifest = set_of(root)
    files = tuple(sorted((*manifest.files, *more), key=lambda entry: entry.path))
    command = ["busybox", "grep", "-q", CACHE, "/etc/ld.so.cache"]
    options = JailOptions(network=False)
    record_baseline(files, bytes(root))  # as the manifest has no digests
    assert run_in_jail(replace(manifest, files=files), command, options, root=bytes(root)).returncode == 0
