"""Time `pkgjail verify` and `check` of the whitelist `spack`, and sha256sum over the same files."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

from benchmarks.measure import Subject, timed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Few enough that all processes end at about the same time, as a user of sha256sum would arrange it.
_FILES_A_CALL = 200


def verify_subjects(pkgjail: Sequence[str], place: Path) -> list[Subject]:
    """Return whole processes; unlike sha256sum, `verify` also reads the manifest and finds extra names."""
    manifest = place / "hashed.manifest.jsonl"
    command = [*pkgjail, "resolve", "spack", "--blacklist", "docs", "-o", str(manifest)]
    subprocess.run(command, check=True, capture_output=True)
    records = map(json.loads, manifest.read_text(encoding="utf-8").splitlines())
    paths = [os.fsencode(r["path"]) for r in records if r["kind"] == "file" and r.get("sha256")]
    listed = place / "files"
    listed.write_bytes(b"".join(path + b"\0" for path in paths))
    processes = str(len(os.sched_getaffinity(0)))
    sha256sum = [
        "xargs",
        "-0",
        "-a",
        str(listed),
        "-n",
        str(_FILES_A_CALL),
        "-P",
        processes,
        "sha256sum",
        "--",
    ]

    name = f"sha256sum, {processes} at once"

    def subject(arguments: str, peer: str = "") -> Subject:
        return Subject(arguments, lambda: timed([*pkgjail, *arguments.split(), str(manifest)]), peer)

    return [
        Subject(name, lambda: timed(sha256sum)),
        subject("verify", name),
        subject("verify --packages", name),
        subject("verify --quick"),
        subject("check --static"),
        subject("check"),
    ]
