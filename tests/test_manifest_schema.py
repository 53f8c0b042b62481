"""The JSON Schema that ships with the package agrees with the table of records, the reader and the writer."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import given

from pkgjail import manifest as manifest_module
from pkgjail.manifest import dump_manifest
from pkgjail.manifest.records import KINDS, MAX_SIZE, ORIGINS, REASONS, REQUIRED
from pkgjail.manifest.records import SCHEMA as MANIFEST_SCHEMA
from pkgjail.manifest.records import TYPES as FILE_TYPES
from tests.manifest_cases import (
    REFUSED,
    SAMPLE,
    SAMPLE_BODY,
)
from tests.manifest_strategies import manifests

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest
    from pkgjail.manifest.records import Field, RecordKind

SCHEMA = json.loads(Path(manifest_module.__file__).with_name("schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


# How the types of fields stand in the schema of a line.
TYPES: dict[str, Any] = {
    "text": {"type": "string"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "keys": {"$ref": "#/$defs/owners"},
    "path": {"$ref": "#/$defs/path"},
    "flag": {"type": "boolean"},
    "number": {"type": "integer", "minimum": 0, "maximum": MAX_SIZE},
    "mode": {"type": "string", "pattern": "^[0-7]{4}$"},
    "distribution": {
        "type": "object",
        "properties": {
            "family": {"type": "string", "minLength": 1},
            "id": {"type": "string"},
            "version": {"type": "string", "minLength": 1},
        },
        "required": ["id"],
        "additionalProperties": False,
    },
}
# What the schema says of single fields besides their types, as the reader's checks of content do.
WORD = {"pattern": "^[^\\s\\u0000-\\u0020\\u007f]+$"}
SHA256 = {"pattern": "^[0-9a-f]{64}$"}
FILLED = {"minLength": 1}
CONTENT: dict[tuple[str, str], dict[str, Any]] = {
    ("header", "schema"): {"enum": list(range(1, MANIFEST_SCHEMA + 1))},
    ("header", "source"): {"pattern": "^(directory|image:sha256:[0-9a-f]{64})$"},
    ("package", "architecture"): WORD,
    ("package", "key"): {"pattern": "^[^:]+:[^:]+$"},
    ("package", "name"): WORD,
    ("package", "version"): WORD,
    ("dependency", "source"): FILLED,
    ("dependency", "target"): FILLED,
    ("file", "origin"): {"enum": list(ORIGINS)},
    ("file", "path"): {"$ref": "#/$defs/place"},
    ("file", "type"): {"enum": list(FILE_TYPES)},
    ("file", "detail"): FILLED,
    ("file", "sha256"): SHA256,
    ("device", "pattern"): {"pattern": r"^/dev/[^*?\[/]"},
    ("dropped", "path"): {"$ref": "#/$defs/place"},
    ("missing", "path"): {"$ref": "#/$defs/place"},
    ("missing", "reason"): {"enum": list(REASONS)},
    ("unmet", "source"): FILLED,
    ("end", "sha256"): SHA256,
}


def expected(kind: RecordKind, field: Field) -> dict[str, Any]:
    """Return the schema of a field: a constant and an enumeration say more than a type."""
    more = CONTENT.get((kind.name, field.name), {})
    return more if more.keys() & {"const", "enum"} else {**TYPES[field.type], **more}


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_the_schema_has_the_fields_of_the_table(kind: RecordKind) -> None:
    """The schema for other tools lists the fields, types and values that pkgjail reads and writes."""
    schema = SCHEMA["$defs"][kind.name]
    required = [field.name for field in kind.fields if field.default is REQUIRED]
    assert schema["properties"] == {
        "kind": {"const": kind.name},
        **{field.name: expected(kind, field) for field in kind.fields},
    }
    assert schema["required"] == ["kind", *required]
    assert schema["additionalProperties"] is False


def test_the_schema_has_the_kinds_of_the_table() -> None:
    """No kind of record is missing from the schema, and none is there besides."""
    assert SCHEMA["oneOf"] == [{"$ref": f"#/$defs/{name}"} for name in KINDS]
    assert SCHEMA["$defs"].keys() - {"path", "place", "owners"} == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_the_table_fits_the_model(kind: RecordKind) -> None:
    """Fields stand in the order of a line, and those that are read make a record."""
    names = [field.name for field in kind.fields]
    assert names == sorted(names)
    assert kind.fields[-1].default is REQUIRED, "it closes the line"
    read = {field.attribute for field in kind.fields if not field.derived}
    parameters = inspect.signature(kind.record).parameters
    assert read == set(parameters)
    for field in kind.fields:
        if field.default is not REQUIRED:
            assert parameters[field.attribute].default == field.default


def test_the_schema_is_a_schema_and_takes_every_line() -> None:
    """Other tools may trust the schema that ships with the package."""
    VALIDATOR.check_schema(SCHEMA)
    for line in SAMPLE.decode().splitlines():
        VALIDATOR.validate(json.loads(line))


@given(manifests())
def test_the_schema_takes_whatever_is_written(manifest: Manifest) -> None:
    """The schema accepts every line of any manifest that the writer writes."""
    for line in dump_manifest(manifest).decode().split("\n")[:-1]:
        assert VALIDATOR.is_valid(json.loads(line)), line


# The rows that a schema of one line can't refuse: they are about two lines, or about the text itself.
BEYOND_A_SCHEMA = {
    "a key twice", "white space", "keys out of order", "an escape without need", "a fraction",
    "a key that is not the name's", "lines out of order", "a line twice", "a path twice",
    "sections out of order", "a second header", "no header", "a final slash", "a doubled slash",
    "two slashes at the start", "a dot", "two dots", "a root that is a file", "dots in a dropped path",
    "a parent without an entry", "a symlink for a parent", "a lone surrogate", "base64 of UTF-8",
    "base64 with loose bits", "base64 without padding", "an unknown owner", "owners out of order",
    "an unknown target", "an unknown source", "essential by another name", "unmet by nobody",
    "not JSON", "an empty line", "deeper than any parser follows", "two records in a line",
    "a file that is said to be dropped", "a schema that nothing needs", "a family of schema 2",
    "a source of schema 3",
    "a family that the id implies",
}  # fmt: skip
BAD_LINES = [row for row in REFUSED if row[0] not in BEYOND_A_SCHEMA]


@pytest.mark.parametrize(("summary", "old", "new", "_"), BAD_LINES, ids=[row[0] for row in BAD_LINES])
def test_the_schema_refuses(summary: str, old: str, new: str, _: str) -> None:
    """The schema refuses whatever is wrong within one line."""
    lines = [json.loads(line) for line in SAMPLE_BODY.replace(old, new).splitlines()]
    assert not all(map(VALIDATOR.is_valid, lines)), summary
