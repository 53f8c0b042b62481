"""Detect whether this process runs in a jail. Every command of Spack does this, so it must be quick."""

from __future__ import annotations

import os

from pkgjail.core.jail_names import HOSTNAME


def is_isolated() -> bool:
    """Check whether this process runs in a jail of pkgjail's.

    A jail has its host name, no_new_privs and an empty capability bounding set (proc_pid_status(5)). An
    environment variable could be set anywhere.
    """
    if os.uname().nodename != HOSTNAME:
        return False
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return fields.get("NoNewPrivs") == "1" and int(fields.get("CapBnd", "1"), 16) == 0
