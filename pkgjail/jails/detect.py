"""Detect whether this process runs in a jail. Every command of Spack does this, so it must be quick."""

from __future__ import annotations

import os

from pkgjail.core.jail_names import HOSTNAME, ROOT_CAPABILITIES


def is_isolated() -> bool:
    """Check whether this process runs in a jail of pkgjail's.

    A jail has no_new_privs, a capability bounding set that is empty or that of root in a jail
    (proc_pid_status(5)), and its host name or, in a container that forbids that, a root of its own. An
    environment variable could be set anywhere.
    """
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    if fields.get("NoNewPrivs") != "1" or int(fields.get("CapBnd", "-1"), 16) & ~ROOT_CAPABILITIES:
        return False
    return os.uname().nodename == HOSTNAME or _has_own_root()


def _has_own_root() -> bool:
    """Check whether the root is the tmpfs of a jail, which has a name; proc_pid_mountinfo(5)."""
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = [line.split() for line in file]
    return any(fields[4] == b"/" and fields[-3:-1] == [b"tmpfs", b"pkgjail"] for fields in mounts)
