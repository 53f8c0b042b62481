"""What a command may not change though a writable bind shows it: what later runs, outside, are made from.

That is the manifest and the lists, pkgjail's own code and the Python that runs it, environments, and
the user's cache. Where such a place lies in a writable bind, the jail shows it read-only there, or the
bind is refused. A mount point cannot be renamed or deleted; so that no directory on the way to a place
can be put aside either, each of them becomes a mount point too. In a mount namespace of its own a
command could rename them all the same, so a jail with such places lets it make none.

Places and binds are compared by filesystem and path within it, and by inode: another mount of the same
directory is seen through. The same files on another filesystem, as the layers of an overlay that is
mounted elsewhere, or a network filesystem that is mounted twice, are not.
"""

from __future__ import annotations

import contextlib
import os
import site
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import JailError
from pkgjail.core.model import text_path
from pkgjail.core.paths import follow, links_below
from pkgjail.sandbox.steps import Bind, Hidden, KeptLink, OneMountNamespace, Plan
from pkgjail.storage.locations import cache_directory, runtime_directory, usual_directories
from pkgjail.storage.mounts import read_mounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pkgjail.core.model import JailOptions, UserBind
    from pkgjail.sandbox.steps import Step

_MOVE_IT = "move it to another directory, or bind one further down"
# Where others than a Python's own files lie too.
_SHARED_PREFIXES = ("/", "/opt", "/usr", "/usr/local")
# The programs that come with pkgjail.
_SCRIPTS = ("pkgjail", "pkgjail-spack-python")
# Everything below these belongs to one Python.
_MARKS_OF_A_PYTHON = ("pyvenv.cfg", "conda-meta")


class ProtectedPath(NamedTuple):
    """A file or directory that no command may change; an absolute path, which need not be there.

    `noun` ("the environment"), `later` ("later runs") and `advice` stand in messages. With `shown` it is
    shown read-only where it lies in a bind, else that is refused. With `whole` no directory further down
    may be bound writable. With `sole` a file may have no other names (hard links). With `made` a directory
    that is not there is made where a bind shows its place, for what is not there cannot be shown.
    """

    path: bytes
    noun: str
    later: str = "later runs"
    advice: str = "bind a directory further down"
    shown: bool = True
    whole: bool = True
    sole: bool = False
    made: bool = False


class _Spot(NamedTuple):
    """Where a name is, whatever it is mounted at: the filesystem's number, and the path within it."""

    device: bytes
    path: bytes

    def above(self, other: _Spot) -> bytes | None:
        """The path from here to `other`, b"" for the same; None where that is not below."""
        if self.device != other.device:
            return None
        mine = self.path.rstrip(b"/") + b"/"
        if not (other.path.rstrip(b"/") + b"/").startswith(mine):
            return None
        return other.path[len(mine) :]


class _Mount(NamedTuple):
    point: bytes
    spot: _Spot


class _Source(NamedTuple):
    """A directory or file of the host that a writable bind shows: where, by which bind, and at what path."""

    outside: bytes
    spot: _Spot
    bind: Bind

    @property
    def inside(self) -> bytes:
        """The path in the jail."""
        return self.bind.path.rstrip(b"/") + self.outside[len(self.bind.source.rstrip(b"/")) :]


class _Found(NamedTuple):
    """Where a jail would show a name of a protected place: the paths inside and outside.

    The name may be that of a link which leads there. `why` is why it cannot be shown read-only, "" where
    it can. `shadow` is the path of another bind that covers the name, or a directory on the way; else b"".
    """

    inside: bytes
    outside: bytes
    bind: Bind
    is_link: bool
    why: str
    shadow: bytes = b""

    def step(self) -> Bind | KeptLink:
        """What shows it read-only."""
        if self.is_link:
            return KeptLink(self.inside, self.outside)
        return Bind(self.inside, self.outside, writable=False)


def protected_paths(options: JailOptions) -> Iterator[ProtectedPath]:
    """What no jail of this process's may change: what `options` name, the user's cache, pkgjail, Python."""
    for path in options.inputs:
        yield ProtectedPath(os.path.abspath(path), "the input", advice=_MOVE_IT, sole=True)
    yield from _caches()
    yield from _code()


def protected_environment(directory: bytes) -> ProtectedPath:
    """An environment's directory, by its real path; no bind may show it writable."""
    return ProtectedPath(directory, "the environment", "later entries", shown=False)


