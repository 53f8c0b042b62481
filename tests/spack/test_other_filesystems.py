"""Environments, and Spacks, on other file systems and below unusual names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.spack.test_inside import HOST, WHERE

if TYPE_CHECKING:
    import subprocess

    from tests.spack.conftest import Spack

NAMES = pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"a b", id="a space"),
        pytest.param("größe-目录-каталог".encode(), id="letters of other scripts"),
        pytest.param(b"caf\xe9 \xff\xfe", id="bytes that are not UTF-8"),
        pytest.param(b'it\'s "$HOME" \\x *', id="characters of shells"),
        pytest.param(b"a:b,c=d#e%20", id="characters of mounts and lists"),
        pytest.param(b"line\nbreak\ttab", id="a line break"),
        pytest.param(b"-f", id="an option"),
    ],
)
INSIDE = (0, "pkgjail\n", "")


def outputs(spack: Spack) -> set[tuple[int, str, str]]:
    """Run a command that prints the host name by each hook, twice; return the statuses and outputs."""
    done = [spack("python", "-c", WHERE, environment=hooked) for hooked in ({}, spack.wrapped()) * 2]
    return {(each.returncode, each.stdout, each.stderr) for each in done}


@NAMES
def test_an_environment_below_any_name(spack: Spack, name: bytes) -> None:
    """It is built, entered, replaced and removed."""
    above = os.path.join(os.fsencode(spack.user.home), name)
    os.mkdir(above)
    os.chown(above, spack.user.uid, spack.user.uid)
    place = os.fsdecode(above + b"/env " + name)
    for options in ([], ["--force"]):
        words = ["jail", "--build-environment", place, "--whitelist", spack.whitelist, *options]
        built = spack(*words)
        assert (built.returncode, built.stderr) == (0, "")
        assert outputs(spack) == {INSIDE}
    removed = spack("jail", "--remove-environment")
    assert (removed.returncode, removed.stderr) == (0, "")
    assert os.listdir(above) == []
    assert spack("python", "-c", WHERE).stdout == f"{HOST}\n"


@NAMES
def test_a_spack_below_any_name(spack: Spack, name: bytes) -> None:
    """If it works there without an environment."""
    above = os.path.join(os.fsencode(spack.user.home), name)
    os.mkdir(above)
    os.chown(above, spack.user.uid, spack.user.uid)
    shutil.move(spack.root, os.fsdecode(above))
    moved = spack._replace(root=Path(os.fsdecode(above)) / "spack")
    assert outputs(moved) == {(0, f"{HOST}\n", "")}
    assert moved.build().stderr == ""
    assert outputs(moved) == {INSIDE}
    assert moved("jail", "--remove-environment").returncode == 0


def in_namespace(spack: Spack, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script of sh(1) in Spack's home, as root of a user and mount namespace of the user's."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh"]
    words = [spack.script, spack.environment, spack.whitelist, WHERE]
    return spack.user.run([*command, *words], environment=spack.variables())


BUILD = '"$1" jail --build-environment small/env --whitelist "$3"'


def test_an_environment_on_another_file_system(spack: Spack) -> None:
    """It is built, entered, replaced and removed. If it is unmounted, no command runs outside."""
    script = f"""
        mkdir small; mount -t tmpfs tmpfs small
        {BUILD} && {BUILD} --force && "$1" python -c "$4"
        mkdir elsewhere; mount -n --move small elsewhere
        status=0; "$1" python -c "$4" || status=$?; echo "status $status"
        mount -n --move elsewhere small; "$1" python -c "$4"
        "$1" jail --remove-environment; ls -A small
    """
    done = in_namespace(spack, script)
    assert done.returncode == 0, done.stderr
    active = f"{spack.user.home}/small/env"
    said = f"{active} is active: spack commands run inside, by the entry point 'spack.config'"
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("to remove it", said))]
    assert lines == ["pkgjail", "status 1", "pkgjail", f"{active}: 1 name deleted; nothing is active"]
    assert f"cannot enter {active}: No such file or directory" in done.stderr
    assert "to run Spack outside again, use 'spack jail --remove-environment'" in done.stderr


@pytest.mark.parametrize("active", [False, True], ids=["none", "another"])
@pytest.mark.parametrize("room", ["nr_inodes=1", "nr_inodes=3", "size=64k"])
def test_a_full_file_system_leaves_spack_as_it_was(spack: Spack, room: str, *, active: bool) -> None:
    """The environment that was active stays; the message says what to do."""
    if active:
        spack.build()
    script = f"""
        mkdir small; mount -t tmpfs -o {room} tmpfs small
        status=0; {BUILD} --force || status=$?
        echo "status $status"; ls -A small; "$1" python -c "$4"
    """
    done = in_namespace(spack, script)
    assert done.stdout.splitlines() == ["status 1", "pkgjail" if active else HOST], done.stderr
    left = "" if room == "nr_inodes=1" else "nothing of it is left; "
    assert f"small/env: No space left on device; {left}make room, or name" in done.stderr
    assert (spack.root / "opt/.pkgjail/active.json").exists() == active


@pytest.mark.parametrize("hook", ["entry point", "SPACK_PYTHON"])
def test_an_environment_that_became_unreadable_stops_every_command(spack: Spack, hook: str) -> None:
    """None runs outside; it is neither replaced nor forgotten; then it can be removed."""
    above = spack.user.home / "above"
    above.mkdir()
    os.chown(above, spack.user.uid, spack.user.uid)
    words = ["jail", "--build-environment", str(above / "env"), "--whitelist", spack.whitelist]
    assert spack(*words).returncode == 0
    hooked = {} if hook == "entry point" else spack.wrapped()
    assert spack("python", "-c", WHERE, environment=hooked).stdout == "pkgjail\n"
    for path, mode in ((above, 0), (above / "env", 0), (above / "env/manifest.jsonl", 0)):
        before = path.stat().st_mode
        path.chmod(mode)
        for command in (["python", "-c", WHERE], [*words, "--force"], ["jail", "--remove-environment"]):
            done = spack(*command, environment=hooked)
            if path.name == "manifest.jsonl" and command[0] == "jail":
                continue  # an owner may remove what the owner may not read
            assert (done.returncode, done.stdout) == (1, ""), command
            assert "Permission denied" in done.stderr, command
        path.chmod(before)
        if path.exists() and (above / "env").exists():
            assert spack("python", "-c", WHERE, environment=hooked).stdout == "pkgjail\n"


def test_a_spack_on_a_read_only_file_system(spack: Spack) -> None:
    """Its owner has an own environment too; what is mounted in it, as an install tree, is writable."""
    tree, write = spack.root / "opt/spack/x", f"open({str(spack.root / 'x')!r}, 'w')"
    script = f"""
        mkdir -p spack/opt/spack
        mount -n --bind spack spack; mount -n -o remount,bind,ro spack
        mount -n -t tmpfs tmpfs spack/opt/spack
        "$1" jail --build-environment "$2" --whitelist "$3"
        "$1" python -c "$4"; "$1" python -c "$4"
        "$1" python -c "open({str(tree)!r}, 'w')"; ls -d spack/opt/spack/x
        "$1" python -c "{write}" || true
        "$1" jail --remove-environment
    """
    done = in_namespace(spack, script)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("to remove it")]
    active = f"{spack.environment} is active for you: spack commands run inside, by"
    assert lines == [
        f"{active} the entry point 'spack.config'",
        "pkgjail",
        "pkgjail",
        "spack/opt/spack/x",
        f"{spack.environment}: 1 name deleted; nothing is active",
    ]
    assert "Read-only file system" in done.stderr
