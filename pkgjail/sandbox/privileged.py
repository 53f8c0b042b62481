"""Make this process the asking user's, with the few privileges that it takes to make a jail.

Where there are no user namespaces, root makes the jail. It does so with the user's ids: without
CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, every file is looked up with the user's own rights, and what is
made belongs to the user. Init gives up what is left before the command starts, as in every jail. See
capabilities(7).
"""

from __future__ import annotations

import os
import signal

from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.capabilities import drop_from_bounding_set

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Sequence

# CAP_SETPCAP empties the bounding set, CAP_NET_ADMIN brings up a loopback, CAP_SYS_ADMIN does all else.
KEPT_CAPABILITIES = 1 << 8 | 1 << 12 | 1 << 21
"""The capabilities that are kept, as bits; CAP_SYS_ADMIN makes namespaces and mounts."""


def become_user(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Take a user's ids for good, and keep `KEPT_CAPABILITIES` alone. The process must be root's.

    It can execute no program that has more privileges, and other processes of the user cannot look into it.
    It dies with its parent, as that does not survive a change of ids (prctl(2), PR_SET_PDEATHSIG).

    Args:
        uid: the user's id.
        gid: the user's group.
        groups: the user's further groups, as setgroups(2) takes them.

    Raises:
        OSError: a capability is missing, as in some containers; EPERM.

    """
    parent = os.getppid()
    drop_from_bounding_set(KEPT_CAPABILITIES)
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    sc.prctl(sc.PR_SET_KEEPCAPS, 1)
    os.setresuid(uid, uid, uid)
    sc.prctl(sc.PR_SET_KEEPCAPS, 0)
    sc.capset(KEPT_CAPABILITIES)
    sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    sc.prctl(sc.PR_SET_DUMPABLE, 0)
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
