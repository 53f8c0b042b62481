"""`spack jail --build-environment` and `--remove-environment`: what they refuse, and their results."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import faults
from tests.spack.test_inside import HOST, WHERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.spack.conftest import Spack


@contextlib.contextmanager
def started(spack: Spack, *words: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run `spack …` during the block; it has ended after the block."""
    options = spack.user.options(spack.variables(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    del options["capture_output"]
    with subprocess.Popen([spack.script, *words], **options) as running:
        yield running


def test_removal_leaves_spack_as_it_was(spack: Spack) -> None:
    """Nothing is mounted, no file is left, and commands run outside."""
    before = sorted(os.listdir(spack.user.home))
    spack.build()
    removed = spack("isolate", "--remove-environment")
    assert (removed.returncode, removed.stderr) == (0, "")
    assert sorted(set(os.listdir(spack.user.home)) - {"cache", "config"}) == before
    assert not (spack.root / "opt" / ".pkgjail").exists()
    assert faults.mounts_below(spack.user.home) == []
    assert spack("python", "-c", WHERE).stdout == HOST + "\n"
    again = spack("jail", "--remove-environment")
    assert (again.returncode, again.stdout) == (1, "")
    assert "==> Error: no environment is active for this Spack" in again.stderr


def test_an_environment_that_is_gone_is_forgotten(spack: Spack) -> None:
    """Somebody deleted its directory: the removal says so, and Spack runs outside again."""
    spack.build()
    shutil.rmtree(spack.environment)
    removed = spack("jail", "--remove-environment")
    assert (removed.returncode, removed.stderr) == (0, "")
    assert removed.stdout == f"{spack.environment}: was gone already; nothing is active\n"
    assert spack("python", "-c", WHERE).stdout == HOST + "\n"


def test_an_environment_in_use_stays(spack: Spack) -> None:
    """It is neither removed nor replaced while a command runs in it; the message names the command."""
    (spack.user.home / "gates").mkdir()
    os.mkfifo(spack.user.home / "gates" / "gate")
    os.chmod(spack.user.home / "gates" / "gate", 0o644)
    spack.build("--ro-bind", str(spack.user.home / "gates"))
    code = f"text = open({str(spack.user.home / 'gates' / 'gate')!r}).read()"
    gate = spack.user.home / "gates" / "gate"
    with started(spack, "python", "-c", code) as running, open(gate, "w", encoding="ascii") as opened:
        # The gate opens once the command has opened it too.
        removed = spack("jail", "--remove-environment")
        replaced = spack("jail", "--build-environment", spack.environment, "--force")
        beside = spack("python", "-c", WHERE)
        opened.close()
        assert running.communicate() == ("", "")
    assert running.returncode == 0
    for refused in (removed, replaced):
        assert refused.returncode == 1
        assert f"process {running.pid} ({spack.python} {spack.script} python -c " in refused.stderr
    assert (beside.stdout, beside.stderr) == ("pkgjail\n", "")
    assert spack("jail", "--remove-environment").returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["--build-environment", "{root}/env"], "Spack writes to {root}", id="in Spack's root"),
        pytest.param(["--build-environment", "{home}"], "Spack writes to {home}/", id="above it"),
        pytest.param(["--build-environment", "{home}/python"], "it is not empty", id="not empty"),
        pytest.param(
            ["--build-environment", "{home}/e", "--whitelist", "no"], "whitelist", id="no whitelist"
        ),
        pytest.param(
            ["--build-environment", "{home}/e", "--manifest", "m", "--blacklist", "docs"],
            "complete",
            id="a manifest and a blacklist",
        ),
        pytest.param(
            ["--build-environment", "{home}/e", "--copy", "--permanent"], "two forms", id="two forms"
        ),
        pytest.param(
            ["--build-environment", "{home}/e", "--manifest", "/no"], "/no: No such", id="no manifest"
        ),
        pytest.param(
            ["--build-environment", "{home}/e", "--bind", "a:b"], "absolute path", id="a relative bind"
        ),
        pytest.param(["--run", "--", "true"], "no environment is active", id="no environment"),
        pytest.param(["--status", "x"], "a command needs --run", id="an extra argument"),
    ],
)
def test_errors_have_spacks_form(spack: Spack, words: list[str], message: str) -> None:
    """And no environment becomes active."""
    names = {"root": spack.root, "home": spack.user.home}
    if "--whitelist" not in words and "--manifest" not in words and "--run" not in words:
        words = [*words[:2], "--whitelist", spack.whitelist, *words[2:]]
    done = spack("jail", *[word.format(**names) for word in words])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("==> Error: ")
    assert message.format(**names) in done.stderr
    assert "outside; no environment is active" in spack("jail").stdout


