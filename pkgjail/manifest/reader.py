"""Make a `Manifest` of a manifest's bytes, and refuse what pkgjail would not have written.

A sound manifest is read in bulk: one call of the JSON parser gives the records, and the codec writes
them again. Equal bytes prove the whole form at once: UTF-8, the fields and their types, the order of
keys, lines and sections, and the count and the digest of the last line. Whatever the form can't show
is then checked on the records (`content_problems`). Only a manifest that fails is read a second time,
line by line, to say what is wrong and where; `problems` does that.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from operator import itemgetter, lt
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.devices import pattern_fault
from pkgjail.core.entries import LINK_MODE
from pkgjail.core.families import implied_family, with_family
from pkgjail.core.model import Distribution, FileEntry, Manifest, is_word
from pkgjail.core.sources import RECORDED
from pkgjail.core.text import raw_path, text_path
from pkgjail.core.untrusted import PARSE_INT, is_nested
from pkgjail.manifest.codec import manifest_bytes
from pkgjail.manifest.records import (
    HEADER,
    KINDS,
    MAX_SIZE,
    ORIGINS,
    REASONS,
    REQUIRED,
    SECTIONS,
    TYPES,
    schema_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pkgjail.core.model import Dependency, Missing, Package, Unmet
    from pkgjail.manifest.records import Field, RecordKind, Type

# One decoded JSON object. Its values are checked by being written again, not by the type checker.
Record = dict[str, Any]

# What decoding and writing again raise when a value is not what it should be.
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NORMAL_PATH = re.compile(rb"/|(?:/(?!\.{1,2}(?:/|\Z))[^/\0]+)+")
_MODES = 0o7777
_DUPLICATE = "{} stands above as a file or as dropped; remove one of them"


class Fault(NamedTuple):
    """A problem of the record at `position` (from 0) in the section of `kind`."""

    kind: str
    position: int
    message: str


def sound_manifest(data: bytes) -> Manifest | None:
    """Return the manifest whose canonical form is `data`, or None; its content is not yet checked."""
    try:
        text = data.decode()
        if is_nested(text):
            return None
        lines = text[:-1].replace("\n", ",")
        manifest = from_records(json.loads(f"[{lines}]", parse_int=PARSE_INT))
        return (
            manifest
            if manifest.header.schema == schema_of(manifest) and manifest_bytes(manifest) == data
            else None
        )
    except _MALFORMED:
        return None


def from_records(records: list[Record]) -> Manifest:
    """Return the records as a `Manifest`, its sections in the order of the records.

    Checks nothing on purpose. Records that make no sense raise one of several errors.
    """
    by_kind: dict[str, list[Record]] = {name: [] for name in KINDS}
    for record in records:
        by_kind[record["kind"]].append(record)
    (header,) = _read(HEADER, by_kind[HEADER.name])
    sections = {kind.section: tuple(_read(kind, by_kind[kind.name])) for kind in SECTIONS}
    return Manifest(header=header, **sections)


def _read(kind: RecordKind, objects: list[Record]) -> Iterator[Any]:
    """Make records of decoded objects of one kind, field by field, as the codec writes them."""
    columns = {field.attribute: _column(field, objects) for field in kind.fields if not field.derived}
    if issubclass(kind.record, FileEntry):  # a tuple; there are more of them than of all others
        return map(FileEntry, *(columns[name] for name in FileEntry._fields))
    return (kind.record(**dict(zip(columns, values))) for values in zip(*columns.values()))


def _column(field: Field, objects: list[Record]) -> Iterator[Any]:
    """The value of a field in each object."""
    name, default, read = field.name, field.default, _READERS.get(field.type)
    if default is REQUIRED:
        values = map(itemgetter(name), objects)
        return map(read, values) if read else values
    if read is None:
        return (each.get(name, default) for each in objects)
    return (read(each[name]) if name in each else default for each in objects)


def _distribution(value: dict[str, str]) -> Distribution:
    found = Distribution(id=value["id"], version=value.get("version", ""))
    return with_family(found, value.get("family", implied_family(found.id)))


def _mode(value: str) -> int:
    return int(value, 8)


def _raw(value: str | dict[str, str]) -> bytes:
    """The bytes of a path as the codec writes it."""
    return value.encode() if isinstance(value, str) else b64decode(value["base64"], validate=True)


# For the types whose values are not what JSON has.
_READERS: dict[Type, Callable[[Any], Any]] = {
    "texts": tuple,
    "keys": tuple,
    "path": _raw,
    "mode": _mode,
    "distribution": _distribution,
}


# --- content ----------------------------------------------------------------------------------


def content_problems(manifest: Manifest) -> Iterator[Fault]:
    """Find problems of records whose form is right, section by section."""
    keys = frozenset(package.key for package in manifest.packages)
    if not RECORDED.fullmatch(manifest.header.source):
        yield Fault("header", 0, "source is neither 'directory' nor 'image:' with a digest")
    for kind in SECTIONS:
        yield from _misplaced(kind, getattr(manifest, kind.section))
    yield from _bad_packages(manifest.packages)
    yield from _bad_dependencies(manifest.dependencies, keys)
    for index, unmet in enumerate(manifest.unmet):
        yield from _unknown_source("unmet", index, unmet, keys)
    yield from _bad_files(manifest.files, keys)
    for index, device in enumerate(manifest.devices):
        if fault := _pattern_problem(device.pattern):
            yield Fault("device", index, f"the pattern {device.pattern!r} {fault}")
    files = frozenset(entry.path for entry in manifest.files)
    decided = files.union(dropped.path for dropped in manifest.dropped)
    for index, dropped in enumerate(manifest.dropped):
        if not _NORMAL_PATH.fullmatch(dropped.path):
            yield Fault("dropped", index, _not_normal(dropped.path))
        elif dropped.path in files:
            yield Fault("dropped", index, _DUPLICATE.format(text_path(dropped.path)))
    for index, missing in enumerate(manifest.missing):
        message = _missing_problem(missing, keys)
        if message or missing.path in decided:
            yield Fault("missing", index, message or _DUPLICATE.format(text_path(missing.path)))


def _misplaced(kind: RecordKind, records: Sequence[Any]) -> Iterator[Fault]:
    values = list(map(kind.key, records))
    if all(map(lt, values, values[1:])):
        return
    for index, (before, value) in enumerate(zip(values, values[1:]), 1):
        if value == before:
            yield Fault(kind.name, index, "the record before is for the same thing; remove one of them")
        elif value < before:
            yield Fault(kind.name, index, "the line is out of order: it belongs before the one above it")


def _bad_packages(packages: Sequence[Package]) -> Iterator[Fault]:
    for index, package in enumerate(packages):
        words = (package.name, package.version, package.architecture)
        if not all(words):
            yield Fault("package", index, "a package has a name, a version and an architecture")
        elif not 0 <= package.size <= MAX_SIZE:
            yield Fault("package", index, _bad_size(package.size))
        elif not all(map(is_word, words)):
            message = "names, versions and architectures have no blanks and no unprintable character"
            yield Fault("package", index, message)


def _bad_dependencies(edges: Sequence[Dependency], keys: frozenset[str]) -> Iterator[Fault]:
    for index, edge in enumerate(edges):
        if edge.target not in keys:
            yield Fault("dependency", index, f"target {edge.target} is no package of this manifest")
        yield from _unknown_source("dependency", index, edge, keys)


def _unknown_source(
    kind: str, index: int, asker: Dependency | Unmet, keys: frozenset[str]
) -> Iterator[Fault]:
    """The source is any text for a line of a whitelist; otherwise it is "essential" or a package."""
    if asker.kind == "essential":
        known = asker.source == "essential"
    else:
        known = bool(asker.source) if asker.kind == "whitelist" else asker.source in keys
    if not known:
        yield Fault(kind, index, f"source {asker.source} is no package of this manifest")


def _bad_files(files: Sequence[FileEntry], keys: frozenset[str]) -> Iterator[Fault]:
    # A path is split at its last slash, so b"" is the root, which need not have an entry.
    directories = {entry.path for entry in files if entry.kind == "directory"} - {b"/"} | {b""}
    right_owners = {
        owners for owners in {entry.owners for entry in files} if not _owner_problem(owners, keys)
    }
    for index, entry in enumerate(files):
        message = (
            _path_problem(entry, directories)
            or _type_problem(entry)
            or ("" if entry.owners in right_owners else _owner_problem(entry.owners, keys))
        )
        if message:
            yield Fault("file", index, message)


def _path_problem(entry: FileEntry, directories: set[bytes]) -> str:
    """A problem of the path. The parent's own path is checked with the parent's entry."""
    parent, slash, name = entry.path.rpartition(b"/")
    if parent in directories and slash and name not in {b"", b".", b".."} and b"\0" not in name:
        return ""
    if entry.path == b"/":
        return "" if entry.kind == "directory" else "the root must be a directory"
    if not _NORMAL_PATH.fullmatch(entry.path):
        return _not_normal(entry.path)
    return f"{text_path(parent)} has no entry of type directory in this manifest, and must have one"


def _not_normal(path: bytes) -> str:
    return f"path {text_path(path)!r} is not absolute and normal (no '.', '..', NUL, doubled or final slash)"


def _type_problem(entry: FileEntry) -> str:
    if entry.origin not in ORIGINS:
        return f"origin {entry.origin!r} is none of {', '.join(sorted(ORIGINS))}"
    if not 0 <= entry.mode <= _MODES:
        return f"mode {entry.mode:04o} is not between 0000 and 7777"
    check = _CHECKS.get(entry.kind)
    return check(entry) if check else f"type {entry.kind!r} is none of {', '.join(TYPES)}"


def _regular_problem(entry: FileEntry) -> str:
    if entry.target is not None:
        return "only a symlink has a target"
    if entry.origin == "entry":
        if entry.size is None and entry.sha256 is None:
            return ""
        return "a file that is made at entry has neither size nor sha256"
    if entry.size is None or not 0 <= entry.size <= MAX_SIZE:
        return _bad_size(entry.size)
    if entry.sha256 is not None and not _SHA256.fullmatch(entry.sha256):
        return "a sha256 is 64 of the digits 0 to 9 and a to f"
    return ""


def _bad_size(size: int | None) -> str:
    if size is None or size < 0:
        return "a package and a regular file have a size of 0 or more bytes"
    return f"a size has at most 22 digits, and this one {len(str(size))}"


def _directory_problem(entry: FileEntry) -> str:
    if entry.size is not None or entry.sha256 is not None:
        return "only a regular file has a size and a sha256"
    return "" if entry.target is None else "only a symlink has a target"


def _link_problem(entry: FileEntry) -> str:
    if entry.size is not None or entry.sha256 is not None:
        return "only a regular file has a size and a sha256"
    if not entry.target or b"\0" in entry.target:
        return "a symlink has a target, not empty and without NUL"
    return "" if entry.mode == LINK_MODE else "a symlink's mode is 0777"


_CHECKS = dict(zip(TYPES, (_regular_problem, _directory_problem, _link_problem)))


def _owner_problem(owners: tuple[str, ...], keys: frozenset[str]) -> str:
    if not all(map(lt, owners, owners[1:])):
        return "owners are out of order or stand twice"
    unknown = [owner for owner in owners if owner not in keys]
    return f"owner {unknown[0]} is no package of this manifest" if unknown else ""


def _pattern_problem(pattern: str) -> str:
    try:
        return pattern_fault(raw_path(pattern))
    except UnicodeEncodeError:
        return "is not the text of any bytes"


def _missing_problem(missing: Missing, keys: frozenset[str]) -> str:
    if not _NORMAL_PATH.fullmatch(missing.path):
        return _not_normal(missing.path)
    if missing.reason not in REASONS:
        return f"reason {missing.reason!r} is none of {', '.join(sorted(REASONS))}"
    return _owner_problem(missing.owners, keys)
