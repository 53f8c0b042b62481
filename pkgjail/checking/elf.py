"""What the dynamic loader reads of an ELF file, by pyelftools; elf(5), ld.so(8)."""

from __future__ import annotations

import contextlib
import json
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment, NoteSegment

if TYPE_CHECKING:
    from collections.abc import Iterator

# DF_1_NODEFLIB of DT_FLAGS_1: neither ld.so.cache nor the default directories.
_NODEFLIB = 0x800
# The note of https://systemd.io/ELF_DLOPEN_METADATA: owner FDO, and JSON.
_DLOPEN_TYPE = 0x407C0C0A
_LOADED = ("ET_EXEC", "ET_DYN")
_STRINGS = ("DT_NEEDED", "DT_SONAME", "DT_RPATH", "DT_RUNPATH")
_LONGEST = 1 << 14


class Dlopen(NamedTuple):
    """What a program says that it loads by dlopen(3): any of `sonames`, for `feature`."""

    sonames: tuple[str, ...]
    feature: str
    priority: str


class Elf(NamedTuple):
    """One object: `abi` (class, machine) says which others it can be loaded with.

    `rpath` is empty where there is a `runpath`, as the loader has it. `program` tells what the kernel
    can execute from what is only loaded. Names are bytes, and directories may hold `$ORIGIN`.
    """

    abi: tuple[int, str]
    program: bool
    interpreter: bytes = b""
    needed: tuple[bytes, ...] = ()
    soname: bytes = b""
    rpath: tuple[bytes, ...] = ()
    runpath: tuple[bytes, ...] = ()
    default_directories: bool = True
    dlopens: tuple[Dlopen, ...] = ()


def read_elf(file: IO[bytes]) -> Elf | None:
    """Read an open file; None for what no loader maps: relocatable objects, cores, damaged files."""
    try:
        elf = ELFFile(file)
        if elf["e_type"] not in _LOADED:
            return None
        return _facts(elf)
    # pyelftools lets some errors of its parts out where a file is cut off.
    except (ELFError, StopIteration, ValueError, KeyError, IndexError, AttributeError, AssertionError):
        return None


def _facts(elf: ELFFile) -> Elf:
    interpreter = b""
    tags: dict[str, list[Any]] = {}
    dlopens: list[Dlopen] = []
    for segment in elf.iter_segments():
        if isinstance(segment, InterpSegment):
            interpreter = segment.get_interp_name().encode()
        elif isinstance(segment, DynamicSegment):
            for name, value in _tags(elf, segment):
                tags.setdefault(name, []).append(value)
        elif isinstance(segment, NoteSegment):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a note is no promise
                dlopens.extend(_dlopens(segment))
    runpath = _directories(tags.get("DT_RUNPATH", ()))
    return Elf(
        abi=(elf.elfclass, str(elf["e_machine"])),
        program=elf["e_type"] == "ET_EXEC" or bool(interpreter),
        interpreter=interpreter,
        needed=tuple(tags.get("DT_NEEDED", ())),
        soname=next(iter(tags.get("DT_SONAME", ())), b""),
        rpath=() if "DT_RUNPATH" in tags else _directories(tags.get("DT_RPATH", ())),
        runpath=runpath,
        default_directories=not any(value & _NODEFLIB for value in tags.get("DT_FLAGS_1", ())),
        dlopens=tuple(dlopens),
    )


def _tags(elf: ELFFile, segment: DynamicSegment) -> Iterator[tuple[str, Any]]:
    """The tags that the loader searches by: names and directories as bytes, flags as a number."""
    entries = [tag.entry for tag in segment.iter_tags()]
    address = next(entry.d_val for entry in entries if entry.d_tag == "DT_STRTAB")
    # pyelftools' own strings lose what is not UTF-8.
    table = next(iter(elf.address_offsets(address)))
    for entry in entries:
        if entry.d_tag in _STRINGS:
            elf.stream.seek(table + entry.d_val)
            yield entry.d_tag, elf.stream.read(_LONGEST).partition(b"\0")[0]
        elif entry.d_tag == "DT_FLAGS_1":
            yield entry.d_tag, entry.d_val


def _directories(values: list[Any] | tuple[()]) -> tuple[bytes, ...]:
    return tuple(part for value in values for part in value.split(b":"))


def _dlopens(segment: NoteSegment) -> Iterator[Dlopen]:
    for note in segment.iter_notes():
        kind: Any = note["n_type"]  # a number where pyelftools has no name for it
        if note["n_name"] == "FDO" and kind == _DLOPEN_TYPE:
            for each in json.loads(bytes(note["n_descdata"]).rstrip(b"\0")):
                names = tuple(map(str, each["soname"]))
                yield Dlopen(names, str(each.get("feature", "")), str(each.get("priority", "recommended")))
