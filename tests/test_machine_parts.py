"""Parts of machines that no real guest shows at will: a qemu that fails, a kernel with 9p, no compiler."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.machine import agent, boot, shares
from pkgjail.machine.contents import Contents, Shown
from pkgjail.machine.frames import Channel, Fields, Type, number, text
from pkgjail.machine.model import Kernel, MachineError
from pkgjail.machine.qemu import Hardware, Share, command_line, program_of
from pkgjail.machine.running import Running
from pkgjail.machine.session import Ended, NotStartedError
from pkgjail.stages import vm
from tests.manifest_text import manifest_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KERNEL = Kernel(image=b"/boot/vmlinuz", release="6.1", modules=b"", architecture="amd64")
HARDWARE = Hardware(architecture="amd64", kernel=0, initramfs=0, disks=((0, False),), channel=-1)
_HEAD = f"#!{sys.executable} -IS\nimport os, sys, time, signal, struct\n"
_CHANNEL = "fd = int([w for w in sys.argv if w.startswith('socket,')][0].rpartition('=')[2])\n"


class Warnings:
    """Keeps warnings."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def progress(self, task: str, done: int, total: int) -> None:
        """Ignore progress."""

    def warn(self, message: str) -> None:
        """Keep a warning."""
        self.said.append(message)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all of PATH."""
    place = tmp_path / "programs"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    return place


def executable(path: Path, content: str) -> None:
    path.write_text(content)
    path.chmod(0o755)


# --- qemu ---------------------------------------------------------------------------------------------

FAILURES = {
    "it ends": ("print('no such machine'); sys.exit(3)", r"qemu ended with status 3; .*\n  no such machine"),
    "it is killed": ("os.kill(os.getpid(), signal.SIGKILL)", "qemu was killed by SIGKILL"),
    "it ends in order": ("print('so far')", r"the guest ended; its last words:\n  so far"),
    "it does not begin": ("time.sleep(60)", "did not start within 0.5 s"),
    "another agent": (
        f"{_CHANNEL}os.write(fd, struct.pack('<IHHI', 4, 0, {int(Type.READY)}, 99)); time.sleep(60)",
        "agent is another version",
    ),
}


@pytest.mark.parametrize(("program", "words"), FAILURES.values(), ids=FAILURES)
def test_a_qemu_that_fails(program: str, words: str, programs: Path) -> None:
    """The error says how it ended, and its last words."""
    executable(programs / "qemu-system-x86_64", f"{_HEAD}{program}\n")
    seconds = 0.5 if "within" in words else 10
    with Running(HARDWARE) as running, pytest.raises(MachineError, match=f"(?s){words}"):
        running.wait_for_start(seconds)


def test_an_answer_and_an_end_in_order(programs: Path) -> None:
    """A request that the guest refuses is an error with its reason; an end that was asked for is none."""
    refusal = number(28) + text(b"mount \x1b[2J it")
    answer = f"struct.pack('<IHH', {len(refusal)}, 0, {int(Type.FAILED)}) + {refusal!r}"
    speaks = f"os.read(fd, 8)\nos.write(fd, {answer})\nos.read(fd, 8)\n"
    executable(programs / "qemu-system-x86_64", f"{_HEAD}{_CHANNEL}{speaks}")
    with Running(HARDWARE) as running:
        with pytest.raises(MachineError, match=r"cannot mount .*2J it: No space left on device") as failed:
            running.ask(Type.SEAL)
        assert "\x1b" not in str(failed.value)
        running.shut_down()


def test_missing_programs(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each names the program, and the package that has it."""
    with pytest.raises(MachineError, match="qemu-system-x86_64 is not in PATH"):
        Running(HARDWARE)
    with pytest.raises(MachineError, match="there is no machine of s390x"):
        program_of("s390x")
    for architecture, package in (("amd64", "gcc and libc6-dev"), ("arm64", "gcc-aarch64-linux-gnu")):
        with pytest.raises(MachineError, match=f"no C compiler .*install {package}"):
            agent.compiler(architecture)
    assert "is not in PATH" in vm.Vm().obstacle()
    executable(programs / "qemu-system-x86_64", "#!/bin/true\n")
    assert "no C compiler" in vm.Vm().obstacle()
    executable(
        programs / "cc", f"{_HEAD}print('broken', file=sys.stderr); sys.exit('--version' not in sys.argv)\n"
    )
    with pytest.raises(MachineError, match=r"ended with status 1: broken; it needs a C library"):
        agent.agent("amd64")
    monkeypatch.setattr(vm, "find_kernel", lambda _: KERNEL)
    assert vm.Vm().obstacle() == ""
    monkeypatch.setattr(vm, "host_architecture", lambda: None)
    assert vm.Vm().obstacle().startswith("there is no machine for this host")


def test_all_that_a_machine_has() -> None:
    """The command line has every device, and files by their descriptors alone."""
    share = Share(descriptor=9, tag="share0", writable=False)
    hardware = replace(
        HARDWARE, disks=((5, False), (6, True)), shares=(share,), network=True, accelerator="kvm"
    )
    line = "\n".join(command_line(hardware))
    for each in (
        "virtio-net-pci,netdev=network",
        "local,id=share0,path=/proc/self/fd/9,security_model=none,multidevs=remap,readonly=on",
        '"filename": "/proc/self/fd/6"',
        "accel=kvm",
    ):
        assert each in line
    assert hardware.descriptors == (0, 0, -1, 5, 6, 9)