def protect(plan: Plan, places: Iterable[ProtectedPath]) -> tuple[Plan, tuple[bytes, ...]]:
    """The plan with read-only binds over the protected places that its writable binds show.

    Caches that a read-only bind shows are hidden: whoever can open a file can lock it, and so have other
    runs wait. Returns also the places that are shown read-only, by their paths on the host.

    Raises:
        JailError: one that cannot be shown read-only lies in a writable bind, or a bind lies in it.

    """
    binds = [step for step in plan.steps if isinstance(step, Bind)]
    hidden = {path: Hidden(path) for path in _caches_seen(binds)}
    found = _look(binds, places)
    if not found:
        return plan._replace(steps=_with_binds(plan.steps, hidden)), ()
    seen = [each for each in found if not each.shadow]
    covers = {each.inside: each for each in seen if not each.why}
    outermost = {path: each for path, each in covers.items() if not _is_below_any(path, covers)}
    open_ones = [each for each in found if not _is_below_any(each.inside, outermost)]
    for each in open_ones:
        if each.why and not each.shadow and each.inside not in outermost:
            raise JailError(each.why)
    more: dict[bytes, Bind | KeptLink | Hidden] = {
        directory: Bind(directory, outside, writable=True)
        for each in open_ones
        for directory, outside in _between(each)
        if not each.shadow or _is_below_any(each.shadow, [directory])
    }
    more.update({path: each.step() for path, each in outermost.items()})
    steps = _with_binds(plan.steps, {**more, **hidden})
    # In a mount namespace of the command's own they would not hold.
    return plan._replace(steps=(*steps, OneMountNamespace())), tuple(
        sorted({each.outside for each in outermost.values()})
    )


def refuse_writable_binds(binds: Iterable[UserBind], places: Iterable[ProtectedPath]) -> None:
    """Refuse binds that let a command write to one of `places`, none of which is to be shown read-only.

    Raises:
        JailError: one does.

    """
    steps = [Bind(bind.destination, os.path.realpath(bind.source), bind.writable) for bind in binds]
    for found in _look(steps, (place._replace(shown=False) for place in places)):
        if found.why and not found.shadow:
            raise JailError(found.why)


# --- the places ---------------------------------------------------------------------------------


def _caches() -> Iterator[ProtectedPath]:
    advice = "bind a directory further down, or set XDG_CACHE_HOME or XDG_RUNTIME_DIR to a place of its own"
    for directory in (cache_directory(), runtime_directory()):
        path = os.path.abspath(os.fsencode(directory))
        yield ProtectedPath(path, "pkgjail's cache", "later jails", advice, shown=False)
    for place in usual_directories():
        yield ProtectedPath(os.fsencode(place), "pkgjail's cache", "later jails", made=True)


def _caches_seen(binds: Sequence[Bind]) -> Iterator[bytes]:
    """Where in the jail read-only binds would show a cache of the user's."""
    caches = (place._replace(shown=True) for place in _caches())
    for found in _look(binds, caches, writable=False):
        if not (found.is_link or found.shadow or found.why):
            yield found.inside


def _code() -> Iterator[ProtectedPath]:
    """The code of pkgjail, the Python that runs it, and whatever that imports from."""
    own = os.path.dirname(os.path.dirname(os.path.abspath(os.fsencode(__file__))))
    for path in (own, *(entry.path for entry in os.scandir(own) if entry.is_symlink())):
        yield ProtectedPath(path, "pkgjail's own code")
    for directory in _python_directories():
        yield ProtectedPath(os.fsencode(directory), "the Python that runs pkgjail,")
    for directory in _module_directories():
        packages = _is_of_packages(directory)
        noun = "what pkgjail's Python imports from,"
        yield ProtectedPath(os.fsencode(directory), noun, whole=packages, made=packages)


def _python_directories() -> Iterator[str]:
    for prefix in {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}:
        yield from directories_of_python(prefix)
    yield os.path.dirname(os.path.abspath(os.__file__))
    if sys.executable:
        yield sys.executable


def directories_of_python(prefix: str) -> tuple[str, ...]:
    """Where all of the Python that is installed in `prefix` lies; none for one of the system's."""
    if any(os.path.exists(os.path.join(prefix, mark)) for mark in _MARKS_OF_A_PYTHON):
        return (prefix,)
    if os.path.normpath(prefix) in _SHARED_PREFIXES:
        return ()
    return tuple(os.path.join(prefix, name) for name in ("bin", "lib"))


def _module_directories() -> Iterator[str]:
    """Where modules come from in every run, also the directories that are not there yet and would count then.

    Not what a program adds to `sys.path` as it runs, nor where `python -m` was started: docs/security.md.
    """
    found = _script_directories()
    found += [] if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sites = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    for directory in sites:
        found += [directory, *_named_by_path_files(directory)]
    for name, module in list(sys.modules.items()):
        if name.startswith("__editable__"):  # as setuptools has packages that are used where they are
            found += map(str, getattr(module, "MAPPING", {}).values())
    found.append(sys.pycache_prefix or "")
    yield from dict.fromkeys(map(os.path.abspath, filter(None, found)))


