"""Time a package plan from a distribution's metadata, and apt's for a machine where nothing is installed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.measure import Subject, timed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PACKAGE = "build-essential"
APT = f"apt-get -s install {PACKAGE}"


def planning_subjects(pkgjail: Sequence[str], lists: Path, place: Path) -> list[Subject]:
    """Return the plan of one package from apt's lists, and apt's own, with an empty status file."""
    whitelist, status = place / "planned.toml", place / "status"
    whitelist.write_text(f'[packages]\ndebian = ["{PACKAGE}"]\n', encoding="utf-8")
    status.write_text("", encoding="utf-8")
    (place / "archives/partial").mkdir(parents=True)
    options = ["-o", f"Dir::State::status={status}", "-o", f"Dir::Cache::Archives={place}/archives"]
    options += ["-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "--no-install-recommends"]
    plan = [*pkgjail, "resolve", str(whitelist), "--no-essential", "--available", f"debian:{lists}"]
    return [
        Subject(APT, partial(timed, ["apt-get", "-s", "-qq", *options, "install", PACKAGE])),
        Subject(f"resolve {PACKAGE} --available", partial(timed, plan), APT),
    ]
