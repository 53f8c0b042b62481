"""Read from ELF files what ld.so needs, with pyelftools; elf(5), ld.so(8).

A file may be damaged, or made to harm its reader: each table is read at once, up to a size that no sound file
exceeds, and nothing is read beyond its end.
"""

from __future__ import annotations

import json
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from elftools.elf.elffile import ELFFile

from pkgjail.core.untrusted import parsing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# DF_1_NODEFLIB of DT_FLAGS_1: search neither ld.so.cache nor the default directories.
_NODEFLIB = 0x800
# The note of https://systemd.io/ELF_DLOPEN_METADATA: its owner is FDO, its content JSON.
_DLOPEN_OWNER = b"FDO\0"
_DLOPEN_TYPE = 0x407C0C0A
_LOADED = ("ET_EXEC", "ET_DYN")
# glibc's ld.so loads no other, such as FreeBSD's programs or code for graphics processors.
_SYSTEMS = ("ELFOSABI_SYSV", "ELFOSABI_LINUX")
_STRINGS = ("DT_NEEDED", "DT_SONAME", "DT_RPATH", "DT_RUNPATH")
# The kernel accepts at most 64 KiB of program headers, and an interpreter up to PATH_MAX.
_MOST_HEADERS = 1 << 16
_LONGEST_PATH = 1 << 12
# The largest of 3,000 files of Debian 12, Chromium, has 1,168 bytes of tags and 47 libraries.
_MOST_TAGS = 1 << 18
_MOST_STRINGS = 1 << 10
_LONGEST_STRING = 1 << 14
_MOST_SEARCHED = 1 << 16  # libraries times directories
_MOST_NOTES = 16  # segments of notes
_LONGEST_NOTES = 1 << 16
_MOST_SECTIONS = 1 << 18


class DamagedError(ValueError):
    """An ELF file is damaged, so what it needs is not known."""


class Dlopen(NamedTuple):
    """A note by which a program says that it loads any of `sonames` by dlopen(3), for `feature`."""

    sonames: tuple[bytes, ...]
    feature: str
    priority: str


class Elf(NamedTuple):
    """One object. It can be loaded together with others of the same `abi` (class, machine).

    `rpath` is empty if there is a `runpath`, because ld.so then ignores it. `program` is true if the kernel
    can execute the object, and false if it can only be loaded. Directories may contain `$ORIGIN`.
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
    """Read an open file; return None for one that ld.so never loads.

    These are relocatable objects, cores, separate debug files, and files for another system.

    Raises:
        DamagedError: a part that ld.so reads is not there, or makes no sense.
        OSError: the file cannot be read.

    """
    # pyelftools promises an ELFError, but also raises others: StopIteration, struct.error, and more.
    with parsing(DamagedError):
        elf = ELFFile(file)
        loaded = elf["e_type"] in _LOADED and elf["e_ident"]["EI_OSABI"] in _SYSTEMS
        return _read_object(elf) if loaded else None


def _read_object(elf: ELFFile) -> Elf | None:
    segments = _segments(elf)
    if _is_debug_file(elf, segments):
        return None
    kinds: dict[str, list[Any]] = {}
    for segment in segments:
        kinds.setdefault(segment.p_type, []).append(segment)
    # If there are several, the kernel uses the first interpreter, and ld.so the last dynamic section.
    interpreter = b"".join(_interpreter(elf, one) for one in kinds.get("PT_INTERP", ())[:1])
    dynamic = kinds.get("PT_DYNAMIC", ())[-1:]
    tags = _tags(elf, dynamic[0], kinds.get("PT_LOAD", ())) if dynamic else {}
    notes = kinds.get("PT_NOTE", ())[:_MOST_NOTES]
    dlopens = [dlopen for segment in notes for dlopen in _dlopens(elf, segment)]
    needed = tuple(dict.fromkeys(tags.get("DT_NEEDED", ())))
    rpath, runpath = (_directories(tags.get(name, ())) for name in ("DT_RPATH", "DT_RUNPATH"))
    names = len(needed) + sum(len(dlopen.sonames) for dlopen in dlopens)
    if names * (1 + len(rpath) + len(runpath)) > _MOST_SEARCHED:
        raise DamagedError(
            f"it names {names} libraries, and {len(rpath) + len(runpath)} directories to search"
        )
    return Elf(
        abi=(elf.elfclass, str(elf["e_machine"])),
        program=elf["e_type"] == "ET_EXEC" or bool(interpreter),
        interpreter=interpreter,
        needed=needed,
        soname=next(iter(tags.get("DT_SONAME", ())), b""),
        rpath=() if "DT_RUNPATH" in tags else rpath,
        runpath=runpath,
        default_directories=not any(value & _NODEFLIB for value in tags.get("DT_FLAGS_1", ())),
        dlopens=tuple(dlopens),
    )


def _segments(elf: ELFFile) -> list[Any]:
    """Return the program headers, if they are complete and of the size that the kernel and ld.so require."""
    header = elf.structs.Elf_Phdr
    size = header.sizeof()
    count = elf["e_phnum"]
    if not count:
        return []
    if elf["e_phentsize"] != size or count * size > _MOST_HEADERS:
        raise DamagedError(f"it has {count} program headers of {elf['e_phentsize']} bytes")
    return _records(header, _read(elf, elf["e_phoff"], count * size, "program headers"))


def _is_debug_file(elf: ELFFile, segments: Iterable[Any]) -> bool:
    """Return whether it is a separate debug file, whose dynamic tags are in another file.

    objcopy --only-keep-debug leaves an empty segment, and eu-strip leaves the segment's header over other
    bytes; both turn the section into one without bytes.
    """
    dynamic = [segment.p_vaddr for segment in segments if segment.p_type == "PT_DYNAMIC"]
    header = elf.structs.Elf_Shdr
    size = elf["e_shnum"] * header.sizeof()
    if not dynamic or elf["e_shentsize"] != header.sizeof() or size > _MOST_SECTIONS:
        return False
    table = _bytes_at(elf, elf["e_shoff"], size)
    # ld.so needs no sections, so a table that was cut off, as by sstrip, is no damage.
    complete = table[: len(table) - len(table) % header.sizeof()]
    return any(
        section.sh_type == "SHT_NOBITS" and section.sh_addr == dynamic[0]
        for section in _records(header, complete)
    )


def _interpreter(elf: ELFFile, segment: Any) -> bytes:
    if segment.p_filesz > _LONGEST_PATH:
        raise DamagedError("its interpreter's name is too long")
    return _read(elf, segment.p_offset, segment.p_filesz, "interpreter's name").partition(b"\0")[0]


def _tags(elf: ELFFile, segment: Any, loaded: Iterable[Any]) -> dict[str, list[Any]]:
    """Return the tags that the ld.so search uses: names and directories as bytes, flags as numbers."""
    if segment.p_filesz > _MOST_TAGS:
        raise DamagedError(f"its dynamic section has {segment.p_filesz} bytes")
    tags: dict[str, list[Any]] = {}
    strings: list[tuple[str, int]] = []
    address = None
    header = elf.structs.Elf_Dyn
    data = _read(elf, segment.p_offset, segment.p_filesz, "dynamic section")
    for tag in _records(header, data[: len(data) - len(data) % header.sizeof()]):
        if tag.d_tag == "DT_NULL":
            break
        if tag.d_tag == "DT_STRTAB":
            address = tag.d_val
        elif tag.d_tag == "DT_FLAGS_1":
            tags.setdefault(tag.d_tag, []).append(tag.d_val)
        elif tag.d_tag in _STRINGS:
            strings.append((tag.d_tag, tag.d_val))
    if len(strings) > _MOST_STRINGS:
        raise DamagedError(f"it names {len(strings)} libraries and directories")
    if strings:
        table = _offset(loaded, address)
        for name, offset in dict.fromkeys(strings):
            tags.setdefault(name, []).append(_string(elf, table + offset))
    return tags


def _offset(loaded: Iterable[Any], address: int | None) -> int:
    """Return the offset in the file of the byte that is mapped at `address`."""
    for segment in loaded:
        if address is not None and segment.p_vaddr <= address < segment.p_vaddr + segment.p_filesz:
            return int(address - segment.p_vaddr + segment.p_offset)
    raise DamagedError("its table of names is not in the file")


def _string(elf: ELFFile, offset: int) -> bytes:
    """Return a name of the table; pyelftools' own strings lose bytes that are not UTF-8."""
    text, end, _ = _bytes_at(elf, offset, _LONGEST_STRING).partition(b"\0")
    if not end:
        raise DamagedError("the name of a library or directory in it has no end")
    return text


