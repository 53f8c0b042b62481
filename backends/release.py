"""Read os-release(5), or what came before it, which names the distribution of a root."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from pkgjail.core.families import known_family
from pkgjail.core.model import Distribution
from pkgjail.core.text import text_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.backends.root import Root

_OS_RELEASE = (b"/etc/os-release", b"/usr/lib/os-release")
# What the first line of such a file begins with, and ID of the distribution's later os-release.
_OLD_NAMES = (
    ("CentOS", "centos"),
    ("Fedora", "fedora"),
    ("Oracle", "ol"),
    ("Red Hat", "rhel"),
    ("Scientific", "scientific"),
    ("SUSE Linux Enterprise Desktop", "sled"),
    ("SUSE Linux Enterprise", "sles"),
    ("openSUSE", "opensuse"),
)
_RELEASE = re.compile(r" release ([0-9]+(?:\.[0-9]+)*)")
_SUSE_FIELD = re.compile(r"^(VERSION|PATCHLEVEL) *= *([0-9.]+) *$", re.MULTILINE)
_NAME = re.compile(r"[a-z0-9._-]+")


def read_distribution(root: Root) -> Distribution:
    """Return `ID` and `VERSION_ID`, preferably from /etc; links are resolved inside the root."""
    fields = read_release(root)
    return Distribution(id=fields.get("ID", "linux"), version=fields.get("VERSION_ID", ""))


def read_release(root: Root) -> dict[str, str]:
    """Return all fields of the file that `read_distribution` reads.

    Distributions from before 2012 have other files, from which only ID and VERSION_ID are made.
    """
    for candidate in _OS_RELEASE:
        path = root.inside(candidate)
        if os.path.lexists(path):
            return _assignments(root, path)
    for candidate, parse in _OLD_FILES.items():
        path = root.inside(candidate)
        if os.path.lexists(path):
            return parse(root, path)
    raise root.error(
        "it has neither etc/os-release nor usr/lib/os-release",
        "install the package that has it",
    )


def release_families(fields: dict[str, str]) -> tuple[str, ...]:
    """Return the known families of the words in ID and ID_LIKE, in their order."""
    words = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".split()
    return tuple(dict.fromkeys(filter(None, map(known_family, words))))


def _assignments(root: Root, path: bytes) -> dict[str, str]:
    fields = {}
    for number, line in enumerate(text_path(root.read(path)).split("\n"), 1):
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith("#"):
            continue
        with root.parsing(b"%s:%d" % (path, number), "quote the value as os-release(5) says"):
            words = shlex.split(value)
        fields[name] = " ".join(words)
    return fields


def _of_red_hat(root: Root, path: bytes) -> dict[str, str]:
    """`CentOS release 6.10 (Final)`."""
    text = text_path(root.read(path))
    found = _RELEASE.search(text)
    return {"ID": _named(text), "VERSION_ID": found[1] if found else ""}


def _of_suse(root: Root, path: bytes) -> dict[str, str]:
    """`SUSE Linux Enterprise Server 11 (x86_64)`, and fields; os-release counts patch levels with a dot."""
    text = text_path(root.read(path))
    fields = dict(_SUSE_FIELD.findall(text))
    parts = (fields.get("VERSION", ""), fields.get("PATCHLEVEL", "0"))
    return {"ID": _named(text), "VERSION_ID": ".".join(part for part in parts if part != "0")}


def _of_lsb(root: Root, path: bytes) -> dict[str, str]:
    fields = _assignments(root, path)
    return {"ID": _named(fields.get("DISTRIB_ID", "")), "VERSION_ID": fields.get("DISTRIB_RELEASE", "")}


def _of_debian(root: Root, path: bytes) -> dict[str, str]:
    """`6.0.10`, or `squeeze/sid` before a release."""
    major = text_path(root.read(path)).strip().partition(".")[0]
    return {"ID": "debian", "VERSION_ID": major if major.isdecimal() else ""}


def _of_arch(root: Root, path: bytes) -> dict[str, str]:
    del root, path  # mostly an empty file
    return {"ID": "arch"}


def _named(text: str) -> str:
    """Return the ID for a name: a known one, or its first word."""
    known = next((name for start, name in _OLD_NAMES if text.startswith(start)), "")
    found = _NAME.match(text.lower())
    return known or (found[0] if found else "linux")


# In this order: those of Oracle and Ubuntu are beside that of the distribution that theirs derives from.
_OLD_FILES: dict[bytes, Callable[[Root, bytes], dict[str, str]]] = {
    b"/etc/oracle-release": _of_red_hat,
    b"/etc/redhat-release": _of_red_hat,
    b"/etc/SuSE-release": _of_suse,
    b"/etc/lsb-release": _of_lsb,
    b"/etc/debian_version": _of_debian,
    b"/etc/arch-release": _of_arch,
}
