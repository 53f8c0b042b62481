"""What a jail and its source have at a path, by the kernel's own rules for links and `..`.

Looks are made when the paths are counted, not when they were asked for: what the manifest shows cannot
change in between, and what binds show is the user's own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.jail_names import KERNEL_DIRECTORIES, RUN, SCRATCH_DIRECTORIES
from pkgjail.core.paths import MAXSYMLINKS
from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.proc_links import interpreter_of_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pkgjail.audit.model import Area, Clue, Kind

_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "regular",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
}
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_SLASH = ord("/")
_MOST_REMEMBERED = 8 << 20  # bytes of the paths of directories
_MOST_LISTED = 100_000  # names of a directory


class Answer(NamedTuple):
    """What is at a path: the path with the links on the way resolved, and the fields of a `LookUp`.

    `then` is where a symbolic link leads to in the jail, which need not be there.
    """

    path: bytes
    inside: Kind
    area: Area
    source: Kind = "absent"
    clue: Clue = "asked"
    then: bytes = b""

    @property
    def directory(self) -> bytes:
        """Return the directory that the path is in."""
        return self.path.rpartition(b"/")[0] or b"/"

    @property
    def is_counted_by_directory(self) -> bool:
        """Return whether the path alone says nothing: it is nowhere, or in a directory of the jail's own."""
        return self.area == "jail" or self.inside == self.source == "absent"


def kind_of(path: bytes, directory: int | None = None) -> Kind:
    """Return what is at a path, without following a link at its end. `directory` is where it starts."""
    try:
        mode = os.lstat(path, dir_fd=directory).st_mode
    except OSError as error:
        return "absent" if error.errno in _NOT_THERE else "refused"
    return _KINDS.get(stat.S_IFMT(mode), "special")


def _without_trailing_dots(path: bytes) -> bytes:
    """Return an absolute path without a slash or `/.` at its end, which only say that it is a directory."""
    end = len(path)
    while end > 1 and (path[end - 1] == _SLASH or path[end - 2 : end] == b"/."):
        end -= 1 if path[end - 1] == _SLASH else 2
    return path[:end] or b"/"


