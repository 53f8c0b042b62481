"""Time databases of rpm and pacman with 500 packages of 80 files, and the programs' own listing of them.

The tests' own makers make the fixtures once, in a minute or two, and keep them with those of the tests.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.measure import Subject, timed
from pkgjail.api import open_database, resolve
from pkgjail.backends.rpm.query import FORMAT
from tests.real_roots import OS_RELEASE, kept, make, pacman_command
from tests.real_world import File, Made

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES, FILES = 500, 80
# Each package requires all earlier ones, so these have closures of 1, 60 and 500 packages.
RESOLVED = (0, 59, PACKAGES - 1)


def _packages() -> list[Made]:
    """Return packages that each require three earlier ones, one by name and two by what these provide."""
    found = []
    for number in range(PACKAGES):
        files = [File(f"/usr/share/p{number}/{one % 8}/{one}", "file", 0o644) for one in range(FILES)]
        before = [n for n in (number - 1, number - 7, number - 50) if n >= 0]
        found.append(
            Made(
                name=f"p{number}",
                version=f"1.{number}-1",
                files=tuple(files),
                requires=tuple(f"p{n} >= 1" for n in before[:1]) + tuple(f"c{n}" for n in before[1:]),
                provides=(f"c{number} = 1.{number}",),
            )
        )
    return found


def _fill(family: str, place: Path) -> None:
    make(family, _packages(), place)
    (place / "root/etc").mkdir(exist_ok=True)
    (place / "root/etc/os-release").write_text(OS_RELEASE[family], encoding="utf-8")


def _root(family: str) -> Path:
    source = Path(__file__).read_text(encoding="utf-8")
    return kept(f"bench-{family}", partial(_fill, family), source) / "root"


def _library(root: Path, whitelist: Path | None) -> float:
    """Return the seconds to resolve a whitelist in this process, or without one, to read the database."""
    began = perf_counter()
    if whitelist is None:
        open_database(os.fsencode(root))
    else:
        resolve([str(whitelist)], root=os.fsencode(root), hashed=False)
    return perf_counter() - began


def database_subjects(place: Path) -> list[Subject]:
    """Return for each family: the program's listing, reading the database, and `resolve` of some and all."""
    found = []
    for family, key, name in (("rpm", "rhel", "rpm -qa --qf"), ("pacman", "arch", "pacman -Ql")):
        root = _root(family)
        found.append(Subject(name, partial(timed, _listing(family, root))))
        found.append(Subject(f"{family}: database read", partial(_library, root, None), name))
        for last in RESOLVED:
            whitelist = place / f"{family}-{last}.toml"
            whitelist.write_text(f'[packages]\n{key} = ["p{last}"]\n', encoding="utf-8")
            what = f"{family}: resolve, {last + 1} packages, {(last + 1) * FILES:,} files"
            found.append(Subject(what, partial(_library, root, whitelist), name))
    return found


def _listing(family: str, root: Path) -> Sequence[str]:
    if family == "pacman":
        return pacman_command(root, "-Ql")
    return ["rpm", "--dbpath", f"{root}/var/lib/rpm", "-qa", "--qf", FORMAT]
