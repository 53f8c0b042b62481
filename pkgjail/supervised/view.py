"""The names that a supervised command sees, and where a path leads among them.

They are those of the mount plan (`pkgjail.jails.plan`), at the paths that the host has them at. `View.find`
walks a path component by component, as path_resolution(7) says: the manifest's names by its own record, what
is below binds by the host's file system, and proc(5) for the process that asks. The host has the same links
at these names, so that the kernel, which walks the same path again, comes to the same place.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.jail_names import PROC_HIDDEN
from pkgjail.core.paths import MAXSYMLINKS
from pkgjail.sandbox import syscalls as sc
from pkgjail.supervised.names import (
    ABSENT,
    BIND,
    DIRECTORY,
    LINK,
    OPEN_FILE,
    PROC,
    TERMINALS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.supervised.names import Bind, Names

_PROC = b"/proc"
_OWN = (b"self", b"thread-self")
_FOLLOWED_HERE = (b"cwd", b"root", b"exe")
_LINKS_OF_PROC = {b"mounts": b"self/mounts", b"net": b"self/net"}
_MOST_CACHED = 1 << 18
_DELETED = b" (deleted)"


def is_shown_in_proc(name: bytes) -> bool:
    """Return whether a global name of /proc is shown; for root, what others may not read is not."""
    if name in PROC_HIDDEN:
        return False
    if os.geteuid():
        return True
    try:
        return bool(os.lstat(_PROC + b"/" + name).st_mode & stat.S_IROTH)
    except OSError:
        return True  # the kernel says that there is none


class Place(NamedTuple):
    """What a path leads to.

    `path` is the real path. If there is nothing (`ABSENT`), `error` is the reason, and `is_new` tells that
    only the last name is missing, so that `path` is where it would be made. `bind` is the bind that shows
    it. `is_fixed`: the same for every process, and always. If the place `differs`, a link on the way to it,
    or the link itself, is another one on the host, so that the kernel would come to another place.
    """

    what: int
    path: bytes
    error: int = 0
    is_new: bool = False
    bind: Bind | None = None
    is_fixed: bool = True
    differs: bool = False


class View:
    """The names that the command sees.

    Args:
        names: the names that are fixed.
        is_ours: returns whether a process is one of this run's.
        thread_group: returns the process that a thread belongs to.

    """

    def __init__(
        self, names: Names, is_ours: Callable[[int], bool], thread_group: Callable[[int], int]
    ) -> None:
        self.names = names
        self._kinds = names.kinds
        self._targets = names.targets
        self._binds = {bind.path: bind for bind in names.binds}
        self._is_ours = is_ours
        self._thread_group = thread_group
        self._followed: dict[bytes, Place] = {}
        self._unfollowed: dict[bytes, Place] = {}

    def find(self, path: bytes, process: int, *, follow: bool) -> Place:
        """Return what an absolute path leads to, for a process (a thread's id).

        Without `follow`, a symbolic link at its end is the place itself.
        """
        cache = self._followed if follow else self._unfollowed
        place = cache.get(path)
        if place is None:
            place = _Walk(self, path, process, follow=follow).walk()
            if place.is_fixed:
                if len(cache) >= _MOST_CACHED:
                    cache.clear()
                cache[path] = place
        return place

    def bind_of(self, path: bytes) -> Bind | None:
        """Return the innermost bind that a real path is in."""
        binds = self._binds
        while path not in binds:
            if len(path) <= 1:
                return None
            path = path.rpartition(b"/")[0] or b"/"
        return binds[path]

    def kind(self, path: bytes) -> int | None:
        """Return what the fixed name at a real path is, or None."""
        return self._kinds.get(path)

    def target(self, path: bytes) -> bytes:
        """Return the text of a fixed link."""
        return self._targets[path]

    def is_ours(self, process: int) -> bool:
        """Return whether a process is one of this run's."""
        return self._is_ours(process)

    def thread_group(self, thread: int) -> int:
        """Return the process that a thread belongs to."""
        return self._thread_group(thread)


class _Walk:
    """One walk along a path."""

    def __init__(self, view: View, path: bytes, process: int, *, follow: bool) -> None:
        self._view = view
        self._process = process
        self._todo = path.split(b"/")[::-1]
        # A path that ends with a slash leads to a directory, through a link too.
        self._is_directory_wanted = self._todo[0] in (b"", b".", b"..") and len(self._todo) > 1
        self._follow = follow or self._is_directory_wanted
        self._done = b""
        self._links = 0
        self._is_fixed = True
        self._differs = False

    def walk(self) -> Place:
        """Return where it ends."""
        kinds = self._view.names.kinds
        while self._todo:
            name = self._todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                self._done = self._done.rpartition(b"/")[0]
                continue
            place = self._done + b"/" + name
            kind = kinds.get(place)
            if kind == DIRECTORY:
                self._done = place
            elif kind == LINK:
                self._differs = self._differs or place in self._view.names.differing
                if self._is_last() and not self._follow:
                    return self._place(LINK, place)
                if not self._go_on_at(self._view.target(place)):
                    return self._absent(place, errno.ELOOP)
            elif kind is None:
                return self._absent(place, errno.ENOENT)
            else:
                found = self._special(kind, place)
                if found is not None:
                    return found
        return self._place(DIRECTORY, self._done or b"/")

    def _special(self, kind: int, place: bytes) -> Place | None:
        """Return the end of a walk that comes to this place, or None if it goes on elsewhere."""
        if kind == BIND:
            return self._in_bind(place)
        if kind == PROC:
            return self._in_proc()
        if kind == TERMINALS:
            return self._in_terminals(place)
        if self._has_more():
            return self._absent(place, errno.ENOTDIR)
        return self._place(kind, place)

    def _place(self, what: int, path: bytes, bind: Bind | None = None) -> Place:
        return Place(what, path, bind=bind, is_fixed=self._is_fixed, differs=self._differs)

    def _absent(self, place: bytes, error: int) -> Place:
        is_new = error == errno.ENOENT and self._is_last()
        return Place(ABSENT, place, error, is_new, is_fixed=self._is_fixed)

    def _is_last(self) -> bool:
        return not any(name not in (b"", b".") for name in self._todo)

    def _has_more(self) -> bool:
        """Return whether the place must be a directory."""
        return self._is_directory_wanted or not self._is_last()

    def _go_on_at(self, target: bytes) -> bool:
        """Follow a link; return false if there were too many."""
        self._links += 1
        if target[:1] == b"/":
            self._done = b""
        self._todo.extend(reversed(target.split(b"/")))
        return self._links <= MAXSYMLINKS

    # --- binds ------------------------------------------------------------------------------------

    def _in_bind(self, top: bytes) -> Place | None:
        """Walk below a bind, by the host's file system."""
        bind = self._view.names.bind_at(top)
        self._is_fixed = False
        if not bind.is_directory:
            if self._has_more():
                return self._absent(top, errno.ENOTDIR)
            return self._place(BIND, top, bind)
        rest = b"/".join(reversed(self._todo))
        if bind.path not in self._view.names.outer and self._is_within(bind, rest):
            return self._place(BIND, top + b"/" + rest if rest else top, bind)
        self._done = top
        return self._step_in_bind(bind)

    def _is_within(self, bind: Bind, rest: bytes) -> bool:
        """Return whether the kernel's own walk stays below the bind, or finds nothing."""
        flags = os.O_PATH if self._follow else os.O_PATH | os.O_NOFOLLOW
        resolve = sc.RESOLVE_BENEATH | sc.RESOLVE_NO_MAGICLINKS
        try:
            os.close(sc.openat2(bind.opened, rest.lstrip(b"/") or b".", flags, resolve))
        except OSError as error:
            return error.errno not in (errno.EXDEV, errno.ELOOP, errno.EAGAIN)
        return True

    def _step_in_bind(self, bind: Bind) -> Place | None:  # noqa: PLR0911 - the ways it can end
        """Take the steps below a bind one by one, until they end or lead out of it."""
        names = self._view.names
        while self._todo:
            name = self._todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                is_out = self._done == bind.path
                self._done = self._done.rpartition(b"/")[0]
                if is_out:
                    return None
                continue
            place = self._done + b"/" + name
            if place in names.kinds and names.kinds[place] == BIND:  # one within
                return self._in_bind(place)
            try:
                target = os.readlink(place)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    # The kernel, which comes to the same place, says the same.
                    rest = b"/".join([place, *reversed(self._todo)])
                    return self._place(BIND, rest, bind)
                self._done = place
                continue
            if self._is_last() and not self._follow:
                return self._place(BIND, place, bind)
            if not self._go_on_at(target):
                return self._absent(place, errno.ELOOP)
            if target[:1] == b"/":
                return None
        return self._place(BIND, self._done, bind)

    # --- the kernel's file systems ----------------------------------------------------------------

    def _in_proc(self) -> Place | None:  # noqa: PLR0911 - the ways it can end
        """Walk below /proc, for the process that asks."""
        self._is_fixed = False
        words: list[bytes] = []
        while self._todo:
            name = self._todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                if not words:
                    self._done = b""
                    return None
                words.pop()
                continue
            target = self._link_of_proc(words, name)
            if target is None:
                words.append(name)
                if len(words) == 1 and not self._is_shown(name):
                    return self._absent(_PROC + b"/" + name, errno.ENOENT)
                continue
            if self._is_last() and not self._follow:
                return self._place(PROC, self._path(words, name))
            link = self._path(words, name)
            if words and (target[:1] != b"/" or target.endswith(_DELETED)):
                return self._open_file(link)
            if words and not self._has_more():
                return self._at_end(link, target)
            self._done = _PROC
            if not self._go_on_at(target):
                return self._absent(link, errno.ELOOP)
            if words:
                return None
        return self._place(PROC, b"/".join([_PROC, *words]))

    def _path(self, words: list[bytes], name: bytes) -> bytes:
        return b"/".join([_PROC, *words, name])

    def _is_shown(self, name: bytes) -> bool:
        if name.isdigit():
            return self._view.is_ours(int(name))
        return is_shown_in_proc(name)

    def _link_of_proc(self, words: list[bytes], name: bytes) -> bytes | None:
        """Return the text of the link `name` in a directory of /proc, or None if it is none."""
        if not words:
            group = self._view.thread_group(self._process) if name in _OWN else 0
            own = {_OWN[0]: b"%d" % group, _OWN[1]: b"%d/task/%d" % (group, self._process)}
            return own.get(name) or _LINKS_OF_PROC.get(name)
        is_magic = (name in _FOLLOWED_HERE and len(words) in (1, 3)) or words[-1] in (b"fd", b"map_files")
        if not (is_magic and words[0].isdigit()):
            return None
        try:
            return os.readlink(self._path(words, name))
        except OSError:
            return None

    def _at_end(self, link: bytes, target: bytes) -> Place:
        """Return what a link to an open file leads to: a name of the view, or a file that the caller gave."""
        place = self._view.find(target, self._process, follow=True)
        if place.what == ABSENT and self._view.names.is_given(link):
            return self._open_file(link)
        return place._replace(is_fixed=False)

    def _open_file(self, link: bytes) -> Place:
        if self._has_more():
            return self._absent(link, errno.ENOTDIR)
        return self._place(OPEN_FILE, link)

    def _in_terminals(self, top: bytes) -> Place | None:
        """Walk below /dev/pts, which shows the terminals that the run has made."""
        self._is_fixed = False
        rest = [name for name in reversed(self._todo) if name not in (b"", b".")]
        if b".." in rest:
            if rest[0] != b"..":
                return self._absent(top, errno.ENOENT)
            self._done, self._todo = top.rpartition(b"/")[0], rest[:0:-1]
            return None
        if not rest:
            return self._place(DIRECTORY, top)
        if len(rest) > 1:
            return self._absent(top, errno.ENOTDIR)
        if rest[0] not in self._view.names.terminals:
            return self._absent(top + b"/" + rest[0], errno.ENOENT)
        return self._place(TERMINALS, top + b"/" + rest[0])
