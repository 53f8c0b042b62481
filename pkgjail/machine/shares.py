"""Directories of the host in a guest: shared by 9p where the guest's kernel can, or else copied.

A share is the directory itself: what the command writes is there at once. A copy is a disk that is made of
the directory before the start; what commands changed of it comes back at the end.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import os_error_text
from pkgjail.core.model import record, text_path
from pkgjail.machine.contents import Request, Shown
from pkgjail.machine.frames import Type, number, text
from pkgjail.machine.model import MachineError
from pkgjail.machine.modules import load_modules
from pkgjail.machine.qemu import Share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.reporter import Reporter
    from pkgjail.machine.contents import Contents
    from pkgjail.machine.model import Kernel, ShareOption
    from pkgjail.machine.running import Running

_MODULES = ("9p", "9pnet_virtio")
# Names that the kernel keeps would be wrong after the host changes them; mmap(2) needs a cache to write to.
_OPTIONS = b"trans=virtio,version=9p2000.L,msize=524288,cache=mmap,access=any"
_READ_ONLY, _ON_DISK = 1, 2
_WAYS = ("auto", "9p")


@record
class Shares:
    """How a machine shows directories of the host: `modules` of the kernel, what qemu shares, and disks.

    `copied` are the directories that are copied, in the order of `disks`.
    """

    modules: tuple[str, ...]
    shares: tuple[Share, ...]
    disks: tuple[tuple[int, bool], ...]
    copied: tuple[Shown, ...]
    shown: tuple[Shown, ...]

    def mount(self, shown: Shown) -> Request:
        """Return the request for the agent to mount one of the directories."""
        flags = 0 if shown.writable else _READ_ONLY
        if shown in self.copied:
            place = self.copied.index(shown)
            device = b"/dev/vd%c" % (ord("b") + place)
            what = text(b"squashfs") + text(device) + text(b"")
            return Request(Type.MOUNT, what + number(flags | _ON_DISK) + number(place) + text(shown.path))
        tag = self.shares[self.shown.index(shown)].tag
        what = text(b"9p") + text(tag.encode()) + text(_OPTIONS)
        return Request(Type.MOUNT, what + number(flags) + number(0) + text(shown.path))

    def bring_back(self, running: Running, kept: Sequence[bytes], reporter: Reporter) -> None:
        """Change the directories that were copied as commands changed the copies."""


@contextlib.contextmanager
def prepared_shares(contents: Contents, kernel: Kernel, way: ShareOption) -> Iterator[Shares]:
    """Open the directories that a machine shows, and copy them if they cannot be shared.

    Raises:
        MachineError: the kernel cannot share them, and `way` asks for that; or one cannot be opened.

    """
    shown = tuple(step for step in contents.steps if isinstance(step, Shown))
    absent = load_modules(kernel, _MODULES)[1] if shown and way in _WAYS else ()
    with contextlib.ExitStack() as stack:
        if not shown:
            yield Shares(modules=(), shares=(), disks=(), copied=(), shown=())
        elif way in _WAYS and not absent:
            shares = tuple(
                Share(_opened(each.source, stack), f"share{place}", each.writable)
                for place, each in enumerate(shown)
            )
            yield Shares(modules=_MODULES, shares=shares, disks=(), copied=(), shown=shown)
        else:
            names = ", ".join(text_path(each.source) for each in shown)
            why = f"the kernel {kernel.release} has no {', '.join(absent)}" if absent else "no copies yet"
            raise MachineError(f"cannot share {names}: {why}")


def _opened(path: bytes, stack: contextlib.ExitStack) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(f"cannot share {text_path(path)}: {os_error_text(error)}") from error
    stack.callback(os.close, descriptor)
    return descriptor
