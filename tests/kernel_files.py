"""Kernels and modules made by hand, with the fields that are read of real ones and nothing else."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RELEASE = "6.1.0-57-cloud-amd64"


def x86_kernel(release: str = RELEASE, *, bits: int = 64) -> bytes:
    """Return the header of a bzImage, as boot.rst of Linux describes it."""
    data = bytearray(0x400)
    data[0x1FE:0x200] = b"\x55\xaa"
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x206, 0x20F)  # version of the protocol
    struct.pack_into("<H", data, 0x20E, 0x100)  # 0x200 before the text of the version
    struct.pack_into("<H", data, 0x236, 0x7F if bits == 64 else 0x7E)  # xloadflags
    return bytes(data[:0x300]) + release.encode() + b" (builder@example.org) #1 SMP Debian\0"


def arm64_kernel(release: str = "6.1.0-57-cloud-arm64", *, magic: bytes = b"ARM\x64") -> bytes:
    """Return an Image of arm64, with the first line of the kernel's log somewhere in it."""
    head = b"MZ" + bytes(0x36) + magic
    return (
        head.ljust(0x3000, b"\0") + b"\0Linux version " + release.encode() + b" (builder@example.org) #1\n\0"
    )


def elf_kernel(bits: int, order: int, machine: int, release: str = "6.1.0") -> bytes:
    """Return the head of a vmlinux."""
    head = b"\x7fELF" + bytes([bits, order, 1]) + bytes(11)
    head += machine.to_bytes(2, "little" if order == 1 else "big")
    return head.ljust(64, b"\0") + b"Linux version %s (x" % release.encode()


def module(*facts: str, bits: int = 2, order: int = 1) -> bytes:
    """Return an ELF file that has a section .modinfo with these facts ("depends=virtio")."""
    sign = "<" if order == 1 else ">"
    info = b"".join(fact.encode() + b"\0" for fact in facts)
    names = b"\0.modinfo\0.shstrtab\0"
    start = 64 if bits == 2 else 52
    rows = [(0, 0, 0), (1, start, len(info)), (10, start + len(info), len(names))]
    form = "I20xQQ24x" if bits == 2 else "I12xII16x"
    table = b"".join(struct.pack(sign + form, *row) for row in rows)
    head = bytearray(start)
    head[:6] = b"\x7fELF" + bytes([bits, order])
    place, counts = (0x28, 0x3A) if bits == 2 else (0x20, 0x2E)
    struct.pack_into(sign + ("Q" if bits == 2 else "I"), head, place, start + len(info) + len(names))
    struct.pack_into(sign + "3H", head, counts, len(table) // 3, 3, 2)
    return bytes(head) + info + names + table


def make_kernel(
    root: Path, release: str = RELEASE, *, image: bytes = b"", modules: Mapping[str, bytes] | None = None
) -> Path:
    """Make a kernel below a root, as a distribution has it; returns the directory of its modules."""
    (root / "boot").mkdir(parents=True, exist_ok=True)
    (root / "boot" / f"vmlinuz-{release}").write_bytes(image or x86_kernel(release))
    directory = root / "lib/modules" / release
    directory.mkdir(parents=True)
    for name, content in (modules or {}).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory
