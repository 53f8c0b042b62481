"""Spack's commands in a virtual machine that is kept running between them: `spack jail … --stage vm`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import InputError
from pkgjail.core.options import UserBind
from pkgjail.environments.build import build_environment
from pkgjail.integrations.spack.active import ActiveEnvironment
from pkgjail.integrations.spack.caller.place_binds import find_places
from pkgjail.integrations.spack.caller.request import Request
from pkgjail.integrations.spack.jail import command
from pkgjail.machine.keeper import KeptMachine
from pkgjail.machine.model import MachineOptions
from tests.environments.test_machines import is_alive, wait_until
from tests.kernels import FULL, kernel
from tests.test_export import FIT, odd_tree

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.integrations.spack.caller.place_binds import Shown
    from tests.spack.conftest import Spack

KEPT = KeptMachine(
    pid=7,
    key="",
    architecture="amd64",
    kernel="6.1",
    accelerator="kvm",
    started=0,
    commands=0,
    idle=900,
    waited=3.2,
)
RUNS = "virtual machine: runs since "
DOES_NOT_RUN = "virtual machine: does not run; the next command starts it\n"


def keeper_of(spack: Spack) -> int:
    """Return the process of its machine, which must run, by `spack jail --status`."""
    said = spack("jail", "--status").stdout
    assert RUNS in said, said
    return int(said.partition(", process ")[2].split()[0])


@pytest.mark.long
def test_commands_of_spack_in_one_machine(spack: Spack) -> None:
    """One machine, whatever the command and its directory; it ends by hand, and with the environment."""
    work, name = spack.user.home / "work", spack.environment
    work.mkdir()
    work.chmod(0o777)
    done = spack.build("--stage", "vm", "--kernel", str(kernel(FULL)), "--bind", str(work))
    assert "the machine is emulated" in done.stderr or "by KVM" in spack("jail", "--status").stdout
    first = keeper_of(spack)
    started = ("jail", "--run", "--")
    shown = spack(*started, "sh", "-c", "pwd; uname -n; echo x > made; exit 7", cwd=work)
    assert (shown.returncode, shown.stdout, shown.stderr) == (7, f"{work}\npkgjail\n", "")
    assert (work / "made").read_text() == "x\n"
    assert os.stat(work / "made").st_uid == spack.user.uid
    elsewhere = spack(*started, "pwd", cwd="/usr")
    assert elsewhere.stdout == "/\n"
    assert "the machine does not show /usr: " in elsewhere.stderr
    code = "import os; os.write(1, os.uname()[1].encode() + os.getcwd().encode())"
    assert spack("python", "-c", code, cwd="/usr").stdout == "pkgjail/"
    refused = spack("install", str(spack.user.home / "python.toml"))
    assert f"the machine does not show {spack.user.home / 'python.toml'}: " in refused.stderr
    audited = spack(*started[:-2], "--audit", str(work / "audit"), *started[1:], "true", cwd=work)
    assert "cannot audit a command" in audited.stderr
    assert keeper_of(spack) == first
    options = spack.user.options(spack.variables())
    del options["capture_output"]
    with subprocess.Popen([spack.script, *started, "sleep", "1000"], **options) as running:
        while "1 command running in it" not in spack("jail", "--status").stdout:
            time.sleep(0.2)
        for option in ("--stop-machine", "--remove-environment"):
            assert spack("jail", option).returncode == 1
        running.send_signal(signal.SIGTERM)
    assert spack("jail", "--stop-machine").stdout == f"{name}: its machine is stopped\n"
    assert DOES_NOT_RUN in spack("jail", "--status").stdout
    assert spack("jail", "--stop-machine").stdout == f"{name}: its machine did not run\n"
    assert spack(*started, "true", cwd=work).returncode == 0
    second = keeper_of(spack)
    assert second != first
    assert spack("jail", "--remove-environment").returncode == 0
    wait_until(lambda: not is_alive(second))


# --- without a start ----------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> str:
    """An environment with a machine that shows a directory."""
    manifest = odd_tree(tmp_path / "root", FIT)
    for name in ("shown", "other"):
        (tmp_path / name).mkdir()
    shown = bytes(tmp_path / "shown")
    build_environment(
        manifest,
        bytes(tmp_path / "env"),
        root=bytes(tmp_path / "root"),
        binds=(UserBind(source=shown, destination=shown, writable=True),),
        machine=MachineOptions(kernel=str(kernel())),
    )
    return str(tmp_path / "env")


def find(environment: str, *words: str, of: str | None = "install") -> Shown:
    """Return how the machine shows what a command names."""
    return find_places(Request("", (), of, (), (), {}, words=words), os.fsencode(environment), ())


def test_a_machine_shows_what_was_asked_for_at_the_build(
    environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command adds to it; what it names is found, or refused with the option that shows it."""
    monkeypatch.chdir(tmp_path / "shown")
    assert find(environment, "./new", str(tmp_path / "shown")) == ((), bytes(tmp_path / "shown"), ())
    with pytest.raises(InputError, match=f"does not show {tmp_path}/other: .* with --bind {tmp_path}/other"):
        find(environment, "../other")
    monkeypatch.chdir(tmp_path / "other")
    assert find(environment, "zlib") == ((), b"/", ())
    assert find(environment, of=None).warnings[0].endswith("; the command starts in /")
    assert "/usr/bin/gcc is outside" in find(environment, "/usr/bin/gcc").warnings[0]
    for words, of in ((["./new"], "install"), ([], "dev-build")):
        with pytest.raises(InputError, match="the machine does not show"):
            find(environment, *words, of=of)
    (tmp_path / "other").rmdir()
    assert find(environment).cwd == b"/"


def test_what_the_status_says(
    environment: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it runs, since when, what it is, how it runs, and what it does."""
    active = ActiveEnvironment(environment, "python", 0, removing=False, directory="")
    found = [
        None,
        KEPT,
        replace(KEPT, accelerator="tcg", commands=2, waited=0),
    ]
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    monkeypatch.setattr("pkgjail.machine.keeper.find_kept_machine", lambda _: found.pop(0))
    lines = [list(command.machine_lines(active)) for _ in range(3)]
    assert lines == [
        ["virtual machine: does not run; the next command starts it"],
        [
            "virtual machine: runs since 1970-01-01 00:00:00, amd64, Linux 6.1, by KVM, process 7",
            "no command for 3 s; it stops after 900",
        ],
        [
            "virtual machine: runs since 1970-01-01 00:00:00, amd64, Linux 6.1, emulated, process 7",
            "2 commands running in it",
        ],
    ]
    assert capsys.readouterr().out == ""
