"""The fixed names of a supervised command: those of a mount plan, and where other file systems begin."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.jail_names import DEVICES
from pkgjail.sandbox import steps as plans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pkgjail.sandbox.steps import Plan

# What a place is: nothing; a name of the manifest; a file made at entry; what a bind shows; a file of
# proc(5); a device; a file that is open, which a link of proc(5) leads to and which has no path.
ABSENT, FILE, DIRECTORY, LINK, MADE, BIND, PROC, DEVICE, OPEN_FILE, TERMINALS = range(10)

_LINKS_OF_DEV = {
    b"/dev/fd": b"/proc/self/fd",
    b"/dev/stdin": b"/proc/self/fd/0",
    b"/dev/stdout": b"/proc/self/fd/1",
    b"/dev/stderr": b"/proc/self/fd/2",
}
NEW_TERMINAL = b"/dev/ptmx"
"""The device that makes a terminal."""
_TERMINALS = b"/dev/pts"


class Bind(NamedTuple):
    """A directory or file of the host that the command sees whole: its real path, and a descriptor of it.

    With `is_read_by_us`, the supervisor opens what is read there, and Landlock has no rule for it.
    """

    path: bytes
    opened: int
    writable: bool
    is_directory: bool = True
    is_read_by_us: bool = False


class Names:
    """The fixed names: the kind of each, and the text of each link.

    `differing` are the links that the host lacks, or has with another text: for each a link with the right
    text that stands elsewhere. `made` are the files that are made at entry, each with its mode and content.
    `binds` are all binds, and `outer` the paths of those with another one in them. `files` are the files of
    the host, each with its mode. `terminals` are the names in /dev/pts that the run has made; they grow.
    `given` are the descriptors 0 to 2 of the caller, as the command found them.
    """

    def __init__(self) -> None:
        self.kinds: dict[bytes, int] = {b"/": DIRECTORY}
        self.targets: dict[bytes, bytes] = {}
        self.differing: dict[bytes, bytes] = {}
        self.made: dict[bytes, tuple[int, bytes]] = {}
        self.files: dict[bytes, int] = {}
        self.binds: list[Bind] = []
        self.outer: frozenset[bytes] = frozenset()
        self.terminals: set[bytes] = set()
        self.given: dict[tuple[int, int], int] = {}
        self._children: dict[bytes, set[bytes]] | None = None

    def bind_at(self, path: bytes) -> Bind:
        """Return the bind at this very path."""
        return next(bind for bind in self.binds if bind.path == path)

    def children(self, path: bytes) -> set[bytes]:
        """Return the names in a fixed directory."""
        if self._children is None:
            self._children = {}
            for name in self.kinds:
                parent, _, last = name.rpartition(b"/")
                self._children.setdefault(parent or b"/", set()).add(last)
        return self._children.get(path, set())

    def is_given(self, link: bytes) -> bool:
        """Return whether a link of proc(5) leads to a file that the caller gave as descriptor 0, 1 or 2."""
        return self.given_descriptor(link) >= 0

    def given_descriptor(self, link: bytes) -> int:
        """Return which of the caller's descriptors 0 to 2 a link of proc(5) leads to, or -1."""
        try:
            found = os.stat(link)
        except OSError:
            return -1
        return self.given.get((found.st_dev, found.st_ino), -1)

    def add_directories(self, path: bytes) -> None:
        """Add the directories on the way to a path, unless they are there."""
        while (path := path.rpartition(b"/")[0]) and path not in self.kinds:
            self.kinds[path] = DIRECTORY

    def add_bind(self, bind: Bind) -> None:
        """Add a bind, and the directories on the way to it."""
        self.add_directories(bind.path)
        self.kinds[bind.path] = BIND
        self.made.pop(bind.path, None)
        self.binds.append(bind)
        paths = [each.path for each in self.binds]
        self.outer = frozenset(path for path in paths if any(_is_below(each, path) for each in paths))

    def note_given(self) -> None:
        """Note the files that this process has as descriptors 0 to 2."""
        for descriptor in (2, 1, 0):
            try:
                found = os.fstat(descriptor)
            except OSError:
                continue
            # The kernel opens pipes anew itself; for a named one, the supervisor would have to wait.
            if stat.S_ISREG(found.st_mode) or stat.S_ISCHR(found.st_mode):
                self.given[found.st_dev, found.st_ino] = descriptor


def names_of(plan: Plan) -> Names:
    """Return the fixed names of a plan, without its binds.

    The plan has a step for each file, as `pkgjail.jails.plan.plan_jail` writes it without strategies.
    """
    names = Names()
    kinds = names.kinds
    for step in plan.steps:
        if isinstance(step, plans.Directory):
            kinds[step.path] = DIRECTORY
        elif isinstance(step, plans.Symlink):
            kinds[step.path] = LINK
            names.targets[step.path] = step.target
        elif isinstance(step, plans.Content):
            kinds[step.path] = MADE
            names.made[step.path] = (step.mode, step.content)
        elif isinstance(step, plans.HostFile):
            kinds[step.path] = FILE
            names.files[step.path] = step.mode
        elif isinstance(step, plans.Proc):
            kinds[step.path] = PROC
        elif isinstance(step, plans.Devices):
            _add_devices(names, step)
    return names


def _add_devices(names: Names, step: plans.Devices) -> None:
    for name in DEVICES:
        names.kinds[step.path + b"/" + name] = DEVICE
    names.kinds[NEW_TERMINAL] = DEVICE
    names.kinds[_TERMINALS] = TERMINALS
    for path, target in _LINKS_OF_DEV.items():
        names.kinds[path] = LINK
        names.targets[path] = target
    for path, kind, _, target in step.shown:
        names.add_directories(path)
        names.kinds[path] = LINK if kind == "link" else DEVICE
        if kind == "link":
            names.targets[path] = target


def differing_links(names: Names) -> Iterator[bytes]:
    """Yield the fixed links that the host does not have, or has with another text."""
    for path, target in names.targets.items():
        if path not in _LINKS_OF_DEV and read_link(path) != target:
            yield path


def read_link(path: bytes) -> bytes:
    """Return the text of a link of the host, or b""."""
    try:
        return os.readlink(path)
    except OSError:
        return b""


def make_differing_links(names: Names, directory: bytes) -> None:
    """Make the links that differ in a directory of the supervisor's own, to look at."""
    for number, path in enumerate(differing_links(names)):
        copy = b"%s/%d" % (directory, number)
        os.symlink(names.targets[path], copy)
        names.differing[path] = copy


def binds_of(plan: Plan) -> Iterable[plans.Bind]:
    """Return the binds of a plan."""
    return [step for step in plan.steps if isinstance(step, plans.Bind)]


def _is_below(path: bytes, directory: bytes) -> bool:
    return path != directory and path.startswith(directory.rstrip(b"/") + b"/")
