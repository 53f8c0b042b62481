"""What is wrong with a manifest that `reader` will not have, and on which line.

Called only for a manifest that is refused already, so that it may take its time; whatever it finds
or fails to find, the manifest stays refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode, b64encode
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

from pkgjail.core.errors import Problem
from pkgjail.core.untrusted import PARSE_INT, is_nested, shortened
from pkgjail.manifest.codec import KINDS, SCHEMA, end_line
from pkgjail.manifest.reader import content_problems, from_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pkgjail.manifest.reader import Record

_LIMIT = 20
_MODE = re.compile(r"[0-7]{4}")
_A_PLAN = (
    "this is a plan of packages ('pkgjail resolve --available'), not a manifest: it has no files, and "
    "nothing of it need be installed here; install the packages, and resolve the whitelists on that system"
)
_RESOLVE_ANEW = "resolve it anew, or fetch it again"


def manifest_problems(data: bytes, name: str) -> tuple[Problem, ...]:
    """The first twenty problems of `data` as `NAME:LINE`, in the order of the lines; at least one."""
    faults = list(islice(sorted(_faults(data)), _LIMIT + 1))
    if not faults:
        faults = [(1, f"this is not the form in which pkgjail writes a manifest; {_RESOLVE_ANEW}")]
    problems = [Problem(f"{name}:{line}", shortened(message)) for line, message in faults[:_LIMIT]]
    if len(faults) > _LIMIT:
        problems.append(Problem(name, f"there is more wrong than these {_LIMIT} lines say; {_RESOLVE_ANEW}"))
    return tuple(problems)


def _faults(data: bytes) -> Iterable[tuple[int, str]]:
    """Line numbers and messages: of the form, and of the content where every line can be read."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return [(data.count(b"\n", 0, error.start) + 1, f"byte {error.start} is not UTF-8; {_RESOLVE_ANEW}")]
    if is_nested(text):
        return [(1, f"this is not a manifest: it has too many lists and objects; {_RESOLVE_ANEW}")]
    lines = text.split("\n")
    rest = lines.pop()
    first = _decode(lines[0] if lines else rest)
    if isinstance(first, dict) and first.get("kind") == "plan":
        return [(1, _A_PLAN)]
    if not isinstance(first, dict) or first.get("kind") != "header":
        return [(1, f"this is not a manifest: a manifest's first line is its header; {_RESOLVE_ANEW}")]
    schema = first.get("schema")
    if type(schema) is int and schema > SCHEMA:
        return [(1, f"made by a newer pkgjail (schema {schema}, this one reads {SCHEMA}); upgrade pkgjail")]
    return _form_and_content(lines, rest, data)


def _form_and_content(lines: list[str], rest: str, data: bytes) -> list[tuple[int, str]]:
    faults: list[tuple[int, str]] = []
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        record = _decode(line)
        message = record if isinstance(record, str) else _record_problem(record, line)
        if message:
            faults.append((number, message))
        elif isinstance(record, dict):
            records.append(record)
        if len(faults) > _LIMIT:  # as many as are told, and one
            break
    readable = not faults
    faults += _section_problems(records) if readable else []
    faults += _end_problems(lines, rest, data)
    return faults + (_content(records) if readable else [])


def _decode(line: str) -> Record | str:
    """One line's object, or what is wrong with it."""
    if not line.strip():
        return "the line is empty; remove it"
    try:
        value = json.loads(line, object_pairs_hook=_unique, parse_int=PARSE_INT)
    except (ValueError, RecursionError) as error:
        return f"not JSON as a manifest has it: {error}; {_RESOLVE_ANEW}"
    return value if isinstance(value, dict) else "a line is one JSON object"


