"""Explain why no installed package satisfies a requirement, and what to do.

These texts become part of manifests (`unmet`), so a change of their words changes the manifests' bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.backends.rpm import boolean
from pkgjail.backends.rpm.versions import OPERATORS
from pkgjail.core.model import Relation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pkgjail.backends.root import Root
    from pkgjail.backends.rpm.installed import Installed


# Of several in one root, the first is the one that its users know. An image without packages of its own for
# images (ostree) refuses the others.
_INSTALLERS = {
    "suse": ("zypper", "dnf5", "dnf"),
    "rhel": ("rpm-ostree", "tdnf", "dnf5", "dnf", "yum", "microdnf", "urpmi", "zypper"),
}


def installer(names: Iterable[str], family: str) -> str:
    """Return the command that installs packages where packages of these `names` are installed."""
    installed = set(names)
    known = _INSTALLERS[family]
    found = next((name for name in known if name in installed), "zypper" if family == "suse" else "dnf")
    return found.removesuffix("5")


class UnmetReasons:
    """Explains requirements that `installed` does not satisfy."""

    def __init__(self, root: Root, installed: Installed, installer: Callable[[], str]) -> None:
        """Do nothing yet."""
        self._root = root
        self._installed = installed
        self._installer = installer

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
        program = f"{self._installer()} install"
        quoted = f'"{name}"' if "(" in name else name
        return f"install it with {self._root.command(f'{program} {quoted}')}"
