"""Map user and group ids into a jail's user namespace; see user_namespaces(7).

An ordinary user can map one user and one group, its own. More takes a process outside with the right to:

- root maps all ids that it has itself, each to itself, so that files show their owners;
- newgidmap(1) maps the caller's supplementary groups, each to itself, if /etc/subgid(5) grants their numbers;
- with a root map, the caller is user 0 inside, and newuidmap(1) and newgidmap(1) map ids from 1 on to the
  caller's subordinate ids.
"""

from __future__ import annotations

import os

from pkgjail.sandbox.pseudo_filesystems import write_setting

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from typing import Literal

    from pkgjail.sandbox.id_calls import Ids, Ranges

    Kind = Literal["uid", "gid"]
    # The first id inside, the first id outside, and how many.
    Map = tuple[tuple[int, int, int], ...]

_KINDS: tuple[Kind, ...] = ("uid", "gid")
_HELPERS: dict[Kind, str] = {"uid": "/usr/bin/newuidmap", "gid": "/usr/bin/newgidmap"}
# CAP_SETGID, CAP_SETUID, CAP_SETFCAP and CAP_SYS_ADMIN: what it takes to map all ids, 0 among them.
_NEEDED = 1 << 6 | 1 << 7 | 1 << 31 | 1 << 21
_MOST_BYTES = 1 << 20  # of /etc/subuid


class IdMaps:
    """The maps of one jail, of users and of groups.

    With `as_root`, the caller is user 0 and group 0 inside. `all` is true if all ids are mapped, and `helped`
    has the maps that a helper writes. The jail writes the other maps itself.
    """

    def __init__(self, *, as_root: bool) -> None:
        user, group = os.geteuid(), os.getegid()
        self.users: Map = ((0 if as_root else user, user, 1),)
        self.groups: Map = ((0 if as_root else group, group, 1),)
        self._simple = (self.users, self.groups)
        self.as_root = as_root
        self.all = user == 0 and _may_map_all()
        self.helped: tuple[Kind, ...] = ()
        if self.all:
            self.users, self.groups = _own_ids("uid"), _own_ids("gid")
        elif as_root:
            self._add_subordinates(user)
        else:
            self._add_groups(user, group)

    @property
    def outside(self) -> bool:
        """Return whether a process outside must write maps."""
        return self.all or bool(self.helped)

    @property
    def ids(self) -> Ids | None:
        """Return the ids that the jail has; None if these are all that the caller has."""
        return None if self.all else (_ranges(self.users), _ranges(self.groups))

    def write_inside(self) -> None:
        """In the new namespace: write the maps that no process outside writes."""
        for kind in () if self.all else _KINDS:
            if kind not in self.helped:
                self._write(kind, b"self", self._lines(kind))

    def write_outside(self, process: int) -> None:
        """Outside: write the maps that the namespace of `process` cannot have otherwise.

        Raises:
            OSError: the kernel or a helper refused.

        """
        for kind in _KINDS if self.all else self.helped:
            if self.all:
                self._write(kind, b"%d" % process, self._lines(kind))
            else:
                _run_helper(kind, process, self._lines(kind))

    def write_nested(self, process: int) -> None:
        """In the jail's namespace, with its privileges: map all its ids to themselves in one of a child's."""
        for kind in _KINDS:
            same = tuple([(inside, inside, count) for inside, _, count in self._lines(kind)])
            write_setting(b"/proc/%d/%s_map" % (process, kind.encode()), _text(same))

    def fall_back(self) -> None:
        """Map one user and one group: newgidmap refuses (as in a shell of sg(1)), or the kernel does."""
        self.users, self.groups = self._simple
        self.all, self.helped = False, ()

    def _write(self, kind: Kind, process: bytes, lines: Map) -> None:
        if kind == "gid" and not self.all:
            write_setting(b"/proc/%s/setgroups" % process, b"deny")
        write_setting(b"/proc/%s/%s_map" % (process, kind.encode()), _text(lines))

    def _lines(self, kind: Kind) -> Map:
        return self.users if kind == "uid" else self.groups

    def _add_subordinates(self, user: int) -> None:
        users, groups = _granted("/etc/subuid", user), _granted("/etc/subgid", user)
        if users and groups and all(map(os.path.exists, _HELPERS.values())):
            self.users, self.groups = _followed_by(self.users, users), _followed_by(self.groups, groups)
            self.helped = _KINDS

    def _add_groups(self, user: int, group: int) -> None:
        others = sorted({*os.getgroups()} - {group})
        if not others or not os.path.exists(_HELPERS["gid"]):
            return
        ranges = _granted("/etc/subgid", user)
        granted = [one for one in others if any(first <= one < first + count for first, count in ranges)]
        if granted:
            self.groups = ((group, group, 1), *[(one, one, 1) for one in granted])
            self.helped = ("gid",)


def _text(lines: Map) -> bytes:
    return b"".join([b"%d %d %d\n" % line for line in lines])


def _ranges(lines: Map) -> Ranges:
    return tuple([(first, first + count - 1) for first, _, count in lines])


def _followed_by(own: Map, ranges: list[tuple[int, int]]) -> Map:
    """Map the granted ids to 1 and the following ones."""
    lines, inside = list(own), 1
    for first, count in ranges:
        lines.append((inside, first, count))
        inside += count
    return tuple(lines)


def _granted(path: str, user: int) -> list[tuple[int, int]]:
    """Return the ranges that subuid(5) or subgid(5) grants a user: the first id and how many."""
    try:
        with open(path, "rb") as file:
            lines = file.read(_MOST_BYTES).splitlines()
    except OSError:
        return []
    if not lines:
        return []
    import pwd

    try:
        owners = (b"%d" % user, os.fsencode(pwd.getpwuid(user).pw_name))
    except KeyError:  # the helpers refuse a user without a name
        return []
    ranges = []
    for line in lines:
        owner, _, numbers = line.partition(b":")
        first, _, count = numbers.partition(b":")
        if owner in owners and first.isdigit() and count.isdigit():
            ranges.append((int(first), int(count)))
    return ranges


def _may_map_all() -> bool:
    with open("/proc/self/status", "rb") as file:
        held = next((int(line.split()[1], 16) for line in file if line.startswith(b"CapEff:")), 0)
    return held & _NEEDED == _NEEDED


def _own_ids(kind: Kind) -> Map:
    """Return a map of all ids of this user namespace to themselves."""
    with open(f"/proc/self/{kind}_map", "rb") as file:
        lines = [tuple(map(int, line.split())) for line in file]
    return tuple([(first, first, count) for first, _, count in lines])


def _run_helper(kind: Kind, process: int, lines: Map) -> None:
    path = _HELPERS[kind]
    numbers = [str(number) for line in lines for number in line]
    opened = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in (0, 1, 2)]
    child = os.posix_spawn(path, [path, str(process), *numbers], {}, file_actions=opened)
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise PermissionError(1, "refuses to map ids", path)
