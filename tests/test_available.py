"""Plans from repositories' metadata: `pkgjail resolve --available`.

What would be installed is held against the closures of roots where the same packages are installed, by
the table that all backends share, and against what apt, rpm and pacman would install.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pkgjail.api import plan_packages
from pkgjail.backends import open_database
from pkgjail.cli.main import VERBS, main
from pkgjail.closure.search import resolve_closure
from pkgjail.core.errors import ClosureError, DatabaseError, PolicyError
from pkgjail.policy import load_policy
from pkgjail.repositories.plan_file import dump_plan
from tests.conftest import SYSTEM_PYTHON, TOP
from tests.real_roots import AS_ROOT, QUIET, RPM, make_only, pacman_command, run, the_root
from tests.real_world import File, Made, world
from tests.repositories import SOURCES, apt, index, repository, source
from tests.test_real_closure_oracle import random_whitelist
from tests.test_real_roots import CASES, Case

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from pkgjail.core.model import PackagePlan

# python3-solv is the distribution's own Python's, and what is checked are rules.
pytestmark = pytest.mark.gate

FAMILIES = sorted(SOURCES)
every_family = pytest.mark.parametrize("family", FAMILIES)
BACKENDS = {"deb": "dpkg", "rpm": "rpm", "pacman": "pacman"}
WHITELISTS, BATCH = 200, 20


def plan(  # noqa: PLR0913 - the first two say what
    family: str,
    entries: Collection[str],
    tmp_path: Path,
    *,
    place: Path | None = None,
    essential: bool = False,
    recommends: bool = False,
    contents: bool = False,
) -> PackagePlan:
    """Return the plan of a whitelist of `entries`."""
    whitelist = tmp_path / "case.toml"
    whitelist.write_text(f"[packages]\n{SOURCES[family]} = {list(entries)}\n")
    return plan_packages(
        [str(whitelist)],
        sources=[source(family, place)],
        architecture="x86_64",
        essential=essential,
        recommends=recommends,
        contents=contents,
    )


def names(planned: PackagePlan) -> str:
    """Return the names of a plan's packages."""
    return " ".join(sorted(one.package.name for one in planned.packages))


# What metadata cannot say (where links lead), and where libsolv is not pacman: see docs/package-plans.md.
OTHERWISE = {"a path through a link": "!", "a tilde only separates": "!"}


def rows() -> list[object]:
    """Each case of the shared table with each family that it is for."""
    return [
        pytest.param(
            family,
            case._replace(expected=OTHERWISE.get(case.summary, case.expected)),
            id=f"{family}: {case.summary}: {case.entries}",
        )
        for case in CASES
        for family, backend in BACKENDS.items()
        if backend in case.only.split()
    ]


@pytest.mark.parametrize(("family", "case"), rows())
def test_the_plan_is_the_closure(family: str, case: Case, tmp_path: Path) -> None:
    """Protects that a plan is what the closure will be, by the table that holds for installed packages."""
    entries = [one.strip() for one in case.entries.split(",")]
    if not case.expected.startswith("!"):
        planned = plan(family, entries, tmp_path)
        assert names(planned) == case.expected
        assert set(planned.reasons) == {one.package.key for one in planned.packages}
        return
    with pytest.raises((PolicyError, ClosureError)) as caught:
        plan(family, entries, tmp_path)
    assert all(problem.origin == "case.toml:2" for problem in caught.value.problems)


@every_family
def test_base_set(family: str, tmp_path: Path) -> None:
    """Protects the base set: it is included by default, with its requirements."""
    planned = plan(family, ["empty"], tmp_path, essential=True)
    assert names(planned) == {"pacman": "base bash empty filesystem"}.get(family, "bash empty filesystem")
    marked = {one.package.name for one in planned.packages if one.package.essential}
    assert marked == ({"base"} if family == "pacman" else {"bash", "filesystem"})
    assert {edge.kind for edge in planned.dependencies if edge.source == "essential"} == {"essential"}


