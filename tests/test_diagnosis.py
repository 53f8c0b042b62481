"""Why a jail could not be made: each message names the cause and what to do about it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli.exit_status import exit_status
from pkgjail.core.errors import CommandError, DriftError, OutOfMemoryError
from pkgjail.jails.diagnosis import HOW_TO_DELEGATE, diagnose
from pkgjail.sandbox.job import SetupError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pkgjail.sandbox.job import Doing
    from pkgjail.sandbox.rootfs import Change

_SETTINGS = {
    f"sys/user/max_{name}_namespaces": "100\n" for name in ("user", "mnt", "pid", "ipc", "uts", "net")
}
_DEBIAN = {"sys/kernel/unprivileged_userns_clone": "0\n"}
_RESTRICTED = {"sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}
_UNRESTRICTED = {"sys/kernel/apparmor_restrict_unprivileged_userns": "0\n"}
_FILTERED = {"self/status": "Name:\t\udcffodd\nNoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n"}
_FREE = {"self/status": "Name:\tpython3\nSeccomp:\t0\n"}

_OPT = "--security-opt "


def _mountinfo(*names: str) -> str:
    """Return mounts of a container, with these names of /proc covered."""
    points = ("/", "/proc", *(f"/proc/{name}" for name in names))
    return "".join(f"36 35 0:1 / {point} rw,nosuid - proc proc rw\n" for point in points)


_DOCKER = {"self/attr/current": "docker-default (enforce)\n", "self/mountinfo": _mountinfo("kcore")}

_UNSHARE = "cannot make a jail: this host does not let ordinary users make user namespaces: "
_BUILD = "cannot make a jail: "
_MORE = "; 'pkgjail doctor' says more, and `stage='auto'` takes another stage if one works"
# The rows whose messages end in `_MORE`: an administrator can do something, or another stage may help.
_OF_HOST = ("sysctl -w user.", "sysctl -w kernel.", "start the container with", "AppArmor", "a chroot")

# Each row: what was tried, what failed and on what, the host's settings, the message.
CASES: list[tuple[str, int, bytes, dict[str, str], str]] = [
    (
        "unshare",
        errno.ENOSPC,
        b"unshare",
        {"sys/user/max_user_namespaces": "0\n"},
        _UNSHARE + "user.max_user_namespaces is 0; as root: sysctl -w user.max_user_namespaces=15000",
    ),
    (
        "unshare",
        errno.ENOSPC,
        b"unshare",
        {"sys/user/max_net_namespaces": "0\n"},
        _UNSHARE + "user.max_net_namespaces is 0; as root: sysctl -w user.max_net_namespaces=15000",
    ),
    (
        "unshare",
        errno.EPERM,
        b"unshare",
        _DEBIAN,
        _UNSHARE
        + "kernel.unprivileged_userns_clone is 0; as root: sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        "unshare",
        errno.ENOSPC,
        b"unshare",
        _FILTERED,
        _UNSHARE + "a limit under /proc/sys/user is reached; end other jails, or raise the limit as root",
    ),
    (
        "unshare",
        errno.EPERM,
        b"unshare",
        _FILTERED,
        _UNSHARE + "a seccomp filter (a container's?) forbids unshare(2); start the container with a profile "
        "that allows it: podman run --security-opt seccomp=unconfined, "
        "docker run --security-opt seccomp=unconfined",
    ),
    (
        "unshare",
        errno.EPERM,
        b"unshare",
        {**_FILTERED, **_DOCKER},
        _UNSHARE + "a seccomp filter (a container's?) forbids unshare(2); start the container with a profile "
        f"that allows it: podman run {_OPT}seccomp=unconfined {_OPT}unmask=ALL {_OPT}apparmor=unconfined, "
        f"docker run {_OPT}seccomp=unconfined {_OPT}systempaths=unconfined {_OPT}apparmor=unconfined",
    ),
    (
        "unshare",
        errno.EPERM,
        b"unshare",
        {**_FREE, "self/mountinfo": _mountinfo("kcore").replace(" / / ", " / /srv ")},
        _UNSHARE + "this process is in a chroot, where the kernel forbids them; start pkgjail outside of it, "
        "or enter its directory by pivot_root(8) or in a container",
    ),
    (
        "unshare",
        errno.EPERM,
        b"/proc/self/uid_map",
        _FREE,
        _UNSHARE + "unshare /proc/self/uid_map: Operation not permitted; as root, check /proc/sys/user, "
        "and whether a chroot or a security module forbids it",
    ),
    (
        "build",
        errno.ENOSYS,
        b"/opt",
        {},
        _BUILD + "build /opt: Function not implemented: the kernel is too old; "
        "pkgjail needs Linux 5.12 or newer",
    ),
    (
        "build",
        errno.EACCES,
        b"/",
        _RESTRICTED,
        _BUILD + "AppArmor takes every capability away in a user namespace "
        "(kernel.apparmor_restrict_unprivileged_userns is 1); as root, give this program a "
        "profile with the rule 'userns,', or set that sysctl to 0",
    ),
    (
        "build",
        errno.EPERM,
        b"/new/proc",
        {**_UNRESTRICTED, "self/mountinfo": _mountinfo("acpi", "bus", "sys/fs/binfmt_misc", "fs", "keys")},
        _BUILD + "the kernel refuses a new /proc because parts of this one are covered "
        "(/proc/acpi, /proc/bus, /proc/fs, …), as a container's engine does; start the container with an "
        f"unmasked /proc: podman run {_OPT}unmask=ALL, docker run {_OPT}systempaths=unconfined",
    ),
    (
        "build",
        errno.EPERM,
        b"/new/proc",
        {**_FREE, "self/mountinfo": _mountinfo("sys/fs/binfmt_misc")},
        _BUILD + "build /new/proc: Operation not permitted",
    ),
    (
        "build",
        errno.EACCES,
        b"/",
        {**_FREE, **_DOCKER},
        _BUILD + "build /: Permission denied: the security profile docker-default (enforce) (a container's?) "
        f"may forbid it; start the container with podman run {_OPT}unmask=ALL {_OPT}apparmor=unconfined, "
        f"docker run {_OPT}systempaths=unconfined {_OPT}apparmor=unconfined",
    ),
    (
        "unshare",
        errno.EPERM,
        b"/usr/bin/newuidmap",
        _FREE,
        (
            "cannot map subordinate ids: /usr/bin/newuidmap refuses; check its set-user-ID bit and your "
            "lines in /etc/subuid and /etc/subgid, or leave out `map_root=True`"
        ),
    ),
    (
        "build",
        errno.EACCES,
        b"/new/proc",
        {**_FREE, "self/attr/current": "system_u:system_r:container_t:s0:c1,c2\0"},
        _BUILD + "build /new/proc: Permission denied: the security profile "
        "system_u:system_r:container_t:s0:c1,c2 (a container's?) may forbid it; start the container with "
        f"podman run {_OPT}label=disable, docker run {_OPT}label=disable",
    ),
    (
        "build",
        errno.ENOSYS,
        b"/opt",
        _FILTERED,
        _BUILD + "build /opt: Function not implemented: a seccomp filter (a container's?) may forbid it; "
        f"start the container with podman run {_OPT}seccomp=unconfined, docker run {_OPT}seccomp=unconfined",
    ),
    (
        "build",
        errno.ENOSPC,
        b"/usr/bin/x",
        {},
        _BUILD + "build /usr/bin/x: No space left on device: too many mounts; "
        "as root: sysctl -w fs.mount-max=1000000",
    ),
    (
        "build",
        errno.EFBIG,
        b"/etc/ld.so.cache",
        {},
        _BUILD + "build /etc/ld.so.cache: File too large: a limit forbids this process such a large file; "
        "raise it (ulimit -f)",
    ),
    (
        "build",
        errno.EMFILE,
        b"overlay",
        {},
        _BUILD + "build overlay: Too many open files: a limit on open files is reached; raise it (ulimit -n)",
    ),
    (
        "unshare",
        errno.EAGAIN,
        b"clone3",
        {},
        _BUILD
        + "unshare clone3: Resource temporarily unavailable: a limit on processes is reached; end some, or "
        "raise it (ulimit -u, or a control group's)",
    ),
    ("build", errno.EIO, b"/\xff\n", {}, _BUILD + "build /\\xff\n: Input/output error"),
    ("build", 0, b"MemoryError()", {}, _BUILD + "build MemoryError(): failed"),
    ("limit", 0, b"memory: /\xff", {}, f"cannot limit the jail: memory: /\\xff; {HOW_TO_DELEGATE}"),
]


def _proc(tmp_path: Path, settings: Mapping[str, str]) -> Path:
    for name, text in settings.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    return tmp_path


@pytest.mark.parametrize(("doing", "number", "name", "settings", "message"), CASES)
def test_the_setting_at_fault_is_named(  # noqa: PLR0913, PLR0917 - a row
    tmp_path: Path, doing: Doing, number: int, name: bytes, settings: dict[str, str], message: str
) -> None:
    proc = _proc(tmp_path, {**_SETTINGS, **settings})
    error = diagnose(SetupError(doing, number, name, []), "gcc", proc=proc)
    message += _MORE if any(words in message for words in _OF_HOST) else ""
    assert (str(error), exit_status(error)) == (message, 3)


def test_a_host_without_these_settings_is_no_error(tmp_path: Path) -> None:
    error = diagnose(SetupError("unshare", errno.EINVAL, b"unshare", []), "gcc", proc=tmp_path)
    assert str(error).startswith(f"{_UNSHARE}unshare unshare: Invalid argument")


_BIND_IT = "show the directory where commands start by a bind, or start them in another one"


@pytest.mark.parametrize(
    ("number", "name", "status", "message"),
    [
        (
            errno.ENOENT,
            b"gcc",
            127,
            "cannot run gcc: there is no such command in the jail; name its package in the whitelist",
        ),
        (
            errno.ENOENT,
            b"/usr/bin/gcc",
            127,
            "cannot run gcc: there is no such command in the jail; name its package in the whitelist",
        ),
        (
            errno.ENOENT,
            b"/w",
            126,
            "cannot run gcc in the jail: /w: No such file or directory; " + _BIND_IT,
        ),
        (errno.EACCES, b"/etc/passwd", 126, "cannot run gcc in the jail: /etc/passwd: Permission denied"),
        (errno.ENOEXEC, b"gcc", 126, "cannot run gcc in the jail: gcc: Exec format error"),
    ],
)
def test_a_command_that_cannot_start_has_the_exit_status_of_a_shell(
    tmp_path: Path, number: int, name: bytes, status: int, message: str
) -> None:
    error = diagnose(SetupError("execute", number, name, []), "gcc", proc=tmp_path)
    assert isinstance(error, CommandError)
    assert (str(error), error.status) == (message, status)


def test_reaching_the_memory_limit_is_an_error_of_its_own(tmp_path: Path) -> None:
    error = diagnose(SetupError("memory", 0, b"", []), "gcc", proc=tmp_path)
    assert isinstance(error, OutOfMemoryError)
    assert "raise `Limits.memory`" in str(error)
    assert error.status == 137


def test_drift_names_some_changes_and_counts_the_rest(tmp_path: Path) -> None:
    changes: list[Change] = [(b"/a/%d" % number, "missing", "", "") for number in range(22)]
    changes[0] = (b"/a\xff", "size", "4", "3")
    error = diagnose(SetupError("build", 0, b"", changes), "gcc", proc=tmp_path)
    assert isinstance(error, DriftError)
    assert [(path, *mismatch) for path, mismatch in error.changes] == changes
    lines = str(error).splitlines()
    assert lines[0] == "cannot enter the jail: the host has changed since the manifest was made:"
    assert lines[1:3] == ["  /a\\xff has 3 bytes, not 4", "  /a/1 is gone"]
    assert lines[20:] == [
        "  /a/19 is gone",
        "  and 2 more",
        (
            "make the manifest again with 'pkgjail resolve' and review what differs, or accept "
            "the host as it is with `allow_drift=True`"
        ),
    ]