def _directories(values: Sequence[bytes]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(part for value in values for part in value.split(b":")))


def _dlopens(elf: ELFFile, segment: Any) -> Iterator[Dlopen]:
    """Yield the notes of dlopen(3) in a segment; one that makes no sense is ignored."""
    for owner, kind, content in _notes(elf, segment):
        if owner == _DLOPEN_OWNER and kind == _DLOPEN_TYPE:
            try:
                yield from map(_dlopen, json.loads(content.rstrip(b"\0")))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                continue


def _dlopen(note: Mapping[str, Any]) -> Dlopen:
    names = tuple(str(name).encode("utf-8", "surrogateescape") for name in note["soname"])
    if any(b"\0" in name for name in names):
        raise ValueError(names)
    return Dlopen(names, str(note.get("feature", "")), str(note.get("priority", "recommended")))


def _notes(elf: ELFFile, segment: Any) -> Iterator[tuple[bytes, Any, bytes]]:
    """Yield owner, type and content of each note of a segment; elf(5)."""
    stream = BytesIO(_bytes_at(elf, segment.p_offset, min(segment.p_filesz, _LONGEST_NOTES)))
    header = elf.structs.Elf_Nhdr
    while len(start := stream.read(header.sizeof())) == header.sizeof():
        note = header.parse(start)
        # Each part is padded to a multiple of four bytes.
        owner, content = (stream.read(size + -size % 4)[:size] for size in (note.n_namesz, note.n_descsz))
        if len(content) < note.n_descsz:
            return
        yield owner, note.n_type, content


def _records(record: Any, data: bytes) -> list[Any]:
    size = record.sizeof()
    return [record.parse(data[start : start + size]) for start in range(0, len(data), size)]


def _read(elf: ELFFile, offset: int, size: int, what: str) -> bytes:
    """Return exactly those bytes."""
    data = _bytes_at(elf, offset, size)
    if len(data) < size:
        raise DamagedError(f"the file ends within its {what}")
    return data


def _bytes_at(elf: ELFFile, offset: int, size: int) -> bytes:
    """Return as many of those bytes as the file has."""
    if offset >= elf.stream_len:
        return b""
    elf.stream.seek(offset)
    return elf.stream.read(size)
