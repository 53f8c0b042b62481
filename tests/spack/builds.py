"""Build packages of Spack's own recipes bare and in the jail, and compare.

    PKGJAIL_SPACK_ROOT=… PKGJAIL_SPACK_PACKAGES=… python3 -m tests.spack.builds zlib xz pkgconf ncurses

The sources come from the mirrors that the Spack's configuration names, or from where the recipes say. For
each Spack, hashes must be equal, both must have the same files, and no library or program may need one that
is neither Spack's nor of an external package (`spack verify libraries`). This runs as an ordinary user.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from tests.spack.real import ROOTS, make_pythons
from tests.spack.table import Place, move, set_up, spack, variables_of

WAYS = ("bare", "entry point")
FORMAT = "{name}@{version}/{hash}"
_NOT_FOUND = re.compile(r"(\S+) => not found")
# What Spack records of each build, and its keys, which pkgjail makes a directory for.
_OF_SPACK = {".spack", ".spack-db", "gpg", "__pycache__"}


def build(place: Place, packages: list[str], jobs: int) -> tuple[set[str], set[str], set[str]]:
    """Build packages; return their hashes, the names of their files, and libraries that are not Spack's."""
    done = spack(place, ["install", "--fail-fast", f"--jobs={jobs}", *packages])
    assert done.returncode == 0, f"in {place.base}:\n{done.stdout}"
    found = spack(place, ["find", "--no-groups", "--format", FORMAT])
    assert found.returncode == 0, found.stdout
    checked = spack(place, ["verify", "libraries"])
    libraries = set(_NOT_FOUND.findall(checked.stdout))
    assert bool(checked.returncode) == bool(libraries), checked.stdout
    return set(found.stdout.split()), set(installed(place.root / "opt" / "spack")), libraries


def installed(store: Path) -> list[str]:
    """Return the names of all installed files."""
    paths = (path.relative_to(store) for path in store.rglob("*"))
    return [str(path) for path in paths if not _OF_SPACK & set(path.parts)]


def main() -> int:
    """Build with all Spacks that PKGJAIL_SPACK_ROOT names; return 1 if something differs."""
    parser = argparse.ArgumentParser(prog="tests.spack.builds", description=__doc__)
    parser.add_argument("packages", nargs="+", help="specs")
    parser.add_argument("--external", action="append", default=[], help="an external package to find")
    parser.add_argument("--library", action="append", default=[], help="of an external package, by its name")
    parser.add_argument("--whitelist", action="append", default=[], help="besides `spack`")
    parser.add_argument("--jobs", type=int, default=2, help="of each build (2)")
    parser.add_argument("--directory", type=Path, help="where to work; it is kept, and used again")
    arguments = parser.parse_args()
    if os.geteuid() == 0 or not ROOTS:
        parser.error("run this as an ordinary user, with PKGJAIL_SPACK_ROOT")
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="pkgjail-spack-builds-"))
    directory.mkdir(exist_ok=True)
    pythons = make_pythons(directory)
    failed = False
    for number, root in enumerate(ROOTS):
        first, version = set_up(root, directory / str(number) / "first", pythons, arguments.external)
        results = []
        for way in WAYS:
            base = directory / str(number) / way.replace(" ", "-")
            if base.exists():
                place = Place(base, base / "spack", variables_of(base, way, pythons))
            else:
                place = move(first, base, way, pythons, arguments.whitelist)
            results.append(build(place, arguments.packages, arguments.jobs))
        (bare, bare_files, bare_libraries), (inside, inside_files, inside_libraries) = results
        wrong = {
            "hashes differ": bare ^ inside,
            "files differ": bare_files ^ inside_files,
            "libraries of the host, bare": bare_libraries.difference(arguments.library),
            "libraries of the host, inside": inside_libraries.difference(arguments.library),
        }
        print(f"{version.text}: {len(inside)} specs, {len(inside_files)} files")
        for what, found in wrong.items():
            if found:
                print(f"{version.text}: {what}: {sorted(found)[:20]}")
        failed = failed or any(wrong.values())
    if not arguments.directory:
        shutil.rmtree(directory)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
