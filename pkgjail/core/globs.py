"""Patterns of paths, expanded without a regular expression, since that module takes long to import.

In each component `*` stands for any bytes, `?` for one byte, `[...]` for one of several (`[!...]`: for any
other), and a backslash makes the next byte literal. The component `**` stands for any number of directories.
A directory brings everything below it. No symbolic link is followed.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Union

    PathsIn = Callable[[bytes], list[bytes]]

    # A literal byte; "*" or "?"; or whether one of these bytes is wanted, or any other.
    Token = Union[int, str, tuple[bool, bytes]]

_ALL = b"**"
_ANY, _ONE = "*", "?"


def glob_fault(pattern: bytes) -> str:
    """Say why an absolute pattern cannot be expanded, for the end of a message; "" if it can."""
    parts = pattern.split(b"/")
    if parts.count(_ALL) > 1:
        return "has '**' more than once"
    if any(_tokens(part) is None for part in parts):
        return "has a '[' without a ']', or ends in a backslash"
    return ""


def is_literal(pattern: bytes) -> bool:
    """Return whether a pattern has no wildcard."""
    return all(isinstance(token, int) for part in pattern.split(b"/") for token in _tokens(part) or ())


def literal(pattern: bytes) -> bytes:
    """Return the path that a pattern without wildcards names."""
    parts = (_tokens(part) or () for part in pattern.split(b"/"))
    return b"/".join(bytes(token for token in part if isinstance(token, int)) for part in parts)


def expand(pattern: bytes, paths_in: PathsIn | None = None) -> Iterator[bytes]:
    """Yield each path that an absolute pattern matches, and everything below it.

    A path may come more than once. `paths_in` returns the paths in a directory (b"" is the root); None lists
    those of the host.
    """
    *parts, last = pattern.split(b"/")
    start = next((index for index, part in enumerate(parts) if not is_literal(part)), len(parts))
    directory = literal(b"/".join(parts[:start]))
    yield from _expand(directory, [*parts[start:], last], paths_in or list_paths)


def everything_below(directory: bytes, paths_in: PathsIn | None = None) -> Iterator[bytes]:
    """Yield each path below a directory; none if it is a link, or cannot be read."""
    for path in (paths_in or list_paths)(directory):
        yield path
        yield from everything_below(path, paths_in)


def _expand(directory: bytes, parts: list[bytes], paths_in: PathsIn) -> Iterator[bytes]:
    first, rest = parts[0], parts[1:]
    if first == _ALL and not rest:
        yield from everything_below(directory, paths_in)
        return
    if first == _ALL:
        yield from _expand(directory, rest, paths_in)
    tokens = _tokens(first) or []
    for path in paths_in(directory):
        if first == _ALL:
            yield from _expand(path, parts, paths_in)
        elif not _matches(path[len(directory) + 1 :], tokens):
            continue
        elif rest:
            yield from _expand(path, rest, paths_in)
        else:
            yield path
            yield from everything_below(path, paths_in)


def list_paths(directory: bytes) -> list[bytes]:
    """Return the paths in a directory of the host; none if it is a link, or cannot be read."""
    try:
        if not stat.S_ISDIR(os.lstat(directory or b"/").st_mode):
            return []
        return [directory + b"/" + name for name in os.listdir(directory or b"/")]
    except OSError:
        return []


def _matches(name: bytes, tokens: list[Token]) -> bool:
    """Check whether a name matches; on a mismatch, only the last `*` is tried with one more byte."""
    at = index = 0
    star, resume = -1, 0
    while at < len(name):
        wanted = tokens[index] if index < len(tokens) else None
        if wanted == _ANY:
            star, resume = index, at
            index += 1
        elif wanted is not None and _is_one(name[at], wanted):
            at += 1
            index += 1
        elif star >= 0:
            resume += 1
            at, index = resume, star + 1
        else:
            return False
    return all(left == _ANY for left in tokens[index:])


def _is_one(byte: int, wanted: Token) -> bool:
    if isinstance(wanted, tuple):
        return (byte in wanted[1]) == wanted[0]
    return wanted in (_ONE, byte)


def _tokens(part: bytes) -> list[Token] | None:
    """Return what a component of a pattern is made of; None if it is malformed."""
    tokens: list[Token] = []
    at = 0
    while at < len(part):
        byte = part[at : at + 1]
        at += 1
        if byte == b"\\":
            if at == len(part):
                return None
            tokens.append(part[at])
            at += 1
        elif byte == b"[":
            end = part.find(b"]", at + (2 if part[at : at + 1] in (b"!", b"^") else 1))
            if end < 0:
                return None
            tokens.append(_brackets(part[at:end]))
            at = end + 1
        else:
            tokens.append(byte.decode() if byte in (b"*", b"?") else byte[0])
    return tokens


def _brackets(text: bytes) -> tuple[bool, bytes]:
    """Return the members of brackets, with ranges written out, and whether they are wanted; glob(7)."""
    is_wanted = text[:1] not in (b"!", b"^")
    members, at = b"", 0 if is_wanted else 1
    while at < len(text):
        if text[at + 1 : at + 2] == b"-" and at + 2 < len(text):
            members += bytes(range(text[at], text[at + 2] + 1))
            at += 3
        else:
            members += text[at : at + 1]
            at += 1
    return is_wanted, members
