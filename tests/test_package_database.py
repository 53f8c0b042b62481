"""The package database of a jail: of exactly the packages of its manifest."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
from typing import TYPE_CHECKING, get_args

import pytest

from pkgjail import load_policy, open_database, read_manifest
from pkgjail.closure.search import resolve_closure
from pkgjail.core.entries import MISSING
from pkgjail.core.errors import DriftError, JailError
from pkgjail.core.model import DatabaseFile, Package, PlanOption
from pkgjail.core.options import JailOptions
from pkgjail.fileset import collect_files
from pkgjail.fileset.builder import FileSetBuilder
from pkgjail.fileset.rootfs import Tree
from pkgjail.fileset.unowned import add_package_database
from pkgjail.jails import rpm_database
from pkgjail.jails.package_database import database_changes, database_content
from pkgjail.jails.rpm_database import filtered_database
from pkgjail.jails.run import default_environment, prepare_jail, run_in_jail
from pkgjail.manifest import build_manifest
from pkgjail.policy.patterns import matcher
from tests.debian_roots import every_backend, make_root, stanza
from tests.file_cases import Remembering
from tests.real_roots import berkeley_database, copy_of, make, run, the_root
from tests.real_world import File, Made
from tests.test_drift import BUSYBOX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

PACKAGES = (
    "a 1 amd64; Multi-Arch: same; Depends: b",
    "b 2 all; Description: of two lines\n Package: c",
    "c 3 amd64",
    "x 1 i386",
    "gone 1 amd64 config-files",
)
INFO = {
    "dpkg.list": "/.\n/var\n/var/lib\n/var/lib/dpkg\n/var/lib/dpkg/info\n",
    "dpkg.triggers": "interest x\n",
    "dpkg.postinst": "#!/bin/sh\n",
    "a:amd64.list": "/.\n/bin\n/bin/busybox\n",
    "a:amd64.md5sums": "",
    "a:amd64.shlibs": "liba 1 a\n",
    "a:amd64.symbols": "liba.so.1 a #MINVER#\n",
    "b.list": "/.\n",
    "b.conffiles": "/etc/b\n",
    "c.list": "/.\n",
    "c.md5sums": "",
    "x.list": "/.\n",
}
DIVERSIONS = (
    "/bin/y\n/bin/busybox\nc\n"  # it moved a file of the set
    "/bin/sh\n/bin/sh.distrib\na\n"
    "/bin/z\n/bin/z.real\nc\n"
    "/bin/w\n/bin/w.real\n:\n"
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root of dpkg, five packages and busybox."""
    place = tmp_path / "root"
    files = {f"var/lib/dpkg/info/{name}": text for name, text in INFO.items()}
    files["etc/os-release"] = "ID=debian\nVERSION_ID=12\n"
    make_root(place, *PACKAGES, files={**files, "var/lib/dpkg/diversions": DIVERSIONS})
    (place / "bin").mkdir()
    (place / "bin/busybox").write_bytes(BUSYBOX.read_bytes())
    (place / "bin/busybox").chmod(0o755)
    return place


def set_of(
    root: Path, *packages: str, backend: str = "auto", family: str = "debian", option: str = ""
) -> Manifest:
    """Return the manifest of these packages; `option` is a line of the whitelist's [options]."""
    whitelist = root.parent / "w.toml"
    whitelist.write_text(f"[packages]\n{family} = {list(packages)}\n[options]\nessential = false\n{option}\n")
    database = open_database(os.fsencode(root), backend)
    policy = load_policy([str(whitelist)], database=database)
    closure = resolve_closure(database, policy)
    files = collect_files(database, closure, policy, root=os.fsencode(root))
    return build_manifest(policy, "sha256:0", database.distribution, database.architecture, closure, files)


def records_of(manifest: Manifest) -> dict[str, str]:
    """Return the names below dpkg's directory, each with its origin and owners."""
    return {
        entry.path.decode().removeprefix("/var/lib/dpkg/"): f"{entry.origin} {' '.join(entry.owners)}"
        for entry in manifest.files
        if entry.path.startswith(b"/var/lib/dpkg/") and entry.kind == "regular"
    }


