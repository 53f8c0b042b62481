"""Machines that are killed at any moment, and full file systems: nothing is left, and the error says why."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.conftest import SYSTEM_PYTHON
from tests.test_machine import BUSYBOX, Staged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Caller

_SET_CHILD_SUBREAPER = 36
MOMENTS = (0.2, 0.5, 0.9, 1.4, 2, 3, 4.5, 6)
FULL = {
    "the disk of the files": ("200k", "XDG_CACHE_HOME", (), "cannot make the disk of a machine: .*"),
    "a scratch disk": ("64k", "TMPDIR", ("--scratch", "300M"), "cannot make a scratch disk: .*"),
}


@pytest.fixture
def adopting() -> Iterator[None]:
    """Processes whose parent ends become this one's children, so that none goes unnoticed."""
    library = ctypes.CDLL(None)
    library.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    library.prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _children() -> set[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return {int(word) for word in file.read().split()}


def _left(before: set[int]) -> set[int]:
    """Return the adopted processes that do not end by themselves."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        for child in _children() - before:
            os.waitpid(child, os.WNOHANG)
        if not _children() - before:
            return set()
        time.sleep(0.05)
    return _children() - before


@pytest.mark.long
@pytest.mark.usefixtures("adopting")
def test_killed_at_any_moment(caller: Caller) -> None:
    """With pkgjail every process ends, at whatever step it was; the next start is as if nothing happened."""
    staged = Staged(caller)
    before = _children()
    for moment in MOMENTS:
        process = staged.started("sleep 1000")
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not _left(before), moment
    assert staged.sh("exit 5").returncode == 5
    assert not _left(before)


@pytest.mark.parametrize(("size", "variable", "options", "words"), FULL.values(), ids=FULL)
def test_a_full_file_system(
    size: str, variable: str, options: tuple[str, ...], words: str, caller: Caller
) -> None:
    """The error names what is full and the variable that moves it; no file and no process is left."""
    staged = Staged(caller)
    place = caller.home / "full"
    place.mkdir()
    subprocess.run(["chown", f"{caller.uid}:{caller.uid}", place], check=True)
    script = (
        f'mount -t tmpfs -o size={size} t {place} && "$@"; status=$?; find {place} -size +64k; exit $status'
    )
    own = [SYSTEM_PYTHON, "-m", "pkgjail", *staged.words(*options), BUSYBOX, "true"]
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *own]
    done = caller.run(command, environment={variable: str(place)})
    assert (done.returncode, done.stdout) == (125, "")
    assert "No space left on device" in done.stderr
    assert words.removesuffix(".*") in done.stderr
    assert f"set {variable}" in done.stderr
