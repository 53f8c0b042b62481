"""From a manifest's bytes back to a `Manifest`, refusing whatever pkgjail would not have written.

A sound manifest is read in bulk: one call of the JSON parser, then the records, then the same
bytes made again from them. Equal bytes prove the form at once: UTF-8, the fields and their types,
the order of keys, lines and sections, the count and the digest of the last line. What the form
can't tell (`content_problems`) is looked at on the records. Only a manifest that fails is read a
second time, line by line, to say what is wrong and where; `problems` does that.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from operator import lt
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pkgjail.core.entries import LINK_MODE
from pkgjail.core.model import (
    Dependency,
    Distribution,
    Dropped,
    FileEntry,
    Header,
    Manifest,
    Missing,
    MissingReason,
    Origin,
    Package,
    Unmet,
    is_word,
    text_path,
)
from pkgjail.core.untrusted import PARSE_INT, is_nested
from pkgjail.manifest.codec import BY_DEPENDENCY, BY_KEY, BY_PATH, BY_UNMET, KINDS, SCHEMA, manifest_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# One decoded JSON object. Its values are checked by being written again, not by the type checker.
Record = dict[str, Any]

# What decoding and rebuilding raise when a value is not what it should be.
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)

_ORIGINS = frozenset(get_args(Origin))
_REASONS = frozenset(get_args(MissingReason))
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NORMAL_PATH = re.compile(rb"/|(?:/(?!\.{1,2}(?:/|\Z))[^/\0]+)+")
_MODES = 0o7777
_LARGEST = 1024 * 10**18  # bytes: what dpkg's Installed-Size, in KiB, may say; a file has less
_HERE = "{} stands above as a file or as dropped; one of them must go"


class Fault(NamedTuple):
    """What is wrong with the record that stands at `position` (from 0) in the section `kind`."""

    kind: str
    position: int
    message: str


def sound_manifest(data: bytes) -> Manifest | None:
    """The manifest that `data` is the canonical form of, or None; its content is not yet checked."""
    try:
        text = data.decode()
        if is_nested(text):
            return None
        lines = text[:-1].replace("\n", ",")
        manifest = from_records(json.loads(f"[{lines}]", parse_int=PARSE_INT))
        return manifest if manifest.header.schema == SCHEMA and manifest_bytes(manifest) == data else None
    except _MALFORMED:
        return None


def from_records(records: list[Record]) -> Manifest:
    """The records as a `Manifest`, its sections in the order in which they stand.

    Checks nothing on purpose; what it can't make sense of it raises one of several errors for.
    """
    sections: dict[str, list[Record]] = {kind: [] for kind in KINDS}
    for record in records:
        sections[record["kind"]].append(record)
    return Manifest(
        header=_header(*sections["header"]),
        packages=tuple(map(_package, sections["package"])),
        dependencies=tuple(
            Dependency(source=each["source"], target=each["target"], kind=each["field"], text=each["text"])
            for each in sections["dependency"]
        ),
        files=tuple(map(_file, sections["file"])),
        dropped=tuple(Dropped(path=_raw(each["path"]), rule=each["rule"]) for each in sections["dropped"]),
        missing=tuple(
            Missing(path=_raw(each["path"]), reason=each["reason"], owners=tuple(each.get("owners", ())))
            for each in sections["missing"]
        ),
        unmet=tuple(
            Unmet(source=each["source"], kind=each["field"], text=each["text"], reason=each["reason"])
            for each in sections["unmet"]
        ),
    )


def _header(record: Record) -> Header:
    distribution = record["distribution"]
    return Header(
        schema=record["schema"],
        distribution=Distribution(id=distribution["id"], version=distribution.get("version", "")),
        architecture=record["architecture"],
        policy=record["policy"],
        whitelists=tuple(record["whitelists"]),
        blacklists=tuple(record["blacklists"]),
        recommends=record["recommends"],
        essential=record["essential"],
    )


def _package(record: Record) -> Package:
    return Package(
        name=record["name"],
        version=record["version"],
        architecture=record["architecture"],
        essential=record["essential"],
        protected=record["protected"],
        size=record["size"],
    )


def _file(record: Record) -> FileEntry:
    get = record.get
    target = get("target")
    return FileEntry(
        path=_raw(record["path"]),
        kind=record["type"],
        mode=int(record["mode"], 8),
        size=get("size"),
        target=None if target is None else _raw(target),
        sha256=get("sha256"),
        owners=tuple(get("owners", ())),
        origin=record["origin"],
        detail=get("detail", ""),
    )


def _raw(value: str | dict[str, str]) -> bytes:
    """The bytes of a path as `lines` writes them."""
    return value.encode() if isinstance(value, str) else b64decode(value["base64"], validate=True)


# --- content ----------------------------------------------------------------------------------


def content_problems(manifest: Manifest) -> Iterator[Fault]:
    """What is wrong with the records though their form is right, section by section."""
    keys = frozenset(package.key for package in manifest.packages)
    yield from _misplaced("package", manifest.packages, BY_KEY)
    yield from _misplaced("dependency", manifest.dependencies, BY_DEPENDENCY)
    yield from _misplaced("file", manifest.files, BY_PATH)
    yield from _misplaced("dropped", manifest.dropped, BY_PATH)
    yield from _misplaced("missing", manifest.missing, BY_PATH)
    yield from _misplaced("unmet", manifest.unmet, BY_UNMET)
    for index, package in enumerate(manifest.packages):
        if not (package.name and package.version and package.architecture):
            yield Fault("package", index, "a package has a name, a version, and an architecture")
        elif not 0 <= package.size <= _LARGEST:
            yield Fault("package", index, _bad_size(package.size))
        elif not all(map(is_word, (package.name, package.version, package.architecture))):
            yield Fault(
                "package",
                index,
                "names, versions and architectures have no blanks and no unprintable character",
            )
    for index, edge in enumerate(manifest.dependencies):
        if edge.target not in keys:
            yield Fault("dependency", index, f"target {edge.target} is no package of this manifest")
        yield from _unknown_source("dependency", index, edge, keys)
    for index, unmet in enumerate(manifest.unmet):
        yield from _unknown_source("unmet", index, unmet, keys)
    yield from _bad_files(manifest.files, keys)
    here = frozenset(entry.path for entry in manifest.files)
    out = here.union(dropped.path for dropped in manifest.dropped)
    for index, dropped in enumerate(manifest.dropped):
        if not _NORMAL_PATH.fullmatch(dropped.path):
            yield Fault("dropped", index, _not_normal(dropped.path))
        elif dropped.path in here:
            yield Fault("dropped", index, _HERE.format(text_path(dropped.path)))
    for index, missing in enumerate(manifest.missing):
        message = _missing_problem(missing, keys)
        if message or missing.path in out:
            yield Fault("missing", index, message or _HERE.format(text_path(missing.path)))


def _misplaced(kind: str, records: Sequence[Any], key: Callable[[Any], Any]) -> Iterator[Fault]:
    values = list(map(key, records))
    if all(map(lt, values, values[1:])):
        return
    for index, (before, value) in enumerate(zip(values, values[1:]), 1):
        if value == before:
            yield Fault(kind, index, "the record before is for the same thing; one of them must go")
        elif value < before:
            yield Fault(kind, index, "the line is out of order: it belongs before the one above it")


def _unknown_source(
    kind: str, index: int, asker: Dependency | Unmet, keys: frozenset[str]
) -> Iterator[Fault]:
    """A whitelist's line may be any text; all else that asks is "essential" or a package."""
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
    """What is wrong with the path. That the parent is right is known from the parent's own entry."""
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
    if entry.origin not in _ORIGINS:
        return f"origin {entry.origin!r} is none of {', '.join(sorted(_ORIGINS))}"
    if not 0 <= entry.mode <= _MODES:
        return f"mode {entry.mode:04o} is not between 0000 and 7777"
    check = _TYPES.get(entry.kind)
    return check(entry) if check else f"type {entry.kind!r} is none of {', '.join(_TYPES)}"


def _regular_problem(entry: FileEntry) -> str:
    if entry.target is not None:
        return "only a symlink has a target"
    if entry.origin == "entry":
        if entry.size is None and entry.sha256 is None:
            return ""
        return "a file that is made at entry has neither size nor sha256"
    if entry.size is None or not 0 <= entry.size <= _LARGEST:
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


_TYPES = {"regular": _regular_problem, "directory": _directory_problem, "symlink": _link_problem}


def _owner_problem(owners: tuple[str, ...], keys: frozenset[str]) -> str:
    if not all(map(lt, owners, owners[1:])):
        return "owners are out of order or stand twice"
    strangers = [owner for owner in owners if owner not in keys]
    return f"owner {strangers[0]} is no package of this manifest" if strangers else ""


def _missing_problem(missing: Missing, keys: frozenset[str]) -> str:
    if not _NORMAL_PATH.fullmatch(missing.path):
        return _not_normal(missing.path)
    if missing.reason not in _REASONS:
        return f"reason {missing.reason!r} is none of {', '.join(sorted(_REASONS))}"
    return _owner_problem(missing.owners, keys)
