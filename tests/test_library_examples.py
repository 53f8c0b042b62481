"""The examples of docs/library.md run, one after the other, as the page has them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (TOP / "docs/library.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page calls /home/me: it has the programs hello and other, and a Makefile."""
    hello = tmp_path / "hello"
    shutil.copytree(TOP / "examples", hello)
    (hello / "hello.c").write_text('#include <stdio.h>\nint main(void) { return puts("hello") < 0; }\n')
    (hello / "other.c").write_text("int other;\n")
    (hello / "Makefile").write_text("all:\n\t$(CC) $(CFLAGS) -o made hello.c\n")
    monkeypatch.chdir(hello)
    return tmp_path


def test_they_run(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In a process of its own, as a program has them."""
    examples = [block for block in BLOCKS if "pkgjail_jail" not in block]
    assert len(examples) == len(BLOCKS) - 1
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(examples).replace("/home/me", str(home))],
        check=False, env={**os.environ, "PYTHONPATH": str(TOP)},
    )  # fmt: skip
    out, err = capfd.readouterr()
    assert (done.returncode, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "hello"
    assert "cannot" not in out
    assert (home / "hello" / "made").exists()
    versions = sorted(line.split()[0] for line in lines if re.search(r"\bGNU Make|^gcc", line))
    assert versions == ["GNU", "gcc", "gcc"]
    assert not (home / "spack-environment").exists()


def test_the_fixture_runs(tmp_path: Path) -> None:
    (block,) = (block for block in BLOCKS if "pkgjail_jail" in block)
    (tmp_path / "test_it.py").write_text(block)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pkgjail.integrations.pytest_fixture"]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(TOP)}
    done = subprocess.run([*command, tmp_path], check=False, cwd=tmp_path, env=alone, stdout=subprocess.PIPE)
    assert b"1 passed" in done.stdout, done.stdout
