"""Changes of an input that libFuzzer hardly comes upon: what files made to harm have, and text in lines."""

from __future__ import annotations

import random
from typing import Callable

# Openings that nest; what patterns, paths, terminals, decoders and number parsers stumble over.
_OPENINGS = (b"[", b"(", b"{", b'{"a":', b"<a>", b"[a,", b"a=[", b"((a if ")
_TOKENS = (
    b"*?" * 16, b"**/" * 8, b"[!]", b"[[:a:]]", b"\\", b"!", b"../" * 8, b"/./", b"//", b"\0", b"\x1b[2J",
    b"\r\n", b"\n\n", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\xe2\x80\xa8", b"'", b'"', b"'\\''", b"%s",
    b"${a}", b"&lol;", b"9" * 4400, b"-1", b"1e999", b"NaN", b"18446744073709551616", b"\x7fELF",
    b"\x1f\x8b\x08", b"\xff" * 8, b"\0" * 8, b"\x80" + b"\0" * 7,
)  # fmt: skip

Way = Callable[[bytes, random.Random], bytes]


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """`data` with one such change, of `most` bytes at most; the same for the same `seed`."""
    chance = random.Random(seed)  # noqa: S311 - to be the same each time
    return chance.choice(_WAYS)(data, chance)[:most]


def _insert(data: bytes, chance: random.Random, new: bytes) -> bytes:
    at = chance.randint(0, len(data))
    return data[:at] + new + data[at:]


def _nested(data: bytes, chance: random.Random) -> bytes:
    return _insert(data, chance, chance.choice(_OPENINGS) * chance.choice((60, 1200)))


def _run(data: bytes, chance: random.Random) -> bytes:
    return _insert(data, chance, bytes([chance.randrange(256)]) * chance.choice((300, 4000)))


def _token(data: bytes, chance: random.Random) -> bytes:
    return _insert(data, chance, chance.choice(_TOKENS))


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randint(0, len(data))]


def _number(data: bytes, chance: random.Random) -> bytes:
    """Four or eight bytes that say a size, made extreme."""
    size = chance.choice((2, 4, 8))
    at = chance.randint(0, max(0, len(data) - size))
    value = chance.choice((0, 1, (1 << 8 * size) - 1, 1 << (8 * size - 1)))
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


def _lines(data: bytes, chance: random.Random) -> bytes:
    """A line repeated, dropped, moved, or put in the place of another."""
    lines = data.splitlines(keepends=True) or [b"\n"]
    at, other = (chance.randrange(len(lines)) for _ in range(2))
    way = chance.randrange(4)
    if way == 0:
        lines[at : at + 1] = [lines[at]] * chance.choice((2, 50))
    elif way == 1:
        del lines[at]
    elif way == 2:
        lines.insert(other, lines.pop(at))
    else:
        lines[at] = lines[other]
    return b"".join(lines)


_WAYS: tuple[Way, ...] = (_nested, _run, _token, _token, _cut, _number, _lines, _lines)
