"""The command line of qemu for a machine.

Files are passed as descriptors, by their names in /proc: qemu reads commas in names, and a path may change
its meaning between two looks. There is no other device than those that are named here, and no configuration
of the user's.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.architectures import architecture_named
from pkgjail.core.model import record
from pkgjail.machine.model import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = "pkgjail"
"""The name of the channel's port, by which the agent finds it."""
ADDRESS, MASK, GATEWAY, NAME_SERVER = 0x0A00020F, 0xFFFFFF00, 0x0A000202, "10.0.2.3"
"""The guest's network as qemu's user-mode network makes it: 10.0.2.15/24, the gateway 10.0.2.2."""

_RESTRICTIONS = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Board(NamedTuple):
    """A machine of qemu: its program, Debian's package of it, the machine, a processor, the console."""

    program: str
    package: str
    machine: str
    processor: str
    console: str


_BOARDS = {
    "amd64": Board("qemu-system-x86_64", "qemu-system-x86", "q35", "max", "ttyS0"),
    # Without impdef, emulation spends most of its time on pointer authentication.
    "arm64": Board("qemu-system-aarch64", "qemu-system-arm", "virt", "max,pauth-impdef=on", "ttyAMA0"),
}
MACHINES = tuple(_BOARDS)
"""The architectures of which there are machines, in Debian's words."""


class Share(NamedTuple):
    """A directory of the host: a descriptor of it, and the tag by which the guest mounts it."""

    descriptor: int
    tag: str
    writable: bool


@record
class Hardware:
    """What a machine has.

    `kernel`, `initramfs`, `disks` and `channel` are descriptors: the kernel's image, its first file system,
    disks in their order with whether each can be written, and a connected socket. `memory` is in bytes.
    """

    architecture: str
    kernel: int
    initramfs: int
    disks: tuple[tuple[int, bool], ...]
    channel: int
    shares: tuple[Share, ...] = ()
    memory: int = 2 << 30
    processors: int = 1
    network: bool = False
    accelerator: str = "tcg"
    arguments: str = ""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Return all descriptors that qemu inherits."""
        disks = (descriptor for descriptor, _ in self.disks)
        shares = (share.descriptor for share in self.shares)
        return (self.kernel, self.initramfs, self.channel, *disks, *shares)


def program_of(architecture: str) -> tuple[str, str]:
    """Return the program that emulates an architecture, and Debian's package with it.

    Raises:
        MachineError: there is no machine of that architecture.

    """
    return board_of(architecture)[:2]


def board_of(architecture: str) -> Board:
    """Return what qemu calls a machine of an architecture.

    Raises:
        MachineError: there is none.

    """
    name = architecture_named(architecture).debian
    if name not in _BOARDS:
        raise MachineError(f"there is no machine of {name}: the machines are {', '.join(MACHINES)}")
    return _BOARDS[name]


def command_line(hardware: Hardware) -> list[str]:
    """Return the program's name and its arguments.

    Raises:
        MachineError: there is no machine of that architecture.

    """
    return list(_words(hardware, board_of(hardware.architecture)))


def kernel_arguments(hardware: Hardware) -> str:
    """Return what the kernel is told. A panic restarts the machine, which ends qemu."""
    console = board_of(hardware.architecture).console
    return " ".join(
        (f"console={console} quiet loglevel=4 panic=-1 rdinit=/init net.ifnames=0", hardware.arguments)
    ).rstrip()


def _words(hardware: Hardware, board: Board) -> Iterator[str]:
    yield from (board.program, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
    yield from ("-name", "pkgjail", "-sandbox", _RESTRICTIONS)
    yield from ("-machine", f"{board.machine},accel={hardware.accelerator}")
    yield from ("-cpu", "host" if hardware.accelerator == "kvm" else board.processor)
    yield from ("-m", f"{-(-hardware.memory // 1024 // 1024)}M", "-smp", str(hardware.processors))
    yield from ("-kernel", _path(hardware.kernel), "-initrd", _path(hardware.initramfs))
    yield from ("-append", kernel_arguments(hardware))
    yield from ("-serial", "stdio", "-monitor", "none", "-device", "virtio-rng-pci")
    yield from ("-device", "virtio-serial-pci", "-chardev", f"socket,id=channel,fd={hardware.channel}")
    yield from ("-device", f"virtserialport,chardev=channel,name={PORT}")
    for number, (descriptor, writable) in enumerate(hardware.disks):
        yield from ("-blockdev", _disk(f"disk{number}", descriptor, writable=writable))
        yield from ("-device", f"virtio-blk-pci,drive=disk{number}")
    for share in hardware.shares:
        access = "" if share.writable else ",readonly=on"
        source = f"local,id={share.tag},path={_path(share.descriptor)},security_model=none,multidevs=remap"
        yield from ("-fsdev", source + access)
        yield from ("-device", f"virtio-9p-pci,fsdev={share.tag},mount_tag={share.tag}")
    if hardware.network:
        yield from ("-netdev", "user,id=network", "-device", "virtio-net-pci,netdev=network,romfile=")


def _disk(name: str, descriptor: int, *, writable: bool) -> str:
    flags = {} if writable else {"read-only": True}
    file = {"driver": "file", "filename": _path(descriptor), "locking": "off", **flags}
    cache = {"cache": {"no-flush": True}} if writable else {}  # it is thrown away
    return json.dumps({"driver": "raw", "node-name": name, "file": file, **flags, **cache})


def _path(descriptor: int) -> str:
    return os.path.join("/proc/self/fd", str(descriptor))
