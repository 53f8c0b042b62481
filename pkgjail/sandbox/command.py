"""Start the command of a jail, in init: as a process with no privilege, or as root in the jail."""

from __future__ import annotations

import contextlib
import errno
import os
import signal

from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.capabilities import keep_root_capabilities
from pkgjail.sandbox.executables import find_fault
from pkgjail.sandbox.job import (
    FIRST_UNINHERITED,
    SETUP_FAILED,
    SetupError,
    close_descriptors,
    fork,
    ignore_closed_pipe,
    make_pipe,
)
from pkgjail.sandbox.proc_links import refuse_links_of_proc

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Protocol

    from pkgjail.sandbox.job import Job

    class Started(Protocol):
        """What it takes to become a command."""

        argv: tuple[str, ...]
        environment: tuple[tuple[str, str], ...]
        mask: set[int]


_NOT_FOUND_ERRORS = (errno.ENOENT, errno.ENOTDIR)
# A file is missing, or cannot be executed.
_FAULTS_OF_FILES = (*_NOT_FOUND_ERRORS, errno.EACCES, errno.ENOEXEC, errno.ELIBBAD, errno.EISDIR)
# Python ignores these signals; the command must not.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def start_command(job: Job) -> int:
    """Start the command as the leader of a process group. It inherits only descriptors 0 to 2.

    It is in init's session, which the caller's terminal does not control, so it cannot push input into that
    terminal (TIOCSTI). It does not lead the session, so it cannot make that terminal the controlling one.
    Since init is in the same session, the process group is not orphaned, and keys can stop it (setpgid(2)).

    With a terminal of the jail's own, the command needs a forked child that enters the foreground. With
    limits it needs one that waits for init's second thread, since it could use up the processes before.
    Otherwise posix_spawn(3) does everything.
    """
    try:
        _change_directory(job.cwd)
        if job.channel is not None or job.limits is not None:
            return _fork_command(job, -1 if job.channel is None else job.open_terminal(job.channel))
        close_descriptors(job.stops_write, job.listener)
        return _search_path(job, lambda path: _spawn(job, path))
    except OSError as error:
        raise SetupError("execute", error.errno or 0, os.fsencode(error.filename or b""), []) from None
    except ValueError as error:  # for example, an argument contains NUL
        raise SetupError("execute", 0, repr(error).encode(), []) from None


class RootCommand:
    """The process of a command that is root in the jail, which has a user namespace of its own in init's.

    There it has the capabilities that it takes to change owners and users. It has none in init's namespace,
    to which the mounts, processes and names of the jail belong. Init must map the ids before it gives up its
    privileges, so the process is started before, and waits.
    """

    def __init__(self, job: Job, umask: int) -> None:
        self._job = job
        sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
        job.install_filter()
        terminal = -1 if job.channel is None else job.open_terminal(job.channel)
        sc.close_range(FIRST_UNINHERITED, cloexec=True)
        ready, ready_write = make_pipe()
        go, self._go = make_pipe()
        self._child = fork(job, "build", lambda: self._wait(job, umask, terminal, ready_write, go))
        os.close(ready_write)
        os.close(go)
        if not os.read(ready, 1):  # it has reported why
            os._exit(SETUP_FAILED)
        os.close(ready)
        job.add_namespace(os.stat(f"/proc/{self._child}/ns/user").st_ino)
        if job.maps is not None:  # it has the namespace that makes it root
            job.maps.write_nested(self._child)

    def start(self) -> int:
        """In init: let the process become the command, and return it."""
        with contextlib.suppress(PermissionError):  # EACCES: it has executed the command
            os.setpgid(self._child, self._child)
        self._job.start_thread()
        os.write(self._go, b".")
        return self._child

    def _wait(self, job: Job, umask: int, terminal: int, ready: int, go: int) -> NoReturn:
        """In the process: enter the namespace, wait for init, keep few capabilities, become the command."""
        os.close(self._go)
        sc.unshare(sc.CLONE_NEWUSER)
        sc.prctl(sc.PR_SET_DUMPABLE, 1)  # so that init, and not only the host's root, may write the maps
        os.write(ready, b".")
        if not os.read(go, 1):
            os._exit(SETUP_FAILED)
        sc.prctl(sc.PR_SET_DUMPABLE, 0)
        keep_root_capabilities()
        os.umask(umask)
        try:
            _change_directory(job.cwd)
            _execute(job, terminal)
        except OSError as error:
            raise SetupError("execute", error.errno or 0, os.fsencode(error.filename or b""), []) from None
        except ValueError as error:  # for example, an argument contains NUL
            raise SetupError("execute", 0, repr(error).encode(), []) from None


