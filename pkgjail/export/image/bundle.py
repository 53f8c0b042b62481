"""Export a bundle for runc(8), crun(1) and what starts them: a tree of the files, and config.json.

The OCI runtime specification describes it. The jail is as `pkgjail run` makes it, as far as a runtime can: a
read-only root, no capabilities, no new privileges, private /tmp, /dev and /proc, the host's network.

If root exports it, its files belong to root, and the command is root without capabilities. Otherwise they
belong to the user, whom config.json maps to root: such a bundle is for this user alone.
"""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.entries import COPIED_BITS
from pkgjail.core.errors import ExportDriftError
from pkgjail.core.jail_names import HOSTNAME, RESOLV_CONF, SEARCH_PATH, TMP
from pkgjail.core.model import text_path
from pkgjail.core.parallel import in_processes
from pkgjail.export.common import missing_directories, scratch_directories, warn_of_dropped_bits
from pkgjail.export.image.content import Buffer, copy_file, cost, processes_for, shares_of
from pkgjail.export.image.tar import TIME
from pkgjail.storage.atomic import write_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.core.errors import Change
    from pkgjail.core.model import FileEntry, Manifest
    from pkgjail.core.reporter import Reporter

_ROOT = "rootfs"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TIMES = (TIME, TIME)
_TERMINALS = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")
_PRIVATE = ("nosuid", "nodev")


def write(
    manifest: Manifest, content: Mapping[bytes, bytes], root: bytes, directory: str, reporter: Reporter
) -> None:
    """Write the bundle into an empty directory.

    Args:
        manifest: what the tree has. Set-user-ID and set-group-ID bits are left out, with a warning: they
            would apply to the user who exports.
        content: the content of the files made at entry, by path.
        root: the real path of the directory of the others.
        directory: where to write.
        reporter: receives the progress.

    Raises:
        ExportDriftError: files are not as the manifest says.
        OSError: something cannot be read or written.

    """
    tree = os.path.join(os.fsencode(directory), _ROOT.encode())
    modes = {entry.path: entry.mode & COPIED_BITS for entry in manifest.files if entry.kind == "directory"}
    modes.update(dict.fromkeys([b"/", *missing_directories(manifest)], 0o755) | modes)
    for path in sorted(modes):
        os.mkdir(tree + path.rstrip(b"/"), 0o700)
    if changes := _write_files(manifest, content, root, tree, reporter):
        raise ExportDriftError(tuple(sorted(changes)))
    # Modes come last, deepest first, so that a directory without write permission can be filled.
    for path in sorted(modes, reverse=True):
        os.chmod(tree + path, modes[path])
        os.utime(tree + path, _TIMES)
    warn_of_dropped_bits(manifest, reporter)
    with open(os.path.join(directory, "config.json"), "xb") as file:
        file.write(json.dumps(config(manifest), indent=1, sort_keys=True).encode() + b"\n")


def config(manifest: Manifest) -> dict[str, Any]:
    """Return the content of config.json for the calling user."""
    names = {entry.path: entry.kind for entry in manifest.files}
    no_rights: dict[str, list[str]] = {
        each: [] for each in ("bounding", "effective", "inheritable", "permitted", "ambient")
    }
    return {
        "ociVersion": "1.0.2",
        "hostname": HOSTNAME,
        "root": {"path": _ROOT, "readonly": True},
        "process": {
            "args": ["/bin/sh"],
            "capabilities": no_rights,
            "cwd": "/",
            "env": [f"PATH={SEARCH_PATH}", f"HOME={text_path(TMP)}", "LANG=C.UTF-8"],
            "noNewPrivileges": True,
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
        },
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount(
                "/dev/pts",
                "devpts",
                "devpts",
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
            ),
            _mount("/dev/shm", "tmpfs", "shm", *_PRIVATE, "mode=1777"),  # noqa: S108 - in the jail
            _mount("/dev/mqueue", "mqueue", "mqueue", *_PRIVATE, "noexec"),
            _mount("/sys", "none", "/sys", "rbind", "ro", *_PRIVATE, "noexec"),
            *(
                _mount(text_path(path), "tmpfs", "tmpfs", *_PRIVATE, "mode=1777")
                for path in scratch_directories(manifest)
            ),
            *(
                _mount(text_path(path), "none", text_path(path), "bind", "ro", *_PRIVATE)
                for path in (RESOLV_CONF,)
                if names.get(path) == "regular"
            ),
        ],
        "linux": _namespaces(os.geteuid(), os.getegid()),
    }


def _namespaces(uid: int, gid: int) -> dict[str, Any]:
    kinds = ["pid", "ipc", "uts", "mount"]
    if not uid:
        return {"namespaces": [{"type": kind} for kind in kinds]}
    return {
        "namespaces": [{"type": kind} for kind in ("user", *kinds)],
        "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
    }


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    return {**mount, "options": list(options)} if options else mount


class _Share(NamedTuple):
    entries: tuple[FileEntry, ...]
    content: Mapping[bytes, bytes]


def _write_files(
    manifest: Manifest, content: Mapping[bytes, bytes], root: bytes, tree: bytes, reporter: Reporter
) -> list[Change]:
    """Write all but directories, in several processes if that is worth it; return what differs."""
    entries = [entry for entry in manifest.files if entry.kind != "directory"]
    shares = [
        _Share(share, {e.path: content[e.path] for e in share if e.path in content})
        for share in shares_of(entries)
    ]
    work = partial(_write_share, root.rstrip(b"/"), tree)
    processes = processes_for(cost(entries))
    changes: list[Change] = []
    for done, found in enumerate(
        in_processes(work, shares, processes, "exporting") if processes > 1 else map(work, shares), start=1
    ):
        changes += found
        reporter.progress("exporting", done, len(shares))
    return changes


def _write_share(prefix: bytes, tree: bytes, share: _Share) -> list[Change]:
    changes = []
    buffer = Buffer(len)
    for entry in share.entries:
        place = tree + entry.path
        if entry.kind == "symlink":
            os.symlink(entry.target or b"", place)
            os.utime(place, _TIMES, follow_symlinks=False)
            continue
        descriptor = os.open(place, _NEW, 0o600)
        try:
            buffer.flush(partial(write_all, descriptor))
            if entry.origin == "entry":
                buffer.write(share.content.get(entry.path, b""))
            elif mismatch := copy_file(entry, prefix + entry.path, buffer):
                changes.append((entry.path, mismatch))
            buffer.flush()
            os.fchmod(descriptor, entry.mode & COPIED_BITS)
            os.utime(descriptor, _TIMES)
        finally:
            os.close(descriptor)
    return changes
