"""Where pkgjail keeps things between runs, and the one way to open, read and write them.

What another user could have put there is not believed:

- Nobody else can put another directory in the place of the one that a path leads to (`_fault`).
- From pkgjail's own directory on, each level is opened by descriptor, no link is followed, and it must
  belong to the effective user, with nobody else allowed to write to it. So must a file, under one name.

On the way into a jail, so light. What is removed is removed by `pkgjail.storage.removal`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterator

SHELVES = ("baselines", "layers", "ld.so.cache", "prepared", "seals")
"""The directories in pkgjail's own whose members each count by themselves; earlier versions made "seals"."""
NEW, GOING = ".new-", ".going-"
"""What the name of something begins with that is being written, or removed."""

_SHM = "/dev/shm"  # noqa: S108 - what is there is checked
# systemd-logind(8) removes what is below when the user's last session ends.
_SESSIONS = "/run/user/"
_SHARED = "/var/tmp"  # noqa: S108 - what is there is checked
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO is no reason to wait
_PRIVATE = 0o600
_found: dict[str, str] = {}


def runtime_directory() -> str:
    """`$XDG_RUNTIME_DIR/pkgjail`, or `/dev/shm/pkgjail-UID`: in memory, and gone at the next boot.

    The first where that variable names a directory that is the user's alone, and not one that goes with
    the user's last session. `/dev/shm/pkgjail-UID-…` where somebody else has the second name. It may not
    be there.
    """
    place = _of_variable()
    if place:
        return place
    usual = _usual()
    return usual if not _is_strange(usual) else _other(usual)


def runtime_directories() -> list[str]:
    """What `runtime_directory` gives, and what else it may have given with the variables as they are.

    Not all need be there, or be the user's.
    """
    place = _of_variable()
    if place:
        return [place]
    base = _runtime_base()
    sessions = [f"{base}/pkgjail"] if base and not _fault(base) else []
    return [*sessions, _usual(), *_others(_usual())]


def settle_runtime_directory() -> str:
    """See that there is a runtime directory of this user's own.

    Returns:
        What the user should know, once: that a usual name is not used, and why. "" for nothing.

    """
    place = runtime_directory()
    if _is_strange(place):
        other = _make_other(place)
        return f"cannot use the runtime directory {place}: somebody else made it; {other} is used instead"
    base = _runtime_base()
    fault = _fault(base) if base and not base.startswith(_SESSIONS) else ""
    if not fault or os.path.lexists(place):
        return ""
    os.close(open_directory(place, make=True))
    return f"cannot use the runtime directory {base}: {fault}; {place} is used instead"


def shared_place(owner: int) -> str:
    """Where a user publishes what other users may read: `/var/tmp/pkgjail-UID`. It may not be there.

    PKGJAIL_SHARED_DIR names another directory than /var/tmp; anybody may be able to write to either.
    """
    base = os.environ.get("PKGJAIL_SHARED_DIR", "")
    return f"{base if base[:1] == '/' else _SHARED}/pkgjail-{owner}"


def usual_places() -> list[str]:
    """Where this user's processes keep things that have other variables than this one: cron's, say.

    With what they publish for other users. Not all need be there, or be the user's.
    """
    bases = [base for base in _caches_of_homes() if os.path.isabs(base)]
    user = os.geteuid()
    return [*(f"{base}/pkgjail" for base in bases), _usual(), shared_place(user), f"{_SHARED}/pkgjail-{user}"]


def cache_place() -> str:
    """`$XDG_CACHE_HOME/pkgjail` or `~/.cache/pkgjail` (XDG Base Directory Specification).

    A relative XDG_CACHE_HOME is ignored, as the specification asks. Where another user could put
    something else in its place, as when HOME was left over by `su`, it is that of the account's own home
    directory, and where that is no better, in the runtime directory. It may not be there.
    """
    for base in _cache_bases():
        real = os.path.realpath(base)
        if os.path.isabs(base) and not _replaceable(real):
            return f"{real}/pkgjail"
    return f"{runtime_directory()}/cache"


