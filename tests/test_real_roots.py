"""One table of cases for every backend, on roots that the distributions' own programs made."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pkgjail.api import resolve
from pkgjail.backends import available, open_database, version_order
from pkgjail.closure.search import resolve_closure
from pkgjail.core.errors import ClosureError, PolicyError
from pkgjail.core.families import family_of
from pkgjail.core.model import Policy
from pkgjail.core.text import text_path
from pkgjail.manifest import dump_manifest, parse_manifest
from pkgjail.policy import load_policy
from tests.real_roots import FAMILY_OF, the_root
from tests.real_world import world

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pkgjail.core.model import Manifest, PackageDatabase
    from tests.conftest import Caller

# Checks rules, not interpreters: the programs are the distribution's.
pytestmark = pytest.mark.gate

BACKENDS = sorted(FAMILY_OF)
every_backend = pytest.mark.parametrize("backend", BACKENDS)
KEYS = {"rpm": "rhel", "pacman": "arch", "apt": "debian", "dpkg": "debian"}


class Case(NamedTuple):
    """What a whitelist of `entries` brings (names), or what is said of it, on all backends or on `only`."""

    summary: str
    entries: str
    expected: str
    only: str = "apt dpkg pacman rpm"


# fmt: off
CASES = [
    Case("nothing else", "empty", "empty"),
    Case("its own requirement", "lib-devel", "lib lib-devel"),
    Case("virtual: what is in already answers", "app, vim", "app lib tool vim"),
    Case("virtual: the first by name", "app", "app lib nano tool"),
    Case("virtual: the first by name, not by name and architecture", "name-of-three", "namesake"),
    Case("virtual: with a version and without one", "wants-soname", "soname wants-soname"),
    Case("virtual: a package of that very name, though what it requires provides it", "wants-authorities",
         "authorities authorities-list authorities-tools wants-authorities"),
    Case("an entry's own package, though another that is in provides it", "authorities-tools, authorities",
         "authorities authorities-list authorities-tools"),
    Case("virtual: whoever is in, though not of that name", "wants-authorities, authorities-tools",
         "authorities-tools wants-authorities"),
    Case("virtual: whoever is in, in whatever order", "vim, app", "app lib tool vim"),
    Case("a provide's version is too old", "wants-new-editor", "vim wants-new-editor"),
    Case("a provide's version is too new", "wants-old-editor", "nano wants-old-editor"),
    Case("two requirements, one answer", "wants-both", "nano wants-both"),
    Case("a versioned provide", "tool", "lib tool"),
    Case("an epoch is before all else", "wants-epoch", "epochal wants-epoch"),
    Case("a cycle", "cycle-b", "cycle-a cycle-b cycle-c lib"),
    Case("oneself", "self", "self"),
    Case("provided by what has taken its place", "wants-replaced", "replacing wants-replaced"),
    Case("an odd name", "odd++name.2", "odd++name.2"),
    Case("a virtual entry", "application", "app lib nano tool"),
    Case("a meta package", "base", "base bash filesystem"),
    Case("Recommends are not followed", "recommending", "recommending"),
    Case("paths, or names for them", "shell-script", "bash filesystem lib shell-script tool"),
    Case("a version that is there", "lib >= 1:1.5", "lib", only="rpm"),
    Case("a version that is there", "lib>=1:1.5", "lib", only="pacman"),
    Case("a version that is there", "lib (>= 1:1.5)", "lib", only="apt dpkg"),
    Case("no release fits any", "lib = 1:1.5", "lib", only="rpm"),
    Case("no release fits any", "lib=1:1.5", "lib", only="pacman"),
    Case("no epoch is 0", "lib = 1.5-2", "!lib is installed as 1:1.5-2, and (= 1.5-2) is asked", only="rpm"),
    Case("no epoch is 0", "lib=1.5-2", "!lib is there as 1:1.5-2, and (=1.5-2) is asked", only="pacman"),
    Case("no epoch is 0", "lib (= 1.5-2)", "!lib is installed as 1:1.5-2, and (= 1.5-2) is asked",
         only="apt dpkg"),
    Case("a tilde is before the end", "tool < 0.9", "lib tool", only="rpm"),
    Case("a tilde only separates", "tool>0.9", "lib tool", only="pacman"),
    Case("provided without a version: fits all", "lib-anything > 99", "lib", only="rpm"),
    Case("provided without a version: fits none", "lib-anything>99",
         "!lib-anything is there as no version, and (>99) is asked", only="pacman"),
    Case("not there", "no-such", "!'no-such' is not installed"),
    Case("misspelt", "libb", "!did you mean 'lib'?"),
    Case("several at once", "no-such, nor-this", "!nor-this"),
    # alternatives: the first one that is installed, or can be
    Case("alternatives: the first", "nano | vim", "nano"),
    Case("alternatives: the first one that is there", "no-such | vim | nano", "vim"),
    Case("alternatives: a name that is provided", "no-such|application", "app lib nano tool"),
    Case("alternatives: none is there", "no-such | nor-this", "!'nor-this' is not installed"),
    Case("alternatives: nothing", "vim |", "!a package name is missing beside a '|' in 'vim |'"),
    Case("alternatives: a version", "tool > 9 | vim > 8", "vim", only="rpm"),
    Case("alternatives: a version", "tool>9 | vim>8", "vim", only="pacman"),
    Case("alternatives: a version", "tool (>> 9) | vim (>= 8)", "vim", only="apt dpkg"),
    Case("alternatives: an architecture", "lib.i686 | lib.x86_64", "lib", only="rpm"),
    Case("alternatives: a path", "/usr/bin/no | /usr/bin/vim", "vim", only="rpm"),
    Case("alternatives: a rich one", "(joe and nano) | vim", "!cannot stand beside '|'; write (a or b)",
         only="rpm"),
    Case("alternatives: a group", "set | vim", "!'set' is a group, which cannot stand beside '|'",
         only="pacman"),
    # rpm's own
    Case("an architecture", "lib.x86_64", "lib", only="rpm"),
    Case("an architecture that is not there", "lib.i686", "!'lib' is installed for x86_64", only="rpm"),
    Case("an architecture as rpm provides it", "lib(x86-64)", "lib", only="rpm"),
    Case("a dot in a name", "odd++name.2 > 0", "odd++name.2", only="rpm"),
    Case("a path", "/usr/bin/vim", "vim", only="rpm"),
    Case("a path through a link", "/bin/vim", "vim", only="rpm"),
    Case("a path of a link", "/bin", "filesystem", only="rpm"),
    Case("a path that is provided alone", "/bin/sh", "bash filesystem", only="rpm"),
    Case("an odd path", "/usr/share/odd/it's", "odd++name.2", only="rpm"),
    Case("a path that no list has", "/usr/bin/no", "!'/usr/bin/no' is not installed", only="rpm"),
    Case("if: not asked", "rich-if", "rich-if", only="rpm"),
    Case("if: asked", "rich-if, nano", "joe nano rich-if", only="rpm"),
    Case("if: asked later", "rich-if, wants-both", "joe nano rich-if wants-both", only="rpm"),
    Case("or: the first by preference", "rich-or", "epochal joe rich-or vim", only="rpm"),
    Case("or: what is in already", "rich-or, nano", "epochal nano rich-or vim", only="rpm"),
    Case("else, with, without", "rich-else", "lib nano rich-else vim", only="rpm"),
    Case("a rich entry", "(joe or nano)", "joe", only="rpm"),
    Case("a rich entry of several parts", "(joe and nano)", "joe nano", only="rpm"),
    Case("a rich entry with a condition", "(joe if vim), wants-new-editor", "joe vim wants-new-editor",
         only="rpm"),
    Case("a rich entry that nothing asks", "(no-such if never-there), joe", "joe", only="rpm"),
    Case("a rich entry that nothing answers", "(no-such or nor-this)", "!satisfies (no-such or nor-this)",
         only="rpm"),
    Case("a rich entry of mixed operators", "(a or b and c)", "!'and' cannot follow 'or'", only="rpm"),
    Case("a rich entry cut off", "(a or", "!a name is missing in '(a or'", only="rpm"),
    Case("a bad operator", "lib <> 3", "!'<>' is not one of", only="rpm"),
    Case("no version", "lib >=", "!a version is missing after '>='", only="rpm"),
    Case("two names", "lib app", "!'app' stands after a requirement", only="rpm"),
    Case("a group of dnf's", "@core", "!'@core' is a group of a repository's", only="rpm"),
    # pacman's own
    Case("a group", "set", "group-one group-two lib", only="pacman"),
    Case("a group with a version", "set>1", "!'set' is not installed", only="pacman"),
    Case("a bad entry", "a b", "!'a b' is not a package", only="pacman"),
]
# fmt: on


def rows() -> list[object]:
    """Each case with each of its backends."""
    return [
        pytest.param(backend, case, id=f"{backend}: {case.summary}: {case.entries}")
        for case in CASES
        for backend in case.only.split()
    ]


@pytest.fixture
def resolved(tmp_path: Path) -> Callable[..., str]:
    """Give the names of a whitelist's closure, or "!" and what is said of it."""

    def names(backend: str, entries: str, *, essential: bool = False, recommends: bool = False) -> str:
        database = open_database(os.fsencode(the_root(FAMILY_OF[backend])), backend)
        whitelist = tmp_path / "case.toml"
        asked = ", ".join(f'"{one.strip()}"' for one in entries.split(","))
        whitelist.write_text(f"[packages]\n{KEYS[backend]} = [{asked}]\n")
        try:
            policy = load_policy(
                [str(whitelist)], database=database, essential=essential, recommends=recommends
            )
            closure = resolve_closure(database, policy)
        except (PolicyError, ClosureError) as error:
            return f"!{error}"
        assert closure.unmet == ()
        return " ".join(sorted(package.name for package in closure.packages))

    return names


