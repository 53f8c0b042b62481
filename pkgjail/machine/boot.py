"""Start a machine with the files of a manifest."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.architectures import architecture_named, host_architecture
from pkgjail.core.jail_names import LD_CACHE
from pkgjail.core.model import record
from pkgjail.core.text import text_path
from pkgjail.core.untrusted import in_memory
from pkgjail.machine.accelerator import SECONDS, failed_before, remember_failure, why_no_kvm
from pkgjail.machine.agent import agent
from pkgjail.machine.contents import Request
from pkgjail.machine.frames import Type, number, text
from pkgjail.machine.initramfs import initramfs
from pkgjail.machine.kernels import find_kernel
from pkgjail.machine.model import MachineError, MachineOptions
from pkgjail.machine.modules import load_modules
from pkgjail.machine.qemu import ADDRESS, GATEWAY, MASK, Hardware
from pkgjail.machine.root_disk import makes_own_cache, root_disk
from pkgjail.machine.running import Running
from pkgjail.machine.scratch_disk import scratch_disk
from pkgjail.machine.session import Command, Ended, NotStartedError, run_quietly
from pkgjail.machine.shares import prepared_shares

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.machine.contents import Contents
    from pkgjail.machine.model import Kernel
    from pkgjail.machine.shares import Shares

MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "squashfs", "overlay")
"""The modules of every machine."""
MEMORY = 2 << 30
"""The bytes of memory of a machine, unless the caller says otherwise."""
EMULATED = "cryptomgr.notests=1 mitigations=off no_timer_check"
"""What the kernel of an emulated machine is told: it has no use for tests of ciphers, and for fences against
other users of the processor."""

_NETWORK = "virtio_net"
_RANDOM = "virtio_rng"
_SCRATCH = "ext4"
_LDCONFIG = (b"/sbin/ldconfig", b"/usr/sbin/ldconfig", b"/usr/bin/ldconfig")
_SESSION = 0xFFFF  # none of a command
_SECONDS = 120  # an emulated guest on a busy host
_SCRATCH_IN_MEMORY = b"mode=755,size=50%"


@record
class Guest:
    """A machine that has started and has its root.

    `kernel` is the kernel's release. `idle` are the seconds without a command after which it ends, if it is
    kept running.
    """

    running: Running
    shares: Shares
    architecture: str
    kernel: str
    accelerator: str
    idle: float


@contextlib.contextmanager
def started_machine(  # noqa: PLR0913 - what, and by name how
    manifest: Manifest,
    contents: Contents,
    options: MachineOptions,
    *,
    root: bytes,
    hostname: str,
    network: bool,
    reporter: Reporter,
) -> Iterator[Guest]:
    """Start a machine, and end it when the `with` block ends.

    Args:
        manifest: the files.
        contents: what the root has besides.
        options: the machine.
        root: the directory that the manifest was resolved from.
        hostname: the name of the guest.
        network: whether it has qemu's user-mode network.
        reporter: receives progress, and warnings of what the machine cannot do in the usual way.

    Raises:
        MachineError: it cannot be started.
        DriftError, JailError, SourceError: as `root_disk`.

    """
    architecture = architecture_of(manifest)
    kernel = find_kernel(architecture, named=options.kernel, root=root)
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(root_disk(manifest, root, reporter))
        shares = stack.enter_context(prepared_shares(contents, kernel, options.share, reporter))
        scratch = stack.enter_context(scratch_disk(options.scratch)) if options.scratch else None
        names = [*MODULES, *shares.modules]
        names += [_NETWORK] * network + [_SCRATCH] * bool(options.scratch)
        hardware = Hardware(
            architecture=architecture,
            kernel=_opened(kernel.image, stack),
            initramfs=stack.enter_context(in_memory(first_files(kernel, names))).fileno(),
            disks=(
                (_opened(os.fsencode(disk), stack), False),
                *shares.disks,
                *([scratch] if scratch else []),
            ),
            channel=-1,
            shares=shares.shares,
            memory=options.memory or MEMORY,
            processors=options.processors or len(os.sched_getaffinity(0)),
            network=network,
        )
        running, why = _start(hardware, kernel, reporter)
        with running:
            _fill(running, contents, shares, scratch_number=len(shares.disks) + 1 if scratch else 0)
            if makes_own_cache(manifest):
                _make_cache(running)
            network_numbers = (ADDRESS, MASK, GATEWAY) if network else (0, 0, 0)
            running.ask(Type.SEAL, text(os.fsencode(hostname)) + b"".join(map(number, network_numbers)))
            yield Guest(
                running=running,
                shares=shares,
                architecture=architecture,
                kernel=kernel.release,
                accelerator="tcg" if why else "kvm",
                idle=options.idle,
            )


def architecture_of(manifest: Manifest) -> str:
    """Return the architecture of a manifest's machine, in Debian's word: this host's if it names none.

    Raises:
        MachineError: it names none, and this host has no name here.
        UsageError: it names one that nobody knows.

    """
    if manifest.header.architecture:
        return architecture_named(manifest.header.architecture).debian
    host = host_architecture()
    if host is None:
        raise MachineError(f"there is no machine for this host, {os.uname().machine}")
    return host.debian


def first_files(kernel: Kernel, names: Sequence[str] = MODULES) -> bytes:
    """Return the archive that a guest starts from: the agent, and modules with what they need.

    Raises:
        MachineError: the kernel lacks one of the modules, or there is no compiler for the agent.

    """
    modules, absent = load_modules(kernel, [*names, _RANDOM])
    if lacking := [name for name in absent if name != _RANDOM]:
        raise MachineError(
            f"the kernel {kernel.release} cannot be used: it has no {', '.join(lacking)}; name another one"
        )
    files = {b"/init": (0o755, agent(kernel.architecture))}
    for place, module in enumerate(modules):
        files[b"/modules/%03d-%s.ko" % (place, module.name.encode())] = (0o644, module.content)
    return initramfs(files)


def _opened(path: bytes, stack: contextlib.ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _start(hardware: Hardware, kernel: Kernel, reporter: Reporter) -> tuple[Running, str]:
    """Return a machine that is ready, and why it is emulated, or "" if it uses KVM."""
    why = why_no_kvm(hardware.architecture)
    if not why and failed_before(kernel):
        why = "no guest starts with it on this host"
    if not why:
        running = Running(replace(hardware, accelerator="kvm"))
        try:
            running.wait_for_start(SECONDS)
        except MachineError:
            running.kill()
            remember_failure(kernel)
            why = "no guest starts with it on this host"
        else:
            return running, ""
    reporter.warn(f"the machine is emulated, which is many times slower: it cannot use KVM, as {why}")
    running = Running(replace(hardware, arguments=EMULATED))
    try:
        running.wait_for_start(_SECONDS)
    except BaseException:
        running.kill()
        raise
    return running, why


def _fill(running: Running, contents: Contents, shares: Shares, *, scratch_number: int) -> None:
    """Mount the root and make what it has; all at once, since each answer takes a while."""
    scratch = _device(scratch_number) if scratch_number else b""
    requests = [
        Request(Type.ROOT, text(b"squashfs") + text(_device(0)) + text(scratch) + text(_SCRATCH_IN_MEMORY))
    ]
    requests += (step if isinstance(step, Request) else shares.mount(step) for step in contents.steps)
    for request in requests:
        running.channel.send(0, request.type, request.content)
    running.answers(len(requests))


def _make_cache(running: Running) -> None:
    """Have the guest's own ldconfig(8) make the cache of libraries, before its root is read-only.

    Raises:
        MachineError: it fails.

    """
    ended = Ended(0)
    for program in _LDCONFIG:
        command = Command(argv=(program, b"-X", b"-C", LD_CACHE), cwd=b"/", environment=(), uid=0, gid=0)
        with contextlib.suppress(NotStartedError):
            ended = run_quietly(running, _SESSION, command)
            break
    if ended.status:
        raise MachineError(f"the guest cannot make {text_path(LD_CACHE)}: ldconfig ended with {ended.status}")


def _device(number_: int) -> bytes:
    return b"/dev/vd%c" % (ord("a") + number_)
