"""Architectures: their names in each system's words, and what their ELF files say.

Each is one row of `ARCHITECTURES`. A manifest, a repository or a user names one by any of its words
(`architecture_named`); a file names one by its ELF header (`architecture_of_elf`).
"""

from __future__ import annotations

import os
import struct
import sys
from functools import cache
from typing import Any, NamedTuple

from pkgjail.core.errors import UsageError
from pkgjail.core.parameters import parameter

_LITTLE, _BIG = 1, 2  # EI_DATA
_ARM, _HARD_FLOAT = 40, 0x400  # EM_ARM, EF_ARM_ABI_FLOAT_HARD
# The kernels of these run programs of those, if the processor or the kernel's configuration allows it.
_COMPATIBLE = {"amd64": {"i386"}, "arm64": {"armhf", "armel"}, "armhf": {"armel"}, "mips64el": {"mipsel"}}


class Architecture(NamedTuple):
    """An architecture: a processor's instructions, byte order and word size, and a system's calls.

    Attributes:
        debian: the word of dpkg(1), "arm64".
        machine: the word of uname(2), "aarch64".
        rpm: the word of rpm's packages.
        pacman: the word of pacman's packages.
        others: further words that mean it, such as a less capable processor of the family.
        bits: the size of an address, 32 or 64; elf(5)'s class.
        byte_order: elf(5)'s encoding, "little" or "big".
        elf_machine: elf(5)'s e_machine.
        elf_flags: e_flags of its programs, as far as they matter to kernels.
        qemu: the word of qemu-user's programs, "aarch64".
        triplet: the GNU system type, with which the names of cross compilers begin.
        oci: the word of OCI images and of Go, and the variant; "" if there is none.

    """

    debian: str
    machine: str
    rpm: str
    pacman: str
    others: tuple[str, ...]
    bits: int
    byte_order: str
    elf_machine: int
    elf_flags: int
    qemu: str
    triplet: str
    oci: tuple[str, str]

    def __str__(self) -> str:
        return self.debian

    @property
    def words(self) -> frozenset[str]:
        """All words for it. "arm" is none: some systems mean one by it, and some another."""
        named = {self.debian, self.machine, self.rpm, self.pacman, self.triplet, *self.others}
        return frozenset({*named, self.oci[0], "/".join(self.oci).rstrip("/")} - {"arm"})

    @property
    def qemu_user(self) -> str:
        """The program that emulates its processor for one process, "qemu-aarch64"."""
        return f"qemu-{self.qemu}"


def _row(debian: str, machine: str, elf_machine: int, **others: Any) -> Architecture:
    """Return an architecture: in most fields, most have the kernel's word or the commonest value."""
    usual = {
        "rpm": machine, "pacman": machine, "others": (), "bits": 64, "byte_order": "little", "elf_flags": 0,
        "qemu": machine, "triplet": f"{machine}-linux-gnu", "oci": (debian, ""),
    }  # fmt: skip
    return Architecture(debian=debian, machine=machine, elf_machine=elf_machine, **{**usual, **others})


ARCHITECTURES = (
    _row("amd64", "x86_64", 62, others=("x86-64", "x86_64_v2", "x86_64_v3", "x86_64_v4")),
    _row("arm64", "aarch64", 183, oci=("arm64", "v8")),
    _row("armhf", "armv7l", _ARM, rpm="armv7hl", pacman="armv7h", others=("armv8l", "armv7hnl"),
         qemu="arm", triplet="arm-linux-gnueabihf", oci=("arm", "v7"), bits=32, elf_flags=0x05000400),
    _row("armel", "armv5tel", _ARM, others=("armv5tejl", "armv6l"), pacman="arm",
         qemu="arm", triplet="arm-linux-gnueabi", oci=("arm", "v5"), bits=32, elf_flags=0x05000200),
    _row("i386", "i686", 3, others=("i486", "i586"), qemu="i386", oci=("386", ""), bits=32),
    _row("riscv64", "riscv64", 243, elf_flags=0x5),
    _row("ppc64el", "ppc64le", 21, triplet="powerpc64le-linux-gnu", oci=("ppc64le", ""), elf_flags=2),
    _row("s390x", "s390x", 22, byte_order="big"),
    _row("loong64", "loongarch64", 258, elf_flags=0x43),
    _row("mips64el", "mips64", 8, rpm="mips64el", pacman="mips64el", qemu="mips64el",
         triplet="mips64el-linux-gnuabi64", oci=("mips64le", ""), elf_flags=0x80000007),
    _row("mipsel", "mips", 8, rpm="mipsel", pacman="mipsel", qemu="mipsel",
         triplet="mipsel-linux-gnu", oci=("mipsle", ""), bits=32, elf_flags=0x70001007),
)  # fmt: skip
"""All architectures that have a name here."""