def test_an_active_environment_is_replaced_only_by_force(spack: Spack) -> None:
    """By one in another directory or in the same one; the message says how."""
    spack.build()
    again = spack("jail", "--build-environment", spack.environment + "2", "--whitelist", spack.whitelist)
    assert again.returncode == 1
    assert "is active for this Spack; remove it with --remove-environment" in again.stderr
    spack.build("--force")
    other = ["jail", "--build-environment", spack.environment + "2", "-f", "--whitelist", spack.whitelist]
    assert spack(*other).returncode == 0
    assert not os.path.exists(spack.environment)
    assert spack("python", "-c", WHERE).stdout == "pkgjail\n"
    inside = spack("jail", "--run", "--", spack.script, "jail", "--remove-environment")
    assert "this command runs inside of" in inside.stderr


@pytest.mark.parametrize("path", ["env", "env2"])
def test_a_failed_replacement_leaves_what_was_active(spack: Spack, path: str) -> None:
    """In the same directory and in another one: no command runs outside, and nothing new is left."""
    spack.build()
    useless = spack.user.home / "useless.toml"
    spack.user_writes(useless, 'include = ["base"]\n[options]\nessential = false\n')
    before = sorted(os.listdir(spack.user.home))
    place = str(spack.user.home / path)
    done = spack("jail", "--build-environment", place, "--force", "--whitelist", str(useless))
    assert done.returncode == 1
    assert f"cannot run Spack's Python {spack.python}" in done.stderr
    assert sorted(os.listdir(spack.user.home)) == before
    assert f"active: {spack.environment}\n" in spack("jail").stdout
    assert spack("python", "-c", WHERE).stdout == "pkgjail\n"


@pytest.mark.parametrize("path", ["env", "env2"])
def test_what_cannot_be_replaced_is_said_before_a_build(spack: Spack, path: str) -> None:
    """An environment with a file of the user's is neither removed nor moved, and stays active."""
    spack.build()
    letter = Path(spack.environment) / "letter"
    letter.write_text("dear")
    place = str(spack.user.home / path)
    done = spack("jail", "--build-environment", place, "--force", "--whitelist", spack.whitelist)
    assert done.returncode == 1
    assert f"cannot remove {spack.environment}: " in done.stderr
    assert letter.read_text() == "dear"
    assert not os.path.exists(spack.environment + "2")
    assert spack("python", "-c", WHERE).stdout == "pkgjail\n"


def test_spacks_python_must_run_inside(spack: Spack) -> None:
    """Otherwise every later command would fail. Nothing is left of the environment."""
    Path(spack.whitelist).write_text('include = ["base"]\n[options]\nessential = false\n')
    done = spack("jail", "--build-environment", spack.environment, "--whitelist", spack.whitelist)
    assert done.returncode == 1
    assert f"cannot run Spack's Python {spack.python}" in done.stderr
    assert not os.path.exists(spack.environment)
    assert spack("python", "-c", WHERE).stdout == HOST + "\n"


