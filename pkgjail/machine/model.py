"""The types of machines: kernels, and what goes wrong."""

from __future__ import annotations

from typing import NamedTuple

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
