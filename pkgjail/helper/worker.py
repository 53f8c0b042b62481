"""The process that becomes the user and makes the jail, as `pkgjail run` does.

As root, it enters a mount namespace of its own, in which it shows the user's caches, and takes over the
surroundings of the client. Then it becomes the user (`pkgjail.sandbox.privileged`). Only after that does it
read the options and the manifest, and look up any path. It keeps CAP_SYS_ADMIN until its jail is made, so it
executes no program of the user's, and the user's processes cannot look into it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import signal
import socket
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.error_records import error_record
from pkgjail.core.errors import JailError, os_error_text
from pkgjail.core.text import printable
from pkgjail.helper import protocol
from pkgjail.helper.errors import RequestError
from pkgjail.helper.log import log
from pkgjail.helper.places import make_own, show_own, variables
from pkgjail.helper.policy import is_within
from pkgjail.helper.surroundings import take_over
from pkgjail.helper.wishes import Wish, refusals, wish_of, wish_record
from pkgjail.jails.drift import DriftCheck
from pkgjail.jails.replay import replay, save_prepared_jail
from pkgjail.jails.run import Jail, report_changes
from pkgjail.manifest import parse_manifest
from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.job import close_descriptors
from pkgjail.sandbox.privileged import become_user
from pkgjail.storage.locations import SUBDIRECTORIES, cache_directory, runtime_directory
from pkgjail.storage.own_files import opened_directory
from pkgjail.storage.removal import is_left_over, remove_unused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions
    from pkgjail.helper.policy import Policy
    from pkgjail.helper.surroundings import Surroundings
    from pkgjail.jails.replay import PreparedJail
    from pkgjail.sandbox.signals import Relay

FAILED = 125
_MOST_CACHED = 64  # members of one kind in a user's caches
_MOUNTS = (
    "HostFile",
    "WholeDirectory",
    "Overlay",
    "MaskedOverlay",
    "Cover",
    "Bind",
    "KeptLink",
    "Hidden",
    "Tmpfs",
)


class Task(NamedTuple):
    """A request that was approved: for whom, with which descriptors, and what was read of it, unparsed."""

    connection: socket.socket
    standard: Sequence[int]
    options: bytes
    manifest: bytes
    terminal: bool
    uid: int
    gid: int
    groups: tuple[int, ...]
    surroundings: Surroundings
    policy: Policy
    state: str
    digest: str


def become_worker(task: Task, keeper: int) -> NoReturn:
    """In a child of the keeper: do all of it, and end with the command's exit status."""
    status = FAILED
    try:
        status = _work(task, keeper)
    except BaseException as error:  # noqa: BLE001 - a worker must never go on in the keeper's code
        with contextlib.suppress(BaseException):
            protocol.send_large(task.connection, {"error": error_record(_told(error))})
    finally:
        os._exit(status)


def _told(error: BaseException) -> BaseException:
    """Return an error for the client: what the policy refuses is an error of its own kind there."""
    if isinstance(error, (RequestError, OSError)):
        why = os_error_text(error, "") if isinstance(error, OSError) else str(error)
        return JailError(f"pkgjaild cannot make the jail: {why}")
    return error


def _work(task: Task, keeper: int) -> int:
    home = prepare(task, keeper)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in task.surroundings.ignored:
        signal.signal(number, signal.SIG_IGN)  # as nohup(1) needs it
    _use_variables(variables(task.state, home))
    for number, descriptor in enumerate(task.standard):
        os.dup2(descriptor, number)
    close_descriptors(task.connection.fileno())
    return enter(task)


def prepare(task: Task, keeper: int) -> str:
    """As root: enter a mount namespace, take over the client's surroundings, become the user.

    Returns:
        The user's home directory.

    Raises:
        RequestError, OSError: it cannot be done; this process must end.

    """
    os.setpgid(0, 0)  # in a group of its own it can be stopped; the keeper is in the same session
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(FAILED)
    _enter_namespace(task.state, task.uid, task.gid)
    sc.join_new_session_keyring()
    home = _home(task.uid)
    take_over(task.surroundings)
    become_user(task.uid, task.gid, task.groups)
    return home


def _enter_namespace(state: str, uid: int, gid: int) -> None:
    """As root: enter a mount namespace in which a user's caches are shown."""
    own = make_own(state, uid, gid)
    sc.unshare(sc.CLONE_NEWNS)
    sc.mount(None, b"/", None, sc.MS_REC | sc.MS_SLAVE)  # no mount of this process appears on the host
    show_own(state, own)
    os.chdir("/")


def tidy(state: str, uid: int, gid: int) -> None:
    """Remove what killed workers of a user's left half-made, in a child that becomes the user."""
    child = os.fork()
    if child == 0:
        try:
            _enter_namespace(state, uid, gid)
            become_user(uid, gid, ())
            _use_variables(variables(state, "/"))
            remove_left_over()
        except OSError as error:
            log("untidy", uid=uid, why=error)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def enter(task: Task) -> int:
    """As the user: read the options and the manifest, make the jail, and run the command in it."""
    wish = wish_of(protocol.decoded(task.options))
    report = _Report(task.connection)
    terminal = _hand_over(task.connection) if task.terminal else False
    words = ("run", _identity(task, wish), "--", *wish.argv)
    if _is_replayable(wish.options):
        changed = partial(_report_changes, task, wish, report)
        status = replay(words, changed, report.warn, terminal=terminal)
        if status is not None:
            return status
    manifest = parse_manifest(task.manifest, "the manifest")
    if problems := refusals(wish, manifest, task.policy):
        raise RequestError(f"the administrator of this host does not allow: {'; '.join(problems)}")
    remove_left_over()
    root = os.path.realpath(wish.root)
    check = DriftCheck(
        verify=wish.options.verify, allow_drift=wish.options.allow_drift, publisher=None, reporter=report
    )
    jail = _AllowedJail(manifest, wish.options, root, check, task.policy, task.state)
    if jail.lasting and _is_replayable(wish.options):
        with contextlib.suppress(OSError):  # otherwise the next entry prepares its jail again
            save_prepared_jail(words, jail.prepared, terminal=task.terminal)
    return jail.enter(wish.argv, terminal=terminal)


