"""Explain why no installed package satisfies a requirement, and what to do.

These texts become part of manifests (`unmet`), so a change of their words changes the manifests' bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.backends.rpm import boolean
from pkgjail.backends.rpm.versions import OPERATORS
from pkgjail.core.model import Relation

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.backends.root import Root
    from pkgjail.backends.rpm.installed import Installed


class UnmetReasons:
    """Explains requirements that `installed` does not satisfy."""

    def __init__(self, root: Root, installed: Installed, is_suse: Callable[[], bool]) -> None:
        """Do nothing yet."""
        self._root = root
        self._installed = installed
        self._is_suse = is_suse

    def explain(self, relation: Relation, architecture: str) -> str:
        """Explain the nearest miss: version, architecture, or no such package."""
        if boolean.is_rich(relation.name):
            return (
                f"no installed package, or none alone, satisfies {relation.name}; {self._install(relation)}"
            )
        named = [one for one in self._installed.packages.values() if one.name == relation.name]
        of_any_architecture = Relation(
            name=relation.name, operator=relation.operator, version=relation.version
        )
        if relation.architecture and self._installed.candidates(of_any_architecture, architecture):
            found = self._installed.candidates(of_any_architecture, architecture)
            have = ", ".join(sorted({package.architecture for package in found}))
            return (
                f"{relation.name!r} is installed for {have}, and {relation.architecture} is asked; "
                + self._install(relation)
            )
        asked = boolean.show(Relation(name="", operator=relation.operator, version=relation.version)).strip()
        if named:
            return (
                f"{relation.name} is installed as {named[0].version}, and ({asked}) is asked; "
                "install such a version, or change what is asked"
            )
        provisions = self._installed.providers.get(relation.name)
        if provisions and OPERATORS[relation.operator]:
            versions = ", ".join(dict.fromkeys(one.version for one in provisions))
            names = ", ".join(dict.fromkeys(one.package.key for one in provisions))
            return (
                f"{relation.name!r} is provided as {versions} by {names}, and ({asked}) is asked; "
                "install such a version, or change what is asked"
            )
        return (
            f"{relation.name!r} is not installed, and nothing that is provides it; {self._install(relation)}"
        )

    def _install(self, relation: Relation) -> str:
        suffix = f".{relation.architecture}" if relation.architecture else ""
        name = relation.name + suffix
        program = "zypper install" if self._is_suse() else "dnf install"
        quoted = f'"{name}"' if "(" in name else name
        return f"install it with {self._root.command(f'{program} {quoted}')}"