class Tree:
    """One directory tree, in which paths are looked up as if `root`, a descriptor, were the root directory.

    `prefix` is its path, as the kernel tells the paths of open files, without a final slash.
    """

    def __init__(self, root: int, prefix: bytes = b"") -> None:
        self._root = root
        self._prefix = prefix
        self._directories: dict[bytes, bytes | None] = {}
        self._remembered = 0

    def find(self, path: bytes) -> tuple[bytes, Kind]:
        """Return the resolved path of a name and its kind; for what is absent, as far as links lead."""
        path = _without_trailing_dots(path)
        directory, _, name = path.rpartition(b"/")
        if name in {b"", b".."}:
            place = self.directory(path)
            return (self._beyond(directory, name), "absent") if place is None else (place, "directory")
        parent = self.directory(directory or b"/")
        if parent is None:
            return self._beyond(directory, name), "absent"
        place = parent.rstrip(b"/") + b"/" + name
        return place, kind_of(place[1:], self._root)

    def directory(self, path: bytes) -> bytes | None:
        """Return the resolved path of a directory, None if there is none."""
        known = self._directories.get(path, b"")
        if known != b"":
            return known
        self._remembered += len(path)
        if self._remembered > _MOST_REMEMBERED:
            self._directories.clear()
            self._remembered = len(path)
        place = self._directories[path] = self._resolve(path, os.O_DIRECTORY)
        return place

    def target(self, path: bytes) -> bytes:
        """Return where a link leads to, resolved: a file, or a name that is not there; b"" for a circle."""
        found = self._resolve(path, 0)
        for _ in range(MAXSYMLINKS if found is None else 0):
            try:
                text = os.readlink(path[1:], dir_fd=self._root)
            except OSError:
                return b""
            path, kind = self.find(posixpath.join(posixpath.dirname(path), text))
            if kind != "symlink":
                return path
        return found or b""

    def names(self, path: bytes) -> set[bytes]:
        """Return the names in a directory, as far as there are not too many; none if it cannot be read."""
        with contextlib.suppress(OSError):
            opened = sc.openat2(
                self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK, sc.RESOLVE_IN_ROOT
            )
            try:
                return set(map(os.fsencode, os.listdir(opened)[:_MOST_LISTED]))
            finally:
                os.close(opened)
        return set()

    def interpreter(self, path: bytes) -> bytes:
        """Return the interpreter or loader that an executable file names; b"" for none."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        with contextlib.suppress(OSError):
            opened = sc.openat2(self._root, path, flags, sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS)
            try:
                return interpreter_of_file(opened)
            finally:
                os.close(opened)
        return b""

    def _resolve(self, path: bytes, flags: int) -> bytes | None:
        try:
            opened = sc.openat2(
                self._root, path, os.O_PATH | flags, sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS
            )
        except OSError:
            return None
        try:
            place = os.readlink(b"/proc/self/fd/%d" % opened)
        except OSError:
            return None
        finally:
            os.close(opened)
        return place[len(self._prefix) :] or b"/"

    def _beyond(self, directory: bytes, name: bytes) -> bytes:
        """Return the path of a name whose directory does not exist, resolved as far as it does."""
        while (place := self.directory(directory or b"/")) is None:
            directory, _, last = directory.rpartition(b"/")
            name = last + b"/" + name
        return posixpath.normpath(place.rstrip(b"/") + b"/" + name)


class Answers:
    """What a jail has at a path, or else its source.

    Args:
        jail: a descriptor of the jail's root directory.
        source: a descriptor of the source's root directory, whose path is `root`.
        binds: the paths inside at which binds are shown.
        libraries: the libraries that the source's loader knows (`pkgjail.audit.libraries`).

    """

    def __init__(
        self, jail: int, source: int, root: bytes, binds: Iterable[bytes], libraries: Mapping[bytes, bytes]
    ) -> None:
        self._jail = Tree(jail)
        self._source = Tree(source, root.rstrip(b"/"))
        self._binds = tuple(path.rstrip(b"/") + b"/" for path in binds)
        own = (*KERNEL_DIRECTORIES, *SCRATCH_DIRECTORIES, RUN)
        self._own = tuple(path + b"/" for path in own)
        self._libraries = libraries

    def find(self, path: bytes) -> Answer:
        """Return what is at a path that a process of the jail asked for, which is absolute."""
        place, kind = self._jail.find(path)
        area = self._area(place)
        if kind != "absent":
            then = self._jail.target(place) if kind == "symlink" and area == "manifest" else b""
            return Answer(place, kind, area, then=then)
        return self._on_source(path, place) if area == "manifest" else Answer(place, kind, area)

    def interpreter(self, path: bytes) -> bytes:
        """Return the interpreter or loader that an executable file of the jail names; b"" for none."""
        return self._jail.interpreter(path)

    def hidden(self, directory: bytes) -> set[bytes]:
        """Return the names that the source has in a directory, and the jail does not."""
        return self._source.names(directory) - self._jail.names(directory)

    def _on_source(self, path: bytes, inside: bytes) -> Answer:
        place, kind = self._source.find(path)
        if kind != "absent":
            return Answer(place, "absent", "manifest", kind)
        library = self._libraries.get(inside.rpartition(b"/")[2])
        if library is not None and self._jail.find(library)[1] == "absent":
            there, kind = self._source.find(library)
            if kind != "absent":
                return Answer(there, "absent", "manifest", kind, "library")
        return Answer(inside, "absent", "manifest")

    def _area(self, path: bytes) -> Area:
        below = path + b"/"
        if below.startswith(self._binds):
            return "bind"
        return "jail" if below.startswith(self._own) else "manifest"
