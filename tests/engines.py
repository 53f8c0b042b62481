"""Surroundings as container engines make them by default: their seccomp filters, and a /proc with covers.

The refused calls are those of the engines' own profiles that pkgjail makes: containers/common's seccomp.json
for podman, and moby/profiles' default.json for Docker, each for a container without CAP_SYS_ADMIN.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from typing import TYPE_CHECKING

from tests.conftest import SYSTEM_PYTHON

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HOST_NAME = "box-of-tests"
_X86_64 = {
    "mount": 165, "umount2": 166, "pivot_root": 155, "setns": 308, "unshare": 272, "keyctl": 250, "clone": 56,
    "sethostname": 170, "setdomainname": 171,
}  # fmt: skip
_GENERIC = {
    "mount": 40, "umount2": 39, "pivot_root": 41, "setns": 268, "unshare": 97, "keyctl": 219, "clone": 220,
    "sethostname": 161, "setdomainname": 162,
}  # fmt: skip
# From Linux 5.2 on, a call has one number on all architectures.
_NEW = {
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "mount_setattr": 442,
}  # fmt: skip
_NUMBERS = {**(_X86_64 if os.uname().machine == "x86_64" else _GENERIC), **_NEW}
_CLONE = _NUMBERS.pop("clone")
REFUSED = {
    "no filter": (),
    "podman": ("sethostname", "setdomainname"),
    "Docker": tuple(_NUMBERS),
    "one without fsopen": ("sethostname", "fsopen"),
}
"""The calls that each filter answers with EPERM. Docker's also refuses new namespaces by clone(2)."""

# As podman and Docker do: a file, a directory, and a directory that is made read-only. Every /proc has these.
_COVERS = """
mount --bind /dev/null /proc/version
mount -t tmpfs -o ro,size=0 tmpfs /proc/fs
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro,nosuid,nodev,noexec /proc/sys
"""
_AROUND = ("unshare", "--user", "--map-root-user", "--mount", "--uts", "--pid", "--fork", "--mount-proc")
# Installs the filter and becomes the command.
_FILTERED = """
import json, os, sys
from pkgjail.sandbox import seccomp, syscalls as sc
refused, clone, command = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
program = [(seccomp._LOAD, 0, 0, seccomp._NUMBER)]
for number in refused:
    program += seccomp._when(number, [seccomp._refuse(1)])
if clone:
    masked = [seccomp._argument(0), (0x54, 0, 0, 0x7E020000), *seccomp._when(0, [seccomp._allow()])]
    program += seccomp._when(435, [seccomp._refuse(38)])
    program += seccomp._when(clone, [*masked, seccomp._refuse(1)])
seccomp._program = lambda *_, **__: [*program, seccomp._allow()]
sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
seccomp.install(network=True)
os.execvp(command[0], command)
"""


def in_engine(filter_of: str, command: Sequence[object], *, covered: bool) -> list[str]:
    """Return the command that runs `command` behind the filter of an engine, with or without a covered /proc.

    The program's own host name there is `HOST_NAME`.
    """
    refused = json.dumps([_NUMBERS[name] for name in REFUSED[filter_of]])
    clone = str(_CLONE if filter_of == "Docker" else 0)
    filtered = [SYSTEM_PYTHON, "-c", _FILTERED, refused, clone, *map(str, command)]
    script = f"hostname {HOST_NAME}\n{_COVERS if covered else ''}exec {shlex.join(filtered)}"
    return [*_AROUND, "sh", "-ec", script]


def settings_of_podman(place: Path, driver: str = "vfs") -> dict[str, str]:
    """Write settings of podman to `place`, and return the variables that name them.

    It keeps all that it stores there, starts runc, and raises no limits: a machine may forbid that to root.
    The driver "vfs" works everywhere, but copies an image once for each of its layers.
    """
    containers, storage = place / "containers.conf", place / "storage.conf"
    containers.write_text(
        "[containers]\n"
        'default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n'
        "[engine]\n"
        'runtime = "runc"\n'
        'cgroup_manager = "cgroupfs"\n'
    )
    # podman takes at most 50 characters.
    run = tempfile.mkdtemp(prefix="p", dir=os.environ["XDG_RUNTIME_DIR"])
    storage.write_text(f'[storage]\ndriver = "{driver}"\nrunroot = "{run}"\ngraphroot = "{place}/podman"\n')
    return {"CONTAINERS_CONF": str(containers), "CONTAINERS_STORAGE_CONF": str(storage)}
