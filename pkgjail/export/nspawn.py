r"""Export settings for systemd-nspawn(1): a `.nspawn` file, see systemd.nspawn(5).

A value of BindReadOnly= is split at colons; a backslash quotes the next byte. systemd reads settings as
UTF-8, ends a line at LF and at CR, and has no escape for either.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pkgjail.core.jail_names import RUN, SEARCH_PATH, TMP
from pkgjail.export.common import (
    host_files,
    is_within,
    on_host,
    own_entries,
    refuse,
    scratch_directories,
)

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest

_HEAD = b"""\
# Written by pkgjail export. Its root directory is a skeleton: pkgjail export --format nspawn --skeleton.
[Exec]
ProcessTwo=yes
PrivateUsers=no
NoNewPrivileges=yes
DropCapability=all
Hostname=pkgjail
Environment=PATH=%s
ResolvConf=off
Timezone=off
LinkJournal=no

[Network]
Private=no
VirtualEthernet=no

[Files]
ReadOnly=yes
"""
_SPECIAL = re.compile(rb"[:\\]")
# systemd-nspawn mounts filesystems of its own there.
_COVERED = (RUN, TMP)


def write(manifest: Manifest, root: bytes, at: bytes | None) -> bytes:
    """Return the settings; names other than regular files are in the skeleton.

    Raises:
        InputError: names that settings cannot express, or that systemd-nspawn would cover.

    """
    del at
    files = host_files(manifest)
    covered = [
        e.path for e in own_entries(manifest) if is_within(e.path, _COVERED) and e.path not in _COVERED
    ]
    refuse("nspawn", covered, "systemd-nspawn mounts its own file system there; put it on the blacklist")
    unfit = [e.path for e in files if _is_unfit(e.path)]
    if not unfit and files and _is_unfit(root):
        unfit = [root]
    refuse("nspawn", unfit, "systemd's settings cannot express line ends, or bytes that are not UTF-8")
    lines = [_HEAD % SEARCH_PATH.encode()]
    for entry in files:
        place = _SPECIAL.sub(rb"\\\g<0>", entry.path)
        source = _SPECIAL.sub(rb"\\\g<0>", on_host(root, entry.path))
        # The option keeps a trailing space or backslash of a name from ending the line.
        lines.append(b"BindReadOnly=%s:%s:norbind\n" % (source, place))
    lines += [
        b"TemporaryFileSystem=%s:mode=1777\n" % path
        for path in scratch_directories(manifest)
        if path not in _COVERED
    ]
    return b"".join(lines)


def _is_unfit(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return True
    return b"\n" in path or b"\r" in path
