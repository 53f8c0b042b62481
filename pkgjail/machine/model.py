"""The types of machines: kernels, and what goes wrong."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pkgjail.core.errors import JailError
from pkgjail.core.model import record


class MachineError(JailError):
    """A machine cannot be made here, or came to an end before the command did."""


@record
class Kernel:
    """A kernel of a distribution.

    `image` is the path of the file that is booted, `release` what uname(2) says there. `modules` is the
    directory of its modules (`/lib/modules/RELEASE`), or b"" if it has none. `architecture` is in Debian's
    word.
    """

    image: bytes
    release: str
    modules: bytes
    architecture: str


class Module(NamedTuple):
    """A module of a kernel, as the kernel loads it: not compressed."""

    name: str
    content: bytes


ShareOption = Literal["auto", "9p", "copy"]
"""How a directory of the host is shown: shared, copied, or by the first way that works."""


@record
class MachineOptions:
    """A machine of the stage `vm`.

    `kernel` names a kernel's file, or a directory or a package with one, as `pkgjail.machine.kernels` finds
    it. `memory` is in bytes, `processors` their number; 0 is the default. `scratch` is the size in bytes
    of a disk for what commands write outside of binds; 0 is memory. A machine that is kept running ends after
    `idle` seconds without a command.
    """

    kernel: str = ""
    memory: int = 0
    processors: int = 0
    scratch: int = 0
    share: ShareOption = "auto"
    idle: float = 900
