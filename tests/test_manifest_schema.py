"""The JSON Schema that ships with the package says what the reader and the writer do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest
from hypothesis import given

from pkgjail import manifest as manifest_module
from pkgjail.manifest import dump_manifest
from tests.manifest_cases import (
    REFUSED,
    SAMPLE,
    SAMPLE_BODY,
)
from tests.manifest_strategies import manifests

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest

SCHEMA = json.loads(Path(manifest_module.__file__).with_name("schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_a_schema_and_takes_every_line() -> None:
    """Other tools may trust the schema that ships with the package."""
    VALIDATOR.check_schema(SCHEMA)
    for line in SAMPLE.decode().splitlines():
        VALIDATOR.validate(json.loads(line))


@given(manifests())
def test_the_schema_takes_whatever_is_written(manifest: Manifest) -> None:
    """The schema and the writer agree for any manifest."""
    for line in dump_manifest(manifest).decode().split("\n")[:-1]:
        assert VALIDATOR.is_valid(json.loads(line)), line


# The rows that a schema of one line can't tell: they are about two lines, or about the text itself.
BEYOND_A_SCHEMA = {
    "a key twice", "white space", "keys out of order", "an escape without need", "a fraction",
    "a key that is not the name's", "lines out of order", "a line twice", "a path twice",
    "sections out of order", "a second header", "no header", "a final slash", "a doubled slash",
    "two slashes at the start", "a dot", "two dots", "a root that is a file", "dots in a dropped path",
    "a parent without an entry", "a symlink for a parent", "a lone surrogate", "base64 of UTF-8",
    "base64 with loose bits", "base64 without padding", "an unknown owner", "owners out of order",
    "an unknown target", "an unknown source", "essential by another name", "unmet by nobody",
    "not JSON", "an empty line", "deeper than any parser follows", "two records in a line",
    "a file that is said to be dropped",
}  # fmt: skip
BAD_LINES = [row for row in REFUSED if row[0] not in BEYOND_A_SCHEMA]


@pytest.mark.parametrize(("summary", "old", "new", "_"), BAD_LINES, ids=[row[0] for row in BAD_LINES])
def test_the_schema_refuses(summary: str, old: str, new: str, _: str) -> None:
    """What one line can tell of being wrong, the schema tells too."""
    lines = [json.loads(line) for line in SAMPLE_BODY.replace(old, new).splitlines()]
    assert not all(map(VALIDATOR.is_valid, lines)), summary
