"""The text of a project's file to begin with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_TEXT = """\
# What 'pkgjail run -- COMMAND' shows here, and nothing else of the host. See docs/projects.md.

# Lists of packages: shipped ones (build: compilers and make; spack: what Spack needs; base: a shell and the
# usual tools), or files as "./site.toml", which can name packages for several distributions.
lists = {lists}

# Packages of this distribution besides, each with all that it requires. A version may follow, as in
# "zlib1g (>= 1:1.2)".
packages = {packages}

# Files that are left out: docs, locales, static-libs, python-bytecode, or a file as "./my.ignore".
blacklists = []

[run]
# This directory is shown, writable, and the command starts in it.
cwd = true
# Other directories that are shown: writable as "/scratch" or "/scratch:/where", or only to be read.
bind = []
ro-bind = []
# Variables that are set, as "CFLAGS=-O2", or passed on, as "CI".
env = []
network = true
"""


def beginning(lists: Sequence[str], packages: Sequence[str]) -> str:
    """Return a commented `pkgjail.toml` with these lists and packages."""
    return _TEXT.format(lists=_array(lists), packages=_array(packages))


def _array(names: Sequence[str]) -> str:
    # A string of JSON is one of TOML, but for DEL.
    return f"[{', '.join(json.dumps(name).replace(chr(127), chr(92) + 'u007f') for name in names)}]"
