"""Distributions by the fields that their own os-release, or older files, have; and what follows from them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from pkgjail.backends import available, version_order
from pkgjail.backends.release import read_distribution, read_release, release_families
from pkgjail.backends.root import Root
from pkgjail.backends.rpm.unmet import installer
from pkgjail.core.errors import DatabaseError
from pkgjail.core.families import FAMILIES, family_of, implied_family, known_family, with_family
from pkgjail.core.model import Distribution


class Release(NamedTuple):
    """The lines of a distribution's os-release that matter, and what is made of them."""

    lines: str
    shown: str
    families: str


# fmt: off
RELEASES = [
    # Debian and its derivatives
    Release('ID=debian\nVERSION_ID="12"', "debian 12", "debian"),
    Release('PRETTY_NAME="Debian GNU/Linux trixie/sid"\nID=debian', "debian", "debian"),
    Release('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"', "ubuntu 24.04", "debian"),
    Release('ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"', "linuxmint 22", "debian"),
    Release('ID=raspbian\nID_LIKE=debian\nVERSION_ID="11"', "raspbian 11", "debian"),
    Release('ID=kali\nID_LIKE=debian\nVERSION_ID="2024.3"', "kali 2024.3", "debian"),
    Release('ID=pop\nID_LIKE="ubuntu debian"\nVERSION_ID="22.04"', "pop 22.04", "debian"),
    Release('ID=devuan\nID_LIKE=debian\nVERSION_ID="5"', "devuan 5", "debian"),
    # Fedora, RHEL and its rebuilds
    Release("ID=fedora\nVERSION_ID=40", "fedora 40", "rhel"),
    Release('ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.4"', "rhel 9.4", "rhel"),
    Release('ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="7"', "centos 7", "rhel"),
    Release('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.3"', "rocky 9.3", "rhel"),
    Release('ID="rocky"', "rocky", "rhel"),
    Release('ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.9"', "almalinux 8.9", "rhel"),
    Release('ID="ol"\nID_LIKE="fedora"\nVARIANT_ID="server"\nVERSION_ID="8.9"', "ol 8.9", "rhel"),
    Release('ID="ol"\nVERSION_ID="7.9"', "ol 7.9", "rhel"),
    Release('ID="amzn"\nID_LIKE="centos rhel fedora"\nVERSION_ID="2"', "amzn 2", "rhel"),
    Release('ID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"', "amzn 2023", "rhel"),
    Release('ID=azurelinux\nVERSION_ID="3.0"', "azurelinux 3.0", "rhel"),
    Release('ID=mariner\nVERSION_ID="2.0"', "mariner 2.0", "rhel"),
    Release("ID=photon\nVERSION_ID=5.0", "photon 5.0", "rhel"),
    Release('ID=mageia\nID_LIKE="mandriva fedora"\nVERSION_ID=9', "mageia 9", "rhel"),
    Release('ID="openEuler"\nVERSION_ID="22.03"', "openEuler 22.03", "rhel"),
    Release('ID=nobara\nID_LIKE="fedora"\nVERSION_ID=39', "nobara 39", "rhel"),
    # openSUSE and SLE
    Release('ID="sles"\nVERSION_ID="12.5"', "sles 12.5", "suse"),
    Release('ID="sles"\nID_LIKE="suse"\nVERSION_ID="15.5"', "sles 15.5", "suse"),
    Release('ID="sled"\nVERSION_ID="12.5"', "sled 12.5", "suse"),
    Release('ID="opensuse"\nID_LIKE="suse"\nVERSION_ID="42.3"', "opensuse 42.3", "suse"),
    Release('ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"', "opensuse-leap 15.6", "suse"),
    Release('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\nVERSION_ID="20240901"',
            "opensuse-tumbleweed 20240901", "suse"),
    Release('ID="sl-micro"\nID_LIKE="suse"\nVERSION_ID="6.0"', "sl-micro 6.0", "suse"),
    # Arch and its derivatives
    Release("ID=arch\nBUILD_ID=rolling", "arch", "arch"),
    Release("ID=archarm\nID_LIKE=arch", "archarm", "arch"),
    Release("ID=manjaro\nID_LIKE=arch\nBUILD_ID=rolling", "manjaro", "arch"),
    Release('ID=manjaro-arm\nID_LIKE="manjaro arch"', "manjaro-arm", "arch"),
    Release("ID=manjaro-arm", "manjaro-arm", "arch"),
    Release("ID=cachyos\nID_LIKE=arch\nBUILD_ID=rolling", "cachyos", "arch"),
    Release("ID=endeavouros\nID_LIKE=arch", "endeavouros", "arch"),
    Release("ID=steamos\nID_LIKE=arch\nVERSION_ID=3.5.19", "steamos 3.5.19", "arch"),
    # Names that nobody here knows
    Release('ID=novel\nID_LIKE="novella debian"', "novel", "debian"),
    Release('ID=novel\nID_LIKE="arch"', "novel", "arch"),
    Release("ID=novel\nVERSION_ID=1", "novel 1", ""),
    Release("NAME=Novel", "linux", ""),
    Release("", "linux", ""),
]
# fmt: on


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.lines.replace("\n", " "))
def test_release(release: Release, tmp_path: Path) -> None:
    """Protects the name of a distribution and the family that its own words give."""
    write(tmp_path, "etc/os-release", release.lines + "\n")
    root = Root(os.fsencode(tmp_path))
    found = read_distribution(root)
    assert f"{found.id} {found.version}".strip() == release.shown
    assert " ".join(release_families(read_release(root))) == release.families


