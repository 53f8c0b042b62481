"""Export a bundle for runc(8), crun(1) and what starts them: a tree of the files, and config.json.

The OCI runtime specification describes it. The jail is as `pkgjail run` makes it, as far as a runtime can: a
read-only root, no capabilities, no new privileges, private /tmp, /dev and /proc, the host's network.

If root exports it, its files belong to root, and the command is root without capabilities. Otherwise they
belong to the user, whom config.json maps to root: such a bundle is for this user alone.
"""

from __future__ import annotations

import fnmatch
import json
import os
from typing import TYPE_CHECKING, Any

from pkgjail.core.errors import ExportDriftError
from pkgjail.core.jail_names import (
    HOSTNAME,
    PROC_HIDDEN,
    PROC_READ_ONLY,
    RESOLV_CONF,
    SEARCH_PATH,
    SYS_BUSES,
    SYS_ROOT_ONLY,
    TMP,
)
from pkgjail.core.text import text_path
from pkgjail.export.common import scratch_directories, warn_of_dropped_bits
from pkgjail.export.image.tree import write_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter

_ROOT = "rootfs"
_TERMINALS = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")
PRIVATE = ("nosuid", "nodev")
"""The options of every mount."""


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
    if changes := write_tree(manifest, content, root, tree, reporter):
        raise ExportDriftError(changes)
    warn_of_dropped_bits(manifest, reporter)
    with open(os.path.join(directory, "config.json"), "xb") as file:
        file.write(json.dumps(config(manifest), indent=1, sort_keys=True).encode() + b"\n")


def mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    """Return a mount as config.json has it."""
    made: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    return {**made, "options": list(options)} if options else made


KERNEL_MOUNTS = (
    mount("/proc", "proc", "proc"),
    mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
    mount("/dev/pts", "devpts", "devpts", *_TERMINALS),
    mount("/dev/shm", "tmpfs", "shm", *PRIVATE, "mode=1777"),  # noqa: S108 - in the jail
    mount("/dev/mqueue", "mqueue", "mqueue", *PRIVATE, "noexec"),
    mount("/sys", "none", "/sys", "rbind", "rro", *PRIVATE, "noexec"),
)
"""The kernel's file systems of every jail."""

NO_CAPABILITIES: dict[str, list[str]] = {
    each: [] for each in ("bounding", "effective", "inheritable", "permitted", "ambient")
}


def config(manifest: Manifest) -> dict[str, Any]:
    """Return the content of config.json for the calling user."""
    names = {entry.path: entry.kind for entry in manifest.files}
    return {
        "ociVersion": "1.0.2",
        "hostname": HOSTNAME,
        "root": {"path": _ROOT, "readonly": True},
        "process": {
            "args": ["/bin/sh"],
            "capabilities": NO_CAPABILITIES,
            "cwd": "/",
            "env": [f"PATH={SEARCH_PATH}", f"HOME={text_path(TMP)}", "LANG=C.UTF-8"],
            "noNewPrivileges": True,
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
        },
        "mounts": [
            *KERNEL_MOUNTS,
            *(
                mount(text_path(path), "tmpfs", "tmpfs", *PRIVATE, "mode=1777")
                for path in scratch_directories(manifest)
            ),
            *(
                mount(text_path(path), "none", text_path(path), "bind", "ro", *PRIVATE)
                for path in (RESOLV_CONF,)
                if names.get(path) == "regular"
            ),
        ],
        "linux": namespaces(os.geteuid(), os.getegid()),
    }


def hidden_paths(*, as_root: bool) -> list[bytes]:
    """Return what is hidden of /proc and, for the host's root, of /sys, as far as this host has it.

    Raises:
        OSError: it cannot be seen what the host has, so that something would not be hidden.

    """
    paths = [b"/proc/" + name for name in PROC_HIDDEN]
    if as_root:
        paths += [b"/sys/" + name for name in SYS_ROOT_ONLY]
        directory, pattern = os.path.split(b"/sys/" + SYS_BUSES)
        names = os.listdir(directory) if _exists(directory) else []
        paths += [os.path.join(directory, name) for name in sorted(fnmatch.filter(names, pattern))]
    return list(filter(_exists, paths))


def _exists(path: bytes) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def namespaces(uid: int, gid: int, *, network: bool = True) -> dict[str, Any]:
    """Return the namespaces of a container, the maps of a user who is root in it, and what is covered.

    Args:
        uid: the user's id, of which root needs no map.
        gid: the group's id.
        network: whether it shares the host's network.

    """
    kinds = ["pid", "ipc", "uts", "mount", *([] if network else ["network"])]
    covered = {
        "maskedPaths": [text_path(path) for path in hidden_paths(as_root=not uid)],
        "readonlyPaths": [text_path(b"/proc/" + name) for name in PROC_READ_ONLY],
    }
    if not uid:
        return {"namespaces": [{"type": kind} for kind in kinds], **covered}
    return {
        **covered,
        "namespaces": [{"type": kind} for kind in ("user", *kinds)],
        "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
    }
