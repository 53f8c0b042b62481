"""Remedies: what to do about a cause for which a stage does not work, ready to paste."""

from __future__ import annotations

import errno
import os
import pwd
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pkgjail.core.families import ARCH, DEBIAN, RHEL, SUSE
from pkgjail.core.model import record
from pkgjail.core.parameters import parameter
from pkgjail.core.text import shell_quote
from pkgjail.doctor.model import Remedy
from pkgjail.jails.causes import RESTRICTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.jails.causes import Cause

_SETTINGS_FILE = "/etc/sysctl.d/90-pkgjail.conf"
_MAP_ROOT: Final = "map_root=True"
_PROFILE = "/etc/apparmor.d/pkgjail"
_FIRST_SUBORDINATE, _SUBORDINATES = 100_000, 65_536
_INSTALL = {
    DEBIAN: "apt-get install",
    RHEL: "dnf install",
    SUSE: "zypper install",
    ARCH: "pacman -S",
}
# The packages with a program, by family; the same for all others.
_PACKAGES: dict[str, dict[str, str]] = {
    "nspawn": {
        DEBIAN: "systemd-container",
        RHEL: "systemd-container",
        SUSE: "systemd-container",
        ARCH: "systemd",
    },
    "bwrap": {"": "bubblewrap"},
    "podman": {DEBIAN: "podman uidmap", "": "podman"},
    "runc": {"": "runc"},
    "vm": {DEBIAN: "qemu-system", RHEL: "qemu-kvm", SUSE: "qemu", ARCH: "qemu-full"},
    "kernel": {DEBIAN: "linux-image-cloud-amd64", RHEL: "kernel-core", SUSE: "kernel-default", ARCH: "linux"},
}


_OF_KIND: dict[str, tuple[Remedy, ...]] = {
    "kernel": (Remedy(what="Use Linux 5.12 or newer", who="administrator"),),
    "limit": (Remedy(what="Raise the limit that is reached, or end processes", who="user"),),
    "mounts": (
        Remedy(what="Allow more mounts", who="administrator", lines=("sysctl -w fs.mount-max=1000000",)),
    ),
    "reached": (
        Remedy(
            what="Raise the limit of namespaces",
            who="administrator",
            lines=("sysctl -w user.max_user_namespaces=100000",),
        ),
    ),
}
_IN_DIRECTORY = (
    'unshare --mount sh -c \'mount --rbind "$0" "$0" && cd "$0" && mount --make-rprivate / && '
    'pivot_root . . && umount -l . && exec "$@"\' DIRECTORY COMMAND'
)


@record
class Surroundings:
    """What remedies depend on: the engine of the container around, and the host's family of distributions."""

    container: str = ""
    family: str = ""


def of_cause(cause: Cause, around: Surroundings) -> tuple[Remedy, ...]:
    """Return what can be done about the cause for which there are no jails here, the best first."""
    if cause.kind == "sysctl":
        return tuple(_of_setting(*cause.setting))
    if cause.kind in {"filter", "covered", "profile"}:
        return tuple(_of_container(cause, around))
    if cause.kind == "apparmor":
        return tuple(_of_apparmor())
    if cause.kind == "chroot":
        return tuple(_of_chroot())
    if cause.kind == "unknown" and cause.failure.errno == errno.EPERM and cause.failure.doing == "unshare":
        return tuple(_of_chroot("If this is a chroot: "))
    return (subordinate_ids(),) if cause.kind == "subordinate" else _OF_KIND.get(cause.kind, ())


def _of_setting(name: str, value: int) -> Iterator[Remedy]:
    """Yield how to change a setting of the kernel, now and at each boot."""
    line = f"{name}={value}"
    yield Remedy(
        what="Let users make user namespaces, until the next boot",
        who="administrator",
        lines=(f"sysctl -w {line}",),
    )
    yield Remedy(
        what="Let users make user namespaces, at each boot",
        who="administrator",
        lines=(f"echo '{line}' > {_SETTINGS_FILE}", "sysctl --system"),
    )


def _of_apparmor() -> Iterator[Remedy]:
    """Yield how to let this Python make user namespaces on Ubuntu 23.10 and newer: apparmor.d(5)."""
    python = os.path.realpath(sys.executable)
    profile = (
        "abi <abi/4.0>,",
        "include <tunables/global>",
        "",
        f'profile pkgjail "{python}" flags=(unconfined) {{',
        "  userns,",
        "  include if exists <local/pkgjail>",
        "}",
    )
    yield Remedy(
        what=f"Let {python}, which runs pkgjail, and what it starts, make user namespaces",
        who="administrator",
        lines=(f"cat > {_PROFILE} <<'END'", *profile, "END", f"apparmor_parser -r {_PROFILE}"),
    )
    yield Remedy(
        what="Or let all programs make user namespaces",
        who="administrator",
        lines=(f"echo '{RESTRICTED}=0' > {_SETTINGS_FILE}", "sysctl --system"),
    )


