"""The smallest programs: static ELF files that end with a known status, to find out what a host runs.

Each is a header, one segment, and a few instructions for exit(2). None needs a file of a system.
"""

from __future__ import annotations

import os
import struct
import subprocess
from contextlib import suppress

STATUS = 86
"""The status with which each program ends."""

_BASE = 0x400000  # above vm.mmap_min_addr
_ALIGNMENT = 0x10000  # the largest size of a page
_SECONDS = 20  # an emulator on a busy host needs less than one
# For each of Debian's architectures: load STATUS as the first argument and the number of exit(2), and call.
_INSTRUCTIONS = {
    "amd64": "bf56000000 b83c000000 0f05",  # mov edi, STATUS; mov eax, 60; syscall
    "i386": "bb56000000 b801000000 cd80",  # mov ebx, STATUS; mov eax, 1; int 0x80
    "arm64": "c00a80d2 a80b80d2 010000d4",  # mov x0, STATUS; mov x8, 93; svc 0
    "armhf": "5600a0e3 0170a0e3 000000ef",  # mov r0, STATUS; mov r7, 1; svc 0
    "armel": "5600a0e3 0170a0e3 000000ef",
    "riscv64": "13056005 9308d005 73000000",  # li a0, STATUS; li a7, 93; ecall
    "ppc64el": "01000038 56006038 02000044",  # li r0, 1; li r3, STATUS; sc
    "s390x": "a7290056 0a01",  # lghi r2, STATUS; svc 1
    "loong64": "04588103 0b748103 00002b00",  # ori a0, zero, STATUS; ori a7, zero, 93; syscall 0
    "mips64el": "56000434 c2130234 0c000000",  # ori a0, zero, STATUS; ori v0, zero, 5058; syscall
    "mipsel": "56000434 a10f0234 0c000000",  # with 4001
}


def exit_program(debian: str, *, bits: int, byte_order: str, machine: int, flags: int) -> bytes:
    """Return the program for one of Debian's architectures, whose ELF header has these values."""
    code = bytes.fromhex(_INSTRUCTIONS[debian])
    end, wide = (">" if byte_order == "big" else "<"), bits == 64  # noqa: PLR2004
    sizes = (64, 56, 64) if wide else (52, 32, 40)  # of the header, of a segment's and a section's entry
    start = sizes[0] + sizes[1]
    identity = b"\x7fELF" + bytes([2 if wide else 1, 2 if byte_order == "big" else 1, 1]).ljust(12, b"\0")
    address = "Q" if wide else "I"
    header = struct.pack(
        f"{end}HHI{address * 3}IHHHHHH",
        2, machine, 1, _BASE + start, sizes[0], 0, flags, sizes[0], sizes[1], 1, sizes[2], 0, 0,
    )  # fmt: skip
    length = start + len(code)
    loaded, executable = 1, 5
    placed = (0, _BASE, _BASE, length, length)
    if wide:
        segment = struct.pack(f"{end}II6Q", loaded, executable, *placed, _ALIGNMENT)
    else:
        segment = struct.pack(f"{end}8I", loaded, *placed, executable, _ALIGNMENT)
    return identity + header + segment + code


def runs_here(program: bytes) -> bool:
    """Return whether this host runs a program of `exit_program` to its end. It needs no file system."""
    descriptor = os.memfd_create("pkgjail-probe")
    try:
        os.write(descriptor, program)
        return _status(descriptor) == STATUS
    finally:
        os.close(descriptor)


def _status(descriptor: int) -> int:
    """Return the status of the program in a file in memory; -1 if it cannot be executed."""
    # By name, not fexecve: an emulator reads the program from the name that it is given.
    name = f"/proc/self/fd/{descriptor}"
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(
            [name], pass_fds=(descriptor,), env={}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=_SECONDS, check=False,
        ).returncode  # fmt: skip
    return -1
