"""A jail inside of containers: it works, with another plan if necessary, or is refused."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.conftest import SYSTEM_PYTHON

if TYPE_CHECKING:
    import subprocess

    from tests.conftest import Caller

pytestmark = pytest.mark.gate  # what it asks is the kernel's to answer, not a Python's

_IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc")
_AS_ROOT = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private")
_OVERLAY_ROOT = """
mount -t tmpfs none /mnt; mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay none -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
for name in proc sys dev tmp; do mount --rbind /$name /mnt/root/$name; done
cd /mnt/root; pivot_root . mnt; cd /; umount -l /mnt
"""


class Surrounding(NamedTuple):
    """A shell script for the surrounding, the strategy for /usr there, and why an overlay is refused."""

    name: str
    around: tuple[str, ...]
    script: str
    way: str
    refused: str = ""


_SURROUNDINGS = [
    Surrounding("a user namespace", _IN_A_NAMESPACE, "", "tree"),
    Surrounding("two of them", (*_IN_A_NAMESPACE, *_IN_A_NAMESPACE), "", "tree"),
    Surrounding(
        "/etc with bind mounts", _IN_A_NAMESPACE, "mount --bind /etc/debian_version /etc/hosts", "tree"
    ),
    Surrounding(
        "another filesystem in /usr",
        _IN_A_NAMESPACE,
        "mount -t tmpfs none /usr/local",
        "whole",
        "/usr/local is a mount of its own",
    ),
    *(
        [
            Surrounding("an overlay as root", _AS_ROOT, _OVERLAY_ROOT, "tree"),
            Surrounding(
                "an overlay as root, on another",
                _AS_ROOT,
                _OVERLAY_ROOT * 2,
                "whole",
                "overlay create: Invalid argument",
            ),
        ]
        if os.geteuid() == 0  # an ordinary user cannot have these
        else []
    ),
]


def _run(caller: Caller, place: Surrounding, *words: str) -> subprocess.CompletedProcess[str]:
    command = shlex.join([SYSTEM_PYTHON, "-m", "pkgjail", *words])
    return caller.run([*place.around, "sh", "-ec", f"{place.script}\n{command}"])


@pytest.mark.parametrize("place", _SURROUNDINGS, ids=[place.name for place in _SURROUNDINGS])
def test_a_jail_in_a_surrounding(caller: Caller, place: Surrounding) -> None:
    """Each plan shows the same there or is refused with the reason; 'auto' always works."""
    planned = _run(caller, place, "mounts", "base")
    assert f"/usr: {place.way}: " in planned.stdout, planned.stderr
    shown = {}
    for plan in ("auto", "tree", "mask", "whole", "binds"):
        ran = _run(caller, place, "run", "--strategy", plan, "base", "--", "find", "/usr", "/etc")
        if place.refused and plan in ("tree", "mask"):
            assert ran.returncode == 125
            assert f"cannot use the plan '{plan}' for /usr: {place.refused}" in ran.stderr
        else:
            assert ran.returncode == 0, (plan, ran.stderr)
            shown[plan] = sorted(ran.stdout.splitlines())
    assert len(shown["auto"]) > 1000
    assert all(names == shown["auto"] for names in shown.values()), shown.keys()
