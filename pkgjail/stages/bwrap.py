"""The stage of bubblewrap, bwrap(1)."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from pkgjail.core.jail_names import PROC_READ_ONLY
from pkgjail.core.untrusted import in_memory
from pkgjail.export.image.bundle import hidden_paths
from pkgjail.sandbox import seccomp
from pkgjail.stages.engine import KILLED_AT_ONCE, SEE_ABOVE, Engine, Started
from pkgjail.stages.model import KEPT, Promise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.stages.container import Container, Mount
    from pkgjail.stages.model import Property

_STATUS = "status"


class Bwrap(Engine):
    """Containers of bubblewrap, which needs user namespaces as pkgjail does, or root."""

    name = "bwrap"
    summary = "bubblewrap"
    program = "bwrap"
    package = "bubblewrap"

    def differences(self) -> Mapping[Property, Promise]:
        """Return what differs from other engines."""
        return {
            "devices": KEPT,
            "signals": Promise(kept=False, note=KILLED_AT_ONCE),
            "map-root": Promise(kept=False, note="bubblewrap maps one user alone"),
        }

    @contextlib.contextmanager
    def started(self, container: Container) -> Iterator[Started]:
        """Pass the arguments in memory: others can read a command line."""
        with contextlib.ExitStack() as stack:
            filters = stack.enter_context(in_memory(seccomp.compiled(network=container.network)))
            status = os.open(_status_file(container), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, status)
            own = (b"--seccomp", b"%d" % filters.fileno(), b"--json-status-fd", b"%d" % status)
            words = b"".join(word + b"\0" for word in (*own, *_arguments(container)))
            arguments = stack.enter_context(in_memory(words))
            inherited = (filters.fileno(), status, arguments.fileno())
            command = (self._path(), "--args", str(arguments.fileno()), "--", *container.argv)
            yield Started(command, {}, inherited)

    def failure(self, container: Container, status: int) -> str:
        """Return that bubblewrap failed, if it did not report the end of the command."""
        if status and "exit-code" not in _reported(container) and status <= 128:  # noqa: PLR2004 - no signal
            return SEE_ABOVE
        return ""


def _arguments(container: Container) -> Iterator[bytes]:
    yield from (b"--unshare-ipc", b"--unshare-pid", b"--unshare-uts", b"--die-with-parent")
    yield from (b"--hostname", os.fsencode(container.hostname), b"--cap-drop", b"ALL", b"--clearenv")
    if container.keep_names:
        yield from (b"--unshare-user", b"--disable-userns")
    elif os.geteuid():
        yield b"--unshare-user"
    if not container.network:
        yield b"--unshare-net"
    for name, value in container.environment:
        yield from (b"--setenv", os.fsencode(name), os.fsencode(value))
    yield from (b"--ro-bind", container.root, b"/")
    yield from (b"--proc", b"/proc", b"--dev", b"/dev", b"--ro-bind", b"/sys", b"/sys")
    yield from _covers()
    for path, kind, _, target in container.devices:
        yield from (b"--symlink", target, path) if kind == "link" else (b"--dev-bind", path, path)
    for path in container.scratch:
        yield from (b"--perms", b"1777", b"--tmpfs", path)
    for mount in container.mounts:
        yield from _mount(mount)
    yield from (b"--chdir", container.cwd)


def _covers() -> Iterator[bytes]:
    """Cover what bubblewrap leaves open to the host's root; it covers other parts of /proc itself."""
    if os.geteuid():
        return
    for name in PROC_READ_ONLY:
        path = b"/proc/" + name
        if os.path.lexists(path):
            yield from (b"--ro-bind", path, path)
    for path in hidden_paths(as_root=True):
        if os.path.isdir(path):
            yield from (b"--tmpfs", path, b"--remount-ro", path)
        else:
            yield from (b"--ro-bind", b"/dev/null", path)


def _mount(mount: Mount) -> tuple[bytes, bytes, bytes]:
    return (b"--bind" if mount.writable else b"--ro-bind", mount.source, mount.path)


def _status_file(container: Container) -> str:
    return os.path.join(container.work, _STATUS)


def _reported(container: Container) -> set[str]:
    """Return the keys of what bubblewrap reported: `child-pid`, and `exit-code` once the command ended."""
    with open(_status_file(container), encoding="utf-8") as file:
        return {key for line in file if line.strip() for key in json.loads(line)}
