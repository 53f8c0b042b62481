"""Repositories of the packages of `real_world`, their metadata made by the distributions' own programs."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests import real_roots, real_world
from tests.real_roots import kept, packages, run

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCES = {"deb": "debian", "rpm": "rhel", "pacman": "arch"}
"""What `--available` calls the repositories of a family of `real_roots`."""


@cache
def repository(family: str) -> Path:
    """The directory of the world's packages and their metadata."""
    sources = [Path(module).read_text() for module in (__file__, real_roots.__file__, real_world.__file__)]
    made = packages(family) / "packages"  # before `kept`, which holds a lock
    return kept(f"repository-{family}", partial(_make, family, made), *sources)


def source(family: str, place: Path | None = None) -> str:
    """The argument of `--available` for it, or for the same in `place`."""
    return f"{SOURCES[family]}:{place or repository(family)}"


def _make(family: str, made: Path, place: Path) -> None:
    run("cp", *(path for path in sorted(made.iterdir()) if path.suffix in {".deb", ".rpm", ".zst"}), place)
    index(family, place)


def index(family: str, place: Path) -> None:
    """Have the packages in `place` indexed, as those who run repositories do."""
    if family == "deb":
        (place / "Packages").write_text(run("dpkg-scanpackages", "--multiversion", ".", cwd=place))
    elif family == "rpm":
        run("createrepo_c", "-q", "--no-database", place)
    else:
        run("repo-add", "-q", place / "made.db.tar.gz", *sorted(place.glob("*.pkg.tar.zst")))


def apt(place: Path, *arguments: str, lists: Sequence[str] = ()) -> str:
    """Return apt-get's plan for an empty system; `lists` are its sources, or the host's if there are none."""
    for name in ("cache/archives/partial", "lists/partial"):
        (place / name).mkdir(parents=True, exist_ok=True)
    (place / "status").touch()
    own = ["-o", f"Dir::State::status={place}/status", "-o", f"Dir::Cache={place}/cache"]
    if lists:
        (place / "sources.list").write_text("".join(f"{line}\n" for line in lists))
        own += ["-o", f"Dir::Etc::SourceList={place}/sources.list", "-o", "Dir::Etc::SourceParts=-"]
        own += ["-o", f"Dir::State::Lists={place}/lists", "-o", "APT::Sandbox::User="]
        run("apt-get", "-qq", *own, "update")
    return run("apt-get", "-s", "-qq", *own, "-o", "APT::Architecture=amd64", *arguments)
