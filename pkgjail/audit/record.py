"""The file form of an audit: JSON Lines, canonical as a manifest is.

One object a line, keys sorted, no white space between tokens, sections and their records in order, no time
and no host name. The last line has the number of lines before it and the digest of their bytes. A path that
is not UTF-8 is an object with its base64 form. docs/audit.md describes the fields.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from base64 import b64decode, b64encode
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, get_args

from pkgjail.audit.model import Area, Audit, Call, Clue, Kind, Listing, LookUp, Mention, Nowhere, Program
from pkgjail.core.errors import InputError, Problem, unreadable, unwritable
from pkgjail.core.given import path_text
from pkgjail.core.recognise import AUDIT, mistaken_for
from pkgjail.core.untrusted import MANIFEST, PARSE_INT, is_nested, parsing, read_named, shortened
from pkgjail.storage.atomic import replace_file

if TYPE_CHECKING:
    from pkgjail.core.given import AnyPath

SCHEMA = 1
_LARGEST = 1 << 63
_PATHS = frozenset({"path", "script", "file", "directory"})
_WORDS: dict[str, tuple[str, ...]] = {
    "inside": get_args(Kind),
    "source": get_args(Kind),
    "area": get_args(Area),
    "clue": get_args(Clue),
}


class _Section(NamedTuple):
    """One kind of record: its word, its class, the attribute of an `Audit`, and what it is sorted by."""

    kind: str
    record: type[Any]
    attribute: str
    order: str


_SECTIONS = (
    _Section("program", Program, "programs", "number"),
    _Section("path", LookUp, "look_ups", "path"),
    _Section("listing", Listing, "listings", "path"),
    _Section("nowhere", Nowhere, "nowhere", "directory"),
)
_BY_KIND = {section.kind: section for section in _SECTIONS}
_HEADER = tuple(
    field.name for field in fields(Audit) if field.name not in {each.attribute for each in _SECTIONS}
)


def dump_audit(audit: Audit) -> bytes:
    """Return an audit's canonical form: equal audits give equal bytes."""
    header = {name: _plain(name, getattr(audit, name)) for name in _HEADER}
    lines = [_line({"kind": "audit", "schema": SCHEMA, **header})]
    for section in _SECTIONS:
        records = sorted(getattr(audit, section.attribute), key=lambda each: getattr(each, section.order))
        lines += [_line({"kind": section.kind, **_object(record)}) for record in records]
    body = "".join(lines).encode("utf-8", "backslashreplace")
    end = {"kind": "end", "records": len(lines), "sha256": hashlib.sha256(body).hexdigest()}
    return body + _line(end).encode()


def write_audit(audit: Audit, path: AnyPath) -> None:
    """Write an audit atomically. Raises `InputError` and `UnwritableError` as `write_manifest`."""
    path = path_text(path, "path")
    try:
        replace_file(path, dump_audit(audit))
    except OSError as error:
        raise unwritable(error, path) from error


def refuse_target(path: str | os.PathLike[str]) -> None:
    """Refuse a path at which no audit could be written after a run. Raises `OSError`."""
    parent = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    os.stat(parent)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), parent)


def read_audit(path: AnyPath) -> Audit:
    """Read the audit at `path`.

    Raises:
        InputError: it is no audit that this version of pkgjail would have written, with the line.
        MissingFileError, UnreadableError: there is none, or it cannot be read; each is an `OSError`, too.

    """
    path = path_text(path, "path")
    try:
        data = read_named(path, MANIFEST)
    except OSError as error:
        raise unreadable(error, path) from None
    return parse_audit(data, os.fspath(path))


def parse_audit(data: bytes, name: str) -> Audit:
    """Read an audit from its canonical form; messages call its source `name`. Raises as `read_audit`."""

    def problem(why: str) -> InputError:
        return InputError([Problem(name, f"this is no record of an audit: {why}")])

    if mistaken := mistaken_for(data, AUDIT):
        raise InputError([Problem(name, mistaken)])
    with parsing(problem):
        audit = _parsed(data, name)
        if dump_audit(audit) != data:
            raise ValueError(f"line {_first_difference(data, dump_audit(audit))} is not as pkgjail writes it")
    return audit