@pytest.mark.parametrize(("backend", "case"), rows())
def test_closure(backend: str, case: Case, resolved: Callable[..., str]) -> None:
    """Protects the closure and its messages, by every backend's own rules."""
    found = resolved(backend, case.entries)
    if case.expected.startswith("!"):
        assert found.startswith("!")
        assert case.expected[1:] in found
    else:
        assert found == case.expected


@every_backend
def test_essential(backend: str, resolved: Callable[..., str]) -> None:
    """Protects the base set: what no system is without comes unasked, and with it what it requires."""
    base = {"pacman": "base bash empty filesystem"}.get(backend, "bash empty filesystem")
    assert resolved(backend, "empty", essential=True) == base
    database = open_database(os.fsencode(the_root(FAMILY_OF[backend])), backend)
    closure = resolve_closure(database, Policy(whitelists=(), blacklists=(), packages=()))
    asked = {edge.text for edge in closure.dependencies if edge.source == "essential"}
    assert asked == ({"base set"} if backend in {"rpm", "pacman"} else {"Essential: yes"})


@every_backend
def test_recommends(backend: str, resolved: Callable[..., str]) -> None:
    """Protects `recommends`, where the family has such a thing."""
    expected = {"pacman": "recommending"}.get(backend, "empty recommending")
    assert resolved(backend, "recommending", recommends=True) == expected


