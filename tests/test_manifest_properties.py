"""Properties of any manifest: reading gives what was written, and every change is detected."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.core.errors import ManifestError
from pkgjail.core.model import Manifest
from pkgjail.manifest import dump_manifest, parse_manifest
from tests.manifest_strategies import manifests

if TYPE_CHECKING:
    from random import Random


@given(manifests())
def test_what_is_dumped_is_what_is_parsed(manifest: Manifest) -> None:
    """Paths of any bytes and texts of any characters are read as they were written; lines are json's own."""
    data = dump_manifest(manifest)
    assert parse_manifest(data, "m") == manifest
    for line in data.decode().split("\n")[:-1]:
        plain = json.dumps(json.loads(line), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        assert line.encode() == plain.encode("utf-8", "backslashreplace")


@given(manifests(), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_reach_the_bytes(manifest: Manifest, random: Random) -> None:
    """A manifest has the same bytes regardless of the order of its records."""

    def shuffled(records: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(random.sample(records, len(records)))

    other = Manifest(
        header=manifest.header,
        packages=shuffled(manifest.packages),
        dependencies=shuffled(manifest.dependencies),
        files=shuffled(manifest.files),
        dropped=shuffled(manifest.dropped),
        missing=shuffled(manifest.missing),
        unmet=shuffled(manifest.unmet),
        devices=shuffled(manifest.devices),
    )
    assert dump_manifest(other) == dump_manifest(manifest)


@given(manifests(), st.data())
def test_no_change_of_bytes_or_lines_goes_unseen(manifest: Manifest, data: st.DataObject) -> None:
    """A changed byte, a lost, doubled or moved line, and a cut are refused with a line number."""
    written = dump_manifest(manifest)
    lines = written.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(written) - 1), label="at")
    line = data.draw(st.integers(0, len(lines) - 1), label="line")
    other = data.draw(st.integers(0, len(lines) - 1), label="other")
    swapped = lines.copy()
    swapped[line], swapped[other] = swapped[other], swapped[line]
    byte = bytes([data.draw(st.integers(0, 255), label="byte")])
    changed = {
        written[:at] + byte + written[at + 1 :],
        written[:at],
        written[:at] + written[at + 1 :],
        b"".join(lines[:line] + lines[line + 1 :]),
        b"".join(lines[: line + 1] + lines[line:]),
        b"".join(swapped),
    } - {written}
    for each in changed:
        with pytest.raises(ManifestError) as caught:
            parse_manifest(each, "m")
        assert all(problem.origin.startswith("m") and problem.message for problem in caught.value.problems)


@given(manifests(), st.data())
def test_a_careful_forger_gets_a_different_manifest_or_none(manifest: Manifest, data: st.DataObject) -> None:
    """No two byte strings are read as the same manifest, even if the end record is made to fit."""
    body = dump_manifest(manifest).splitlines(keepends=True)[:-1]
    text = b"".join(body)
    at = data.draw(st.integers(0, len(text) - 1), label="at")
    forged = text[:at] + bytes([data.draw(st.integers(0, 255), label="byte")]) + text[at + 1 :]
    digest = hashlib.sha256(forged).hexdigest()
    forged += f'{{"kind":"end","records":{len(body)},"sha256":"{digest}"}}\n'.encode()
    try:
        read = parse_manifest(forged, "m")
    except ManifestError:
        return
    assert (read == manifest) == (forged == dump_manifest(manifest))
    assert dump_manifest(read) == forged
