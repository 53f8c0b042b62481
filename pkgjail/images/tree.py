"""Unpack members into a directory, and refuse those that must not be in an image.

All names are made below a directory of our own by descriptor, in directories that were made in the same way:
no link is followed. A member is refused if its name or a link leads out of the image, if it is not below a
directory, if its name was there before, or if it is more than the limits allow. After a refusal nothing more
is written, and the rest of the members is only checked.

Files belong to whoever unpacks them; owners are recorded. Device nodes, FIFOs and sockets are left out.
"""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import Problem
from pkgjail.core.text import printable
from pkgjail.images.model import ImageEntry, LeftOut, disk_mode
from pkgjail.images.paths import RefusedError, check_target, looks_alike, normal_path, same_in_another_case
from pkgjail.storage.atomic import write_all
from pkgjail.storage.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pkgjail.core.reporter import Reporter
    from pkgjail.images.model import ImageLimits, Member

MOST_TIMES = 200
"""The most that an image may be larger than its archive, as a factor, beyond the first `ALWAYS` bytes."""
ALWAYS = 1 << 30

_PIECE = 1 << 20
_MOST_PROBLEMS = 200
_MOST_ID = (1 << 32) - 2
_MOST_SECONDS = 1 << 34
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = {"device": "device", "fifo": "FIFO", "socket": "socket"}
_SET_ID = 0o6000
_WHITEOUT, _OPAQUE = b".wh.", b".wh..wh..opq"  # OCI Image Layer Filesystem Changeset Specification
_PER_REPORT = 256


