"""Small Debian roots made from text, and what the tests of the Debian backends share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.backends import available
from pkgjail.backends.debian.relations import parse_alternative

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import DependencyGroup, Package, Relation


USABLE = [status.name for status in available() if status.usable]
C_LOCALE = {**os.environ, "LC_ALL": "C"}

every_backend = pytest.mark.parametrize("backend", USABLE)


def stanza(line: str) -> str:
    """A stanza from `name version architecture [state]; Field: value; …`; state is one word or three."""
    head, *fields = [part.strip() for part in line.split(";")]
    name, version, architecture, *state = head.split()
    status = " ".join(state) if len(state) > 1 else f"install ok {state[0] if state else 'installed'}"
    lines = [
        f"Package: {name}",
        f"Status: {status}",
        f"Architecture: {architecture}",
        f"Version: {version}",
        *fields,
    ]
    return "\n".join(lines) + "\n\n"


def make_root(root: Path, *lines: str, files: dict[str, str] | None = None) -> bytes:
    """A root with the packages of `lines` (see `stanza`), dpkg itself for amd64, and `files`."""
    content = {
        "var/lib/dpkg/status": "".join(map(stanza, ("dpkg 1.21.22 amd64", *lines))),
        "var/lib/dpkg/info/format": "1\n",
        **(files or {}),
    }
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return os.fsencode(root)


def keys(packages: tuple[Package, ...]) -> str:
    return " ".join(package.key for package in packages)


def show(group: DependencyGroup) -> str:
    return f"{group.kind}: {group.text}"


def relation(text: str) -> Relation:
    return parse_alternative(text)
