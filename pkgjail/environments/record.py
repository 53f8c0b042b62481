"""The record of an environment: what `build` made, so that `remove` deletes that and nothing more.

There are two JSON Lines files. The journal (`building.jsonl`) is written during the build: a header,
then a line for each name *before* that name is created. The record (`environment.jsonl`) is written
last and atomically: the same header, a line for each name, sorted by path, with what identifies it,
and an end line with the number of lines and their SHA-256. docs/environments.md describes the format.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.model import record
from pkgjail.core.options import UserBind
from pkgjail.core.stage_names import AUTO, DEFAULT, RUNGS
from pkgjail.core.text import raw_path, text_path
from pkgjail.core.untrusted import PARSE_INT, is_nested
from pkgjail.machine.model import MachineOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.core.model import FileKind

SCHEMA = 4
"""The newest version of the format: 2 has devices, 3 a machine, 4 a stage. The oldest with all is written."""

Form = Literal["host", "copy", "fstab"]
"""The place of the files: on the host at each entry, copied into the tree, or mounted there by fstab(5)."""

FORMS: tuple[Form, ...] = get_args(Form)

STAGES = (*RUNGS, AUTO)
"""The stages that an environment can have besides a machine."""

Phase = Literal["building", "removing", "built"]
"""The phase of an environment; "building" and "removing" may also have been interrupted."""

JOURNAL, RECORD, REMOVING = b"building.jsonl", b"environment.jsonl", b"removing.jsonl"
PHASE_FILES: dict[Phase, bytes] = {"building": JOURNAL, "removing": REMOVING, "built": RECORD}
"""The file that marks each phase; the first one that exists counts."""

SCRATCH, MANIFEST, TREE = b"building.file", b"manifest.jsonl", b"root"
LOCK = b"lock"
"""The file locked by whoever may write to the environment. No record lists it: older environments lack it."""

# Every header starts with this and no other file does, so that a torn header differs from a file of the user.
_MAGIC = b'{"kind":"header","of":"pkgjail environment",'
_NUMBER, _TEXT = int, str
_FIELDS: dict[FileKind, dict[str, type]] = {
    "directory": {"ctime": _NUMBER, "inode": _NUMBER, "path": _TEXT},
    "regular": {
        "ctime": _NUMBER,
        "inode": _NUMBER,
        "mtime": _NUMBER,
        "path": _TEXT,
        "sha256": _TEXT,
        "size": _NUMBER,
    },
    "symlink": {"inode": _NUMBER, "path": _TEXT, "target": _TEXT},
}


class RecordEntry(NamedTuple):
    """One name that `build` made; `path` is relative to the environment's directory.

    Times are in nanoseconds. In a journal `inode` and `ctime` are 0 where they are not known yet. A
    field that the kind does not have is 0 or empty.
    """

    path: bytes
    kind: FileKind
    inode: int = 0
    size: int = 0
    mtime: int = 0
    ctime: int = 0
    sha256: str = ""
    target: bytes = b""


@record
class Header:
    """The first line of a record: the environment itself.

    `inode` is that of its directory, and `root` is the directory of the host's files.
    `manifest` is the manifest's digest. The other fields are the options that each entry starts with;
    `variables` are set in addition to the jail's own. `stage` is what commands run in: one of pkgjail's own,
    or "auto". With a `machine`, commands run in that.
    """

    form: Form
    inode: int
    manifest: str
    root: bytes
    binds: tuple[UserBind, ...] = ()
    devices: tuple[bytes, ...] = ()
    device_sets: tuple[str, ...] = ()
    network: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)
    machine: MachineOptions | None = None
    stage: str = DEFAULT


@record
class Record:
    """The header of an environment and every name in it, each directory before its content."""

    header: Header
    entries: tuple[RecordEntry, ...]


def header_line(header: Header) -> bytes:
    """Return the first line of a journal or a record."""
    binds = [
        {
            "destination": text_path(bind.destination),
            "source": text_path(bind.source),
            "writable": bind.writable,
        }
        for bind in header.binds
    ]
    return _line(
        {
            "kind": "header",
            "of": "pkgjail environment",
            "schema": _schema(header),
            "form": header.form,
            "inode": header.inode,
            "manifest": header.manifest,
            "root": text_path(header.root),
            "binds": binds,
            **({"devices": list(map(text_path, header.devices))} if header.devices else {}),
            **({"device_sets": list(header.device_sets)} if header.device_sets else {}),
            "network": header.network,
            "variables": dict(sorted(header.variables.items())),
            **({"machine": _machine_values(header.machine)} if header.machine is not None else {}),
            **({"stage": header.stage} if header.stage != DEFAULT else {}),
        }
    )


def _schema(header: Header) -> int:
    """Return the oldest version of the format that has all that the header has."""
    if header.stage != DEFAULT:
        return SCHEMA
    if header.machine is not None:
        return 3
    return 2 if header.devices or header.device_sets else 1


def _machine_values(machine: MachineOptions) -> dict[str, Any]:
    """Return what is recorded of a machine; directories are always shared in one that is kept running."""
    idle = machine.idle
    return {
        "kernel": machine.kernel,
        "memory": machine.memory,
        "processors": machine.processors,
        "scratch": machine.scratch,
        "idle": int(idle) if idle == int(idle) else idle,
    }


def entry_line(entry: RecordEntry) -> bytes:
    """Return the line of one name."""
    values: dict[str, Any] = entry._asdict()
    values["path"], values["target"] = text_path(entry.path), text_path(entry.target)
    return _line({"kind": entry.kind, **{key: values[key] for key in _FIELDS[entry.kind]}})


def dump_record(contents: Record) -> bytes:
    """Return the record in its canonical form."""
    entries = sorted(contents.entries, key=lambda entry: entry.path)
    body = header_line(contents.header) + b"".join(map(entry_line, entries))
    return body + _end_line(body, len(entries) + 1)


def _end_line(body: bytes, lines: int) -> bytes:
    return _line({"kind": "end", "records": lines, "sha256": hashlib.sha256(body).hexdigest()})


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"


def parse_record(data: bytes, name: str) -> Record:
    """Read a finished record; messages call it `name`.

    Raises:
        InputError: it has a newer schema, was truncated or edited, or is not a record.

    """
    body, _, end = data[:-1].rpartition(b"\n")
    body += b"\n"
    lines = body.splitlines(keepends=True)
    header = _parse_header(lines[0], name)
    if end + b"\n" != _end_line(body, len(lines)) or not data.endswith(b"\n"):
        raise _refusal(name, "it was truncated or edited")
    entries = _parse_entries(lines[1:], name, first_line=2)
    if [entry.path for entry in entries] != sorted({entry.path for entry in entries}):
        raise _refusal(name, "its lines are not in order")
    return Record(header=header, entries=entries)


def parse_journal(data: bytes, name: str) -> Record | None:
    """Read the journal of an unfinished build; None if the build ended before its first name.

    An incomplete line at the end of the file counts as not written: the name that it would have
    announced was not created.

    Raises:
        InputError: as `parse_record`.

    """
    complete, _, torn = data.rpartition(b"\n")
    if not complete:
        # The kernel cuts what is written at the end of a block, and the magic is shorter than a block.
        if torn and not torn.startswith(_MAGIC):
            raise _refusal(name, "it was not written by pkgjail")
        return None
    lines = (complete + b"\n").splitlines(keepends=True)
    return Record(header=_parse_header(lines[0], name), entries=_parse_entries(lines[1:], name, first_line=2))


def _parse_header(line: bytes, name: str) -> Header:
    if not line.startswith(_MAGIC) or is_nested(line.decode("utf-8", "replace")):
        raise _refusal(name, "it was not written by pkgjail")
    try:
        values = json.loads(line, parse_int=PARSE_INT)
        schema = values.pop("schema")
    except (ValueError, KeyError, RecursionError):  # RecursionError: nested too deeply
        raise _refusal(f"{name}:1", "it was edited") from None
    if not isinstance(schema, int) or schema > SCHEMA:
        raise _refusal(
            f"{name}:1", f"it has schema {schema}, and this pkgjail supports up to {SCHEMA}; use a newer one"
        )
    try:
        header = _header_from(values)
    except (TypeError, ValueError, KeyError, AttributeError):
        raise _refusal(f"{name}:1", "it was edited") from None
    if header_line(header) != line or header.form not in FORMS or header.stage not in STAGES:
        raise _refusal(f"{name}:1", "it was edited")
    return header


def _header_from(values: dict[str, Any]) -> Header:
    return Header(
        form=values["form"],
        inode=int(values["inode"]),
        manifest=str(values["manifest"]),
        root=_path_from(values["root"]),
        binds=tuple(
            UserBind(
                source=_path_from(bind["source"]),
                destination=_path_from(bind["destination"]),
                writable=bool(bind["writable"]),
            )
            for bind in values["binds"]
        ),
        devices=tuple(map(_path_from, values.get("devices", ()))),
        device_sets=tuple(map(_variable, values.get("device_sets", ()))),
        network=bool(values["network"]),
        variables={_variable(key): _variable(value) for key, value in values["variables"].items()},
        machine=_machine_from(values["machine"]) if "machine" in values else None,
        stage=str(values.get("stage", DEFAULT)),
    )


def _machine_from(values: dict[str, Any]) -> MachineOptions:
    machine = MachineOptions(
        kernel=_variable(values["kernel"]),
        memory=int(values["memory"]),
        processors=int(values["processors"]),
        scratch=int(values["scratch"]),
        idle=float(values["idle"]),
    )
    if min(machine.memory, machine.processors, machine.scratch) < 0 or not 0 < machine.idle < math.inf:
        raise ValueError
    return machine


def _variable(text: str) -> str:
    _path_from(text)
    return text


def _path_from(text: str) -> bytes:
    """Return the bytes of a text that will be passed to the kernel; raises `ValueError` for a NUL in it."""
    if "\0" in text:
        raise ValueError
    return raw_path(text)


def _parse_entries(lines: list[bytes], name: str, *, first_line: int) -> tuple[RecordEntry, ...]:
    try:
        # One call for all lines takes a tenth of the time of a call for each.
        text = (b"[" + b",".join(lines) + b"]").decode()
        parsed = [] if is_nested(text) else json.loads(text, parse_int=PARSE_INT)
    except (ValueError, RecursionError):
        parsed = []
    if len(parsed) != len(lines):
        raise _refusal(name, "a line is not a JSON object")
    entries = []
    directories = {b""}
    for number, values in enumerate(parsed, first_line):
        entry = _parse_entry(values)
        if entry is None or not _is_normal(entry.path) or entry.path.rpartition(b"/")[0] not in directories:
            raise _refusal(f"{name}:{number}", "it was edited")
        if entry.kind == "directory":
            directories.add(entry.path)
        entries.append(entry)
    return tuple(entries)


def _parse_entry(values: Any) -> RecordEntry | None:
    """Return one name, or None if the line is not one that `entry_line` writes."""
    name = values.pop("kind", None) if isinstance(values, dict) else None
    kind: FileKind | None = next((each for each in _FIELDS if each == name), None)
    if kind is None or values.keys() != (fields := _FIELDS[kind]).keys():
        return None
    if not all(type(values[key]) is expected for key, expected in fields.items()):
        return None
    try:
        values["path"] = raw_path(values["path"])
        if "target" in values:
            values["target"] = raw_path(values["target"])
    except UnicodeEncodeError:
        return None
    return RecordEntry(kind=kind, **values)


def _is_normal(path: bytes) -> bool:
    """Check that a relative path has no `.`, `..`, empty component or NUL."""
    return b"\0" not in path and not {b"", b".", b".."} & set(path.split(b"/"))


def _refusal(name: str, why: str) -> InputError:
    return InputError([Problem(name, f"cannot read this record of an environment: {why}")])