# Each row: the file that the distribution has instead, its text, the name.
OLDER = [
    ("etc/redhat-release", "CentOS release 5.11 (Final)\n", "centos 5.11", "rhel"),
    ("etc/redhat-release", "CentOS release 6.10 (Final)\n", "centos 6.10", "rhel"),
    (
        "etc/redhat-release",
        "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n",
        "rhel 6.10",
        "rhel",
    ),
    ("etc/redhat-release", "Scientific Linux release 6.10 (Carbon)\n", "scientific 6.10", "rhel"),
    ("etc/redhat-release", "Fedora release 14 (Laughlin)\n", "fedora 14", "rhel"),
    ("etc/redhat-release", "XenServer release 7.2.0 (xenenterprise)\n", "xenserver 7.2.0", ""),
    ("etc/oracle-release", "Oracle Linux Server release 6.10\n", "ol 6.10", "rhel"),
    (
        "etc/SuSE-release",
        "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n",
        "sles 11.4",
        "suse",
    ),
    ("etc/SuSE-release", "openSUSE 11.4 (x86_64)\nVERSION = 11.4\nCODENAME = x\n", "opensuse 11.4", "suse"),
    ("etc/lsb-release", 'DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE="10.04"\n', "ubuntu 10.04", "debian"),
    ("etc/debian_version", "6.0.10\n", "debian 6", "debian"),
    ("etc/debian_version", "squeeze/sid\n", "debian", "debian"),
    ("etc/arch-release", "", "arch", "arch"),
    ("etc/redhat-release", "\0?\n", "linux", ""),
]


@pytest.mark.parametrize(("name", "text", "shown", "family"), OLDER, ids=[row[2] for row in OLDER])
def test_before_os_release(name: str, text: str, shown: str, family: str, tmp_path: Path) -> None:
    """Protects systems from before 2012: CentOS and RHEL 5 and 6, SLES 11, Debian 6, Ubuntu 10.04."""
    write(tmp_path, name, text)
    root = Root(os.fsencode(tmp_path))
    found = read_distribution(root)
    assert f"{found.id} {found.version}".strip() == shown
    assert " ".join(release_families(read_release(root))) == family
    write(tmp_path, "etc/os-release", "ID=newer\n")
    assert read_distribution(root).id == "newer"


def test_the_derivative_s_own_file(tmp_path: Path) -> None:
    """Protects Oracle Linux 6, which also has the file of what it derives from."""
    write(tmp_path, "etc/redhat-release", "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n")
    write(tmp_path, "etc/oracle-release", "Oracle Linux Server release 6.10\n")
    assert read_distribution(Root(os.fsencode(tmp_path))).id == "ol"


def test_a_root_without_a_name(tmp_path: Path) -> None:
    """Protects from a guess."""
    with pytest.raises(DatabaseError, match="it has neither etc/os-release nor usr/lib/os-release; install"):
        read_distribution(Root(os.fsencode(tmp_path)))


