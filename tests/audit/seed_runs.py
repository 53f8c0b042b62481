"""Run the builds of the seeds in jails of `seed_root`."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from pkgjail import resolve
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails.run import default_environment, run_in_jail
from tests.audit.seed_root import seed_root, tools
from tests.audit.seeds import BUILDS, COMMAND, SEEDS

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.audit.seeds import Seed

INSIDE = b"/build"
"""Where a build stands in its jail."""


def possible_seeds() -> list[Seed]:
    """The seeds whose tools are in the root."""
    return [seed for seed in SEEDS if "meson" in tools() or not seed.name.startswith("meson")]


def manifest_of(seed: Seed, place: Path, *, whole: bool = False) -> Manifest:
    """The manifest of a seed's jail; if it is `whole`, with what the seed wants."""
    names = [*tools(), *seed.lists, *([seed.package] if whole and seed.package else ())]
    include = [seed.path] if whole and not seed.package else []
    whitelist = place / f"{seed.name}.toml"
    listed = ", ".join(f'"{name}"' for name in names)
    whitelist.write_text(f"[packages]\ndebian = [{listed}]\n[files]\ninclude = {include}\n")
    return resolve([str(whitelist)], root=os.fsencode(seed_root()), hashed=False, baseline=False)


def options_of(build: Path) -> JailOptions:
    """The options of a jail in which a copy of the build stands, writable."""
    bind = UserBind(source=os.fsencode(build), destination=INSIDE, writable=True)
    return JailOptions(binds=(bind,), cwd=INSIDE, network=False, environment=default_environment())


def copy_of_build(seed: Seed, place: Path) -> Path:
    """A fresh copy of the seed's build."""
    build = place / f"build-{seed.name}"
    shutil.rmtree(build, ignore_errors=True)
    shutil.copytree(BUILDS / seed.name, build)
    return build


def output_of(build: Path) -> dict[str, bytes]:
    """What the build left in `out`."""
    out = build / "out"
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def run_seed(seed: Seed, place: Path, *, whole: bool) -> dict[str, bytes]:
    """Run a seed's build without an audit; its output."""
    build = copy_of_build(seed, place)
    manifest = manifest_of(seed, place, whole=whole)
    assert run_in_jail(manifest, COMMAND, options_of(build), root=os.fsencode(seed_root())).returncode == 0, (
        seed.name
    )
    return output_of(build)
