"""What the installer of Spack 1.2 and newer does to processes, files and the terminal, in the jail."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.terminals import INTERRUPT, shell

if TYPE_CHECKING:
    from tests.spack.conftest import Spack

# As `new_installer.py` and `new_installer_posix.py` do: a jobserver that is a fifo in the directory of
# temporary files; builds in process groups of their own, without the terminal, which Ctrl-C does not reach;
# keys without a line end; a prefix that is moved aside in its own directory and comes back after a failure.
INSTALL = """
import os, shutil, signal, subprocess, sys, tempfile, termios, tty

prefix, seconds = {prefix!r}, {seconds!r}
parent = os.path.dirname(prefix)
fifo = tempfile.mkdtemp() + "/jobserver_fifo"
os.mkfifo(fifo)
tokens = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
os.write(os.open(fifo, os.O_WRONLY), b"+")
backup = tempfile.mkdtemp(dir=parent, prefix=".", suffix=".old")
os.rename(prefix, backup)
old = termios.tcgetattr(0)
tty.setcbreak(0)
builds = []
try:
    for number in range(2):
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.read(os.open(fifo, os.O_RDWR), 1)
            os.mkdir(prefix)
            subprocess.run(["sleep", seconds])
            os._exit(1)
        builds.append(pid)
    def resized(*_):
        os.write(1, b"size %d %d\\n" % os.get_terminal_size())
    signal.signal(signal.SIGWINCH, resized)
    os.write(1, b"build" + b"ing\\n")
    while True:
        os.write(1, b"key " + os.read(0, 1) + b"\\n")
except KeyboardInterrupt:
    for pid in builds:
        os.killpg(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    garbage = tempfile.mkdtemp(dir=parent, prefix=".", suffix=".garbage")
    os.rename(prefix, garbage)
    os.rename(backup, prefix)
    shutil.rmtree(garbage)
    termios.tcsetattr(0, termios.TCSADRAIN, old)
    shutil.rmtree(os.path.dirname(fifo))
    sys.stdout.flush()
    os._exit(2)
"""


@pytest.mark.parametrize("hook", ["entry point", "SPACK_PYTHON"])
def test_an_install_on_a_terminal_can_be_watched_and_interrupted(spack: Spack, hook: str) -> None:
    """It sees keys and a new size of the window; after Ctrl-C no process and no file of it is left."""
    spack.build()
    hooked = {} if hook == "entry point" else spack.wrapped()
    seconds = f"1000.{time.time_ns()}"
    prefix, temporary = spack.root / "opt/spack/linux/package", spack.user.home / "temporary"
    spack.user.run(["mkdir", "-p", str(prefix / "installed"), str(temporary)])
    spack.user_writes(temporary / "install.py", INSTALL.format(prefix=str(prefix), seconds=seconds))
    variables: dict[str, str] = spack.user.options(spack.variables(TMPDIR=str(temporary), **hooked))["env"]
    with shell(variables, spack.user.uid) as keyboard:
        code = f"exec(open('{temporary}/install.py').read())"
        keyboard.run(f'{spack.script} python -c "{code}"')
        keyboard.wait_for(r"\nbuilding\r\n")
        keyboard.type(b"v")
        keyboard.wait_for(r"key v\r\n")
        keyboard.resize(33, 77)
        keyboard.wait_for(r"size 77 33\r\n")
        # Only one of the two builds has a token.
        running = subprocess.run(
            ["pgrep", "-c", "-f", f"^sleep {seconds}"], capture_output=True, text=True, check=False
        )
        assert running.stdout == "1\n"
        keyboard.type(INTERRUPT)
        keyboard.wait_for_prompt()
        assert keyboard.status() == 2
    left = subprocess.run(["pgrep", "-f", f"^sleep {seconds}"], capture_output=True, check=False)
    assert left.stdout == b""
    assert [path.name for path in prefix.parent.iterdir()] == ["package"]
    assert [path.name for path in prefix.iterdir()] == ["installed"]
    # Spack makes a directory for builds there.
    assert not [*temporary.glob("tmp*")]