@every_backend
def test_every_package_is_there(backend: str) -> None:
    """Protects against a package, or a field of one, that is lost on the way from the database."""
    root = the_root(FAMILY_OF[backend])
    database = open_database(os.fsencode(root), backend)
    expected = {made.name: made.version for made in world(FAMILY_OF[backend])}
    assert {package.name: package.version for package in database.packages.values()} == expected
    assert database.architecture == {"rpm": "x86_64", "pacman": "x86_64"}.get(backend, "amd64")
    assert database.family == KEYS[backend]
    assert database.backend == backend
    assert list(database.packages) == sorted(database.packages, key=lambda key: key.split(":"))
    assert {package.key for package in database.packages.values()} == set(database.packages)


def made_paths(backend: str, name: str) -> set[str]:
    """Return the paths of a package in the made-up world, without those that a jail makes itself."""
    made = {one.name: one for one in world(FAMILY_OF[backend])}[name]
    ghosts = {"/var/log/absent.log", "/usr/bin/prog"}
    return {file.path for file in made.files} - ghosts - {"/etc/passwd"}


def owned(database: PackageDatabase, name: str) -> set[str]:
    """The paths of a package of the database."""
    (package,) = (one for one in database.packages.values() if one.name == name)
    return set(map(text_path, database.owned_paths(package)))


@every_backend
def test_owned_paths(backend: str) -> None:
    """Protects every name of every package, odd ones too, and which of them are configuration."""
    family = FAMILY_OF[backend]
    database = open_database(os.fsencode(the_root(family)), backend)
    for made in world(family):
        found = owned(database, made.name)
        assert found >= made_paths(backend, made.name)
        # pacman and dpkg list the directories above too, rpm what its package says.
        extra = {path for path in found - made_paths(backend, made.name) if path != "/"}
        assert all(any(file.path.startswith(f"{path}/") for file in made.files) for path in extra), extra
        package = next(one for one in database.packages.values() if one.name == made.name)
        config = {file.path for file in made.files if file.kind == "config"} - {"/etc/passwd"}
        assert set(map(text_path, database.conffiles(package))) - {"/etc/passwd"} == config


