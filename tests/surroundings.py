"""A fixed environment for a session of tests: the same in any clone, and next to any other process.

Variables, umask, signals, standard descriptors and the temporary directory are set once per session. If the
tests may mount (as root), they see a copy of dpkg's database and of apt's lists, so installations by other
processes do not affect them. Otherwise each test waits until dpkg is at rest. Workers of pytest-xdist inherit
all this.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.options import UserBind

if TYPE_CHECKING:
    from collections.abc import Mapping

DPKG = Path("/var/lib/dpkg")
LISTS = Path("/var/lib/apt/lists")

# Variables that change what pkgjail, Python or the programs that the tests compare with do.
_ODD = re.compile(
    r"PKGJAIL_.*|XDG_.*|PYTHON.*|GIT_.*|LC_.*|LANGUAGE|APT_CONFIG|DPKG_.*|RPM_.*|GREP_.*|TAR_OPTIONS|GZIP|XZ_.*"
    r"|POSIXLY_CORRECT|SOURCE_DATE_EPOCH|MAKEFLAGS|MFLAGS|MAKELEVEL|CDPATH|ENV|BASH_ENV|TZ"
    r"|COLUMNS|LINES|NO_COLOR|(CLI|FORCE_|PY_)?COLOR.*|_ARGCOMPLETE.*|COMP_.*|MANPAGER|PAGER|SPACK_.*"
)
# Settings of the tests themselves.
_KNOBS = re.compile(
    r"PKGJAIL_(EXAMPLES|SPACK_(ROOT|PACKAGES)|TEST_.*)|PYTHONDONTWRITEBYTECODE|PYTHONPYCACHEPREFIX"
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Of mount(2) and unshare(2).
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE, _MS_SHARED, _MS_MOVE = 0x4000, 1 << 18, 1 << 20, 0x2000

# What changes when packages come and go, even if the tests see a copy of the database.
_MOVING = ("/var/log/dpkg.log", "/etc", "/etc/alternatives", "/usr/bin", "/usr/lib", "/usr/share")
# States of a package that dpkg leaves again (dpkg(1)), and how long they may last while nobody is at work.
_PASSING = re.compile(rb"^Status: \S+ \S+ (unpacked|half-.*|triggers-.*)$", re.MULTILINE)
_AT_MOST_SECONDS, _BROKEN_SECONDS = 600.0, 5.0
_waited = [0.0]
_PREFIX, _DAY_SECONDS = "pj-tests-", 86400
# Names of sockets have at most 107 bytes (unix(7)), and those of the tests lie some way below.
_LONGEST_TMPDIR = 40


def own_environment(given: Mapping[str, str], home: str) -> dict[str, str]:
    """Return the variables for the tests: the caller's without the odd ones, and the usual values."""
    kept = {
        name: value for name, value in given.items() if _KNOBS.fullmatch(name) or not _ODD.fullmatch(name)
    }
    path = ":".join(place for place in given.get("PATH", "").split(":") if os.path.isabs(place))
    return {**kept, "HOME": home, "LANG": "C.UTF-8", "PATH": path or _PATH}


def open_standard_descriptors() -> None:
    """Open /dev/null for those that the caller closed; otherwise a test's file would take the number."""
    opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    while opened <= 2:
        opened = os.open(os.devnull, os.O_RDWR)
    os.close(opened)


def restore_signals() -> None:
    """Give the signals that the caller ignores, as nohup(1) and a shell's `&` do, their usual actions.

    Programs inherit ignored signals, so keys would not reach those of the tests.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGTSTP):
        if signal.getsignal(number) == signal.SIG_IGN:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)


def temporary_directory() -> str:
    """Make a directory for this session that all users can reach; TMPDIR may be private or too long."""
    usual = os.path.realpath(tempfile.gettempdir())
    places = [usual] if len(usual) <= _LONGEST_TMPDIR else []
    place = next(each for each in (*places, "/tmp", "/var/tmp") if _is_reached_by_all(each))
    _remove_old(place)
    made = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
    os.chmod(made, 0o1777)  # noqa: S103 - as /tmp
    return made


def _remove_old(place: str) -> None:
    """Remove the directories of sessions that failed or were killed more than a day ago."""
    for old in glob.glob(f"{glob.escape(place)}/{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(old)
            if found.st_uid == os.geteuid() and found.st_mtime < time.time() - _DAY_SECONDS:
                subprocess.run(["rm", "-rf", "--one-file-system", old], check=False)


def _is_reached_by_all(place: str) -> bool:
    return all(os.stat(each).st_mode & stat.S_IXOTH for each in (Path(place), *Path(place).parents))


def binds_of_coverage() -> tuple[UserBind, ...]:
    """Return a bind of the directory in which coverage writes its data; nothing if coverage is not running.

    The bind is left out if possible, as the clone may lie where a test binds something else.
    """
    coverage = sys.modules.get("coverage")
    if coverage is None or coverage.Coverage.current() is None:
        return ()
    here = os.getcwdb()
    return (UserBind(source=here, destination=here, writable=True),)


def own_user_id() -> int:
    """Return a user id that no other test process on this host uses, reserved until this process ends.

    Runtime directories in /dev/shm are named after user ids.
    """
    for uid in range(61184, 65520):  # no login's and no service's, as systemd has it
        claim = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            claim.bind(f"\0pkgjail-tests-{uid}")
            if not glob.glob(f"/dev/shm/pkgjail-{uid}*"):  # left by tests that were killed
                claim.detach()
                return uid
        claim.close()
    raise AssertionError("more tests run at once than there are user ids for them")


# The inode, size, time of change and time of status change of a file.
Identity = tuple[int, int, int, int]


class State(NamedTuple):
    """The state of a package database: the identities of its files, and whether dpkg has finished."""

    files: tuple[tuple[int, int, int], ...]
    is_settled: bool


def state_of(database: Path) -> State:
    """Return the state of a database of dpkg's. It is settled if dpkg has nothing left to do.

    Files are looked at last: if dpkg finishes in between, the files show that it changed something.
    """
    updates, status = database / "updates", database / "status"
    pending = updates.is_dir() and any(name.isdigit() for name in os.listdir(updates))
    passing = status.exists() and _PASSING.search(status.read_bytes()) is not None
    files = tuple(
        (found.st_ino, found.st_size, found.st_mtime_ns)
        for found in map(os.stat, filter(os.path.exists, (database, status, database / "info")))
    )
    return State(files, not pending and not passing)


def _is_at_work(database: Path) -> bool:
    """Return whether a process holds dpkg's lock, according to proc_locks(5)."""
    inodes = {
        str(path.stat().st_ino) for path in (database / "lock", database / "lock-frontend") if path.exists()
    }
    locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return any(line.split()[-3].rpartition(":")[2] in inodes for line in locks)


