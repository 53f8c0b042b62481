"""Parse pacman's requirements: `name`, `name>=1:2-3`, and `libfoo.so=1-64`."""

from __future__ import annotations

import re

from pkgjail.core.model import DependencyGroup, Relation

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


def group_of_name(name: str, kind: str) -> DependencyGroup:
    """Return the requirement of a package by its name, which may have any characters."""
    relation = Relation(name=name, operator="", version="")
    return DependencyGroup(kind=kind, alternatives=(relation,), text=name)