@every_backend
def test_owners(backend: str) -> None:
    """Protects a path from being called nobody's, or somebody's who has not brought it."""
    database = open_database(os.fsencode(the_root(FAMILY_OF[backend])), backend)
    architecture = database.architecture
    asked = [b"/usr/bin/app", b"/usr/share/odd/it's", b"/usr/share/shared", b"/no", b"/usr/share/odd/"]
    assert database.owners(asked) == {
        b"/usr/bin/app": f"app:{architecture}",
        b"/usr/share/odd/it's": f"odd++name.2:{architecture}",
        b"/usr/share/shared": f"shared-a:{architecture}",
    }
    assert database.owners([]) == {}


@every_backend
def test_owners_of_a_pattern(backend: str, tmp_path: Path) -> None:
    """Protects `[files] owners`: the package is found by its file, whatever it is called, with its reason."""
    (tmp_path / "list.toml").write_text('[files]\nowners = ["/usr/lib/lib.so*", "/usr/bin/no-such*"]\n')
    manifest = resolve(
        [str(tmp_path / "list.toml")],
        root=os.fsencode(the_root(FAMILY_OF[backend])),
        backend=backend,
        essential=False,
    )
    edges = [(edge.source, edge.text) for edge in manifest.dependencies if edge.target.startswith("lib:")]
    assert edges == [("list.toml:2", "/usr/lib/lib.so*")]
    owned = {entry.path: entry.owners for entry in manifest.files}
    assert [key.partition(":")[0] for key in owned[b"/usr/lib/lib.so.1"]] == ["lib"]


def manifest_of(backend: str, tmp_path: Path, *names: str) -> Manifest:
    """The manifest of a whitelist with these names, and the base set."""
    whitelist = tmp_path / "list.toml"
    whitelist.write_text(f"[packages]\n{KEYS[backend]} = {list(names)}\n")
    return resolve([str(whitelist)], root=os.fsencode(the_root(FAMILY_OF[backend])), backend=backend)


@every_backend
def test_files_through_merged_directories(backend: str, tmp_path: Path) -> None:
    """Protects usr-merge: the root's link is in, and what is below it stands at its real place."""
    files = {entry.path: entry for entry in manifest_of(backend, tmp_path, "bash").files}
    assert files[b"/bin"].target == b"usr/bin"
    assert b"/usr/bin/sh" in files
    assert not any(path.startswith(b"/bin/") for path in files)
    passwd = files[b"/etc/passwd"]
    assert (passwd.origin, passwd.sha256) == ("entry", None)


@pytest.mark.parametrize("backend", [one for one in BACKENDS if one != "pacman"])
@pytest.mark.parametrize(
    ("names", "target"),
    [
        pytest.param(("prog-one", "prog-two"), b"/usr/bin/prog.two", id="the host's choice"),
        pytest.param(("prog-one",), b"/usr/bin/prog.one", id="the host's choice is not in"),
        pytest.param(("bash",), None, id="no candidate is in"),
    ],
)
def test_alternatives(backend: str, names: tuple[str, ...], target: bytes | None, tmp_path: Path) -> None:
    """Protects the commands that no package owns, with dpkg's records and with Red Hat's."""
    files = {entry.path: entry for entry in manifest_of(backend, tmp_path, *names).files}
    found = files.get(b"/etc/alternatives/prog")
    assert (found.target if found else None) == target
    assert (b"/usr/bin/prog" in files) == (target is not None)
    if found:
        assert files[b"/usr/bin/prog"].origin == "alternative"


