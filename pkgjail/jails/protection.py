"""Protect paths that later runs outside depend on, where a writable bind would show them.

The jail shows such a path (`pkgjail.jails.protected_paths`) read-only, or the bind is refused. A mount point
cannot be renamed or deleted. So that the directories on the way to the path cannot be renamed either, each
of them becomes a mount point too. In a mount namespace of its own, a command could rename them all the same,
so the command may make no mount namespace in such a jail.

Paths and binds are compared by file system and path within it, and by inode, so another mount of the same
directory is recognized. The same files on another file system are not, such as the layers of an overlay
that is mounted elsewhere, or a network file system that is mounted twice.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import JailError
from pkgjail.core.jail_names import SHARED_MEMORY
from pkgjail.core.paths import follow, links_below
from pkgjail.core.text import text_path
from pkgjail.jails.protected_paths import cache_paths
from pkgjail.sandbox.steps import Bind, Hidden, KeptLink, OneMountNamespace, Plan
from pkgjail.storage.mounts import read_mounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pkgjail.core.options import UserBind
    from pkgjail.jails.protected_paths import ProtectedPath
    from pkgjail.sandbox.steps import Step


class _Location(NamedTuple):
    """A file's location, however it is mounted: the number of the file system, and the path within it."""

    device: bytes
    path: bytes

    def path_to(self, other: _Location) -> bytes | None:
        """Return the path from here to `other`, b"" for the same, or None if that is not below."""
        if self.device != other.device:
            return None
        prefix = self.path.rstrip(b"/") + b"/"
        if not (other.path.rstrip(b"/") + b"/").startswith(prefix):
            return None
        return other.path[len(prefix) :]


class _Mount(NamedTuple):
    """A mount point, and the location that is mounted there."""

    point: bytes
    location: _Location


class _BindSource(NamedTuple):
    """A directory or file of the host that a bind shows: its path, its location, and the bind."""

    outside: bytes
    location: _Location
    bind: Bind

    @property
    def inside(self) -> bytes:
        """The path in the jail."""
        return self.bind.path.rstrip(b"/") + self.outside[len(self.bind.source.rstrip(b"/")) :]


class _Exposure(NamedTuple):
    """A name that leads to a protected path, and that a bind shows: its paths in the jail and on the host.

    The name is the path itself or a symbolic link on the way. `refusal` is why it cannot be shown read-only,
    or "". `covered_by` is the path of another bind that covers the name or a directory on the way, or b"".
    With `hidden`, it is hidden and not shown read-only.
    """

    inside: bytes
    outside: bytes
    bind: Bind
    is_link: bool
    refusal: str
    covered_by: bytes = b""
    hidden: bool = False

    def step(self) -> Bind | KeptLink | Hidden:
        """Return the step that shows it read-only, or hides it."""
        if self.is_link:
            return KeptLink(self.inside, self.outside)
        if self.hidden:
            return Hidden(self.inside)
        return Bind(self.inside, self.outside, writable=False)


def protect(plan: Plan, paths: Iterable[ProtectedPath]) -> tuple[Plan, tuple[bytes, ...]]:
    """Add read-only binds to a plan, over the protected paths that its writable binds show.

    Caches that a read-only bind shows are hidden: a command that can open a file can lock it, and so make
    other runs wait.

    Returns:
        The new plan, and the host's paths that it shows read-only.

    Raises:
        JailError: a path that cannot be shown read-only is in a writable bind, or a bind is in it.

    """
    binds = [step for step in plan.steps if isinstance(step, Bind)]
    hidden = {path: Hidden(path) for path in _exposed_caches(binds)}
    exposures = _find_exposures(binds, paths)
    if not exposures:
        return plan._replace(steps=_insert_binds(plan.steps, hidden)), ()
    visible = [each for each in exposures if not each.covered_by]
    read_only = {each.inside: each for each in visible if not each.refusal}
    outermost = {path: each for path, each in read_only.items() if not _is_below_any(path, read_only)}
    remaining = [each for each in exposures if not _is_below_any(each.inside, outermost)]
    for each in remaining:
        if each.refusal and not each.covered_by and each.inside not in outermost:
            raise JailError(each.refusal)
    added: dict[bytes, Bind | KeptLink | Hidden] = {
        directory: Bind(directory, outside, writable=True)
        for each in remaining
        for directory, outside in _directories_between(each)
        if not each.covered_by or _is_below_any(each.covered_by, [directory])
    }
    added.update({path: each.step() for path, each in outermost.items()})
    steps = _insert_binds(plan.steps, {**added, **hidden})
    # In a mount namespace of its own, the command could undo these mounts.
    return plan._replace(steps=(*steps, OneMountNamespace())), tuple(
        sorted({each.outside for each in outermost.values() if not each.hidden})
    )