@every_backend
def test_a_set_with_dpkg_has_the_records_of_its_packages(root: Path, backend: str) -> None:
    """Protects which files of dpkg's are in: those of the set, without scripts, and no other package's."""
    assert records_of(set_of(root, "a", "dpkg", backend=backend)) == {
        "arch": "entry dpkg:amd64",
        "diversions": "entry dpkg:amd64",
        "status": "entry dpkg:amd64",
        "info/format": "generated dpkg:amd64",
        "info/dpkg.list": "generated dpkg:amd64",
        "info/dpkg.triggers": "generated dpkg:amd64",
        "info/a:amd64.list": "generated a:amd64",
        "info/a:amd64.md5sums": "generated a:amd64",
        "info/a:amd64.shlibs": "generated a:amd64",
        "info/a:amd64.symbols": "generated a:amd64",
        "info/b.list": "generated b:all",
        "info/b.conffiles": "generated b:all",
    }


def test_a_set_without_dpkg_has_no_records(root: Path) -> None:
    assert records_of(set_of(root, "a")) == {}


def test_a_whitelist_can_do_without(root: Path) -> None:
    assert records_of(set_of(root, "a", "dpkg", option="package_database = false")) == {}


def test_the_content_is_of_exactly_the_set(root: Path) -> None:
    """Protects the records to the byte: a field's name in a description is no field."""
    content = database_content(set_of(root, "a", "dpkg", "x:i386"), os.fsencode(root))
    lines = ("a 1 amd64; Multi-Arch: same; Depends: b", PACKAGES[1], "dpkg 1.21.22 amd64", "x 1 i386")
    assert content == {
        b"/var/lib/dpkg/status": "".join(map(stanza, lines)).encode(),
        b"/var/lib/dpkg/arch": b"amd64\ni386\n",
        b"/var/lib/dpkg/diversions": b"/bin/y\n/bin/busybox\nc\n/bin/sh\n/bin/sh.distrib\na\n",
    }


def test_without_diversions_the_file_is_empty(root: Path) -> None:
    (root / "var/lib/dpkg/diversions").unlink()
    content = database_content(set_of(root, "a", "dpkg"), os.fsencode(root))
    assert content[b"/var/lib/dpkg/diversions"] == b""


def edited(old: str, new: str) -> Callable[[Path], None]:
    """Return a function that changes the status file as dpkg does, by another file in its place."""

    def edit(root: Path) -> None:
        status = root / "var/lib/dpkg/status"
        text = status.read_text()
        assert old in text
        (root / "var/lib/dpkg/status-new").write_text(text.replace(old, new))
        (root / "var/lib/dpkg/status-new").rename(status)

    return edit


def without_status(root: Path) -> None:
    (root / "var/lib/dpkg/status").unlink()


IS_DRIFT = [
    ("upgraded", edited("Version: 2\n", "Version: 2.1\n"), "has no record of b:all 2: its version is 2.1"),
    ("removed", edited(stanza(PACKAGES[1]), ""), "has no record of b:all 2: the package is not installed"),
    (
        "unpacked",
        edited("Package: b\nStatus: install ok installed", "Package: b\nStatus: install ok unpacked"),
        "has no record of b:all 2: the package is not fully installed",
    ),
    ("no database", without_status, "/var/lib/dpkg/status is gone"),
]


@pytest.mark.parametrize(("change", "words"), [row[1:] for row in IS_DRIFT], ids=[row[0] for row in IS_DRIFT])
def test_other_records_of_the_set_are_drift(root: Path, change: Callable[[Path], None], words: str) -> None:
    manifest = set_of(root, "a", "dpkg")
    change(root)
    assert words in str(DriftError(database_changes(manifest, os.fsencode(root))))


@pytest.mark.parametrize("state", ["awaited", "pending"])
def test_triggers_are_no_drift(root: Path, state: str) -> None:
    """While the host installs another package, the files of the set are all in place."""
    manifest, place = set_of(root, "a", "dpkg"), os.fsencode(root)
    before = database_content(manifest, place)
    fields = f"Status: install ok triggers-{state}\nTriggers-{state.title()}: ldconfig\n /etc/x"
    edited("Package: b\nStatus: install ok installed", f"Package: b\n{fields}")(root)
    assert database_changes(manifest, place) == ()
    assert database_content(manifest, place) == before


