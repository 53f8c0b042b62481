"""The closure of random whitelists of this host, against a walk of python-apt's own objects.

The walk shares no code with the package: who satisfies what is libapt-pkg's answer, which packages
are essential is read from the status file, and which of several providers is taken is written
here once more, the plain and slow way.
"""

from __future__ import annotations

import random
import re
import tempfile
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pkgjail.backends import open_database
from pkgjail.closure.search import resolve_closure
from pkgjail.policy import load_policy

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pkgjail.core.model import PackageDatabase

# Checks rules, not interpreters, and needs the distribution's own Python.
pytestmark = pytest.mark.gate

STATUS = Path("/var/lib/dpkg/status")
# Debian policy, 5.6.1. apt makes up others: `$kernel`, which every installed kernel provides.
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
WHITELISTS = 200
SEED = 2


class Requirement(NamedTuple):
    """Somebody asks for one of `answers`, the preferred one first. They are sorted by their text."""

    text: str
    architecture: str
    source: str
    kind: str
    answers: tuple[str, ...]


class Oracle:
    """The installed packages as libapt-pkg knows them, by `name:architecture`."""

    def __init__(self, apt_pkg: Any, cache: Any, status: Path = STATUS) -> None:
        versions = [package.current_ver for package in cache.packages if package.current_ver]
        self.essential = set(_essential(status))
        self.requirements = {
            _key(version): tuple(_requirements(version, recommends=False)) for version in versions
        }
        self.recommendations = {
            _key(version): tuple(_requirements(version, recommends=True)) for version in versions
        }
        self._cache = cache
        self._native: str = apt_pkg.get_architectures()[0]
        names = sorted({package.name for package in cache.packages if NAME.fullmatch(package.name)})
        self.contested = [name for name in names if len(self._whitelisted(name).answers) > 1]

    def closure(self, names: Collection[str], *, recommends: bool, essential: bool) -> set[str]:
        """The keys of what `names` ask for.

        One requirement that needs a choice is decided at a time, the first by its text, and not
        before all that needs none has been taken in.
        """
        asked = [self._whitelisted(name) for name in names]
        requirements = self.recommendations if recommends else self.requirements
        inside = set(self.essential) if essential else set()
        decided: dict[Requirement, str] = {}
        while True:
            pending = {*asked, *(one for key in inside for one in requirements[key])}
            pending = {one for one in pending if one.source not in one.answers and one not in decided}
            plain = [one for one in pending if len(one.answers) == 1]
            for one in plain or sorted(pending)[:1]:
                decided[one] = next((key for key in one.answers if key in inside), one.answers[0])
            if not pending:
                return inside
            inside.update(decided.values())

    def _whitelisted(self, name: str) -> Requirement:
        package = self._cache[name]
        named = [package.current_ver] if package.current_ver else []
        provided = [version for _, _, version in package.provides_list if _is_installed(version)]
        # An entry that names a package is about that one.
        answers = tuple(map(_key, named)) or tuple(sorted(map(_key, provided), key=_by_name))
        return Requirement(name, self._native, "whitelist", "whitelist", tuple(dict.fromkeys(answers)))


def _key(version: Any) -> str:
    return f"{version.parent_pkg.name}:{version.arch}"


def _by_name(key: str) -> list[str]:
    """Name and architecture: of two keys, the one that begins with the other's name comes second."""
    return key.split(":")


def _is_installed(version: Any) -> bool:
    current = version.parent_pkg.current_ver
    return current is not None and current.id == version.id


def _requirements(version: Any, *, recommends: bool) -> Iterator[Requirement]:
    """Yield an installed version's requirements and what satisfies them, of an or-group the first."""
    for kind in ("PreDepends", "Depends", *(["Recommends"] if recommends else [])):
        for group in version.depends_list.get(kind, ()):
            text = " | ".join(map(_text, group))
            satisfied = filter(None, (_answers(one) for one in group))
            answers = next(satisfied, ())
            if answers or kind != "Recommends":
                yield Requirement(text, version.arch, _key(version), kind.replace("Pre", "Pre-"), answers)


