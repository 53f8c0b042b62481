"""`make release`: build the sdist and the wheel of this checkout, check them, and say how to publish them.

    release.py DIRECTORY        is made anew; `dist` in it has what would be uploaded

Nothing is uploaded or tagged, and nothing outside of DIRECTORY changes. The exit status is 1 if the packages
are unsound, or if the checkout is not ready for a release.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
NEW = "Unreleased"
_HEADING = re.compile(r"^## \[(?P<version>[^]]+)\](?: - (?P<date>.*))?$", re.MULTILINE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_VERSION = re.compile(r'^__version__ = "(?P<version>.+)"$', re.MULTILINE)
# What setuptools writes into an sdist.
_GENERATED = re.compile(r"PKG-INFO|setup\.cfg|pkgjail\.egg-info/.*")
# What an sdist has beside the package.
_BESIDE = re.compile(r"[^/]*\.(md|py|toml|in)|LICENSE|docs/.*")
# Run by a Python that has nothing but the wheel and what it depends on.
_TRY_OUT = """
import importlib.metadata, importlib.resources, subprocess, sys
import pkgjail

for point in importlib.metadata.distribution("pkgjail").entry_points:
    point.load()


def run(*arguments):
    command = [sys.executable, "-m", "pkgjail", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


assert run("--version").decode().split() == ["pkgjail", pkgjail.__version__]
lists = [file.name for file in importlib.resources.files("pkgjail").joinpath("blacklists").iterdir()]
blacklists = [argument for name in sorted(lists) for argument in ("--blacklist", name.split(".")[0])]
run("resolve", "base", *blacklists, "-o", "base.manifest.jsonl")
run("report", "base.manifest.jsonl", "-o", "base.html")
"""


class UnsoundError(Exception):
    """What is wrong with the packages."""


def main(directory: str) -> int:
    """Build, check and report."""
    place = Path(directory).absolute()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        sdist, wheel = build(place)
        check(place / "source", sdist, wheel)
        try_out(wheel, place / "try-out")
    except UnsoundError as error:
        print(f"The packages are unsound: {error}", file=sys.stderr)
        return 1
    print("The packages are sound: nothing is missing, nothing is extra, and the installed wheel works.")
    version = declared_version()
    if found := obstacles(version):
        print(f"pkgjail {version} is not ready for a release:", *found, sep="\n  - ", file=sys.stderr)
        return 1
    print(
        f"To publish pkgjail {version}:",
        f"git tag --sign v{version} --message 'pkgjail {version}'",
        f"git push origin v{version}",
        f"{os.path.relpath(sys.executable)} -m twine upload {directory}/dist/*",
        sep="\n    ",
    )
    return 0


def build(place: Path) -> tuple[Path, Path]:
    """Build the sdist, the wheel from that, and the wheel from the sources, which must be the same."""
    source = place / "source"
    copy_checkout(source)
    _build("--outdir", place / "dist", source)
    _build("--wheel", "--outdir", place / "direct", source)
    (sdist,) = place.glob("dist/*.tar.gz")
    (wheel,) = place.glob("dist/*.whl")
    (direct,) = place.glob("direct/*.whl")
    if differing := different(wheel_files(wheel), wheel_files(direct)):
        raise UnsoundError(f"the sdist and the sources give different wheels: {differing}")
    return sdist, wheel


def check(source: Path, sdist: Path, wheel: Path) -> None:
    """Compare the packages with the files that they were built from, and check their metadata."""
    package = {f"pkgjail/{name}": data for name, data in _files(source / "pkgjail").items()}
    built = wheel_files(wheel)
    information = f"pkgjail-{declared_version()}.dist-info/"
    inside = {name: data for name, data in built.items() if not name.startswith(information)}
    if differing := different(package, inside):
        raise UnsoundError(f"the wheel is not the package: {differing}")
    beside = {name: data for name, data in _files(source).items() if _BESIDE.fullmatch(name)}
    shipped = {name: data for name, data in sdist_files(sdist).items() if not _GENERATED.fullmatch(name)}
    if differing := different({**package, **beside}, shipped):
        raise UnsoundError(f"the sdist is not the package, its metadata and its documents: {differing}")
    checked = _run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", sdist, wheel)
    if checked.returncode:
        raise UnsoundError(checked.stdout)


def try_out(wheel: Path, place: Path) -> None:
    """Install the wheel into an empty environment and use it there."""
    venv.create(place / "venv", with_pip=True)
    python = place / "venv" / "bin" / "python"
    installed = _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    if installed.returncode:
        raise UnsoundError(f"the wheel cannot be installed:\n{installed.stdout}")
    use(python, place)


def use(python: Path, place: Path, **environment: str) -> None:
    """Run what pkgjail is made of by this Python, in a directory without a checkout."""
    environment = {**os.environ, "PYTHONPATH": "", **environment}
    used = _run(python, "-c", _TRY_OUT, cwd=place, env=environment)
    if used.returncode:
        raise UnsoundError(f"the wheel does not work when installed:\n{used.stdout}")


def obstacles(version: str) -> list[str]:
    """Say what has to be done before this version can be released."""
    found = changelog_faults((TOP / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    if _git("status", "--porcelain"):
        found.append("the checkout has changes that are not committed")
    if _git("tag", "--list", f"v{version}"):
        found.append(f"the tag v{version} exists; raise __version__ in pkgjail/__init__.py")
    return found


def changelog_faults(text: str, version: str) -> list[str]:
    """Say what keeps a changelog from being that of this version: it is dated, and nothing is unreleased."""
    # Before the first heading, then three parts for each: version, date, what is below it.
    parts = _HEADING.split(text)
    sections = list(zip(parts[1::3], parts[2::3], parts[3::3]))
    found = []
    if sections and sections[0][0] == NEW:
        if sections[0][2].strip():
            found.append(f"CHANGELOG.md has entries below [{NEW}]; move them to [{version}]")
        sections = sections[1:]
    latest, date, _ = sections[0] if sections else ("", "", "")
    if latest != version:
        found.append(f"CHANGELOG.md has [{latest}] as its latest version, and the package is {version}")
    elif not _DATE.fullmatch(date or ""):
        found.append(f"CHANGELOG.md gives no date for [{version}]; write '## [{version}] - YYYY-MM-DD'")
    return found


def declared_version() -> str:
    """Read the version, from the one place that has it."""
    match = _VERSION.search((TOP / "pkgjail" / "__init__.py").read_text(encoding="utf-8"))
    if match is None:
        raise UnsoundError("pkgjail/__init__.py has no line '__version__ = \"...\"'")
    return match["version"]


def copy_checkout(target: Path) -> None:
    """Copy the files that git knows, as they are on the disk, links as links."""
    for name in filter(None, _git("ls-files", "-z").split("\0")):
        if os.path.lexists(TOP / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, target / name, follow_symlinks=False)


def wheel_files(path: Path) -> dict[str, bytes]:
    """Read a wheel: its files and their content."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def sdist_files(path: Path) -> dict[str, bytes]:
    """Read an sdist: its files, without the directory that all are in, and their content."""
    with tarfile.open(path) as archive:
        opened = [(member.name.partition("/")[2], archive.extractfile(member)) for member in archive]
        return {name: file.read() for name, file in opened if file}


def different(wanted: dict[str, bytes], found: dict[str, bytes]) -> str:
    """Name the files that differ; "" if none does."""
    kinds = {
        "missing": wanted.keys() - found.keys(),
        "too much": found.keys() - wanted.keys(),
        "changed": {name for name in wanted.keys() & found.keys() if wanted[name] != found[name]},
    }
    return "; ".join(f"{kind}: {', '.join(sorted(names))}" for kind, names in kinds.items() if names)


def _files(top: Path) -> dict[str, bytes]:
    """Read all files below a directory, also those behind links, as packages have them."""
    found = {}
    for directory, directories, names in os.walk(top, followlinks=True):
        # What a build leaves in the sources.
        directories[:] = [name for name in directories if not name.endswith((".egg-info", "__pycache__"))]
        found.update(
            {Path(directory, name).relative_to(top).as_posix(): Path(directory, name) for name in names}
        )
    return {name: path.read_bytes() for name, path in found.items()}


def _build(*arguments: str | Path) -> None:
    # By the setuptools that tests/requirements.txt pins. All files get one time, so that a second run gives
    # the same bytes.
    time = _git("log", "-1", "--format=%ct").strip()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": time}
    command = (sys.executable, "-m", "build", "--no-isolation")
    built = _run(*command, *arguments, cwd=arguments[-1], env=environment)
    if built.returncode:
        raise UnsoundError(f"they cannot be built:\n{built.stdout}")


def _git(*arguments: str) -> str:
    answered = _run("git", "-C", TOP, *arguments)
    if answered.returncode:
        raise UnsoundError(f"git {arguments[0]} fails: {answered.stdout}")
    return answered.stdout


def _run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run(command, check=False, **output, **options)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
