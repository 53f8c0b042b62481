"""Find the lines of keys and array elements in a TOML document.

tomllib gives values without positions. `locate` goes through the tokens of a text that tomllib has
accepted, so it need not check anything. It follows TOML 1.0 (headers, arrays of tables, dotted keys,
inline tables, the four forms of strings, comments).
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Union

from pkgjail.core.untrusted import parsing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator

Key = tuple[Union[str, int], ...]

MAX_DEPTH = 32
"""The largest number of parts of a key, and of levels of arrays and tables."""
_MAX_WORD = 1000  # characters of a bare key or a number

_TOKEN = re.compile(
    r"""
    (?P<skip> [ \t]+ | \#[^\n]* )
  | (?P<newline> \n )
  | (?P<string> \"{3} (?:\\.|[^\\])*? \"{3,5}   # up to two quotation marks of the text may be
              | '{3} .*? '{3,5}                 # right before the three that end it
              | \" (?:\\.|[^"\\\n])* \"
              | ' [^'\n]* ' )
  | (?P<sign> [][{},=.] )
  | (?P<bare> [^][{},=.\s"'\#]+ )
    """,
    re.VERBOSE | re.DOTALL,
)


def excess(text: str, noun: str = "whitelist") -> tuple[int, str] | None:
    """Find what is too long or too deep for tomllib to read in a reasonable time: its line and a message.

    The message says that it is no `noun`. tomllib's time grows with the square of a key's parts, and
    Python's with the square of a number's digits. `text` need not be valid TOML. The result is None if it
    can be read.
    """
    dots, depth = 0, 0
    for kind, found, line in _tokens(text):
        dots = dots + (found == ".") if found == "." or kind in {"bare", "string"} else 0
        depth = max(0, depth + (found in {"[", "{"}) - (found in {"]", "}"}))
        if dots >= MAX_DEPTH:
            return line, f"not a {noun}: a key has more than {MAX_DEPTH} parts"
        if depth > MAX_DEPTH:
            return line, f"not a {noun}: arrays or tables are nested more than {MAX_DEPTH} deep"
        if kind == "bare" and len(found) > _MAX_WORD:
            return line, f"not a {noun}: a word has more than {_MAX_WORD} characters"
    return None


def load_table(data: bytes, noun: str) -> dict[str, Any]:
    """Return the content of a TOML file that somebody else wrote. Raises `ValueError` if it is no `noun`."""
    text = data.decode("utf-8")
    if found := excess(text, noun):
        raise ValueError(f"line {found[0]}: {found[1]}")
    with parsing(ValueError):
        return tomllib.loads(text)


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """The kind, text and line of each token, except white space and comments."""
    line = 1
    for match in _TOKEN.finditer(text.replace("\r\n", "\n")):
        kind = match.lastgroup or ""
        if kind != "skip":
            yield kind, match.group(), line
        line += match.group().count("\n")
    yield "end", "", line


def locate(text: str) -> dict[Key, int]:
    """Return the line (from 1) of each key and each array element of `text`.

    A place is named by the keys and indices that lead to it in tomllib's result:
    `("packages", "debian", 2)`. If several lines make a table, the first counts. `text` must be valid
    TOML: otherwise the result is meaningless, or an exception is raised.
    """
    return _Walk(text).document()


class _Walk:
    """One pass over the tokens. Each method consumes the tokens of what it is named after."""

    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.at = 0
        self.lines: dict[Key, int] = {}
        self.lengths: dict[Key, int] = {}  # of the arrays of tables

    def document(self) -> dict[Key, int]:
        """Consume all tokens, and return the lines."""
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
        """Return the next token, not consumed: a sign or line feed by its text, others by their kind."""
        kind, text, _ = self.tokens[self.at]
        return text if kind in {"sign", "newline"} else kind

    def skip_newlines(self) -> None:
        """Consume line feeds."""
        while self.peek() == "\n":
            self.at += 1

    def header(self) -> Key:
        """Consume `[a.b]` or `[[a.b]]`, and return the table to which the next pairs belong."""
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
        """Consume `a . "b.c" . d`, up to the sign after it."""
        names: list[str] = []
        while True:
            kind, text, _ = self.tokens[self.at]
            names.append(_unquoted(text) if kind == "string" else text)
            self.at += 1
            if self.peek() != ".":
                return names
            self.at += 1

    def pair(self, table: Key) -> None:
        """Consume `a.b = value`."""
        line = self.tokens[self.at][2]
        place = table
        for name in self.names():
            place = (*place, name)
            self.lines.setdefault(place, line)
        self.at += 1  # the equals sign
        self.value(place)

    def value(self, place: Key) -> None:
        """Consume a value of any type."""
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
        """Consume `[value, value]`, which may extend over several lines."""
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
        """Consume `{a = value, b = value}`."""
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
    """Return the name of a quoted key, as tomllib itself reads it."""
    if token.startswith("'"):
        return token[1:-1]
    return str(tomllib.loads(f"name = {token}")["name"])
