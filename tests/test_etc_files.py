"""The files in /etc that are made at entry, and the jail's own names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.core.jail_names import (
    DEVICES,
    ENTRY_FILES,
    PROC_HIDDEN,
    PROC_READ_ONLY,
    ROOT_CAPABILITIES,
    SYS_ROOT_ONLY,
)
from pkgjail.core.text import text_path
from pkgjail.jails.etc_files import Account, current_account, etc_files
from pkgjail.sandbox import capabilities, pseudo_filesystems

_USER = Account(name="ada", uid=1000, gid=1001, group="staff", home="/tmp")


def test_the_sandbox_has_the_same_lists() -> None:
    """Protects the sandbox's own lists, which exist because the sandbox imports nothing of pkgjail."""
    assert sorted(pseudo_filesystems._DEVICES) == sorted(DEVICES)
    assert pseudo_filesystems._PROC_READ_ONLY == PROC_READ_ONLY
    assert pseudo_filesystems._PROC_HIDDEN == PROC_HIDDEN
    assert pseudo_filesystems._SYS_ROOT_ONLY == SYS_ROOT_ONLY


def test_the_sandbox_gives_the_capabilities_by_which_a_jail_is_detected() -> None:
    """As above."""
    assert capabilities.ROOT_CAPABILITIES == ROOT_CAPABILITIES


def test_each_entry_file_has_content() -> None:
    """Protects the allow-lists of the backends, which have the same files."""
    assert set(etc_files(_USER, resolv_conf=b"", network=True)) == set(ENTRY_FILES)


def test_the_files_of_an_ordinary_user() -> None:
    made = etc_files(_USER, resolv_conf=b"nameserver 192.0.2.1\n", network=True)
    assert {path.decode(): content.decode() for path, content in made.items()} == {
        "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
        "ada:x:1000:1001:ada:/tmp:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n",
        "/etc/group": "root:x:0:\nstaff:x:1001:\nnogroup:x:65534:\n",
        "/etc/hosts": "127.0.0.1\tlocalhost pkgjail\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n"
        "services: files\nprotocols: files\n",
        "/etc/resolv.conf": "nameserver 192.0.2.1\n",
    }


def test_the_supplementary_groups_have_names_and_the_user_as_member() -> None:
    """Programs look them up by name (getgrnam), and look for themselves among the members (Spack)."""
    user = replace(_USER, groups=((0, "root"), (27, "sudo"), (5000, "pro:ject")))
    groups = etc_files(user, resolv_conf=b"", network=True)[b"/etc/group"].decode()
    assert groups == ("root:x:0:ada\nsudo:x:27:ada\nstaff:x:1001:\npro_ject:x:5000:ada\nnogroup:x:65534:\n")


def test_root_has_one_line_and_without_network_there_is_no_resolver() -> None:
    root = Account(name="root", uid=0, gid=0, group="root", home="/tmp")
    made = etc_files(root, resolv_conf=b"nameserver 192.0.2.1\n", network=False)
    assert made[b"/etc/passwd"].startswith(b"root:x:0:0:root:/tmp:/bin/sh\nnobody:")
    assert made[b"/etc/resolv.conf"] == b""


@pytest.mark.parametrize("map_root", [False, True])
@pytest.mark.parametrize(
    ("home", "expected"), [("", "/tmp"), ("/home/me", "/home/me"), ("home", "/tmp"), ("/a:b", "/a_b")]
)
def test_the_home_of_the_account_is_that_of_the_command(home: str, expected: str, map_root: bool) -> None:  # noqa: FBT001
    """ssh(1) does not read HOME."""
    account = current_account(map_root=map_root, home=home)
    lines = etc_files(account, resolv_conf=b"", network=True)[b"/etc/passwd"].decode().splitlines()
    assert [line.split(":")[5] for line in lines if line.split(":")[2] == str(account.uid)] == [expected]


# Names as Python gets them from getpwnam(3): any bytes but NUL, decoded as file names are (PEP 383).
_NAMES = st.binary(max_size=12).map(lambda raw: text_path(raw.replace(b"\0", b"\n")))


@given(_NAMES, _NAMES, _NAMES, st.integers(1, 65533))
def test_no_user_name_can_add_a_line_or_a_field(name: str, group: str, home: str, uid: int) -> None:
    account = Account(name=name, uid=uid, gid=uid, group=group, home=home)
    made = etc_files(account, resolv_conf=b"", network=True)
    users = [line.split(b":") for line in made[b"/etc/passwd"].split(b"\n")[:-1]]
    groups = [line.split(b":") for line in made[b"/etc/group"].split(b"\n")[:-1]]
    assert [(len(user), user[2]) for user in users] == [(7, b"0"), (7, b"%d" % uid), (7, b"65534")]
    assert [(len(one), one[2]) for one in groups] == [(4, b"0"), (4, b"%d" % uid), (4, b"65534")]
