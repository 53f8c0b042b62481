"""A command that is there and cannot be executed: the message says what it lacks, and who has that."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import CommandError
from pkgjail.core.model import Dropped
from pkgjail.core.options import UserBind
from pkgjail.jails.run import prepare_jail
from pkgjail.sandbox.executables import find_fault
from tests.test_proc_links import program
from tests.test_sandbox import jail_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkgjail.core.model import Manifest
    from pkgjail.jails.run import Jail


def _for_another_machine(path: Path) -> None:
    data = bytearray(Path("/bin/true").read_bytes())
    data[18:20] = struct.pack("<H", 0xF7)  # EM_BPF
    path.write_bytes(data)


def _close_directory(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    path.parent.chmod(0)


def _loader(name: str) -> bytes:
    return program(name.encode(), bits=64, order="<")


_LACKS = "which the jail does not have"
_OTHER_LOADER = f"{_LACKS}: it is for another C library or architecture"
_CARRIAGE_RETURN = (
    "the first line of FILE ends with a carriage return, so the jail has no such interpreter; give the file "
    "the line ends of Unix (sed -i 's/\\r$//')"
)
_DROPPED = "(/usr/bin/dropped was dropped by the blacklist's rule docs:3)"

# The name of the file below /srv, how it is made, and the message after "cannot run /srv/NAME: ".
_CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "shebang": (
        lambda path: path.write_text("#!/usr/bin/pyth\n"),
        "FILE needs the interpreter /usr/bin/pyth, which the jail does not have",
    ),
    "owned": (
        lambda path: path.write_text("#!/usr/bin/make -f\n"),
        "FILE needs the interpreter /usr/bin/make, which the jail does not have (/usr/bin/make is in make)",
    ),
    "dropped": (
        lambda path: path.write_text("#!/usr/bin/dropped\n"),
        f"FILE needs the interpreter /usr/bin/dropped, {_LACKS} {_DROPPED}",
    ),
    "windows": (
        lambda path: path.write_bytes(b"#!/bin/sh\r\nexit\r\n"),
        _CARRIAGE_RETURN,
    ),
    "windows, too": (
        lambda path: path.write_bytes(b"#!/usr/bin/perl6\r\nexit\r\n"),
        "FILE needs the interpreter /usr/bin/perl6\\r, which the jail does not have",
    ),
    "musl": (
        lambda path: path.write_bytes(_loader("/lib/ld-musl-x86_64.so.1")),
        f"FILE needs the dynamic loader /lib/ld-musl-x86_64.so.1, {_OTHER_LOADER}",
    ),
    "i386": (
        lambda path: path.write_bytes(_loader("/lib/ld-linux.so.2")),
        f"FILE needs the dynamic loader /lib/ld-linux.so.2, {_OTHER_LOADER}",
    ),
    "dangling": (
        lambda path: path.symlink_to("further"),
        "FILE is a symbolic link to /opt/gone-12, which the jail does not have",
    ),
    "by dangling": (
        lambda path: path.write_text("#!/srv/further\n"),
        "FILE needs the interpreter /srv/further, a link to what the jail does not have",
    ),
    "by data": (
        lambda path: path.write_text("#!/etc/passwd\n"),
        "FILE needs the interpreter /etc/passwd, which you may not execute",
    ),
    "empty": (lambda path: path.touch(), "FILE is empty"),
    "bare": (
        lambda path: path.write_text("exit 3\n"),
        "FILE is a script without an interpreter; begin it with '#!/bin/sh', or run 'sh FILE'",
    ),
    "blob": (lambda path: path.write_bytes(b"MZ\0\0"), "FILE is no program that this kernel can execute"),
    "foreign": (_for_another_machine, "FILE is a program for another kind of machine"),
    "directory": (lambda path: path.mkdir(), "FILE is a directory"),
    "fifo": (os.mkfifo, "FILE is no regular file"),
    "plain": (
        lambda path: path.write_text("#!/bin/sh\n"),
        "FILE: Permission denied, by its mode; use chmod +x, or name its interpreter",
    ),
    "closed/x": (
        _close_directory,
        "FILE: Permission denied, to search a directory on the way",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory, base_manifest: Manifest) -> Iterator[Jail]:
    """Return a jail with the files of the cases below /srv."""
    top = tmp_path_factory.mktemp("commands")
    (top / "further").symlink_to("/opt/gone-12")
    for name, (make, _) in _CASES.items():
        make(top / name)
        if name not in {"plain", "dangling", "closed/x"}:
            (top / name).chmod(0o755)
    manifest = replace(base_manifest, dropped=(Dropped(path=b"/usr/bin/dropped", rule="docs:3"),))
    bind = UserBind(source=os.fsencode(top), destination=b"/srv", writable=False)
    options = jail_options(bind)
    variables = {**options.environment, "PATH": "/srv/none:/srv:/usr/bin:/bin"}
    yield prepare_jail(manifest, replace(options, environment=variables))
    (top / "closed").chmod(0o755)


@pytest.mark.parametrize("name", _CASES)
def test_the_message_says_what_is_lacking(jail: Jail, name: str) -> None:
    with pytest.raises(CommandError) as caught:
        jail.run([f"/srv/{name}"])
    message = _CASES[name][1].replace("FILE", f"/srv/{name}")
    assert (str(caught.value), caught.value.status) == (f"cannot run /srv/{name}: {message}", 126)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_command_found_along_the_path_is_there(jail: Jail, *, terminal: bool) -> None:
    """It is not "no such command" if only its interpreter is missing; nor if a later directory has none."""
    with pytest.raises(CommandError, match="/srv/shebang needs the interpreter /usr/bin/pyth") as caught:
        jail.run(["shebang"], terminal=terminal)
    assert caught.value.status == 126


def test_the_package_of_a_command_is_named(jail: Jail) -> None:
    """As the host's package database has it; nothing is said of a command that no package has."""
    for name, end in (("make", " (/usr/bin/make is in make)"), ("no-such", "")):
        with pytest.raises(CommandError) as caught:
            jail.run([name])
        why = "there is no such command in the jail; name its package in the whitelist"
        assert (str(caught.value), caught.value.status) == (f"cannot run {name}: {why}{end}", 127)


def test_a_file_without_a_fault_has_none(tmp_path: Path) -> None:
    """Nor one that changes meanwhile, or cannot be read."""
    assert find_fault(b"/bin/true", errno.ENOENT) == ("", b"")
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "script").chmod(0o755)
    assert find_fault(bytes(tmp_path / "script"), errno.ENOENT) == ("", b"")
    assert find_fault(bytes(tmp_path / "script" / "below"), errno.ENOENT) == (
        "absent",
        bytes(tmp_path / "script" / "below"),
    )
    (tmp_path / "loop").symlink_to("loop")
    assert find_fault(bytes(tmp_path / "loop"), errno.ENOENT) == ("", b"")
