"""`spack isolate`: another name of `spack jail`, from the 2017 paper.

Spack 1.2 has a builtin command of this name with another meaning, which takes precedence there.
"""

from __future__ import annotations

import os
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

_HERE = os.path.dirname(os.path.abspath(__file__))
_JAIL = os.path.join(_HERE, *[os.pardir] * 3, "spack-jail", "jail", "cmd", "jail.py")
_loader = SourceFileLoader("pkgjail_spack_jail", _JAIL)
_jail = ModuleType(_loader.name)
_jail.__file__ = _JAIL
_loader.exec_module(_jail)

description = f"{_jail.description}; another name of 'spack jail'"
section = _jail.section
level = _jail.level
setup_parser = _jail.setup_parser


def isolate(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Run the command; Spack ends with the status that this returns."""
    del parser
    status: int = _jail.run("spack isolate", args)
    return status