@every_family
def test_recommends(family: str, tmp_path: Path) -> None:
    """Protects `recommends` in families that have it."""
    planned = plan(family, ["recommending"], tmp_path, recommends=True)
    assert names(planned) == ("recommending" if family == "pacman" else "empty recommending")
    assert set(planned.reasons) == {one.package.key for one in planned.packages}


@every_family
def test_what_is_said_of_a_package(family: str, tmp_path: Path) -> None:
    """Protects each field of a plan against the packages' own files."""
    planned = plan(family, ["app", "lib", "odd++name.2"], tmp_path)
    made = {one.name: one for one in world(family)}
    files = {"deb": "{}.deb", "rpm": "{}.rpm", "pacman": "{}-[0-9]*.pkg.tar.zst"}[family]
    database = open_database(os.fsencode(the_root(family)), BACKENDS[family])
    for one in planned.packages:
        package = one.package
        assert package.version == made[package.name].version
        (file,) = repository(family).glob(files.format(package.name))
        assert one.download == file.stat().st_size
        installed = database.packages[package.key]
        assert (package.architecture, package.size) == (installed.architecture, installed.size)
        assert one.files is None


@pytest.mark.parametrize("family", ["rpm", "pacman"])
def test_contents(family: str, tmp_path: Path) -> None:
    """Protects the names of files: those that the installed package lists, ghosts and all."""
    # repo-add has bsdtar list the files, which writes odd names in its own way.
    asked = ["app", "ghostly", "bash", *(["odd++name.2"] if family == "rpm" else [])]
    planned = plan(family, asked, tmp_path, contents=True)
    for one in planned.packages:
        command = (
            [*AS_ROOT, *RPM, "--root", the_root(family), "-ql", one.package.name]
            if family == "rpm"
            else pacman_command(the_root(family), "-Qlq", one.package.name)
        )
        listed = run(*command).splitlines()
        prefix = str(the_root(family)) if family == "pacman" else ""
        expected = {line.removeprefix(prefix).rstrip("/") for line in listed if line.startswith("/")}
        assert {os.fsdecode(path) for path in one.files or ()} == expected, one.package.name


def test_contents_of_debian(tmp_path: Path) -> None:
    """Protects the names in Contents, which has several packages in a line, and names with white space."""
    (tmp_path / "Packages").write_bytes((repository("deb") / "Packages").read_bytes())
    lines = (
        "etc/app.conf   misc/app\nusr/share/odd/two words\tmisc/odd++name.2,app\nusr/bin/vim  editors/vim\n"
    )
    (tmp_path / "Contents-amd64.gz").write_bytes(gzip.compress(lines.encode()))
    planned = plan("deb", ["app", "empty"], tmp_path, place=tmp_path, contents=True)
    found = {one.package.name: one.files for one in planned.packages}
    assert found["app"] == (b"/etc/app.conf", b"/usr/share/odd/two words")
    assert found["empty"] == ()


def test_blacklists_take_names_away(tmp_path: Path) -> None:
    """Protects the file names of a plan from paths that a jail would not have."""
    (tmp_path / "my.ignore").write_text("/usr/share/app/\n")
    whitelist = tmp_path / "w.toml"
    whitelist.write_text('packages.arch = ["app"]\noptions.blacklists = ["my.ignore"]\n')
    planned = plan_packages(
        [str(whitelist)], sources=[source("pacman")], architecture="x86_64", essential=False, contents=True
    )
    paths = {path for one in planned.packages for path in one.files or ()}
    assert b"/usr/bin/app" in paths
    assert not {path for path in paths if path.startswith(b"/usr/share/app/")}
    assert planned.dropped == 1


