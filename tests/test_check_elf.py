"""Reading ELF files: sound ones, debug files, damaged ones, and those made to harm their reader."""

from __future__ import annotations

import io
import os
import struct
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.model import FileEntry
from pkgjail.review.check import check_manifest
from pkgjail.review.check.elf import DamagedError, Dlopen, Elf, read_elf
from tests import elf_files as made
from tests.manifest_cases import sample

if TYPE_CHECKING:
    from pathlib import Path

_DLOPEN = b'[{"soname":["libx.so.1"],"feature":"x","priority":"suggested"}]'


def read(data: bytes) -> Elf | None:
    return read_elf(io.BytesIO(data))


def put(data: bytes, at: int, form: str, value: int) -> bytes:
    """Return the file with one number changed."""
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def test_a_sound_file() -> None:
    """Protects each part: what was put into a file is read from it."""
    elf = read(made.program(_DLOPEN))
    assert elf == Elf(
        abi=(64, "EM_X86_64"),
        program=True,
        interpreter=b"/lib64/ld-linux-x86-64.so.2",
        needed=(b"libc.so.6", b"libz.so.1"),
        runpath=(b"$ORIGIN/../lib", b"/opt/lib"),
        default_directories=False,
        dlopens=(Dlopen((b"libx.so.1",), "x", "suggested"),),
    )


def _with_tags(*tags: tuple[int, bytes | int]) -> bytes:
    return made.elf_file([made.dynamic(1, tags)])


_PLAIN = made.program()
_FIRST = struct.calcsize("<16sHHIQQQIHHHHHH")  # where the program headers are
_SECOND = _FIRST + 56

# name -> (the file, the error)
DAMAGED: dict[str, tuple[bytes, str]] = {
    "the magic number alone": (b"\x7fELF", "cannot be understood"),
    "half a header": (_PLAIN[:40], "cannot be understood"),
    "half the program headers": (_PLAIN[: _FIRST + 60], "ends within its program headers"),
    "half the dynamic section": (
        _with_tags((made.NEEDED, b"a"))[: _FIRST + 2 * 56 + 20],
        "ends within its dynamic section",
    ),
    "headers without a size": (put(_PLAIN, made.E_PHENTSIZE, "<H", 0), "3 program headers of 0 bytes"),
    "65,535 headers": (put(_PLAIN, made.E_PHNUM, "<H", 65535), "65535 program headers"),
    "headers beyond the end": (put(_PLAIN, made.E_PHOFF, "<Q", 1 << 63), "ends within its program headers"),
    "a dynamic section of 2^63 bytes": (put(_PLAIN, _SECOND + 32, "<Q", 1 << 63), "dynamic section has 9223"),
    "one at 2^63": (put(_PLAIN, _SECOND + 8, "<Q", 1 << 63), "ends within its dynamic section"),
    "an interpreter of 2^63 bytes": (put(_PLAIN, _SECOND + 56 + 32, "<Q", 1 << 63), "name is too long"),
    "names that nothing maps": (put(_PLAIN, _FIRST + 32, "<Q", 8), "table of names is not in the file"),
    "a name beyond the end": (_with_tags((made.NEEDED, 1 << 62)), "has no end"),
    "a name of 20,000 bytes": (_with_tags((made.NEEDED, b"x" * 20_000)), "has no end"),
    "2,000 libraries": (_with_tags(*((made.NEEDED, b"%d" % n) for n in range(2000))), "names 2000 lib"),
    "300 libraries in 300 directories": (
        _with_tags(
            *((made.NEEDED, b"%d" % n) for n in range(300)),
            (made.RPATH, b":".join(b"%d" % n for n in range(300))),
        ),
        "names 300 libraries, and 300 directories to search",
    ),
    "70,000 libraries of its notes": (
        made.program(b'[{"soname":["' + b'a","' * 15_000 + b'"]}]', notes=5),
        "names 75007 libraries, and 2 directories to search",
    ),
}


