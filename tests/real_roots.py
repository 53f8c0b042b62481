"""Roots of real packages, made by the distributions' own programs from `real_world`.

They are made once and kept, under a name that changes with all that they are made of and by. Where the
tests do not run as root, a user namespace stands in for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests import real_world
from tests.real_world import Made, world

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BUSYBOX = Path("/bin/busybox")
AS_ROOT = () if os.geteuid() == 0 else ("unshare", "--map-root-user")
QUIET = {**os.environ, "LC_ALL": "C", "HOME": "/nonexistent"}
OS_RELEASE = {
    "rpm": 'ID=fedora\nVERSION_ID=39\nPRETTY_NAME="Made"\n',
    "pacman": "ID=arch\nBUILD_ID=rolling\n",
    "deb": "ID=debian\nVERSION_ID=12\n",
}
# The places of dnf's and rpm's files below a root, whatever the macros of the host's rpm are.
RPM = ("rpm", "--dbpath", "/var/lib/rpm", "--define", "_dbpath /var/lib/rpm")


def run(*command: str | Path, **options: object) -> str:
    """Run a program; its output. What it says is shown where it fails."""
    done = subprocess.run(
        list(map(str, command)), env=QUIET, capture_output=True, text=True, errors="surrogateescape",
        check=False, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return str(done.stdout)


def kept(name: str, make: Callable[[Path], object], *sources: str) -> Path:
    """The directory that `make` fills, made once for the same `sources` and kept for later runs."""
    place = Path(os.environ.get("PKGJAIL_TEST_ROOTS", f"/var/tmp/pkgjail-test-roots-{os.geteuid()}"))
    place.mkdir(mode=0o755, exist_ok=True)
    digest = hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16]
    target = place / f"{name}-{digest}"
    with open(place / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=place, prefix=f"{name}-") as made:
                inner = Path(made) / "made"
                inner.mkdir()
                make(inner)
                inner.rename(target)
    return target


def the_root(family: str) -> Path:
    """The root of all packages of the world, installed by `family`'s own program."""
    return packages(family) / "root"


def packages(family: str) -> Path:
    """Where the packages of `family` are (`packages`) and their root (`root`)."""
    sources = [Path(module).read_text() for module in (__file__, real_world.__file__)]
    return kept(family, partial(_make_world, family), str(BUSYBOX.stat().st_size), *sources)


def _make_world(family: str, place: Path) -> None:
    make(family, world(family), place)
    root = place / "root"
    if family == "rpm":
        (root / "var/log").mkdir(exist_ok=True)
        (root / "var/log/ghostly.log").write_text("made later\n")
        _alternatives(root, "var/lib/alternatives", "@two@20\n\n")
    elif family == "deb":
        _alternatives(root, "var/lib/dpkg/alternatives", "20\n\n\n")
    else:
        (root / "etc/pacman.conf").write_text("[options]\nHoldPkg = bash base\n")


def _alternatives(root: Path, records: str, end: str) -> None:
    """Write what Red Hat's `alternatives --install` would write; Debian has no such program."""
    record = root / records / "prog"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(
        "auto\n/usr/bin/prog\nprog-page\n/usr/share/prog.1\n\n"
        f"/usr/bin/prog.one\n10\n/usr/share/prog.one.1\n/usr/bin/prog.two\n{end}"
    )
    admin = root / "etc/alternatives"
    admin.mkdir(exist_ok=True)
    (admin / "prog").symlink_to("/usr/bin/prog.two")
    (root / "usr/bin/prog").unlink(missing_ok=True)
    (root / "usr/bin/prog").symlink_to("/etc/alternatives/prog")


def make(family: str, packages: Sequence[Made], place: Path) -> None:
    """Make `packages` below `place`, and install them all into `place/root`."""
    install = {"rpm": _install_rpms, "pacman": _install_pacman, "deb": _install_debs}[family]
    output = place / "packages"
    output.mkdir()
    make_only(family, packages, output)
    install(place / "root", sorted(output.iterdir()))


def make_only(family: str, packages: Sequence[Made], output: Path) -> None:
    """Make `packages` in the directory `output`."""
    build = {"rpm": _rpm, "pacman": _pacman_package, "deb": _deb}[family]
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(2) as pool:
        for made in pool.map(partial(_one, family, build, output, Path(work)), packages):
            assert made, family


def _one(family: str, build: Callable[..., None], output: Path, work: Path, made: Made) -> Made:
    payload = work / made.name / "payload"
    _fill(payload, made, family)
    build(made, payload, work / made.name, output)
    return made


