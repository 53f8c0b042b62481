"""Where things stand in a TOML document: the line of every key and of every array's element.

tomllib gives values and no positions. `locate` walks the tokens of a text that tomllib has already
accepted, so it need not check anything; it follows TOML 1.0 (headers, arrays of tables, dotted keys,
inline tables, the four forms of strings, comments).
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Union

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator

Key = tuple[Union[str, int], ...]

MOST_DEEP = 32
"""How many parts a key may have, and how deeply arrays and tables may be nested."""
_LONGEST_WORD = 1000  # characters of a bare key or a number

_TOKEN = re.compile(
    r"""
    (?P<skip> [ \t]+ | \#[^\n]* )
  | (?P<newline> \n )
  | (?P<string> \"{3} (?:\\.|[^\\])*? \"{3,5}   # up to two quotation marks of the text may stand
              | '{3} .*? '{3,5}                 # right before the three that end it
              | \" (?:\\.|[^"\\\n])* \"
              | ' [^'\n]* ' )
  | (?P<sign> [][{},=.] )
  | (?P<bare> [^][{},=.\s"'\#]+ )
    """,
    re.VERBOSE | re.DOTALL,
)


def excess(text: str) -> tuple[int, str] | None:
    """The line of `text`, and what there is too long or too deep for tomllib to read in a sane time.

    tomllib's time grows with the square of a key's parts, and Python's with that of a number's digits.
    `text` need not be valid TOML. None where it is fit to be read.
    """
    dots, depth = 0, 0
    for kind, found, line in _tokens(text):
        dots = dots + (found == ".") if found == "." or kind in {"bare", "string"} else 0
        depth = max(0, depth + (found in {"[", "{"}) - (found in {"]", "}"}))
        if dots >= MOST_DEEP:
            return line, f"not a whitelist: a key has more than {MOST_DEEP} parts"
        if depth > MOST_DEEP:
            return line, f"not a whitelist: arrays or tables are nested more than {MOST_DEEP} deep"
        if kind == "bare" and len(found) > _LONGEST_WORD:
            return line, f"not a whitelist: a word has more than {_LONGEST_WORD} characters"
    return None


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """The kind, text and line of each token but white space and comments."""
    line = 1
    for match in _TOKEN.finditer(text.replace("\r\n", "\n")):
        kind = match.lastgroup or ""
        if kind != "skip":
            yield kind, match.group(), line
        line += match.group().count("\n")
    yield "end", "", line


def locate(text: str) -> dict[Key, int]:
    """Give the line (from 1) of each key and each array element of `text`.

    A place is named by the keys and indices that lead to it in tomllib's result:
    `("packages", "debian", 2)`. A table that several lines bring about counts from the first. `text`
    must be valid TOML: otherwise the answer means nothing, or an exception comes.
    """
    return _Walk(text).document()


class _Walk:
    """One pass over the tokens. Each method takes what it is named after off the front."""

    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.at = 0
        self.lines: dict[Key, int] = {}
        self.lengths: dict[Key, int] = {}  # of the arrays of tables

    def document(self) -> dict[Key, int]:
        table: Key = ()
        while self.peek() != "end":
            if self.peek() == "\n":
                self.at += 1
            elif self.peek() == "[":
                table = self.header()
            else:
                self.pair(table)
        return self.lines

    def peek(self) -> str:
        kind, text, _ = self.tokens[self.at]
        return text if kind in {"sign", "newline"} else kind

    def skip_newlines(self) -> None:
        while self.peek() == "\n":
            self.at += 1

    def header(self) -> Key:
        """`[a.b]` or `[[a.b]]`: the table that the next pairs belong to."""
        double = self.tokens[self.at + 1][1] == "["
        self.at += 2 if double else 1
        line = self.tokens[self.at][2]
        place: Key = ()
        names = self.names()
        for index, name in enumerate(names):
            place = (*place, name)
            self.lines.setdefault(place, line)
            if double and index == len(names) - 1:
                self.lengths[place] = self.lengths.get(place, 0) + 1
            if place in self.lengths:
                place = (*place, self.lengths[place] - 1)
                self.lines.setdefault(place, line)
        self.at += 2 if double else 1
        return place

    def names(self) -> list[str]:
        """`a . "b.c" . d`, up to the sign behind it."""
        names: list[str] = []
        while True:
            kind, text, _ = self.tokens[self.at]
            names.append(_unquoted(text) if kind == "string" else text)
            self.at += 1
            if self.peek() != ".":
                return names
            self.at += 1

    def pair(self, table: Key) -> None:
        line = self.tokens[self.at][2]
        place = table
        for name in self.names():
            place = (*place, name)
            self.lines.setdefault(place, line)
        self.at += 1  # the equals sign
        self.value(place)

    def value(self, place: Key) -> None:
        sign = self.peek()
        if sign == "[":
            self.array(place)
        elif sign == "{":
            self.inline_table(place)
        else:
            # A number or a date may be several tokens: `1.5`, `1979-05-27 07:32:00`.
            while self.peek() in {"string", "bare", "."}:
                self.at += 1

    def array(self, place: Key) -> None:
        self.at += 1
        index = 0
        self.skip_newlines()
        while self.peek() != "]":
            self.lines[(*place, index)] = self.tokens[self.at][2]
            self.value((*place, index))
            self.skip_newlines()
            if self.peek() == ",":
                self.at += 1
                self.skip_newlines()
            index += 1
        self.at += 1

    def inline_table(self, place: Key) -> None:
        self.at += 1
        self.skip_newlines()
        while self.peek() != "}":
            self.pair(place)
            self.skip_newlines()
            if self.peek() == ",":
                self.at += 1
                self.skip_newlines()
        self.at += 1


def _unquoted(token: str) -> str:
    """The name that a quoted key spells, as tomllib itself reads it."""
    if token.startswith("'"):
        return token[1:-1]
    return str(tomllib.loads(f"name = {token}")["name"])
