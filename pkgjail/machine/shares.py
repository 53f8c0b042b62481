"""Directories of the host in a guest: shared by 9p where the guest's kernel can, or else copied.

A share is the directory itself: what the command writes is there at once. A copy is a disk that is made of
the directory before the start; what commands changed of it comes back at the end.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import os_error_text
from pkgjail.core.model import record
from pkgjail.core.text import counted, text_path
from pkgjail.machine.changes import Changes, read_change
from pkgjail.machine.contents import Request, Shown
from pkgjail.machine.copies import copied_disk
from pkgjail.machine.frames import Fields, Type, number, text
from pkgjail.machine.model import MachineError
from pkgjail.machine.modules import load_modules
from pkgjail.machine.qemu import Share
from pkgjail.machine.running import failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.reporter import Reporter
    from pkgjail.machine.contents import Contents
    from pkgjail.machine.copies import Copy
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

    `shown` are the directories, and `copies` their copies, if they are not shared.
    """

    modules: tuple[str, ...]
    shares: tuple[Share, ...]
    shown: tuple[Shown, ...]
    copies: tuple[Copy, ...] = ()

    @property
    def disks(self) -> tuple[tuple[int, bool], ...]:
        """Return a descriptor of each copy's disk, which is not written to."""
        return tuple((copy.disk, False) for copy in self.copies)

    def mount(self, shown: Shown) -> Request:
        """Return the request for the agent to mount one of the directories."""
        flags = 0 if shown.writable else _READ_ONLY
        place = self.shown.index(shown)
        if self.copies:
            device = b"/dev/vd%c" % (ord("b") + place)
            what = text(b"squashfs") + text(device) + text(b"")
            return Request(Type.MOUNT, what + number(flags | _ON_DISK) + number(place) + text(shown.path))
        tag = self.shares[place].tag
        what = text(b"9p") + text(tag.encode()) + text(_OPTIONS)
        return Request(Type.MOUNT, what + number(flags) + number(0) + text(shown.path))

    def bring_back(self, running: Running, kept: Sequence[bytes], reporter: Reporter) -> None:
        """Change the directories that were copied, as commands changed their copies.

        Args:
            running: the machine, in which nothing runs any more.
            kept: paths in the guest that must stay as they are.
            reporter: receives warnings of what is left out.

        Raises:
            MachineError: changes cannot be had, or not be made; it names what was not.

        """
        for place, (shown, copy) in enumerate(zip(self.shown, self.copies)):
            if not shown.writable:
                continue
            prefix = shown.path.rstrip(b"/") + b"/"
            names = [path[len(prefix) :] for path in kept if path.startswith(prefix)]
            with Changes(copy, names, reporter) as changes:
                _receive(running, place, changes, shown, reporter)
                changes.apply()


def _receive(running: Running, place: int, changes: Changes, shown: Shown, reporter: Reporter) -> None:
    running.channel.send(0, Type.CHANGES, number(place))
    while True:
        for message in running.messages():
            if message.type == Type.CHANGE:
                changes.add(read_change(message.content))
            elif message.type == Type.CHANGE_CONTENT:
                changes.content(message.content)
            elif message.type == Type.FAILED:
                raise failure(message)
            elif message.type == Type.DONE:
                if left_out := Fields(message.content).number():
                    reporter.warn(
                        f"not brought back to {text_path(shown.source)}: {counted(left_out, 'special file')} "
                        "(a socket, a FIFO or a device)"
                    )
                return


@contextlib.contextmanager
def prepared_shares(
    contents: Contents, kernel: Kernel, way: ShareOption, reporter: Reporter
) -> Iterator[Shares]:
    """Open the directories that a machine shows, or copy them.

    Raises:
        MachineError: the kernel cannot share them, and `way` asks for that; or one cannot be read.

    """
    shown = tuple(step for step in contents.steps if isinstance(step, Shown))
    absent = load_modules(kernel, _MODULES)[1] if shown and way in _WAYS else ()
    if not shown:
        yield Shares(modules=(), shares=(), shown=())
        return
    with contextlib.ExitStack() as stack:
        if way in _WAYS and not absent:
            opened = [_opened(each.source, stack) for each in shown]
            shares = tuple(
                Share(descriptor, f"share{place}", each.writable)
                for place, (descriptor, each) in enumerate(zip(opened, shown))
            )
            yield Shares(modules=_MODULES, shares=shares, shown=shown)
            return
        lacking = f"the kernel {kernel.release} has no {', '.join(absent)}"
        names = ", ".join(text_path(each.source) for each in shown)
        if way == _WAYS[1]:
            raise MachineError(f"cannot share {names}: {lacking}")
        reporter.warn(
            f"{names}: copied into the machine{f', as {lacking}' if absent else ''}; "
            "what changes there comes back when the command has ended"
        )
        copies = tuple(stack.enter_context(copied_disk(each.source, reporter)) for each in shown)
        yield Shares(modules=(), shares=(), shown=shown, copies=copies)


def _opened(path: bytes, stack: contextlib.ExitStack) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(f"cannot share {text_path(path)}: {os_error_text(error)}") from error
    stack.callback(os.close, descriptor)
    return descriptor
