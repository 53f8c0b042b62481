"""Give up capabilities: all of them, or in a command that is root in its jail, all but a few.

See capabilities(7).
"""

from __future__ import annotations

import errno

from pkgjail.sandbox import syscalls as sc

# What root in a jail may do in its own user namespace: CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID,
# CAP_KILL, CAP_SETGID and CAP_SETUID. None of them reaches a mount.
ROOT_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7


def give_up_capabilities() -> None:
    """Give up all capabilities: with one, a process could unmount a layer and see what is below."""
    sc.prctl(sc.PR_SET_SECUREBITS, sc.SECUREBITS_LOCKED_DOWN)
    sc.prctl(sc.PR_CAP_AMBIENT, sc.PR_CAP_AMBIENT_CLEAR_ALL)
    drop_from_bounding_set()
    sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    sc.capset()
    sc.prctl(sc.PR_SET_DUMPABLE, 0)


def keep_root_capabilities() -> None:
    """Give up all capabilities but those of `ROOT_CAPABILITIES`, also for programs that it executes."""
    drop_from_bounding_set(ROOT_CAPABILITIES)
    sc.capset(ROOT_CAPABILITIES)


def drop_from_bounding_set(spared: int = 0) -> None:
    """Drop all capabilities, except those whose bits are set, from what executed programs can get."""
    capability = 0
    try:
        while True:
            if not spared >> capability & 1:
                sc.prctl(sc.PR_CAPBSET_DROP, capability)
            capability += 1
    except OSError as error:
        if error.errno != errno.EINVAL or capability == 0:  # EINVAL: past the last capability
            raise
