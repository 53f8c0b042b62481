"""What messages to people share: counts, lists that are bounded, and names that do nothing to a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_SHOWN = 20
"""How many things of one kind a message names one by one."""

_PLAIN = frozenset("%+,-./0123456789:=@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz ")
# What Unicode takes for printable though nothing is seen of it, so that two names look alike: fillers,
# joiners, selectors of variants (Default_Ignorable_Code_Point), and symbols that are blank.
_UNSEEN = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    "\U00013441\U00013442\U00016fe4\U0001d159"
).union(map(chr, range(0xFE00, 0xFE10)), map(chr, range(0xE0100, 0xE01F0)))
# By which number a byte that is no UTF-8 stands in a text, and which bytes those are (PEP 383).
_NO_UTF8, _FIRST_BYTE, _LAST_BYTE = 0xDC00, 0x80, 0xFF


def counted(number: int, noun: str) -> str:
    """How many there are of something, whose plural ends in s: `1 file`, `2,000 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_of(rows: Sequence[str], most: int = MOST_SHOWN) -> list[str]:
    """The first rows of a list, and how many the others are."""
    return [*rows[:most], *([f"and {len(rows) - most:,} more"] if len(rows) > most else ())]


def is_seen(text: str) -> bool:
    """Whether every character of a text is seen where it is printed, or is a blank."""
    return text.isprintable() and (text.isascii() or _UNSEEN.isdisjoint(text))


def shown(path: bytes | str) -> str:
    r"""A path, or a text that holds one, for people: what is no UTF-8 or cannot be seen as `\xNN`.

    So is a blank at the end.
    """
    text = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    blanks = len(text) - len(text.rstrip(" "))
    if not blanks and is_seen(text):
        return text
    return "".join(map(_shown_character, text[: len(text) - blanks])) + "\\x20" * blanks


def shown_lines(message: str) -> str:
    """A message of several lines: none of what it tells of may write to the terminal, or over it."""
    return "\n".join(map(shown, message.split("\n")))


def escaped(text: str) -> str:
    r"""Text without control characters that can be had back: those as `\xNN`, a backslash doubled.

    As Python writes them (`\uNNNN`, `\n` and the like too), whose codec "unicode_escape" reads it.
    """
    return "".join(c if is_seen(c) and c != "\\" else _coded(c) for c in text)


def shell_word(path: bytes | str) -> str:
    """A path as a shell takes it for one word, to be copied from a terminal; `$'…'` where it must be."""
    import shlex

    text = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    if is_seen(text):
        return shlex.quote(text)
    raw = text.encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(b) if chr(b) in _PLAIN else f"\\{b:03o}" for b in raw) + "'"


def _shown_character(character: str) -> str:
    if is_seen(character):
        return character
    byte = ord(character) - _NO_UTF8
    return f"\\x{byte:02x}" if _FIRST_BYTE <= byte <= _LAST_BYTE else _coded(character)


def _coded(character: str) -> str:
    """A character as Python's text has it in ASCII."""
    return ascii(character)[1:-1]
