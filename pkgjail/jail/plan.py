"""From a manifest to a mount plan: pure data that `pkgjail.sandbox` carries out.

Exactness is the property: outside /proc, /sys, /dev and /tmp the plan makes the manifest's names
and no others, but for what the user binds. `pkgjail.sandbox.steps` lists the instruction set.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from pkgjail.core.entries import NOUNS
from pkgjail.core.errors import JailError
from pkgjail.core.model import record, text_path
from pkgjail.core.paths import follow
from pkgjail.jail.detect import HOSTNAME
from pkgjail.sandbox.steps import (
    Bind,
    Content,
    Cover,
    Devices,
    Directory,
    HostFile,
    Plan,
    Proc,
    Seal,
    Step,
    Symlink,
    Sys,
    Tmpfs,
    WholeDirectory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.model import FileEntry, FileKind, JailOptions, Manifest, UserBind

# What the jail has of its own, whatever the manifest says.
_KERNEL = (b"/dev", b"/proc", b"/sys")
_TMP = b"/tmp"
_PRIVATE = (_TMP, b"/var/tmp")


@record
class Account:
    """The user in the jail: the ids are those outside too (an identity map)."""

    name: str
    uid: int
    gid: int
    group: str
    home: str


def plan_jail(
    manifest: Manifest,
    options: JailOptions,
    *,
    made_at_entry: Mapping[bytes, bytes],
    root: bytes = b"/",
    instead: Mapping[bytes, Step] | None = None,
) -> Plan:
    """Write the plan of a jail that shows exactly `manifest`.

    Each file is a bind mount of its own, but those below the directories in `instead`.

    Args:
        manifest: what the jail holds.
        options: the user's binds, network and environment.
        made_at_entry: the content of the files that the manifest holds by name alone; a file that
            is not there becomes empty.
        root: where the files of the manifest are: `/`, or the tree it was resolved from.
        instead: directories, and for each the one step that shows it and all that the manifest has
            below. It is read-only, so none of `new_mount_points` may be in it.

    Raises:
        JailError: a bind that would cover a name of the manifest, or that has no source.

    """
    layout = _Layout(manifest)
    steps = _image_steps(manifest, made_at_entry, instead or {})
    if not manifest.files or manifest.files[0].path != b"/":
        steps.insert(0, Directory(b"/", 0o755))
    for path in (*_KERNEL, _TMP):
        steps.extend(layout.make_directories(path))
    private = [path for path in _PRIVATE if layout.is_empty_directory(path)]
    before, after = _bind_steps(layout, options.binds, private)
    kernel: list[Step] = [Proc(b"/proc"), Sys(b"/sys"), Devices(b"/dev")]
    scratch: list[Step] = [Tmpfs(path, 0o1777) for path in private]
    return Plan(
        root=os.path.realpath(root),
        steps=(*steps, *before, Seal(), *kernel, *scratch, *after),
        network=options.network,
        hostname=HOSTNAME,
    )


def new_mount_points(manifest: Manifest, options: JailOptions) -> tuple[bytes, ...]:
    """Where the user's binds need a name that the manifest does not have."""
    if not options.binds:
        return ()
    layout = _Layout(manifest)
    places = (layout.resolve(bind.destination) for bind in options.binds)
    return tuple(place for place in places if layout.kind(place) is None)


def _image_steps(
    manifest: Manifest, made_at_entry: Mapping[bytes, bytes], instead: Mapping[bytes, Step]
) -> list[Step]:
    steps: list[Step] = []
    covered = set()
    for entry in manifest.files:  # by path: a directory comes before what is in it
        if entry.path.rpartition(b"/")[0] in covered:
            covered.add(entry.path)
            if entry.origin == "entry":
                steps.append(Cover(entry.path, entry.mode, made_at_entry.get(entry.path, b"")))
        elif (step := instead.get(entry.path)) is not None:
            covered.add(entry.path)
            steps += [step] if isinstance(step, WholeDirectory) else [_image_step(entry, made_at_entry), step]
        else:
            steps.append(_image_step(entry, made_at_entry))
    return steps


def _image_step(entry: FileEntry, made_at_entry: Mapping[bytes, bytes]) -> Step:
    if entry.kind == "directory":
        return Directory(entry.path, entry.mode)
    if entry.kind == "symlink":
        return Symlink(entry.path, entry.target or b"")
    if entry.origin == "entry":
        return Content(entry.path, entry.mode, made_at_entry.get(entry.path, b""))
    return HostFile(entry.path, entry.mode, entry.size)


