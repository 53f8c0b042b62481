"""The grammar of requirements and versions: Debian Policy chapter 7, deb-version(7)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pkgjail.core.model import DependencyGroup, Relation

if TYPE_CHECKING:
    from collections.abc import Iterator

# dpkg also accepts `_` and capitals, which Policy 5.6.1 does not; old packages have them.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")
ARCHITECTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
# deb-version(7): [epoch:]upstream[-revision]; a colon needs an epoch. `is_version` checks the revision.
# The lengths keep numbers within the limits of dpkg and Python's int().
_VERSION = re.compile(
    r"(?=.{1,1024}\Z)(?:[0-9]{1,9}:[A-Za-z0-9.+~][A-Za-z0-9.+~:-]*|[A-Za-z0-9.+~][A-Za-z0-9.+~-]*)"
)
_ALTERNATIVE = re.compile(
    rf"(?P<name>{NAME.pattern})(?::(?P<architecture>{ARCHITECTURE.pattern}))?"
    r"\s*(?:\(\s*(?P<operator><<|<=|=|>=|>>|<|>)\s*(?P<version>[^\s()]+)\s*\))?",
    re.ASCII,
)
# Obsolete operators that dpkg still accepts in a package's own fields, and their meaning (deb-control(5)).
_OBSOLETE = {"<": "<=", ">": ">="}


def is_version(text: str) -> bool:
    """Return whether `text` is a version by deb-version(7) that every comparison reads in the same way."""
    # The revision, after the last hyphen, is not empty and has no colon.
    _, hyphen, revision = text.rpartition("-")
    sound = bool(revision) and ":" not in revision if hyphen else True
    return sound and _VERSION.fullmatch(text) is not None


def parse_alternative(text: str, *, lenient: bool = False) -> Relation:
    """Parse `name[:architecture] [(operator version)]`.

    With `lenient`, the operators `<` and `>` mean `<=` and `>=`, as for dpkg. Raises `ValueError` with what
    is wrong with `text`.
    """
    text = text.strip()
    match = _ALTERNATIVE.fullmatch(text)
    operator = match["operator"] or "" if match else ""
    if match is None or (operator in _OBSOLETE and not lenient) or not is_version(match["version"] or "0"):
        raise ValueError(next(_faults_of_alternative(" ".join(text.split()))))
    return Relation(
        name=match["name"],
        architecture=match["architecture"] or "",
        operator=_OBSOLETE.get(operator, operator),
        version=match["version"] or "",
    )


def parse_group(text: str, kind: str, *, lenient: bool = False) -> DependencyGroup:
    """Parse one requirement, `alternative | alternative …`. Raises `ValueError`."""
    parts = text.split("|")
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise ValueError(f"a package name is missing beside a '|' in {text!r}")
    alternatives = tuple(parse_alternative(part, lenient=lenient) for part in parts)
    return DependencyGroup(kind=kind, alternatives=alternatives, text=" ".join(text.split()))


def parse_entry(text: str) -> tuple[DependencyGroup, ...]:
    """Parse an entry of a whitelist, one requirement in the syntax of Policy 7.1. Raises `ValueError`."""
    if "," in text:
        raise ValueError(f"{text!r} has a comma, so it is more than one requirement; write an entry for each")
    return (parse_group(text, "whitelist"),)


def _faults_of_alternative(text: str) -> Iterator[str]:
    """Find faults in a text that is not an alternative with a valid version, the plainest first."""
    head, bracket, rest = text.partition("(")
    name, colon, architecture = head.rstrip().partition(":")
    if not text:
        yield "a package name is missing"
    if "[" in text or "<" in head:
        yield f"{text!r} has a restriction of build dependencies, '[…]' or '<…>'; it has no meaning here"
    if not name:
        yield f"a package name is missing in {text!r}"
    if len(head.split()) > 1:
        yield f"{head.strip()!r} is more than one package name; write an entry for each"
    if NAME.fullmatch(name) is None:
        yield f"{name!r} is not a package name: letters, digits, '+', '-', '.', the first no sign"
    if colon and not architecture:
        yield f"an architecture is missing after ':' in {text!r}"
    if colon and ARCHITECTURE.fullmatch(architecture) is None:
        yield f"{architecture!r} is not an architecture in {text!r}; write 'any' or one like 'amd64'"
    yield _version_fault(text, rest) if bracket else f"{text!r} is not a requirement (Debian Policy 7.1)"


def _version_fault(text: str, rest: str) -> str:
    """Say what is wrong after the `(` of an alternative."""
    inner, closing, after = rest.partition(")")
    found = re.match(r"\s*([<=>]*)\s*(.*)", inner, re.DOTALL)
    operator, version = (found[1], found[2].strip()) if found else ("", inner)
    if not closing:
        return f"{text!r} has a '(' that nothing closes"
    if after.strip():
        return f"{after.strip()!r} stands after the version in {text!r}; write an entry for each package"
    if operator not in {"<<", "<=", "=", ">=", ">>"}:
        said = f"{operator!r} is not an operator" if operator else "an operator is missing"
        return f"{said} in {text!r}; use one of <<, <=, =, >=, >>"
    if not version:
        return f"a version is missing after {operator!r} in {text!r}"
    return f"{version!r} is not a version in {text!r}; see deb-version(7)"