def wait_for_rest(database: Path = DPKG) -> State:
    """Wait until dpkg has finished. Do not wait for an interrupted dpkg whose lock nobody holds."""
    began = last_work = time.monotonic()
    while True:
        state, now = state_of(database), time.monotonic()
        if state.is_settled or now - began > _AT_MOST_SECONDS or now - last_work > _BROKEN_SECONDS:
            return state
        if _is_at_work(database):
            last_work = now
        time.sleep(0.05)


def copy_at_rest(database: Path, copy: Path) -> None:
    """Copy a database of dpkg's in one consistent state, at a time when dpkg is not at work.

    All of it is copied first, and only the differences once dpkg has finished, so a short pause is enough.
    """
    deadline = time.monotonic() + _AT_MOST_SECONDS
    copied: dict[Path, Identity] = {}
    with contextlib.suppress(FileNotFoundError):  # something went in this moment
        copy_changes(database, copy, copied)
    is_same = False
    while not is_same and time.monotonic() < deadline:
        before = wait_for_rest(database)
        with contextlib.suppress(FileNotFoundError):
            copy_changes(database, copy, copied)
            is_same = state_of(database) == before


def copy_changes(source: Path, copy: Path, copied: dict[Path, Identity]) -> None:
    """Make `copy` equal to a directory. Skip the files in `copied`, and add to it those that are copied.

    Not the size and the time decide: a file that replaces another within a tick of the clock has its time.
    """
    copy.mkdir(exist_ok=True)
    with os.scandir(source) as found:
        entries = {entry.name: entry for entry in found}
    for name in set(os.listdir(copy)) - set(entries):
        _remove(copy / name)
        copied.pop(source / name, None)
    for name, entry in entries.items():
        if entry.is_dir(follow_symlinks=False):
            copy_changes(source / name, copy / name, copied)
            continue
        before = entry.stat(follow_symlinks=False)
        identity = before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns
        if copied.get(source / name) != identity:
            _remove(copy / name)
            shutil.copy2(entry.path, copy / name, follow_symlinks=False)
            _give(entry.path, copy / name)
            copied[source / name] = identity
    shutil.copystat(source, copy)
    _give(source, copy)


def _give(source: str | Path, copy: Path) -> None:
    """Give a copy the owner and group of its source, if this process is root."""
    found = os.lstat(source)
    if os.geteuid() == 0:
        os.chown(copy, found.st_uid, found.st_gid, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def host_state() -> tuple[int, ...]:
    """Return a value that changes when packages are installed or removed: the host's files are not a copy."""
    return tuple(os.stat(path).st_mtime_ns for path in filter(os.path.exists, _MOVING))


def wait_for_host(seconds: float) -> None:
    """Wait until no package came or went for so long; at most ten minutes in the whole session."""
    began = since = time.monotonic()
    state = host_state()
    while time.monotonic() - since < seconds and _waited[0] + time.monotonic() - began < _AT_MOST_SECONDS:
        time.sleep(0.05)
        if host_state() != state:
            state, since = host_state(), time.monotonic()
    _waited[0] += time.monotonic() - began


def freeze(*directories: Path) -> bool:
    """Show this process and its children copies of these directories, in memory, in a mount namespace.

    Mounts of other processes are not seen from then on. Return whether this worked: it needs root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    was_shared = any(
        b" / / " in line and b" shared:" in line
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines()
    )
    if (
        os.geteuid() != 0
        or libc.unshare(_CLONE_NEWNS)
        or not _mount(libc, "", "/", "", _MS_REC | _MS_PRIVATE)
    ):
        return False
    for directory in filter(Path.is_dir, directories):
        made = Path(tempfile.mkdtemp(dir="/dev/shm"))
        is_made = _mount(libc, "tmpfs", str(made), "tmpfs", 0)
        if is_made:
            copy_at_rest(directory, made)
            is_made = _mount(libc, str(made), str(directory), "", _MS_MOVE)
        made.rmdir()
        if not is_made:
            return False
    return not was_shared or _mount(libc, "", "/", "", _MS_REC | _MS_SHARED)


def _mount(libc: ctypes.CDLL, source: str, target: str, kind: str, flags: int) -> bool:
    """Call mount(2) and return whether it succeeded."""
    words = (os.fsencode(word) or None for word in (source, target, kind))
    return bool(libc.mount(*words, ctypes.c_ulong(flags), None) == 0)
