"""The examples of README and of pages: their commands print here what the pages say.

A page's console blocks are one session: one shell runs their commands, in order, in a directory with a copy
of `examples`. A line that begins with `$ ` is a command; what follows is its output, standard error included.

- A line `...` stands for any lines, `...` in a line for any text.
- Blank lines, blanks at a line's end and the width of columns do not count.
- `NUMBERS` lists what depends on the host's release and state. It is normalized on both sides; everything
  else is compared exactly.
- `/home/me` is the home of whoever runs the commands.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/tutorial.md", "docs/review.md", "docs/check.md")

_UNITS = (
    "names?|packages?|dropped|missing|files?|ELF files|scripts|links|regular|notes?|added|removed|changed"
)
NUMBERS = (
    # Digests, of manifests and files.
    (r"\b[0-9a-f]{64}\b", "DIGEST"),
    # Sizes, and how many names a row of a table counts before its size.
    (r"(?:(?<=\s)\d[\d,]* +)?(?<![\w.])\d[\d,]*(?:\.\d+)? (?:bytes|[kMG]B)\b", "SIZE"),
    # Counts of things that a host has more or fewer of.
    (rf"(?<![\w.])\d[\d,]*(?= (?:{_UNITS})\b)", "COUNT"),
    # Versions: of Debian's packages, of upstream, and of a release in a package's or a program's name. From
    # Debian 13 on, a compiler's package has the target in its name too. Debian's sid has no number.
    (r"(?<![\w/.-])(?:\d+:)?\d+(?:\.\d+)+(?:[.+~-]\w+)*(?:-[\w.+~]+)?", "VERSION"),
    (r"(?<=gcc-)\d+(?:-[\w-]+-linux-gnu)?", "RELEASE"),
    (r"(?<=\bdebian)(?: \d+)?(?= amd64\b)", " RELEASE"),
)


class Step(NamedTuple):
    """A command of a page, and what the page says that it prints."""

    line: int
    command: str
    said: str


def steps(page: str) -> list[Step]:
    """The commands of a page's console blocks."""
    found: list[Step] = []
    inside = False
    for number, line in enumerate(page.splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append(Step(number, line[2:], ""))
        elif inside:
            last = found.pop()
            found.append(last._replace(said=f"{last.said}{line}\n"))
    return found


def normal(text: str) -> str:
    """Text without what depends on the host, and without blank lines and widths of columns."""
    for pattern, name in NUMBERS:
        text = re.sub(pattern, name, text)
    lines = (re.sub(r"(?<=\S)\s{2,}", "  ", line.rstrip()) for line in text.splitlines())
    return "".join(f"{re.sub('─+', '─', line)}\n" for line in lines if line)


def expectation(said: str) -> str:
    """The regular expression of what a page says."""
    parts = []
    for line in normal(said).splitlines(keepends=True):
        pattern = ".*".join(re.escape(part) for part in line.split("..."))
        parts.append("(?:.*\n)*" if line == "...\n" else pattern)
    return "".join(parts)


def run(commands: list[str], folder: Path, home: Path) -> list[str]:
    """The output of each command, all run by one shell."""
    programs = home / "bin"
    programs.mkdir(parents=True)
    (programs / "pkgjail").write_text(f'#!/bin/sh\nexec {sys.executable} -m pkgjail "$@"\n', encoding="utf-8")
    (programs / "pkgjail").chmod(0o755)
    mark = "the end of a command"
    script = "".join(f"{command}\nprintf '\\n%s\\n' '{mark}'\n" for command in commands)
    environment = {**os.environ, "HOME": str(home), "COLUMNS": "80", "PYTHONPATH": str(TOP)}
    environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout.replace(str(home), "/home/me").split(f"\n{mark}\n")[:-1]


@pytest.mark.gate
@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints_what_is_printed(name: str, tmp_path: Path) -> None:
    """Each command of the page, run on this host, gives the output beside it."""
    shutil.copytree(TOP / "examples", tmp_path / "work/examples")
    found = steps((TOP / name).read_text(encoding="utf-8"))
    assert found
    printed = run([step.command for step in found], tmp_path / "work", tmp_path / "home")
    assert len(printed) == len(found)
    wrong = [
        f"{name}:{step.line}: $ {step.command}\n--- said\n{normal(step.said)}--- printed\n{normal(output)}"
        for step, output in zip(found, printed)
        if not re.fullmatch(expectation(step.said), normal(output))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("said", "printed", "same"),
    [
        ("183 packages, 10,123 names\n", "184 packages, 9 names\n", True),
        ("  gcc-12:amd64  12.2.0-14+deb12   39  69.3 MB\n", "  gcc-13:amd64  13.3.0-6   1,139  9 kB\n", True),
        ("gcc-12:amd64  12.2.0-14  69.3 MB\n", "gcc-14-x86-64-linux-gnu:amd64  14.2.0-19  9 kB\n", True),
        ("zlib 1.2.13\n", "zlib 1.3.1\n", True),
        ("base on debian 12 amd64: ...\n", "base on debian 13 amd64: 9 names\n", True),
        ("base on debian 12 amd64: ...\n", "base on debian amd64: 9 names\n", True),
        ("base on debian 12 amd64: ...\n", "base on debian 12 arm64: 9 names\n", False),
        ("...\nb\n", "a\na\nb\n", True),
        ("cannot 'x': ...; y\n", "cannot 'x': why; y\n", True),
        ("...\nb\n", "a\na\nc\n", False),
        ("x.c:2:10: fatal error\n", "x.c:3:10: fatal error\n", False),
        ("zlib.toml:4: whitelist\n", "zlib.toml:5: whitelist\n", False),
        ("", "a\n", False),
    ],
)  # fmt: skip
def test_what_counts_as_the_same(said: str, printed: str, same: bool) -> None:  # noqa: FBT001
    """The comparison is loose in what it says, and strict otherwise."""
    assert bool(re.fullmatch(expectation(said), normal(printed))) == same


@pytest.mark.parametrize("name", PAGES)
def test_counts_of_a_page_agree(name: str) -> None:
    """The same manifest has as many names wherever a page shows it: the comparison above leaves counts out.

    An environment with a copy counts its manifest too.
    """
    said = "\n".join(step.said for step in steps((TOP / name).read_text(encoding="utf-8")))
    resolved = {text.replace(",", "") for text in re.findall(r"packages, ([\d,]+) names", said)}
    built = {text.replace(",", "") for text in re.findall(r": ([\d,]+) names(?:,| deleted)", said)}
    assert built <= {str(int(number) + 1) for number in resolved}


def test_the_virtual_environment_is_no_clone() -> None:
    """A clone in the home directory is ~/pkgjail; README must not make a virtual environment over it."""
    page = (TOP / "README.md").read_text(encoding="utf-8")
    made = re.findall(r"-m venv (\S+)", page)
    assert made
    assert not [path for path in made if path.rstrip("/") in {"~/pkgjail", "$HOME/pkgjail", "."}]