def temporary_directory() -> str:
    """Where directories are made that go at the end of a run: `tempfile.gettempdir`, TMPDIR above all.

    Where another user could put something else in their place, as in a TMPDIR that was left over by `su`,
    it is the usual one.

    Raises `FileNotFoundError` where none can be written to.
    """
    import tempfile

    place = os.path.realpath(tempfile.gettempdir())
    return next((each for each in (place, "/tmp", _SHARED) if not _replaceable(each)), place)  # noqa: S108


def _cache_bases() -> Iterator[str]:
    base = os.environ.get("XDG_CACHE_HOME", "")
    first, *others = _caches_of_homes()
    yield base if os.path.isabs(base) else first
    yield from others


def _caches_of_homes() -> list[str]:
    """The cache directories of HOME and of the account's own home."""
    import pwd

    caches = [os.path.expanduser("~/.cache")]
    with contextlib.suppress(KeyError):
        caches.append(f"{pwd.getpwuid(os.geteuid()).pw_dir}/.cache")
    return caches


def _runtime_base() -> str:
    """XDG_RUNTIME_DIR, whose last name may still be a link; "" where it is none that counts."""
    base = os.environ.get("XDG_RUNTIME_DIR", "").rstrip("/")
    # A relative one is ignored (XDG Base Directory Specification).
    return (
        os.path.join(os.path.realpath(os.path.dirname(base)), os.path.basename(base))
        if base[:1] == "/"
        else ""
    )


def _of_variable() -> str:
    base = _runtime_base()
    if not base or (base.startswith(_SESSIONS) and os.access(_SHM, os.W_OK)) or _fault(base):
        return ""
    place = f"{base}/pkgjail"
    return "" if _is_strange(place) else place


def _usual() -> str:
    return f"{_SHM}/pkgjail-{os.geteuid()}"


def _other(usual: str) -> str:
    """The first of `_others`, or `usual`. Looked for once: a stranger may make 100,000 names like it."""
    known = _found.get(usual, usual)
    if not os.path.lexists(known) or _is_strange(known):
        known = _found[usual] = next(iter(_others(usual)), usual)
    return known


def _others(usual: str) -> list[str]:
    """The names that stand in for `usual` and are this user's: nobody can give a directory to another."""
    directory, name = os.path.split(usual)
    try:
        names = [each for each in os.listdir(directory) if each.startswith(f"{name}-")]
    except OSError:
        return []
    paths = (f"{directory}/{each}" for each in sorted(names))
    return [path for path in paths if os.path.lexists(path) and not _is_strange(path)]


def _make_other(usual: str) -> str:
    """Make a directory in the place of `usual`, under a name that nobody can take before."""
    made = f"{usual}-{os.urandom(8).hex()}"
    _make(made)
    first = _others(usual)[0]
    if first != made:  # another process of this user's was quicker
        os.rmdir(made)
    return first


