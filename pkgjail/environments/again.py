"""Enter an environment that was entered before, without working out again how: as `pkgjail run` does.

What an entry works from is kept (`pkgjail.prepared`), and each entry looks whether all that it rests
on is still so, the environment's manifest and record among it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from pkgjail.dirstate import observe_settled
from pkgjail.environments.directory import lock, opened
from pkgjail.environments.record import MANIFEST, RECORD
from pkgjail.model import text_path
from pkgjail.prepared import enter, remember
from pkgjail.reporter import SILENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.model import JailOptions
    from pkgjail.reporter import Reporter


def enter_again(
    directory: bytes, argv: Sequence[str], options: JailOptions, *, terminal: bool = False
) -> int:
    """As `enter_environment`; quicker from the second time on.

    An environment with a tree is held against its record at each entry, and so is never quicker.
    """
    facts = (directory, options, terminal, sorted(options.environment.items()))
    digest = hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()
    words = ["run", "environment", text_path(directory), digest, "--", *argv]
    status = enter(words)
    return enter_first(directory, argv, options, words, terminal=terminal) if status is None else status


def enter_first(  # noqa: PLR0913 - as `enter_environment`, and how it is kept
    directory: bytes,
    argv: Sequence[str],
    options: JailOptions,
    words: Sequence[str],
    *,
    variables: Sequence[str] = (),
    terminal: bool = False,
    reporter: Reporter = SILENT,
) -> int:
    """As `enter_environment`, and keep the jail for `pkgjail.prepared.enter` with these words.

    `words` and `variables` are as `pkgjail.prepared.remember` takes them.
    """
    from pkgjail.environments.enter import jail_in

    with opened(directory, "enter") as place:
        lock(place, "enter", alone=False)
        paths = [place.path + b"/" + name for name in (MANIFEST, RECORD)]
        before = observe_settled(filter(os.path.lexists, paths))  # ere they are read
        jail, form = jail_in(place, options, reporter)
        if form == "host":
            jail.prepared.watched += before
            jail.prepared.held = (place.path,)
            with contextlib.suppress(OSError):  # the next entry takes the long way again
                remember(words, jail.prepared, terminal=terminal, variables=variables)
        return jail.run(argv, terminal=terminal)