def _script_directories() -> list[str]:
    """Where the command's own script lies, as in ~/.local/bin: Python imports from there before all else."""
    script = os.path.basename(sys.argv[0])
    if script not in _SCRIPTS or getattr(sys.flags, "safe_path", False):
        return []
    return [os.path.dirname(os.path.realpath(sys.argv[0]))]


def _named_by_path_files(directory: str) -> Iterator[str]:
    """The directories that the `.pth` files of a site directory add; see `site` of the standard library."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(directory))
    for name in names:
        if name.endswith(".pth"):
            with contextlib.suppress(OSError), open(os.path.join(directory, name), errors="replace") as file:
                lines = [line.strip() for line in file]
                added = (line for line in lines if not line.startswith(("#", "import ", "import\t")))
                yield from (os.path.join(directory, line) for line in filter(None, added))


def _is_of_packages(directory: str) -> bool:
    """Whether nothing else lies in a directory: what is bound below it would be a package's."""
    return os.path.basename(directory) in ("site-packages", "dist-packages")


# --- comparing ----------------------------------------------------------------------------------


def _look(binds: Sequence[Bind], places: Iterable[ProtectedPath], *, writable: bool = True) -> list[_Found]:
    """Each name of a protected place that one of the (writable) binds would show, or that one lies in."""
    if all(bind.writable != writable for bind in binds):
        return []
    mounts = _Mounts()
    sources = [
        _Source(outside, spot, bind)
        for bind in binds
        if bind.writable == writable
        for outside, spot in ((bind.source, mounts.spot(bind.source)), *mounts.below(bind.source))
    ]
    destinations = {bind.path for bind in binds}
    found = []
    for place in places:
        if why := _hard_link(place, binds):
            raise JailError(why)
        for name, is_link in _names(place.path):
            spot = mounts.spot(name)
            for source in sources:
                one = _meet(place, name, spot, source, is_link=is_link)
                if one is not None:
                    found.append(one._replace(shadow=_shadow(one, destinations)))
    return found


def _meet(place: ProtectedPath, name: bytes, spot: _Spot, source: _Source, *, is_link: bool) -> _Found | None:
    """Where `source` shows the name at `spot`, or lies in it; None where they have nothing in common."""
    inner = source.spot.above(spot)
    if inner is not None:
        outside = source.outside.rstrip(b"/") + b"/" + inner if inner else source.outside
        if not _is_same(outside, name):
            return None  # another filesystem is mounted over it there
        inside = source.bind.path.rstrip(b"/") + outside[len(source.bind.source.rstrip(b"/")) :]
        if place.made and not is_link:
            with contextlib.suppress(OSError):  # then it is refused
                os.makedirs(name, mode=0o700, exist_ok=True)
        shown = place.shown and inside != source.bind.path and os.path.lexists(name)
        why = "" if is_link or shown else _refusal(place, source.bind)
        return _Found(inside, outside, source.bind, is_link, why)
    if is_link or not spot.above(source.spot):
        return None
    if not place.whole and not _is_package(place, spot.above(source.spot) or b""):
        return None
    own = source.outside == source.bind.source
    why = _refusal_within(place, source.bind) if own or not place.shown else ""
    return _Found(source.inside, source.outside, source.bind, is_link=False, why=why)


def _is_package(place: ProtectedPath, inner: bytes) -> bool:
    """Whether a path below a directory of modules lies in a package."""
    return os.path.exists(os.path.join(place.path, inner.split(b"/")[0], b"__init__.py"))


def _is_same(path: bytes, other: bytes) -> bool:
    """Whether two paths lead to one thing; or neither is there."""
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except OSError:
        return os.path.lexists(path) == os.path.lexists(other)


def _shadow(found: _Found, destinations: set[bytes]) -> bytes:
    """The outermost bind that is mounted between the bind and the name, which then shows something else.

    The directories on the way to it can still be put aside, and the name made anew.
    """
    if found.inside == found.bind.path:
        return b""
    paths = [found.inside, *(path for path, _ in _between(found))]
    return min(destinations.intersection(paths), key=len, default=b"")


def _between(found: _Found) -> Iterator[tuple[bytes, bytes]]:
    """The directories between a bind's own and what was found: their paths inside and outside."""
    inside, outside = os.path.dirname(found.inside), os.path.dirname(found.outside)
    while len(inside) > len(found.bind.path):
        yield inside, outside
        inside, outside = os.path.dirname(inside), os.path.dirname(outside)