def _is_strange(path: str) -> bool:
    """Whether there is something that is no directory of this user's."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return not (stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid())


def _fault(base: str) -> str:
    """Why what is in a directory may be not this user's doing; "" where it is theirs alone.

    One that is not there yet is to be made in such a directory.
    """
    if not os.path.lexists(base):
        base = os.path.dirname(base)
    try:
        found = os.lstat(base)
    except OSError as error:
        return os.strerror(error.errno or 0)
    if not stat.S_ISDIR(found.st_mode):
        return "it is a link" if stat.S_ISLNK(found.st_mode) else "it is no directory"
    if found.st_uid != os.geteuid():
        return "it is another user's, or is not there"
    if found.st_mode & _OTHERS_WRITE:
        return "others may write to it"
    replaceable = _replaceable(base)
    return f"others may put another directory in the place of {replaceable}" if replaceable else ""


def _replaceable(path: str) -> str:
    """The first directory on a real path in which another user may rename; "" where there is none.

    That is one that belongs to neither this user nor root, or that all may write to without its sticky
    bit. In a user namespace root's files are those of whoever has "/".
    """
    owners = {os.geteuid(), 0, os.lstat("/").st_uid}
    place = ""
    for name in path.rstrip("/").split("/"):
        place = f"{place}/{name}" if name else place
        try:
            found = os.lstat(place or "/")
        except OSError:  # what is further down will be made
            return ""
        open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if found.st_uid not in owners or open_to_all:
            return place or "/"
    return ""


# --- directories --------------------------------------------------------------------------------


def open_directory(path: str, *, make: bool = False) -> int:
    """A descriptor of a directory in which pkgjail keeps something, or of one that it is in.

    Each level from pkgjail's own directory on is looked at.

    Args:
        path: its absolute path; one in neither the cache nor the runtime directory is looked at alone.
        make: make what is not there (mode 0700, whatever the umask). One of pkgjail's own that others may
            write to is closed to them, and what they could have put there is put away.

    Raises:
        OSError: it is not there; `PermissionError` where it is not the user's alone.

    """
    own = _own_part(path)
    top, below = own or (path, [])
    if make:
        _make_above(top)
    # Another directory than pkgjail's own may be shared on purpose.
    descriptor = open_below(None, top, make=make, mend=make and own is not None)
    try:
        _refuse_replaceable(descriptor, top)
    except BaseException:
        os.close(descriptor)
        raise
    for name in below:
        outer = descriptor
        try:
            descriptor = open_below(outer, name, make=make, mend=make)
        finally:
            os.close(outer)
    return descriptor


def open_below(directory: int | None, name: str, *, make: bool = False, mend: bool = False) -> int:
    """As `open_directory`, for one level: `name` in a directory that was opened so.

    Only the first is opened without one, by its path. With `mend` it is pkgjail's, and closed to others
    where they may write to it; otherwise it is refused then.
    """
    try:
        descriptor = _open(directory, name)
    except FileNotFoundError:
        if not make:
            raise
        with contextlib.suppress(FileExistsError):
            _make(name, directory)
        descriptor = _open(directory, name)
    try:
        found = os.fstat(descriptor)
        _refuse_shared(found, name, mending=mend)
        if found.st_mode & _OTHERS_WRITE:
            _close_to_others(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def opened(path: str, *, make: bool = False) -> Iterator[int]:
    """`open_directory`, closed at the end."""
    descriptor = open_directory(path, make=make)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _refuse_replaceable(descriptor: int, path: str) -> None:
    """Refuse a directory in whose place another user may put one.

    What was not there when the path was chosen may be theirs by now, as names in /tmp and /dev/shm are.
    """
    real = os.readlink(f"/proc/self/fd/{descriptor}")
    if any(_replaceable(each) for each in {path, real}):
        raise _not_alone(path)


def _own_part(path: str) -> tuple[str, list[str]] | None:
    """Where on a path pkgjail's own directory is, and the names below; None where it is in none."""
    for place in (runtime_directory, cache_place):
        top = place()
        if path == top:
            return path, []
        if path.startswith(f"{top}/"):
            return top, path[len(top) + 1 :].split("/")
    return None


def _open(directory: int | None, name: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):  # a link, or no directory
            raise _not_alone(name) from None
        raise


def _refuse_shared(found: os.stat_result, name: str, *, mending: bool) -> None:
    """Refuse what is not the user's alone; one that others may only write to is no matter when `mending`."""
    is_one = stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink <= 1)
    is_open = found.st_mode & _OTHERS_WRITE and not mending
    if found.st_uid != os.geteuid() or not is_one or is_open:
        raise _not_alone(name)


def _not_alone(path: str) -> PermissionError:
    return PermissionError(errno.EPERM, "is not this user's alone", path)


def _make_above(path: str) -> None:
    """Make the directories that `path` is to be in."""
    directory = os.path.dirname(path)
    if not os.path.lexists(directory):
        _make_above(directory)
        with contextlib.suppress(FileExistsError):
            _make(directory)


