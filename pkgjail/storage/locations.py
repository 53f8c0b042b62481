"""The places of files that pkgjail stores: the cache, data, runtime, shared and temporary directories.

A directory is used only if no other user can put another one in its place (`replaceable_part`), and, for
the runtime directory, only if it belongs to this user alone. `pkgjail.storage.own_files` opens what is in
these directories. Entering a jail imports this module, so it must stay cheap to import.
"""

from __future__ import annotations

import contextlib
import os
import stat

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterator

SUBDIRECTORIES = ("baselines", "layers", "ld.so.cache", "prepared", "seals")
"""The directories below pkgjail's own whose members count one by one. Earlier versions made "seals"."""
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
"""The permission bits that let other users write."""

_SHM = "/dev/shm"  # noqa: S108 - what is there is checked
# systemd-logind(8) removes the directories below it when the user's last session ends.
_SESSIONS = "/run/user/"
_SHARED = "/var/tmp"  # noqa: S108 - what is there is checked
# For each usual runtime directory that another user took: the directory used instead.
_stand_ins: dict[str, str] = {}


# --- the runtime directory ----------------------------------------------------------------------


def runtime_directory() -> str:
    """Return `$XDG_RUNTIME_DIR/pkgjail` or `/dev/shm/pkgjail-UID`: in memory, and gone at the next boot.

    The first is used if the variable names a directory that is the user's alone and that does not go
    away with the user's last session. If another user made the second, it is `/dev/shm/pkgjail-UID-…`.
    The directory may not exist.
    """
    directory = _directory_of_variable()
    if directory:
        return directory
    usual = _usual_runtime_directory()
    return usual if not is_foreign(usual) else _stand_in(usual)


def possible_runtime_directories() -> list[str]:
    """Return `runtime_directory()` and the others that it may have returned under the same variables.

    Some may not exist, or belong to another user.
    """
    directory = _directory_of_variable()
    if directory:
        return [directory]
    base = _runtime_base()
    of_session = [f"{base}/pkgjail"] if base and not _fault(base) else []
    usual = _usual_runtime_directory()
    return [*of_session, usual, *_stand_ins_of(usual)]


def rejected_runtime_base() -> tuple[str, str]:
    """Return the directory of XDG_RUNTIME_DIR and why it is not used; two empty strings if it is no fault.

    A directory that goes away with the session is left out on purpose, and so is no fault.
    """
    base = _runtime_base()
    fault = _fault(base) if base and not base.startswith(_SESSIONS) else ""
    return (base, fault) if fault else ("", "")


def make_stand_in(usual: str) -> str:
    """Make a runtime directory under a name that nobody can take first, to be used instead of `usual`."""
    made = f"{usual}-{os.urandom(8).hex()}"
    make_directory(made)
    first = _stand_ins_of(usual)[0]
    if first != made:  # another process of this user was faster
        os.rmdir(made)
    return first


def _runtime_base() -> str:
    """Return XDG_RUNTIME_DIR, whose last component may be a link; "" if it is unset or relative."""
    base = os.environ.get("XDG_RUNTIME_DIR", "").rstrip("/")
    # A relative one is ignored (XDG Base Directory Specification).
    return (
        os.path.join(os.path.realpath(os.path.dirname(base)), os.path.basename(base))
        if base[:1] == "/"
        else ""
    )


def _directory_of_variable() -> str:
    """Return pkgjail's directory in XDG_RUNTIME_DIR; "" if that must not be used."""
    base = _runtime_base()
    if not base or (base.startswith(_SESSIONS) and os.access(_SHM, os.W_OK)) or _fault(base):
        return ""
    directory = f"{base}/pkgjail"
    return "" if is_foreign(directory) else directory


def _usual_runtime_directory() -> str:
    return f"{_SHM}/pkgjail-{os.geteuid()}"


def _stand_in(usual: str) -> str:
    """Return the first of `_stand_ins_of(usual)`, or `usual` if there is none.

    The search is done once: another user may make 100,000 names like it.
    """
    cached = _stand_ins.get(usual, usual)
    if not os.path.lexists(cached) or is_foreign(cached):
        cached = _stand_ins[usual] = next(iter(_stand_ins_of(usual)), usual)
    return cached


def _stand_ins_of(usual: str) -> list[str]:
    """Return this user's directories that replace `usual`: nobody can give a directory to another user."""
    directory, name = os.path.split(usual)
    try:
        names = [each for each in os.listdir(directory) if each.startswith(f"{name}-")]
    except OSError:
        return []
    paths = (f"{directory}/{each}" for each in sorted(names))
    return [path for path in paths if os.path.lexists(path) and not is_foreign(path)]


# --- the other directories ----------------------------------------------------------------------


def cache_directory() -> str:
    """Return `$XDG_CACHE_HOME/pkgjail` or `~/.cache/pkgjail` (XDG Base Directory Specification).

    A relative XDG_CACHE_HOME is ignored, as the specification asks. If another user could put something
    else in its place, as when `su` leaves HOME as it was, the home directory of the account is used; if
    that is no better, a directory in the runtime directory. The directory may not exist.
    """
    for base in _cache_bases():
        real = os.path.realpath(base)
        if os.path.isabs(base) and not replaceable_part(real):
            return f"{real}/pkgjail"
    return f"{runtime_directory()}/cache"


