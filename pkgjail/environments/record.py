"""An environment's record: what `build` made, so that `remove` deletes that and nothing else.

JSON Lines in two forms. The journal (`building.jsonl`) is written while the environment is built: a
header, then a line for each name *before* the name is made. The record (`environment.jsonl`) is
written last and at one stroke: the same header, a line for each name by path, with what identifies
it, and an end with the number of lines and the SHA-256 of their bytes. docs/environments.md tells
the format.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import field
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.model import UserBind, raw_path, record, text_path
from pkgjail.core.untrusted import PARSE_INT, is_nested

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.core.model import FileKind

SCHEMA = 1
"""The version of the format that is written, and the newest that is read."""

FORMS = ("host", "copy", "fstab")
"""Where the files are: the host's at each entry, copied into the tree, mounted by fstab(5)."""

JOURNAL, RECORD, REMOVING = b"building.jsonl", b"environment.jsonl", b"removing.jsonl"
SCRATCH, MANIFEST, TREE = b"building.file", b"manifest.jsonl", b"root"
LOCK = b"lock"
"""The file that whoever may write to the environment locks; in no record, as older environments lack it."""

# Every header begins so, and nothing else does: a torn one is told from a file of the user's.
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


class Made(NamedTuple):
    """One name that `build` made; `path` is relative to the environment's directory.

    Times are in nanoseconds. `inode` and `ctime` are 0 in a journal where they are not known yet;
    what a kind does not have is 0 or empty.
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
class Head:
    """What an environment is: `inode` is its directory's, `root` where the host's files are.

    `manifest` is the manifest's digest. The rest are the options that each entry begins with;
    `variables` come on top of the jail's own.
    """

    form: str
    inode: int
    manifest: str
    root: bytes
    binds: tuple[UserBind, ...] = ()
    network: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)


@record
class Record:
    """An environment's head and every name in it, a directory before what it holds."""

    head: Head
    made: tuple[Made, ...]


def head_line(head: Head) -> bytes:
    """The first line of a journal and of a record."""
    binds = [
        {
            "destination": text_path(bind.destination),
            "source": text_path(bind.source),
            "writable": bind.writable,
        }
        for bind in head.binds
    ]
    return _line(
        {
            "kind": "header",
            "of": "pkgjail environment",
            "schema": SCHEMA,
            "form": head.form,
            "inode": head.inode,
            "manifest": head.manifest,
            "root": text_path(head.root),
            "binds": binds,
            "network": head.network,
            "variables": dict(sorted(head.variables.items())),
        }
    )


def made_line(made: Made) -> bytes:
    """One name's line."""
    values: dict[str, Any] = made._asdict()
    values["path"], values["target"] = text_path(made.path), text_path(made.target)
    return _line({"kind": made.kind, **{key: values[key] for key in _FIELDS[made.kind]}})


def record_bytes(whole: Record) -> bytes:
    """The record in its one form."""
    made = sorted(whole.made, key=lambda one: one.path)
    body = head_line(whole.head) + b"".join(map(made_line, made))
    end = {"kind": "end", "records": len(made) + 1, "sha256": hashlib.sha256(body).hexdigest()}
    return body + _line(end)


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"


def parse_record(data: bytes, name: str) -> Record:
    """Read a finished record; `name` stands in messages.

    Raises:
        InputError: it is of a newer schema, cut off, edited by hand, or none at all.

    """
    body, _, end = data[:-1].rpartition(b"\n")
    body += b"\n"
    lines = body.splitlines(keepends=True)
    head = _head(lines[0], name)
    whole = {"kind": "end", "records": len(lines), "sha256": hashlib.sha256(body).hexdigest()}
    if end + b"\n" != _line(whole) or not data.endswith(b"\n"):
        raise _refusal(name, "it is cut off or was edited")
    made = _all_made(lines[1:], name, first_line=2)
    if [one.path for one in made] != sorted({one.path for one in made}):
        raise _refusal(name, "its lines are not in their order")
    return Record(head=head, made=made)


