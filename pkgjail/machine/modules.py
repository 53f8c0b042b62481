"""The modules of a kernel, in the order in which they must be loaded, decompressed here.

What a module needs stands in the module itself (its section .modinfo), so that no index of depmod(8) is
needed: an unpacked package has none. A machine has to load few of thousands; a file of modules may say
anything, and the kernel in the guest has the last word about it.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.text import printable
from pkgjail.core.unpacking import MissingProgramError, UnpackError, unpack
from pkgjail.core.untrusted import MIB, SETTINGS, read_below, shortened
from pkgjail.machine.model import MachineError, Module

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pkgjail.machine.model import Kernel

_FILE = re.compile(rb"(.+)\.ko(?:\.gz|\.xz|\.zst)?")
_MODULE = 64 * MIB
_MOST_FILES = 100_000
_MOST_MODULES = 256
_MOST_BYTES = 256 * MIB
_ALIASES = 16 * MIB
# Of a module that is there twice, depmod(8) takes that of `updates`, then that of `extra`.
_PREFERRED = (b"updates", b"extra")


def load_modules(kernel: Kernel, names: Iterable[str]) -> tuple[tuple[Module, ...], tuple[str, ...]]:
    """Return modules with what they need, in the order of loading, and the names that the kernel has not.

    Args:
        kernel: whose modules.
        names: the names, in which "-" and "_" are the same. What is part of the kernel itself is left out.

    Raises:
        MachineError: a module is damaged, needs one that is not there, or there are far too many.

    """
    place = ModuleFiles(kernel.modules)
    missing = tuple(name for name in names if not place.has(name))
    wanted = [plain for name in names if (plain := _plain(name)) in place.files]
    loading = _Loading(place)
    for name in wanted:
        loading.add(name)
    return tuple(loading.modules), missing


class ModuleFiles:
    """The names of a kernel's modules: `files` has the path of each, `built_in` is part of the kernel."""

    def __init__(self, directory: bytes) -> None:
        """List the directory of modules; b"" has none.

        Raises:
            MachineError: it cannot be read, or has far too many files.

        """
        self.directory = directory
        self.files: dict[str, bytes] = {}
        self.built_in: set[str] = set()
        if not directory:
            return
        try:
            for path in sorted(_files_below(directory), key=_rank):
                if (match := _FILE.fullmatch(os.path.basename(path))) is not None:
                    self.files.setdefault(_plain(os.fsdecode(match[1])), path)
            self.built_in = set(self._built_in())
        except OSError as error:
            raise MachineError(
                f"cannot read the kernel's modules in {printable(directory)}: {error.strerror}"
            ) from error

    def has(self, name: str) -> bool:
        """Check whether the kernel has a module, as a file or as a part of itself."""
        plain = _plain(name)
        return plain in self.files or plain in self.built_in

    def read(self, name: str) -> bytes:
        """Return the content of a module, decompressed.

        Raises:
            MachineError: it cannot be read, or is damaged.

        """
        path = os.path.join(self.directory, self.files[name])
        try:
            return unpack(read_below(self.directory, path, _MODULE), _MODULE)
        except MissingProgramError as error:
            why = f"the program {error} is not in PATH; install it"
        except OSError as error:
            why = error.strerror or str(error)
        except UnpackError as error:
            why = shortened(str(error))
        raise MachineError(f"cannot read the kernel's module {printable(path)}: {why}")

    def real_name(self, alias: str) -> str:
        """Return the module that has another name in depmod's index; "" if there is none, or no index."""
        line = re.compile(rb"^alias " + re.escape(os.fsencode(alias)) + rb" (\S+)$", re.MULTILINE)
        found = line.search(self._index("modules.alias", _ALIASES))
        name = _plain(os.fsdecode(found[1])) if found else f"{_plain(alias)}_generic"
        return name if name in self.files else ""

    def _built_in(self) -> Iterator[str]:
        for line in self._index("modules.builtin", SETTINGS).splitlines():
            if (match := _FILE.fullmatch(line.rpartition(b"/")[2])) is not None:
                yield _plain(os.fsdecode(match[1]))

    def _index(self, name: str, limit: int) -> bytes:
        try:
            return read_below(self.directory, os.path.join(self.directory, os.fsencode(name)), limit)
        except FileNotFoundError:
            return b""