@pytest.mark.parametrize("backend", ["rpm", "pacman", "dpkg"])
def test_a_jail_of_such_a_root(backend: str, anyone: Caller) -> None:
    """Protects what it is all for: a command runs in the root's own files, and sees those alone."""
    root = the_root(FAMILY_OF[backend])
    entries = ["bash", "app", "odd++name.2", "prog-one", "shared-a"]
    (anyone.home / "list.toml").write_text(f"[packages]\n{KEYS[backend]} = {entries}\n")
    made = anyone.pkgjail(
        "resolve", "./list.toml", "--root", root, "--backend", backend, "-o", "m.jsonl"
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    look = 'cat /usr/lib/os-release; cat "/usr/share/odd/two words"; find / -xdev'
    for plan in ("binds", "auto"):
        ran = anyone.pkgjail("run", "--root", root, "--strategy", plan, "m.jsonl", "--", "sh", "-c", look)
        assert ran.returncode == 0, ran.stderr
        said = ran.stdout.splitlines()
        assert said[0] == f"ID={ {'rpm': 'fedora', 'pacman': 'arch'}.get(backend, 'debian') }"
        assert "odd++name.2 /usr/share/odd/two words" in said
        listed = (anyone.home / "m.jsonl").read_text(encoding="utf-8")
        paths = set(re.findall(r'"kind":"file",.*?"path":"((?:[^"\\]|\\.)*)"', listed))
        expected = {path.replace("\\\\", "\\").replace('\\"', '"') for path in paths}
        found = {line for line in said if line.startswith("/")}
        own = ("/dev", "/proc", "/sys", "/tmp")
        assert {path for path in found if not path.startswith(own)} == {
            path for path in expected if not path.startswith(own)
        }


@pytest.mark.parametrize("backend", ["rpm", "pacman"])
def test_any_user_and_any_locale_resolve_to_the_same(backend: str, anyone: Caller, tmp_path: Path) -> None:
    """Protects the manifest's bytes from who resolves, and in which language."""
    root = the_root(FAMILY_OF[backend])
    (anyone.home / "list.toml").write_text(f'[packages]\n{KEYS[backend]} = ["app", "odd++name.2"]\n')
    digests = set()
    for language in ("C", "de_DE.UTF-8", "tr_TR.ISO-8859-9"):
        made = anyone.pkgjail(
            "resolve", "./list.toml", "--root", root, "-o", "m.jsonl",
            environment={"LC_ALL": language, "LANGUAGE": "de", "RPM_CONFIGDIR": str(tmp_path)},
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        digests.add((anyone.home / "m.jsonl").read_bytes())
    assert len(digests) == 1


@every_backend
def test_auto_goes_by_the_database(backend: str) -> None:
    """Protects `auto`: of all programs that are in PATH here, the one of the root's database serves."""
    root = os.fsencode(the_root(FAMILY_OF[backend]))
    expected = {"dpkg": "apt"}.get(backend, backend)
    assert open_database(root).backend == expected
    assert available(root)[0].name == expected
    assert available(root)[0].usable


DATABASES = {
    "rpm": "var/lib/rpm", "pacman": "var/lib/pacman", "apt": "var/lib/dpkg", "dpkg": "var/lib/dpkg",
}  # fmt: skip


# Each row: os-release, the backend, the family of the database, and the family as the manifest has it.
FAMILIES = [
    ('ID="sles"', "rpm", "suse", ""),
    ('ID="rocky"', "rpm", "rhel", ""),
    ("ID=novel", "rpm", "rhel", "rhel"),
    ('ID=novel\nID_LIKE="mystery opensuse"', "rpm", "suse", "suse"),
    ("ID=debian", "rpm", "rhel", "rhel"),
    ("ID=cachyos\nID_LIKE=arch", "pacman", "arch", ""),
    ("ID=manjaro-arm", "pacman", "arch", ""),
    ("ID=novel", "pacman", "arch", "arch"),
    ("ID=novel", "dpkg", "debian", ""),
    ("ID=novel", "apt", "debian", ""),
    ("ID=fedora", "dpkg", "debian", "debian"),
]


@pytest.mark.parametrize(("lines", "backend", "family", "written"), FAMILIES, ids=repr)
def test_the_family_is_that_of_the_database(
    lines: str, backend: str, family: str, written: str, tmp_path: Path
) -> None:
    """Protects the key of whitelists, the order of versions and URLs from a name that nobody knows."""
    place = tmp_path / "root"
    shutil.copytree(the_root(FAMILY_OF[backend]) / DATABASES[backend], place / DATABASES[backend])
    (place / "etc").mkdir()
    (place / "etc/os-release").write_text(f"{lines}\n")
    whitelist = tmp_path / "list.toml"
    whitelist.write_text(f'[packages]\n{family} = ["empty"]\n')
    manifest = resolve([str(whitelist)], root=os.fsencode(place), backend=backend, essential=False)
    assert family_of(manifest.header.distribution) == family
    assert manifest.header.distribution.family == written
    assert (manifest.header.source, manifest.header.schema) == ("directory", 3)
    assert parse_manifest(dump_manifest(manifest), "m") == manifest
    order = version_order(manifest.header.distribution)
    assert order is not None
    # A tilde is before the end for deb and rpm, and only separates for pacman.
    assert (order("1~a-1", "1-1") < 0) == (family != "arch")


@pytest.mark.parametrize("alias", ["dnf", "yum", "zypper"])
def test_aliases(alias: str) -> None:
    """Protects the names that people know their package manager by."""
    assert open_database(os.fsencode(the_root("rpm")), alias).backend == "rpm"