def data_directory() -> str:
    """Return `$XDG_DATA_HOME/pkgjail` or `~/.local/share/pkgjail` (XDG Base Directory Specification).

    A relative XDG_DATA_HOME is ignored, as the specification asks. The directory may not exist.
    """
    base = os.environ.get("XDG_DATA_HOME", "")
    return f"{base if os.path.isabs(base) else os.path.expanduser('~/.local/share')}/pkgjail"


def configuration_base() -> str:
    """Return `$XDG_CONFIG_HOME` or `~/.config` (XDG Base Directory Specification); a relative one is ignored.

    The directory may not exist. Without a home directory the path is relative.
    """
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return base if os.path.isabs(base) else os.path.expanduser("~/.config")


def configuration_directory() -> str:
    """Return `configuration_base()`/pkgjail, where users keep files for pkgjail to read. It may not exist."""
    return f"{configuration_base()}/pkgjail"


def shared_directory(owner: int) -> str:
    """Return where a user publishes what other users may read: `/var/tmp/pkgjail-UID`. It may not exist.

    PKGJAIL_SHARED_DIR names another directory than /var/tmp. Anybody may be able to write to either.
    """
    base = os.environ.get("PKGJAIL_SHARED_DIR", "")
    return f"{base if base[:1] == '/' else _SHARED}/pkgjail-{owner}"


def usual_directories() -> list[str]:
    """Return the directories of this user's processes whose environment differs from this one's (cron).

    The directories that the user publishes to are among them. Some may not exist, or belong to another
    user.
    """
    bases = [base for base in _caches_in_homes() if os.path.isabs(base)]
    user = os.geteuid()
    return [
        *(f"{base}/pkgjail" for base in bases),
        _usual_runtime_directory(),
        shared_directory(user),
        f"{_SHARED}/pkgjail-{user}",
    ]


def home_directories() -> list[str]:
    """Return HOME and the home directory of the account. The first may be "~", and both may be missing."""
    import pwd

    homes = [os.path.expanduser("~").rstrip("/")]
    with contextlib.suppress(KeyError):
        homes.append(pwd.getpwuid(os.geteuid()).pw_dir.rstrip("/"))
    return homes


def temporary_directory() -> str:
    """Return where to make directories that are removed at the end of a run: TMPDIR, or a usual one.

    The usual one is used if another user could replace TMPDIR, as when `su` leaves the variable as it was.

    Raises:
        FileNotFoundError: there is no directory to write to.

    """
    import tempfile

    preferred = os.path.realpath(tempfile.gettempdir())
    candidates = (preferred, "/tmp", _SHARED)  # noqa: S108 - what is there is checked
    return next((each for each in candidates if not replaceable_part(each)), preferred)


def _cache_bases() -> Iterator[str]:
    base = os.environ.get("XDG_CACHE_HOME", "")
    first, *others = _caches_in_homes()
    yield base if os.path.isabs(base) else first
    yield from others


def _caches_in_homes() -> list[str]:
    return [f"{home}/.cache" for home in home_directories()]


# --- who can change them ------------------------------------------------------------------------


def make_directory(name: str, directory: int | None = None) -> None:
    """Make a directory of mode 0700, whatever the umask; `directory` is a descriptor that `name` is in."""
    os.mkdir(name, 0o700, dir_fd=directory)
    # The umask may have taken the user's own rights. By now the name may be a link that another user made.
    made = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.chmod(f"/proc/self/fd/{made}", 0o700)
    finally:
        os.close(made)


def is_foreign(path: str) -> bool:
    """Return whether `path` exists and is not a directory of this user."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return not (stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid())


def replaceable_part(path: str) -> str:
    """Return the first directory on a real path in which another user may rename; "" if there is none.

    Such a directory belongs to neither this user nor root, or everybody may write to it and its sticky bit
    is not set. In a user namespace, the owner of "/" counts as root.
    """
    owners = {os.geteuid(), 0, os.lstat("/").st_uid}
    part = ""
    for name in path.rstrip("/").split("/"):
        part = f"{part}/{name}" if name else part
        try:
            found = os.lstat(part or "/")
        except OSError:  # the rest will be made
            return ""
        open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if found.st_uid not in owners or open_to_all:
            return part or "/"
    return ""


def _fault(base: str) -> str:
    """Return why another user may have put something into a directory; "" if it is this user's alone.

    If the directory does not exist yet, its parent is checked, where it will be made.
    """
    if not os.path.lexists(base):
        base = os.path.dirname(base)
    try:
        found = os.lstat(base)
    except OSError as error:
        return os.strerror(error.errno or 0)
    if not stat.S_ISDIR(found.st_mode):
        return "it is a link" if stat.S_ISLNK(found.st_mode) else "it is not a directory"
    if found.st_uid != os.geteuid():
        return "it belongs to another user, or does not exist"
    if found.st_mode & OTHERS_WRITE:
        return "others may write to it"
    replaceable = replaceable_part(base)
    return f"others may put another directory in the place of {replaceable}" if replaceable else ""