# --- shares -------------------------------------------------------------------------------------------


def contents(tmp_path: Path) -> Contents:
    steps = (
        Shown(os.fsencode(tmp_path), b"/a", writable=True),
        Shown(os.fsencode(tmp_path), b"/b", writable=False),
    )
    return Contents(steps, (), ())


def mounted(request: Any) -> tuple[bytes, bytes, int, int, bytes]:
    fields = Fields(request.content)
    kind, source, _ = fields.text(), fields.text(), fields.text()
    return kind, source, fields.number(), fields.number(), fields.text()


def test_directories_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with 9p shares each directory under a tag of its own, read-only if asked for."""
    monkeypatch.setattr(shares, "load_modules", lambda *_: ((), ()))
    found = contents(tmp_path)
    with shares.prepared_shares(found, KERNEL, "9p", Warnings()) as prepared:
        assert [mounted(prepared.mount(step)) for step in found.steps if isinstance(step, Shown)] == [
            (b"9p", b"share0", 0, 0, b"/a"),
            (b"9p", b"share1", 1, 0, b"/b"),
        ]
        assert all(stat.S_ISDIR(os.fstat(share.descriptor).st_mode) for share in prepared.shares)
    gone = replace_source(found, b"/no/such/directory")
    refused = pytest.raises(MachineError, match="cannot share /no/such/directory")
    with refused, shares.prepared_shares(gone, KERNEL, "9p", Warnings()):
        pass


def replace_source(found: Contents, source: bytes) -> Contents:
    steps = tuple(step._replace(source=source) for step in found.steps if isinstance(step, Shown))
    return Contents(steps, (), ())


def test_directories_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without 9p each is a disk, and it is said; if 9p was asked for by name, it is refused."""
    monkeypatch.setattr(shares, "load_modules", lambda *_: ((), ("9p",)))
    found, warnings = contents(tmp_path), Warnings()
    with shares.prepared_shares(found, KERNEL, "auto", warnings) as prepared:
        assert [mounted(prepared.mount(step)) for step in found.steps if isinstance(step, Shown)] == [
            (b"squashfs", b"/dev/vdb", 2, 0, b"/a"),
            (b"squashfs", b"/dev/vdc", 3, 1, b"/b"),
        ]
        assert len(prepared.disks) == 2
    assert "copied into the machine, as the kernel 6.1 has no 9p" in warnings.said[0]
    refused = pytest.raises(MachineError, match=r"cannot share .*: the kernel 6\.1 has no 9p")
    with refused, shares.prepared_shares(found, KERNEL, "9p", Warnings()):
        pass


class Answering:
    """A machine whose answers are known."""

    def __init__(self, *messages: tuple[int, bytes]) -> None:
        ours, self._theirs = socket.socketpair()
        self.channel = Channel(ours)
        self._messages = messages

    def messages(self) -> Iterator[Any]:
        """Yield the answers."""
        end = Channel(self._theirs)
        for kind, content in self._messages:
            end.send(0, kind, content)
        yield from self.channel.read()

    def close(self) -> None:
        """Close both ends."""
        self.channel.close()
        self._theirs.close()


def test_what_does_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Special files are counted in a warning; a guest that cannot read its changes is an error."""
    monkeypatch.setattr(shares, "load_modules", lambda *_: ((), ("9p",)))
    found = Contents((Shown(os.fsencode(tmp_path), b"/a", writable=True),), (), ())
    with shares.prepared_shares(found, KERNEL, "copy", Warnings()) as prepared:
        warnings = Warnings()
        with contextlib.closing(Answering((Type.DONE, number(2)))) as guest:
            prepared.bring_back(guest, (), warnings)  # type: ignore[arg-type]
        assert "2 special files" in warnings.said[0]
        refusal = (Type.FAILED, number(5) + text(b"read a changed file"))
        error = pytest.raises(MachineError, match="cannot read a changed file: Input/output error")
        with contextlib.closing(Answering(refusal)) as guest, error:
            prepared.bring_back(guest, (), warnings)  # type: ignore[arg-type]


# --- the start ----------------------------------------------------------------------------------------


def test_a_manifest_without_an_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine is one of this host, if that has a name."""
    manifest = manifest_of("")
    bare = replace(manifest, header=replace(manifest.header, architecture=""))
    assert boot.architecture_of(replace(bare, header=replace(bare.header, architecture="aarch64"))) == "arm64"
    monkeypatch.setattr(boot, "host_architecture", lambda: None)
    with pytest.raises(MachineError, match="there is no machine for this host"):
        boot.architecture_of(bare)


def test_a_cache_that_a_guest_cannot_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of ldconfig is an error; a set without ldconfig has no cache."""
    monkeypatch.setattr(boot, "run_quietly", lambda *_: Ended(3))
    with pytest.raises(MachineError, match="ldconfig ended with 3"):
        boot._make_cache(None)  # type: ignore[arg-type]

    def missing(*_: object) -> Ended:
        raise NotStartedError("execute", 2)

    monkeypatch.setattr(boot, "run_quietly", missing)
    boot._make_cache(None)  # type: ignore[arg-type]
