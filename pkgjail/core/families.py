"""The families of distributions, by the words that os-release(5) has for a distribution.

A family is the key of `[packages]` in a whitelist. Which one a root is of, its package database says, and
its distribution's name only decides between families of one kind of database. The family in turn decides
the order of versions, package URLs and advice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pkgjail.core.model import Distribution

DEBIAN, RHEL, SUSE, ARCH = "debian", "rhel", "suse", "arch"

# Part of the manifest's format: the family that follows from an ID is not written. So a line that is added
# here changes what manifests without a family mean. A new distribution needs none: its family is written,
# and its ID_LIKE names an older one.
FAMILIES = {
    **dict.fromkeys(
        ("debian", "devuan", "kali", "linuxmint", "pop", "raspbian", "ubuntu"),
        DEBIAN,
    ),
    **dict.fromkeys(
        (
            "almalinux", "amzn", "anolis", "azurelinux", "centos", "cloudlinux", "eurolinux", "fedora",
            "mageia", "mariner", "ol", "openEuler", "openmandriva", "photon", "rhel", "rocky", "scientific",
        ),
        RHEL,
    ),
    **dict.fromkeys(
        (
            "opensuse", "opensuse-leap", "opensuse-leap-micro", "opensuse-microos", "opensuse-slowroll",
            "opensuse-tumbleweed", "sl-micro", "sle-micro", "sle_hpc", "sled", "sles", "sles_sap", "suse",
        ),
        SUSE,
    ),
    **dict.fromkeys(
        (
            "arch", "archarm", "artix", "cachyos", "endeavouros", "garuda", "manjaro", "manjaro-arm",
        ),
        ARCH,
    ),
}  # fmt: skip


def known_family(word: str) -> str:
    """Return the family of a word in ID or ID_LIKE of os-release(5); "" if it is not known."""
    return FAMILIES.get(word, "")


def implied_family(name: str) -> str:
    """Return the family of a distribution by its ID alone, as a manifest without a family means it."""
    return FAMILIES.get(name, DEBIAN)


def family_of(distribution: Distribution) -> str:
    """Return the family of a manifest's distribution."""
    return distribution.family or implied_family(distribution.id)


def with_family(distribution: Distribution, family: str) -> Distribution:
    """Return a distribution of `family`, which is left out if its ID implies it."""
    return replace(distribution, family="" if family == implied_family(distribution.id) else family)
