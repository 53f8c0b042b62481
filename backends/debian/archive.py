"""Debian's archive, of which images are made: this host's suite, apt sources, and names that apt checks."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from pkgjail.backends.debian.relations import parse_entry
from pkgjail.backends.release import read_release
from pkgjail.backends.root import Root
from pkgjail.core.families import DEBIAN
from pkgjail.core.model import Package

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pkgjail.core.model import DependencyGroup, Relation

_FORMAT = "$(SOURCESENTRY) $(RELEASE)"


class AnyPackages:
    """A `PackageNames` with every name: whitelists for it are checked for all but the names of packages."""

    family = DEBIAN
    architecture = ""
    packages: Mapping[str, Package] = {}

    def parse(self, text: str) -> tuple[DependencyGroup, ...]:
        """Parse one requirement in the syntax of Policy 7.1."""
        return parse_entry(text)

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Return a package of that name."""
        return (Package(name=relation.name, version=relation.version, architecture=architecture),)

    def unmet_reason(self, relation: Relation, architecture: str) -> str:
        """Return nothing: there is always a candidate."""
        del relation, architecture
        return ""

    def available_names(self) -> Collection[str]:
        """Return no names: the metadata of repositories is not read."""
        return ()


def host_suite() -> str:
    """Return the code name of this host's release if it is Debian, otherwise "".

    Raises:
        DatabaseError: its os-release(5) cannot be read.

    """
    fields = read_release(Root(b"/"))
    return fields.get("VERSION_CODENAME", "") if fields.get("ID") == DEBIAN else ""


def host_sources(suite: str) -> tuple[str, ...]:
    """Return the files of this host's apt sources that have no entry but for `suite` and what belongs to it.

    That is `bookworm-updates` or `bookworm-security` for `bookworm`. There is none on a host without apt.
    """
    program = shutil.which("apt-get")
    if program is None:
        return ()
    command = [program, "indextargets", "--no-release-info", "--format", _FORMAT, "Created-By: Packages"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    others: dict[str, bool] = {}
    for line in os.fsdecode(done.stdout).splitlines():
        entry, _, release = line.rpartition(" ")
        file = entry.rpartition(":")[0]
        belongs = release == suite or release.startswith((f"{suite}-", f"{suite}/"))
        others[file] = others.get(file, False) or not belongs
    return tuple(file for file, has_others in others.items() if not has_others)
