"""Environments whose commands run in a virtual machine that is kept running between them."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pkgjail.cli.main import main
from pkgjail.core.errors import InputError, PkgjailError
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.environments.build import build_environment
from pkgjail.environments.enter import enter_environment
from pkgjail.environments.machine import machine_of, stop_idle_machine
from pkgjail.environments.record import RECORD
from pkgjail.environments.remove import remove_environment
from pkgjail.machine.keeper import find_kept_machine
from pkgjail.machine.model import MachineError, MachineOptions
from pkgjail.manifest import write_manifest
from pkgjail.stages.model import RefusedError
from tests.kernels import kernel
from tests.test_export import FIT, odd_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from pkgjail.machine.keeper import KeptMachine

SH = ("/usr/bin/busybox", "sh", "-c")
# By what a machine started within; emulated, and on a busy host.
PATIENCE = 60


class Scene(NamedTuple):
    """A tree with busybox, its manifest, and where an environment of it is built."""

    manifest: Manifest
    root: bytes
    path: bytes

    def build(self, **options: Any) -> None:
        """Build it."""
        build_environment(self.manifest, self.path, root=self.root, **options)

    def sh(self, script: str, options: JailOptions | None = None) -> int:
        """Run a script in it."""
        return enter_environment(self.path, [*SH, script], options)

    def machine(self) -> KeptMachine:
        """Return its machine, which must run."""
        found = find_kept_machine(self.path)
        assert found is not None
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    manifest = odd_tree(tmp_path / "root", FIT)
    write_manifest(manifest, tmp_path / "m.jsonl")
    made = Scene(manifest, bytes(tmp_path / "root"), bytes(tmp_path / "env"))
    yield made
    if os.path.lexists(made.path):
        remove_environment(made.path)


def wait_until(true: Callable[[], bool]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Check whether there is such a process; a zombie is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_one_machine_for_all_commands(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It starts once, wherever commands are entered from, outlives a killed caller, and ends by `remove`."""
    scene.build(machine=MachineOptions(kernel=str(kernel())), variables={"COLOUR": "blue"})
    assert find_kept_machine(scene.path) is None
    assert scene.sh("echo $COLOUR > /tmp/left; exit 7") == 7
    first = scene.machine()
    monkeypatch.chdir(tmp_path / "root")
    assert scene.sh("cat /tmp/left") == 0
    assert capfd.readouterr().out == "blue\n"
    child = os.fork()
    if not child:
        scene.sh("sleep 1000")
        os._exit(0)
    wait_until(lambda: scene.machine().commands == 1)
    with pytest.raises(PkgjailError, match=f"another pkgjail process .*{child}"):
        remove_environment(scene.path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_until(lambda: scene.machine().commands == 0)
    assert scene.machine().pid == first.pid
    os.rename(scene.path, scene.path + b"~")
    moved = find_kept_machine(scene.path + b"~")
    assert moved is not None
    assert moved.pid == first.pid
    os.rename(scene.path + b"~", scene.path)
    assert remove_environment(scene.path).deleted == 1
    wait_until(lambda: not is_alive(first.pid))
    assert not os.path.lexists(scene.path)


def test_a_machine_that_is_gone_is_started_again(scene: Scene) -> None:
    """Protects the next command when the process that keeps the machine was killed, or had nothing to do."""
    scene.build(machine=MachineOptions(kernel=str(kernel()), idle=1))
    assert scene.sh("true") == 0
    killed = scene.machine().pid
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not is_alive(killed))
    assert find_kept_machine(scene.path) is None
    assert scene.sh("true") == 0
    idle = scene.machine().pid
    assert idle != killed
    wait_until(lambda: not is_alive(idle))
    assert find_kept_machine(scene.path) is None


REFUSALS = {
    "another form": ({"form": "copy"}, InputError, "the form 'copy' has the files in the directory"),
    "copies": ({"machine": MachineOptions(share="copy")}, InputError, "does not copy them"),
    "devices": ({"devices": (b"/dev/fuse",)}, RefusedError, "devices .a machine has a kernel of its own"),
    "no kernel": ({"machine": MachineOptions(kernel="/nowhere")}, MachineError, "/nowhere"),
}


@pytest.mark.parametrize(("options", "kind", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_no_machine_can_keep_is_refused_at_the_build(
    scene: Scene, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """Nothing is left, and nothing is silently weaker."""
    with pytest.raises(kind, match=message):
        scene.build(**{"machine": MachineOptions(), **options})
    assert not os.path.lexists(scene.path)


def test_what_a_machine_cannot_keep_is_refused_at_an_entry(scene: Scene) -> None:
    """An audit, and options of a jail, by name; no machine is started for that."""
    scene.build(machine=MachineOptions(kernel=str(kernel())))
    with pytest.raises(InputError, match=r"cannot audit a command in .*: it has a machine"):
        enter_environment(scene.path, ["x"], run=lambda *_: 0)
    with pytest.raises(RefusedError, match="a command that is user 0"):
        scene.sh("true", JailOptions(map_root=True))
    bind = UserBind(source=scene.path, destination=b"/x", writable=True)
    with pytest.raises(PkgjailError, match="the environment"):
        scene.sh("true", JailOptions(binds=(bind,)))
    assert find_kept_machine(scene.path) is None


@pytest.mark.usefixtures("scene")
def test_options_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are recorded, with the kernel's absolute path; without --stage vm they are refused by name."""
    monkeypatch.chdir(tmp_path)
    os.symlink(kernel(), "kernel")
    words = ["build", "--root", "root", "m.jsonl", "env", "--kernel", "kernel"]
    assert main(words) == 2
    assert "--kernel is for a virtual machine: it needs --stage vm" in capsys.readouterr().err
    more = ["--stage", "vm", "--memory", "1G", "--cpus", "2", "--scratch", "3G", "--idle", "60"]
    assert main([*words, *more]) == 0
    header = json.loads((tmp_path / "env" / os.fsdecode(RECORD)).read_text().splitlines()[0])
    assert header["schema"] == 3
    assert header["machine"] == {
        "kernel": str(tmp_path / "kernel"),
        "memory": 1 << 30,
        "processors": 2,
        "scratch": 3 << 30,
        "idle": 60,
    }


def test_an_environment_whose_machine_does_not_run(scene: Scene) -> None:
    """None is found and none is stopped; an environment of jails says that it has none."""
    scene.build(machine=MachineOptions(kernel=str(kernel())))
    assert machine_of(scene.path) is None
    assert not stop_idle_machine(scene.path)
    remove_environment(scene.path)
    scene.build()
    for ask in (machine_of, stop_idle_machine):
        with pytest.raises(InputError, match="has no machine: its commands run in a jail"):
            ask(scene.path)
