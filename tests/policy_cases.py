"""A database with the packages that tests of policies need, and files from text."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import TYPE_CHECKING

from tests.memory import MemoryDatabase

if TYPE_CHECKING:
    from pathlib import Path

INSTALLED = """
    bash 5.2 amd64
    c 1 amd64
    gcc 12.2 amd64
     Provides: c-compiler
    gfortran 12.2 amd64
    mawk 1.3 amd64
     Provides: awk
    zlib1g 1.2 i386
    """
BASES = "bash dash coreutils findutils diffutils grep sed debianutils base-files ncurses-base"


def database(names: str = "", *, family: str = "debian") -> MemoryDatabase:
    """Return a database of `INSTALLED` and of packages with these names."""
    more = "\n".join(f"{name} 1 amd64" for name in names.split())
    return MemoryDatabase.from_text(f"{dedent(INSTALLED)}\n{more}", family=family)


def write(folder: Path, text: str) -> None:
    """Make files of `-- NAME` lines and the lines that follow each."""
    for part in re.split(r"^-- ", dedent(text).lstrip("\n"), flags=re.MULTILINE)[1:]:
        name, content = part.split("\n", 1)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def text(value: str) -> str:
    """Return a block of a table without its indentation."""
    return dedent(value).strip("\n")
