"""What the administrator allows: /etc/pkgjaild.toml. Without this file, the daemon does not start."""

from __future__ import annotations

import grp
import os
import pwd
import re
from typing import TYPE_CHECKING, Any

from pkgjail.core.errors import PolicyError, Problem
from pkgjail.core.model import record
from pkgjail.core.text import printable, raw_path
from pkgjail.core.untrusted import SETTINGS, read_named
from pkgjail.policy.toml_lines import load_table, locate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pkgjail.helper.peers import Peer
    from pkgjail.policy.toml_lines import Key

POLICY = "/etc/pkgjaild.toml"
EXAMPLE = """\
# Who may ask pkgjaild for a jail, and for which. 'pkgjaild --check' checks this file.

[access]
users = []                # user names; "*" is every user
groups = ["pkgjail"]      # members of these groups, by the groups of the asking process
# confined = false        # also processes that gave up gaining privileges (PR_SET_NO_NEW_PRIVS)
# socket_group = ""       # if given, others cannot even connect

[manifests]               # at least one of these
any = true                # every manifest that a user may read
# digests = ["sha256:…"]  # these (sha256sum MANIFEST)
# signers = "/etc/pkgjaild.signers"  # those with a signature beside them; ssh-keygen(1), ALLOWED SIGNERS

[files]
roots = ["/"]             # where a manifest's files may come from; "/" is the host itself
binds = ["/home", "/srv", "/tmp", "/var/tmp"]  # what else of the host a jail may show
# writable = ["/home", "/tmp", "/var/tmp"]     # and let the command write to (default: binds)

[allow]
network = true            # the host's network
# drift = true            # a host that differs from the manifest, on request
# share_ipc = false       # shared memory with processes outside
# devices = []            # paths or patterns of devices below /dev, also of those that manifests allow

[limits]
# connections = 256       # at once; each is a jail
# per_user = 32           # at once, of one user
# seconds = 10            # to send a request
# bytes = 67108864        # of a request with its manifest
# names = 250000          # of a manifest
# mounts = 30000          # of a jail
"""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HIGHEST = 1 << 31
_LIMITS: Mapping[str, int] = {
    "connections": 256,
    "per_user": 32,
    "seconds": 10,
    "bytes": 64 << 20,
    "names": 250_000,
    "mounts": 30_000,
}
_KEYS: Mapping[str, tuple[str, ...]] = {
    "access": ("users", "groups", "confined", "socket_group"),
    "manifests": ("any", "digests", "signers"),
    "files": ("roots", "binds", "writable"),
    "allow": ("network", "drift", "share_ipc", "devices"),
    "limits": tuple(_LIMITS),
}
_EVERYBODY = "*"


@record
class Policy:
    """What the administrator allows.

    `users` and `groups` are ids; None is every user. `socket_group` is an id, or -1 for none. `roots`,
    `binds` and `writable` are real paths of directories; what is in them is allowed too, except for roots.
    """

    users: frozenset[int] | None
    groups: frozenset[int]
    confined: bool
    socket_group: int
    any_manifest: bool
    digests: frozenset[str]
    signers: str
    roots: tuple[bytes, ...]
    binds: tuple[bytes, ...]
    writable: tuple[bytes, ...]
    network: bool
    drift: bool
    share_ipc: bool
    devices: tuple[bytes, ...]
    limits: Mapping[str, int]

    def lets_in(self, peer: Peer) -> bool:
        """Return whether a process may ask for jails, by its user and by its groups."""
        return (
            self.users is None
            or peer.uid in self.users
            or not self.groups.isdisjoint((peer.gid, *peer.groups))
        )


def is_within(path: bytes, directories: tuple[bytes, ...]) -> bool:
    """Return whether a real path is one of these directories or in one."""
    return any(path == each or path.startswith(each.rstrip(b"/") + b"/") for each in directories)


def read_policy(path: str = POLICY) -> Policy:
    """Read the administrator's policy.

    Raises:
        PolicyError: it is wrong; it has every problem, with its line.
        OSError: it cannot be read.

    """
    data = read_named(path, SETTINGS)
    try:
        table = load_table(data, "policy")
    except ValueError as error:
        raise PolicyError([Problem(path, str(error))]) from None
    reader = _Reader(path, locate(data.decode()))
    policy = reader.policy(table)
    if reader.problems:
        raise PolicyError(reader.problems)
    return policy