def test_other_packages_are_no_drift(root: Path) -> None:
    """Protects jails from every installation of a package that they do not have."""
    manifest, place = set_of(root, "a", "dpkg"), os.fsencode(root)
    before = database_content(manifest, place)
    edited(stanza("c 3 amd64"), stanza("c 4 amd64") + stanza("new 1 amd64"))(root)
    assert database_changes(manifest, place) == ()
    assert database_content(manifest, place) == before


def test_a_prepared_jail_sees_a_change_of_the_records(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Protects from an old database in a replay, also if no file of the set has changed."""
    manifest = set_of(root, "a", "dpkg")
    jail = prepare_jail(manifest, JailOptions(network=False), root=os.fsencode(root))
    show = ["/bin/busybox", "cat", "/var/lib/dpkg/status"]
    assert jail.enter(show) == 0
    edited("Status: install ok installed", "Status: hold ok installed")(root)
    assert jail.enter(show) == 0
    assert capfd.readouterr().out.count("Status: hold ok installed\n") == 3
    edited("Version: 2\n", "Version: 2.1\n")(root)
    with pytest.raises(DriftError, match=r"its version is 2\.1"):
        jail.run(show)


DESC = "%NAME%\n{name}\n\n%VERSION%\n{version}\n\n%ARCH%\nany\n\n%INSTALLDATE%\n1641000000\n\n%SIZE%\n1\n\n"
ARCH = {"pacman": "6.0-1", "a": "1:2-3", "b": "1-1"}


@pytest.fixture
def arch(tmp_path: Path) -> Path:
    """A root of pacman and two packages."""
    place = tmp_path / "arch"
    local = "var/lib/pacman/local"
    content = {"etc/os-release": "ID=arch\n", f"{local}/ALPM_DB_VERSION": "9\n"}
    for name, version in ARCH.items():
        content[f"{local}/{name}-{version}/desc"] = DESC.format(name=name, version=version)
        content[f"{local}/{name}-{version}/files"] = f"%FILES%\nusr/\nusr/{name}\n\n"
        content[f"{local}/{name}-{version}/install"] = "post_install() { :; }\n"
        content[f"usr/{name}"] = ""
    for name, text in content.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


def test_a_set_with_pacman_has_the_records_of_its_packages(arch: Path, tmp_path: Path) -> None:
    """Protects pacman's answers: the program reads a copy of what the jail has, and lists it."""
    manifest = set_of(arch, "a", "pacman", family="arch")
    content = database_content(manifest, os.fsencode(arch))
    assert not any(b"INSTALLDATE" in text for text in content.values())
    copy = tmp_path / "copy"
    for entry in manifest.files:
        path = copy / entry.path.decode().lstrip("/")
        if entry.kind == "directory":
            path.mkdir(parents=True, exist_ok=True)
        else:
            made = entry.origin == "entry"
            path.write_bytes(
                content.get(entry.path, b"") if made else (arch / path.relative_to(copy)).read_bytes()
            )
    listed = sorted(copy.glob("var/lib/pacman/local/*/*"))
    assert [path.name for path in listed] == ["desc", "files", "desc", "files"]
    asked = run("pacman", "--root", copy, "--dbpath", copy / "var/lib/pacman", "-Q")
    assert asked == "a 1:2-3\npacman 6.0-1\n"
    assert run("pacman", "--root", copy, "--dbpath", copy / "var/lib/pacman", "-Qqo", copy / "usr/a") == "a\n"


def test_a_set_without_pacman_has_no_records(arch: Path) -> None:
    manifest = set_of(arch, "a", family="arch")
    assert not [entry for entry in manifest.files if entry.path.startswith(b"/var")]


def test_another_version_for_pacman_is_drift(arch: Path) -> None:
    manifest = set_of(arch, "a", "pacman", family="arch")
    local = arch / "var/lib/pacman/local"
    (local / "a-1:2-3").rename(local / "a-1:2-4")
    changes = database_changes(manifest, os.fsencode(arch))
    assert changes == ((b"/var/lib/pacman/local/a-1:2-3/desc", MISSING),)


_RPMDB = b"/var/lib/rpm/rpmdb.sqlite"


def identities(packages: Iterable[Package]) -> frozenset[tuple[str, str, str]]:
    return frozenset((one.name, one.version, one.architecture) for one in packages)


def test_rpm_lists_exactly_the_set(tmp_path: Path) -> None:
    """Protects rpm's answers: the program reads what a jail would have, and finds no other package."""
    root = os.fsencode(the_root("rpm"))
    packages = list(open_database(root, "rpm").packages.values())[::2]
    made = filtered_database(root, _RPMDB, identities(packages), ())
    assert made.absent == frozenset()
    (tmp_path / "rpmdb.sqlite").write_bytes(made.content)
    rpm = ("rpm", "--dbpath", tmp_path)
    listed = run(*rpm, "-qa", "--qf", "%{NAME}:%{ARCH} %{EVR}\\n")
    assert sorted(listed.splitlines()) == sorted(f"{one.key} {one.version}" for one in packages)
    provided = run(*rpm, "-q", "--qf", "%{NAME}\\n", "--whatprovides", packages[0].name)
    assert packages[0].name in provided.splitlines()


def test_a_package_that_rpm_no_longer_has_is_drift() -> None:
    root = os.fsencode(the_root("rpm"))
    lacking = ("app", "9-9", "x86_64")
    assert filtered_database(root, _RPMDB, frozenset({lacking}), (1,)).absent == {lacking}


def test_a_set_with_rpm_has_its_database() -> None:
    """Protects the name that a manifest gets, which is the database's own."""
    database = open_database(os.fsencode(the_root("rpm")), "rpm")
    others = list(database.packages.values())
    rpm = Package(name="rpm", version="4-1", architecture="x86_64")
    assert database.database_files(others) == ()
    (file,) = database.database_files([*others, rpm])
    assert file == DatabaseFile(path=_RPMDB, package="rpm:x86_64", manager="rpm", at_entry=True)


# Where the package rpm of some system has its database: `%_dbpath` in its macros, and the directory itself.
_PLACES = {
    "Fedora": ("%{_usr}/lib/sysimage/rpm", "usr/lib/sysimage/rpm"),
    "ostree": ("%{_prefix}/lib/sysimage/rpm", "usr/share/rpm"),
    "RHEL": ("%{_var}/lib/rpm", "var/lib/rpm"),
}


def rpm_root(top: Path, dbpath: str, directory: str) -> Path:
    """Return a root with the packages `rpm`, `app` and `other`, this machine's rpm, and 500 names in /usr."""
    names = ("rpm", "app", "other")
    make("rpm", [Made(one, "4-1", (File(f"/usr/share/{one}.txt", "file", 0o644),)) for one in names], top)
    root = top / "root"
    shown = subprocess.run(["ldd", "/usr/bin/rpm"], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(r"/\S+\.so\S*", shown)
    for path in ("/usr/bin/rpm", *("/usr" + path.removeprefix("/usr") for path in libraries)):
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path[1:])
    shutil.copytree("/usr/lib/rpm", root / "usr/lib/rpm")
    with (root / "usr/lib/rpm/macros").open("a") as macros:
        macros.write(f"%_dbpath\t\t{dbpath}\n")
    (root / "usr/share/many").mkdir()
    for number in range(500):
        (root / f"usr/share/many/{number}").touch()
    for name in ("lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    if directory != "var/lib/rpm":
        (root / directory).parent.mkdir(exist_ok=True)
        (root / "var/lib/rpm").rename(root / directory)
    if directory == "usr/share/rpm":
        (root / "usr/lib/sysimage").mkdir()
        (root / "usr/lib/sysimage/rpm").symlink_to("../../share/rpm")
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/os-release").write_text("ID=fedora\n")
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("dbpath", "directory"), _PLACES.values(), ids=_PLACES)
def test_the_rpm_of_a_jail_finds_its_packages(
    dbpath: str, directory: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Protects the place of the database: where the set's own rpm looks, by each strategy."""
    root = rpm_root(tmp_path, dbpath, directory)
    # A database that was left where rpm does not look.
    (root / "usr/lib/sysimage/rpm").mkdir(parents=True, exist_ok=True)
    option = '[files]\ninclude = ["/usr/bin/rpm", "/usr/lib*/**", "/usr/share/many/*", "/lib", "/lib64"]'
    manifest = set_of(root, "rpm", "app", backend="rpm", family="rhel", option=option)
    (made,) = (entry for entry in manifest.files if entry.origin == "entry" and entry.detail == "rpm")
    assert made.path == f"/{directory}/rpmdb.sqlite".encode()
    ask = ["/usr/bin/rpm", "-qa", "--qf", "%{NAME} %{EVR}\\n"]
    for plan in get_args(PlanOption):
        options = JailOptions(network=False, plan=plan, environment=default_environment())
        assert run_in_jail(manifest, ask, options, root=os.fsencode(root)).returncode == 0, plan
        shown = capfd.readouterr()
        assert (sorted(shown.out.splitlines()), shown.err) == (["app 4-1", "rpm 4-1"], ""), plan


def test_of_two_databases_rpm_has_that_of_its_macros(tmp_path: Path) -> None:
    """Protects a system whose database was moved, and the old one left; an unknown macro says nothing."""
    root = copy_of("rpm", tmp_path)
    shutil.copytree(root / "var/lib/rpm", root / "usr/lib/sysimage/rpm")
    (root / "etc/rpm").mkdir()
    for value, directory in (
        ("", "/usr/lib/sysimage/rpm"),
        ("%{_var}/lib/rpm", "/var/lib/rpm"),
        ("/srv/none", "/usr/lib/sysimage/rpm"),
        ("%(echo ~)/rpm", "/usr/lib/sysimage/rpm"),
        ("relative", "/usr/lib/sysimage/rpm"),
    ):
        (root / "etc/rpm/macros.site").write_text(f"%_dbpath {value}\n" if value else "")
        rpm = Package(name="rpm", version="4-1", architecture="x86_64")
        (file,) = open_database(os.fsencode(root), "rpm").database_files([rpm])
        assert file.path == f"{directory}/rpmdb.sqlite".encode(), value


def test_a_database_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """Protects from a jail whose rpm finds nothing, without a word: only rpm writes its older formats."""
    root = copy_of("rpm", tmp_path)
    berkeley_database(root / "var/lib/rpm")
    database = open_database(os.fsencode(root), "rpm")
    rpm = Package(name="rpm", version="4-1", architecture="x86_64")
    (file,) = database.database_files([rpm])
    builder, reporter = FileSetBuilder(Tree(os.fsencode(root)), matcher([])), Remembering()
    add_package_database(builder, [file], reporter)
    assert builder.kept == {}
    (warning,) = reporter.warnings
    assert warning == (
        f"rpm will find no packages in the jail: {file.obstacle}; leave rpm:x86_64 out, or accept that with "
        "`package_database=False`"
    )


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE Packages SET blob = x'00'", "cannot make /var/lib/rpm/rpmdb.sqlite for the jail: unpack"),
        ("UPDATE Packages SET blob = x'000000FF0000'", "cannot make /var/lib/rpm/rpmdb.sqlite for the jail"),
        ("DROP TABLE Packages", "for the jail: no such table: Packages"),
        ("UPDATE Packages SET blob = NULL", "for the jail: the header of a package is no data"),
        (
            "UPDATE Packages SET blob = 9223372036854775807",
            "for the jail: the header of a package is no data",
        ),
    ],
)
def test_a_damaged_rpm_database_is_refused(tmp_path: Path, statement: str, words: str) -> None:
    """Protects from a jail with half a database: the message names the file, and what to do."""
    place = tmp_path / "var/lib/rpm"
    place.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(place / "rpmdb.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB)")
        connection.execute("INSERT INTO Packages VALUES (1, x'0000000000000000')")
        connection.execute(statement)
    with pytest.raises(JailError, match=re.escape(words)):
        filtered_database(os.fsencode(tmp_path), _RPMDB, frozenset(), (statement,))