def execute_in(job: Started, directory: bytes) -> NoReturn:
    """In a child that is ready: change to a directory and become the command.

    Raises:
        SetupError: the command cannot be executed.

    """
    try:
        _change_directory(directory)
        _become(job)
    except OSError as error:
        raise SetupError("execute", error.errno or 0, os.fsencode(error.filename or b""), []) from None
    except ValueError as error:  # for example, an argument contains NUL
        raise SetupError("execute", 0, repr(error).encode(), []) from None


def _change_directory(path: bytes) -> None:
    """Change the directory as chdir(2), but refuse links of proc(5): they lead to open files of a process."""
    directory = sc.openat2(sc.AT_FDCWD, path, os.O_PATH | os.O_DIRECTORY, sc.RESOLVE_NO_MAGICLINKS)
    os.fchdir(directory)
    os.close(directory)


def _search_path(job: Started, start: Callable[[str], int]) -> int:
    """Call `start` with each path of the command along the PATH inside, until one can be executed.

    Returns:
        What `start` returned.

    Raises:
        SetupError: none could be executed; it has the path, and what is wrong with the file.

    """
    name = job.argv[0]
    path = [""] if "/" in name else dict(job.environment).get("PATH", os.defpath).split(":")
    error: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    is_there = False  # ENOENT may be for an interpreter
    for file in (os.path.join(directory, name) for directory in path):
        try:
            refuse_links_of_proc(file)  # before making a process, which costs more
            return start(file)
        except OSError as failure:  # noqa: PERF203 - few directories
            if not is_there:
                error = failure
            is_there = is_there or failure.errno not in _NOT_FOUND_ERRORS or os.path.lexists(file)
    found = os.fsencode(error.filename or b"")
    fault = find_fault(found, error.errno) if error.errno in _FAULTS_OF_FILES else ("", b"")
    raise SetupError("execute", error.errno or 0, found, [], fault)


def _spawn(job: Job, path: str) -> int:
    return os.posix_spawn(
        path, job.argv, dict(job.environment), setpgroup=0, setsigmask=job.mask, setsigdef=_IGNORED_BY_PYTHON
    )


def _fork_command(job: Job, terminal: int) -> int:
    """Fork the command's process before this one has a second thread, and let it wait for that."""
    sc.close_range(FIRST_UNINHERITED, cloexec=True)
    go, go_write = make_pipe()

    def execute() -> NoReturn:
        os.close(go_write)
        if not os.read(go, 1):
            os._exit(SETUP_FAILED)
        _execute(job, terminal)

    child = fork(job, "execute", execute)
    job.start_thread()
    with ignore_closed_pipe():
        os.write(go_write, b".")
    with contextlib.suppress(PermissionError):  # EACCES: the child did it, and has executed the command
        os.setpgid(child, child)
    return child


def _execute(job: Job, terminal: int) -> NoReturn:
    """In the forked child: become the command, in the foreground of a terminal of the jail's own if any."""
    if terminal < 0:
        os.setpgid(0, 0)
    else:
        job.enter_foreground(terminal)
    _become(job)


def _become(job: Started) -> NoReturn:
    """Become the command, with the signals that it expects."""
    for ignored in _IGNORED_BY_PYTHON:
        signal.signal(ignored, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, job.mask)
    environment = dict(job.environment)
    _search_path(job, lambda path: os.execve(path, job.argv, environment))
    raise AssertionError  # not reached: execve(2) does not return
