"""The command line of this process. Each Spack command reads it, so this module imports little."""

from __future__ import annotations

import os
import sys


def process_argv() -> list[str]:
    """Return the command line that started this process, with the interpreter's path.

    Raises:
        JailError: it is unknown, as in a program that embeds Python.

    """
    if not sys.executable:
        from pkgjail.core.errors import JailError

        raise JailError("cannot find this program's command line; pass 'argv' to isolate_environment")
    argv = getattr(sys, "orig_argv", None)  # Python 3.10
    if argv is None:
        argv = _kernel_argv()
    return [sys.executable, *argv[1:]]


def _kernel_argv() -> list[str]:
    """Return the arguments of proc_pid_cmdline(5)."""
    with open("/proc/self/cmdline", "rb") as file:
        return [os.fsdecode(argument) for argument in file.read().split(b"\0")[:-1]]