@pytest.mark.parametrize(("data", "why"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_reported(data: bytes, why: str) -> None:
    """Protects from a traceback, from reading without end, and from taking such a file for sound."""
    with pytest.raises(DamagedError, match=why):
        read(data)


# Notes that make no sense and are therefore ignored.
NOTES: dict[str, bytes] = {
    "no JSON": b"[{",
    "nested without end": b"[" * 60_000,
    "objects without end": b'{"soname":' * 6_000,
    "a number": b"7",
    "no list of names": b'[{"soname":7}]',
    "no names": b"[{}]",
    "a list in the place of an object": b"[[]]",
    "half a character": rb'[{"soname":["\ud800"]}]',
    "a NUL": rb'[{"soname":["a\u0000b"]}]',
    "a number of a million digits": b"[" + b"9" * 60_000 + b"]",
}


@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_a_note_that_makes_no_sense_is_ignored(note: bytes) -> None:
    """Protects the rest of the file: a bad note hides nothing else."""
    elf = read(made.program(note))
    assert elf == read(made.program(b"[]"))


def test_a_note_longer_than_its_segment() -> None:
    """Protects memory: a note states its own length."""
    data = made.program(_DLOPEN)
    at = data.index(b"FDO\0") - 12
    for size in (0x7FFFFFFF, 0xFFFFFFFF):
        for field in (0, 4):
            elf = read(put(data, at + field, "<I", size))
            assert elf is not None
            assert elf.dlopens == ()


def test_only_one_of_several_segments_is_read() -> None:
    """Protects from a file whose thousand headers all name the same megabyte of tags."""
    parts = [made.dynamic(3, [(made.NEEDED, b"a")]), made.Part(made.INTERP, b"/one\0")]
    elf = read(made.elf_file([*parts, made.Part(made.INTERP, b"/two\0")]))
    assert elf is not None
    assert (elf.interpreter, elf.needed) == (b"/one", (b"a",))
    tags = [(made.NEEDED, b"a")] * 12_000
    count = 1_100
    table = made.dynamic(count, tags)  # 220 KiB
    data = made.elf_file([table, *[made.Part(made.DYNAMIC, b"")] * (count - 1)])
    for number in range(2, count + 1):
        at = _FIRST + number * 56
        data = data[: at + 8] + data[_SECOND + 8 : _SECOND + 40] + data[at + 40 :]
    with pytest.raises(DamagedError, match="names 12000 libraries"):
        read(data)


@pytest.mark.parametrize("debug", [False, True])
def test_a_debug_file_with_its_headers_as_they_were(debug: bool) -> None:  # noqa: FBT001
    """Protects separate debug files of eu-strip(1), as in Fedora: their dynamic tags are in another file."""
    assert (read(made.program(debug=debug)) is None) == debug


@pytest.mark.parametrize(("system", "is_read"), [(0, True), (3, True), (9, False), (64, False)])
def test_a_program_of_another_system(system: int, is_read: bool) -> None:  # noqa: FBT001
    """Protects from false findings: golang-go has test data of FreeBSD, other packages code for GPUs."""
    assert (read(put(_PLAIN, made.EI_OSABI, "B", system)) is not None) == is_read


@pytest.mark.gate
def test_a_debug_file_of_objcopy(tmp_path: Path) -> None:
    """Protects separate debug files as in Debian: `check` once failed at the first of them."""
    subprocess.run(
        ["gcc", "-g", "-x", "c", "-", "-o", tmp_path / "whole"],
        input="int main(void) { return 0; }",
        text=True,
        check=True,
    )
    subprocess.run(["objcopy", "--only-keep-debug", tmp_path / "whole", tmp_path / "debug"], check=True)
    found = {name: read((tmp_path / name).read_bytes()) for name in ("whole", "debug")}
    assert found["debug"] is None
    assert found["whole"] is not None
    assert found["whole"].needed == (b"libc.so.6",)


def test_a_set_with_files_of_each_kind(tmp_path: Path) -> None:
    """Protects a check from one bad file of its set: it makes a note, and the others are read."""
    (tmp_path / "debug").write_bytes(made.program(debug=True))
    (tmp_path / "half").write_bytes(_PLAIN[:100])
    (tmp_path / "sparse").write_bytes(_PLAIN)
    os.truncate(tmp_path / "sparse", 1 << 40)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "line").write_bytes(b"#!/opt/" + b"x" * (1 << 20))
    (tmp_path / "sound").write_bytes(made.elf_file([made.dynamic(1, [(made.NEEDED, b"libnone.so.1")])]))
    entries = [
        FileEntry(path=os.fsencode(f"/{file.name}"), kind="regular", mode=0o755)
        for file in sorted(tmp_path.iterdir())
    ]
    manifest = replace(sample(), files=tuple(entries), dropped=(), missing=())
    check = check_manifest(manifest, root=os.fsencode(tmp_path), run=False)
    unknown = ", so what it needs is not known"
    assert [(note.path, note.kind, note.cause.removesuffix(unknown)) for note in check.notes] == [
        (b"/fifo", "unreadable", "it cannot be read here (it is a FIFO, and not a regular file)"),
        (b"/half", "damaged", "the file ends within its program headers"),
    ]
    assert {(finding.path, finding.kind, finding.wanted) for finding in check.findings} == {
        (b"/line", "interpreter", b"/opt/" + b"x" * 248),
        (b"/sound", "library", b"libnone.so.1"),
        (b"/sparse", "interpreter", b"/lib64/ld-linux-x86-64.so.2"),
        (b"/sparse", "library", b"libc.so.6"),
        (b"/sparse", "library", b"libz.so.1"),
    }
    assert check.objects == 2
