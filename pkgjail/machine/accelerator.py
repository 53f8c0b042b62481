"""Whether the host's processor can run a guest (KVM), found by booting one.

That /dev/kvm opens proves nothing: in some containers and nested machines it does, and no guest reaches its
first instruction. An answer "no" is kept until the host restarts, since finding it takes seconds.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from pkgjail.core.architectures import architecture_named, host_architecture
from pkgjail.core.errors import os_error_text
from pkgjail.storage.locations import runtime_directory
from pkgjail.storage.own_files import opened_directory

if TYPE_CHECKING:
    from pkgjail.machine.model import Kernel

DEVICE = "/dev/kvm"
SECONDS = 8
"""A guest that is not ready after so long with KVM never will be: it takes about one second."""

_PREFIX = "no-kvm-"


def why_no_kvm(architecture: str) -> str:
    """Return why a guest of an architecture cannot use KVM here, as far as shows without booting; or ""."""
    if architecture_named(architecture) != host_architecture():
        return f"the host is {host_architecture()}"
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return os_error_text(error, DEVICE)
    return ""


def failed_before(kernel: Kernel) -> bool:
    """Return whether a guest with this kernel did not start with KVM, since the host started."""
    return os.path.exists(_answer(kernel))


def remember_failure(kernel: Kernel) -> None:
    """Keep that answer; if that fails, the next run tries again."""
    path = _answer(kernel)
    with suppress(OSError), opened_directory(os.path.dirname(path), make=True) as directory:
        name = os.path.basename(path)
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory))


def _answer(kernel: Kernel) -> str:
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        key = hashlib.sha256(file.read() + kernel.image)
    return os.path.join(runtime_directory(), _PREFIX + key.hexdigest()[:16])
