"""A jail that is ready to be entered: all that was worked out, and what it rests on.

To read a manifest, hold the host against it and plan takes a hundred times as long as to enter. So
what comes out of it is kept, in memory or in the user's runtime directory, together with the state
of everything that went into it. All of that is looked at again at every entry, while the jail is
being set up; where anything is no longer as it was, the command does not start and the long way is
taken. Light: this is all that entering such a jail imports, but for the stage.
"""

from __future__ import annotations

import contextlib
import grp
import marshal
import os
import pwd
import sys

from pkgjail.jail.privileges import situation
from pkgjail.sandbox.launch import StageError, run
from pkgjail.storage.fingerprint import changed, is_variable, mounts_below, observe_settled
from pkgjail.storage.locations import keep, read_kept, runtime_directory
from pkgjail.storage.locks import Watch, hold, places_of, release

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from pkgjail.sandbox.limits import Limits
    from pkgjail.sandbox.rootfs import Program

# Changes with what a kept jail is made of.
_FORMAT = 4
_RESOLVER = "/etc/resolv.conf"
_HERE = os.path.dirname(os.path.dirname(os.fsencode(__file__)))
# The rooms of pkgjail that have a part in how a jail is made.
_ROOMS = (b"core", b"storage", b"jail", b"jail/strategies", b"sandbox")
# Which Python this is: its files are protected.
_PYTHON = (sys.executable, sys.prefix, sys.base_prefix)
# What of the environment decides where things lie and what a command gets without being asked for.
_VARIABLES = ("HOME", "PYTHONPATH", "PYTHONUSERBASE", "TERM", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")

# The commands of the command line that run one in a jail.
_VERBS = ("run", "enter")


class StaleError(Exception):
    """What a prepared jail rests on is no longer so; the command was not started."""


class Prepared:
    """One jail, ready to be entered.

    `program`, `environment` and `cwd` are as `pkgjail.sandbox.launch.run` takes them. The rest must
    still be so at entry: `host` are states as of `pkgjail.storage.fingerprint.observe` of what the host
    shows in the jail, `watched` those of what else has a part in it, `mounts` what `mounts_seen`
    gives, `sources` what the user named, binds above all (what was asked for, its real path, whether it is a
    directory), `account` what `account_fields` gives, `resolver` the host's resolv.conf(5), or None where it
    is not shown. `held` are directories, by their real paths, that nobody may remove meanwhile, besides the
    layers'.
    """

    __slots__ = (
        "account", "cwd", "environment", "held", "host", "mounts", "program", "resolver", "sources", "watched"
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - a record, without what makes one slow to import
        self,
        program: Program,
        environment: tuple[tuple[str, str], ...],
        cwd: bytes,
        host: tuple[tuple[bytes, int, int, int, int], ...],
        watched: tuple[tuple[bytes, int, int, int, int], ...],
        mounts: tuple[bytes, ...],
        sources: tuple[tuple[bytes, bytes, bool], ...],
        account: tuple[int, int, str, str],
        resolver: bytes | None,
        held: tuple[bytes, ...] = (),
    ) -> None:
        self.program = program
        self.environment = environment
        self.cwd = cwd
        self.host = host
        self.watched = watched
        self.mounts = mounts
        self.sources = sources
        self.account = account
        self.resolver = resolver
        self.held = held

    def run(
        self,
        argv: Sequence[str],
        *,
        terminal: bool = False,
        limits: Limits | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> int:
        """Run `argv` in this jail, within `limits`; its exit status.

        `warn` is told, from another thread, of layers that are removed while the jail runs.

        Raises:
            StaleError: the host, or what else this jail rests on, has changed.
            StageError: as `pkgjail.sandbox.launch.run`.

        """
        command = (tuple(argv), self.cwd, self.environment, terminal)
        places = places_of(self.program[1])
        try:
            held = hold((*places, *self.held))
        except OSError:
            raise StaleError from None
        watch = Watch(dict(zip(places, held)), warn) if warn and places else None

        def meanwhile() -> None:
            self.refuse_stale()
            if watch is not None:
                watch.start()

        try:
            return run(self.program, command, limits=limits, meanwhile=meanwhile)
        finally:
            if watch is not None:
                watch.stop()
            release(held)

    def refuse_stale(self) -> None:
        """Raise `StaleError` unless all that this jail rests on is as it was."""
        for asked, source, is_directory in self.sources:
            if bind_source(asked) != (asked, source, is_directory):
                raise StaleError
        if self.account != account_fields() or (self.resolver is not None and self.resolver != resolver()):
            raise StaleError
        writable = [step[2] for step in self.program[1] if step[0] == "Bind" and step[3]]
        mounts = mounts_seen(self.program[0], writable)
        if self.host_changed() or changed(self.watched) or self.mounts != mounts:
            raise StaleError

    def host_changed(self) -> bool:
        """Whether any directory that the host shows in the jail, or file there, has changed."""
        return bool(changed(self.host))


def mounts_seen(root: bytes, writable: Iterable[bytes]) -> tuple[bytes, ...]:
    """The mounts that have a part in a jail: among the host's files, and around writable binds' sources.

    All are real paths. Mounts in variable parts of the host, which come and go, are left out below `root`.
    """
    start = len(root.rstrip(b"/"))
    among = [point for point in mounts_below(root) if not is_variable(point[start:])]
    return (*among, *mounts_around(writable))


def bind_source(asked: bytes) -> tuple[bytes, bytes, bool]:
    """What of a bind's source counts: the path, its real path, and whether that is a directory."""
    real = os.path.realpath(asked)
    return asked, real, os.path.isdir(real)


def mounts_around(sources: Iterable[bytes]) -> tuple[bytes, ...]:
    """The mounts that real paths lie on or show: device, root and mount point, to be compared.

    As proc_pid_mountinfo(5) has them. What a command may not change may come by a mount, too.
    """
    paths = tuple([_escaped(source).rstrip(b"/") + b"/" for source in sources])
    if not paths:
        return ()
    found = []
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            fields = line.split(b" ", 5)[2:5]
            point = fields[2].rstrip(b"/") + b"/"
            if point.startswith(paths) or any(path.startswith(point) for path in paths):
                found.append(b" ".join(fields))
    return tuple(found)


def _escaped(path: bytes) -> bytes:
    """A path as the kernel writes it in its table of mounts."""
    for byte in (b"\\", b" ", b"\t", b"\n"):
        path = path.replace(byte, b"\\%03o" % ord(byte))
    return path


def account_fields() -> tuple[int, int, str, str]:
    """The calling user: ids and names as passwd(5) and group(5) have them, "user" where they do not."""
    user, group = os.geteuid(), os.getegid()
    name = team = "user"
    with contextlib.suppress(KeyError):
        name = pwd.getpwuid(user).pw_name
    with contextlib.suppress(KeyError):
        team = grp.getgrgid(group).gr_name
    return user, group, name, team


def resolver() -> bytes:
    """The host's resolv.conf(5); empty where there is none to read."""
    try:
        with open(_RESOLVER, "rb") as file:
            return file.read()
    except OSError:
        return b""


def enter(
    arguments: Sequence[str], report: Callable[[int], int], warn: Callable[[str], None] | None = None
) -> int | None:
    """Run the command of `pkgjail run … -- COMMAND …`, or `enter`, in the jail of the same words before.

    Args:
        arguments: the words.
        report: called with the command's exit status where the host's directories changed while it ran;
            gives the status to end with.
        warn: as `Prepared.run` takes it.

    Returns:
        The command's exit status; None where there is no such jail, or it cannot be entered as it
        is: then nothing was started, and the long way tells why or does it.

    Raises:
        OSError: the calling process was refused something; the command may have run.

    """
    words = _words(arguments)
    kept = None if words is None else _load(words)
    if words is None or kept is None:
        return None
    prepared, terminal = kept
    try:
        status = prepared.run(arguments[len(words) + 1 :], terminal=terminal, warn=warn)
    except (StaleError, StageError):
        return None
    return report(status) if prepared.host_changed() else status


def remember(
    arguments: Sequence[str], prepared: Prepared, *, terminal: bool, variables: Sequence[str] = ()
) -> None:
    """Keep a jail for `enter`, by the words of its command line.

    `variables` are names whose values went into the jail's environment. Does nothing for words
    that `enter` would not look up. Raises `OSError`.
    """
    words = _words(arguments)
    if words is None:
        return
    environment = {name: os.environ.get(name) for name in (*_VARIABLES, *variables)}
    fields = tuple(getattr(prepared, name) for name in Prepared.__slots__)
    # A process that may do more may have a jail that is closed better.
    may = situation()
    here = (_HERE, _PYTHON)
    record = (_FORMAT, words, os.getcwdb(), environment, here, may, _own_files(), terminal, fields)
    keep(_place(words), marshal.dumps(record))


def _load(words: tuple[str, ...]) -> tuple[Prepared, bool] | None:
    """The jail that is kept for these words, and whether it has a terminal of its own."""
    try:
        record = marshal.loads(read_kept(_place(words)))  # noqa: S302 - the user's own, and nobody else's
        form = record[0]
        if form != _FORMAT:
            return None
        _, kept_words, cwd, environment, here, may, own, terminal, fields = record
        same = (kept_words, cwd, here, may) == (words, os.getcwdb(), (_HERE, _PYTHON), situation())
    except (OSError, EOFError, ValueError, TypeError, IndexError):
        return None
    if not same or any(os.environ.get(name) != value for name, value in environment.items()) or changed(own):
        return None
    by_name: dict[str, Any] = dict(zip(Prepared.__slots__, fields))
    return Prepared(**by_name), terminal


def _words(arguments: Sequence[str]) -> tuple[str, ...] | None:
    """What says which jail: all before `--`; None where no command can be behind it."""
    if (
        not arguments
        or arguments[0] not in _VERBS
        or "--" not in arguments[:-1]
        or "_ARGCOMPLETE" in os.environ
    ):
        return None
    return tuple(arguments[: list(arguments).index("--")])


def _place(words: tuple[str, ...]) -> str:
    """Where the jail of these words is kept. Others may have the same place: the words are compared."""
    from binascii import crc32

    number = crc32("\0".join(words).encode("utf-8", "surrogateescape"))
    return f"{runtime_directory()}/prepared/{number:08x}"


def _own_files() -> tuple[tuple[bytes, int, int, int, int], ...]:
    """The state of pkgjail's own files that had a part in it: another version may plan otherwise."""
    found = []
    for directory in (os.path.join(_HERE, room) for room in _ROOMS):
        with os.scandir(directory) as entries:
            found += [entry.path for entry in entries if entry.name.endswith(b".py")]
    return observe_settled(sorted(found))
