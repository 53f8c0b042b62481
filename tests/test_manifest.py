"""The manifest has one canonical form, and nothing else is read."""

from __future__ import annotations

import json

import pytest

from pkgjail.core.errors import ManifestError
from pkgjail.core.model import Closure, Distribution, FileSet, Policy
from pkgjail.manifest import build_manifest, dump_manifest, parse_manifest
from tests.manifest_cases import (
    HEADER,
    MAWK,
    REFUSED,
    SAMPLE,
    SAMPLE_BODY,
    with_digest_line,
)


def test_the_form_is_what_reviewers_were_promised() -> None:
    """Every kind of record, sorted by the bytes of paths, absent values left out, nothing of the host."""
    assert SAMPLE.decode() == with_digest_line(SAMPLE_BODY).decode()


def test_lines_are_json_s_own_canonical_form() -> None:
    """The codec's lines are those that json makes of the same records."""
    for line in SAMPLE.decode().splitlines():
        assert line == json.dumps(json.loads(line), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def test_a_rolling_distribution_has_no_version() -> None:
    """Arch has no VERSION_ID; the header leaves it out and reads back as empty."""
    rolling = build_manifest(
        Policy(whitelists=(), blacklists=(), packages=()),
        "",
        Distribution(id="arch", version=""),
        "x86_64",
        Closure(packages=(), dependencies=(), reasons={}),
        FileSet(entries=()),
    )
    data = dump_manifest(rolling)
    assert b'"distribution":{"id":"arch"}' in data
    assert parse_manifest(data, "m") == rolling


@pytest.mark.parametrize(("summary", "old", "new", "problem"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused(summary: str, old: str, new: str, problem: str) -> None:
    """A manifest that pkgjail would not have written is refused with a line, even if its end record fits."""
    assert old in SAMPLE_BODY, summary
    with pytest.raises(ManifestError) as caught:
        parse_manifest(with_digest_line(SAMPLE_BODY.replace(old, new)), "m")
    assert problem in str(caught.value), summary


# Each row: what is wrong, the bytes, the first problem.
BROKEN = [
    ("an empty file", b"", "m:1: this is not a manifest"),
    ("another file", b"[packages]\ndebian = []\n", "m:1: this is a whitelist, not a manifest"),
    ("not UTF-8", SAMPLE.replace(b"docs.ignore", b"docs\xff"), "m:16: byte "),
    ("cut in a line", SAMPLE[:-1], "m:19: the manifest is cut in the middle of this line"),
    ("cut at a line", SAMPLE[: SAMPLE.rindex(b"\n", 0, -1) + 1], "m:18: the manifest is cut after this line"),
    ("cut at the header's end", HEADER.encode(), "m:1: the manifest is cut in the middle of this line"),
    ("cut after the header", f"{HEADER}\n".encode(), "m:1: the manifest is cut after this line"),
    ("a line taken out", SAMPLE.replace(f"{MAWK}\n".encode(), b""), "m:3: target mawk:amd64 is no package"),
    ("a plausible edit", SAMPLE.replace(b'"size":255', b'"size":256'), "m:19: the lines above are not those"),
    (
        "two manifests in one",
        SAMPLE + SAMPLE,
        "m:20: a record of kind header can't stand after one of kind end",
    ),
    ("a line after the end", SAMPLE + b"\n", "m:20: the line is empty"),
    (
        "a wrong count",
        SAMPLE.replace(b'"records":18', b'"records":17'),
        "m:19: the lines above are not those",
    ),
    ("carriage returns", SAMPLE.replace(b"\n", b"\r\n"), "m:1: its lines end in CR LF"),
]


@pytest.mark.parametrize(("summary", "data", "problem"), BROKEN, ids=[row[0] for row in BROKEN])
def test_broken(summary: str, data: bytes, problem: str) -> None:
    """A manifest that was cut, joined or changed is refused, wherever the cut is."""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(data, "m")
    assert str(caught.value).startswith(problem), summary


def test_all_problems_are_reported_at_once_up_to_a_limit() -> None:
    """Several faults are reported in the order of lines; a file of nonsense does not give thousands."""
    faulty = SAMPLE_BODY.replace('"size":255', '"size":"255"').replace(
        '"reason":"absent"', '"cause":"absent"'
    )
    with pytest.raises(ManifestError) as caught:
        parse_manifest(with_digest_line(faulty), "m")
    assert [problem.origin for problem in caught.value.problems] == ["m:3", "m:17"]
    with pytest.raises(ManifestError) as caught:
        parse_manifest((f"{HEADER}\n" + "x\n" * 50).encode(), "m")
    assert [problem.origin for problem in caught.value.problems] == [
        *(f"m:{line}" for line in range(2, 22)),
        "m",
    ]
