"""Virtual machines: the start to a command's end, beside a plain qemu with the same kernel; streams."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.measure import Subject, timed
from pkgjail.core.options import JailOptions
from pkgjail.core.text import raw_path
from pkgjail.machine.boot import EMULATED
from pkgjail.machine.initramfs import initramfs
from pkgjail.machine.keeper import find_kept_machine, stop_kept_machine
from pkgjail.machine.kernels import find_kernel
from pkgjail.machine.model import MachineOptions
from pkgjail.machine.run import run_in_machine
from pkgjail.manifest import read_manifest
from tests.kernels import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BUSYBOX = "/usr/bin/busybox"
_INIT = b"#!/busybox sh\n/busybox echo started\n/busybox reboot -f\n"
_BYTES = 64 << 20
_MEMORY = "2048M"
_BOOT, _CAT = "qemu, busybox that ends", "cat, 64 MiB"


@contextmanager
def machine_subjects(pkgjail: Sequence[str], place: Path) -> Iterator[list[Subject]]:
    """Return starts of machines, and later commands and streams of one that is kept running."""
    directory = str(kernel())
    manifest = place / "machine.manifest.jsonl"
    subprocess.run([*pkgjail, "resolve", "base", "-o", manifest], check=True, capture_output=True)
    kept = raw_path(str(place))
    content = place / "stream"
    content.write_bytes(os.urandom(_BYTES))
    run = [*pkgjail, "run", "--stage", "vm", "--kernel", directory, str(manifest), "--"]
    later = [sys.executable, "-m", "benchmarks.machines", str(manifest), directory, str(place)]

    def streamed(command: Sequence[str]) -> float:
        with content.open("rb") as file:
            began = perf_counter()
            subprocess.run(command, stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
            return perf_counter() - began

    try:
        timed([*later, "true"])
        found = find_kept_machine(kept)
        plain = _plain(directory, place, found.accelerator if found else "tcg")
        yield [
            Subject(_BOOT, lambda: timed(plain)),
            Subject("run --stage vm, true", lambda: timed([*run, "true"]), _BOOT),
            Subject("a later true in a kept machine", lambda: timed([*later, "true"]), _BOOT),
            Subject(_CAT, lambda: streamed(["cat"])),
            Subject(f"{_CAT}, in a kept machine", lambda: streamed([*later, "cat"]), _CAT),
        ]
    finally:
        stop_kept_machine(kept)


def _plain(directory: str, place: Path, accelerator: str) -> list[str]:
    """Return a command that boots the kernel with busybox alone, which prints a word and ends."""
    files = {b"/init": (0o755, _INIT), b"/busybox": (0o755, Path(_BUSYBOX).read_bytes())}
    first = place / "initramfs"
    first.write_bytes(initramfs(files))
    image = os.fsdecode(find_kernel("amd64", named=directory).image)
    more = "" if accelerator == "kvm" else EMULATED
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", f"q35,accel={accelerator}", "-cpu", "host" if accelerator == "kvm" else "max"),
        *("-m", _MEMORY, "-smp", str(len(os.sched_getaffinity(0))), "-kernel", image, "-initrd", str(first)),
        *("-append", f"console=ttyS0 quiet loglevel=4 panic=-1 rdinit=/init {more}", "-serial", "stdio"),
    ]


def main(manifest: str, directory: str, place: str, *command: str) -> int:
    """Run a command in the machine that is kept for a place."""
    options = JailOptions(environment={"PATH": "/usr/bin:/bin"})
    machine = MachineOptions(kernel=directory, idle=600)
    found = read_manifest(Path(manifest))
    return run_in_machine(found, command, options, machine=machine, keep=raw_path(place))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
