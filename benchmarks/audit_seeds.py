"""Measure what an audit and other tracers find of the seeds of tests/audit: paths, packages, and too many.

    python -m benchmarks.audit_seeds [--influence] [--peers DIR]

The audit looks from a jail that lacks what the seed wants. The others run in a root of the same files in
which nothing is hidden, as root, by chroot(8); `DIR` is such a root, a copy of `seed_root()`, with /proc and
/dev. It has in `/peers` strace with its libraries (`strace`, `lib`) and what starts it (`bin/strace`),
dpkg-depcheck and its Perl modules (`dpkg-depcheck`, `perl`), and ReproZip (`rz`, as `pip install --target`
makes it).

A package that a tool names counts as one too many unless the seed wants it or the seed's jail has it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.audit.influence import find_influence
from pkgjail.audit.run import run_audited
from pkgjail.audit.wanted import wanted
from pkgjail.core.text import text_path
from tests.audit.seed_root import seed_root
from tests.audit.seed_runs import copy_of_build, manifest_of, options_of, possible_seeds
from tests.audit.seeds import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from pkgjail.core.model import Manifest
    from tests.audit.seeds import Seed

_INSIDE = "/build"


class Found(NamedTuple):
    """What a tool says of a build: paths, packages, and paths that it says no package has."""

    paths: frozenset[str]
    packages: frozenset[str] = frozenset()
    unowned: frozenset[str] = frozenset()


class Score(NamedTuple):
    """How a tool did: seeds whose path, and whose package it found, and the packages that were too many."""

    paths: int = 0
    packages: int = 0
    others: int = 0
    missed: tuple[str, ...] = ()

    def plus(self, seed: Seed, found: Found, listed: Collection[str]) -> Score:
        """Return the score with one seed more."""
        has_path = any(_is_at(path, seed.path) for path in found.paths)
        has_package = seed.package in found.packages if seed.package else seed.path in found.unowned
        return Score(
            self.paths + has_path,
            self.packages + has_package,
            self.others + len(found.packages - {seed.package, *listed}),
            self.missed if has_path and has_package else (*self.missed, seed.name),
        )


def _is_at(path: str, wanted_path: str) -> bool:
    """Return whether a path is the wanted one, in it, or its directory, if only a seed has that."""
    parent = wanted_path.rpartition("/")[0]
    own = {wanted_path, parent} if "seed" in parent else {wanted_path}
    return path in own or path.startswith(f"{wanted_path}/")


def by_audit(build: Path, manifest: Manifest) -> Found:
    """Return what an audit says that a build wants."""
    audit = run_audited(manifest, COMMAND, options_of(build), root=os.fsencode(seed_root()))
    found = wanted(audit)
    paths = {text_path(look_up.path): each.package for each in found for look_up in each.look_ups}
    return Found(
        frozenset(paths),
        frozenset(each.package.partition(":")[0] for each in found if each.package),
        frozenset(path for path, package in paths.items() if not package),
    )


def by_strace(root: Path, build: str) -> Found:
    """Return the paths in the output of strace, which knows no packages."""
    _run(root, build, "/peers/bin/strace", "-f", "-e", "trace=%file", "-o", f"{build}.log", *COMMAND)
    text = Path(f"{root}{build}.log").read_text(encoding="utf-8", errors="replace")
    return Found(frozenset(re.findall(r'"(/[^"]*)"', text)))


def by_depcheck(root: Path, build: str) -> Found:
    """Return the packages in the output of dpkg-depcheck, and the files that it says no package has."""
    said = _run(root, build, "perl", "-I/peers/perl", "/peers/dpkg-depcheck", "-a", *COMMAND)
    files, _, packages = said.rpartition("Packages used:")
    unowned = frozenset(re.findall(r"^(/\S+)$", files, re.MULTILINE))
    named = {name.partition(":")[0] for name in re.findall(r"^  (\S+)$", packages, re.MULTILINE)}
    return Found(unowned, frozenset(named), unowned)


def by_reprozip(root: Path, build: str) -> Found:
    """Return the packages and files in the configuration that ReproZip wrote."""
    place = f"{build}-traced"
    _run(
        root,
        build,
        "env",
        "PYTHONPATH=/peers/rz",
        "python3",
        "-m",
        "reprozip.main",
        "trace",
        "-d",
        place,
        *COMMAND,
    )
    text = Path(f"{root}{place}/config.yml").read_text(encoding="utf-8")
    packages, _, others = text.partition("other_files:")
    _, _, packages = packages.partition("\npackages:")
    names = re.findall(r'^  - name: "([^"]+)"', packages, re.MULTILINE)
    paths = re.findall(r'- "(/[^"]*)"', packages + others)
    return Found(frozenset(paths), frozenset(names), frozenset(re.findall(r'- "(/[^"]*)"', others)))


def _run(root: Path, build: str, *command: str) -> str:
    """Run a command in a root, in the directory of a build; what it said."""
    chroot = shutil.which("chroot") or "/usr/sbin/chroot"
    inside = ("sh", "-c", 'cd "$0" && exec "$@"', build, *command)
    variables = {"PATH": "/peers/bin:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
    done = subprocess.run(
        [chroot, root, *inside], env=variables, capture_output=True, text=True, errors="replace", check=False
    )
    return done.stdout + done.stderr


PEERS: Mapping[str, Callable[[Path, str], Found]] = {
    "strace -f -e %file": by_strace,
    "dpkg-depcheck": by_depcheck,
    "ReproZip": by_reprozip,
}


def _of_peers(seed: Seed, root: Path) -> dict[str, Found]:
    found = {}
    for number, (name, find) in enumerate(PEERS.items()):
        build = f"{_INSIDE}/{seed.name}-{number}"
        shutil.rmtree(f"{root}{build}", ignore_errors=True)
        shutil.copytree(copy_of_build(seed, root / "build"), f"{root}{build}")
        found[name] = find(root, build)
    return found


def _influence(build: Path, manifest: Manifest) -> dict[str, bool]:
    """Return whether each package or path that a build asked for changes it."""
    found = find_influence(
        manifest, COMMAND, options_of(build), os.fsencode(build / "out"), root=os.fsencode(seed_root())
    )
    return {
        trial.package.partition(":")[0] or text_path(trial.paths[0]): trial.verdict == "changed"
        for trial in found.trials
    }


def main() -> None:
    """Run all seeds and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--influence", action="store_true")
    parser.add_argument("--peers", type=Path)
    arguments = parser.parse_args()
    scores: dict[str, Score] = defaultdict(Score)
    verdicts: list[tuple[Seed, dict[str, bool]]] = []
    seeds = possible_seeds()
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        for seed in seeds:
            manifest = manifest_of(seed, place)
            listed = {package.name for package in manifest.packages}
            also = {other.package for other in seeds if other.name == seed.name}
            found = {"pkgjail run --audit": by_audit(copy_of_build(seed, place), manifest)}
            found.update(_of_peers(seed, arguments.peers) if arguments.peers else {})
            for name, each in found.items():
                scores[name] = scores[name].plus(seed, each, listed | also)
            if arguments.influence:
                verdicts.append((seed, _influence(copy_of_build(seed, place), manifest)))
                print(seed.name, verdicts[-1][1], flush=True)
    print(f"| {len(seeds)} seeds | path found | package right | packages too many |\n|---|---|---|---|")
    for name, score in scores.items():
        print(f"| {name} | {score.paths} | {score.packages} | {score.others} |")
    for name, score in scores.items():
        print(f"missed by {name}: {', '.join(score.missed) or 'none'}")
    if arguments.influence:
        _print_influence(verdicts)


def _print_influence(verdicts: list[tuple[Seed, dict[str, bool]]]) -> None:
    """Print how many of the packages that are said to change a build do, and how many that do are said to."""
    said = right = do = found = 0
    for seed, trials in verdicts:
        own = {
            other.package or other.path
            for other, _ in verdicts
            if other.name == seed.name and other.influences
        }
        said += sum(trials.values())
        right += sum(changes and name in own for name, changes in trials.items())
        do += seed.influences
        found += seed.influences and trials.get(seed.package or seed.path, False)
    print(f"influence: {right} of {said} said rightly, {found} of {do} found")


if __name__ == "__main__":
    main()