# --- oracles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", range(WHITELISTS // BATCH))
@every_family
def test_random_whitelists(family: str, batch: int, tmp_path: Path) -> None:
    """Protects the plan: it is the closure of a root that has all packages, and can be installed."""
    database = open_database(os.fsencode(the_root(family)), BACKENDS[family])
    known = sorted(one.name for one in database.packages.values())
    check = {"rpm": refused_by_rpm, "pacman": refused_by_pacman, "deb": refused_by_apt}[family]
    for number in range(batch * BATCH, (batch + 1) * BATCH):
        chosen = random_whitelist(number, known, ["editor", "libapi"])
        planned = names(plan(family, chosen, tmp_path))
        policy = load_policy([str(tmp_path / "case.toml")], database=database, essential=False)
        closure = resolve_closure(database, policy)
        assert planned.split() == sorted(one.name for one in closure.packages), chosen
        if number % BATCH < 3:
            assert check(planned.split(), tmp_path) == "", chosen


def refused_by_rpm(chosen: Collection[str], tmp_path: Path) -> str:
    """Return rpm's objections to installing these packages on an empty system."""
    files = [repository("rpm") / f"{name}.rpm" for name in chosen]
    command = [*AS_ROOT, *RPM, "--dbpath", tmp_path / "none", "--nosignature", "-U", "--test", *files]
    done = subprocess.run(command, env=QUIET, capture_output=True, text=True, check=False)
    return done.stderr.partition("error:")[2]


def refused_by_pacman(chosen: Collection[str], tmp_path: Path) -> str:
    """Return the difference between pacman's choice and these packages, if it is given their names."""
    place = tmp_path / "pacman"
    (place / "root/var/lib/pacman").mkdir(parents=True, exist_ok=True)
    (place / "pacman.conf").write_text(
        f"[options]\nArchitecture = x86_64\nSigLevel = Never\n[made]\nServer = file://{repository('pacman')}\n"
    )
    for words in (["-Sy"], ["-Sp", "--print-format", "%n", *chosen]):
        said = run(*AS_ROOT, *pacman_command(place / "root", *words))
    return " ".join(sorted(set(said.split()) ^ set(chosen)))


def refused_by_apt(chosen: Collection[str], tmp_path: Path) -> str:
    """Return the difference between apt's choice and these packages, if it is given their names."""
    lists = [f"deb [trusted=yes] file:{repository('deb')} ./"]
    said = apt(tmp_path / "apt", "--no-install-recommends", "install", *chosen, lists=lists)
    return " ".join(
        sorted({line.split()[1] for line in said.splitlines() if line[:5] == "Inst "} ^ set(chosen))
    )


def test_the_oracles_can_say_no(tmp_path: Path) -> None:
    """Protects the test above from programs that accept anything."""
    assert "tool is needed by app" in refused_by_rpm(["app", "lib", "vim"], tmp_path)
    assert refused_by_pacman(["app", "lib", "vim"], tmp_path) == "tool"
    assert refused_by_apt(["app", "lib", "vim"], tmp_path) == "tool"


@pytest.mark.parametrize("whitelist", ["base", "build", "spack"])
def test_debian_itself(whitelist: str, tmp_path: Path) -> None:
    """Protects plans of all of Debian against apt's, by the lists that apt has here."""
    planned = plan_packages([whitelist], sources=["debian:/var/lib/apt/lists"], architecture="amd64")
    own = {one.package.key for one in planned.packages}
    asked = {edge.text.split(" | ")[0] for edge in planned.dependencies if edge.source not in own}
    # apt wants a package for a virtual name; it takes one whose priority is required, as we do.
    asked = {"mawk" if name == "awk" else name for name in asked}
    said = apt(tmp_path / "apt", "--no-install-recommends", "install", *sorted(asked))
    theirs = {
        line.split()[1]: line.split()[2].strip("(") for line in said.splitlines() if line[:5] == "Inst "
    }
    ours = {one.package.name: one.package.version for one in planned.packages}
    assert ours == theirs


# --- plans as files -----------------------------------------------------------------------------


@every_family
def test_the_same_bytes(family: str, tmp_path: Path) -> None:
    """Protects a plan's bytes from the order of a whitelist's lines and from where anything lies."""
    one = dump_plan(plan(family, ["app", "vim", "editor"], tmp_path))
    other_place = tmp_path / "elsewhere" / repository(family).name
    other_place.parent.mkdir()
    run("cp", "-r", repository(family), other_place)
    (tmp_path / "other").mkdir()
    assert dump_plan(plan(family, ["app", "vim", "editor"], tmp_path / "other", place=other_place)) == one
    shuffled = plan(family, ["editor", "vim", "app"], tmp_path)
    assert [each.package for each in shuffled.packages] == [
        each.package for each in plan(family, ["app", "vim", "editor"], tmp_path).packages
    ]


