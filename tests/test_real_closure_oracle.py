"""The closures of random whitelists, on real roots, against what rpm, dnf and pacman say themselves.

Who satisfies what is asked of libdnf for rpm (its `hawkey`), and of `vercmp` and `pacman -Qi` for
pacman; which of several is taken is written here once more, the plain and slow way. Besides, rpm and
pacman must find a root with the closure alone whole, and dnf's own recursive answer must hold it.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pkgjail.backends import open_database
from pkgjail.closure.search import resolve_closure
from pkgjail.policy import load_policy
from tests.real_roots import AS_ROOT, QUIET, RPM, copy_of, packages, pacman, run
from tests.real_world import world

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from pkgjail.core.model import PackageDatabase

pytestmark = pytest.mark.gate

WHITELISTS, BATCH, SEED = 200, 20, 5

# Prints, for each installed package, its requirements and who provides each, by libdnf.
_HAWKEY = """
import hawkey, json, sys, tempfile
sack = hawkey.Sack(cachedir=tempfile.mkdtemp(), rootdir=sys.argv[1], arch="x86_64")
sack.load_system_repo()
def providers(text):
    found = set()
    for query in ({"provides": text}, {"file": text}):
        found |= {one.name for one in hawkey.Query(sack).filter(**query)}
    return sorted(found)
json.dump({
    one.name: [(str(text), providers(str(text))) for text in one.requires if "rpmlib(" not in str(text)]
    for one in hawkey.Query(sack)
}, sys.stdout)
"""

# The rich requirements of the world by hand: (one of these, if all of those).
RICH: dict[str, list[tuple[list[str], list[str]]]] = {
    "(joe if nano)": [(["joe"], ["nano"])],
    "(empty if not-installed)": [],
    "(joe or nano)": [(["joe", "nano"], [])],
    "((vim and epochal) or not-installed)": [(["vim"], []), (["epochal"], [])],
    "(joe if not-installed else nano)": [(["nano"], [])],
    "(lib with libapi >= 3)": [(["lib"], [])],
    "(editor without nano)": [(["vim"], [])],
}


class Requirement(NamedTuple):
    """Somebody asks for one of `answers`, the preferred one first, if all of `conditions` are in."""

    text: str
    source: str
    answers: tuple[str, ...]
    conditions: tuple[str, ...] = ()


def closure(asked: Collection[Requirement], requirements: dict[str, list[Requirement]]) -> set[str]:
    """Return the closure of `asked`: plain requirements first, then one choice at a time, by its text."""
    inside: set[str] = set()
    decided: dict[Requirement, str] = {}
    while True:
        pending = {*asked, *(one for name in inside for one in requirements[name])}
        pending = {
            one
            for one in pending
            if one not in decided and one.source not in one.answers and inside.issuperset(one.conditions)
        }
        if not pending:
            return inside
        plain = [one for one in pending if len(one.answers) == 1]
        for one in plain or sorted(pending)[:1]:
            decided[one] = next((name for name in one.answers if name in inside), one.answers[0])
        inside.update(decided.values())


def preferred(name: str, found: Collection[str]) -> tuple[str, ...]:
    """The package of that very name first, then by name."""
    return tuple(sorted(found, key=lambda one: (one != name, one)))


# --- rpm ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rpm_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that dnf may write its caches to."""
    return copy_of("rpm", tmp_path_factory.mktemp("rpm"))


def at_home(root: Path) -> dict[str, str]:
    """An environment in which rpm's library looks for databases where it does on Fedora."""
    home = root.parent / "home"
    home.mkdir(exist_ok=True)
    (home / ".rpmmacros").write_text("%_dbpath /var/lib/rpm\n")
    return {**QUIET, "HOME": str(home)}


def rpm_requirements(root: Path) -> dict[str, list[Requirement]]:
    """Each package's requirements by libdnf, the rich ones by hand."""
    said = subprocess.run(
        ["/usr/bin/python3", "-c", _HAWKEY, root], env=at_home(root), capture_output=True, check=True
    ).stdout  # fmt: skip
    found: dict[str, list[Requirement]] = {}
    asked: list[tuple[str, list[str]]]
    for name, asked in json.loads(said).items():
        found[name] = []
        for text, providers in asked:
            if text in RICH:
                found[name] += [Requirement(text, name, tuple(a), tuple(c)) for a, c in RICH[text]]
            else:
                found[name].append(Requirement(text, name, preferred(text.split(" ")[0], providers)))
    return found