def test_an_endless_rpm_database_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects each entry from a view that never ends, which SQLite takes for a table."""
    monkeypatch.setattr(rpm_database, "_MOST_SECONDS", 0.2)
    place = tmp_path / "var/lib/rpm"
    place.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(place / "rpmdb.sqlite")) as connection, connection:
        connection.execute(
            "CREATE VIEW Packages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT i AS hnum, x'' AS blob FROM n WHERE i < 0"
        )
    with pytest.raises(JailError, match="for the jail: interrupted"):
        filtered_database(os.fsencode(tmp_path), _RPMDB, frozenset(), ("endless",))


# A package whose program needs libz, made by hand: debhelper is not on this host.
SOURCE = {
    "debian/control": """\
Source: tiny
Maintainer: Nobody <nobody@example.org>
Build-Depends: gcc, make, libc6-dev (>= 2.30), zlib1g-dev
Standards-Version: 4.6.2
Rules-Requires-Root: no

Package: tiny
Architecture: any
Depends: ${shlibs:Depends}
Description: program that needs a library
""",
    "debian/changelog": """\
tiny (1) unstable; urgency=low

  * First.

 -- Nobody <nobody@example.org>  Sat, 01 Jan 2022 00:00:00 +0000
""",
    "debian/rules": """\
