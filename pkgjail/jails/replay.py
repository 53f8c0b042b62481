"""Prepared jails: save an entry, and replay it later by the same command line.

To read a manifest, compare it with the host and plan takes a hundred times as long as to enter. So the
result is saved, in memory or in the user's runtime directory, together with the state of everything
that it was made from. Every entry compares this state with the present one while the jail is being set
up. If anything has changed, the command does not start, and the jail is prepared anew.

Replay must be quick, so this module imports little besides the sandbox.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import sys

from pkgjail.core.working_directory import path_of_working_directory
from pkgjail.jails.privileges import current_privileges
from pkgjail.sandbox.job import SetupError
from pkgjail.sandbox.launch import run
from pkgjail.settings.files import settings_changed, settings_state
from pkgjail.storage.fingerprint import changed_directories, is_variable, take_settled_fingerprint
from pkgjail.storage.locations import runtime_directory
from pkgjail.storage.locks import LayerMonitor, layer_directories, lock_shared, unlock
from pkgjail.storage.marshal_store import pack, unpack
from pkgjail.storage.mounts import mounts_below, read_mounts
from pkgjail.storage.own_files import read_own_file

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from pkgjail.core.devices import Device
    from pkgjail.sandbox.job import Streams
    from pkgjail.sandbox.limits import Limits
    from pkgjail.sandbox.observation import Observation
    from pkgjail.sandbox.rootfs import Program
    from pkgjail.sandbox.terminal import Terminal
    from pkgjail.settings.files import SettingsState

    # The user's id and group id, their names, and the ids and names of the supplementary groups.
    AccountState = tuple[int, int, str, str, tuple[tuple[int, str], ...]]

# Raised whenever the fields of a saved jail change.
_FORMAT = 9
_RESOLV_CONF = "/etc/resolv.conf"
_PACKAGE = os.path.dirname(os.path.dirname(os.fsencode(__file__)))
# The folders of pkgjail whose code and lists decide how a jail is made.
_FOLDERS = (b"core", b"storage", b"jails", b"jails/strategies", b"sandbox", b"whitelists")
# Identifies this Python, whose files are protected.
_PYTHON = (sys.executable, sys.prefix, sys.base_prefix)
# Environment variables that decide where files are, where a command runs, and what it gets by default.
_VARIABLES = (
    "HOME", "PKGJAIL_STAGE", "PKGJAIL_STORE", "PYTHONPATH", "PYTHONUSERBASE", "TERM", "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR",
)  # fmt: skip

# The verbs that run a command in a jail.
_VERBS = ("run", "enter")


class StaleError(Exception):
    """The state that a prepared jail depends on has changed; the command was not started."""


class GivenVariables:
    """Variables that no plan depends on, so that a replay takes those of its own caller.

    `values` are those of this entry. Of the others, `over` take precedence over them, and `under` do not.
    `compared` are names whose values the jail depends on besides: it is not replayed if they differ.
    """

    __slots__ = ("compared", "over", "under", "values")

    def __init__(
        self,
        values: Mapping[str, str],
        *,
        under: Mapping[str, str],
        over: Mapping[str, str],
        compared: tuple[str, ...] = (),
    ) -> None:
        self.values = values
        self.under = under
        self.over = over
        self.compared = compared


class PreparedJail:
    """One jail, ready to be entered.

    `program`, `environment` and `cwd` are as `pkgjail.sandbox.launch.run` takes them. The rest is compared
    at entry: `host` is a fingerprint (`pkgjail.storage.fingerprint`) of what the host shows in the jail,
    `watched` one of all else that the plan was made from, `mounts` what `relevant_mounts` returns,
    `sources` what `bind_source_state` returns for each path that the user named, `links` the symbolic links
    on the way to them, each with its text, `account` what
    `read_account` returns, and `resolv_conf` the host's resolv.conf(5), or None if the jail does not show it.
    `devices` are patterns and what `pkgjail.core.devices.find_devices` returns for them.
    `locked` are directories besides the layers', by their real paths, that nobody may remove while the jail
    runs.
    """

    __slots__ = (
        "account", "cwd", "devices", "environment", "host", "links", "locked", "mounts", "program",
        "resolv_conf", "sources", "watched",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - a record, without the imports of a dataclass
        self,
        program: Program,
        environment: tuple[tuple[str, str], ...],
        cwd: bytes,
        host: tuple[tuple[bytes, int, int, int, int], ...],
        watched: tuple[tuple[bytes, int, int, int, int], ...],
        mounts: tuple[bytes, ...],
        sources: tuple[tuple[bytes, bytes, bool], ...],
        links: tuple[tuple[bytes, bytes], ...],
        account: AccountState,
        resolv_conf: bytes | None,
        devices: tuple[tuple[bytes, ...], tuple[Device, ...]] = ((), ()),
        locked: tuple[bytes, ...] = (),
    ) -> None:
        self.program = program
        self.environment = environment
        self.cwd = cwd
        self.host = host
        self.watched = watched
        self.mounts = mounts
        self.sources = sources
        self.links = links
        self.account = account
        self.resolv_conf = resolv_conf
        self.devices = devices
        self.locked = locked

    def run(  # noqa: PLR0913 - all but two by keyword
        self,
        argv: Sequence[str],
        *,
        terminal: Terminal = False,
        limits: Limits | None = None,
        warn: Callable[[str], None] | None = None,
        observation: Observation | None = None,
        streams: Streams | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Run `argv` in this jail, within `limits`, and return its exit status.

        `terminal` says whether the command gets one, or is a function that takes the part of
        `pkgjail.sandbox.terminal.relay`.

        `warn` is called, from another thread, about layers that are removed while the jail runs.
        `observation` and `streams` are as `pkgjail.sandbox.launch.run` takes them. `environment` is that of
        the command, in the place of the jail's.

        Raises:
            StaleError: the host, or other state that this jail depends on, has changed.
            SetupError: as `pkgjail.sandbox.launch.run`.

        """
        variables = self.environment if environment is None else tuple(sorted(environment.items()))
        command = (tuple(argv), self.cwd, variables, terminal)
        layers = layer_directories(self.program[1])
        try:
            locks = lock_shared((*layers, *self.locked))
        except OSError:
            raise StaleError from None
        monitor = LayerMonitor(dict(zip(layers, locks)), warn) if warn and layers else None

        def check_state() -> None:
            self.refuse_stale()
            if monitor is not None:
                monitor.start()

        try:
            return run(
                self.program,
                command,
                limits=limits,
                during_setup=check_state,
                observation=observation,
                streams=streams,
            )
        finally:
            if monitor is not None:
                monitor.stop()
            unlock(locks)

    def refuse_stale(self) -> None:
        """Raise `StaleError` if any state that this jail depends on has changed."""
        if any(bind_source_state(source[0]) != source for source in self.sources):
            raise StaleError
        if any(_link_text(path) != text for path, text in self.links):
            raise StaleError
        if self.account != read_account():
            raise StaleError
        if self.devices[0] and self._devices_changed():
            raise StaleError
        if self.resolv_conf is not None and self.resolv_conf != read_resolv_conf():
            raise StaleError
        writable = [step[2] for step in self.program[1] if step[0] == "Bind" and step[3]]
        mounts = relevant_mounts(self.program[0], writable)
        if self.host_changed() or changed_directories(self.watched) or self.mounts != mounts:
            raise StaleError

    def _devices_changed(self) -> bool:
        from pkgjail.core.devices import find_devices  # most jails show no device of the host

        patterns, found = self.devices
        return find_devices(patterns) != found

    def host_changed(self) -> bool:
        """Check whether any directory or file that the host shows in the jail has changed."""
        return bool(changed_directories(self.host))