# Each row: what is installed, the family, the command.
INSTALLERS = [
    ("rpm dnf yum", "rhel", "dnf"),
    ("rpm dnf5", "rhel", "dnf"),
    ("rpm yum", "rhel", "yum"),
    ("rpm microdnf", "rhel", "microdnf"),
    ("rpm tdnf", "rhel", "tdnf"),
    ("rpm tdnf dnf", "rhel", "tdnf"),
    ("rpm-ostree dnf", "rhel", "rpm-ostree"),
    ("rpm", "rhel", "dnf"),
    ("rpm zypper dnf", "suse", "zypper"),
    ("rpm", "suse", "zypper"),
    ("dnf", "suse", "dnf"),
]


@pytest.mark.parametrize(("names", "family", "command"), INSTALLERS, ids=[row[0] for row in INSTALLERS])
def test_installer(names: str, family: str, command: str) -> None:
    """Protects advice from a program that the root does not have."""
    assert installer(names.split(), family) == command


@pytest.mark.parametrize(
    ("name", "family", "older", "newer"),
    [
        ("debian", "", "1.0~rc1-1", "1.0-1"),
        ("pureos", "", "1.0~rc1-1", "1.0-1"),
        ("novel", "rhel", "1.0-1", "1.0^git1-1"),
        ("sles", "", "1.0-1", "1.0^git1-1"),
        ("rocky", "", "1.0-1", "1.0^git1-1"),
        ("cachyos", "", "1.0rc-1", "1.0-1"),
        ("novel", "arch", "1.0rc-1", "1.0-1"),
        ("fedora", "debian", "1.0~rc1-1", "1.0-1"),
    ],
)
def test_the_family_decides_the_order_of_versions(name: str, family: str, older: str, newer: str) -> None:
    """Protects comparisons from a name that nobody knows, or that lies about the database."""
    order = version_order(Distribution(id=name, version="", family=family))
    assert order is not None
    assert order(older, newer) < 0 < order(newer, older)


def test_a_family_is_written_only_if_needed() -> None:
    """Protects the bytes of manifests: of known names, and of Debian's derivatives, known or not."""
    for name, family in (("debian", "debian"), ("pureos", "debian"), ("rocky", "rhel"), ("sles", "suse")):
        made = with_family(Distribution(id=name, version="1"), family)
        assert made == Distribution(id=name, version="1")
        assert family_of(made) == family
    for name, family in (("novel", "rhel"), ("fedora", "debian"), ("alpine", "alpine")):
        made = with_family(Distribution(id=name, version="1"), family)
        assert (made.family, family_of(made)) == (family, family)
    assert (known_family("novel"), implied_family("novel")) == ("", "debian")


@pytest.mark.parametrize(
    ("lines", "first"),
    [
        ("ID=cachyos", "pacman"),
        ("ID=azurelinux", "rpm"),
        ('ID="sles"', "rpm"),
        ("ID=novel\nID_LIKE=arch", "pacman"),
        # Of several families that it names, the nearest: the first.
        ('ID=novel\nID_LIKE="fedora arch"', "rpm"),
        ("ID=debian", "apt"),
    ],
)
def test_several_databases(lines: str, first: str, tmp_path: Path) -> None:
    """Protects a system on which somebody has used another package manager, too."""
    for name in ("var/lib/dpkg/status", "var/lib/rpm/Packages", "var/lib/pacman/local/ALPM_DB_VERSION"):
        write(tmp_path, name, "not empty\n")
    write(tmp_path, "etc/os-release", f"{lines}\n")
    assert available(os.fsencode(tmp_path))[0].name == first


def write(place: Path, name: str, text: str) -> None:
    """Write a file and the directories above it."""
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_manual_lists_the_families() -> None:
    """Protects readers of manifests, who need the table that pkgjail has."""
    page = (Path(__file__).parents[1] / "docs/manifest.md").read_text(encoding="utf-8")
    _, _, section = page.partition("#### The family\n")
    items = re.findall(r"^- `(\w+)` for(.*?)[;.]$", section, re.MULTILINE | re.DOTALL)
    listed = {name: family for family, text in items for name in re.findall(r"`([^`]+)`", text)}
    assert listed == {name: family for name, family in FAMILIES.items() if family != "debian"}
