"""How a process tells that it runs in a jail. Asked by each command of Spack's, so light."""

from __future__ import annotations

import os

HOSTNAME = "pkgjail"
"""The name that the host has in a jail."""


def is_isolated() -> bool:
    """Whether this process runs in a jail of pkgjail's.

    Told by what only a jail has and no variable can claim: its host name, no_new_privs, and an empty
    bounding set of capabilities (proc_pid_status(5)).
    """
    if os.uname().nodename != HOSTNAME:
        return False
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return fields.get("NoNewPrivs") == "1" and int(fields.get("CapBnd", "1"), 16) == 0