#!/usr/bin/make -f
clean:
\trm -rf debian/tiny tiny
build build-arch build-indep:
\techo 'char *zlibVersion(void); int main(void) { return !zlibVersion(); }' | gcc -o tiny -xc - -lz
binary: build
\tmkdir -p debian/tiny/DEBIAN debian/tiny/usr/bin
\tcp tiny debian/tiny/usr/bin
\tdpkg-shlibdeps debian/tiny/usr/bin/tiny
\tdpkg-gencontrol -Pdebian/tiny
\tdpkg-deb --root-owner-group --build debian/tiny ..
binary-arch: binary
binary-indep:
""",
}  # fmt: skip


class Jail:
    """Runs commands in a jail of these packages, in a directory with the sources of `tiny`."""

    def __init__(self, caller: Caller, *packages: str) -> None:
        self._caller = caller
        self._whitelist = caller.home / "w.toml"
        self._whitelist.write_text(f"[packages]\ndebian = {list(packages)}\n")
        self.manifest = caller.home / "w.jsonl"
        self.parent = caller.home / "build"
        self.source = self.parent / "tiny-1"
        for name, text in SOURCE.items():
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.source / "debian/rules").chmod(0o755)
        subprocess.run(["chown", "-R", f"{caller.uid}:{caller.uid}", caller.home], check=True)
        made = caller.pkgjail("resolve", self._whitelist, "-o", self.manifest, "--no-hash")
        assert made.returncode == 0, made.stderr

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command among the sources; dpkg-buildpackage leaves packages in their parent directory."""
        options = ("--no-network", "--bind", self.parent, "--cwd")
        return self._caller.pkgjail("run", *options, self.manifest, "--", *command, cwd=self.source)


