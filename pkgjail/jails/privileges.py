"""The privileges of this process, so far as the kernel shows them: they decide which mounts it may make.

Every entry reads them, so this must be quick: some 0.1 ms.
"""

from __future__ import annotations

import os

# Lines of proc_pid_status(5). Of seccomp filters, only their number is shown.
_STATUS_LINES = (b"Uid:", b"Gid:", b"Cap", b"NoNewPrivs:", b"Seccomp")
# The security module's profile, and the settings that let an ordinary user have namespaces.
_SETTINGS = (
    "/proc/self/attr/current",
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/user/max_mnt_namespaces",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
)


def current_privileges() -> tuple[bytes, ...]:
    """Return the user, capabilities, namespaces, seccomp filters and security profile, to be compared."""
    status = [line for line in _read("/proc/self/status").splitlines() if line.startswith(_STATUS_LINES)]
    namespaces = [b"%d" % os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("user", "mnt")]
    return (*status, *namespaces, *map(_read, _SETTINGS))


def has_seccomp_filter() -> bool:
    """Check whether a seccomp filter, such as a container engine's, applies to this process."""
    return any(line.split() == [b"Seccomp:", b"2"] for line in _read("/proc/self/status").splitlines())


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
