"""A /dev of a test's own, with made-up names of devices, in a user and mount namespace of one program.

An ordinary user can make no devices, so each name shows one of the host's harmless ones.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.conftest import SYSTEM_PYTHON

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# Carried out by the caller. The program keeps the caller's ids, and loses its capabilities when it starts.
_PROGRAM = """
import json, os, sys
from pkgjail.sandbox import syscalls as sc

top, names, command = os.fsencode(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
uid, gid, bind = os.geteuid(), os.getegid(), 0x1000
sc.unshare(sc.CLONE_NEWUSER | sc.CLONE_NEWNS)
for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
    with open(f"/proc/self/{file}", "w") as written:
        written.write(text)
sc.mount(None, b"/", None, sc.MS_REC | sc.MS_PRIVATE)
sc.mount(b"tmpfs", top, b"tmpfs", 0, b"mode=0755")
usual = {name: "/dev/" + name for name in ("null", "zero", "full", "random", "urandom", "tty")}
for name, shown in {**usual, **names}.items():
    path = os.path.join(top, os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if shown.startswith("-> "):
        os.symlink(os.fsencode(shown[3:]), path)
        continue
    open(path, "x").close()
    if shown:
        sc.mount(os.fsencode(shown), path, None, bind)
for name in (b"pts", b"shm"):
    os.mkdir(os.path.join(top, name))
sc.mount(b"/dev/shm", top + b"/shm", None, bind | sc.MS_REC)
sc.mount(top, b"/dev", None, bind | sc.MS_REC)
os.execvp(command[0], command)
"""


def with_own_dev(directory: Path, names: Mapping[str, str], command: Sequence[str | Path]) -> list[str]:
    """Return the command that runs `command` with a /dev that has `names` and what every /dev has.

    `directory` is an empty directory that the caller may mount over. Each name shows a device of the host by
    its path, is a link (`-> TARGET`), or is an empty regular file ("").
    """
    start = [SYSTEM_PYTHON, "-c", _PROGRAM, str(directory), json.dumps(dict(names))]
    return [*start, *map(str, command)]
