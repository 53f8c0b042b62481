"""Snapshots of what a build put out: the files below a directory, what they say, and what they link to.

A build can leave anything there. No link is followed, and nothing but a regular file is opened. Of a very
large file only the ends are read, and of very many names only the first. The build must have ended.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import field
from typing import IO, TYPE_CHECKING, Literal

from pkgjail.audit.facts import LARGEST, has_facts, read_facts
from pkgjail.core.model import record
from pkgjail.core.untrusted import MIB
from pkgjail.review.check.elf import DamagedError, read_elf
from pkgjail.storage.digests import FILE_FLAGS, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.audit.facts import FactKind, Facts

OutputKind = Literal["regular", "directory", "symlink", "special"]

_MOST_NAMES = 1_000_000
_WHOLE = 1024 * MIB  # a larger file is read at its ends alone
_MOST_READ = 64 * 1024 * MIB  # beyond it, every large file is
_MOST_FACTS = 1_000_000
_END = 16 * MIB
_MAGIC = b"\x7fELF"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@record
class OutputFile:
    """One name below the directory of outputs.

    `sha256` is a regular file's, in hex; with "ends:" before it, that of the ends of a very large one; or
    "unreadable" if this user may not read it. `target` is a link's text. `facts` are by kind and name.
    """

    kind: OutputKind
    mode: int = 0
    size: int = 0
    sha256: str = ""
    target: bytes = b""
    facts: Mapping[tuple[FactKind, str], str] = field(default_factory=dict)


@record
class Outputs:
    """What one build put out: its exit status, and its files by the path below the directory.

    `left_out` counts names that were not looked at: of too many, or with too long a path.
    """

    status: int
    files: Mapping[bytes, OutputFile]
    left_out: int = 0


def take_outputs(directory: bytes, status: int) -> Outputs:
    """Return what is below a directory now; nothing if there is no directory. `status` is the build's.

    Raises:
        OSError: the directory itself cannot be read.

    """
    try:
        top = os.open(directory, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return Outputs(status=status, files={})
    try:
        walk = _Walk(top)
        files = dict(walk.files())
        return Outputs(status=status, files=files, left_out=walk.left_out)
    finally:
        os.close(top)


class _Walk:
    """One walk over everything below a directory, by paths from there: the build has ended."""

    def __init__(self, top: int) -> None:
        self.left_out = 0
        self._top = top
        self._read = self._facts = 0

    def files(self) -> Iterator[tuple[bytes, OutputFile]]:
        """Yield each path and what is there, a directory before what is in it."""
        todo, count = self._names(b""), 0
        while todo:
            path = todo.pop()
            if count >= _MOST_NAMES:
                self.left_out += len(todo) + 1
                return
            count += 1
            try:
                found = os.stat(path, dir_fd=self._top, follow_symlinks=False)
            except OSError:  # its path is longer than the kernel takes
                self.left_out += 1
                continue
            yield path, self._look(path, found)
            if stat.S_ISDIR(found.st_mode):
                todo += self._names(path)

    def _names(self, path: bytes) -> list[bytes]:
        """Return the paths in a directory, the last first; none if this user may not read it."""
        try:
            descriptor = os.open(path or b".", _DIRECTORY, dir_fd=self._top)
        except OSError:
            self.left_out += 1
            return []
        try:
            names = sorted(map(os.fsencode, os.listdir(descriptor)), reverse=True)
        finally:
            os.close(descriptor)
        return [path + b"/" + name if path else name for name in names]

    def _look(self, path: bytes, found: os.stat_result) -> OutputFile:
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISREG(found.st_mode):
            return self._regular(path, mode, found.st_size)
        if stat.S_ISLNK(found.st_mode):
            return OutputFile(kind="symlink", target=os.readlink(path, dir_fd=self._top))
        return OutputFile(kind="directory" if stat.S_ISDIR(found.st_mode) else "special", mode=mode)

    def _regular(self, path: bytes, mode: int, size: int) -> OutputFile:
        try:
            descriptor = os.open(path, FILE_FLAGS, dir_fd=self._top)
        except OSError:
            return OutputFile(kind="regular", mode=mode, size=size, sha256="unreadable")
        with os.fdopen(descriptor, "rb") as file:
            is_whole = size <= _END or (size <= _WHOLE and self._read <= _MOST_READ)
            self._read += min(size, _WHOLE)
            digest = sha256_of(descriptor) if is_whole else _digest_of_ends(descriptor, size)
            facts = _facts(path, file, size) if self._facts < _MOST_FACTS else {}
            self._facts += len(facts)
        return OutputFile(kind="regular", mode=mode, size=size, sha256=digest, facts=facts)


def _digest_of_ends(descriptor: int, size: int) -> str:
    digest = hashlib.sha256(b"%d\n" % size)
    for offset in (0, size - _END):
        digest.update(os.pread(descriptor, _END, offset))
    return f"ends:{digest.hexdigest()}"


def _facts(path: bytes, file: IO[bytes], size: int) -> Facts:
    if file.read(len(_MAGIC)) == _MAGIC:
        return _elf_facts(file)
    if size > LARGEST or not has_facts(path):
        return {}
    file.seek(0)
    return read_facts(path, file.read(LARGEST))


def _elf_facts(file: IO[bytes]) -> Facts:
    """Return what ld.so reads in a program or library; nothing of a damaged file, whose bytes still count."""
    file.seek(0)
    try:
        elf = read_elf(file)
    except (DamagedError, OSError):
        return {}
    if elf is None:
        return {}
    facts: Facts = {("needed", _text(name)): "needed" for name in elf.needed}
    if elf.rpath or elf.runpath:
        facts["runpath", ""] = _text(b":".join(elf.rpath or elf.runpath))
    if elf.soname:
        facts["soname", ""] = _text(elf.soname)
    return facts


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
