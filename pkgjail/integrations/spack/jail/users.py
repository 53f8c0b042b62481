"""The users of one Spack: whose the active environment is, who can reach it, and what a user can do."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from pkgjail.integrations.spack.active import may_change, state_directories

if TYPE_CHECKING:
    from pkgjail.integrations.spack.active import ActiveEnvironment


def whose(active: ActiveEnvironment) -> str:
    """Return a clause that says whose an environment is that this user may not change."""
    owner = _owner(active.directory)
    if owner == os.geteuid():
        return f"its record in {active.directory} cannot be changed, as on a read-only file system"
    return f"it is the environment of all users of this Spack, and {_name(owner)} built it"


def is_for_all(active: ActiveEnvironment, root: str) -> bool:
    """Check whether the environment is that of all users of the Spack in `root`, and not one user's own."""
    return active.directory == state_directories(root, os.environ)[0]


def own_advice() -> str:
    """Return how a user who may not change Spack's environment has one of their own."""
    return "to have one of your own, for you alone, use 'spack jail --build-environment ~/spack-env'"


def leaving_advice(active: ActiveEnvironment) -> str:
    """Return what a user can do if the active environment cannot be entered."""
    if may_change(active):
        return "to run Spack outside again, use 'spack jail --remove-environment'"
    return f"{whose(active)}; {own_advice()}"


def rebuilding_advice(active: ActiveEnvironment) -> str:
    """Return what a user can do if the host has changed since the environment was built."""
    if may_change(active):
        rebuild = f"'spack jail --build-environment {active.environment} --force'"
        return f"or build the environment again with {rebuild}"
    return f"{whose(active)}, and can build it again; {own_advice()}"


def removal_advice(active: ActiveEnvironment, command: str = "spack jail") -> str:
    """Return who can finish an interrupted removal."""
    if may_change(active):
        return f"finish the removal with '{command} --remove-environment'"
    return f"{_name(_owner(active.directory))} can finish the removal"


def closed_to_users(root: str, environment: str) -> str:
    """Return the first directory of an environment's path that other users of a Spack may not enter.

    "" if there is none, or if the Spack in `root` has no other users. They are all others if all may read
    it; otherwise the members of its group, unless that is this user's primary one, which may be private.
    Access control lists are not read.
    """
    group = os.stat(root).st_gid
    for users in (None, group if group != os.getegid() else -1):
        if users != -1 and not _first_closed(root, users):
            return _first_closed(environment, users)
    return ""


def _first_closed(path: str, group: int | None) -> str:
    """Return the first directory of a path that others, or the members of a group, may not enter; or ""."""
    part = ""
    for name in os.path.realpath(path).split("/")[1:]:
        part = f"{part}/{name}"
        found = os.stat(part)
        in_group = found.st_gid == group
        if not found.st_mode & (stat.S_IXGRP if in_group else stat.S_IXOTH):
            return part
    return ""


def _owner(directory: str) -> int:
    return os.stat(directory).st_uid


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
