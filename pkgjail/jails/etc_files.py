"""The files in /etc that are made when a jail is entered: passwd, group, hosts, nsswitch.conf, resolv.conf.

`pkgjail.jails.ld_cache` makes ld.so.cache. The formats are those of passwd(5), group(5), hosts(5),
nsswitch.conf(5) and resolv.conf(5).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pkgjail.core.jail_names import HOSTNAME, RESOLV_CONF, TMP
from pkgjail.core.model import record
from pkgjail.core.text import text_path
from pkgjail.jails.replay import read_account

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+")


@record
class Account:
    """The user in the jail. The ids are the same outside (an identity map).

    `groups` are the ids and names of the supplementary groups.
    """

    name: str
    uid: int
    gid: int
    group: str
    home: str
    groups: tuple[tuple[int, str], ...] = ()


def current_account(*, map_root: bool = False, home: str = "") -> Account:
    """Return the account of the calling user, or root's, in the jail; see `read_account`.

    `home` is the command's variable HOME, and so the account's home, because ssh(1) and others look there for
    files and not in HOME. Unless it is an absolute path, the home is the default one.
    """
    home = home if home.startswith("/") else text_path(TMP)
    if map_root:
        return Account(name="root", uid=0, gid=0, group="root", home=home)
    uid, gid, name, group, groups = read_account()
    return Account(name=name, uid=uid, gid=gid, group=group, home=home, groups=groups)


def etc_files(
    account: Account, *, resolv_conf: bytes, network: bool, hostname: str = HOSTNAME
) -> dict[bytes, bytes]:
    """Return the content of the files that are made at entry, by path.

    Args:
        account: the user who enters.
        resolv_conf: the content of the host's resolv.conf(5), which is used if the network is on.
        network: whether the jail shares the host's network.
        hostname: the host name in the jail.

    """
    name, group, home = map(_field, (account.name, account.group, account.home))
    users = {0: "root:x:0:0:root:/root:/bin/sh", 65534: "nobody:x:65534:65534:nobody:/nonexistent:/bin/sh"}
    users[account.uid] = f"{name}:x:{account.uid}:{account.gid}:{name}:{home}:/bin/sh"
    groups = {0: "root:x:0:", 65534: "nogroup:x:65534:"}
    groups.update({gid: f"{_field(other)}:x:{gid}:{name.replace(',', '_')}" for gid, other in account.groups})
    groups[account.gid] = f"{group}:x:{account.gid}:"
    hosts = f"127.0.0.1\t{_host_names(hostname)}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    services = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"
    return {
        b"/etc/passwd": _table(users),
        b"/etc/group": _table(groups),
        b"/etc/hosts": hosts.encode(),
        b"/etc/nsswitch.conf": services.encode(),
        RESOLV_CONF: resolv_conf if network else b"",
    }


def _host_names(hostname: str) -> str:
    """Return the names of 127.0.0.1. A name that hosts(5) cannot have is left out."""
    return f"localhost {hostname}" if _HOST_NAME.fullmatch(hostname) else "localhost"


def _field(text: str) -> str:
    """Replace what a field of passwd(5) cannot have: a colon or a line end."""
    return text.replace(":", "_").replace("\n", "_")


def _table(lines: Mapping[int, str]) -> bytes:
    return "".join(lines[number] + "\n" for number in sorted(lines)).encode("utf-8", "surrogateescape")