def _identity(task: Task, wish: Wish) -> str:
    """Return a digest of all that a jail is made of, except for the command: manifest, options and policy."""
    options = wish_record(replace(wish, argv=()))
    made_of = (task.digest, json.dumps(options, sort_keys=True), repr(task.policy), task.terminal)
    return hashlib.sha256(repr(made_of).encode()).hexdigest()


def _is_replayable(options: JailOptions) -> bool:
    return not (options.verify or options.allow_drift)


def _report_changes(task: Task, wish: Wish, report: _Report, status: int) -> int:
    """Report files of the host that changed while a command ran; return its exit status."""
    manifest = parse_manifest(task.manifest, "the manifest")
    root = os.path.realpath(wish.root)
    report_changes(
        manifest, root, DriftCheck(reporter=report), strict=wish.options.strict_exit, status=status
    )
    return status


def _use_variables(given: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(given)


def remove_left_over() -> None:
    """Remove from this user's caches what a killed process left half-made, and what is unused if it is much.

    What another process is making is locked.
    """
    for top in (runtime_directory(), cache_directory()):
        for directory in (top, *(f"{top}/{name}" for name in SUBDIRECTORIES)):
            with contextlib.suppress(OSError), opened_directory(directory) as opened:
                names = os.listdir(opened)
                is_full = directory != top and len(names) > _MOST_CACHED
                for name in names:
                    if is_full or is_left_over(name):
                        _remove(opened, name)


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(OSError):  # somebody else has removed it
        remove_unused(directory, name)


class _AllowedJail(Jail):
    """A jail whose plan is checked by the policy each time that it is made.

    The paths in a plan are real ones, and the sandbox follows no link on the way to them. So what is checked
    here is what is shown, whatever the user renames meanwhile.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - those of a jail, and the policy
        self,
        manifest: Manifest,
        options: JailOptions,
        root: bytes,
        check: DriftCheck,
        policy: Policy,
        state: str,
    ) -> None:
        self._policy = policy
        self._state = os.fsencode(state)
        super().__init__(manifest, options, root, check)

    def _prepare(self) -> PreparedJail:
        prepared = super()._prepare()
        root, steps, _, _, _ = prepared.program
        if not _is_root_allowed(root, self._policy.roots):
            raise RequestError(f"the administrator does not allow files of {printable(root)} (roots)")
        if steps[:1] != (("NoUserNamespace",),):
            raise RequestError("the plan is for a user namespace")
        for step in steps:
            if step[0] == "Bind":
                self._refuse_source(step[2], writable=step[3])
        count = sum(step[0] in _MOUNTS for step in steps)
        if count > self._policy.limits["mounts"]:
            raise RequestError(
                f"the jail has {count:,} mounts; the administrator allows {self._policy.limits['mounts']:,}"
            )
        return prepared

    def _refuse_source(self, source: bytes, *, writable: bool) -> None:
        kind, allowed = ("writable", self._policy.writable)
        if not writable:  # a writable bind has read-only parts
            kind, allowed = "binds", (*self._policy.binds, *allowed)
        if not is_within(source, allowed) and not (self.options.share_ipc and source == b"/dev/shm"):
            raise RequestError(f"the administrator allows no bind of {printable(source)} ({kind})")
        if is_within(self._state, (source,)) or is_within(source, (self._state,)):
            raise RequestError(f"a bind of {printable(source)} would show the caches of pkgjaild")


def _is_root_allowed(root: bytes, allowed: tuple[bytes, ...]) -> bool:
    """Return whether files may come from a directory: "/" is the host itself, and not all that is in it."""
    return root in allowed or is_within(root, tuple(each for each in allowed if each != b"/"))


class _Report:
    """Sends progress and warnings to the client."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def progress(self, task: str, done: int, total: int) -> None:
        """Send it, unless the client does not read what it gets."""
        self._send({"progress": [task, done, total]}, socket.MSG_DONTWAIT)

    def warn(self, message: str) -> None:
        """Send it."""
        self._send({"warn": message[:4000]}, 0)

    def _send(self, message: dict[str, Any], flags: int) -> None:
        with contextlib.suppress(OSError):
            protocol.send(self._connection, message, flags=flags)


def _hand_over(connection: socket.socket) -> Any:
    """Return a function that hands the jail's terminal over to the client, which relays it to its own."""

    def relay(channel: socket.socket, _stops: int, _signals: Relay) -> None:
        message, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        if message:
            protocol.send(connection, {"terminal": True}, descriptors)
        protocol.close(descriptors)

    return relay


def _home(uid: int) -> str:
    """Return the home directory of a user's account; "/" if there is no account."""
    try:
        return pwd.getpwuid(uid).pw_dir or "/"
    except KeyError:
        return "/"