def _is_below_any(path: bytes, others: Iterable[bytes]) -> bool:
    return any(path != other and path.startswith(other.rstrip(b"/") + b"/") for other in others)


def _hard_link(place: ProtectedPath, binds: Sequence[Bind]) -> str:
    """Why a file with other names cannot be protected where one of them may lie in a bind; else ""."""
    try:
        found = os.stat(place.path)
    except OSError:
        return ""
    may_write = os.geteuid() in (0, found.st_uid)
    if place.sole and stat.S_ISREG(found.st_mode) and found.st_nlink > 1 and may_write:
        for bind in filter(lambda bind: bind.writable, binds):
            with contextlib.suppress(OSError):
                if os.stat(bind.source).st_dev == found.st_dev:
                    return (
                        f"cannot bind {text_path(bind.source)} writable: {place.noun} "
                        f"{text_path(place.path)} has other names (hard links), which "
                        "may lie there; give it an inode of its own: copy it, and rename the copy to its name"
                    )
    return ""


def _names(path: bytes) -> Iterator[tuple[bytes, bool]]:
    """What could be made to lead `path` elsewhere: each symbolic link on the way, then its end.

    Paths are real but for the name itself; the second says whether it is a link.
    """
    links: list[bytes] = []
    ends: list[bytes] = []
    with contextlib.suppress(OSError):  # too many links: the path leads nowhere
        ends.append(follow(path, links_below(b"/"), links=links))
    yield from ((link, True) for link in links)
    yield from ((end, False) for end in ends)


class _Mounts:
    """The mounts of this process, by proc_pid_mountinfo(5)."""

    def __init__(self) -> None:
        self._by_number = {
            number: _Mount(point, _Spot(device, root)) for number, device, root, point in read_mounts()
        }

    def spot(self, path: bytes) -> _Spot:
        """Where a real path is; what is not there yet is where it would be."""
        there = path
        while (mount := self._mount(there)) is None and there != b"/":
            there = os.path.dirname(there)
        if mount is None:
            return _Spot(b"", path)
        inner = path[len(mount.point.rstrip(b"/")) :]
        return _Spot(mount.spot.device, mount.spot.path.rstrip(b"/") + inner or b"/")

    def below(self, directory: bytes) -> list[tuple[bytes, _Spot]]:
        """The mount points below a directory, and what is mounted there."""
        mounts = self._by_number.values()
        return [(each.point, each.spot) for each in mounts if _is_below_any(each.point, [directory])]

    def _mount(self, path: bytes) -> _Mount | None:
        """The mount that a name lies on, by `mnt_id` of proc_pid_fdinfo(5); None where there is no name."""
        try:
            descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return self._by_number.get(_mount_number(descriptor)) or self._nearest(path)
        finally:
            os.close(descriptor)

    def _nearest(self, path: bytes) -> _Mount | None:
        """The same by the longest mount point above it, the last that was mounted there."""
        above = [
            one for one in self._by_number.values() if _is_below_any(path, [one.point]) or path == one.point
        ]
        return max(reversed(above), key=lambda one: len(one.point), default=None)


def _mount_number(descriptor: int) -> bytes:
    """`mnt_id`; b"" where this process may not read that, as one that has changed its user."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as facts:
            return next(line.split()[1] for line in facts if line.startswith(b"mnt_id:"))
    except OSError:
        return b""


# --- the plan, and words ------------------------------------------------------------------------


def _with_binds(steps: Sequence[Step], more: Mapping[bytes, Step]) -> tuple[Step, ...]:
    """The steps with more binds, each before the first bind of a later path: what is above comes first."""
    waiting = sorted(more.items(), reverse=True)
    done: list[Step] = []
    for step in steps:
        if isinstance(step, Bind):
            while waiting and waiting[-1][0] < step.path:
                done.append(waiting.pop()[1])
        done.append(step)
    return (*done, *(bind for _, bind in reversed(waiting)))


def _refusal(place: ProtectedPath, bind: Bind) -> str:
    return (
        f"cannot bind {text_path(bind.source)} writable: {place.noun} {text_path(place.path)} lies there, "
        f"and {place.later} are made from it; {place.advice}"
    )


def _refusal_within(place: ProtectedPath, bind: Bind) -> str:
    return (
        f"cannot bind {text_path(bind.source)} writable: it lies in {place.noun} {text_path(place.path)}, "
        f"and {place.later} are made from it; bind another directory"
    )