def test_uncovered_tools_are_named_before_a_build_starts(spack: Spack) -> None:
    """With the package that has them: when the environment is built, and before each `spack install`."""
    prefix = str(spack.user.home / "prefix")
    os.mkdir(prefix)
    externals = [
        # Since 1.0 compilers are given like this, by their files.
        {"spec": "gmake@4.3", "prefix": "/usr", "extra_attributes": {"compilers": {"c": "/usr/bin/make"}}},
        {"spec": "bash@5", "prefix": "/usr", "extra_attributes": {"compilers": {"c": "/bin/bash"}}},
        {"spec": "gone@1", "prefix": "/no/such"},
        {"spec": "mine@1", "prefix": prefix},
    ]
    spack.configure("packages", json.dumps({"packages": {"tools": {"externals": externals}}}))
    add, advice = "add that to the whitelist", "or remove the tool from Spack's configuration"
    outside = "==> Warning: external {} is outside of the jail".format
    warnings = [
        f"{outside('gmake@4.3')}: /usr/bin/make belongs to the package make; {add}, {advice}",
        "==> Warning: external gone@1 is not on this host: /no/such does not exist",
        f"{outside('mine@1')}: {prefix} belongs to no package; show it with --ro-bind, {advice}",
    ]
    assert spack.build().stderr.splitlines() == warnings
    assert spack("install", "--help").stderr.splitlines() == warnings
    assert spack("python", "-c", WHERE).stderr == ""


def test_lines_for_fstab_are_printed_alone(spack: Spack) -> None:
    """With --permanent standard output has only the file's lines, as with `pkgjail build --fstab`."""
    done = spack.build("--permanent")
    assert all(f" {spack.environment}/root" in line for line in done.stdout.splitlines() if line[:1] != "#")
    assert f"{spack.environment} is active" in done.stderr
    assert spack("python", "-c", WHERE).stdout == "pkgjail\n"


def test_a_copy_is_entered_too(spack: Spack) -> None:
    """With --copy the files are in the environment."""
    spack.build("--copy")
    assert os.path.isfile(spack.environment + "/root/etc/passwd")
    assert spack("python", "-c", WHERE).stdout == "pkgjail\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="there must be another user; CI is root")
def test_a_shared_spack_has_an_environment_for_each_user(spack: Spack) -> None:
    """If the root belongs to another user, the record is in the user's own cache."""
    opt = spack.root / "opt"
    (opt / "spack").mkdir(parents=True, exist_ok=True)
    os.chown(opt / "spack", spack.user.uid, -1)
    os.chown(opt, os.geteuid(), -1)
    opt.chmod(0o555)
    spack.build()
    assert not (opt / ".pkgjail").exists()
    assert spack("python", "-c", WHERE).stdout == "pkgjail\n"
    assert spack("jail", "--remove-environment").returncode == 0
    assert spack("python", "-c", WHERE).stdout == HOST + "\n"
    opt.chmod(0o755)


_CHANGING = ("mkdir", "rename", "unlink", "unlinkat", "link", "linkat", "rmdir", "fsync")
_ENTERING = (
    "clone",
    "clone3",
    "flock",
    "fsmount",
    "move_mount",
    "pivot_root",
    "capset",
    "vfork",
    "execve",
    "wait4",
)
_PYTHON = ("python", "-c", WHERE)


def count_calls(spack: Spack, words: list[str], calls: tuple[str, ...]) -> dict[str, int]:
    """Count how often `spack …` makes each call, in the process that makes it most often; see strace(1)."""
    trace = spack.user.home / "trace"
    command = ["strace", "-qq", "-f", "--seccomp-bpf", "-o", str(trace), "-e", f"trace={','.join(calls)}"]
    done = spack.user.run([*command, spack.script, *words], environment=spack.variables())
    assert done.returncode == 0, done.stderr
    found = Counter(re.findall(r"^(\d+) +(\w+)\(", trace.read_text(), re.MULTILINE))
    return {call: max([0, *(found[key] for key in found if key[1] == call)]) for call in calls}


def run_killed(spack: Spack, words: list[str], call: str, signal: str, number: int, **variables: str) -> None:
    """Run `spack …`; a process that makes this call for the `number`th time gets a signal."""
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal={signal}:when={number}"]
    command = ["strace", "-qq", "-f", "--seccomp-bpf", "-o", "/dev/null", *inject, spack.script, *words]
    spack.user.run(command, environment=spack.variables(**variables))


_EITHER = frozenset({(0, f"{HOST}\n"), (0, "pkgjail\n")})


