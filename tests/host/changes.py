"""The changes of a host, of fifteen kinds, and whether each must stop the entry of a jail.

Each change is a shell script for the host, with one that undoes it; both run as root on a Debian of their
own.
`listed` and `plain` are packages of the tests', of which the manifest has `listed` alone. Its files are
/usr/bin/listed, /usr/lib/listed/data, the link /usr/lib/listed/link, and the conffile /etc/listed.conf.
"""

from __future__ import annotations

from typing import NamedTuple


class Change(NamedTuple):
    """`stops` says whether the jail must not be entered; then `why` is in the message."""

    kind: str
    do: str
    undo: str
    stops: bool = False
    why: str = ""


_SWAP = "cp -p {0} /root/kept && {1}"
_BACK = "mv /root/kept {0}"


def _replaced(path: str, command: str, why: str, kind: str = "files replaced") -> Change:
    return Change(kind, _SWAP.format(path, command), _BACK.format(path), stops=True, why=f"{path} {why}")


CHANGES = (
    Change("files added", "touch /etc/foo.conf", "rm /etc/foo.conf"),
    Change("files added", "touch /usr/lib/listed/new", "rm /usr/lib/listed/new"),
    Change("files added", "printf '#!/bin/sh\\n' > /usr/bin/new; chmod +x /usr/bin/new", "rm /usr/bin/new"),
    Change("files added", "touch \"/usr/bin/$(printf 'odd\\n\\377')\"", "rm /usr/bin/odd*"),
    Change("files added", "ln -s /nowhere /usr/lib/dangling", "rm /usr/lib/dangling"),
    Change("files added", "mkfifo /etc/pipe", "rm /etc/pipe"),
    Change("directories made", "mkdir /newdir", "rmdir /newdir"),
    Change("directories made", "mkdir -p /usr/share/new/inner", "rm -r /usr/share/new"),
    Change("directories made", "mkdir -m 700 /usr/lib/listed/private", "rmdir /usr/lib/listed/private"),
    Change("directories made", "mkdir -p /opt/site/bin", "rm -r /opt/site"),
    Change("packages installed", "dpkg -i /root/extra_1.deb", "dpkg -P extra"),
    Change("packages installed", "dpkg -i /root/many_1.deb", "dpkg -P many"),
    Change("packages removed", "dpkg -r plain", "dpkg -i /root/plain_1.deb"),
    Change("packages removed", "dpkg -P plain", "dpkg -i /root/plain_1.deb"),
    Change(
        "packages removed",
        "dpkg -r listed",
        "dpkg -i /root/listed_1.deb",
        stops=True,
        why="/usr/bin/listed is gone",
    ),
    Change(
        "packages removed",
        "dpkg -P listed",
        "dpkg -i /root/listed_1.deb",
        stops=True,
        why="/etc/listed.conf is gone",
    ),
    Change("packages upgraded", "dpkg -i /root/plain_2.deb", "dpkg -i /root/plain_1.deb"),
    Change(
        "packages upgraded",
        "dpkg -i /root/listed_2.deb",
        "dpkg -i /root/listed_1.deb",
        stops=True,
        why="/usr/bin/listed has other content",
    ),
    Change("packages installed again", "dpkg -i /root/listed_1.deb", "true"),
    Change("packages installed again", "dpkg -i /root/plain_1.deb", "true"),
    Change("packages installed again", "dpkg -i /root/listed_2.deb; dpkg -i /root/listed_1.deb", "true"),
    Change("users added", "useradd -m carol", "userdel -r carol"),
    Change("users added", "groupadd builders; usermod -aG builders alice", "groupdel builders"),
    Change("users added", "useradd dave; userdel dave; cp /etc/passwd /etc/passwd-", "true"),
    Change("users added", "usermod -c 'Alice A.' alice", "usermod -c '' alice"),
    Change("editors' files", "touch /etc/.hosts.swp", "rm /etc/.hosts.swp"),
    Change("editors' files", "cp /etc/listed.conf /etc/listed.conf~", "rm /etc/listed.conf~"),
    Change("editors' files", "touch /etc/4913; rm /etc/4913", "true"),
    Change(
        "editors' files",
        "cp -p /etc/listed.conf /etc/new; cat /etc/listed.conf > /etc/new; mv /etc/new /etc/listed.conf",
        "true",
    ),
    Change("names and resolvers", "rm -f /etc/resolv.conf", "echo nameserver 127.0.0.1 > /etc/resolv.conf"),
    Change("names and resolvers", "echo nameserver 127.0.0.9 > /etc/resolv.conf", "true"),
    Change("names and resolvers", "echo '127.0.0.2 other' >> /etc/hosts", "true"),
    Change("names and resolvers", "echo changed > /etc/motd", "rm /etc/motd"),
    Change("mounts", "mkdir -p /mnt/a; mount -t tmpfs none /mnt/a", "umount /mnt/a"),
    Change(
        "mounts",
        "mkdir /usr/local/b; mount -t tmpfs none /usr/local/b",
        "umount /usr/local/b; rmdir /usr/local/b",
    ),
    Change(
        "mounts",
        "mount -t tmpfs -o mode=755 none /usr/lib/listed",
        "umount /usr/lib/listed",
        stops=True,
        why="/usr/lib/listed/data is gone",
    ),
    Change(
        "mounts",
        "mount --bind /etc/hostname /usr/lib/listed/data",
        "umount /usr/lib/listed/data",
        stops=True,
        why="/usr/lib/listed/data has",
    ),
    Change("mounts", "mount --bind /usr/lib/listed/data /usr/lib/listed/data", "umount /usr/lib/listed/data"),
    Change("files removed", "rm /usr/lib/plain/data", "dpkg -i /root/plain_1.deb"),
    Change(
        "files removed",
        "rm /usr/lib/listed/data",
        "dpkg -i /root/listed_1.deb",
        stops=True,
        why="/usr/lib/listed/data is gone",
    ),
    Change(
        "files removed",
        "mv /usr/lib/listed /usr/lib/elsewhere",
        "mv /usr/lib/elsewhere /usr/lib/listed",
        stops=True,
        why="/usr/lib/listed is gone",
    ),
    _replaced(
        "/usr/bin/listed", "echo other > /root/n; chmod 755 /root/n; mv /root/n /usr/bin/listed", "has"
    ),
    _replaced(
        "/usr/lib/listed/data",
        "sed s/a/b/ /root/kept > /root/n; chmod 644 /root/n; touch -r /root/kept /root/n;"
        " mv /root/n /usr/lib/listed/data",
        "has other content",
    ),
    Change("files replaced", "cp -p /usr/lib/listed/data /root/n; mv /root/n /usr/lib/listed/data", "true"),
    Change("files replaced", "echo more >> /usr/lib/plain/data", "dpkg -i /root/plain_1.deb"),
    _replaced("/etc/listed.conf", "echo more >> /etc/listed.conf", "has", "configuration edited"),
    _replaced(
        "/etc/listed.conf", "sed -i s/on/no/ /etc/listed.conf", "has other content", "configuration edited"
    ),
    _replaced("/etc/listed.conf", "chmod 600 /etc/listed.conf", "has mode 0600, not 0644", "modes changed"),
    Change(
        "modes changed",
        "chmod 700 /usr/lib/listed",
        "chmod 755 /usr/lib/listed",
        stops=True,
        why="/usr/lib/listed has mode 0700, not 0755",
    ),
    Change("modes changed", "chmod 700 /usr/lib/plain", "chmod 755 /usr/lib/plain"),
    Change(
        "links changed",
        "ln -sfn /etc/hosts /usr/lib/listed/link",
        "ln -sfn data /usr/lib/listed/link",
        stops=True,
        why="/usr/lib/listed/link is a link to somewhere else",
    ),
    Change("links changed", "rm /usr/lib/listed/link; ln -s data /usr/lib/listed/link", "true"),
)