def relevant_mounts(root: bytes, writable: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the mounts that matter to a jail: among the host's files, and around writable binds' sources.

    All paths are real. Below `root`, mounts in variable parts of the host are left out, as they come and go.
    """
    start = len(root.rstrip(b"/"))
    among = [point for point in mounts_below(root) if not is_variable(point[start:])]
    return (*among, *mounts_around(writable))


def bind_source_state(path: bytes) -> tuple[bytes, bytes, bool]:
    """Return the state of a bind's source: the path, its real path, and whether that is a directory."""
    real = os.path.realpath(path)
    return path, real, os.path.isdir(real)


def _link_text(path: bytes) -> bytes | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def mounts_around(sources: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the mounts that real paths are on or show: device, root and mount point, to be compared.

    A mount can show files that a command may not change.
    """
    paths = tuple([source.rstrip(b"/") + b"/" for source in sources])
    if not paths:
        return ()
    found = []
    for _, device, root, mount_point in read_mounts():
        point = mount_point.rstrip(b"/") + b"/"
        if point.startswith(paths) or any(path.startswith(point) for path in paths):
            found.append(b"\0".join((device, root, mount_point)))
    return tuple(found)


def read_account() -> AccountState:
    """Return the calling user's ids, the names in passwd(5) and group(5) or "user", and the further groups.

    A supplementary group that has no name is left out.
    """
    uid, gid = os.geteuid(), os.getegid()
    user = group = "user"
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(gid).gr_name
    groups = []
    for number in sorted({*os.getgroups()} - {gid}):
        with contextlib.suppress(KeyError):
            groups.append((number, grp.getgrgid(number).gr_name))
    return uid, gid, user, group, tuple(groups)


def read_resolv_conf() -> bytes:
    """Return the content of the host's resolv.conf(5), empty if it cannot be read."""
    try:
        with open(_RESOLV_CONF, "rb") as file:
            return file.read()
    except OSError:
        return b""


def replay(
    arguments: Sequence[str],
    report: Callable[[int], int],
    warn: Callable[[str], None] | None = None,
    given: Mapping[str, str] | None = None,
    terminal: Terminal | None = None,
) -> int | None:
    """Run the command of `pkgjail run … -- COMMAND …` (or `enter`) in the jail saved for this command line.

    Args:
        arguments: the command line.
        report: called with the command's exit status if the host's directories changed while it ran;
            returns the status to end with.
        warn: as `PreparedJail.run` takes it.
        given: the variables that a jail gets that was saved with others in their place; `GivenVariables`.
        terminal: as `PreparedJail.run` takes it; by default, as the jail was saved.

    Returns:
        The command's exit status, or None if no such jail is saved or its state has changed. Then nothing
        was started, and the caller prepares the jail anew, which also finds out why it cannot be entered.

    Raises:
        OSError: the calling process was refused something; the command may have run.

    """
    key = _key(arguments)
    saved = None if key is None else _load(key, given)
    if key is None or saved is None:
        return None
    prepared, has_terminal = saved
    try:
        status = prepared.run(
            arguments[len(key) + 1 :], terminal=has_terminal if terminal is None else terminal, warn=warn
        )
    except (StaleError, SetupError):
        return None
    return report(status) if prepared.host_changed() else status


def save_prepared_jail(  # noqa: PLR0913 - all but two by keyword
    arguments: Sequence[str],
    prepared: PreparedJail,
    *,
    terminal: bool,
    variables: Sequence[str] = (),
    defaults: Mapping[str, str] | None = None,
    given: GivenVariables | None = None,
    settings: SettingsState | None = None,
) -> None:
    """Save a jail for `replay`, by its command line.

    `variables` are the words by which the caller's variables were chosen
    (`pkgjail.jails.variables.choose_variables`), and `defaults` the environment without those: a replay
    chooses again. With `given`, a replay takes the variables that its caller gives. `settings` is the state
    of the settings before they were read, by default the present one. Does nothing for a command line that
    `replay` would not look up. Raises `OSError`.
    """
    from pkgjail.storage.atomic import write_own_file  # not needed to enter

    key = _key(arguments)
    if key is None:
        return
    compared = (*_VARIABLES, *(given.compared if given else ()))
    environment = {name: os.environ.get(name) for name in compared}
    chosen: tuple[tuple[str, ...], dict[str, str], dict[str, str]] = ((), {}, {})
    if variables:
        chosen = (tuple(variables), _without_chosen(prepared, variables, defaults or {}), {})
    elif given:
        chosen = ((), dict(given.under), _over(prepared, given))
    fields = tuple(getattr(prepared, name) for name in PreparedJail.__slots__)
    # With other privileges, another strategy may work.
    privileges = current_privileges()
    install = (_PACKAGE, _PYTHON)
    cwd, code = _working_directory(), _code_states()
    settings = settings_state() if settings is None else settings
    record = (key, cwd, environment, install, privileges, code, settings, terminal, chosen, fields)
    write_own_file(_path(key), pack(_FORMAT, record))


def _load(key: tuple[str, ...], given: Mapping[str, str] | None) -> tuple[PreparedJail, bool] | None:
    """Return the jail that is saved under this key, and whether it has a terminal of its own."""
    try:
        record = unpack(_FORMAT, read_own_file(_path(key)))
        if record is None:
            return None
        saved_key, cwd, environment, install, privileges, code, settings, terminal, chosen, fields = record
        saved = (saved_key, cwd, install, privileges)
        same = saved == (key, _working_directory(), (_PACKAGE, _PYTHON), current_privileges())
    except OSError:
        return None
    if not same or any(os.environ.get(name) != value for name, value in environment.items()):
        return None
    if changed_directories(code) or settings_changed(settings):
        return None
    by_name: dict[str, Any] = dict(zip(PreparedJail.__slots__, fields))
    prepared = PreparedJail(**by_name)
    words, under, over = chosen
    if words and not _choose_again(prepared, words, under):
        return None
    if given is not None:
        prepared.environment = tuple(sorted({**under, **given, **over}.items()))
    return prepared, terminal


def _over(prepared: PreparedJail, given: GivenVariables) -> dict[str, str]:
    """Return the variables of a jail that take precedence over given ones: the caller's, and PWD."""
    added = {name: value for name, value in prepared.environment if name not in {*given.under, *given.values}}
    return {**added, **given.over}


def _without_chosen(
    prepared: PreparedJail, variables: Sequence[str], defaults: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of a jail without the caller's variables, such as PWD and `defaults`."""
    from pkgjail.jails.variables import choose_variables

    chosen = choose_variables(variables, os.environ).values
    return {**defaults, **{name: value for name, value in prepared.environment if name not in chosen}}


def _choose_again(prepared: PreparedJail, variables: Sequence[str], defaults: Mapping[str, str]) -> bool:
    """Choose the caller's variables anew. Return whether no warning is due.

    No plan depends on them, except on HOME, whose value is compared (`_VARIABLES`).
    """
    from pkgjail.jails.variables import choose_variables

    chosen = choose_variables(variables, os.environ)
    prepared.environment = tuple(sorted({**defaults, **chosen.values}.items()))
    return not (chosen.unset or chosen.withheld)


def _working_directory() -> tuple[bytes, bytes]:
    """Return the path of the working directory without links, and the one that the caller came by.

    Relative paths of a command line start at the first. Raises `OSError`.
    """
    return os.getcwdb(), path_of_working_directory()


def _key(arguments: Sequence[str]) -> tuple[str, ...] | None:
    """Return all arguments before `--`, which identify the jail, or None if no command can follow."""
    if (
        not arguments
        or arguments[0] not in _VERBS
        or "--" not in arguments[:-1]
        or "_ARGCOMPLETE" in os.environ
    ):
        return None
    return tuple(arguments[: list(arguments).index("--")])


def _path(key: tuple[str, ...]) -> str:
    """Return the file of the jail with this key. Keys can collide, so `_load` compares them."""
    from binascii import crc32

    number = crc32("\0".join(key).encode("utf-8", "surrogateescape"))
    return f"{runtime_directory()}/prepared/{number:08x}"


def _code_states() -> tuple[tuple[bytes, int, int, int, int], ...]:
    """Return the states of the code that decides how a jail is made: another version may plan differently."""
    paths = []
    for directory in (os.path.join(_PACKAGE, folder) for folder in _FOLDERS):
        with os.scandir(directory) as entries:
            paths += [entry.path for entry in entries if entry.name.endswith((b".py", b".toml"))]
    return take_settled_fingerprint(sorted(paths))