def parse_journal(data: bytes, name: str) -> Record | None:
    """Read the journal of a build that did not end; None where it ended before its first name.

    A line that is torn off at the end of the file counts as not written: what it would have
    announced was not made.

    Raises:
        InputError: as `parse_record`.

    """
    whole, _, torn = data.rpartition(b"\n")
    if not whole:
        # The kernel tears what is written at the end of a block, which no magic reaches.
        if torn and not torn.startswith(_MAGIC):
            raise _refusal(name, "it was not written by pkgjail")
        return None
    lines = (whole + b"\n").splitlines(keepends=True)
    return Record(head=_head(lines[0], name), made=_all_made(lines[1:], name, first_line=2))


def _head(line: bytes, name: str) -> Head:
    if not line.startswith(_MAGIC) or is_nested(line.decode("utf-8", "replace")):
        raise _refusal(name, "it was not written by pkgjail")
    try:
        values = json.loads(line, parse_int=PARSE_INT)
        schema = values.pop("schema")
    except (ValueError, KeyError, RecursionError):  # the last for what is nested without end
        raise _refusal(f"{name}:1", "it was edited") from None
    if not isinstance(schema, int) or schema > SCHEMA:
        raise _refusal(
            f"{name}:1", f"it has schema {schema}, and this pkgjail knows {SCHEMA}; use a newer one"
        )
    try:
        head = _head_of(values)
    except (TypeError, ValueError, KeyError, AttributeError):
        raise _refusal(f"{name}:1", "it was edited") from None
    if head_line(head) != line or head.form not in FORMS:
        raise _refusal(f"{name}:1", "it was edited")
    return head


def _head_of(values: dict[str, Any]) -> Head:
    return Head(
        form=values["form"],
        inode=int(values["inode"]),
        manifest=str(values["manifest"]),
        root=_raw(values["root"]),
        binds=tuple(
            UserBind(
                source=_raw(bind["source"]),
                destination=_raw(bind["destination"]),
                writable=bool(bind["writable"]),
            )
            for bind in values["binds"]
        ),
        network=bool(values["network"]),
        variables={_variable(key): _variable(value) for key, value in values["variables"].items()},
    )


def _variable(text: str) -> str:
    _raw(text)
    return text


def _raw(text: str) -> bytes:
    """The bytes of a text that is handed to the kernel, which takes no NUL. Raises `ValueError`."""
    if "\0" in text:
        raise ValueError
    return raw_path(text)


def _all_made(lines: list[bytes], name: str, *, first_line: int) -> tuple[Made, ...]:
    try:
        # One call for all: a tenth of the time of a call a line.
        text = (b"[" + b",".join(lines) + b"]").decode()
        parsed = [] if is_nested(text) else json.loads(text, parse_int=PARSE_INT)
    except (ValueError, RecursionError):
        parsed = []
    if len(parsed) != len(lines):
        raise _refusal(name, "a line is no JSON object")
    made = []
    directories = {b""}
    for number, values in enumerate(parsed, first_line):
        one = _made(values)
        if one is None or not _is_normal(one.path) or one.path.rpartition(b"/")[0] not in directories:
            raise _refusal(f"{name}:{number}", "it was edited")
        if one.kind == "directory":
            directories.add(one.path)
        made.append(one)
    return tuple(made)


def _made(values: Any) -> Made | None:
    """One name, or None where the line is not what `made_line` writes."""
    named = values.pop("kind", None) if isinstance(values, dict) else None
    kind = next((kind for kind in _FIELDS if kind == named), None)
    if kind is None or values.keys() != (fields := _FIELDS[kind]).keys():
        return None
    if not all(type(values[key]) is wanted for key, wanted in fields.items()):
        return None
    try:
        values["path"] = raw_path(values["path"])
        if "target" in values:
            values["target"] = raw_path(values["target"])
    except UnicodeEncodeError:
        return None
    return Made(kind=kind, **values)


def _is_normal(path: bytes) -> bool:
    """Whether a relative path has no `.`, `..`, empty component or NUL."""
    return b"\0" not in path and not {b"", b".", b".."} & set(path.split(b"/"))


def _refusal(name: str, why: str) -> InputError:
    return InputError([Problem(name, f"cannot read this record of an environment: {why}")])
