"""The record and the journal: what was written can be read back, and anything else is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.core.errors import InputError
from pkgjail.core.model import FileKind
from pkgjail.core.options import UserBind
from pkgjail.environments.record import (
    FORMS,
    STAGES,
    Form,
    Header,
    Record,
    RecordEntry,
    dump_record,
    entry_line,
    parse_journal,
    parse_record,
)
from pkgjail.machine.model import MachineOptions

HEADER = Header(form="copy", inode=7, manifest="sha256:0", root=b"/")
ENTRIES = (
    RecordEntry(b"manifest.jsonl", "regular", 8, 3, 1, 2, "ab"),
    RecordEntry(b"root", "directory", 9, ctime=4),
    RecordEntry(b"root/a", "symlink", 10, target=b"b"),
    RecordEntry(b"root/b", "regular", 11, 5, 6, 7, "cd"),
)
MACHINE = {"kernel": "", "memory": 0, "processors": 0, "scratch": 0, "idle": 900}
RECORD = dump_record(Record(header=HEADER, entries=ENTRIES))
_PARTS = st.binary(min_size=1, max_size=9).filter(
    lambda part: not {0, 47} & set(part) and part not in (b".", b"..")
)
_TARGETS = st.binary(min_size=1).filter(lambda target: 0 not in target)
_PATHS = st.binary().filter(lambda path: 0 not in path)
_TEXTS = st.text().filter(lambda text: "\0" not in text)
_NUMBERS = st.integers(0, 2**63)
_MACHINES = st.builds(
    MachineOptions,
    kernel=_TEXTS,
    memory=_NUMBERS,
    processors=_NUMBERS,
    scratch=_NUMBERS,
    idle=st.floats(0.001, 1e9),
)


@st.composite
def record_entries(draw: st.DrawFn) -> tuple[RecordEntry, ...]:
    """Names of all kinds, in directories that exist."""
    directories, found = [b""], dict[bytes, RecordEntry]()
    for _ in range(draw(st.integers(0, 8))):
        above = draw(st.sampled_from(directories))
        path = above + b"/" + draw(_PARTS) if above else draw(_PARTS)
        kind = draw(st.sampled_from(get_args(FileKind)))
        if path in found:
            continue
        inode, size, mtime, ctime = (draw(_NUMBERS) for _ in range(4))
        found[path] = {
            "directory": RecordEntry(path, "directory", inode, ctime=ctime),
            "regular": RecordEntry(
                path, "regular", inode, size, mtime, ctime, draw(st.text("0123456789abcdef"))
            ),
            "symlink": RecordEntry(path, "symlink", inode, target=draw(_TARGETS)),
        }[kind]
        directories += [path] if kind == "directory" else []
    return tuple(found[path] for path in sorted(found))


@given(
    record_entries(),
    st.sampled_from(FORMS),
    st.builds(
        UserBind,
        source=_PATHS,
        destination=_PATHS,
        writable=st.booleans(),
    ),
    st.dictionaries(_TEXTS, _TEXTS),
    st.lists(_PATHS).map(tuple),
    st.none() | _MACHINES,
    st.sampled_from(STAGES),
)
def test_what_is_written_is_read_back(  # noqa: PLR0913, PLR0917 - one for each part of a record
    names: tuple[RecordEntry, ...],
    form: Form,
    bind: UserBind,
    variables: dict[str, str],
    devices: tuple[bytes, ...],
    machine: MachineOptions | None,
    stage: str,
) -> None:
    """Paths may have any bytes that the kernel accepts; and the same record gives the same bytes."""
    header = Header(
        form=form,
        inode=1,
        manifest="m",
        root=b"/\xff",
        binds=(bind,),
        devices=devices,
        network=bind.writable,
        variables=variables,
        machine=machine,
        stage=stage,
    )
    record = Record(header=header, entries=names)
    data = dump_record(record)
    assert parse_record(data, "r") == record
    schema = 4 if stage != "namespaces" else 3 if machine else 2 if devices else 1
    assert b'"schema":%d' % schema in data.partition(b"\n")[0]
    assert dump_record(parse_record(data, "r")) == data
    lines = data.splitlines(keepends=True)
    assert parse_journal(b"".join(lines[:-1]), "r") == record


def test_a_truncated_record_is_refused() -> None:
    """At every byte; as a journal it is read up to its last complete line."""
    head = RECORD.index(b"\n") + 1
    body = RECORD[: RECORD.rindex(b"\n", 0, -1) + 1]
    for end in range(len(RECORD)):
        with pytest.raises(InputError):
            parse_record(RECORD[:end], "r")
        if head <= end <= len(body):
            journal = parse_journal(RECORD[:end], "r")
            assert journal is not None
            assert journal.entries == ENTRIES[: RECORD[head:end].count(b"\n")]


def with_end_line(lines: list[bytes]) -> bytes:
    """Return the lines with an end line that fits them, as somebody with patience would edit a record."""
    body = b"".join(line + b"\n" for line in lines)
    end = {"kind": "end", "records": len(lines), "sha256": hashlib.sha256(body).hexdigest()}
    return body + json.dumps(end, separators=(",", ":")).encode() + b"\n"


def edited(number: int, **values: Any) -> bytes:
    """Return the record with other values in one line; None removes a key."""
    lines = RECORD.splitlines()[:-1]
    line = {**json.loads(lines[number]), **values}
    line = {key: value for key, value in line.items() if value is not None}
    lines[number] = json.dumps(line, separators=(",", ":")).encode()
    return with_end_line(lines)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "it was not written by pkgjail", id="nothing"),
        pytest.param(b"\n", "it was not written by pkgjail", id="an empty line"),
        pytest.param(b"#!/bin/sh\n", "it was not written by pkgjail", id="something else"),
        pytest.param(
            edited(0, schema=5), "r:1: .* it has schema 5, and this pkgjail supports up to 4", id="newer"
        ),
        pytest.param(edited(0, schema="1"), "r:1: .* it has schema 1, ", id="a schema of text"),
        pytest.param(edited(0, schema=None), "r:1: .* it was edited", id="no schema"),
        pytest.param(edited(0, schema=3), "r:1: .* it was edited", id="a newer schema than it needs"),
        pytest.param(edited(0, schema=4, stage="podman"), "r:1: .* it was edited", id="a stage of an engine"),
        pytest.param(
            edited(0, schema=4, stage=["root"]), "r:1: .* it was edited", id="a stage that is a list"
        ),
        pytest.param(edited(0, schema=3, machine=[]), "r:1: .* it was edited", id="a machine that is a list"),
        pytest.param(
            edited(0, schema=3, machine={**MACHINE, "idle": 0}), "r:1: .* it was edited", id="no time idle"
        ),
        pytest.param(
            edited(0, schema=3, machine={**MACHINE, "memory": -1}), "r:1: .* it was edited", id="less memory"
        ),
        pytest.param(
            edited(0, schema=3, machine={**MACHINE, "idle": True}),
            "r:1: .* it was edited",
            id="a time of truth",
        ),
        pytest.param(
            edited(0, schema=3, machine={**MACHINE, "more": 1}),
            "r:1: .* it was edited",
            id="a key of a machine",
        ),
        pytest.param(edited(0, form="chroot"), "r:1: .* it was edited", id="an unknown form"),
        pytest.param(edited(0, inode="x"), "r:1: .* it was edited", id="an inode of text"),
        pytest.param(edited(0, more=1), "r:1: .* it was edited", id="an unknown key in the header"),
        pytest.param(edited(0, binds=[{}]), "r:1: .* it was edited", id="a bind without a source"),
        pytest.param(edited(0, variables=[]), "r:1: .* it was edited", id="variables that are a list"),
        pytest.param(edited(0, root="/\0"), "r:1: .* it was edited", id="a root with a NUL"),
        pytest.param(edited(0, variables={"A": "\0"}), "r:1: .* it was edited", id="a variable with a NUL"),
        pytest.param(
            edited(0, variables={"A": "\ud83d"}), "r:1: .* it was edited", id="a variable without bytes"
        ),
        pytest.param(edited(2, path="../x"), "r:3: .* it was edited", id="a path upwards"),
        pytest.param(edited(3, path="root/../a"), "r:4: .* it was edited", id="a path through .."),
        pytest.param(edited(3, path="/etc/passwd"), "r:4: .* it was edited", id="an absolute path"),
        pytest.param(edited(3, path="root//a"), "r:4: .* it was edited", id="a path with an empty part"),
        pytest.param(edited(3, path="root/\0"), "r:4: .* it was edited", id="a NUL"),
        pytest.param(
            edited(3, path="elsewhere/a"), "r:4: .* it was edited", id="not in a recorded directory"
        ),
        pytest.param(edited(3, path="\ud83d"), "r:4: .* it was edited", id="a surrogate of no byte"),
        pytest.param(edited(3, kind="fifo"), "r:4: .* it was edited", id="an unknown kind"),
        pytest.param(edited(3, kind=None), "r:4: .* it was edited", id="no kind"),
        pytest.param(edited(3, kind=[1]), "r:4: .* it was edited", id="a kind that is a list"),
        pytest.param(edited(3, inode=None), "r:4: .* it was edited", id="no inode"),
        pytest.param(edited(4, size=True), "r:5: .* it was edited", id="a size that is not a number"),
        pytest.param(edited(4, more=1), "r:5: .* it was edited", id="an unknown key"),
        pytest.param(with_end_line([*RECORD.splitlines()[:-1], b"[]"]), "r:6: .* it was edited", id="a list"),
        pytest.param(
            with_end_line([*RECORD.splitlines()[:-1], b"{},{}"]),
            "a line is not a JSON object",
            id="two in a line",
        ),
        pytest.param(
            with_end_line([*RECORD.splitlines()[:-1], b"{"]), "a line is not a JSON object", id="not JSON"
        ),
        pytest.param(
            with_end_line([*RECORD.splitlines()[:-1], b"[" * 200_000]),
            "a line is not a JSON object",
            id="nested too deeply",
        ),
        pytest.param(
            with_end_line([*RECORD.splitlines()[:-1], b"[" + b"[]," * 2_000_000 + b"1]"]),
            "a line is not a JSON object",
            id="lists that fill the memory",
        ),
        pytest.param(
            with_end_line([RECORD[:44] + b'"x":[' + b"[]," * 2_000_000 + b"1]}"]),
            "it was not written by pkgjail",
            id="a header of lists that fill the memory",
        ),
        pytest.param(
            with_end_line([RECORD[:44] + b'"x":' + b"[" * 200_000]),
            "r:1: .* it was edited",
            id="a header nested too deeply",
        ),
        pytest.param(
            with_end_line([RECORD.splitlines()[n] for n in (0, 2, 1, 3, 4)]),
            "not in order",
            id="out of order",
        ),
        pytest.param(
            with_end_line([RECORD.splitlines()[n] for n in (0, 1, 1, 2, 3)]), "not in order", id="twice"
        ),
        pytest.param(RECORD.replace(b'"size":5', b'"size":6'), "truncated or edited", id="another size"),
        pytest.param(RECORD + b"\n", "truncated or edited", id="one more line"),
    ],
)
def test_a_record_that_pkgjail_did_not_write_is_refused(data: bytes, message: str) -> None:
    """The error names the line if it can; a removal by such a record would delete something else."""
    with pytest.raises(InputError, match=f"^r.*{message}" if message.startswith("it was not") else message):
        parse_record(data, "r")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing was written"),
        pytest.param(RECORD[:60], id="the header was torn"),
    ],
)
def test_a_journal_that_announces_nothing(data: bytes) -> None:
    assert parse_journal(data, "r") is None


@pytest.mark.parametrize(
    "data", [b"my notes", b"my\nnotes\n", b'{"kind":', RECORD.splitlines()[0] + b"\nnotes\n"]
)
def test_a_file_that_is_not_a_journal_is_refused(data: bytes) -> None:
    """It may be the user's own, and is not deleted."""
    with pytest.raises(InputError):
        parse_journal(data, "r")


def test_a_line_has_the_fields_of_its_kind() -> None:
    """Protects the format that docs/environments.md describes."""
    assert [entry_line(entry) for entry in ENTRIES] == [
        b'{"kind":"regular","ctime":2,"inode":8,"mtime":1,"path":"manifest.jsonl","sha256":"ab","size":3}\n',
        b'{"kind":"directory","ctime":4,"inode":9,"path":"root"}\n',
        b'{"kind":"symlink","inode":10,"path":"root/a","target":"b"}\n',
        b'{"kind":"regular","ctime":7,"inode":11,"mtime":6,"path":"root/b","sha256":"cd","size":5}\n',
    ]
