"""Export arguments for bubblewrap, NUL-terminated, as `bwrap --args FD` reads them; bwrap(1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.devices import find_devices
from pkgjail.core.errors import InputError, Problem
from pkgjail.core.jail_names import HOSTNAME, SEARCH_PATH, TMP
from pkgjail.core.text import raw_path
from pkgjail.export.common import (
    entry_files,
    missing_directories,
    on_host,
    own_entries,
    scratch_directories,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.model import FileEntry, Manifest

# bubblewrap's MAX_ARGS is 9,000 for the command line and the arguments of --args together; this leaves 100
# for the user's own options and the command.
MOST = 8900

_NAMESPACES = (
    b"--unshare-user", b"--unshare-ipc", b"--unshare-pid", b"--unshare-uts", b"--hostname", HOSTNAME.encode(),
    b"--die-with-parent", b"--new-session", b"--cap-drop", b"ALL",
    b"--clearenv", b"--setenv", b"HOME", TMP, b"--setenv", b"LANG", b"C.UTF-8",
    b"--setenv", b"PATH", SEARCH_PATH.encode(),
)  # fmt: skip
_DEFAULT_MODE = 0o755
_PERMISSIONS = 0o777


def write(manifest: Manifest, root: bytes, at: bytes | None) -> bytes:
    """Return the arguments; `at` is the directory with files made at entry, or None to leave them out.

    Raises:
        InputError: bubblewrap cannot take that many arguments.

    """
    arguments = list(_arguments(manifest, root, at))
    if len(arguments) > MOST:
        raise InputError(
            [
                Problem(
                    "",
                    f"cannot export to bwrap: {len(arguments):,} arguments would be needed for "
                    f"{len(manifest.files):,} names, and bubblewrap takes 9,000 in all; "
                    "whole directories would show more than the manifest, so use 'pkgjail run', or a "
                    "shorter whitelist",
                )
            ]
        )
    return b"".join(argument + b"\0" for argument in arguments)


def _arguments(manifest: Manifest, root: bytes, at: bytes | None) -> Iterator[bytes]:
    made = {entry.path for entry in entry_files(manifest)}
    yield from _NAMESPACES
    for entry in own_entries(manifest):
        if entry.path not in made:
            yield from _entry(entry, on_host(root, entry.path))
        elif at is not None:
            yield from (b"--ro-bind", on_host(at, entry.path), entry.path)
    for path in missing_directories(manifest):
        yield from (b"--dir", path)
    yield from (b"--proc", b"/proc", b"--dev", b"/dev", b"--ro-bind", b"/sys", b"/sys")
    for path, kind, _, target in find_devices(raw_path(device.pattern) for device in manifest.devices):
        yield from (b"--symlink", target, path) if kind == "link" else (b"--dev-bind-try", path, path)
    for path in scratch_directories(manifest):
        yield from (b"--perms", b"1777", b"--tmpfs", path)
    # Not recursive: it makes the names made here read-only, and leaves the mounts as they are.
    yield from (b"--remount-ro", b"/")


def _entry(entry: FileEntry, source: bytes) -> tuple[bytes, ...]:
    if entry.kind == "symlink":
        return (b"--symlink", entry.target or b"", entry.path)
    if entry.kind == "regular":
        return (b"--ro-bind", source, entry.path)
    mode = b"%04o" % entry.mode
    if entry.path == b"/":
        return () if entry.mode == _DEFAULT_MODE else (b"--chmod", mode, b"/")
    if entry.mode == _DEFAULT_MODE:
        return (b"--dir", entry.path)
    if entry.mode > _PERMISSIONS:  # mkdir(2) drops the set-group-ID bit
        return (b"--dir", entry.path, b"--chmod", mode, entry.path)
    return (b"--perms", mode, b"--dir", entry.path)