@pytest.mark.slow
def test_dpkg_tells_the_truth_of_the_jail(caller: Caller) -> None:
    """Protects the answers of dpkg-query: of the manifest's packages, each with its version and files."""
    jail = Jail(caller, "dpkg")
    manifest = read_manifest(jail.manifest)
    asked = jail.run("dpkg-query", "-W", "-f", "${Package}:${Architecture} ${Version}\\n")
    assert asked.returncode == 0
    assert asked.stderr == ""
    assert sorted(asked.stdout.splitlines()) == sorted(
        f"{one.key} {one.version}" for one in manifest.packages
    )
    assert jail.run("dpkg", "--search", "/usr/bin/dpkg").stdout == "dpkg: /usr/bin/dpkg\n"
    assert "/usr/bin/dpkg\n" in jail.run("dpkg", "--listfiles", "dpkg").stdout
    assert jail.run("dpkg", "--audit").stdout == ""
    assert jail.run("dpkg", "--list", "gcc").returncode == 1


@pytest.mark.slow
def test_a_package_is_built_from_its_build_dependencies(anyone: Caller) -> None:
    """Protects dpkg-buildpackage in a jail: the check of build dependencies, and those on libraries."""
    jail = Jail(anyone, "build-essential", "zlib1g-dev")
    built = jail.run("dpkg-buildpackage", "-us", "-uc", "-b")
    assert built.returncode == 0, built.stderr + built.stdout
    (package,) = jail.parent.glob("tiny_1_*.deb")
    depends = anyone.run(["dpkg-deb", "-f", package, "Depends"]).stdout
    assert re.fullmatch(r"libc6 \(>= [0-9.]+\), zlib1g \(>= 1:[0-9.]+\)\n", depends)


@pytest.mark.slow
def test_a_build_dependency_that_is_not_in_the_jail_is_found(caller: Caller) -> None:
    """Protects exactness: the host has zlib1g-dev, and this jail has not."""
    checked = Jail(caller, "build-essential").run("dpkg-checkbuilddeps")
    assert checked.returncode == 1
    said = checked.stderr.replace("Unmet", "unmet")  # as Debian 13's says it
    assert said == "dpkg-checkbuilddeps: error: unmet build dependencies: zlib1g-dev\n"
