"""Tell by its content what a kernel runs on, and its release. Nothing that the file says is believed further.

x86's header is described in boot.rst of Linux's documentation, arm64's and RISC-V's in booting.rst and
boot-image-header.rst; other architectures have magic numbers at fixed places.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.architectures import architecture_of_elf
from pkgjail.core.unpacking import GZIP, MissingProgramError, UnpackError, unpack
from pkgjail.core.untrusted import MIB, read_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable

KERNEL = 256 * MIB
"""The most bytes of a kernel, compressed and not."""

_RELEASE = rb"[0-9][0-9A-Za-z.+_~-]{0,63}"
# What uname(2) and the first line of the kernel's log say: "Linux version 6.1.0-57-arm64 (builder@…".
_BANNER = re.compile(rb"Linux version (" + _RELEASE + rb") \(")
_IS_RELEASE = re.compile(_RELEASE)
_X86_VERSION, _X86_PROTOCOL, _X86_FLAGS = 0x20E, 0x206, 0x236
_SIXTY_FOUR_BITS = 1  # XLF_KERNEL_64
_FIRST_WITH_FLAGS = 0x20C
_SECTOR = 0x200
_MAGIC = (
    (0x38, b"ARM\x64", "arm64"),
    (0x30, b"RISCV\0\0\0", "riscv64"),
    (0x24, b"\x18\x28\x6f\x01", "armhf"),
    (0x10008, b"S390EP", "s390x"),
)


class KernelImage(NamedTuple):
    """What the content of a kernel says: Debian's word for its architecture, and the release, perhaps ""."""

    architecture: str
    release: str


class NoKernelError(ValueError):
    """A file that is no kernel that a machine can start; the text says why, for a message."""


def is_release(text: bytes) -> bool:
    """Check whether a text can be a kernel's release: it becomes the name of a directory."""
    return _IS_RELEASE.fullmatch(text) is not None


def recognize(descriptor: int, name: bytes) -> KernelImage:
    """Return what the file of `descriptor` is, by its content.

    Raises:
        NoKernelError: it is no kernel, or none that can be started as it is.
        OSError: it cannot be read, or has more than `KERNEL` bytes.

    """
    content = read_descriptor(descriptor, name, KERNEL)
    if content.startswith(GZIP):  # qemu unpacks it, too
        try:
            content = unpack(content, KERNEL)
        except (UnpackError, MissingProgramError) as error:
            raise NoKernelError(str(error)) from error
    if content[0x202:0x206] == b"HdrS" and content[0x1FE:_SECTOR] == b"\x55\xaa":
        return _x86(content)
    if content[:2] == b"MZ" and content[4:8] == b"zimg":
        raise NoKernelError("it is compressed for UEFI alone (zboot), which no machine here can start")
    architecture = str(architecture_of_elf(content[:64]) or "") or _by_magic(content)
    if not architecture:
        raise NoKernelError("it is no kernel of a known form")
    found = _BANNER.search(content)
    return KernelImage(architecture, found[1].decode("ascii") if found else "")


def _x86(content: bytes) -> KernelImage:
    """Return what the header of a bzImage says."""

    def number(offset: int) -> int:
        return int.from_bytes(content[offset : offset + 2], "little")

    is_long = number(_X86_PROTOCOL) >= _FIRST_WITH_FLAGS and number(_X86_FLAGS) & _SIXTY_FOUR_BITS
    start = number(_X86_VERSION)
    # "6.1.0-57-cloud-amd64 (debian-kernel@…) #1 SMP …": a text behind the header, if there is one.
    found = _IS_RELEASE.match(content, start + _SECTOR) if start else None
    return KernelImage("amd64" if is_long else "i386", found[0].decode("ascii") if found else "")


def _by_magic(content: bytes) -> str:
    has: Callable[[int, bytes], bool] = lambda offset, magic: content.startswith(magic, offset)  # noqa: E731
    return next((word for offset, magic, word in _MAGIC if has(offset, magic)), "")
