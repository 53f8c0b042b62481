"""Explain why no installed package satisfies a requirement, and what to do.

These texts become part of manifests (`unmet`), so a change of their words changes the manifests' bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pkgjail.backends.debian.matching import Installed, Provision
    from pkgjail.backends.debian.root import Root
    from pkgjail.backends.debian.status import Installation
    from pkgjail.core.model import Relation


class UnmetReasons:
    """Explains requirements that `installed` does not satisfy."""

    def __init__(self, root: Root, installed: Installed) -> None:
        """Do nothing yet."""
        self._root = root
        self._installed = installed

    def explain(self, relation: Relation, architecture: str) -> str:
        """Explain the nearest miss: version, architecture, a package in another state, or no such package."""
        asked = f"({relation.operator} {relation.version})"
        named = self._installed.installed(relation.name)
        near = [
            one
            for one in named
            if self._installed.suits(one, one.package.architecture, relation, architecture)
        ]
        if near:
            return (
                f"{relation.name} is installed as {near[0].package.version}, and {asked} is asked; "
                "install such a version, or change what is asked"
            )
        broken = [
            one
            for one in self._installed.by_name.get(relation.name, ())
            if not one.complete and one.state != "not-installed"
            if not named or self._installed.suits(one, one.package.architecture, relation, architecture)
        ]
        if broken:
            return f"{relation.name!r} is {self._state(broken[0])}"
        if named:
            return self._wrong_architecture(named, relation, architecture)
        provisions = self._installed.providers.get(relation.name)
        if provisions:
            return self._wrong_provision(provisions, relation)
        return f"{relation.name!r} is not installed; install it with {self._install(relation)}"

    def _state(self, one: Installation) -> str:
        """Describe the state of a package that is not fully installed, and say what to do."""
        configure = f"run {self._root.command('dpkg --configure -a')}"
        reinstall = f"run {self._root.command(f'apt-get install --reinstall {one.package.name}')}"
        install = f"install it with {self._root.command(f'apt-get install {one.package.name}')}"
        if one.flag != "ok":
            return f"{one.state}, and dpkg says that it must be installed again; {reinstall}"
        return {
            "config-files": f"removed, and only its configuration is left; {install}",
            "half-installed": f"half installed; {reinstall}",
            "unpacked": f"unpacked but not configured; {configure}",
            "half-configured": f"configured in half; {configure}",
            "triggers-awaited": f"waiting for the triggers of another package; {configure}",
            "triggers-pending": f"waiting for its triggers; {configure}",
        }[one.state]

    def _wrong_architecture(self, named: list[Installation], relation: Relation, asker: str) -> str:
        installed = ", ".join(sorted(one.package.architecture for one in named))
        if relation.architecture == "any":
            return (
                f"{relation.name!r} is installed for {installed}, and ':any' is for packages with "
                "'Multi-Arch: allowed' alone; leave ':any' out"
            )
        wanted = self._installed.native(relation.architecture or asker)
        return (
            f"{relation.name!r} is installed for {installed}, and {wanted} is asked; install it with "
            f"{self._root.command(f'apt-get install {relation.name}:{wanted}')}"
        )

    def _wrong_provision(self, provisions: list[Provision], relation: Relation) -> str:
        names = ", ".join(dict.fromkeys(one.provider.package.key for one in provisions))
        versions = ", ".join(dict.fromkeys(one.version for one in provisions if one.version))
        asked = f"({relation.operator} {relation.version})"
        if relation.operator and not versions:
            return (
                f"{relation.name!r} is provided by {names} without a version, and {asked} is asked; "
                "ask for a package by its own name"
            )
        if relation.operator:
            return (
                f"{relation.name!r} is provided as {versions} by {names}, and {asked} is asked; "
                "install such a version, or change what is asked"
            )
        return f"{relation.name!r} is provided by {names} for another architecture; name a package itself"

    def _install(self, relation: Relation) -> str:
        suffix = f":{relation.architecture}" if relation.architecture not in {"", "any"} else ""
        return self._root.command(f"apt-get install {relation.name}{suffix}")