def check_usable(spack: Spack, outcomes: frozenset[tuple[int, str]] = _EITHER) -> None:
    """Check that Spack runs, and that an environment can be built and removed again.

    `outcomes` are the possible exit statuses of a command, and what it writes. Nothing is left afterwards.
    """
    ran = spack(*_PYTHON)
    assert (ran.returncode, ran.stdout) in outcomes, ran.stderr
    spack.build("--force")
    assert spack(*_PYTHON).stdout == "pkgjail\n"
    assert spack("jail", "--remove-environment").returncode == 0
    assert faults.mounts_below(spack.user.home) == []
    assert not [name for name in os.listdir(spack.user.home) if ".pkgjail-" in name]


def _middle(number: int) -> list[int]:
    return [(number + 1) // 2]


def _three(number: int) -> list[int]:
    return sorted({1, *_middle(number), number})


def kill_and_check(spack: Spack, doing: str, signal: str, chosen: Callable[[int], Iterable[int]]) -> None:
    """Kill `doing` at the `chosen` of the calls of each kind that changes a directory; check each time."""
    words = ["jail", "--build-environment", spack.environment, "--whitelist", spack.whitelist]
    outcomes = _EITHER
    if doing != "build":
        spack.build()
        words = ["jail", "--remove-environment"] if doing == "remove" else [*words, "--force"]
    if doing == "replace":
        # No command runs outside; between two renames none runs at all.
        outcomes = frozenset({(0, "pkgjail\n"), (1, "")})
    seen = count_calls(spack, words, _CHANGING)
    if doing != "remove":
        spack("jail", "--remove-environment")
    assert seen["unlinkat" if doing == "remove" else "fsync"]
    for call, number in seen.items():
        for when in chosen(number) if number else ():
            if doing != "build":
                spack.build()
            run_killed(spack, words, call, signal, when)
            check_usable(spack, outcomes)


@pytest.mark.gate
@pytest.mark.parametrize("doing", ["build", "replace", "remove"])
def test_a_kill_leaves_spack_usable(spack: Spack, doing: str) -> None:
    """At the middle one of the calls of each kind. Other signals are below, and in tests/environments."""
    kill_and_check(spack, doing, "KILL", _middle)


@pytest.mark.long
@pytest.mark.parametrize("signal", ["KILL", "TERM", "INT"])
@pytest.mark.parametrize("doing", ["build", "replace", "remove"])
def test_a_kill_at_any_point_leaves_spack_usable(spack: Spack, doing: str, signal: str) -> None:
    """At the first, the middle and the last of the calls of each kind."""
    kill_and_check(spack, doing, signal, _three)


def kill_on_the_way(spack: Spack, signal: str, chosen: Callable[[int], Iterable[int]]) -> None:
    """Kill each process on the way inside, for a replay and for a new entry; check each time."""
    spack.build()
    assert spack(*_PYTHON).returncode == 0
    seen = count_calls(spack, list(_PYTHON), _ENTERING)
    assert seen["move_mount"]
    assert seen["pivot_root"]
    for call, number in seen.items():
        for when in chosen(number) if number else ():
            run_killed(spack, list(_PYTHON), call, signal, when)
            run_killed(spack, list(_PYTHON), call, signal, when, SPACK_X=f"{call} {when}")
            ran = spack(*_PYTHON)
            assert (ran.returncode, ran.stdout, ran.stderr) == (0, "pkgjail\n", "")
    check_usable(spack)


@pytest.mark.gate
def test_a_command_that_is_killed_on_its_way_inside_leaves_spack_usable(spack: Spack) -> None:
    """At the middle one of the calls of each kind."""
    kill_on_the_way(spack, "KILL", _middle)


@pytest.mark.long
@pytest.mark.parametrize("signal", ["KILL", "TERM", "INT"])
def test_a_command_that_is_killed_anywhere_on_its_way_inside_leaves_spack_usable(
    spack: Spack, signal: str
) -> None:
    """At the first, the middle and the last of the calls of each kind."""
    kill_on_the_way(spack, signal, _three)
