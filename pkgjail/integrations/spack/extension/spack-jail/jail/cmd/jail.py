"""The module of `spack jail` that Spack loads.

Spack expects of a command `description`, `section`, `level`, `setup_parser`, and a function of the command's
name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

description = "run Spack in a jail that shows the files of whitelisted system packages, and no others"
section = "environments"
level = "short"

# This file is pkgjail/integrations/spack/extension/spack-jail/jail/cmd/jail.py. If Spack found it by
# `config:extensions`, pkgjail need not be installed in Spack's Python.
_LIBRARY = os.path.abspath(__file__).rsplit(os.sep + "pkgjail" + os.sep, 1)[0]


def setup_parser(subparser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    _command().add_arguments(subparser)


def jail(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Run the command; Spack ends with the status that this returns."""
    del parser
    return run("spack jail", args)


def run(name: str, args: argparse.Namespace) -> int:
    """Run the command under the name that messages use."""
    failure: Any = importlib.import_module("spack.error")
    status: int = _command().run(name, args, failure.SpackError)
    return status


def _command() -> Any:
    if importlib.util.find_spec("pkgjail") is None:
        sys.path.append(_LIBRARY)
    return importlib.import_module("pkgjail.integrations.spack.jail.command")