def refuse_writable_binds(binds: Iterable[UserBind], paths: Iterable[ProtectedPath]) -> None:
    """Refuse binds through which a command could write to one of `paths`; none of them is shown read-only.

    Raises:
        JailError: there is such a bind.

    """
    steps = [Bind(bind.destination, os.path.realpath(bind.source), bind.writable) for bind in binds]
    for exposure in _find_exposures(steps, (path._replace(read_only=False) for path in paths)):
        if exposure.refusal and not exposure.covered_by:
            raise JailError(exposure.refusal)


def refuse_unprotectable(bind: UserBind, paths: Iterable[ProtectedPath]) -> None:
    """Refuse a writable bind in which one of `paths` could not be protected, as `protect` would.

    Raises:
        JailError: that is so.

    """
    step = Bind(bind.destination, os.path.realpath(bind.source), bind.writable)
    protect(Plan(b"/", (step,), network=False, hostname=""), paths)


# --- which binds show protected paths -----------------------------------------------------------


def _exposed_caches(binds: Sequence[Bind]) -> Iterator[bytes]:
    """Yield the paths in the jail at which read-only binds would show a cache of the user's."""
    caches = (path._replace(read_only=True) for path in cache_paths())
    for exposure in _find_exposures(binds, caches, writable=False):
        if not (exposure.is_link or exposure.covered_by or exposure.refusal):
            yield exposure.inside


def _find_exposures(
    binds: Sequence[Bind], paths: Iterable[ProtectedPath], *, writable: bool = True
) -> list[_Exposure]:
    """Find each name of a protected path that a (writable) bind would show, or that a bind is in."""
    if all(bind.writable != writable for bind in binds):
        return []
    mounts = _Mounts()
    sources = [
        _BindSource(outside, location, bind)
        for bind in binds
        if bind.writable == writable
        for outside, location in ((bind.source, mounts.locate(bind.source)), *mounts.below(bind.source))
    ]
    destinations = {bind.path for bind in binds}
    exposures = []
    for protected in paths:
        if refusal := _hard_link_refusal(protected, binds):
            raise JailError(refusal)
        for name, is_link in _names_on_the_way(protected.path):
            location = mounts.locate(name)
            for source in sources:
                exposure = _compare(protected, name, location, source, is_link=is_link)
                if exposure is not None:
                    exposures.append(exposure._replace(covered_by=_covering_bind(exposure, destinations)))
    return exposures


def _compare(
    protected: ProtectedPath, name: bytes, location: _Location, source: _BindSource, *, is_link: bool
) -> _Exposure | None:
    """Return how `source` shows the name or is in it, or None if they have nothing in common."""
    inner = source.location.path_to(location)
    if inner is not None:
        outside = source.outside.rstrip(b"/") + b"/" + inner if inner else source.outside
        if not _is_same(outside, name):
            return None  # another file system is mounted over it there
        inside = source.bind.path.rstrip(b"/") + outside[len(source.bind.source.rstrip(b"/")) :]
        hidden = protected.cache and source.bind.path == SHARED_MEMORY and not is_link
        if (protected.made or hidden) and not is_link:
            with contextlib.suppress(OSError):  # then the bind is refused
                os.makedirs(name, mode=0o700, exist_ok=True)
        can_protect = (protected.read_only or hidden) and inside != source.bind.path and os.path.lexists(name)
        refusal = "" if is_link or can_protect else _refusal(protected, source.bind)
        return _Exposure(inside, outside, source.bind, is_link, refusal, hidden=hidden)
    if is_link or not location.path_to(source.location):
        return None
    if not protected.complete and not _is_in_package(protected, location.path_to(source.location) or b""):
        return None
    is_bind_itself = source.outside == source.bind.source
    refusal = _refusal_within(protected, source.bind) if is_bind_itself or not protected.read_only else ""
    return _Exposure(source.inside, source.outside, source.bind, is_link=False, refusal=refusal)


def _is_in_package(protected: ProtectedPath, inner: bytes) -> bool:
    """Check whether a path below a directory of modules is in a package."""
    return os.path.exists(os.path.join(protected.path, inner.split(b"/")[0], b"__init__.py"))


def _is_same(path: bytes, other: bytes) -> bool:
    """Check whether two paths lead to the same file, or are both missing."""
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except OSError:
        return os.path.lexists(path) == os.path.lexists(other)


def _covering_bind(exposure: _Exposure, destinations: set[bytes]) -> bytes:
    """Return the outermost bind that is mounted between the bind and the name, and hides it, or b"".

    A command could still rename the directories on the way, and make the name anew.
    """
    if exposure.inside == exposure.bind.path:
        return b""
    paths = [exposure.inside, *(path for path, _ in _directories_between(exposure))]
    return min(destinations.intersection(paths), key=len, default=b"")


