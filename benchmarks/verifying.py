"""`pkgjail verify` and `check` of the whitelist `spack`, beside sha256sum over the same files."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

from benchmarks.measure import Subject, timed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Enough shares that both processes end together, as sha256sum's user would arrange it.
_FILES_A_CALL = 200


def verify_subjects(pkgjail: Sequence[str], place: Path) -> list[Subject]:
    """Whole processes: verification reads the manifest and looks for extra names besides."""
    manifest = place / "hashed.manifest.jsonl"
    command = [*pkgjail, "resolve", "spack", "--blacklist", "docs", "-o", str(manifest)]
    subprocess.run(command, check=True, capture_output=True)
    records = map(json.loads, manifest.read_text(encoding="utf-8").splitlines())
    paths = [os.fsencode(r["path"]) for r in records if r["kind"] == "file" and r.get("sha256")]
    listed = place / "files"
    listed.write_bytes(b"".join(path + b"\0" for path in paths))
    processes = str(len(os.sched_getaffinity(0)))
    peer = ["xargs", "-0", "-a", str(listed), "-n", str(_FILES_A_CALL), "-P", processes, "sha256sum", "--"]

    name = f"sha256sum, {processes} at once"

    def subject(words: str, beside: str = "") -> Subject:
        return Subject(words, lambda: timed([*pkgjail, *words.split(), str(manifest)]), beside)

    return [
        Subject(name, lambda: timed(peer)),
        subject("verify", name),
        subject("verify --packages", name),
        subject("verify --quick"),
        subject("check --static"),
        subject("check"),
    ]