READERS = [
    ["run", "P", "--", "true"], ["shell", "P"], ["show", "P"], ["why", "P", "app"], ["diff", "P", "P"],
    ["graph", "P"], ["check", "P"], ["verify", "P"], ["report", "P", "-o", "page.html"], ["mounts", "P"],
    ["build", "P", "env"], ["learn", "--manifest", "P", "--", "true"],
    ["browse", "P"], ["minimise", "P", "--output", ".", "--", "true"], ["export", "P", "--format", "mtree"],
]  # fmt: skip


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    """Return a plan that the command wrote."""
    (tmp_path / "w.toml").write_text('packages.arch = ["app"]\n')
    path = tmp_path / "plan.jsonl"
    words = ["resolve", str(tmp_path / "w.toml"), "--available", source("pacman"), "--arch", "x86_64"]
    assert main([*words, "-o", str(path)]) == 0
    return path


@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
def test_a_plan_is_no_manifest(
    words: list[str], plan_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Protects readers of manifests from packages that are not installed."""
    monkeypatch.chdir(plan_file.parent)
    status = main([str(plan_file) if word == "P" else word for word in words])
    assert status == (125 if words[0] in {"run", "shell"} else 2)
    assert "plan.jsonl:1: this is a package plan" in capfd.readouterr().err
    assert sorted(path.name for path in plan_file.parent.iterdir()) == ["plan.jsonl", "w.toml"]


def test_every_reader_is_tried() -> None:
    """Protects the test above from new verbs that read manifests."""
    others = {
        "init",
        "lock",
        "resolve",
        "audit",
        "enter",
        "remove",
        "doctor",
        "stages",
        "backends",
        "image",
        "cache",
        "completion",
        "man",
        "help",
    }
    assert {words[0] for words in READERS} == set(VERBS) - others


def test_the_command(plan_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Protects what is printed: a table or JSON with every package and why, or a summary of a file."""
    words = ["resolve", str(plan_file.parent / "w.toml"), "--available", source("pacman"), "--arch", "x86_64"]
    assert main([*words, "-o", str(plan_file)]) == 0
    written = capfd.readouterr().out
    assert "planned: 7 packages" in written
    assert "no jail can be made from it" in written
    kinds = [json.loads(line)["kind"] for line in plan_file.read_text().splitlines()]
    assert (kinds[0], kinds[-1], kinds.count("planned")) == ("plan", "end", 7)
    assert main(words) == 0
    table = capfd.readouterr().out
    assert all(word in table for word in ("app:x86_64", "2:1.0-1", "w.toml:1", "no jail can be made from it"))
    assert main([*words, "--contents"]) == 0
    assert "app:x86_64 /usr/bin/app\n" in capfd.readouterr().out
    assert main([*words, "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert (said["kind"], said["summary"]["planned"], len(said["packages"])) == ("plan", True, 7)
    assert {one["name"]: one["because"] for one in said["packages"]}["app"] == "w.toml:1"
    assert main([*words, "--json", "-o", str(plan_file)]) == 0
    assert json.loads(capfd.readouterr().out)["packages"] == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--contents"], "--contents applies to package plans"),
        (["--arch", "arm64"], "--arch applies to package plans"),
        (["--available", "arch:x", "--root", "/tmp"], "--root applies to installed packages"),
        (
            ["--available", "arch:x", "--allow-unmet", "--no-hash"],
            "--allow-unmet applies to installed packages",
        ),
    ],
    ids=str,
)
def test_half_a_plan(words: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Protects from options without effect."""
    assert main(["resolve", "base", *words]) == 2
    assert said in capfd.readouterr().err


# --- what cannot be ------------------------------------------------------------------------------


def write(place: Path, name: str, text: str | bytes) -> Path:
    """Write a file and the directories above it."""
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


SOUND = "Package: a\nVersion: 1\nArchitecture: all\n\n"
STANZA = "Package: {}\nVersion: 1\nArchitecture: amd64\n{}\n"


def test_a_name_of_a_list_is_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Protects the terminal from control characters."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[red]\x1b.toml").write_text("[packages]\narch = []\n")
    words = ["--available", source("pacman"), "--arch", "x86_64"]
    assert main(["resolve", "./[red]\x1b.toml", *words]) == 0
    captured = capfd.readouterr()
    told = captured.out + captured.err
    assert "[red]\\x1b.toml" in told
    assert "\x1b" not in told


def test_conflicts_are_told_with_their_lines(tmp_path: Path) -> None:
    """Protects that every conflict is reported with the lines that lead to it."""
    stanzas = [("a", "Conflicts: b\n"), ("b", ""), ("c", "Depends: gone (>= 2)\n"), ("d", "Depends: c\n")]
    write(tmp_path, "Packages", "".join(STANZA.format(*one) for one in stanzas))
    write(tmp_path, "w.toml", '[packages]\ndebian = ["a",\n"b",\n"d"]\n')
    with pytest.raises(ClosureError) as caught:
        plan_packages([str(tmp_path / "w.toml")], sources=[f"debian:{tmp_path}"], architecture="amd64")
    first, second = caught.value.problems
    assert first.origin == "w.toml:2"
    assert "a-1.amd64 conflicts with b provided by b-1.amd64" in first.message
    assert "also required by w.toml:3" in first.message
    assert second.origin == "w.toml:4"
    assert "nothing provides gone >= 2 needed by c-1.amd64" in second.message
    assert "pkgjail:" not in str(caught.value)


def test_the_first_that_can_be_installed(tmp_path: Path) -> None:
    """Protects or-groups and providers: order and names decide, unless that cannot be installed."""
    stanzas = [
        ("app", "Depends: zz | aa, virtual, x | y\n"), ("aa", ""), ("zz", ""), ("va", "Provides: virtual\n"),
        ("virtual", ""), ("x", "Conflicts: app\n"), ("y", ""), ("taker", "Provides: aa\nReplaces: aa\n"),
        ("wants", "Depends: aa\n"),
    ]  # fmt: skip
    write(tmp_path, "Packages", "".join(STANZA.format(*one) for one in stanzas))
    assert names(plan("deb", ["app"], tmp_path, place=tmp_path)) == "app virtual y zz"
    assert names(plan("deb", ["app", "va"], tmp_path, place=tmp_path)) == "app va y zz"
    assert names(plan("deb", ["wants"], tmp_path, place=tmp_path)) == "aa wants"


def test_a_path_that_primary_does_not_list(tmp_path: Path) -> None:
    """Protects file requirements of rpm, the answers of which may be in another repository's file lists."""
    made = {
        "one": Made("asker", "1-1", (), requires=("/usr/share/data/file",)),
        "two": Made("giver", "1-1", (File("/usr/share/data/file", "file", 0o644),)),
    }
    for place, package in made.items():
        (tmp_path / place).mkdir()
        make_only("rpm", [package], tmp_path / place)
        index("rpm", tmp_path / place)
    (tmp_path / "w.toml").write_text('packages.rhel = ["asker"]\n')
    sources = [f"rhel:{tmp_path / place}" for place in made]
    planned = plan_packages(
        [str(tmp_path / "w.toml")], sources=sources, architecture="x86_64", essential=False
    )
    assert {one.package.name: one.repository for one in planned.packages} == {"asker": "one", "giver": "two"}
    with pytest.raises(ClosureError, match="nothing provides /usr/share/data/file needed by asker-1-1"):
        plan_packages([str(tmp_path / "w.toml")], sources=sources[:1], architecture="x86_64", essential=False)


def gzipped(place: Path) -> Path:
    """Index the world's rpm packages in `place` with gzip, and return the file of primary metadata.

    From Debian 13 on, createrepo_c uses zstd if it is not asked.
    """
    shutil.copytree(repository("rpm"), place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("repodata"))
    run("createrepo_c", "-q", "--no-database", "--general-compress-type=gz", place)
    (primary,) = (place / "repodata").glob("*-primary.xml.gz")
    return primary


def test_two_architectures(tmp_path: Path) -> None:
    """Protects from a package of the second architecture where the first will do; both are there by name."""
    data = gzip.decompress(gzipped(tmp_path / "gzipped").read_bytes())
    data = data.replace(b"x86_64", b"i686").replace(b"x86-64", b"x86-32")
    write(tmp_path, "repodata/primary.xml", data)
    sums = f'<checksum type="sha256">{hashlib.sha256(data).hexdigest()}</checksum>'
    entry = f'<data type="primary">{sums}<location href="repodata/primary.xml"/></data>'
    space = "http://linux.duke.edu/metadata/repo"
    write(tmp_path, "repodata/repomd.xml", f'<repomd xmlns="{space}">{entry}</repomd>')
    asked = {"app, editor": "app lib nano tool", "lib.i686, lib.x86_64": "lib lib"}
    for entries, expected in asked.items():
        whitelist = write(tmp_path, "w.toml", f"packages.rhel = {entries.split(', ')}\n")
        planned = plan_packages(
            [str(whitelist)],
            sources=[f"rhel:{tmp_path}", source("rpm")],
            architecture="x86_64",
            essential=False,
        )
        assert names(planned) == expected
        other = [one.package.name for one in planned.packages if one.package.architecture == "i686"]
        assert other == (["lib"] if "i686" in entries else [])
    write(tmp_path, "w.toml", 'packages.suse = ["app"]\n')
    planned = plan_packages([str(tmp_path / "w.toml")], sources=[f"suse:{tmp_path}"], architecture="i686")
    assert names(planned) == "app bash filesystem lib nano tool"


@pytest.mark.parametrize("packed", ["xz", "gz", "bz2", "zst", "lz4"])
def test_packed_metadata(packed: str, tmp_path: Path) -> None:
    """Protects each way in which metadata is packed, and the directories of a mirror."""
    plain = (repository("deb") / "Packages").read_bytes()
    data = pack_by({"gz": "gzip", "bz2": "bzip2", "zst": "zstd"}.get(packed, packed), plain)
    path = write(tmp_path, f"dists/stable/main/binary-amd64/Packages.{packed}", data)
    for place in (path, path.parent, path.parent.parent, tmp_path / "dists/stable"):
        planned = plan("deb", ["app"], tmp_path, place=place)
        assert names(planned) == "app lib nano tool"
        assert [one.name for one in planned.repositories] == ["stable/main"]
    path.write_bytes(data[:-20])
    with pytest.raises(DatabaseError, match=rf"Packages\.{packed}: it is damaged \(.*\); fetch"):
        plan("deb", ["app"], tmp_path, place=path)


def pack_by(program: str, data: bytes) -> bytes:
    """Return `data` packed by a program."""
    return subprocess.run([program, "-c"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("Packages", f"{SOUND}hello\n", "Packages:5: neither a field nor"),
        ("Packages", f"{SOUND}Package: b\n", "Packages:5: .*'Version'"),
        ("Packages", f"{SOUND}Package: b\nVersi", "Packages:6: "),
        ("Packages", SOUND.replace("all", "arm64"), "it has packages for arm64, and none for amd64"),
        ("other", "", "it has no Packages file for amd64; name such a file, the directory of a suite"),
    ],
)  # fmt: skip
def test_damaged_debian(name: str, text: str, said: str, tmp_path: Path) -> None:
    """Protects from incomplete plans: damage is reported, with its line if there is one."""
    write(tmp_path, name, text)
    with pytest.raises(DatabaseError, match=said):
        plan("deb", ["a"], tmp_path, place=tmp_path)


def test_damaged_rpm(tmp_path: Path) -> None:
    """Protects rpm's metadata: each file is what repomd.xml says, and well-formed."""
    primary = gzipped(tmp_path)
    whole = primary.read_bytes()
    index_file = tmp_path / "repodata/repomd.xml"
    listed = index_file.read_text()
    primary.write_bytes(whole[:-9])
    with pytest.raises(DatabaseError, match=r"primary\.xml\.gz: its sha256 is not what repomd\.xml says"):
        plan("rpm", ["app"], tmp_path, place=tmp_path)
    broken = gzip.compress(b"<metadata packages='1'>\n<package>\n</metadata>")
    primary.write_bytes(broken)
    old, new = (hashlib.sha256(data).hexdigest() for data in (whole, broken))
    index_file.write_text(listed.replace(f">{old}<", f">{new}<"))
    with pytest.raises(DatabaseError, match=r"primary\.xml\.gz:3: mismatched tag"):
        plan("rpm", ["app"], tmp_path, place=tmp_path)
    index_file.write_text(listed.replace('href="repodata/', 'href="../repodata/'))
    with pytest.raises(DatabaseError, match="no place below the repository"):
        plan("rpm", ["app"], tmp_path, place=tmp_path)
    index_file.write_text("<repomd>\n<data>")
    with pytest.raises(DatabaseError, match=r"repomd\.xml:2: not well-formed XML"):
        plan("rpm", ["app"], tmp_path, place=tmp_path)
    index_file.write_text("<repomd/>")
    with pytest.raises(DatabaseError, match="it names no primary metadata"):
        plan("rpm", ["app"], tmp_path, place=tmp_path)
    index_file.unlink()
    with pytest.raises(DatabaseError, match=r"it has no repodata/repomd\.xml"):
        plan("rpm", ["app"], tmp_path, place=tmp_path)


def test_damaged_pacman(tmp_path: Path) -> None:
    """Protects pacman's databases: each must be complete."""
    whole = gzip.decompress((repository("pacman") / "made.db.tar.gz").read_bytes())
    path = write(tmp_path, "made.db", whole[: len(whole) // 2 + 100])
    with pytest.raises(DatabaseError, match=r"made\.db: "):
        plan("pacman", ["app"], tmp_path, place=path)
    path.write_bytes(whole.replace(b"%VERSION%\n2:1.0-1", b"%VIRSION%\n2:1.0-1"))
    with pytest.raises(DatabaseError, match=r"app-2:1\.0-1/desc does not have one %VERSION%"):
        plan("pacman", ["app"], tmp_path, place=path)
    path.unlink()
    with pytest.raises(DatabaseError, match=r"it has no file such as core\.db"):
        plan("pacman", ["app"], tmp_path, place=tmp_path)
    with pytest.raises(
        DatabaseError, match=r"made\.db: No such file or directory; name a file of your mirror"
    ):
        plan("pacman", ["app"], tmp_path, place=path)


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["deb:/x"], "write FAMILY:PATH, and as the family one of debian, rhel, suse, arch"),
        (["/x"], "write FAMILY:PATH"),
        (["debian:"], "write FAMILY:PATH"),
        (["debian:/x", "arch:/x"], "repositories of arch and debian at once"),
    ],
    ids=str,
)
def test_sources_that_are_none(sources: list[str], said: str) -> None:
    """Protects from an unknown family, and from several at once."""
    with pytest.raises(DatabaseError, match=said):
        plan_packages(["base"], sources=sources)


def test_without_libsolv(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Protects hosts without the binding: the error says what to install, and nothing else is affected."""
    monkeypatch.setitem(sys.modules, "solv", None)
    assert main(["resolve", "base", "--available", source("deb")]) == 3
    assert "libsolv's binding cannot be imported" in (said := capfd.readouterr().err)
    assert "install python3-solv" in said


def test_warnings_of_libsolv_are_no_errors() -> None:
    """Protects the process: in Python 3.12 and newer the binding warns at import and at exit, and crashed."""
    script = "from pkgjail.repositories.libsolv import load_solv; load_solv().Pool(); print('made')"
    assert run(SYSTEM_PYTHON, "-W", "error", "-c", script, cwd=TOP) == "made\n"
