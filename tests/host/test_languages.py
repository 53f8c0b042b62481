"""Languages on a whole Debian: each works in a jail of its packages, and `check` finds nothing lacking."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.host.languages import ROWS
from tests.host.roots import make_host, run_python

if TYPE_CHECKING:
    from collections.abc import Iterator

# Packages of languages that `check` starts.
_CHECKED = (
    "default-jdk-headless", "ocaml", "octave", "lua5.4", "r-base-core", "ghc", "php-cli",
    "texlive-latex-base",
)  # fmt: skip


@pytest.fixture(scope="module")
def host(library: Path) -> Iterator[Path]:
    """A Debian with the packages of all rows: 1.2 GB to download, and 6 GB on disk."""
    made = Path(f"/var/tmp/pkgjail-languages-{os.getpid()}")
    made.mkdir(mode=0o755)
    try:
        make_host(made, {name for row in ROWS.values() for name in row.packages.split()}, library)
        (made / "etc/resolv.conf").touch()
        yield made
    finally:
        shutil.rmtree(made)


@pytest.mark.long
def test_each_language_prints_inside_what_it_prints_outside(host: Path) -> None:
    """Protects the table of the page on checks, in one run."""
    ran = run_python(host, "-m", "tests.host.languages")
    rows = [f"| {name} | {row.packages} | pass |" for name, row in ROWS.items()]
    assert ran.stdout.splitlines() == [*rows, "0 failed"]


@pytest.mark.long
@pytest.mark.parametrize("package", _CHECKED)
def test_check_finds_nothing_in_a_set_of_one_language(host: Path, package: str) -> None:
    """Protects from false findings where nobody wrote the packages for the test."""
    (host / "var/tmp/w.toml").write_text(f'include = ["base"]\n[packages]\ndebian = ["{package}"]\n')
    words = ("resolve", "--no-hash", "/var/tmp/w.toml", "-o", "/var/tmp/m.jsonl")
    resolved = run_python(host, "-m", "pkgjail", *words)
    assert resolved.returncode == 0, resolved.stderr
    checked = run_python(host, "-m", "pkgjail", "check", "--json", "/var/tmp/m.jsonl")
    assert (json.loads(checked.stdout)["findings"], checked.returncode) == ([], 0)
