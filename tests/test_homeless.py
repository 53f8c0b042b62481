"""Every verb for a user id that has no line in passwd(5), no HOME and no other variable."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pkgjail.manifest import write_manifest
from tests.conftest import SYSTEM_PYTHON
from tests.surroundings import own_user_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

UNKNOWN = own_user_id()
# Of these, `check` runs a language, and what reads all files reads few.
_SMALL = '[packages]\ndebian = ["coreutils", "dash", "perl-base"]\n[options]\nessential = false\n'


@pytest.fixture
def place(tmp_path: Path, base_manifest: Manifest) -> Iterator[Path]:
    """A directory that the user may write to, with a manifest in it; what jails leave is taken away."""
    tmp_path.chmod(0o777)
    for directory in tmp_path.parents:
        if not directory.name.startswith(("pytest-", "popen-")):
            break
        directory.chmod(0o755)
    write_manifest(base_manifest, tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").chmod(0o644)
    (tmp_path / "small.toml").write_text(_SMALL)
    yield tmp_path
    for shared in ("/dev/shm", "/var/tmp"):
        shutil.rmtree(f"{shared}/pkgjail-{UNKNOWN}", ignore_errors=True)


def test_every_verb(caller: Caller, place: Path, library: Path) -> None:
    """Each does its work; what is kept between runs is in the runtime directory."""
    become = ["setpriv", f"--reuid={UNKNOWN}", f"--regid={UNKNOWN}", "--clear-groups"]
    if os.geteuid():
        become = ["unshare", "-U", f"--map-user={UNKNOWN}", f"--map-group={UNKNOWN}"]
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(library)}
    for words in (
        "resolve ./small.toml -o new.jsonl",
        "init --package coreutils --package dash",
        "lock",
        "run -- true",
        "show m.jsonl",
        "why m.jsonl /usr/bin/env",
        "diff m.jsonl m.jsonl",
        "graph m.jsonl",
        "check new.jsonl",
        "verify new.jsonl",
        "report new.jsonl -o page.html",
        "learn --manifest m.jsonl -o list.toml -- true",
        "run m.jsonl -- true",
        "run base -- true",
        "run --audit audit.jsonl m.jsonl -- true",
        "audit show audit.jsonl",
        "audit influence --cwd --output . --limit 1 new.jsonl -- true",
        "minimise --cwd --output . new.jsonl -- true",
        "shell m.jsonl",
        "mounts m.jsonl",
        "doctor",
        "stages",
        "backends",
        "export m.jsonl --format fstab --at jail --skeleton -o fstab",
        "build m.jsonl env",
        "enter env -- true",
        "remove env",
        "cache ls",
        "cache prune",
        "completion bash",
        "man",
        "help run",
    ):
        command = [*become, SYSTEM_PYTHON, "-m", "pkgjail", *words.split()]
        ran = caller.run(command, env=variables, cwd=place, input="")
        assert (ran.returncode, "Traceback" in ran.stderr) == (0, False), (words, ran.stderr)
    assert not (place / "~").exists()
