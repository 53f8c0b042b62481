"""A host without user namespaces, made of one that has them: nothing of the host changes.

The test's user namespace has all of the host's ids, and lets nobody make namespaces of the kind (the limits
of namespaces(7), /proc/sys/user, are those of the user namespace that they are written in).
"""

from __future__ import annotations

import json
import os
import sys

_CODE = """
import ctypes, json, os, sys
uid, command = int(sys.argv[1]), json.loads(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    assert libc.unshare(0x10000000) == 0
    os.write(ready[1], b"-")
    os.read(go[0], 1)
    with open("/proc/sys/user/max_user_namespaces", "w") as limit:
        limit.write("0")
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    os.execvp(command[0], command)
os.read(ready[0], 1)
for kind in ("uid", "gid"):
    with open(f"/proc/{child}/{kind}_map", "w") as file:
        file.write("0 0 4294967295")
os.write(go[1], b"-")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def without_user_namespaces(command: list[str], uid: int = 0) -> list[str]:
    """Return the command, for root, that runs `command` as a user who can make no user namespace.

    The user namespace around it is not the host's, so `uid` 0 has root's rights over its own namespaces only.
    """
    return [sys.executable, "-c", _CODE, str(uid), json.dumps([os.fspath(word) for word in command])]