def _make(name: str, directory: int | None = None) -> None:
    os.mkdir(name, 0o700, dir_fd=directory)
    # The umask may have taken the user's own rights; and by now the name may be a link that another made.
    made = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.chmod(f"/proc/self/fd/{made}", 0o700)
    finally:
        os.close(made)


def _close_to_others(directory: int) -> None:
    """Take the right to write to a directory from others, and put away what they could have put there.

    Earlier versions made one so under a loose umask. They can have moved files of this user's there too,
    with any content. What is in a directory that they could never write to is as the user left it.
    """
    os.fchmod(directory, 0o700)
    for name in os.listdir(directory):
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        is_own = found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE
        if not (name in SHELVES and stat.S_ISDIR(found.st_mode) and is_own):
            os.rename(name, f"{GOING}{os.urandom(8).hex()}", src_dir_fd=directory, dst_dir_fd=directory)


# --- files --------------------------------------------------------------------------------------


def open_file(directory: int, name: str, flags: int) -> int:
    """Open a regular file in a directory that `open_directory` opened; made files have mode 0600.

    With O_CREAT, which is for files whose content is not read, others lose the right to write to it.

    Raises:
        OSError: it cannot be opened; `PermissionError` where it is not the user's alone: another user
            owns it or may write to it, or it has another name somewhere.

    """
    descriptor = os.open(name, flags | _FILE, 0o600, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        _refuse_shared(found, name, mending=bool(flags & os.O_CREAT))
        if flags & os.O_CREAT and stat.S_IMODE(found.st_mode) != _PRIVATE:
            os.fchmod(descriptor, _PRIVATE)  # the umask may have taken the user's own rights, too
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_kept(path: str) -> bytes:
    """The content of a file that `keep` made for this user.

    Where the home directory is another user's, as with some ways to become root, or the runtime
    directory is, that user may have put a file there, or put one in its place.

    Raises:
        OSError: it cannot be read; `PermissionError` where it, or a directory above, is not the user's
            alone.

    """
    place, name = os.path.split(path)
    with opened(place) as directory, open(open_file(directory, name, os.O_RDONLY), "rb") as file:
        return file.read()


def keep(path: str, content: bytes) -> None:
    """Make `content` the file at `path`, at one stroke, and its directory where it is not there.

    What a writer that was killed left half-written is taken over by the next one.

    Raises `OSError`, also where the directory is not the user's alone; nothing new is left then.
    """
    place, name = os.path.split(path)
    with opened(place, make=True) as directory:
        keep_in(directory, name, content)


def keep_in(directory: int, name: str, content: bytes, mode: int = _PRIVATE) -> None:
    """As `keep`, in a directory that `open_directory` opened; the file gets `mode`.

    Whoever can open a file can lock it, and keep those waiting who write the next one. So what others may
    read is never waited for: each writer has a new file of its own.
    """
    while not _keep(directory, name, content, mode):
        pass


def _keep(directory: int, name: str, content: bytes, mode: int) -> bool:
    """Write the file; False where another writer has just finished with the new one."""
    import fcntl

    new = f"{NEW}{name}" if mode == _PRIVATE else f"{NEW}{name}-{os.urandom(8).hex()}"
    try:
        descriptor = open_file(directory, new, os.O_CREAT | os.O_WRONLY)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EACCES):
            raise
        os.unlink(new, dir_fd=directory)  # no file that `keep` makes
        return False
    with open(descriptor, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not is_at(descriptor, directory, new):
            return False
        try:
            os.ftruncate(descriptor, 0)
            while content:
                content = content[os.write(descriptor, content) :]
            if mode != _PRIVATE:
                os.fchmod(descriptor, mode)
            os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new, dir_fd=directory)
            raise
    return True


def is_at(descriptor: int, directory: int, name: str) -> bool:
    """Whether `name` in a directory is what a descriptor is open on."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False
