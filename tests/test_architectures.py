"""Architectures: the words for each, and its programs, compared with dpkg, rpm, qemu and the kernel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pkgjail.core import architectures, exit_programs
from pkgjail.core.architectures import ARCHITECTURES, Architecture, architecture_named, architecture_of_elf
from pkgjail.core.errors import UsageError


def output_of(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


each = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)


@each
def test_dpkg_agrees(architecture: Architecture) -> None:
    """Protects Debian's facts: the triplet of compilers, the size of addresses, and the byte order."""
    said = [
        output_of("dpkg-architecture", "-f", f"-a{architecture.debian}", f"-qDEB_HOST_{name}")
        for name in ("GNU_TYPE", "ARCH_BITS", "ARCH_ENDIAN")
    ]
    assert said == [architecture.triplet, str(architecture.bits), architecture.byte_order]


@each
def test_rpm_knows_the_word(architecture: Architecture) -> None:
    """Protects rpm's words: each has a number in rpm's own table."""
    table = Path("/usr/lib/rpm/rpmrc").read_text(encoding="utf-8")
    assert re.search(rf"^arch_canon:\s+{architecture.rpm}:", table, re.MULTILINE)


@each
def test_the_tiny_program_is_of_its_architecture(architecture: Architecture, tmp_path: Path) -> None:
    """Protects the probe: the emulator of exactly this processor runs it, and it ends as it should."""
    program = tmp_path / "program"
    program.write_bytes(architectures.tiny_program(architecture))
    program.chmod(0o755)
    done = subprocess.run([f"/usr/bin/{architecture.qemu_user}-static", program], check=False)
    assert done.returncode == exit_programs.STATUS
    assert architecture_of_elf(program.read_bytes()[:64]) is architecture
    other = "aarch64" if architecture.qemu != "aarch64" else "x86_64"
    wrong = subprocess.run([f"/usr/bin/qemu-{other}-static", program], capture_output=True, check=False)
    assert b"Invalid ELF image" in wrong.stderr


@each
def test_each_word_names_one(architecture: Architecture) -> None:
    """Protects that no word means two architectures, and that each word finds its own."""
    assert {architecture_named(word) for word in architecture.words} == {architecture}
    counts = Counter(word for one in ARCHITECTURES for word in one.words)
    assert set(counts.values()) == {1}


def test_the_host_has_its_own() -> None:
    """Protects the host's architecture: dpkg's and that of this Python's file, which it runs by itself."""
    host = architectures.host_architecture()
    assert host is not None
    assert host.debian == output_of("dpkg", "--print-architecture")
    with open(os.path.realpath(sys.executable), "rb") as python:
        assert architecture_of_elf(python.read(64)) is host
    assert architectures.is_host_word(host.debian)
    assert architectures.is_host_word(os.uname().machine)
    assert architectures.runs_natively(host)
    assert architectures.runs_program(host)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the personality is that of x86")
def test_a_personality_changes_it() -> None:
    """Protects setarch(8): what the kernel shows to a process in the 32-bit personality is the 32-bit one."""
    code = "from pkgjail.core.architectures import host_architecture; print(host_architecture())"
    assert output_of("setarch", "i686", sys.executable, "-c", code) == "i386"


def test_compatible_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects i386 on amd64: it runs natively if the kernel runs its program; others are not tried."""
    tried: list[Architecture] = []

    def runs(architecture: Architecture) -> bool:
        tried.append(architecture)
        return len(tried) == 1

    monkeypatch.setattr(architectures, "host_architecture", lambda: architecture_named("x86_64"))
    monkeypatch.setattr(architectures, "runs_program", runs)
    answers = [architectures.runs_natively(architecture_named(word)) for word in ("i386", "i386", "arm64")]
    assert (answers, tried) == ([True, False, False], [architecture_named("i386")] * 2)
    monkeypatch.setattr(architectures, "host_architecture", lambda: architecture_named("arm64"))
    monkeypatch.setattr(architectures, "runs_program", lambda _: True)
    assert [str(one) for one in ARCHITECTURES if architectures.runs_natively(one)] == [
        "arm64",
        "armhf",
        "armel",
    ]


def test_a_host_without_a_row_runs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects machines that the table does not have, and the two byte orders of one word of uname(2)."""

    class Uname:
        machine = "sparc64"

    monkeypatch.setattr(os, "uname", Uname)
    assert architectures.host_architecture() is None
    assert architectures.is_host_word("sparc64")
    assert not architectures.is_host_word("amd64")
    assert not architectures.runs_natively(ARCHITECTURES[0])
    monkeypatch.setattr(Uname, "machine", "mips64")
    assert str(architectures.host_architecture()) == "mips64el"
    monkeypatch.setattr(sys, "byteorder", "big")
    assert architectures.host_architecture() is None


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("arch64", "near ones are 'aarch64', 'arm64', 'loongarch64'"),
        ("arm", "near ones are "),
        ("zzz", "use one of amd64, arm64, armhf,"),
        ("", "use one of amd64,"),
        ("x" * 100_000, "xxx … xxx"),
    ],
)
def test_an_unknown_word_is_refused(word: str, advice: str) -> None:
    """Protects the message: it says what is near, or what there is, and is short for any word."""
    with pytest.raises(UsageError) as refused:
        architecture_named(word)
    assert advice in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("header", [b"", b"\x7fELF", b"#!/bin/sh\n" * 9, b"\x7fELF\x09\x09" + bytes(60)])
def test_what_is_no_elf_file_has_none(header: bytes) -> None:
    """Protects from files of any content, of which the header is read."""
    assert architecture_of_elf(header) is None


def test_a_program_that_cannot_run_does_not() -> None:
    """Protects the probe's other answer: a program of no architecture, and one that ends otherwise."""
    own = architectures.tiny_program(architecture_named(os.uname().machine))
    assert not exit_programs.runs_here(b"\x7fELF" + bytes(100))
    assert not exit_programs.runs_here(own.replace(bytes([exit_programs.STATUS]), b"\x03"))
