"""Emulators for tests, mostly in a user namespace with a binfmt_misc of its own (Linux 6.7).

What is registered there, the host does not have, and what the host has registered does not matter there.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.core.architectures import architecture_named, tiny_program
from pkgjail.core.binfmt import BINFMT_MISC

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILED = 99
"""The status if nothing can be registered."""
ARM64 = architecture_named("arm64")
_MASK = "ff" * 7 + "00" + "ff" * 8 + "feffffff"


def registration(flags: str = "F", name: str = "qemu-aarch64") -> str:
    """Return what registers qemu for arm64, as the kernel reads it."""
    magic = "".join(f"\\x{byte:02x}" for byte in tiny_program(ARM64)[:20])
    mask = "".join(f"\\x{byte:02x}" for byte in bytes.fromhex(_MASK))
    return f":{name}:M::{magic}:{mask}:/usr/bin/qemu-aarch64-static:{flags}"


def within(*registrations: str, then: str = "") -> list[str]:
    """Return words before a command, which then runs where these are registered, and nothing else is.

    `then` are further lines of a shell.
    """
    lines = [f"mount -t binfmt_misc binfmt_misc {BINFMT_MISC}"]
    lines += [f"printf %s '{each}' > {BINFMT_MISC}/register" for each in registrations]
    script = " && ".join([*lines, *([then] if then else ())])
    return [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f'{script} || exit {FAILED}; exec "$@"',
        "sh",
    ]


def tree_of(place: Path, word: str) -> Path:
    """Make a directory whose only program, /bin/probe, is a tiny one for an architecture."""
    program = place / "bin/probe"
    program.parent.mkdir(parents=True)
    program.write_bytes(tiny_program(architecture_named(word)))
    program.chmod(0o755)
    return place


@contextmanager
def registered_on_the_host() -> Iterator[None]:
    """Register qemu for arm64 on this host, as root, and undo that at the end."""
    place, name = Path(BINFMT_MISC), f"pkgjail-test-{os.getpid()}"
    was_mounted = (place / "register").exists()
    if not was_mounted:
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", place], check=True)
    try:
        (place / "register").write_text(registration(name=name))
        yield
    finally:
        (place / name).write_text("-1")
        if not was_mounted:
            subprocess.run(["umount", place], check=True)
