"""Time `pkgjail export` of the whitelist `spack` with its files, and GNU tar of the same files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode
from typing import TYPE_CHECKING

from benchmarks.measure import Subject, timed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def export_subjects(pkgjail: Sequence[str], place: Path) -> list[Subject]:
    """Return whole processes, each of which writes new files; unlike tar, `export` compares what it reads."""
    manifest = place / "exported.manifest.jsonl"
    command = [*pkgjail, "resolve", "spack", "--blacklist", "docs", "-o", str(manifest)]
    subprocess.run(command, check=True, capture_output=True)
    records = map(json.loads, manifest.read_text(encoding="utf-8").splitlines())
    paths = [
        r["path"] if isinstance(r["path"], str) else os.fsdecode(b64decode(r["path"]["base64"]))
        for r in records
        if r["kind"] == "file" and r["origin"] not in {"entry", "alternative"}
    ]
    listed = place / "names"
    listed.write_bytes(b"".join(os.fsencode(path[1:]) + b"\0" for path in paths if path != "/"))
    out = place / "exported"
    name = "tar -c"
    tar = ["tar", "-C", "/", "--no-recursion", "--null", "-T", str(listed), "-cf", str(out)]

    def remove() -> None:
        if out.is_dir():
            shutil.rmtree(out)
        out.unlink(missing_ok=True)

    def fresh(words: Sequence[str]) -> float:
        remove()
        return timed(words)

    def subject(form: str) -> Subject:
        words = [*pkgjail, "export", str(manifest), "--format", form, "-o", str(out)]
        return Subject(f"export --format {form}", lambda: fresh(words), name)

    forms = ("tar", "oci", "oci-archive", "docker-archive", "oci-bundle")
    return [Subject(name, lambda: fresh(tar)), *map(subject, forms)]
