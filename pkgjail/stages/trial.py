"""A plan that needs no manifest, to try a stage with: the host's programs, and one that does nothing."""

from __future__ import annotations

import os

from pkgjail.core.jail_names import HOSTNAME, KERNEL_DIRECTORIES, TMP
from pkgjail.sandbox.steps import Bind, Devices, Directory, Plan, Proc, Seal, Symlink, Sys, Tmpfs

TRIAL_COMMAND = ("/usr/bin/env", "true")
"""A command that succeeds, on every host of the trial's plan."""
TRIAL_ENVIRONMENT = (("PATH", "/usr/bin:/bin"),)

_PROGRAMS = b"/usr"
# Links to directories of /usr, or directories of their own (FHS 3.0, section 3.2).
_TOPS = (b"/bin", b"/lib", b"/lib32", b"/lib64", b"/libx32", b"/sbin")


def trial_plan(hostname: str = HOSTNAME) -> Plan:
    """Return a plan that shows the host's programs and libraries, read-only, and nothing else.

    `hostname` is that of the jail, which can be another one (`pkgjail.jails.host_name`).
    """
    shown = [_PROGRAMS, *(path for path in _TOPS if os.path.isdir(path) and not os.path.islink(path))]
    links = [Symlink(path, os.readlink(path)) for path in _TOPS if os.path.islink(path)]
    directories = [Directory(path, 0o755) for path in (b"/", *shown, *KERNEL_DIRECTORIES, b"/run", TMP)]
    kernel = (Proc(b"/proc"), Sys(b"/sys"), Devices(b"/dev"), Tmpfs(TMP, 0o1777))
    binds = [Bind(path, path, writable=False) for path in shown]
    return Plan(b"/", (*directories, *links, Seal(), *kernel, *binds), network=True, hostname=hostname)