def random_whitelist(number: int, names: list[str], contested: list[str]) -> list[str]:
    """One to six packages, and now and then what several provide."""
    chance = random.Random(f"{SEED}.{number}")  # noqa: S311 - to be the same each time
    return chance.sample(names, chance.randint(1, 6)) + chance.sample(
        contested, chance.randint(0, min(1, len(contested)))
    )


def our_closure(database: PackageDatabase, key: str, names: list[str], tmp_path: Path) -> set[str]:
    """The names of the closure, nothing unmet."""
    path = tmp_path / "random.toml"
    path.write_text(f"[packages]\n{key} = {names}\n")
    found = resolve_closure(database, load_policy([str(path)], database=database, essential=False))
    assert found.unmet == ()
    return {package.name for package in found.packages}


def rpm_test(names: Collection[str], tmp_path: Path) -> str:
    """Return rpm's objections to installing these packages on an empty system."""
    files = [packages("rpm") / "packages" / f"{name}.rpm" for name in sorted(names)]
    command = [*AS_ROOT, *RPM, "--dbpath", tmp_path / "none", "--nosignature", "-U", "--test", *files]
    done = subprocess.run(command, env=QUIET, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == ("error:" in done.stderr)
    return done.stderr.partition("error:")[2]


@pytest.mark.parametrize("batch", range(WHITELISTS // BATCH))
def test_rpm(batch: int, rpm_copy: Path, tmp_path: Path) -> None:
    """Protects the closure of rpm packages: of no whitelist is one too many, or one too few."""
    database = open_database(os.fsencode(rpm_copy))
    requirements = rpm_requirements(rpm_copy)
    assert set(requirements) == {package.name for package in database.packages.values()}
    for number in range(batch * BATCH, (batch + 1) * BATCH):
        chosen = random_whitelist(number, sorted(requirements), ["editor", "libapi"])
        provided = {"editor": ("nano", "vim"), "libapi": ("lib",)}
        asked = [Requirement(name, "", provided.get(name, (name,))) for name in chosen]
        found = our_closure(database, "rhel", chosen, tmp_path)
        assert found == closure(asked, requirements), chosen
        assert rpm_test(found, tmp_path) == ""


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[pytest.mark.long] if n >= 5 else []) for n in range(WHITELISTS)]
)
def test_dnf(number: int, rpm_copy: Path, tmp_path: Path) -> None:
    """Protects against a package that dnf does not know to be required, and one that nobody else answers.

    dnf lists every provider of a requirement, and takes each condition for true; made minimal, what
    is left of its answer where nothing is contested is the closure.
    """
    database = open_database(os.fsencode(rpm_copy))
    names = sorted({package.name for package in database.packages.values()})
    chosen = random_whitelist(number, names, [])
    configuration = tmp_path / "dnf.conf"
    configuration.write_text("[main]\nplugins=0\nreposdir=/nonexistent\n")
    options = ("-q", "-c", configuration, f"--installroot={rpm_copy}", "--releasever=39")
    query = ("repoquery", "--installed", "--requires", "--resolve", "--recursive", "--qf", "%{name}")
    done = subprocess.run(
        ["dnf", *options, *query, *chosen], env=at_home(rpm_copy), capture_output=True, text=True, check=True
    )
    listed = set(done.stdout.split()) | set(chosen)
    found = our_closure(database, "rhel", chosen, tmp_path)
    contested = {"vim", "nano", "joe", "empty", "epochal", "authorities", "authorities-list"}
    assert found <= listed
    assert listed - found <= contested


# --- pacman ---------------------------------------------------------------------------------------


class Information(NamedTuple):
    """What `pacman -Qi` says of a package."""

    version: str
    depends: tuple[str, ...]
    provides: tuple[str, ...]


