"""Rows of a backend's allow-list of files that no package owns."""

from __future__ import annotations

from pkgjail.core.model import Generated


def generated(package: str, made_by: str, *patterns: str, at_entry: bool = False) -> tuple[Generated, ...]:
    """Return a row for each of `patterns`; see `Generated` for the fields."""
    return tuple(
        Generated(pattern=pattern, package=package, made_by=made_by, at_entry=at_entry)
        for pattern in patterns
    )