def _unique(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return record


# --- the fields of each kind ------------------------------------------------------------------


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return type(value) is int


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_filled(value: object) -> bool:
    """For what is left out where it is empty."""
    return bool(value) and (_is_text(value) or _is_texts(value))


def _is_mode(value: object) -> bool:
    return isinstance(value, str) and _MODE.fullmatch(value) is not None


def _is_distribution(value: object) -> bool:
    return (
        isinstance(value, dict)
        and {"id"} <= value.keys() <= {"id", "version"}
        and all(map(_is_text, value.values()))
        and value.get("version") != ""
    )


def _is_bytes(value: object) -> bool:
    """A path: a string that is UTF-8, or the base64 form of bytes that are not."""
    try:
        if isinstance(value, str):
            return bool(value.encode()) or not value
        if not isinstance(value, dict) or value.keys() != {"base64"}:
            return False
        raw = b64decode(value["base64"], validate=True)
        return b64encode(raw).decode() == value["base64"] and not _is_utf8(raw)
    except (ValueError, TypeError):
        return False


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


_PATH = (_is_bytes, 'text, or {"base64": ...} where the bytes are not UTF-8')
_TEXT = (_is_text, "text")
_TEXTS = (_is_texts, "a list of texts")
_FLAG = (_is_flag, "true or false")
_WHOLE = (_is_whole, "a whole number")
_MODE_FIELD = (_is_mode, "four octal digits as text")
_OWNERS = (_is_filled, "a list of packages' keys, left out where empty")
_DETAIL = (_is_filled, "text, left out where empty")
_DISTRIBUTION = (_is_distribution, "an object of id and, unless empty, version")

_Field = tuple["Callable[[object], bool]", str]

_REQUIRED: dict[str, dict[str, _Field]] = {
    "header": {
        "architecture": _TEXT,
        "blacklists": _TEXTS,
        "distribution": _DISTRIBUTION,
        "essential": _FLAG,
        "policy": _TEXT,
        "recommends": _FLAG,
        "schema": _WHOLE,
        "whitelists": _TEXTS,
    },
    "package": {
        "architecture": _TEXT,
        "essential": _FLAG,
        "key": _TEXT,
        "name": _TEXT,
        "protected": _FLAG,
        "size": _WHOLE,
        "version": _TEXT,
    },
    "dependency": {"field": _TEXT, "source": _TEXT, "target": _TEXT, "text": _TEXT},
    "file": {"mode": _MODE_FIELD, "origin": _TEXT, "path": _PATH, "type": _TEXT},
    "dropped": {"path": _PATH, "rule": _TEXT},
    "missing": {"path": _PATH, "reason": _TEXT},
    "unmet": {"field": _TEXT, "reason": _TEXT, "source": _TEXT, "text": _TEXT},
    "end": {"records": _WHOLE, "sha256": _TEXT},
}

_OPTIONAL: dict[str, dict[str, _Field]] = {
    "file": {"detail": _DETAIL, "owners": _OWNERS, "sha256": _TEXT, "size": _WHOLE, "target": _PATH},
    "missing": {"owners": _OWNERS},
}


def _record_problem(record: Record, line: str) -> str:
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in _REQUIRED:
        return f"kind {kind!r} is none of {', '.join(KINDS)}"
    known = {**_REQUIRED[kind], **_OPTIONAL.get(kind, {})}
    problems = [*_name_problems(kind, record, known), *_value_problems(record, known)]
    if problems:
        return "; ".join(problems)
    if kind == "package" and record["key"] != f"{record['name']}:{record['architecture']}":
        return "a package's key is its name, a colon and its architecture"
    if kind == "header" and record["schema"] != SCHEMA:
        return f"schema {record['schema']} is unknown; this pkgjail reads {SCHEMA}"
    if line != _canonical(record):
        return (
            f"not the canonical form (keys sorted, nothing escaped without need): write {_canonical(record)}"
        )
    return ""


def _name_problems(kind: str, record: Record, known: dict[str, _Field]) -> Iterator[str]:
    for name in sorted(record.keys() - known.keys() - {"kind"}):
        yield f"a {kind} record has no field {name!r}"
    for name in sorted(_REQUIRED[kind].keys() - record.keys()):
        yield f"a {kind} record needs the field {name!r}"


def _value_problems(record: Record, known: dict[str, _Field]) -> Iterator[str]:
    for name in sorted(record.keys() & known.keys()):
        is_right, wanted = known[name]
        if not is_right(record[name]):
            yield f"{name} must be {wanted}"


def _canonical(record: Record) -> str:
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace").decode()


# --- the whole --------------------------------------------------------------------------------


def _section_problems(records: list[Record]) -> Iterator[tuple[int, str]]:
    """Sections that stand in the wrong order, and headers or ends that are not alone."""
    ranks = [KINDS.index(record["kind"]) for record in records]
    alone = {0, KINDS.index("end")}
    for number, (before, rank) in enumerate(zip(ranks, ranks[1:]), 2):
        if rank < before:
            yield number, f"a record of kind {KINDS[rank]} can't stand after one of kind {KINDS[before]}"
        elif rank == before and rank in alone:
            yield number, f"a manifest has one record of kind {KINDS[rank]}, and this is another"


def _end_problems(lines: list[str], rest: str, data: bytes) -> Iterator[tuple[int, str]]:
    """What the last line says against: a file that was cut, or changed after it was written."""
    if rest:
        yield len(lines) + 1, f"the manifest is cut in the middle of this line; {_RESOLVE_ANEW}"
        return
    end = _decode(lines[-1])
    if not isinstance(end, dict) or end.get("kind") != "end":
        yield len(lines), f"the manifest is cut after this line: its end record is missing; {_RESOLVE_ANEW}"
        return
    body = data[: data.rindex(b"\n", 0, -1) + 1]
    wanted = end_line(len(lines) - 1, hashlib.sha256(body).hexdigest())
    if data[len(body) :] != wanted:
        what = "their number or their sha256 is not what this line says"
        yield len(lines), f"the lines above are not those that were written: {what}; {_RESOLVE_ANEW}"


def _content(records: list[Record]) -> list[tuple[int, str]]:
    numbers: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for number, record in enumerate(records, 1):
        numbers[record["kind"]].append(number)
    if len(numbers["header"]) > 1:
        return []
    faults = content_problems(from_records(records))
    return [(numbers[fault.kind][fault.position], fault.message) for fault in faults]
