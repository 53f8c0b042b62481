"""What of the kernel's files a jail's command may read or write: of root's, what nobody else may, is none.

A walk over /proc and /sys in a real jail opens all that it finds, and reads nothing: there are files
that do something at being read.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.conftest import SYSTEM_PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.conftest import Caller

# Run inside: the paths that can be opened for reading though their mode lets nobody but the owner read, and
# those that can be opened for writing. Processes' own files are left out, but for what shows the network.
_WALK = r"""
import json, os, stat, sys
readable, writable, seen = [], [], 0
def opens(path, flags):
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError:
        return False
    return True
for top in ("/proc", "/proc/self/net", "/sys"):
    for directory, names, files in os.walk(top):
        if directory == "/proc":
            names[:] = [name for name in names if not name.isdigit()]
        for name in files:
            path = directory + "/" + name
            try:
                found = os.lstat(path)
            except OSError:
                continue
            if not stat.S_ISREG(found.st_mode):
                continue
            seen += 1
            if not found.st_mode & 0o004 and opens(path, os.O_RDONLY):
                readable.append(path)
            if found.st_mode & 0o222 and opens(path, os.O_WRONLY):
                writable.append(path)
json.dump([seen, readable, writable], sys.stdout)
"""

# What root's jail may read and nobody else's, each with the reason why it may.
_READABLE = {
    r"/proc/self/net/.*": "the network's, which is the host's unless --no-network",
    r"/proc/sys/net/.*": "the network's settings, likewise",
    r"/proc/sys/kernel/cad_pid": "a process number",
    r"/proc/sys/kernel/usermodehelper/\w+": "masks of capabilities, the same on every host",
    r"/proc/sys/kernel/(apparmor|yama|perf|kexec|lockdown)\w*(/.*)?": "switches",
    r"/proc/sys/vm/mmap_rnd_(compat_)?bits": "a number of bits",
    r"/proc/sys/vm/stat_refresh": "nothing; reading it adds up counters that vmstat shows to everybody",
}
_WRITABLE = {
    r"/proc/pressure/\w+": "watches of one's own (psi), which everybody may set",
    r"/proc/self/net/.*": "the network's: the kernel asks for a capability in its user namespace",
}


def _not_listed(paths: Iterable[str], reasons: dict[str, str]) -> list[str]:
    return [path for path in paths if not any(re.fullmatch(pattern, path) for pattern in reasons)]


def _walk(caller: Caller, manifest: Path, *options: str) -> tuple[int, list[str], list[str]]:
    (caller.home / "walk.py").write_text(_WALK)
    options = ("--ro-bind", f"{caller.home}:/srv", *options)
    ran = caller.pkgjail("run", *options, str(manifest), "--", SYSTEM_PYTHON, "/srv/walk.py")
    assert ran.returncode == 0, ran.stderr
    seen, readable, writable = json.loads(ran.stdout)
    return seen, readable, writable


@pytest.fixture
def manifest(anyone: Caller) -> Path:
    made = anyone.pkgjail("resolve", "spack", "--blacklist", "docs", "-o", "m.jsonl", "--no-hash")
    assert made.returncode == 0, made.stderr
    return anyone.home / "m.jsonl"


@pytest.mark.gate
@pytest.mark.parametrize("options", [[], ["--no-network"]])
def test_roots_files_of_the_kernel_are_covered(anyone: Caller, manifest: Path, options: list[str]) -> None:
    """Whatever root alone may read is hidden or listed above with a reason; nothing global can be written."""
    seen, readable, writable = _walk(anyone, manifest, *options)
    assert seen > 1000
    assert _not_listed(readable, _READABLE) == []
    assert _not_listed(writable, _WRITABLE) == []
    if anyone.uid:
        assert readable == []
