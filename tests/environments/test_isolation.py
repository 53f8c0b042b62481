"""The three functions of the 2017 paper, in programs that call them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

import pkgjail
from pkgjail.core.errors import InputError, JailError
from pkgjail.core.options import UserBind
from pkgjail.environments import process
from pkgjail.jails import detect
from pkgjail.manifest import read_manifest
from tests.conftest import SYSTEM_PYTHON

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

# As in Spack: a program that continues inside, whatever its arguments are.
PROGRAM = """
import os, sys
from pkgjail import isolate_environment
print("before", end=" ")
isolate_environment()
print(os.uname().nodename == "pkgjail", os.getcwd(), os.environ.get("COLOUR"), *sys.argv[1:])
sys.exit(7)
"""
BUILD = """
import os, sys
from pkgjail import build_chroot_environment
from pkgjail.manifest import read_manifest
from pkgjail.core.options import UserBind
bind = lambda path, writable: UserBind(source=path, destination=path, writable=writable)
build_chroot_environment(
    "env",
    read_manifest("m.jsonl"),
    binds=(bind(os.fsencode(sys.argv[1]), False), bind(os.getcwdb() + b"/work", True)),
    variables={"PYTHONPATH": sys.argv[1], "COLOUR": "blue"},
)
"""


@pytest.fixture
def home(anyone: Caller, spack_manifest: Manifest, library: Path) -> Path:
    """Return a home with the program in `work`, and an environment that shows `work` and pkgjail."""
    (anyone.home / "work").mkdir()
    (anyone.home / "work" / "program").write_text(f"#!{SYSTEM_PYTHON}{PROGRAM}")
    (anyone.home / "work" / "program").chmod(0o755)
    os.chown(anyone.home / "work", anyone.uid, anyone.uid)
    pkgjail.write_manifest(spack_manifest, anyone.home / "m.jsonl")
    (anyone.home / "m.jsonl").chmod(0o644)
    built = anyone.run([SYSTEM_PYTHON, "-c", BUILD, str(library)])
    assert built.returncode == 0, built.stderr
    return anyone.home


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["./program"], id="by its first line"),
        pytest.param([SYSTEM_PYTHON, "program"], id="by its interpreter"),
        pytest.param([SYSTEM_PYTHON, "-W", "error", "program"], id="with options of the interpreter"),
    ],
)
def test_a_program_continues_in_the_environment(anyone: Caller, home: Path, command: list[str]) -> None:
    """In its directory, with its arguments; it runs again from the start, and ends once."""
    work = home / "work"
    environment = {"PKGJAIL_ENVIRONMENT": str(home / "env")}
    ran = anyone.run([*command, "a b", "--c"], cwd=work, environment=environment)
    assert ran.stderr == ""
    assert (ran.returncode, ran.stdout) == (7, f"before before True {work} blue a b --c\n")


def test_without_an_environment_a_program_continues_outside(anyone: Caller, home: Path) -> None:
    for value in (None, ""):
        environment = {} if value is None else {"PKGJAIL_ENVIRONMENT": value}
        ran = anyone.run(["./program"], cwd=home / "work", environment=environment)
        assert (ran.returncode, ran.stdout) == (7, f"before False {home}/work None\n"), ran.stderr


def test_an_environment_that_cannot_be_entered_stops_the_program(anyone: Caller, home: Path) -> None:
    """It does not continue outside, even if a variable says that it is inside."""
    environment = {"PKGJAIL_ENVIRONMENT": str(home / "none"), "HOSTNAME": "pkgjail"}
    ran = anyone.run(["./program"], cwd=home / "work", environment=environment)
    assert (ran.returncode, ran.stdout) == (1, "before ")
    assert "cannot enter" in ran.stderr


def test_a_directory_that_no_bind_shows_is_replaced_by_the_root(anyone: Caller, home: Path) -> None:
    ran = anyone.run([home / "work" / "program"], environment={"PKGJAIL_ENVIRONMENT": str(home / "env")})
    assert ran.stdout == "before before True / blue\n", ran.stderr


def test_the_default_is_spack_without_documentation(tmp_path: Path) -> None:
    """As the paper's function, whose only argument is a directory."""
    pkgjail.build_chroot_environment(tmp_path / "env")
    header = read_manifest(tmp_path / "env" / "manifest.jsonl").header
    assert (header.whitelists, header.blacklists) == (("base", "spack"), ("docs",))
    pkgjail.remove_chroot_environment(str(tmp_path / "env"))
    assert not (tmp_path / "env").exists()


def test_a_host_of_that_name_is_not_a_jail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name alone proves nothing: this process has capabilities that a jail would not have."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "pkgjail", "", "", "")))
    assert not detect.is_isolated()


def test_the_command_line_of_this_process() -> None:
    """By both ways, as Python before 3.10 has only one."""
    with open("/proc/self/cmdline", "rb") as file:
        argv = [os.fsdecode(argument) for argument in file.read().split(b"\0")[:-1]]
    assert process.process_argv() == [sys.executable, *argv[1:]]
    assert process._kernel_argv() == argv


def test_a_program_that_embeds_python_must_pass_its_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(JailError, match="pass 'argv'"):
        process.process_argv()


def test_the_command_line_and_the_directory_can_be_passed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or directory"):
        pkgjail.isolate_environment(tmp_path / "none", ["true"])
    bind = UserBind(source=bytes(tmp_path), destination=bytes(tmp_path), writable=False)
    pkgjail.build_chroot_environment(tmp_path / "env", binds=(bind,))
    with pytest.raises(SystemExit) as ended:
        pkgjail.isolate_environment(tmp_path / "env", ["test", "-e", str(tmp_path / "env")])
    assert ended.value.code == 0