def _fill(payload: Path, made: Made, family: str) -> None:
    payload.mkdir(parents=True)
    for file in made.files:
        place = payload / file.path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.kind == "dir":
            place.mkdir(exist_ok=True)
        elif file.kind == "link":
            place.symlink_to(file.target)
            continue
        elif file.kind == "busybox":
            shutil.copyfile(BUSYBOX, place)
        elif file.path == "/usr/lib/os-release":
            place.write_text(OS_RELEASE[family])
        else:
            place.write_text(f"{made.name} {file.path}\n")
        place.chmod(file.mode)


# --- rpm --------------------------------------------------------------------------------------


def spec(made: Made) -> str:
    """The spec file of a package. What its files are is listed in `files`, beside it."""
    epoch, version, release = made.evr
    lines = [
        f"Name: {made.name}", f"Epoch: {epoch}", f"Version: {version}", f"Release: {release}",
        "Summary: Made for tests", "License: MIT", "AutoReqProv: no",
        *(f"Requires: {text}" for text in made.requires),
        *(f"Provides: {text}" for text in made.provides),
        *(f"Conflicts: {text}" for text in made.conflicts),
        *(f"Recommends: {text}" for text in made.recommends),
        "%description", "Made for tests.",
        "%install", "cp -a %{payload}/. %{buildroot}",
        "%files -f %{listed}",
    ]  # fmt: skip
    if epoch == "0":
        del lines[1]
    return "\n".join(lines) + "\n"


def _rpm(made: Made, payload: Path, work: Path, output: Path) -> None:
    (work / "made.spec").write_text(spec(made))
    marks = {"dir": "%dir ", "config": "%config(noreplace) ", "ghost": "%ghost "}
    # A directory that nothing else is listed below is listed with all that is in it, odd names too.
    whole = [f.path for f in made.files if f.kind == "dir" and made.name.startswith("odd")]
    listed = [
        f'{marks.get(file.kind, "") if file.path not in whole else ""}"{file.path}"'
        for file in made.files
        if file.path in whole or not any(file.path.startswith(f"{one}/") for one in whole)
    ]
    (work / "listed").write_text("\n".join(listed) + "\n")
    macros = {
        "_topdir": work / "top", "_rpmdir": work / "rpms", "payload": payload, "listed": work / "listed",
        "_build_id_links": "none", "_dbpath": work / "none", "__os_install_post": "%{nil}",
        "_build_name_fmt": "%{NAME}.rpm", "_source_payload": "w0.ufdio", "_binary_payload": "w0.ufdio",
    }  # fmt: skip
    definitions = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
    run("rpmbuild", "-bb", *definitions, work / "made.spec")
    (built,) = (work / "rpms").iterdir()
    shutil.copy(built, output)


def _install_rpms(root: Path, files: Sequence[Path]) -> None:
    (root / "var/lib/rpm").mkdir(parents=True)
    run(*AS_ROOT, *RPM, "--root", root, "--nosignature", "-U", *files)


# --- pacman -----------------------------------------------------------------------------------


def _pacman_text(text: str) -> str:
    return text.replace(" ", "")


def _pacman_package(made: Made, payload: Path, _work: Path, output: Path) -> None:
    epoch, version, release = made.evr
    evr = f"{epoch}:{version}-{release}" if epoch != "0" else f"{version}-{release}"
    lines = [
        f"pkgname = {made.name}", f"pkgver = {evr}", "pkgdesc = Made for tests", "arch = x86_64",
        "size = 4096", "builddate = 1700000000", "packager = tests", "license = MIT",
        *(f"depend = {_pacman_text(text)}" for text in made.requires),
        *(f"provides = {_pacman_text(text)}" for text in made.provides),
        *(f"conflict = {_pacman_text(text)}" for text in made.conflicts),
        *(f"group = {text}" for text in made.groups),
        *(f"optdepend = {text}: for tests" for text in made.recommends),
        *(f"backup = {file.path[1:]}" for file in made.files if file.kind == "config"),
    ]  # fmt: skip
    (payload / ".PKGINFO").write_text("\n".join(lines) + "\n")
    names = sorted(os.listdir(payload))
    options = "!all,use-set,type,uid,gid,mode,time,size,md5,sha256,link"
    mtree = ("--format=mtree", f"--options={options}", "--gzip", "-cf", ".MTREE")
    run("bsdtar", "--uid", "0", "--gid", "0", *mtree, *names, cwd=payload)
    name = f"{made.name}-{evr}-x86_64.pkg.tar.zst"
    run("bsdtar", "--uid", "0", "--gid", "0", "--zstd", "-cf", output / name, ".MTREE", *names, cwd=payload)


