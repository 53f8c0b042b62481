"""Causes for which a host lets nobody make a jail, as data: found in the kernel's settings below `proc`.

See user_namespaces(7), /proc/sys/user in namespaces(7), and the distributions' own settings. What a message
says of a cause is in `pkgjail.jails.diagnosis`, and what an administrator does about it in `pkgjail.doctor`.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pkgjail.core.errors import limit_at_fault
from pkgjail.core.model import record
from pkgjail.jails.container import Confinement, read_confinement

if TYPE_CHECKING:
    from pkgjail.sandbox.job import SetupError

Kind = Literal[
    "apparmor",
    "chroot",
    "covered",
    "filter",
    "kernel",
    "limit",
    "mounts",
    "profile",
    "reached",
    "subordinate",
    "sysctl",
    "unknown",
]
"""The kinds of causes:

apparmor     AppArmor takes the capabilities away in a user namespace (Ubuntu)
chroot       the process is in a chroot(2)
covered      parts of /proc are covered, so that the kernel refuses a new one
filter       a seccomp filter forbids a call
kernel       the kernel is too old
limit        a limit of the process is reached; setrlimit(2)
mounts       there are too many mounts
profile      a profile of a security module forbids it
reached      a limit of /proc/sys/user is reached
subordinate  newuidmap(1) or newgidmap(1) refuses
sysctl       a setting of the kernel forbids user namespaces
unknown      none of these can be seen
"""

_FORBIDDEN = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_COUNTS = ("user", "mnt", "pid", "ipc", "uts", "net")
_ENOUGH = 15000  # namespaces; the kernel's own default is half of the number of threads
RESTRICTED = "kernel.apparmor_restrict_unprivileged_userns"
"""Ubuntu's setting that restricts user namespaces by AppArmor."""


@record
class Cause:
    """Why there can be no jail here.

    `failure` is what was tried. For the kind "sysctl", `setting` has the name and the value that would do.
    `confinement` is what a container does to this process.
    """

    kind: Kind
    failure: SetupError
    setting: tuple[str, int] = ("", 0)
    confinement: Confinement = Confinement(filtered=False, covered=(), profile="")


def find_cause(failure: SetupError, proc: Path = Path("/proc")) -> Cause:
    """Return the cause of a failure to make namespaces ("unshare") or to build a jail in them ("build")."""
    confinement = read_confinement(proc)
    if limit_at_fault(failure.errno):
        return Cause(kind="limit", failure=failure)
    if failure.doing == "unshare":
        kind, setting = _forbidding(failure, confinement, proc)
    else:
        kind, setting = _breaking(failure, confinement, proc), ("", 0)
    return Cause(kind=kind, failure=failure, setting=setting, confinement=confinement)


def _forbidding(failure: SetupError, confinement: Confinement, proc: Path) -> tuple[Kind, tuple[str, int]]:
    """Return what forbids new namespaces."""
    none = ("", 0)
    if failure.name.endswith(b"idmap"):  # newuidmap(1) or newgidmap(1)
        return "subordinate", none
    for name in _COUNTS:
        if read_setting(f"user.max_{name}_namespaces", proc) == "0":
            return "sysctl", (f"user.max_{name}_namespaces", _ENOUGH)
    if read_setting("kernel.unprivileged_userns_clone", proc) == "0":
        return "sysctl", ("kernel.unprivileged_userns_clone", 1)
    if failure.errno == errno.ENOSPC:
        return "reached", none
    if confinement.filtered:
        return "filter", none
    return ("chroot" if failure.errno == errno.EPERM and is_chrooted(proc) else "unknown"), none


def _breaking(failure: SetupError, confinement: Confinement, proc: Path) -> Kind:
    """Return what forbids the mounts of a jail."""
    if failure.errno == errno.ENOSYS and not confinement.filtered:
        return "kernel"
    if failure.errno in (errno.EPERM, errno.EACCES) and read_setting(RESTRICTED, proc) == "1":
        return "apparmor"
    if failure.errno == errno.EPERM and failure.name.endswith(b"/proc") and confinement.covered:
        return "covered"
    if failure.errno in _FORBIDDEN and confinement.filtered:
        return "filter"
    if failure.errno in _FORBIDDEN and confinement.profile:
        return "profile"
    return "mounts" if failure.errno == errno.ENOSPC else "unknown"


def read_setting(name: str, proc: Path = Path("/proc")) -> str | None:
    """Return the value of a setting of the kernel, by its name for sysctl(8); None if there is none."""
    try:
        return (proc / "sys" / name.replace(".", "/")).read_text("utf-8", "replace").strip()
    except OSError:
        return None


def is_chrooted(proc: Path = Path("/proc")) -> bool:
    """Return whether this process is surely in a chroot(2): a user namespace cannot be made there.

    In one whose directory is no mount point, no mount is at "/". Otherwise, only root can compare its own
    root directory with that of process 1, if both have the same mounts.
    """
    try:
        fields = [line.split() for line in (proc / "self/mountinfo").read_bytes().splitlines()]
    except OSError:
        return False
    if all(line[4:5] != [b"/"] for line in fields):
        return bool(fields)
    try:
        roots, mounts = (
            {
                (found.st_dev, found.st_ino)
                for found in (os.stat(proc / which / name) for which in ("self", "1"))
            }
            for name in ("root", "ns/mnt")
        )
    except OSError:
        return False
    return len(mounts) == 1 and len(roots) > 1