def _parsed(data: bytes, name: str) -> Audit:
    text = data.decode()
    if is_nested(text):
        raise ValueError("it has too many lists and objects")
    found: dict[str, list[Any]] = {section.attribute: [] for section in _SECTIONS}
    header: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        with parsing(lambda why, number=number: InputError([Problem(f"{name}:{number}", why)])):  # type: ignore[misc]
            decoded = json.loads(line, parse_int=PARSE_INT)
            kind = decoded.pop("kind")
            if number == 1:
                header = _header(kind, decoded)
            elif kind in _BY_KIND:
                section = _BY_KIND[kind]
                found[section.attribute].append(_record(section.record, decoded))
            elif kind != "end":
                raise ValueError(f"there is no kind of record {shortened(repr(kind))}")
    if not header:
        raise ValueError("it is empty; run a command with an audit to make one")
    everything: dict[str, Any] = {**header, **{name: tuple(records) for name, records in found.items()}}
    return Audit(**everything)


def _header(kind: object, decoded: dict[str, Any]) -> dict[str, Any]:
    if kind != "audit":
        raise ValueError("the first line is none of an audit")
    schema = decoded.pop("schema")
    if type(schema) is int and schema > SCHEMA:
        raise ValueError(f"made by a newer pkgjail (schema {schema}); upgrade pkgjail")
    header = {name: decoded[name] for name in _HEADER}
    header["command"] = _texts(header["command"])
    for name, value in header.items():
        if name in {"manifest", "family", "architecture"}:
            _checked(value, str)
        elif name != "command":
            _number(value)
    header["folded"] = bool(header["folded"])
    return header


def _first_difference(data: bytes, right: bytes) -> int:
    lines = zip(data.split(b"\n"), right.split(b"\n"))
    return next((number for number, (one, other) in enumerate(lines, 1) if one != other), 1)


# --- writing ---------------------------------------------------------------------------------------


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n"


def _object(record: Any) -> dict[str, Any]:
    """Return a record's fields without those that are empty."""
    written = ((field.name, _plain(field.name, getattr(record, field.name))) for field in fields(record))
    return {
        name: value
        for name, value in written
        if value not in ("", [], {}, 0) and not _is_default(name, value)
    }


def _is_default(name: str, value: Any) -> bool:
    return isinstance(value, str) and (name, value) in {("source", "absent"), ("clue", "asked")}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return _path(value)
    if isinstance(value, Mention):
        return _object(value)
    if isinstance(value, tuple):
        return [_plain(name, each) for each in value]
    return dict(value) if hasattr(value, "items") else value


def _path(path: bytes) -> Any:
    try:
        return path.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(path).decode()}


# --- reading ---------------------------------------------------------------------------------------


def _record(kind: type[Any], decoded: dict[str, Any]) -> Any:
    known = {field.name for field in fields(kind)}
    unknown = sorted(decoded.keys() - known)
    if unknown:
        raise ValueError(f"a record of this kind has no field {shortened(repr(unknown[0]))}")
    return kind(**{**_defaults(kind), **{name: _read(name, value) for name, value in decoded.items()}})


def _defaults(kind: type[Any]) -> dict[str, Any]:
    """Return the values of required fields that are left out because they are empty."""
    return {"path": b""} if kind is Program else {"names": 0, "asked": 0} if kind is Nowhere else {}


def _read(name: str, value: Any) -> Any:
    if name in _WORDS:
        if value not in _WORDS[name]:
            raise ValueError(f"{name} is none of {', '.join(_WORDS[name])}")
        return value
    read: Callable[[Any], Any] = _READERS.get(name, _number)
    return read(value)


def _calls(value: Any) -> dict[str, int]:
    if not value.keys() <= set(get_args(Call)):
        raise ValueError(f"calls are of the kinds {', '.join(get_args(Call))}")
    return _counts(value)


def _counts(value: Any) -> dict[str, int]:
    return {key: _number(count) for key, count in value.items()}


def _text(value: Any) -> str:
    return str(_checked(value, str))


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(map(_text, values))


def _mentions(values: Any) -> tuple[Mention, ...]:
    return tuple(_record(Mention, _checked(each, dict)) for each in values)


def _programs(values: Any) -> tuple[tuple[int, int], ...]:
    return tuple((_number(one), _number(count)) for one, count in values)


def _raw(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return b64decode(_checked(value["base64"], str), validate=True)


def _number(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < _LARGEST:
        raise ValueError("a count is a whole number that is not negative")
    return value


def _checked(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{shortened(repr(value))} is no {kind.__name__}")  # noqa: TRY004 - for `parsing`
    return value


# For the fields that are no numbers or words of a list.
_READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_PATHS, _raw),
    **dict.fromkeys(("rule", "text", "result"), _text),
    "owners": _texts,
    "programs": _programs,
    "mentions": _mentions,
    "calls": _calls,
    "hidden": _counts,
}
