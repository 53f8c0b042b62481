"""The emulators that the kernel starts for programs of other architectures, as binfmt_misc has them.

See Documentation/admin-guide/binfmt-misc.rst in the kernel's sources. An emulator is of use in a jail if it
has the flag F: then the kernel opened it when it was registered, and needs no file of the jail.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from pkgjail.core.architectures import host_architecture, runs_program, tiny_program
from pkgjail.core.parameters import parameter
from pkgjail.core.text import printable, shell_quote

if TYPE_CHECKING:
    from pkgjail.core.architectures import Architecture

BINFMT_MISC = "/proc/sys/fs/binfmt_misc"

_MOST_BYTES = 65536  # of one registration: magic and mask have at most 128 bytes each
_STAGE: Final = "stage='vm'"
_PACKAGE = "qemu-user-static"  # so named by Debian and Fedora


class Registration(NamedTuple):
    """An emulator that is registered: its name in binfmt_misc, its program, and the letters of its flags."""

    name: str
    is_enabled: bool
    interpreter: str
    flags: str

    @property
    def is_fixed(self) -> bool:
        """Whether the kernel has the emulator open already, so that a jail need not have it."""
        return "F" in self.flags


def registration_for(architecture: Architecture, directory: str = BINFMT_MISC) -> Registration | None:
    """Return the emulator that is registered for programs of an architecture: an enabled one, if any is.

    None if there is none, or if binfmt_misc is not mounted at the directory.
    """
    header = tiny_program(architecture)
    found = [each for each in _registrations(directory) if _matches(each[1], header)]
    enabled = [each for each, _ in found if each.is_enabled]
    return next(iter((*enabled, *(each for each, _ in found))), None)


class Obstacle(NamedTuple):
    """Why programs of an architecture do not run by emulation, and what to do about it as root."""

    why: str
    remedy: str


def obstacle(architecture: Architecture, directory: str = BINFMT_MISC) -> Obstacle | None:
    """Return why no emulator runs programs of an architecture in another root directory; None if one may.

    If it cannot be seen, a program is run.
    """
    status = _read(os.path.join(directory, "status"))
    if status.strip() == "enabled":
        return _obstacle_seen(architecture, directory)
    if status:
        return Obstacle("binfmt_misc is disabled", f"echo 1 > {directory}/status")
    if runs_program(architecture):
        return None
    return Obstacle(
        f"{directory} is not mounted, and a program for it, which was tried, does not run",
        f"mount -t binfmt_misc binfmt_misc {directory}, and {_how_to_register(architecture)}",
    )


def _obstacle_seen(architecture: Architecture, directory: str) -> Obstacle | None:
    found = registration_for(architecture, directory)
    if found is None:
        return Obstacle(f"no emulator is registered for it in {directory}", _how_to_register(architecture))
    emulator, place = printable(found.interpreter), shell_quote(os.path.join(directory, found.name))
    if not found.is_enabled:
        return Obstacle(f"the emulator {emulator} is disabled", f"echo 1 > {place}")
    if found.is_fixed:
        return None
    return Obstacle(
        f"the emulator {emulator} is registered without the flag F, so the kernel looks for it among the "
        "files inside, which do not have it",
        f"echo -1 > {place}, and {_how_to_register(architecture)}",
    )


def _how_to_register(architecture: Architecture) -> str:
    return (
        f"install the package {_PACKAGE}, which registers {architecture.qemu_user} with the flag F, or run "
        f"'update-binfmts --enable {architecture.qemu_user}' if it is installed"
    )


def refusal(architecture: Architecture, found: Obstacle, *, what: str, machine: bool = True) -> str:
    """Return the message that `what` cannot be done, since programs do not run here: why, and the ways out.

    `machine` is whether a virtual machine is one.
    """
    host = host_architecture() or os.uname().machine
    another = f"; or use a virtual machine: {parameter(_STAGE)}" if machine else ""
    return (
        f"cannot {what}: it is for {architecture}, this host is {host}, and {found.why}; "
        f"as root: {found.remedy}{another}"
    )


def _registrations(directory: str) -> list[tuple[Registration, dict[str, str]]]:
    """Return all that are registered, with the lines of each."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            lines = _read(os.path.join(directory, name)).splitlines()
            fields = dict(line.replace(":", "").split(" ", 1) for line in lines if " " in line)
            if lines and "interpreter" in fields:
                flags = fields.get("flags", "")
                found.append(
                    (Registration(name, lines[0] == "enabled", fields["interpreter"], flags), fields)
                )
    return found


def _matches(fields: dict[str, str], header: bytes) -> bool:
    """Return whether the kernel starts the emulator for a file, by its first bytes."""
    with contextlib.suppress(ValueError, KeyError):
        offset, magic = int(fields["offset"]), bytes.fromhex(fields["magic"])
        mask = bytes.fromhex(fields.get("mask", "ff" * len(magic)))
        there = header[offset : offset + len(magic)]
        return len(there) == len(magic) and all((a ^ b) & m == 0 for a, b, m in zip(there, magic, mask))
    return False


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", "backslashreplace")
    return ""