class _Reader:
    """Makes a `Policy` of a TOML file's content, and collects what is wrong with it."""

    def __init__(self, path: str, lines: Mapping[Key, int]) -> None:
        self._path = path
        self._lines = lines
        self.problems: list[Problem] = []

    def policy(self, top: Mapping[str, Any]) -> Policy:
        """Return the policy of a whole file."""
        tables = {name: self._table(top, name) for name in _KEYS}
        self._refuse_unknown(top)
        access, manifests, files, allow, limits = (tables[name] for name in _KEYS)
        users = self._strings(access, "access", "users")
        groups = self._strings(access, "access", "groups")
        binds = self._paths(files, "binds", ("/",))
        policy = Policy(
            users=None if _EVERYBODY in users else self._ids(users, "users", _user_id),
            groups=self._ids(groups, "groups", _group_id),
            confined=self._boolean(access, "access", "confined", False),
            socket_group=self._socket_group(access),
            any_manifest=self._boolean(manifests, "manifests", "any", False),
            digests=self._digests(manifests),
            signers=self._signers(manifests),
            roots=self._paths(files, "roots", ("/",)),
            binds=binds,
            writable=self._paths(files, "writable", ()) if "writable" in files else binds,
            network=self._boolean(allow, "allow", "network", True),
            drift=self._boolean(allow, "allow", "drift", True),
            share_ipc=self._boolean(allow, "allow", "share_ipc", False),
            devices=self._devices(allow),
            limits={name: self._limit(limits, name) for name in _LIMITS},
        )
        self._refuse_closed(policy)
        return policy

    def _refuse_unknown(self, top: Mapping[str, Any]) -> None:
        for key, value in top.items():
            if key not in _KEYS:
                self._wrong((key,), f"unknown key {key!r}; there are {', '.join(_KEYS)}")
            elif isinstance(value, dict):
                for inner in value:
                    if inner not in _KEYS[key]:
                        known = ", ".join(_KEYS[key])
                        self._wrong((key, inner), f"unknown key {inner!r} in [{key}]; there are {known}")

    def _refuse_closed(self, policy: Policy) -> None:
        if self.problems:
            return
        if policy.users is not None and not policy.users and not policy.groups:
            self._wrong(("access",), "nobody may ask for a jail: name users or groups in [access]")
        if not (policy.any_manifest or policy.digests or policy.signers):
            self._wrong(
                ("manifests",), "no manifest is allowed: name digests or signers, or write 'any = true'"
            )
        if policy.any_manifest and (policy.digests or policy.signers):
            self._wrong(
                ("manifests", "any"), "'any' allows every manifest: leave out digests and signers, or 'any'"
            )

    def _wrong(self, place: Key, message: str) -> None:
        while place and place not in self._lines:
            place = place[:-1]
        self.problems.append(Problem(f"{self._path}:{self._lines.get(place, 1)}", message))

    def _table(self, top: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = top.get(key, {})
        if isinstance(value, dict):
            return value
        self._wrong((key,), f"{key!r} must be a table: [{key}]")
        return {}

    def _boolean(self, table: Mapping[str, Any], name: str, key: str, default: bool) -> bool:  # noqa: FBT001
        value = table.get(key, default)
        if not isinstance(value, bool):
            self._wrong((name, key), f"{key!r} must be true or false")
            return default
        return value

    def _strings(
        self, table: Mapping[str, Any], name: str, key: str, default: tuple[str, ...] = ()
    ) -> tuple[str, ...]:
        value = table.get(key, list(default))
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            self._wrong((name, key), f"{key!r} must be an array of strings")
            return ()
        return tuple(value)

    def _ids(self, names: tuple[str, ...], key: str, find: Callable[[str], int]) -> frozenset[int]:
        found = set()
        for index, each in enumerate(names):
            try:
                found.add(find(each))
            except KeyError:  # noqa: PERF203 - few names
                self._wrong(("access", key, index), f"this host has no {key[:-1]} {printable(each)!r}")
        return frozenset(found)

    def _socket_group(self, access: Mapping[str, Any]) -> int:
        name = access.get("socket_group", "")
        if not isinstance(name, str):
            self._wrong(("access", "socket_group"), "'socket_group' must be the name of a group")
            return -1
        try:
            return _group_id(name) if name else -1
        except KeyError:
            self._wrong(("access", "socket_group"), f"this host has no group {printable(name)!r}")
            return -1

    def _digests(self, manifests: Mapping[str, Any]) -> frozenset[str]:
        digests = self._strings(manifests, "manifests", "digests")
        for index, each in enumerate(digests):
            if not _DIGEST.fullmatch(each):
                message = "a digest is 'sha256:' and 64 hexadecimal digits, as sha256sum prints them"
                self._wrong(("manifests", "digests", index), message)
        return frozenset(digests)

    def _signers(self, manifests: Mapping[str, Any]) -> str:
        value = manifests.get("signers", "")
        if not isinstance(value, str) or (value and not os.path.isfile(value)):
            self._wrong(
                ("manifests", "signers"), "'signers' must be the path of a file, as ssh-keygen(1) has it"
            )
            return ""
        return value

    def _paths(self, files: Mapping[str, Any], key: str, default: tuple[str, ...]) -> tuple[bytes, ...]:
        paths = []
        for index, each in enumerate(self._strings(files, "files", key, default)):
            if not each.startswith("/") or "\0" in each:
                self._wrong(("files", key, index), f"{printable(each)!r} is no absolute path")
            else:
                paths.append(os.path.realpath(raw_path(each)))
        return tuple(paths)

    def _devices(self, allow: Mapping[str, Any]) -> tuple[bytes, ...]:
        patterns = self._strings(allow, "allow", "devices")
        for index, each in enumerate(patterns):
            if not each.startswith("/dev/") or ".." in each.split("/"):
                self._wrong(("allow", "devices", index), f"{printable(each)!r} is no path below /dev")
        return tuple(map(raw_path, patterns))

    def _limit(self, limits: Mapping[str, Any], key: str) -> int:
        value = limits.get(key, _LIMITS[key])
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _HIGHEST:
            self._wrong(("limits", key), f"{key!r} must be a whole number from 1 on")
            return _LIMITS[key]
        return value


def _user_id(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _group_id(name: str) -> int:
    return grp.getgrnam(name).gr_gid
