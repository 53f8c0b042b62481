"""Root runs a function as a user who may make jails without a user namespace; `pkgjail.sandbox.privileged`.

The function runs in a child, in the caller's process group. So the keys of a terminal reach both, and the
caller passes on only the signals that other processes send.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import threading
from importlib import import_module
from typing import TYPE_CHECKING

from pkgjail.core.error_records import error_of, error_record
from pkgjail.core.errors import JailError, UsageError, os_error_text
from pkgjail.core.model import record
from pkgjail.core.parallel import without_fork_warning
from pkgjail.core.parameters import parameter
from pkgjail.sandbox.privileged import become_user
from pkgjail.sandbox.signals import RELAYED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

_FAILED = 125
_LONGEST = 1 << 24  # bytes of an answer
_SUDO_UID = "SUDO_UID"
# What the making of a jail imports late. It is imported before, as the user may not read root's Python.
_LATE = (
    "encodings.ascii", "fcntl", "select", "selectors", "socket", "struct", "traceback",
    "pkgjail.core.entries", "pkgjail.jails.limits", "pkgjail.sandbox.limits", "pkgjail.sandbox.terminal",
)  # fmt: skip
# Variables that name places of a user's; sudo(8) may leave root's or the user's own.
_PLACES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")


@record
class User:
    """A user of this system: ids, the ids of all groups but the first, name, and home directory."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str


def find_user(name: str = "") -> User:
    """Return the user of a name or a number; "" for whoever called sudo(8), or else the calling user.

    Raises:
        UsageError: there is no such user.

    """
    name = name or os.environ.get(_SUDO_UID, "") or str(os.getuid())
    try:
        found = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError, ValueError) as error:
        if name == str(os.getuid()):
            others = tuple(sorted({*os.getgroups()} - {os.getgid()}))
            return User(uid=os.getuid(), gid=os.getgid(), groups=others, name=name, home="/")
        raise UsageError(f"there is no user {name!r}; check {parameter('user')} and SUDO_UID") from error
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    others = tuple(sorted({*groups} - {found.pw_gid}))
    return User(uid=found.pw_uid, gid=found.pw_gid, groups=others, name=found.pw_name, home=found.pw_dir)


def run_as_user(user: User, work: Callable[[], int]) -> int:
    """Call `work` in a child that is the user's and may make jails; return what it returns, an exit status.

    The child dies with this process, and what it started in a jail with it.

    Raises:
        JailError: the child cannot become the user, or it was killed.
        KeyboardInterrupt, PkgjailError: `work` raised it; `pkgjail.core.error_records` makes it anew.

    """
    for name in _LATE:
        import_module(name)
    answer = os.memfd_create("pkgjail-answer")  # no pipe, which could be full before anybody reads it
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*RELAYED, signal.SIGCHLD})
    try:
        with without_fork_warning():
            child = os.fork()
        if child == 0:
            _work(user, work, answer, mask)
        status = _follow(child)
        text = os.pread(answer, _LONGEST, 0)
    finally:
        os.close(answer)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if text:
        raise error_of(json.loads(text))
    if os.WIFSIGNALED(status):
        raise JailError(f"the process that makes the jail was killed by signal {os.WTERMSIG(status)}")
    return os.WEXITSTATUS(status)


def _work(user: User, work: Callable[[], int], answer: int, mask: set[int | signal.Signals]) -> NoReturn:
    """In the child: become the user, work, and end with the status, or write the error."""
    status = _FAILED
    try:
        _become(user)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = work()
    except BaseException as error:  # noqa: BLE001 - the child must never go on in the caller's code
        os.write(answer, json.dumps(error_record(error)).encode())
    finally:
        os._exit(status)


def _become(user: User) -> None:
    try:
        become_user(user.uid, user.gid, user.groups)
    except OSError as error:
        raise JailError(
            f"cannot make a jail as root: {os_error_text(error, 'a capability')}; root must have "
            "CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SETPCAP, CAP_SETUID and CAP_SETGID, which containers take away"
        ) from error
    for name in _PLACES:
        if name in os.environ and not _belongs_to(os.environ[name], user):
            del os.environ[name]
    os.environ.update({"HOME": user.home, "LOGNAME": user.name, "USER": user.name})


def _belongs_to(path: str, user: User) -> bool:
    try:
        return os.stat(path).st_uid == user.uid
    except OSError:
        return False


def _follow(child: int) -> int:
    """Wait for the child, pass on signals to it, and stop when it stops; return its status (waitpid(2))."""
    for status in _states(child):
        if not os.WIFSTOPPED(status):
            return status
        _stop()
    raise AssertionError  # not reached: the child ends


def _states(child: int) -> Iterator[int]:
    """Yield the child's statuses, each time it stops and when it ends."""
    is_main = threading.current_thread() is threading.main_thread()
    while True:
        ended, status = os.waitpid(child, os.WUNTRACED | (os.WNOHANG if is_main else 0))
        if ended:
            yield status
        else:
            found = signal.sigwaitinfo({*RELAYED, signal.SIGCHLD})
            # A key's signal comes from the kernel (SI_KERNEL is above 0), and to the child too.
            if found.si_signo != signal.SIGCHLD and found.si_code <= 0:
                os.kill(child, found.si_signo)


def _stop() -> None:
    """Stop this process as its child has stopped; a shell continues both."""
    before = signal.getsignal(signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    try:
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
    finally:
        signal.signal(signal.SIGTSTP, before)
