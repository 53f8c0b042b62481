"""Parse pacman's requirements: `name`, `name>=1:2-3`, and `libfoo.so=1-64`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pkgjail.backends.pacman.versions import satisfies
from pkgjail.core.model import DependencyGroup, Relation
from pkgjail.core.text import split_alternatives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_RELATION = re.compile(r"(?P<name>[^<>=\s]+)\s*(?:(?P<operator><=|>=|=|<|>)\s*(?P<version>[^<>=\s]+))?")
_OPERATORS = {"<": "<<", ">": ">>"}


def parse_relation(text: str) -> Relation:
    """Parse one requirement. Raises `ValueError` with what is wrong with it."""
    match = _RELATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text.strip()!r} is not a package, or one with a version such as 'name>=1.2' (PKGBUILD(5))"
        )
    sign = match["operator"] or ""
    return Relation(name=match["name"], operator=_OPERATORS.get(sign, sign), version=match["version"] or "")


def group_of(text: str, kind: str) -> DependencyGroup:
    """Return the requirement `text` of the field `kind`. Raises `ValueError`."""
    return DependencyGroup(kind=kind, alternatives=(parse_relation(text),), text=" ".join(text.split()))


def entry_groups(
    text: str, members: Mapping[str, Sequence[str]], is_provided: Callable[[Relation], bool]
) -> tuple[DependencyGroup, ...]:
    """Parse an entry of a whitelist: a requirement, several between `|`, the preferred first, or a group.

    `members` are the names of the packages of each group, which counts if nothing of its name `is_provided`.
    Raises `ValueError`.
    """
    parts = split_alternatives(text)
    relations = tuple(map(parse_relation, parts))
    groups = [one for one in relations if not one.operator and members.get(one.name) and not is_provided(one)]
    if groups and len(parts) > 1:
        raise ValueError(f"{groups[0].name!r} is a group, which cannot stand beside '|'; name packages")
    if groups:
        return tuple(group_of_name(name, "whitelist") for name in members[groups[0].name])
    shown = " | ".join(" ".join(part.split()) for part in parts)
    return (DependencyGroup(kind="whitelist", alternatives=relations, text=shown),)


def group_of_name(name: str, kind: str) -> DependencyGroup:
    """Return the requirement of a package by its name, which may have any characters."""
    relation = Relation(name=name, operator="", version="")
    return DependencyGroup(kind=kind, alternatives=(relation,), text=name)


def fits(version: str, required: Relation) -> bool:
    """Return whether a package of the required name has a version that satisfies the requirement."""
    return not required.operator or satisfies(version, required.operator, required.version)


def offer_fits(offer: Relation, required: Relation) -> bool:
    """Return whether a provision of the required name satisfies the requirement.

    One without a version does not satisfy a requirement with one (libalpm's lib/libalpm/deps.c,
    `_alpm_depcmp_provides`).
    """
    return not required.operator or (offer.operator == "=" and fits(offer.version, required))


def is_satisfied(required: Relation, name: str, version: str, offers: Iterable[Relation]) -> bool:
    """Return whether a package, or any of its provisions, satisfies a requirement (`_alpm_depcmp`)."""
    return (name == required.name and fits(version, required)) or any(
        offer.name == required.name and offer_fits(offer, required) for offer in offers
    )
