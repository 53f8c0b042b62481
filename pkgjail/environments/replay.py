"""Enter an environment, and keep how: the same words then enter it without working it out again.

What an entry works from is kept (`pkgjail.jail.replay`), and each entry looks whether all that it rests
on is still so, the environment's manifest and record among it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pkgjail.core.reporter import SILENT
from pkgjail.environments.directory import locked, opened
from pkgjail.environments.enter import jail_in
from pkgjail.environments.record import MANIFEST, RECORD
from pkgjail.jail.replay import bind_source, remember
from pkgjail.storage.fingerprint import observe_settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import JailOptions
    from pkgjail.core.reporter import Reporter

    # As `pkgjail.storage.fingerprint.observe` has them.
    States = tuple[tuple[bytes, int, int, int, int], ...]


def enter_and_keep(  # noqa: PLR0913 - as `enter_environment`, and what it is kept by
    directory: bytes,
    argv: Sequence[str],
    options: JailOptions,
    words: Sequence[str],
    *,
    variables: Sequence[str] = (),
    watched: States = (),
    terminal: bool = False,
    reporter: Reporter = SILENT,
) -> int:
    """As `enter_environment`; what it works from is kept for `pkgjail.jail.replay.enter` with `words`.

    An environment with a tree is held against its record at each entry, and so is never kept.

    Args:
        directory: the environment's.
        argv: what to run.
        options: what this entry has besides what the environment was built with.
        words: a command line that ends in `--` and `argv`, as `pkgjail.jail.replay.remember` takes it.
        variables: likewise.
        watched: the states of files that `options` depend on.
        terminal: as `run_in_jail` takes it.
        reporter: likewise.

    """
    named = bind_source(directory)
    with opened(directory, "enter") as place, locked(place, "enter", alone=False) as held:
        paths = [place.path + b"/" + name for name in (MANIFEST, RECORD)]
        before = observe_settled(filter(os.path.lexists, paths))  # ere they are read
        jail, form = jail_in(place, options, reporter)
        if form == "host" and jail.lasting:
            jail.prepared.watched += before + watched
            jail.prepared.sources += (named,)
            jail.prepared.held = (held,)
            with contextlib.suppress(OSError):  # the next entry takes the long way again
                remember(words, jail.prepared, terminal=terminal, variables=variables)
        return jail.run(argv, terminal=terminal)
