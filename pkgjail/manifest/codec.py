"""Write a manifest's records as lines, by the table in records.py.

Each line is a JSON object (RFC 8259) with its keys sorted, no white space between tokens, and no
unnecessary escapes. The reader writes each manifest again to check that it had this form, so writing
costs time whenever a jail is entered. Therefore a section is written field by field and not record by
record: functions in C then do most of the work, in half the time of json.dumps.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from itertools import groupby, repeat
from json.encoder import encode_basestring as quoted
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pkgjail.manifest.records import END, HEADER, REQUIRED, SECTIONS, End

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pkgjail.core.model import Distribution, Manifest
    from pkgjail.manifest.records import Field, RecordKind, Type


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the canonical form of a manifest, with its sections sorted.

    Text that stands for undecodable bytes (PEP 383) is written with JSON's own escapes, as
    `backslashreplace` happens to do for lone surrogates.
    """
    lines = list(_lines(HEADER, [manifest.header]))
    for kind in SECTIONS:
        lines += _lines(kind, kind.sort(getattr(manifest, kind.section)))
    body = "\n".join([*lines, ""]).encode("utf-8", "backslashreplace")
    return body + end_line(len(lines), hashlib.sha256(body).hexdigest())


def end_line(records: int, sha256: str) -> bytes:
    """Return the last line: the number of lines before it, and the digest of their bytes."""
    (line,) = _lines(END, [End(records, sha256)])
    return f"{line}\n".encode()


def _lines(kind: RecordKind, records: Sequence[Any]) -> Iterator[str]:
    """The lines of records of one kind, in their order."""
    columns: list[Iterable[str]] = [repeat("{")]
    for is_after, fields in groupby(kind.fields, key=lambda field: field.name > "kind"):
        if is_after:
            columns.append(repeat(f'"kind":{quoted(kind.name)},'))
        for repeats, neighbours in groupby(fields, key=lambda field: field.repeats):
            writers = {field.attribute: _writer(field, kind) for field in neighbours}
            if repeats:
                columns.append(_repeated_texts(writers, records))
            else:
                columns += (map(write, map(attrgetter(name), records)) for name, write in writers.items())
    return map("".join, zip(*columns))


def _repeated_texts(writers: dict[str, Callable[[Any], str]], records: Sequence[Any]) -> Iterator[str]:
    """The text of several attributes of each record, made once for all records with the same values."""
    texts = _Memo(lambda values: "".join(write(each) for write, each in zip(writers.values(), values)))
    return map(texts.__getitem__, zip(*(map(attrgetter(name), records) for name in writers)))


class _Memo(dict[Any, str]):
    """The results of `function` by its argument."""

    def __init__(self, function: Callable[[Any], str]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, argument: Any) -> str:
        self[argument] = result = self._function(argument)
        return result


def _writer(field: Field, kind: RecordKind) -> Callable[[Any], str]:
    """Return a function that writes the name and value of a field, or "" for its default."""
    write, default = _WRITERS[field.type], field.default
    opening, closing = f'"{field.name}":', "}" if field is kind.fields[-1] else ","
    if default is REQUIRED:
        return lambda value: f"{opening}{write(value)}{closing}"
    return lambda value: "" if value == default else f"{opening}{write(value)}{closing}"


def _flag(value: bool) -> str:  # noqa: FBT001 - it is what is written
    return "true" if value else "false"


def _texts(texts: Iterable[str]) -> str:
    return f"[{','.join(map(quoted, texts))}]"


def _keys(keys: Iterable[str]) -> str:
    return _texts(sorted(keys))


def _path(path: bytes) -> str:
    """A path as JSON: a string if it is UTF-8, otherwise an object with its base64 form."""
    try:
        return quoted(path.decode())
    except UnicodeDecodeError:
        return f'{{"base64":"{b64encode(path).decode()}"}}'


def _distribution(distribution: Distribution) -> str:
    family = f'"family":{quoted(distribution.family)},' if distribution.family else ""
    version = f',"version":{quoted(distribution.version)}' if distribution.version else ""
    return f'{{{family}"id":{quoted(distribution.id)}{version}}}'


_WRITERS: dict[Type, Callable[[Any], str]] = {
    "text": quoted,
    "texts": _texts,
    "keys": _keys,
    "path": _path,
    "flag": _flag,
    "number": "{:d}".format,
    "mode": '"{:04o}"'.format,
    "distribution": _distribution,
}
