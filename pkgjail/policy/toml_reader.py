"""Read TOML that people write: every problem with its line, and unknown keys with the nearest known ones."""

from __future__ import annotations

import codecs
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.recognise import LIST_FILE, mistaken_for
from pkgjail.policy.lists import Entry, nearest
from pkgjail.policy.patterns import MAX_CHARACTERS
from pkgjail.policy.toml_lines import Key, excess, locate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pkgjail.policy.lists import ListProblems

_TYPES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    list: "an array",
    dict: "a table",
}
_WHERE = re.compile(r" \((?:at line (?P<line>\d+), column \d+|at end of document)\)$")


class Document(NamedTuple):
    """tomllib's result for a file, and the lines of `locate`."""

    table: Mapping[str, Any]
    lines: Mapping[Key, int]


def read_document(data: bytes, noun: str, problems: ListProblems) -> Document | None:
    """Parse a file; None if it is not TOML at all, which is added to `problems`, as no `noun`."""
    if mistaken := mistaken_for(data, noun) if noun == LIST_FILE else "":
        problems.add(1, mistaken)
        return None
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        problems.add(data.count(b"\n", 0, error.start) + 1, f"not UTF-8: byte 0x{data[error.start]:02x}")
        return None
    if found := excess(text, noun):
        problems.add(*found)
        return None
    try:
        return Document(tomllib.loads(text), locate(text))
    except RecursionError:
        problems.add(1, f"not a {noun}: arrays or tables are nested too deeply")
        return None
    except ValueError as error:
        where = _WHERE.search(str(error))
        line = int(where["line"]) if where and where["line"] else text.rstrip("\n").count("\n") + 1
        problems.add(line if where else 1, f"not valid TOML: {_WHERE.sub('', str(error))}")
        return None


class TableReader:
    """Reads values of a document by their types; what is wrong is added to `problems`."""

    def __init__(self, problems: ListProblems, lines: Mapping[Key, int]) -> None:
        self.problems = problems
        self.lines = lines

    def check_keys(
        self, place: Key, table: Mapping[str, Any], known: Iterable[str], noun: str = "key"
    ) -> None:
        """Report the keys of a table that are not among the `known` ones."""
        inside = f" in [{'.'.join(map(str, place))}]" if place else ""
        names = set(known)
        for key in table:
            if key not in names and not self.problems.is_full:
                message = f"unknown {noun} {key!r}{inside}{nearest(key, names)}"
                self.problems.add(self.lines[(*place, key)], message)

    def table(self, top: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """Return the table of a key; an empty one if the key is missing or has another type."""
        value = top.get(key, {})
        if isinstance(value, dict):
            return value
        self.wrong((key,), f"{key!r} must be a table", value)
        return {}

    def boolean(self, place: Key, table: Mapping[str, Any]) -> bool | None:
        """Return a boolean value; None if it is missing or has another type."""
        value = table.get(str(place[-1]))
        if value is None or isinstance(value, bool):
            return value
        self.wrong(place, f"{place[-1]!r} must be true or false", value)
        return None

    def string(self, place: Key, table: Mapping[str, Any]) -> Entry | None:
        """Return a string with its line; None if it is missing or has another type."""
        value = table.get(str(place[-1]))
        if value is None:
            return None
        if isinstance(value, str):
            return Entry(text=value, line=self.lines[place])
        self.wrong(place, f"{place[-1]!r} must be a string", value)
        return None

    def strings(self, place: Key, table: Mapping[str, Any]) -> tuple[Entry, ...]:
        """Return the strings of an array with their lines, without those that cannot be used."""
        value = table.get(str(place[-1]), [])
        if not isinstance(value, list):
            self.wrong(place, f"{place[-1]!r} must be an array of strings", value)
            return ()
        entries = []
        for index, each in enumerate(value):
            here = (*place, index)
            if not isinstance(each, str):
                self.wrong(here, f"{place[-1]!r} must have only strings", each)
            elif not each.strip():
                self.problems.add(self.lines[here], f"an empty string in {place[-1]!r} names nothing")
            elif len(each) > MAX_CHARACTERS:
                message = f"a string in {place[-1]!r} has more than {MAX_CHARACTERS} characters"
                self.problems.add(self.lines[here], message)
            else:
                entries.append(Entry(text=each, line=self.lines[here]))
        return tuple(entries)

    def wrong(self, place: Key, message: str, value: object) -> None:
        """Report that a value has the wrong type."""
        self.problems.add(self.lines[place], f"{message}, not {_TYPES.get(type(value), 'a date or time')}")
