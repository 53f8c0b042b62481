"""Diagnose a failure of the sandbox: turn a `SetupError` into a `JailError` that the user can act on.

`pkgjail.jails.causes` finds the setting of the kernel at fault (under `proc`); the words are here.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pkgjail.core.entries import Mismatch
from pkgjail.core.errors import CommandError, DriftError, JailError, OutOfMemoryError, limit_at_fault
from pkgjail.core.parameters import parameter
from pkgjail.core.text import printable, raw_path, text_path
from pkgjail.jails.causes import RESTRICTED, find_cause

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.jails.causes import Cause
    from pkgjail.sandbox.job import SetupError

_UNSHARE = "cannot make a jail: this host does not let ordinary users make user namespaces: "
# Causes about which the host's administrators can do something, or another stage helps.
_OF_HOST = frozenset({"apparmor", "chroot", "covered", "filter", "profile", "sysctl"})
_AUTO: Final = "stage='auto'"
_MORE = f"; 'pkgjail doctor' says more, and {parameter(_AUTO)} takes another stage if one works"
_MAP_ROOT: Final = "map_root=True"
HOW_TO_DELEGATE = (
    "start pkgjail in a control group of its own: 'systemd-run --user --scope -p Delegate=yes pkgjail …' "
    "(as root leave out the first option); if a controller is missing there, an administrator adds "
    "'Delegate=cpu memory pids' to [Service] of user@.service (systemctl edit user@.service)"
)
# The exit statuses of a shell for a command that is not found or not executable (POSIX.1-2017, XCU 2.8.2).
_NOT_FOUND, _CANNOT_EXECUTE = 127, 126
# What is wrong with the file of a command, by `pkgjail.sandbox.executables.Fault`.
_FAULTS: dict[str, str] = {
    "link": "{path} is a symbolic link to {other}, which the jail does not have",
    "directory": "{path} is a directory",
    "special": "{path} is no regular file",
    "search": "{path}: Permission denied, to search a directory on the way",
    "mode": "{path}: Permission denied, by its mode; use chmod +x, or name its interpreter",
    "noexec": "{path}: Permission denied, because its file system is mounted noexec",
    "line end": "the first line of {path} ends with a carriage return, so the jail has no such interpreter; "
    "give the file the line ends of Unix (sed -i 's/\\r$//')",
    "interpreter": "{path} needs the interpreter {other}, which the jail does not have",
    "loader": "{path} needs the dynamic loader {other}, which the jail does not have: it is for another C "
    "library or architecture",
    "interpreter link": "{path} needs the interpreter {other}, a link to what the jail does not have",
    "interpreter mode": "{path} needs the interpreter {other}, which you may not execute",
    "empty": "{path} is empty",
    "script": "{path} is a script without an interpreter; begin it with '#!/bin/sh', or run 'sh {path}'",
    "machine": "{path} is a program for another kind of machine",
    "format": "{path} is no program that this kernel can execute",
}
_LACKING = ("link", "interpreter", "loader", "interpreter link")


def diagnose(
    failure: SetupError,
    command: str,
    *,
    proc: Path = Path("/proc"),
    package_of: Callable[[bytes], str] = lambda _: "",
) -> JailError:
    """Return the error to raise for a `failure` to run `command`.

    `package_of` returns words on which package has a missing path, with a blank before them, or "". It gets
    b"" for the command itself.
    """
    if failure.changes:
        changes = ((path, Mismatch(what, expected, found)) for path, what, expected, found in failure.changes)
        return DriftError(tuple(changes))
    if failure.doing == "execute":
        return _cannot_execute(failure, command, package_of)
    if failure.doing == "memory":
        return OutOfMemoryError()
    if failure.doing not in {"unshare", "build"}:
        return JailError(_why_not_run(failure))
    cause = find_cause(failure, proc)
    is_forbidden = cause.kind in _OF_HOST or (cause.kind == "unknown" and failure.doing == "unshare")
    return JailError(explain(cause) + (_MORE if is_forbidden else ""))


def explain(cause: Cause) -> str:
    """Return the words on why no jail can be made here."""
    failure, confinement = cause.failure, cause.confinement
    filtered = cause.kind == "filter"
    if cause.kind == "subordinate":
        return (
            f"cannot map subordinate ids: {text_path(failure.name)} refuses; check its set-user-ID bit and "
            f"your lines in /etc/subuid and /etc/subgid, or leave out {parameter(_MAP_ROOT)}"
        )
    if failure.doing == "unshare" and cause.kind != "limit":
        return f"{_UNSHARE}{_forbidding_words(cause)}"
    words = {
        "limit": f"{failure}: {limit_at_fault(failure.errno)}",
        "kernel": f"{failure}: the kernel is too old; pkgjail needs Linux 5.12 or newer",
        "apparmor": f"AppArmor takes every capability away in a user namespace ({RESTRICTED} is 1); as root, "
        "give this program a profile with the rule 'userns,', or set that sysctl to 0",
        "covered": "the kernel refuses a new /proc because parts of this one are covered "
        f"({confinement.covered_names()}), as a container's engine does; start the container with an "
        f"unmasked /proc: {confinement.options()}",
        "filter": f"{failure}: a seccomp filter (a container's?) may forbid it; start the container with "
        f"{confinement.options(filtered=filtered)}",
        "profile": f"{failure}: the security profile {confinement.profile} (a container's?) may forbid it; "
        f"start the container with {confinement.options()}",
        "mounts": f"{failure}: too many mounts; as root: sysctl -w fs.mount-max=1000000",
    }
    return f"cannot make a jail: {words.get(cause.kind, str(failure))}"


def _forbidding_words(cause: Cause) -> str:
    """Return what forbids new namespaces, in words."""
    name, value = cause.setting
    words = {
        "sysctl": f"{name} is 0; as root: sysctl -w {name}={value}",
        "reached": "a limit under /proc/sys/user is reached; end other jails, or raise the limit as root",
        "filter": "a seccomp filter (a container's?) forbids unshare(2); start the container with a profile "
        f"that allows it: {cause.confinement.options(filtered=True)}",
        "chroot": "this process is in a chroot, where the kernel forbids them; start pkgjail outside of it, "
        "or enter its directory by pivot_root(8) or in a container",
    }
    otherwise = f"{cause.failure}; as root, check /proc/sys/user, and whether a chroot or a security module "
    return words.get(cause.kind, f"{otherwise}forbids it")


def _why_not_run(failure: SetupError) -> str:
    if failure.doing == "limit":
        why = failure.name.decode("utf-8", "backslashreplace")
        return f"cannot limit the jail: {why}; {HOW_TO_DELEGATE}"
    if failure.doing == "audit":
        return _cannot_audit(failure)
    return f"cannot make a jail: {failure}"


def _cannot_audit(failure: SetupError) -> str:
    if failure.errno == errno.EBUSY:
        return (
            "cannot audit a jail here: a filter of system calls around this process has a listener already, "
            "as in some containers and in an audited jail; start pkgjail outside of it"
        )
    if failure.errno:
        return (
            "cannot audit a jail here: this kernel does not let another process see system calls (Linux 5.5 "
            f"does): {os.strerror(failure.errno)}"
        )
    why = failure.name.decode("utf-8", "backslashreplace")
    return f"the process that audits the jail failed, and the jail was killed, so there is no record: {why}"


def _cannot_execute(failure: SetupError, command: str, package_of: Callable[[bytes], str]) -> CommandError:
    # A missing command is named by the last path that was tried; another name is the working directory.
    if (
        failure.errno == errno.ENOENT
        and failure.fault[0] in {"", "absent"}
        and (b"/" + failure.name).endswith(b"/" + raw_path(command).lstrip(b"/"))
    ):
        why = f"there is no such command in the jail; name its package in the whitelist{package_of(b'')}"
        return CommandError(f"cannot run {command}: {why}", _NOT_FOUND)
    if words := _FAULTS.get(failure.fault[0], ""):
        path, other = text_path(failure.name), printable(failure.fault[1])
        hint = package_of(failure.fault[1]) if failure.fault[0] in _LACKING else ""
        return CommandError(
            f"cannot run {command}: {words.format(path=path, other=other)}{hint}", _CANNOT_EXECUTE
        )
    if failure.errno == errno.EAGAIN:
        return CommandError(f"cannot run {command}: {limit_at_fault(failure.errno)}", _CANNOT_EXECUTE)
    why = f": {os.strerror(failure.errno)}" if failure.errno else ""
    if failure.errno == errno.ELOOP:
        why = (
            ": the symbolic links form a loop, or one is a link of /proc, which leads to a file that "
            "pkgjail itself has open; name a file of the jail"
        )
    if failure.errno == errno.ENOENT and failure.name.startswith(b"/"):
        why += "; show the directory where commands start by a bind, or start them in another one"
    return CommandError(
        f"cannot run {command} in the jail: {text_path(failure.name)}{why}",
        _CANNOT_EXECUTE,
    )
