"""The host name of a jail: its own, or the caller's where nobody may set one.

The default seccomp filters of container engines forbid sethostname(2) to whoever lacks a capability outside,
in every namespace. No promise depends on the name, so such a jail keeps the container's, in its own UTS
namespace, and its /etc/hosts has that name.
"""

from __future__ import annotations

import os

from pkgjail.core.jail_names import HOSTNAME
from pkgjail.jails.privileges import has_seccomp_filter
from pkgjail.sandbox import syscalls as sc

_FORBIDDEN = 1


def host_name(*, user_namespace: bool = True) -> str:
    """Return the host name that a jail gets here; `user_namespace` is as `JailOptions` has it."""
    here = os.uname().nodename
    namespaces = sc.CLONE_NEWUTS | (sc.CLONE_NEWUSER if user_namespace else 0)
    return here if here != HOSTNAME and has_seccomp_filter() and not _can_set(namespaces) else HOSTNAME


def _can_set(namespaces: int) -> bool:
    """Try to set a host name in namespaces of a child. If they cannot be had, entry says why."""
    child = os.fork()
    if child == 0:
        _try(namespaces)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != _FORBIDDEN


def _try(namespaces: int) -> None:
    status = 0
    try:
        sc.unshare(namespaces)
        status = _FORBIDDEN
        sc.sethostname(HOSTNAME.encode())
        status = 0
    except OSError:
        pass
    finally:
        os._exit(status)
