"""Run programs of a set in a jail of it, and read its files."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Protocol

from pkgjail.core.options import JailOptions
from pkgjail.core.programs import UnansweredError, capture_output
from pkgjail.core.text import raw_path
from pkgjail.core.untrusted import opened_below
from pkgjail.jails.run import default_environment, prepare_jail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.programs import ProgramOutput

# Seconds for all programs together (loading all modules of Perl takes a few), and the most bytes of a file.
_LONGEST = 300
_MOST_READ = 1 << 20


class Runner(Protocol):
    """Runs programs of a set and reads its files. `last_program` is the one that it ran last."""

    last_program: bytes

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> ProgramOutput:
        """Run a program with `stdin` as its standard input; status 127 means that it is not there.

        Raises:
            JailError: the jail cannot be set up here.
            UnansweredError: the program writes too much or does not end, or earlier ones took all the time.

        """
        ...

    def read(self, place: bytes) -> bytes:
        """Return the beginning of a file of the set, which is all of any that a person wrote."""
        ...


class JailRunner:
    """Runs programs in a jail of one manifest, without network."""

    def __init__(self, manifest: Manifest, root: bytes) -> None:
        """Prepare the jail. Raises `JailError`."""
        options = JailOptions(network=False, environment=default_environment())
        self._jail = prepare_jail(manifest, options, root=root)
        self._root = root
        self._started: float | None = None
        self.last_program = b""

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> ProgramOutput:
        """Implement `Runner.run`; the first call starts the clock."""
        self.last_program = raw_path(argv[0])
        now = time.monotonic()
        self._started = now if self._started is None else self._started
        left = self._started + _LONGEST - now
        if left <= 0:
            raise UnansweredError(f"the programs that are run do not all end within {_LONGEST} s")
        return capture_output(lambda: self._jail.enter(argv), stdin, seconds=left)

    def read(self, place: bytes) -> bytes:
        """Implement `Runner.read`, from the host's file."""
        with opened_below(self._root, self._root.rstrip(b"/") + place) as descriptor:
            return os.read(descriptor, _MOST_READ)