class ImageTree:
    """The names of an image while it is unpacked into the directory with the descriptor `directory`.

    `problems` has the members that were refused, `entries` the names by their paths. `consumed` returns how
    many bytes of the archive were read so far.
    """

    def __init__(
        self, directory: int, limits: ImageLimits, consumed: Callable[[], int], reporter: Reporter
    ) -> None:
        self.entries: dict[bytes, ImageEntry] = {b"": ImageEntry("directory", 0o755)}
        self.problems: list[Problem] = []
        self.consumed = consumed
        self._directory = directory
        self._limits = limits
        self._reporter = reporter
        self._inside: dict[bytes, set[bytes]] = {b"": set()}
        self._times: dict[bytes, int] = {}
        self._alike: dict[tuple[bytes, str], bytes] = {}
        # Of the members of this layer: the names that they made, and what they are if that is left out.
        self._fresh: dict[bytes, str] = {}
        self._implied: set[bytes] = set()
        self._special: set[bytes] = set()
        self._attributes: set[bytes] = set()
        self._bytes = self._holes = self._members = 0

    def add_layer(self, members: Iterable[Member], origin: str, *, whiteouts: bool = False) -> None:
        """Unpack the members of one layer over those before it. `origin` names the layer in messages."""
        self._fresh, self._implied = {}, set()
        for member in members:
            self._members += 1
            if self._members % _PER_REPORT == 0:
                self._reporter.progress("unpacking", self._bytes, self._bytes + 1)
            try:
                path = normal_path(member.path)
                if not (whiteouts and self._is_whiteout(path)):
                    self._add(path, member)
            except RefusedError as refused:
                self.problems.append(Problem(f"{origin}: {printable(member.path)}", str(refused)))
            except OSError as error:
                if error.errno not in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
                    raise
                why = f"this file system cannot have it ({error.strerror})"
                self.problems.append(Problem(f"{origin}: {printable(member.path)}", why))
            if len(self.problems) >= _MOST_PROBLEMS:
                break
            if self._members > 2 * self._limits.names:  # directories again and again
                self.problems.append(Problem(origin, f"it has more than {self._members - 1:,} members"))
                break

    def finish(self) -> LeftOut:
        """Give the directories their modes and times, innermost first; returns what was left out."""
        self._reporter.progress("unpacking", 1, 1)
        directories = [path for path, entry in self.entries.items() if entry.kind == "directory"]
        for path in sorted(directories, reverse=True):
            place = path or b"."
            os.utime(
                place, ns=_both_times(self._times.get(path, 0)), dir_fd=self._directory, follow_symlinks=False
            )
            os.chmod(place, disk_mode(self.entries[path]), dir_fd=self._directory)
        entries = self.entries.values()
        return LeftOut(
            special=len(self._special),
            set_id=sum(e.kind == "regular" and e.mode & _SET_ID != 0 for e in entries),
            attributes=len(self._attributes & self.entries.keys()),
            owned=sum((e.uid, e.gid) != (0, 0) for e in entries),
        )

    def _add(self, path: bytes, member: Member) -> None:
        self._refuse_wrong_numbers(member)
        parent, _, name = path.rpartition(b"/")
        if path:
            self._need_directory(parent)
        elif member.kind != "directory":
            raise RefusedError("it is the root, and not a directory")
        self._make_room(path, member)
        if member.kind in _SPECIAL:
            self._special.add(path)
        elif member.kind == "directory":
            self._make_directory(path, member)
        else:
            self._refuse_more_names()
            self._refuse_alike(parent, name)
            self._note(path, self._make_file(path, member))
        self._fresh[path] = member.kind
        if member.attributes:
            self._attributes.add(path)

    # --- what is refused --------------------------------------------------------------------------

    @staticmethod
    def _refuse_wrong_numbers(member: Member) -> None:
        if not (0 <= member.uid <= _MOST_ID and 0 <= member.gid <= _MOST_ID):
            raise RefusedError(f"its owner {member.uid}:{member.gid} is none that Linux can have")
        if member.size < 0 or member.mode < 0:
            raise RefusedError("its size or mode is negative")

    def _make_room(self, path: bytes, member: Member) -> None:
        """Refuse a name that this layer already has, and remove one of an earlier layer."""
        before = self._fresh.get(path)
        if before is not None and path not in self._implied:
            if not before == member.kind == "directory":
                raise RefusedError("its name is in the archive twice")
        elif path in self._implied:
            if member.kind != "directory":
                raise RefusedError("other members are below it, and it is not a directory")
        elif path in self.entries and not self.entries[path].kind == member.kind == "directory":
            self._remove(path)
        self._implied.discard(path)

    def _need_directory(self, path: bytes) -> None:
        """Refuse a name below something else than a directory, and make directories that are missing."""
        missing = []
        while path not in self.entries:
            if path in self._fresh:
                raise RefusedError(f"it is below the {_SPECIAL[self._fresh[path]]} {printable(path)}")
            missing.append(path)
            path = path.rpartition(b"/")[0]
        if (kind := self.entries[path].kind) != "directory":
            noun = "symbolic link" if kind == "symlink" else "regular file"
            raise RefusedError(f"it is below the {noun} {printable(path)}")
        self._keep(path)
        for each in reversed(missing):
            self._refuse_more_names()
            parent, _, name = each.rpartition(b"/")
            self._refuse_alike(parent, name)
            self._mkdir(each)
            self._note(each, ImageEntry("directory", 0o755))
            self._fresh[each] = "directory"
            self._implied.add(each)

    def _keep(self, path: bytes) -> None:
        """Note that a directory of an earlier layer has a member of this one: it is not hidden any more."""
        while path and path not in self._fresh:
            self._fresh[path] = "directory"
            self._implied.add(path)
            path = path.rpartition(b"/")[0]

    def _refuse_more_names(self) -> None:
        if len(self.entries) > self._limits.names:
            raise RefusedError(f"the image has more than {self._limits.names:,} names")

    def _refuse_more_bytes(self, member: Member) -> None:
        """Refuse content before it is read."""
        self._bytes += member.size
        if self._bytes > self._limits.bytes:
            raise RefusedError(f"the image has more than {self._limits.bytes:,} bytes")
        self._holes += member.hole
        if self._holes > max(ALWAYS, MOST_TIMES * self.consumed()):
            raise RefusedError(f"it is a sparse file of {member.size:,} bytes, far more than the archive has")

    def _refuse_alike(self, parent: bytes, name: bytes) -> None:
        if form := looks_alike(name):
            other = self._alike.setdefault((parent, form), name)
            if other != name and other in self._inside.get(parent, ()):
                raise RefusedError(f"its name is that of {printable(other)} in another form of Unicode")

    def _refuse_twin(self, path: bytes) -> RefusedError:
        """Return the refusal of a name that the file system takes for another one."""
        parent, _, name = path.rpartition(b"/")
        twin = same_in_another_case(name, self._inside[parent])
        which = "another name" if twin is None else printable(twin)
        return RefusedError(f"this file system takes its name for {which}")

    # --- what is made -----------------------------------------------------------------------------

    def _note(self, path: bytes, entry: ImageEntry) -> None:
        parent, _, name = path.rpartition(b"/")
        self.entries[path] = entry
        if path:
            self._inside[parent].add(name)
        if entry.kind == "directory":
            self._inside.setdefault(path, set())

    def _mkdir(self, path: bytes) -> None:
        if self.problems:
            return
        try:
            os.mkdir(path, 0o700, dir_fd=self._directory)
        except FileExistsError:
            raise self._refuse_twin(path) from None
        os.chmod(path, 0o700, dir_fd=self._directory)  # the umask may have taken the owner's own rights

    def _make_directory(self, path: bytes, member: Member) -> None:
        if path not in self.entries:
            self._refuse_more_names()
            parent, _, name = path.rpartition(b"/")
            self._refuse_alike(parent, name)
            self._mkdir(path)
        self._note(path, ImageEntry("directory", member.mode & 0o7777, member.uid, member.gid))
        self._times[path] = member.mtime_ns

    def _make_file(self, path: bytes, member: Member) -> ImageEntry:
        """Make anything but a directory; returns its entry."""
        if member.kind == "link":
            return self._link(path, member)
        if member.kind == "symlink":
            check_target(path, member.target)
            if not self.problems:
                self._symlink(path, member)
            return ImageEntry("symlink", 0o777, member.uid, member.gid, target=member.target)
        self._refuse_more_bytes(member)
        entry = ImageEntry("regular", member.mode & 0o7777, member.uid, member.gid, member.size)
        return entry if self.problems else self._write(path, entry, member)

    def _symlink(self, path: bytes, member: Member) -> None:
        try:
            os.symlink(member.target, path, dir_fd=self._directory)
        except FileExistsError:
            raise self._refuse_twin(path) from None
        os.utime(path, ns=_both_times(member.mtime_ns), dir_fd=self._directory, follow_symlinks=False)

    def _link(self, path: bytes, member: Member) -> ImageEntry:
        try:
            target = normal_path(member.target)
        except RefusedError:
            raise RefusedError("it is a hard link that leads out of the image") from None
        entry = self.entries.get(target)
        if entry is None or entry.kind == "directory":
            what = _SPECIAL.get(self._fresh.get(target, ""), "")
            why = f"the {what} " if what else "no file that is before it: "
            raise RefusedError(f"it is a hard link to {why}{printable(member.target)}")
        if not self.problems:
            try:
                directory = self._directory
                os.link(target, path, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
            except FileExistsError:
                raise self._refuse_twin(path) from None
        return entry

    def _write(self, path: bytes, entry: ImageEntry, member: Member) -> ImageEntry:
        """Write a regular file, and return its entry with the digest of its content."""
        try:
            descriptor = os.open(path, _NEW, 0o600, dir_fd=self._directory)
        except FileExistsError:
            raise self._refuse_twin(path) from None
        try:
            digest, left = hashlib.sha256(), member.size
            while left:
                piece = member.read(min(left, _PIECE)) if member.read else b""
                if not piece:
                    raise RefusedError("the archive ends within its content")
                digest.update(piece)
                write_all(descriptor, piece)
                left -= len(piece)
            os.fchmod(descriptor, disk_mode(entry))
            os.utime(descriptor, ns=_both_times(member.mtime_ns))
        finally:
            os.close(descriptor)
        return entry._replace(sha256=digest.hexdigest())

    # --- layers -----------------------------------------------------------------------------------

    def _is_whiteout(self, path: bytes) -> bool:
        """Return whether a member removes names of earlier layers, and remove them."""
        parent, _, name = path.rpartition(b"/")
        if not name.startswith(_WHITEOUT):
            return False
        if path in self._fresh:
            raise RefusedError("its name is in the archive twice")
        self._fresh[path] = "whiteout"
        hidden = name[len(_WHITEOUT) :]
        if name == _OPAQUE:
            self._remove_older([_join(parent, each) for each in self._inside.get(parent, ())])
        elif hidden in (b"", b".", b".."):
            raise RefusedError("it is a whiteout of no name")
        else:
            self._remove_older([_join(parent, hidden)])
        return True

    def _remove_older(self, paths: list[bytes]) -> None:
        """Remove names and all below them, except what this layer made."""
        while paths:
            path = paths.pop()
            if path not in self._fresh:
                if path in self.entries:
                    self._remove(path)
            else:
                paths += [path + b"/" + name for name in self._inside.get(path, ())]

    def _remove(self, path: bytes) -> None:
        """Remove a name and all below it."""
        for each in self._below(path):
            del self.entries[each]
            self._inside.pop(each, None)
            self._times.pop(each, None)
        parent, _, name = path.rpartition(b"/")
        self._inside[parent].discard(name)
        if self.problems:
            return
        if not parent:
            remove_tree(self._directory, os.fsdecode(name))
            return
        inner = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                        dir_fd=self._directory)  # fmt: skip
        try:
            remove_tree(inner, os.fsdecode(name))
        finally:
            os.close(inner)

    def _below(self, path: bytes) -> Iterator[bytes]:
        todo = [path]
        while todo:
            each = todo.pop()
            todo += [each + b"/" + name for name in self._inside.get(each, ())]
            yield each


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _both_times(nanoseconds: int) -> tuple[int, int]:
    """Return a time twice, as utime(2) takes it: not before 1970 and not after 2514, for any disk."""
    time = min(max(nanoseconds, 0), _MOST_SECONDS * 10**9)
    return time, time