def architecture_named(word: str) -> Architecture:
    """Return the architecture with this name, in any system's words.

    Raises:
        UsageError: there is none; it lists the words that are most like it, or else all of Debian's.

    """
    found = known_architecture(word)
    if found is None:
        raise UsageError(_unknown(word))
    return found


def refuse_other(made: str, asked: str) -> None:
    """Refuse what was made for another architecture than the one that is asked for, in any words.

    Raises:
        UsageError: it is for another one, or there is none with that name.

    """
    wanted = architecture_named(asked)
    if made not in wanted.words:
        raise UsageError(
            f"cannot run programs for {wanted}: the manifest is for {made}; leave out "
            f"{parameter('architecture')}, or name a manifest or an image for {wanted}"
        )


def known_architecture(word: str) -> Architecture | None:
    """Return the architecture with this name, in any system's words, or None."""
    return _by_word().get(word)


def host_architecture() -> Architecture | None:
    """Return the architecture that the kernel shows this process; None if it has no row.

    In a 32-bit personality (setarch(8)), it is the 32-bit one.
    """
    machine = os.uname().machine
    if machine in {"mips", "mips64"} and sys.byteorder == "big":
        return None
    return known_architecture(machine)


def is_host_word(word: str) -> bool:
    """Return whether a word means the architecture of this host. It starts nothing."""
    machine = os.uname().machine
    if word == machine:
        return True
    host = host_architecture()
    return host is not None and word in host.words


def runs_natively(other: Architecture) -> bool:
    """Return whether this host's processor runs programs of an architecture.

    It is known for the host's own, and found by running a program for those that its kernel may run besides,
    such as i386 on amd64. (If the host has registered an emulator for such a program, it may be that.)
    """
    host = host_architecture()
    if host is None or other is host:
        return other is host
    return other.debian in _COMPATIBLE.get(host.debian, ()) and runs_program(other)


def runs_program(architecture: Architecture) -> bool:
    """Return whether a program of an architecture runs on this host, natively or by emulation, by trying."""
    from pkgjail.core.exit_programs import runs_here  # imports subprocess

    return runs_here(tiny_program(architecture))


def tiny_program(architecture: Architecture) -> bytes:
    """Return a static program for an architecture, as an ELF file, that ends with `exit_programs.STATUS`."""
    from pkgjail.core.exit_programs import exit_program

    return exit_program(
        architecture.debian,
        bits=architecture.bits,
        byte_order=architecture.byte_order,
        machine=architecture.elf_machine,
        flags=architecture.elf_flags,
    )


def architecture_of_elf(header: bytes) -> Architecture | None:
    """Return the architecture that the first 64 bytes of a file name; None if it is no ELF file of any."""
    if len(header) < struct.calcsize("52x") or not header.startswith(b"\x7fELF"):
        return None
    bits, order = {1: 32, 2: 64}.get(header[4]), {_LITTLE: "little", _BIG: "big"}.get(header[5])
    end = ">" if order == "big" else "<"
    machine = struct.unpack_from(f"{end}H", header, 18)[0]
    found = [
        one for one in ARCHITECTURES if (one.bits, one.byte_order, one.elf_machine) == (bits, order, machine)
    ]
    if machine == _ARM:
        hard = struct.unpack_from(f"{end}I", header, 36)[0] & _HARD_FLOAT
        found = [one for one in found if one.elf_flags & _HARD_FLOAT == hard]
    return found[0] if found else None


@cache
def _by_word() -> dict[str, Architecture]:
    return {word: one for one in ARCHITECTURES for word in one.words}


def _unknown(word: str) -> str:
    from difflib import get_close_matches  # for bad usage alone

    from pkgjail.core.untrusted import shortened

    said = shortened(word, 80)
    near = ", ".join(map(repr, get_close_matches(said, sorted(_by_word()), n=3)))
    advice = f"near ones are {near}" if near else f"use one of {', '.join(map(str, ARCHITECTURES))}"
    return f"there is no architecture {said!r}; {advice}"
