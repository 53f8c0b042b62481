"""Whether supervision works here, by trying."""

from __future__ import annotations

import os

from pkgjail.sandbox.job import SetupError
from pkgjail.sandbox.steps import Devices, Directory, Plan, Proc
from pkgjail.supervised.calls import known_calls
from pkgjail.supervised.launch import Words, run_supervised
from pkgjail.supervised.names import LINK, Bind, Names, names_of

_PROGRAMS = (b"/usr", b"/bin", b"/lib", b"/lib32", b"/lib64", b"/libx32", b"/sbin")


def try_supervision() -> str:
    """Run a command that does nothing among the host's programs; return why that fails, or ""."""
    words = Words(("/usr/bin/env", "true"), b"/", (("PATH", "/usr/bin:/bin"),))
    try:
        status = run_supervised(words, _names, known_calls(), network=True)
    except SetupError as failure:
        return f"a process cannot be supervised: {failure}"
    return f"a supervised command that does nothing ended with status {status}" if status else ""


def _names() -> Names:
    steps = (Directory(b"/dev", 0o755), Proc(b"/proc"), Devices(b"/dev"))
    names = names_of(Plan(b"/", steps, network=True, hostname=""))
    for path in _PROGRAMS:
        if os.path.islink(path):
            names.kinds[path] = LINK
            names.targets[path] = os.readlink(path)
        elif os.path.isdir(path):
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            names.add_bind(Bind(path, opened, writable=False))
    return names