class _Layout:
    """What stands where in the jail as planned so far."""

    def __init__(self, manifest: Manifest) -> None:
        self._kinds: dict[bytes, FileKind] = {entry.path: entry.kind for entry in manifest.files}
        self._targets = {e.path: e.target or b"" for e in manifest.files if e.kind == "symlink"}
        self._kinds.setdefault(b"/", "directory")
        self._parents = {path.rpartition(b"/")[0] or b"/" for path in self._kinds if path != b"/"}

    def kind(self, path: bytes) -> FileKind | None:
        return self._kinds.get(path)

    def is_empty_directory(self, path: bytes) -> bool:
        return self._kinds.get(path) == "directory" and path not in self._parents

    def entries_below(self, path: bytes) -> int:
        prefix = path.rstrip(b"/") + b"/"
        return sum(1 for other in self._kinds if other.startswith(prefix) and other != path)

    def make_directories(self, path: bytes) -> Iterator[Directory]:
        """Steps for `path` and its parents, so far as they are not there yet."""
        missing = []
        while path not in self._kinds:
            missing.append(path)
            path = path.rpartition(b"/")[0] or b"/"
        if self._kinds[path] != "directory":
            raise JailError(
                f"cannot make {text_path(missing[-1] if missing else path)} in the jail: "
                f"{text_path(path)} is a {NOUNS[self._kinds[path]]} there; choose another path"
            )
        for directory in reversed(missing):
            self.add(directory, "directory")
            yield Directory(directory, 0o755)

    def add(self, path: bytes, kind: FileKind) -> None:
        self._kinds[path] = kind
        self._parents.add(path.rpartition(b"/")[0] or b"/")

    def resolve(self, path: bytes) -> bytes:
        """The path in the jail that `path` means, through the manifest's own symbolic links."""
        try:
            return follow(path, self._targets)
        except OSError as error:
            raise JailError(
                f"cannot resolve {text_path(path)} in the jail: too many symbolic links"
            ) from error


def _bind_steps(
    layout: _Layout, binds: tuple[UserBind, ...], private: list[bytes]
) -> tuple[list[Step], list[Step]]:
    """The steps for the user's binds: those before the seal, and those after it.

    A directory comes before what is below it, in whatever order they were asked for; of two binds
    at one place the later counts.
    """
    before: list[Step] = []
    after: list[Step] = []
    places = {layout.resolve(bind.destination): bind for bind in binds}
    for destination, bind in sorted(places.items()):
        source = os.path.realpath(bind.source)
        _refuse_cover(layout, bind, destination)
        if not any(_is_below(destination, other) for other in places):
            scratch = any(_is_below(destination, place) for place in private)
            (after if scratch else before).extend(_mount_point(layout, bind, source, destination))
        after.append(Bind(destination, source, bind.writable))
    return before, after


def _mount_point(layout: _Layout, bind: UserBind, source: bytes, destination: bytes) -> Iterator[Step]:
    try:
        is_directory = stat.S_ISDIR(os.stat(source).st_mode)
    except OSError as error:
        raise JailError(
            f"cannot bind {text_path(bind.source)}: {error.strerror}; make it or name another"
        ) from error
    if is_directory:
        yield from layout.make_directories(destination)
    elif layout.kind(destination) is None:
        yield from layout.make_directories(destination.rpartition(b"/")[0] or b"/")
        layout.add(destination, "regular")
        yield Content(destination, 0o644, b"")
    else:
        raise _refusal(bind, destination, "that is a directory in the jail, and the source is not")


def _refuse_cover(layout: _Layout, bind: UserBind, destination: bytes) -> None:
    """Refuse a bind that would hide what the manifest promises, or what keeps the jail closed."""
    if any(destination == place or _is_below(destination, place) for place in _KERNEL):
        raise _refusal(bind, destination, "the jail has a filesystem of its own there")
    if (kind := layout.kind(destination)) not in (None, "directory"):
        raise _refusal(bind, destination, f"the manifest has a {NOUNS[kind]} there")
    if covered := layout.entries_below(destination):
        raise _refusal(bind, destination, f"it would cover {covered} of the jail's own names")


def _refusal(bind: UserBind, destination: bytes, why: str) -> JailError:
    return JailError(
        f"cannot bind {text_path(bind.source)} at {text_path(destination)}: {why}; "
        "bind it at a path of its own (SOURCE:DESTINATION)"
    )


def _is_below(path: bytes, directory: bytes) -> bool:
    return path.startswith(directory.rstrip(b"/") + b"/") and path != directory


def entry_files(account: Account, *, host_resolver: bytes, network: bool) -> dict[bytes, bytes]:
    """The content of the files that are made when a jail is entered; passwd(5), group(5), hosts(5).

    Args:
        account: the user who enters.
        host_resolver: the content of the host's resolv.conf(5), used where the network is on.
        network: whether the jail shares the host's network.

    """
    name, group, home = map(_field, (account.name, account.group, account.home))
    users = {0: "root:x:0:0:root:/root:/bin/sh", 65534: "nobody:x:65534:65534:nobody:/nonexistent:/bin/sh"}
    users[account.uid] = f"{name}:x:{account.uid}:{account.gid}:{name}:{home}:/bin/sh"
    groups = {0: "root:x:0:", 65534: "nogroup:x:65534:"}
    groups[account.gid] = f"{group}:x:{account.gid}:"
    hosts = f"127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    services = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"
    return {
        b"/etc/passwd": _lines(users),
        b"/etc/group": _lines(groups),
        b"/etc/hosts": hosts.encode(),
        b"/etc/nsswitch.conf": services.encode(),
        b"/etc/resolv.conf": host_resolver if network else b"",
    }


def _field(text: str) -> str:
    """What may stand in a field of passwd(5): no colon, and no end of the line."""
    return text.replace(":", "_").replace("\n", "_")


def _lines(table: Mapping[int, str]) -> bytes:
    return "".join(table[number] + "\n" for number in sorted(table)).encode("utf-8", "surrogateescape")
