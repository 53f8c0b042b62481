"""Find what is wrong with a manifest that `reader` refuses, and on which line.

This is called only for a manifest that is refused already. So it may take its time, and the manifest
stays refused even if nothing is found here.
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
from pkgjail.core.families import implied_family
from pkgjail.core.parameters import parameter
from pkgjail.core.recognise import MANIFEST_FILE, mistaken_for
from pkgjail.core.untrusted import PARSE_INT, is_nested, shortened
from pkgjail.manifest.codec import end_line
from pkgjail.manifest.reader import content_problems, from_records
from pkgjail.manifest.records import END, HEADER, KINDS, PACKAGE, REQUIRED, SCHEMA, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pkgjail.manifest.reader import Record
    from pkgjail.manifest.records import RecordKind, Type

_MAX_PROBLEMS = 20
_MODE = re.compile(r"[0-7]{4}")
_A_PLAN = (
    f"this is a package plan ({parameter('plan_packages')}), not a manifest: it has no files, and its "
    "packages need not be installed here; install them, and resolve the whitelists on that system"
)
_AS_IT_WAS = (
    "a manifest's digest names its exact bytes: fetch it again as it was, or convert it with dos2unix(1); in "
    "Git, '*.jsonl -text' keeps it"
)
_RESOLVE_AGAIN = "resolve it again, or fetch it again"
_LEFT_OUT = ", left out where empty"


def manifest_problems(data: bytes, name: str) -> tuple[Problem, ...]:
    """Return the first twenty problems of `data` as `NAME:LINE`, in the order of the lines; at least one."""
    faults = list(islice(sorted(_faults(data)), _MAX_PROBLEMS + 1))
    if not faults:
        faults = [(1, f"this is not the form in which pkgjail writes a manifest; {_RESOLVE_AGAIN}")]
    problems = [Problem(f"{name}:{line}", shortened(message)) for line, message in faults[:_MAX_PROBLEMS]]
    if len(faults) > _MAX_PROBLEMS:
        problems.append(
            Problem(name, f"there are more problems than these {_MAX_PROBLEMS}; {_RESOLVE_AGAIN}")
        )
    return tuple(problems)


def _faults(data: bytes) -> Iterable[tuple[int, str]]:
    """Line numbers and messages about the form, and about the content if every line can be read."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return [(data.count(b"\n", 0, error.start) + 1, f"byte {error.start} is not UTF-8; {_RESOLVE_AGAIN}")]
    if is_nested(text):
        return [(1, f"this is not a manifest: it has too many lists and objects; {_RESOLVE_AGAIN}")]
    lines = text.split("\n")
    cut = lines.pop()
    first = _decode(lines[0] if lines else cut)
    if why := _another_file(data, text, first):
        return [(1, why)]
    schema = first.get("schema") if isinstance(first, dict) else None
    if type(schema) is int and schema > SCHEMA:
        return [
            (1, f"made by a newer pkgjail (schema {schema}, this one reads 1 to {SCHEMA}); upgrade pkgjail")
        ]
    return _form_and_content(lines, cut, data)


def _another_file(data: bytes, text: str, first: Any) -> str:
    """Return what a file is that is no manifest as pkgjail wrote it, by its first line; otherwise ""."""
    if isinstance(first, dict) and first.get("kind") == "plan":
        return _A_PLAN
    if mistaken := mistaken_for(data, MANIFEST_FILE):
        return mistaken
    if text.startswith("\ufeff"):
        return f"it begins with a byte order mark (BOM), which an editor added; {_AS_IT_WAS}"
    if text.partition("\n")[0].endswith("\r"):
        return f"its lines end in CR LF, as some editors and Git on Windows write them; {_AS_IT_WAS}"
    if isinstance(first, dict) and first.get("kind") == "header":
        return ""
    return "this is not a manifest: the first line is no header; make one with 'pkgjail resolve'"


def _form_and_content(lines: list[str], cut: str, data: bytes) -> list[tuple[int, str]]:
    """Faults of the complete `lines`, and of what stands after the last line feed, `cut`."""
    faults: list[tuple[int, str]] = []
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        record = _decode(line)
        message = record if isinstance(record, str) else _record_problem(record, line)
        if message:
            faults.append((number, message))
        elif isinstance(record, dict):
            records.append(record)
        if len(faults) > _MAX_PROBLEMS:  # one more than are reported
            break
    readable = bool(records) and not faults
    faults += _section_problems(records) if readable else []
    faults += _end_problems(lines, cut, data)
    return faults + (_content(records) if readable else [])


def _decode(line: str) -> Record | str:
    """Return the object of one line, or a message about what is wrong with it."""
    if not line.strip():
        return "the line is empty; remove it"
    try:
        value = json.loads(line, object_pairs_hook=_unique, parse_int=PARSE_INT)
    except (ValueError, RecursionError) as error:
        return f"not JSON as a manifest has it: {error}; {_RESOLVE_AGAIN}"
    return value if isinstance(value, dict) else "a line is one JSON object"