def _text(dependency: Any) -> str:
    """The dependency as dpkg-gencontrol writes it."""
    limit = f" ({dependency.comp_type_deb} {dependency.target_ver})" if dependency.target_ver else ""
    return f"{dependency.target_pkg.name}{limit}"


def _answers(dependency: Any) -> tuple[str, ...]:
    """Return what satisfies it: the package of that name, then those that provide it, by name."""
    name = dependency.target_pkg.name.partition(":")[0]
    found = {_key(version) for version in dependency.all_targets() if _is_installed(version)}
    return tuple(sorted(found, key=lambda key: (key.partition(":")[0] != name, _by_name(key))))


def _essential(status: Path) -> Iterator[str]:
    """By the status file: libapt-pkg counts `apt` too."""
    for stanza in status.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Architecture|Status|Essential): (.*)$", stanza, re.MULTILINE))
        if fields.get("Essential") == "yes" and fields["Status"].endswith(" ok installed"):
            yield f"{fields['Package']}:{fields['Architecture']}"


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """The installed packages of this host."""
    with opened(STATUS) as found:
        yield found


@contextmanager
def opened(status: Path) -> Iterator[Oracle]:
    """Apt's cache of the installed state alone: its package lists are left out, nothing is written."""
    apt_pkg = import_module("apt_pkg")
    apt_pkg.init_config()
    with tempfile.TemporaryDirectory() as empty:
        for name, value in {
            "Dir::State::status": str(status),
            "Dir::State::lists": empty,
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": empty,
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
        }.items():
            apt_pkg.config.set(name, value)
        apt_pkg.init_system()
        yield Oracle(apt_pkg, apt_pkg.Cache(None), status)


@pytest.fixture(scope="module")
def host() -> PackageDatabase:
    """Open this host's database by the preferred backend."""
    return open_database()


@pytest.mark.parametrize("number", range(WHITELISTS))
def test_a_random_closure_is_what_apt_says(
    number: int, oracle: Oracle, host: PackageDatabase, tmp_path: Path
) -> None:
    """Protects the closure: of no whitelist is a package too many or too few."""
    chance = random.Random(f"{SEED}.{number}")  # noqa: S311 - to be the same each time
    names = sorted({package.name for package in host.packages.values()})
    chosen = chance.sample(names, chance.randint(1, 6))
    recommends, essential = chance.random() < 1 / 4, chance.random() < 1 / 2
    # Of itself a whitelist of installed packages rarely leaves a choice.
    chosen += chance.sample(oracle.contested, chance.randint(0, min(2, len(oracle.contested))))
    path = tmp_path / "random.toml"
    path.write_text(f"[packages]\ndebian = {chosen}\n")
    policy = load_policy([str(path)], database=host, recommends=recommends, essential=essential)
    closure = resolve_closure(host, policy)
    found = {package.key for package in closure.packages}
    expected = oracle.closure(chosen, recommends=recommends, essential=essential)
    assert (sorted(found - expected), sorted(expected - found)) == ([], [])
    assert closure.unmet == ()


def test_the_oracle_sees_what_the_database_sees(oracle: Oracle, host: PackageDatabase) -> None:
    """Protects the test above from an oracle that is empty, and from whitelists without a choice."""
    assert set(oracle.requirements) == set(host.packages)
    assert oracle.essential == {key for key, package in host.packages.items() if package.essential}
    assert oracle.contested


KERNELS = """
Package: linux-image-6.1.0-1-amd64
Status: install ok installed
Architecture: amd64
Version: 6.1.1-1
Provides: kernel

Package: linux-image-6.1.0-2-amd64
Status: install ok installed
Architecture: amd64
Version: 6.1.2-1
Provides: kernel

"""


def test_names_that_apt_makes_up_are_nobodys(tmp_path: Path) -> None:
    """Protects whitelists from `$kernel`, which apt has on a host with kernels and no list may name."""
    status = tmp_path / "status"
    status.write_text(KERNELS.lstrip())
    with opened(status) as found:
        assert found.contested == ["kernel"]