def information(root: Path) -> dict[str, Information]:
    """All packages of `root` as `pacman -Qi` prints them."""
    found = {}
    for block in pacman(root, "-Qi").strip().split("\n\n"):
        joined = re.sub(r"\n {2,}", "  ", block)
        fields = {
            key.strip(): value for key, _, value in (line.partition(" : ") for line in joined.split("\n"))
        }
        depends, provides = (
            tuple(word for word in fields[key].split() if word != "None")
            for key in ("Depends On", "Provides")
        )
        found[fields["Name"].strip()] = Information(fields["Version"].strip(), depends, provides)
    return found


@cache
def vercmp(left: str, right: str) -> int:
    """The answer of pacman's own program."""
    return int(run("vercmp", left, right))


def pacman_answers(text: str, installed: dict[str, Information]) -> tuple[str, ...]:
    """Return what satisfies `name>=version`, by PKGBUILD(5) and `vercmp`."""
    name, sign, version = re.fullmatch(r"([^<>=]+)([<>=]*)(.*)", text).groups()  # type: ignore[union-attr]

    def fits(have: str) -> bool:
        order = vercmp(have, version)
        return ("=" in sign and order == 0) or ("<" in sign and order < 0) or (">" in sign and order > 0)

    found = {one for one in installed if one == name and (not sign or fits(installed[one].version))}
    for one, known in installed.items():
        for offer in known.provides:
            offered, _, have = offer.partition("=")
            if offered == name and (not sign or (have and fits(have))):
                found.add(one)
    return preferred(name, found)


@pytest.fixture(scope="module")
def pacman_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root beside which pacman may write."""
    return copy_of("pacman", tmp_path_factory.mktemp("pacman"))


@pytest.mark.parametrize("batch", range(WHITELISTS // BATCH))
def test_pacman(batch: int, pacman_copy: Path, tmp_path: Path) -> None:
    """Protects the closure of pacman packages: of no whitelist is one too many, or one too few."""
    database = open_database(os.fsencode(pacman_copy))
    installed = information(pacman_copy)
    requirements = {
        name: [Requirement(text, name, pacman_answers(text, installed)) for text in known.depends]
        for name, known in installed.items()
    }
    assert set(requirements) == {package.name for package in database.packages.values()}
    for number in range(batch * BATCH, (batch + 1) * BATCH):
        chosen = random_whitelist(number, sorted(requirements), ["editor", "libapi"])
        # An entry that names a package is about that one.
        asked = [
            Requirement(name, "", (name,) if name in installed else pacman_answers(name, installed))
            for name in chosen
        ]
        found = our_closure(database, "arch", chosen, tmp_path)
        assert found == closure(asked, requirements), chosen
        assert unsatisfied(pacman_copy, found, installed, tmp_path) == ""


def unsatisfied(root: Path, names: set[str], installed: dict[str, Information], tmp_path: Path) -> str:
    """Return what `pacman -T` misses if only `names` are installed."""
    local = tmp_path / "database" / "local"
    run("rm", "-rf", local)
    local.mkdir(parents=True)
    (local / "ALPM_DB_VERSION").write_text("9\n")
    for name in names:
        entry = f"{name}-{installed[name].version}"
        (local / entry).symlink_to(root / "var/lib/pacman/local" / entry)
    wanted = sorted({text for name in names for text in installed[name].depends})
    command = ["pacman", "--config", "/dev/null", "-b", str(local.parent), "-T", *wanted]
    done = subprocess.run(command, env=QUIET, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.stdout


def test_the_oracles_can_say_no(pacman_copy: Path, tmp_path: Path) -> None:
    """Protects the tests above from programs that are content with anything, and from easy worlds."""
    assert "tool is needed by app" in rpm_test({"app", "lib", "vim"}, tmp_path)
    missing = unsatisfied(pacman_copy, {"app", "lib", "vim"}, information(pacman_copy), tmp_path)
    assert missing == "tool\n"
    for family in ("rpm", "pacman"):
        made = world(family)
        assert len(made) >= 25
        assert sum("editor" in str(one.provides) for one in made) > 1
