"""The data of a page: columns instead of records, since a page has to hold 200,000 names.

Paths are sorted, so each is told by how many characters it shares with the one before and the rest. What
names have in common (type, mode, owners, origin) is a class, and a name has the number of its class.
Numbers are in base 36. `assets/page.js` reads all this back.
"""

from __future__ import annotations

from os.path import commonprefix
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.model import text_path
from pkgjail.questions.chains import Chains
from pkgjail.questions.shape import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pkgjail.model import Manifest

# By which number a byte that is no UTF-8 stands in a text, and which bytes those are (PEP 383).
_NO_UTF8, _FIRST_BYTE, _LAST_BYTE = 0xDC00, 0x80, 0xFF
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class _Row(NamedTuple):
    """A line of the page's table of names."""

    path: bytes
    size: int | None
    target: bytes | None
    shared: tuple[str, str, tuple[str, ...], str, str]


def columns(manifest: Manifest) -> dict[str, Any]:
    """The nodes and edges of the closure, and the names that are in, dropped and missing, as columns.

    A node is its name, kind, version, listed bytes, cost, and the number of its shortest chain's last edge,
    or -1. A class is a type, a mode, the numbers of the owners' nodes, an origin, a detail.
    """
    shape = shape_of(manifest)
    numbers = {node.name: number for number, node in enumerate(shape.nodes)}
    edges = {(edge.source, edge.target): number for number, edge in enumerate(shape.edges)}
    chains = Chains(manifest.dependencies)
    last = {
        node.name: edges[chain[-1].source, chain[-1].target]
        for node in shape.nodes
        if (chain := chains.shortest(node.name))
    }
    return {
        "nodes": [
            [printable(node.name), node.kind, node.version, node.bytes, node.cost, last.get(node.name, -1)]
            for node in shape.nodes
        ],
        "edges": [
            [numbers[edge.source], numbers[edge.target], edge.kind, printable(edge.text)]
            for edge in shape.edges
        ],
        **_names(sorted(_rows(manifest)), numbers),
    }


def _rows(manifest: Manifest) -> Iterator[_Row]:
    for entry in manifest.files:
        shared = (entry.kind, f"{entry.mode:04o}", entry.owners, entry.origin, printable(entry.detail))
        yield _Row(entry.path, entry.size, entry.target, shared)
    for dropped in manifest.dropped:
        yield _Row(dropped.path, None, None, ("", "", (), "dropped", printable(dropped.rule)))
    for missing in manifest.missing:
        yield _Row(missing.path, None, None, ("", "", missing.owners, "missing", missing.reason))


def _names(rows: Iterable[_Row], numbers: Mapping[str, int]) -> dict[str, Any]:
    classes: dict[tuple[str, str, tuple[str, ...], str, str], int] = {}
    paths, kinds, sizes, targets, before = [], [], [], [], ""
    for row in rows:
        path = printable(text_path(row.path))
        shared = len(commonprefix((before, path)))  # noqa: RUF071 - characters are meant
        paths.append(f"{base36(shared)} {path[shared:]}")
        kinds.append(base36(classes.setdefault(row.shared, len(classes))))
        sizes.append("" if row.size is None else base36(row.size))
        if row.target is not None:
            targets.append(printable(text_path(row.target)))
        before = path
    return {
        "classes": [
            [kind, mode, [numbers[owner] for owner in owners], origin, detail]
            for kind, mode, owners, origin, detail in classes
        ],
        "paths": "\n".join(paths),
        "kinds": ",".join(kinds),
        "sizes": ",".join(sizes),
        "targets": targets,
    }


def base36(number: int) -> str:
    """A number from 0 on, as JavaScript's `parseInt(text, 36)` reads it."""
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits


def printable(text: str) -> str:
    r"""Text as people can read it: a byte that is no UTF-8 as `\\xNN`, control characters escaped.

    A backslash that is one is doubled only where it would read as such an escape.
    """
    if text.isprintable():
        return text
    return "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    if character.isprintable():
        return character
    byte = ord(character) - _NO_UTF8
    return f"\\x{byte:02x}" if _FIRST_BYTE <= byte <= _LAST_BYTE else ascii(character)[1:-1]
