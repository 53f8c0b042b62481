"""Runs pkgjail's command line, for the walks of tests/test_faults.py.

A request is the words, and what the environment has besides.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from pkgjail.__main__ import main as command_line
from pkgjail.cli.main import make_parser
from pkgjail.jails import strategy
from tests.forking import serve

_NEEDED = (
    "encodings.ascii", "pkgjail.images.creating", "pkgjail.export.image.stored", "pkgjail.cli.limit_options",
    "pkgjail.export.image", "pkgjail.storage.beside", "pkgjail.storage.removal", "pkgjail.backends.apt",
    "pkgjail.backends.debian.archive",
    "pkgjail.api", "pkgjail.backends.dpkg", "pkgjail.storage.hashing", "pkgjail.jails.run",
    "pkgjail.manifest.problems", "pkgjail.sandbox.terminal", "rich.filesize",
)  # fmt: skip


def main() -> None:
    """Serve, with all imported that a child needs."""
    make_parser()
    for name in _NEEDED:
        import_module(name)
    strategy._LEAST_NAMES = 5  # an overlay for a directory of five names too
    serve(_work)


def _work(request: tuple[list[str], dict[str, str]]) -> int:
    words, environment = request
    os.environ.update(environment)
    sys.argv = ["pkgjail", *words]
    try:
        return command_line()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1


if __name__ == "__main__":
    main()