def _directories_between(exposure: _Exposure) -> Iterator[tuple[bytes, bytes]]:
    """Yield the directories between the bind and the name: their paths in the jail and on the host."""
    inside, outside = os.path.dirname(exposure.inside), os.path.dirname(exposure.outside)
    while len(inside) > len(exposure.bind.path):
        yield inside, outside
        inside, outside = os.path.dirname(inside), os.path.dirname(outside)


def _is_below_any(path: bytes, others: Iterable[bytes]) -> bool:
    return any(path != other and path.startswith(other.rstrip(b"/") + b"/") for other in others)


def _hard_link_refusal(protected: ProtectedPath, binds: Sequence[Bind]) -> str:
    """Return why a file cannot be protected that has other names, one of which may be in a bind; or ""."""
    try:
        found = os.stat(protected.path)
    except OSError:
        return ""
    may_write = os.geteuid() in (0, found.st_uid)
    if protected.single_name and stat.S_ISREG(found.st_mode) and found.st_nlink > 1 and may_write:
        for bind in filter(lambda bind: bind.writable, binds):
            with contextlib.suppress(OSError):
                if os.stat(bind.source).st_dev == found.st_dev:
                    return (
                        f"cannot bind {text_path(bind.source)} writable: {protected.noun} "
                        f"{text_path(protected.path)} has other names (hard links), which may be there; "
                        "give it an inode of its own: copy it, and rename the copy to its name"
                    )
    return ""


def _names_on_the_way(path: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield the names that decide where `path` leads: each symbolic link on the way, then the final path.

    All but the last component of each is a real path. The second value tells whether the name is a link.
    """
    links: list[bytes] = []
    ends: list[bytes] = []
    with contextlib.suppress(OSError):  # too many links: the path leads nowhere
        ends.append(follow(path, links_below(b"/"), links=links))
    yield from ((link, True) for link in links)
    yield from ((end, False) for end in ends)


class _Mounts:
    """The mounts of this process; proc_pid_mountinfo(5)."""

    def __init__(self) -> None:
        self._by_id = {
            mount_id: _Mount(point, _Location(device, root))
            for mount_id, device, root, point in read_mounts()
        }

    def locate(self, path: bytes) -> _Location:
        """Return the location of a real path. A missing path is located where it would be."""
        existing = path
        while (mount := self._mount(existing)) is None and existing != b"/":
            existing = os.path.dirname(existing)
        if mount is None:
            return _Location(b"", path)
        inner = path[len(mount.point.rstrip(b"/")) :]
        return _Location(mount.location.device, mount.location.path.rstrip(b"/") + inner or b"/")

    def below(self, directory: bytes) -> list[tuple[bytes, _Location]]:
        """Return the mount points below a directory, with the locations that are mounted there."""
        mounts = self._by_id.values()
        return [(each.point, each.location) for each in mounts if _is_below_any(each.point, [directory])]

    def _mount(self, path: bytes) -> _Mount | None:
        """Return the mount that a path is on, by `mnt_id` of proc_pid_fdinfo(5), or None if it is missing."""
        try:
            descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return self._by_id.get(_mount_id(descriptor)) or self._longest_mount_point(path)
        finally:
            os.close(descriptor)

    def _longest_mount_point(self, path: bytes) -> _Mount | None:
        """Return the mount of the longest mount point above a path; of several, the last."""
        above = [one for one in self._by_id.values() if _is_below_any(path, [one.point]) or path == one.point]
        return max(reversed(above), key=lambda one: len(one.point), default=None)


def _mount_id(descriptor: int) -> bytes:
    """Return `mnt_id`, or b"" if this process may not read it, as after a change of its user."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as fields:
            return next(line.split()[1] for line in fields if line.startswith(b"mnt_id:"))
    except OSError:
        return b""


# --- the plan and messages ----------------------------------------------------------------------


def _insert_binds(steps: Sequence[Step], added: Mapping[bytes, Step]) -> tuple[Step, ...]:
    """Insert binds into steps, each before the first bind of a later path, so that parents come first."""
    waiting = sorted(added.items(), reverse=True)
    result: list[Step] = []
    for step in steps:
        if isinstance(step, Bind):
            while waiting and waiting[-1][0] < step.path:
                result.append(waiting.pop()[1])
        result.append(step)
    return (*result, *(bind for _, bind in reversed(waiting)))


def _refusal(protected: ProtectedPath, bind: Bind) -> str:
    return (
        f"cannot bind {text_path(bind.source)} writable: {protected.noun} {text_path(protected.path)} is in "
        f"it, and {protected.later} depend on it; {protected.advice}"
    )


def _refusal_within(protected: ProtectedPath, bind: Bind) -> str:
    return (
        f"cannot bind {text_path(bind.source)} writable: it is in {protected.noun} "
        f"{text_path(protected.path)}, and {protected.later} depend on it; bind another directory"
    )
