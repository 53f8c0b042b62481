"""Read the link groups of a root from the records of update-alternatives(1) or Red Hat's alternatives(8).

Both write the same lines with two exceptions. Red Hat's has `@family@` before a priority and the name of
an init script after it, and no empty line after the last candidate.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from pkgjail.backends.root import CORRECT, normal_path
from pkgjail.core.model import AlternativeChoice, AlternativeGroup
from pkgjail.core.text import text_path
from pkgjail.core.untrusted import parsing

if TYPE_CHECKING:
    from pkgjail.backends.root import Root

_ETC_ALTERNATIVES = b"/etc/alternatives/"


# The priority, perhaps with Red Hat's additions.
_PRIORITY = re.compile(rb"(?:@[^@]*@)?(?P<number>[+-]?[0-9]{1,10})(?: .*)?")


def read_alternatives(root: Root, directory: bytes, *, ended: bool = True) -> tuple[AlternativeGroup, ...]:
    """Return every group of the records in `directory`, by name. An empty record is ignored.

    With `ended`, a record without an empty line at its end was cut off.
    """
    # update-alternatives writes to files with this suffix, and ignores leftovers.
    names = sorted(name for name in root.names(directory) if not name.endswith(b".dpkg-tmp"))
    paths = {name: os.path.join(directory, name) for name in names}
    records = {name: root.read(path) for name, path in paths.items()}
    return tuple(
        _group(root, name, paths[name], _Lines(data, ended=ended)) for name, data in records.items() if data
    )


def _group(root: Root, name: bytes, path: bytes, lines: _Lines) -> AlternativeGroup:
    with parsing(lambda why: root.error(f"{text_path(path)}:{lines.number}: {why}", CORRECT)):
        return _alternative_group(name, lines)


class _Lines:
    """The lines of a record, taken one by one; `number` is that of the last line taken."""

    def __init__(self, data: bytes, *, ended: bool) -> None:
        self.number = 0
        self._ended = ended
        self._lines = data.split(b"\n")[:-1]

    def take(self, what: str) -> bytes:
        """Return the next line, which should be `what`. Raises `ValueError` at the end."""
        self.number += 1
        if self.number > len(self._lines):
            raise ValueError(f"the file ends where {what} should stand")
        return self._lines[self.number - 1]

    def take_candidate(self) -> bytes:
        """Return the path of the next candidate, or b"" after the last (an empty line or the file's end)."""
        at_end = self.number == len(self._lines) and not self._ended
        return b"" if at_end else self.take("a candidate's path")


def _alternative_group(name: bytes, lines: _Lines) -> AlternativeGroup:
    """Parse a record: mode, master link, (slave name, slave link)…, "", candidates…, "".

    A candidate is its path, its priority, and a line for each slave, empty if it has none. Raises
    `ValueError`.
    """
    mode = lines.take("the mode")
    if mode not in {b"auto", b"manual"}:
        raise ValueError(f"the mode is {mode!r}, neither 'auto' nor 'manual'")
    links = {name: normal_path(lines.take("the master link"))}
    while slave := lines.take("a slave's name"):
        if b"/" in slave or slave in links:
            raise ValueError(f"{slave!r} is not a name, or stands twice")
        link = normal_path(lines.take("a slave's link"))
        if link in links.values():
            raise ValueError(f"the link {text_path(link)} stands twice")
        links[slave] = link
    choices: dict[bytes, AlternativeChoice] = {}
    while candidate := lines.take_candidate():
        target = normal_path(candidate)
        if target in choices:
            raise ValueError(f"the candidate {text_path(target)} stands twice")
        priority = lines.take("a priority")
        match = _PRIORITY.fullmatch(priority)
        if match is None:
            raise ValueError(f"the priority {priority!r} is not a number")
        files = [lines.take("a slave's file") for _ in range(len(links) - 1)]
        targets = (target, *(normal_path(file) if file else b"" for file in files))
        choices[target] = AlternativeChoice(priority=int(match["number"]), targets=targets)
    pairs = tuple((link, _ETC_ALTERNATIVES + administrative) for administrative, link in links.items())
    return AlternativeGroup(name=text_path(name), links=pairs, choices=tuple(choices.values()))