def _of_container(cause: Cause, around: Surroundings) -> Iterator[Remedy]:
    """Yield with which options to start the container around, or how to let a service of systemd."""
    for engine, options in cause.confinement.by_engine(filtered=cause.kind == "filter"):
        if around.container in {"", engine}:
            yield Remedy(
                what=f"If this is a container of {engine}: start it with these options",
                who="starter",
                lines=(f"{engine} run {' '.join(options)} IMAGE COMMAND",),
            )
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        yield Remedy(
            what="In Kubernetes: give the container this securityContext",
            who="starter",
            lines=("securityContext:", "  procMount: Unmasked", "  seccompProfile:", "    type: Unconfined"),
        )
    if cause.kind == "filter" and not around.container:
        yield Remedy(
            what="If this is a service of systemd: let it make namespaces ('systemctl edit SERVICE')",
            who="starter",
            lines=("[Service]", "RestrictNamespaces=no", "SystemCallFilter="),
        )


def _of_chroot(condition: str = "") -> Iterator[Remedy]:
    yield Remedy(
        what=f"{condition}Enter its directory by pivot_root(8), as a container does, and not by chroot(8)",
        who="starter",
        lines=(_IN_DIRECTORY,),
    )
    outside = f"Or start pkgjail outside of it, and name its directory by {parameter('root')}"
    yield Remedy(what=outside, who="user")


def of_root(around: Surroundings) -> Remedy:
    """Return how a user comes to the stage of root."""
    if os.geteuid():
        lines = ("sudo pkgjail run --stage root MANIFEST -- COMMAND",)
        return Remedy(
            what="If you may use sudo: let root make the jail, with your rights", who="user", lines=lines
        )
    options = "--cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined"
    engines = [name for name in ("podman", "docker") if around.container in {"", name}]
    unmask = {"podman": "unmask=ALL", "docker": "systempaths=unconfined"}
    commands = tuple(
        f"{engine} run {options} --security-opt {unmask[engine]} IMAGE COMMAND" for engine in engines
    )
    what = "In a container: start it with the privileges that mounts take"
    return Remedy(what=what, who="starter", lines=commands)


def of_helper() -> Remedy:
    """Return how pkgjaild is set up."""
    units = "/etc/systemd/system/pkgjaild"
    user = shell_quote(_user_name()) if os.geteuid() else "USER"
    return Remedy(
        what="Run pkgjaild, which makes jails with the rights of the users whom its policy allows",
        who="administrator",
        lines=(
            f"groupadd --system pkgjail && usermod --append --groups pkgjail {user}",
            "pkgjaild --print-policy > /etc/pkgjaild.toml    # for the members of that group",
            "pkgjaild --check",
            f"pkgjaild --print-unit socket > {units}.socket",
            f"pkgjaild --print-unit service > {units}.service",
            "systemctl daemon-reload",
            "systemctl enable --now pkgjaild.socket    # without systemd: start pkgjaild at boot",
        ),
    )


def of_supervised() -> Remedy:
    """Return what the stage without namespaces needs."""
    return Remedy(
        what="Use Linux 6.12 or newer, with Landlock: append 'landlock' to the boot option lsm=",
        who="administrator",
    )


def of_limits() -> Remedy:
    """Return how podman is kept from raising limits, which a machine may forbid even to root."""
    place = "/etc/containers" if os.geteuid() == 0 else '"${XDG_CONFIG_HOME:-$HOME/.config}"/containers'
    return Remedy(
        what="Let podman leave the limits of processes and open files as they are",
        who="user",
        lines=(
            f"mkdir -p {place}",
            f"cat >> {place}/containers.conf <<'END'",
            "[containers]",
            'default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]',
            "END",
        ),
    )


def installation(name: str, around: Surroundings) -> Remedy:
    """Return how to install the program of an engine, or "kernel"."""
    names = _PACKAGES[name]
    package = names.get(around.family) or names.get("") or names[DEBIAN]
    command = _INSTALL.get(around.family, "")
    lines = (f"{command} {package}",) if command else ()
    return Remedy(what=f"Install {package}", who="administrator", lines=lines)


def subordinate_ids() -> Remedy:
    """Return how the calling user gets subordinate ids: subuid(5)."""
    user = _user_name()
    first = max(_next_free("/etc/subuid"), _next_free("/etc/subgid"))
    line = f"{user}:{first}:{_SUBORDINATES}"
    return Remedy(
        what=f"Give the user subordinate ids, which {parameter(_MAP_ROOT)} and rootless containers use",
        who="administrator",
        lines=(f"echo {shell_quote(line)} | tee -a /etc/subuid >> /etc/subgid",),
    )


def _user_name() -> str:
    """Return the calling user's name, or the number if there is none."""
    with suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def _next_free(path: str) -> int:
    """Return the first number that no line of subuid(5) has, from the usual first one."""
    last = _FIRST_SUBORDINATE
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            _, first, count = (*line.strip().split(":"), "", "")[:3]
            if first.isdecimal() and count.isdecimal():
                last = max(last, int(first) + int(count))
    return last
