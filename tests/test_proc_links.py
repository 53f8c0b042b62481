"""Commands are files of the jail: links of proc(5) lead to none of pkgjail's own files."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import CommandError
from pkgjail.core.options import UserBind
from pkgjail.jails.run import run_in_jail
from pkgjail.sandbox.proc_links import interpreter_of, refuse_links_of_proc
from tests.test_sandbox import jail_options

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions

_SCRIPTS = {
    "script": "#!/proc/self/exe -c\n",
    "spaced": "#! \t/proc/self/exe\n",
    "script-of-script": "#!/srv/script\n",
    "by-root": "#!/proc/self/root/bin/sh\n",
    "by-descriptor": "#!/dev/fd/0\n",
    "good": "#!/srv/better\n",
    "better": "#!/bin/sh\nexit 5\n",
}
_LINKS = {"link": "/proc/self/exe", "link-of-link": "link", "circle": "circle"}


def program(interpreter: bytes, *, bits: int, order: str) -> bytes:
    """Return an ELF file that has only a header and the entry for its interpreter."""
    start = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    length = len(interpreter) + 1
    if bits == 64:
        header = struct.pack(order + "HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        entry = struct.pack(order + "IIQQQQQQ", 3, 4, 120, 0, 0, length, length, 1)
    else:
        header = struct.pack(order + "HHIIIIIHHHHHH", 2, 3, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        entry = struct.pack(order + "IIIIIIII", 3, 84, 0, 0, length, length, 4, 1)
    return start + header + entry + interpreter + b"\0"


@pytest.fixture
def options(tmp_path: Path) -> JailOptions:
    """Return the options of a jail with a directory of hostile programs at /srv."""
    for name, text in _SCRIPTS.items():
        (tmp_path / name).write_text(text)
    for name, target in _LINKS.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "program").write_bytes(program(b"/proc/self/exe", bits=64, order="<"))
    for name in (*_SCRIPTS, "program"):
        (tmp_path / name).chmod(0o755)
    (tmp_path / "link\r").symlink_to("/proc/self/exe")
    (tmp_path / "by-return").write_bytes(b"#!/srv/link\r\n")
    (tmp_path / "by-return").chmod(0o755)
    (tmp_path / "passed").write_bytes(b"#!/bin/sh\nexit 6\n")
    (tmp_path / "passed").chmod(0o755)
    return jail_options(UserBind(source=os.fsencode(tmp_path), destination=b"/srv", writable=True))


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        "/proc/self/exe",
        "/proc/thread-self/exe",
        "/proc/self/fd/0",
        "/dev/fd/0",
        "/dev/stdin",
        "/proc/self/root/bin/true",
        "/proc/self/cwd/bin/true",
        "/proc/self/task/../exe",
        "/proc/1/exe",
        "/proc/1/root/bin/true",
        "/proc/1/cwd/bin/true",
        "/proc/1/fd/0",
        "/srv/script",
        "/srv/spaced",
        "/srv/script-of-script",
        "/srv/by-root",
        "/srv/by-descriptor",
        "/srv/link",
        "/srv/link-of-link",
        "/srv/by-return",
        "/srv/circle",
        "/srv/program",
    ],
)
def test_a_command_outside_of_the_jail_is_refused(
    base_manifest: Manifest, options: JailOptions, command: str, *, terminal: bool
) -> None:
    """The host's Python, or files that the caller has open: as command, through a link, as interpreter.

    With a terminal, a child of init checks this, which may not look into /proc/1 at all.
    """
    why = "name a file of the jail" + ("|/proc/1/.*Permission denied" if terminal else "")
    with pytest.raises(CommandError, match=why) as caught:
        run_in_jail(base_manifest, [command, "-c", "1"], options, terminal=terminal)
    assert caught.value.status == 126


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(("path", "command"), [("/proc/self", "exe"), ("/gone:/proc/self/fd", "0")])
def test_a_path_variable_outside_of_the_jail_is_refused(
    base_manifest: Manifest, options: JailOptions, path: str, command: str, *, terminal: bool
) -> None:
    options = replace(options, environment={"PATH": path})
    with pytest.raises(CommandError, match="name a file of the jail"):
        run_in_jail(base_manifest, [command], options, terminal=terminal)


@pytest.mark.parametrize(
    "place", [b"/proc/self/cwd", b"/proc/self/root", b"/proc/1/root", b"/proc/self/fd/0"]
)
def test_a_working_directory_outside_of_the_jail_is_refused(
    base_manifest: Manifest, options: JailOptions, place: bytes
) -> None:
    with pytest.raises(CommandError, match="name a file of the jail"):
        run_in_jail(base_manifest, ["true"], replace(options, cwd=place))


@pytest.mark.parametrize("terminal", [False, True])
def test_commands_in_the_jail_are_executed(
    base_manifest: Manifest, options: JailOptions, *, terminal: bool
) -> None:
    """Also scripts of scripts, and along a PATH with missing directories."""
    assert run_in_jail(base_manifest, ["/srv/good"], options, terminal=terminal).returncode == 5
    options = replace(options, environment={"PATH": "/gone:/srv/none:/srv"})
    assert run_in_jail(base_manifest, ["better"], options, terminal=terminal).returncode == 5


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_interpreter_of_a_program(tmp_path: Path, bits: int, order: str) -> None:
    """For both classes and byte orders; an incomplete file has none, without an error."""
    whole = program(b"/lib/ld.so", bits=bits, order=order)
    path = tmp_path / "program"
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        found = interpreter_of(os.fsencode(path))
        assert found == b"/lib/ld.so" or length < len(whole)
    path.write_bytes(b"\x7fELF\x09" + whole[5:])  # of no class that there is
    assert interpreter_of(os.fsencode(path)) == b""


def test_the_interpreter_of_a_real_program() -> None:
    """The same as readelf(1) shows."""
    shown = subprocess.run(["readelf", "-l", "/bin/true"], capture_output=True, text=True, check=True).stdout
    named = shown.partition("program interpreter: ")[2].partition("]")[0]
    assert interpreter_of(b"/bin/true") == named.encode()
    assert interpreter_of(b"/bin") == b""
    refuse_links_of_proc("/bin/true")


def test_an_unreadable_program_is_checked_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its interpreter is not visible."""
    from pkgjail.sandbox import syscalls as sc

    opened = sc.openat2

    def refuse_reading(directory: int, path: bytes, flags: int, resolve: int) -> int:
        if not flags & os.O_PATH:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return opened(directory, path, flags, resolve)

    monkeypatch.setattr(sc, "openat2", refuse_reading)
    (tmp_path / "program").touch()
    refuse_links_of_proc(str(tmp_path / "program"))
    with pytest.raises(OSError, match="symbolic links"):
        refuse_links_of_proc("/proc/self/exe")


def test_the_kernel_reports_a_missing_interpreter(tmp_path: Path) -> None:
    """Protects the kernel's own error (ENOENT, ENOEXEC): such a script is not refused here."""
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "empty").write_text("#!\n")
    for name in ("script", "empty"):
        refuse_links_of_proc(str(tmp_path / name))  # raises nothing, as the next line shows that it could
    (tmp_path / "link").write_text("#!/proc/self/exe\n")
    with pytest.raises(OSError, match="symbolic links"):
        refuse_links_of_proc(str(tmp_path / "link"))
