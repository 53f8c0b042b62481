"""Brings changes of a copied directory back, for the walk of tests/test_copied_binds_faults.py.

A request is the directory and the changes, each with its content.
"""

from __future__ import annotations

import sys
from typing import Any

from pkgjail.core.text import raw_path
from pkgjail.export.image import squashfs
from pkgjail.machine.applying import Change
from pkgjail.machine.changes import Changes
from pkgjail.machine.copies import copied_disk
from pkgjail.machine.model import MachineError
from tests.forking import serve


class _Warning:
    """A reporter that writes warnings."""

    def progress(self, task: str, done: int, total: int) -> None:
        """Do nothing."""

    def warn(self, message: str) -> None:
        """Write it."""
        sys.stderr.write(f"{message}\n")


def main() -> None:
    """Serve, without the program that makes the image."""
    squashfs.write = lambda *_: None
    serve(_work)


def _work(request: tuple[str, list[list[Any]]]) -> int:
    place, changes = request
    try:
        with copied_disk(raw_path(place), _Warning()) as copy, Changes(copy, (), _Warning()) as received:
            for kind, path, content, target in changes:
                received.add(Change(kind, raw_path(path), 0o755, 10**18, len(content), raw_path(target)))
                if content:
                    received.content(raw_path(content))
            received.apply()
    except MachineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    main()
