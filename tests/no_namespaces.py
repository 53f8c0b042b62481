"""Runs a program where no namespace can be made: behind a filter, as a container has one."""

from __future__ import annotations

from tests.conftest import SYSTEM_PYTHON

CODE = """
import os, sys
from pkgjail.sandbox import seccomp as f
clone, unshare = {"x86_64": (56, 272)}.get(os.uname().machine, (220, 97))
bits = 0x7E020000
refused = [(f._HAS_BITS, 0, 1, bits), f._refuse(1), f._allow()]
program = [(f._LOAD, 0, 0, f._NUMBER), *f._when(435, [f._refuse(38)])]
program += f._when(clone, [f._argument(0), *refused])
program += f._when(unshare, [f._argument(0), *refused])
from pkgjail.sandbox import syscalls as sc
sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
f._install([*program, f._allow()], listener=False)
os.execvp(sys.argv[1], sys.argv[1:])
"""

PREFIX = (SYSTEM_PYTHON, "-c", CODE)
"""The words before a command line."""
