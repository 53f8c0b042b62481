"""Text for messages: counts, lists of limited length, and names that cannot act on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

MOST_SHOWN = 20
"""The number of things of one kind that a message names one by one."""

_MAX_ALTERNATIVES = 256  # of one entry; libsolv recurses for each

_PLAIN = frozenset("%+,-./0123456789:=@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz ")
# Characters that Unicode calls printable although they are invisible, so that two names look alike:
# fillers, joiners, variation selectors (Default_Ignorable_Code_Point), and blank symbols.
_INVISIBLE = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    "\U00013441\U00013442\U00016fe4\U0001d159"
).union(map(chr, range(0xFE00, 0xFE10)), map(chr, range(0xE0100, 0xE01F0)))
# In text, a byte that is not UTF-8 has this number added to it; only these bytes occur (PEP 383).
_SURROGATE, _FIRST_BYTE, _LAST_BYTE = 0xDC00, 0x80, 0xFF


def counted(number: int, noun: str) -> str:
    """Return a number with a noun whose plural ends in s: `1 file`, `2,000 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def split_alternatives(text: str) -> list[str]:
    """Split a whitelist's entry at each `|`. Raises `ValueError` if there is nothing beside one."""
    parts = [part.strip() for part in text.split("|")]
    if len(parts) > 1 and not all(parts):
        raise ValueError(f"a package name is missing beside a '|' in {text!r}")
    if len(parts) > _MAX_ALTERNATIVES:
        raise ValueError(f"{text[:80]!r}… has more than {_MAX_ALTERNATIVES} alternatives")
    return parts


def first_of(rows: Sequence[str], most: int = MOST_SHOWN) -> list[str]:
    """Return the first rows of a list, and a row with the number of the others."""
    return [*rows[:most], *([f"and {len(rows) - most:,} more"] if len(rows) > most else ())]


def is_visible(text: str) -> bool:
    """Return whether every character of a text is visible when printed, or is a blank."""
    return text.isprintable() and (text.isascii() or _INVISIBLE.isdisjoint(text))


def printable(path: bytes | str) -> str:
    r"""Return a path, or a text with one, for people: what is not UTF-8 or is invisible becomes `\xNN`.

    So do blanks at the end. The result cannot always be read back; see `escape`.
    """
    text = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    blanks = len(text) - len(text.rstrip(" "))
    if not blanks and is_visible(text):
        return text
    return "".join(map(_printable_character, text[: len(text) - blanks])) + "\\x20" * blanks


def printable_lines(message: str) -> str:
    """Return a message of several lines, of which none can act on the terminal."""
    return "\n".join(map(printable, message.split("\n")))


def escape(text: str) -> str:
    r"""Return text without control characters that can be decoded: they become `\xNN`, backslashes double.

    It is written as Python writes it (`\uNNNN` and `\n` too); the codec "unicode_escape" decodes it.
    """
    return "".join(c if is_visible(c) and c != "\\" else escape_ascii(c) for c in text)


def escape_ascii(text: str) -> str:
    """Return text as the ASCII characters that Python's `repr` would write between quotes."""
    return ascii(text)[1:-1]


def escape_octal(path: bytes, special: re.Pattern[bytes]) -> bytes:
    r"""Return a path with each byte that `special` matches as `\NNN`: for formats of other programs."""
    return special.sub(lambda match: b"\\%03o" % ord(match[0]), path)


def shell_quote(path: bytes | str) -> str:
    """Return a path as one word for a shell, to be copied from a terminal; `$'…'` if that is necessary."""
    import shlex

    text = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    if is_visible(text):
        return shlex.quote(text)
    raw = text.encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(b) if chr(b) in _PLAIN else f"\\{b:03o}" for b in raw) + "'"


def _printable_character(character: str) -> str:
    if is_visible(character):
        return character
    byte = ord(character) - _SURROGATE
    return f"\\x{byte:02x}" if _FIRST_BYTE <= byte <= _LAST_BYTE else escape_ascii(character)


def text_path(path: bytes) -> str:
    """Return a path as text: UTF-8, with other bytes as lone surrogates, in any locale (PEP 383)."""
    return path.decode("utf-8", "surrogateescape")


def raw_path(text: str) -> bytes:
    """Return the bytes of a path that `text_path` converted."""
    return text.encode("utf-8", "surrogateescape")