def pacman(root: Path, *arguments: str | Path) -> str:
    """Run pacman on a root, with no file of the host's."""
    return run(*AS_ROOT, *pacman_command(root, *arguments))


def pacman_command(root: Path, *arguments: str | Path) -> list[str]:
    """The words of a command of pacman on a root, for which it is then ready."""
    configuration = root.parent / "pacman.conf"
    if not configuration.exists():
        configuration.write_text(
            "[options]\nArchitecture = x86_64\nSigLevel = Never\n"
            f"[made]\nServer = file://{root.parent}/packages\n"
        )
    work = root.parent / "work"
    work.mkdir(exist_ok=True)
    places = ("--cachedir", work, "--gpgdir", work, "--hookdir", work, "--logfile", work / "log")
    options = ("--config", configuration, "-r", root, "-b", root / "var/lib/pacman", *places, "--noconfirm")
    return list(map(str, ("pacman", *options, *arguments)))


def _install_pacman(root: Path, files: Sequence[Path]) -> None:
    (root / "var/lib/pacman").mkdir(parents=True)
    run("repo-add", "-q", files[0].parent / "made.db.tar.gz", *files)
    pacman(root, "-Sy", *(file.name.rsplit("-", 3)[0] for file in files))
    for name in ("pacman.conf", "work"):
        path = root.parent / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


# --- dpkg -------------------------------------------------------------------------------------


def _deb_text(text: str) -> str:
    name, _, rest = text.partition(" ")
    operator, _, version = rest.partition(" ")
    sign = {"<": "<<", ">": ">>"}.get(operator, operator)
    return f"{name} ({sign} {version})" if rest else name


def _deb(made: Made, payload: Path, _work: Path, output: Path) -> None:
    fields = {
        "Package": made.name, "Version": made.version, "Architecture": "amd64", "Maintainer": "tests",
        "Essential": "yes" if made.name in {"bash", "filesystem"} else "",
        "Depends": ", ".join(map(_deb_text, made.requires)),
        "Provides": ", ".join(map(_deb_text, made.provides)),
        "Conflicts": ", ".join(map(_deb_text, made.conflicts)),
        "Recommends": ", ".join(map(_deb_text, made.recommends)),
        "Description": "Made for tests",
    }  # fmt: skip
    control = payload / "DEBIAN"
    control.mkdir(mode=0o755)
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items() if value))
    conffiles = [file.path for file in made.files if file.kind == "config"]
    if conffiles:
        (control / "conffiles").write_text("".join(f"{path}\n" for path in conffiles))
    run("dpkg-deb", "--root-owner-group", "-Znone", "-b", payload, output / f"{made.name}.deb")


def _install_debs(root: Path, files: Sequence[Path]) -> None:
    records = root / "var/lib/dpkg"
    for name in ("info", "updates"):
        (records / name).mkdir(parents=True)
    for name in ("status", "available"):
        (records / name).write_text("")
    (records / "info/format").write_text("1\n")
    (records / "arch").write_text("amd64\n")
    run(*AS_ROOT, "dpkg", "--root", root, "--force-all", "--log=/dev/null", "-i", *files)


# --- for tests ----------------------------------------------------------------------------------

FAMILY_OF = {"rpm": "rpm", "pacman": "pacman", "apt": "deb", "dpkg": "deb"}
"""The family whose root a backend reads."""


def copy_of(family: str, place: Path) -> Path:
    """A copy of the family's root in `place`, for programs that write, and to be spoilt."""
    target = place / family / "root"
    target.parent.mkdir(parents=True)
    run("cp", "-a", the_root(family), target)
    return target


def berkeley_database(directory: Path) -> None:
    """Replace rpm's SQLite database in a directory by one of Berkeley DB with the same packages."""
    with sqlite3.connect(directory / "rpmdb.sqlite") as connection:
        rows = connection.execute("SELECT hnum, blob FROM Packages").fetchall()
    connection.close()
    shutil.rmtree(directory)
    directory.mkdir()
    # Record 0 has the highest number; a record's key is its number in the machine's own order.
    rows = [(0, max(number for number, _ in rows).to_bytes(4, sys.byteorder)), *rows]
    lines = [f" {word.hex()}" for number, blob in rows for word in (number.to_bytes(4, sys.byteorder), blob)]
    text = "\n".join(["VERSION=3", "format=bytevalue", "type=hash", "HEADER=END", *lines, "DATA=END"]) + "\n"
    subprocess.run(["db5.3_load", directory / "Packages"], input=text, text=True, check=True)