def _unique(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return record


# --- the fields of one line -------------------------------------------------------------------


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_mode(value: object) -> bool:
    return isinstance(value, str) and _MODE.fullmatch(value) is not None


def _is_distribution(value: object) -> bool:
    return (
        isinstance(value, dict)
        and {"id"} <= value.keys() <= {"family", "id", "version"}
        and all(isinstance(each, str) for each in value.values())
        and value.get("version") != ""
        and value.get("family") not in {"", implied_family(value["id"])}
    )


def _is_path(value: object) -> bool:
    """Return whether it is a string that is UTF-8, or the base64 form of bytes that are not."""
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


# For each type whether a value is of it, and what it must be.
_CHECKS: dict[Type, tuple[Callable[[Any], bool], str]] = {
    "text": (lambda value: isinstance(value, str), "text"),
    "texts": (_is_texts, "a list of texts"),
    "keys": (_is_texts, "a list of packages' keys"),
    "path": (_is_path, 'text, or {"base64": ...} where the bytes are not UTF-8'),
    "flag": (lambda value: isinstance(value, bool), "true or false"),
    "number": (lambda value: type(value) is int, "a whole number"),
    "mode": (_is_mode, "four octal digits as text"),
    "distribution": (
        _is_distribution,
        "an object of id and, unless empty, version and a family that the id does not imply",
    ),
}


def _record_problem(record: Record, line: str) -> str:
    name = record.get("kind")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        return f"kind {name!r} is none of {', '.join(KINDS)}"
    problems = [*_name_problems(kind, record), *_value_problems(kind, record)]
    if problems:
        return "; ".join(problems)
    if kind is PACKAGE and record["key"] != f"{record['name']}:{record['architecture']}":
        return "a package's key is its name, a colon and its architecture"
    if kind is HEADER and not 1 <= record["schema"] <= SCHEMA:
        return f"schema {record['schema']} is unknown; this pkgjail reads 1 to {SCHEMA}"
    if line != _canonical(record):
        return (
            f"not the canonical form (keys sorted, nothing escaped without need): write {_canonical(record)}"
        )
    return ""


def _name_problems(kind: RecordKind, record: Record) -> Iterator[str]:
    for name in sorted(record.keys() - {field.name for field in kind.fields} - {"kind"}):
        yield f"a {kind.name} record has no field {name!r}"
    for field in kind.fields:
        if field.default is REQUIRED and field.name not in record:
            yield f"a {kind.name} record needs the field {field.name!r}"


def _value_problems(kind: RecordKind, record: Record) -> Iterator[str]:
    for field in kind.fields:
        if field.name not in record:
            continue
        is_right, right = _CHECKS[field.type]
        is_empty = field.default in ("", ()) and not record[field.name]
        if is_empty or not is_right(record[field.name]):
            yield f"{field.name} must be {right}{_LEFT_OUT if field.default in ('', ()) else ''}"


def _canonical(record: Record) -> str:
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace").decode()


# --- all lines --------------------------------------------------------------------------------


def _section_problems(records: list[Record]) -> Iterator[tuple[int, str]]:
    """Sections in the wrong order, and a second header or end."""
    kinds = list(KINDS)
    for number, (upper, lower) in enumerate(zip(records, records[1:]), 2):
        before, kind = upper["kind"], lower["kind"]
        if kinds.index(kind) < kinds.index(before):
            yield number, f"a record of kind {kind} can't stand after one of kind {before}"
        elif kind == before and kind in {HEADER.name, END.name}:
            yield number, f"a manifest has one record of kind {kind}, and this is another"


def _end_problems(lines: list[str], cut: str, data: bytes) -> Iterator[tuple[int, str]]:
    """Problems that the last line shows: a file that was cut, or changed after it was written."""
    if cut:
        yield len(lines) + 1, f"the manifest is cut in the middle of this line; {_RESOLVE_AGAIN}"
        return
    end = _decode(lines[-1])
    if not isinstance(end, dict) or end.get("kind") != END.name:
        yield len(lines), f"the manifest is cut after this line: its end record is missing; {_RESOLVE_AGAIN}"
        return
    body = data[: data.rindex(b"\n", 0, -1) + 1]
    if data[len(body) :] != end_line(len(lines) - 1, hashlib.sha256(body).hexdigest()):
        what = "their number or their sha256 is not what this line says"
        yield len(lines), f"the lines above are not those that were written: {what}; {_RESOLVE_AGAIN}"


def _content(records: list[Record]) -> list[tuple[int, str]]:
    """Line numbers and messages about the content of records whose form is right."""
    numbers: dict[str, list[int]] = {name: [] for name in KINDS}
    for number, record in enumerate(records, 1):
        numbers[record["kind"]].append(number)
    if len(numbers[HEADER.name]) > 1:
        return []
    manifest = from_records(records)
    found = [(numbers[fault.kind][fault.position], fault.message) for fault in content_problems(manifest)]
    if manifest.header.schema != schema_of(manifest):
        found.append((1, f"schema must be {schema_of(manifest)}, the first that has all that is in it"))
    return found