class _Loading:
    """The modules that were read so far, in the order of loading."""

    def __init__(self, place: ModuleFiles) -> None:
        self.modules: list[Module] = []
        self._place = place
        self._seen: set[str] = set()
        self._bytes = 0

    def add(self, name: str) -> None:
        """Add a module after all that it needs, unless it is there. A circle of them begins anywhere."""
        waiting = list(self._begun(name))
        while waiting:
            module, needs = waiting[-1]
            needed = next(needs, None)
            if needed is None:
                self.modules.append(module)
                waiting.pop()
            else:
                waiting += self._begun(needed)

    def _begun(self, name: str) -> Iterator[tuple[Module, Iterator[str]]]:
        """Yield a module that was not seen before, and the names of those that must be loaded first."""
        if name in self._seen:
            return
        self._seen.add(name)
        content = self._place.read(name)
        self._bytes += len(content)
        if len(self._seen) > _MOST_MODULES or self._bytes > _MOST_BYTES:
            raise MachineError(
                f"cannot load the kernel's modules in {printable(self._place.directory)}: more than "
                f"{_MOST_MODULES} modules, or {_MOST_BYTES // MIB} MiB, are needed; reinstall the kernel"
            )
        yield Module(name, content), self._needs(name, content)

    def _needs(self, name: str, content: bytes) -> Iterator[str]:
        try:
            facts = list(module_facts(content))
        except ValueError as error:
            raise self._damaged(name, shortened(str(error))) from error
        for key, value in facts:
            if key == "softdep" and value.startswith("pre:"):
                # Without these the module is loaded all the same.
                for soft in value[len("pre:") :].partition("post:")[0].split():
                    real = _plain(soft) if _plain(soft) in self._place.files else self._place.real_name(soft)
                    yield from filter(None, [real])
            elif key == "depends":
                for needed in map(_plain, filter(None, value.split(","))):
                    if needed not in self._place.files:
                        raise self._damaged(
                            name, f"it needs {shortened(printable(needed))}, which is not there"
                        )
                    yield needed

    def _damaged(self, name: str, why: str) -> MachineError:
        path = os.path.join(self._place.directory, self._place.files[name])
        return MachineError(f"cannot load the kernel's module {printable(path)}: {why}; reinstall the kernel")


def module_facts(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield the fields of a module's section .modinfo, such as ("depends", "virtio,virtio_ring").

    Raises:
        ValueError: it is no ELF file with such a section, or truncated.

    """
    if content[:4] != b"\x7fELF" or content[4:5] not in _HEADERS or content[5:6] not in _ORDERS:
        raise ValueError("it is no ELF file")
    try:
        sections, of_names = _sections(content, _ORDERS[content[5:6]], _HEADERS[content[4:5]])
    except struct.error as error:
        raise ValueError("it is truncated") from error
    if of_names >= len(sections):
        raise ValueError("its sections have no names")
    _, names_start, names_size = sections[of_names]
    names = content[names_start : names_start + names_size]
    for name, offset, length in sections:
        if names.startswith(b".modinfo\0", name):
            for field in content[offset : offset + length].split(b"\0"):
                key, equals, value = os.fsdecode(field).partition("=")
                if equals:
                    yield key, value
            return
    raise ValueError("it has no section .modinfo")


class _Header(NamedTuple):
    """Where an ELF file's header has the place of its table of sections, and the forms of both.

    `counts` is where the size and the number of sections are, and the number of that with their names.
    A section has the place of its name, its own place, and its size.
    """

    table: int
    address: str
    counts: int
    section: str


def _sections(content: bytes, order: str, header: _Header) -> tuple[list[tuple[int, int, int]], int]:
    """Return the sections of an ELF file, and the number of that with their names. Raises `struct.error`."""
    (start,) = struct.unpack_from(order + header.address, content, header.table)
    size, count, of_names = struct.unpack_from(order + "3H", content, header.counts)
    form = struct.Struct(order + header.section)
    at = min(start, len(content))  # more than that is no number for unpack_from
    return [form.unpack_from(content, at + size * number) for number in range(count)], of_names


# By the bits of an ELF file, and by its byte order.
_HEADERS = {b"\x02": _Header(0x28, "Q", 0x3A, "I20xQQ"), b"\x01": _Header(0x20, "I", 0x2E, "I12xII")}
_ORDERS = {b"\x01": "<", b"\x02": ">"}


def _rank(path: bytes) -> int:
    top = path.partition(b"/")[0]
    return _PREFERRED.index(top) if top in _PREFERRED else len(_PREFERRED)


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _files_below(directory: bytes) -> Iterator[bytes]:
    """Yield the paths of regular files, relative to the directory. Links are not followed."""
    todo, count = [b""], 0
    while todo:
        below = todo.pop()
        with os.scandir(os.path.join(directory, below)) as found:
            for each in sorted(found, key=lambda entry: entry.name):
                count += 1
                path = os.path.join(below, each.name)
                if each.is_dir(follow_symlinks=False):
                    todo.append(path)
                elif each.is_file(follow_symlinks=False):
                    yield path
                if count > _MOST_FILES:
                    raise OSError(errno.EFBIG, f"there are more than {_MOST_FILES:,} names", directory)
