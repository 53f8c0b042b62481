"""The answers of the supervisor, call by call, in this process: it reads this process's own memory."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Union

import pytest

from pkgjail.core.errors import CommandError, JailError
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.core.reporter import Silent
from pkgjail.jails.run import default_environment
from pkgjail.sandbox import landlock, notices
from pkgjail.sandbox.steps import Content, Devices, Directory, HostFile, Plan, Proc, Step, Symlink
from pkgjail.stages import run_in_stage
from pkgjail.stages.model import RefusedError
from pkgjail.stages.supervised import Supervised
from pkgjail.supervised import processes, rules
from pkgjail.supervised.calls import calls_of, known_calls
from pkgjail.supervised.names import Bind, Names, make_differing_links, names_of
from pkgjail.supervised.opening import is_for_root_alone
from pkgjail.supervised.supervisor import Supervisor
from pkgjail.supervised.view import View

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest

    Argument = Union[int, bytes, ctypes.Array[ctypes.c_char]]

CALLS = known_calls()
CWD = -100
NOFOLLOW, EMPTY = 0x100, 0x1000


class Answers:
    """A supervisor of a small view below a directory, and what it answers this process."""

    def __init__(self, top: Path) -> None:
        self.top = os.fsencode(top)
        for name in ("set", "bind", "ro", "copies", "hidden"):
            (top / name).mkdir()
        (top / "set/file").write_text("x")
        (top / "set/program").write_text("#!/none\n")
        (top / "set/other").write_text("x")
        (top / "hidden/file").write_text("secret")
        (top / "bind/file").write_text("x")
        (top / "bind/script").write_text(f"#!{top}/hidden/file\n")
        (top / "ro/file").write_text("x")
        links = {"set/link": "file", "bind/out": "../hidden/file", "bind/in": f"{top}/set/file"}
        for place, text in {**links, "bind/self": "self", "set/differs": "other"}.items():
            (top / place).symlink_to(text)
        self.names = self._names()
        view = View(self.names, lambda process: process == os.getpid(), lambda thread: thread)
        self.listener = os.open(os.devnull, os.O_RDWR)  # which takes no descriptor
        self.supervisor = Supervisor(self.listener, view, CALLS, lambda: True)

    def _names(self) -> Names:
        top, parts = self.top, self.top.split(b"/")
        directories = [b"/".join(parts[:count]) or b"/" for count in range(1, len(parts) + 1)]
        steps: tuple[Step, ...] = (
            *(Directory(path, 0o755) for path in directories),
            Directory(top + b"/set", 0o755),
            HostFile(top + b"/set/file", 0o644, None),
            HostFile(top + b"/set/program", 0o755, None),
            HostFile(top + b"/set/other", 0o644, None),
            Symlink(top + b"/set/link", b"file"),
            Symlink(top + b"/set/differs", b"file"),
            Symlink(top + b"/set/loop", b"loop"),
            Symlink(top + b"/set/absolute", top + b"/set"),
            Content(top + b"/set/made", 0o644, b"made at entry"),
            Directory(b"/dev", 0o755),
            Proc(b"/proc"),
            Devices(b"/dev", ((b"/dev/more", "link", 0, b"null"), (b"/dev/kvm", "character", 1, b""))),
        )
        names = names_of(Plan(b"/", steps, network=True, hostname=""))
        make_differing_links(names, top + b"/copies")
        for path, writable, by_us in ((b"/bind", True, False), (b"/ro", False, False)):
            place = top + path
            names.add_bind(Bind(place, os.open(place, os.O_PATH), writable, is_read_by_us=by_us))
        names.add_bind(Bind(b"/sys", os.open("/sys", os.O_PATH), writable=False, is_read_by_us=True))
        names.add_bind(Bind(top + b"/one", os.open(top + b"/ro/file", os.O_PATH), False, is_directory=False))
        names.note_given()
        return names

    def __call__(self, name: str, *arguments: Argument) -> str:
        """Return the answer of a call as a word. A path that begins with `@` is below the directory."""
        kept = [
            ctypes.create_string_buffer(self.top + each[1:]) if isinstance(each, bytes) and each[:1] == b"@"
            else ctypes.create_string_buffer(each) if isinstance(each, bytes) else each
            for each in arguments
        ]  # fmt: skip
        numbers = [each if isinstance(each, int) else ctypes.addressof(each) for each in kept]
        numbers += [0] * (6 - len(numbers))
        answer = self.supervisor.answer(0, os.getpid(), 0, CALLS.numbers[name], numbers)
        if answer == notices.GO_ON:
            return "go on"
        assert answer is not None
        value, error, _ = answer
        return errno.errorcode[-error] if error else str(value)


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    """A supervisor of a view below a directory."""
    return Answers(tmp_path)


HANDED = "ENOTTY"  # it was opened, and the null device took no descriptor
STAT = ctypes.create_string_buffer(256)
ROWS: list[tuple[str, tuple[Argument, ...], str]] = [
    ("stat", (b"@/set/file", STAT), "go on"),
    ("stat", (b"@/hidden/file", STAT), "ENOENT"),
    ("stat", (b"@/set/file/x", STAT), "ENOTDIR"),
    ("stat", (b"@/set/file/", STAT), "ENOTDIR"),
    ("stat", (b"@/set/loop", STAT), "ELOOP"),
    ("stat", (b"@/set/../set/./link", STAT), "go on"),
    ("stat", (b"@/set/absolute/file", STAT), "0"),  # the host does not have it
    ("stat", (b"@/set/made", STAT), "0"),
    ("stat", (b"@/set/differs", STAT), "0"),
    ("lstat", (b"@/set/differs", STAT), "0"),
    ("stat", (b"@/bind/out", STAT), "ENOENT"),
    ("stat", (b"@/bind/in", STAT), "go on"),
    ("lstat", (b"@/bind/out", STAT), "go on"),
    ("stat", (b"@/bind/self", STAT), "ELOOP"),
    ("stat", (b"@/bind/none/x", STAT), "go on"),
    ("stat", (b"@/bind/..", STAT), "go on"),
    ("stat", (b"@/bind/../hidden", STAT), "ENOENT"),
    ("stat", (b"@/one", STAT), "go on"),
    ("stat", (b"@/one/x", STAT), "ENOTDIR"),
    ("stat", (b"", STAT), "go on"),
    ("stat", (1, STAT), "EFAULT"),
    ("stat", (b"x" * 5000, STAT), "ENAMETOOLONG"),
    ("statx", (CWD, 0, 0, 0, STAT), "go on"),
    ("statx", (CWD, b"@/set/made", 0, 0x7FF, STAT), "0"),
    ("newfstatat", (CWD, b"@/set/differs", STAT, NOFOLLOW), "0"),
    ("newfstatat", (CWD, b"@/set/made", 1, 0), "EFAULT"),
    ("newfstatat", (999, b"x", STAT, 0), "EBADF"),
    ("access", (b"@/set/file", os.W_OK), "EROFS"),
    ("access", (b"@/ro/file", os.W_OK), "EROFS"),
    ("access", (b"@/bind/file", os.W_OK), "go on"),
    ("access", (b"@/set/made", os.R_OK), "0"),
    ("access", (b"@/set/made", os.X_OK), "EACCES"),
    ("getxattr", (b"@/set/made", b"user.x", 0, 0), errno.errorcode[errno.EOPNOTSUPP]),
    ("chdir", (b"@/set/made",), "EACCES"),
    ("chdir", (b"@/hidden",), "ENOENT"),
    ("inotify_add_watch", (3, b"@/set", 2), "EACCES"),
    ("inotify_add_watch", (3, b"@/set/file", 2), "go on"),
    ("inotify_add_watch", (3, b"@/bind", 2), "go on"),
    ("readlink", (b"@/set/link", STAT, 64), "go on"),
    ("readlink", (b"@/set/differs", STAT, 64), "4"),
    ("readlink", (b"@/set/differs", STAT, 0), "EINVAL"),
    ("readlink", (b"@/set/made", STAT, 64), "EINVAL"),
    ("readlink", (b"@/hidden", STAT, 64), "ENOENT"),
    ("open", (b"@/set/file", os.O_RDONLY), HANDED),
    ("open", (b"@/set", os.O_RDONLY | os.O_DIRECTORY), HANDED),
    ("open", (b"@/set", os.O_WRONLY), "EISDIR"),
    ("open", (b"@/set", os.O_WRONLY | os.O_TMPFILE), "EROFS"),
    ("open", (b"@/set/file", os.O_RDWR), "EROFS"),
    ("open", (b"@/set/file", os.O_RDONLY | os.O_CREAT | os.O_EXCL), "EEXIST"),
    ("open", (b"@/set/new", os.O_WRONLY | os.O_CREAT), "EROFS"),
    ("open", (b"@/hidden/file", os.O_RDONLY), "ENOENT"),
    ("open", (b"@/set/link", os.O_RDONLY | os.O_NOFOLLOW), "ELOOP"),
    ("open", (b"@/set/file", os.O_PATH), "go on"),
    ("open", (b"@/set/made", os.O_PATH), "EACCES"),
    ("open", (b"@/set/made", os.O_RDONLY), HANDED),
    ("open", (b"@/set/made", os.O_RDONLY | os.O_DIRECTORY), "ENOTDIR"),
    ("open", (b"@/set/differs", os.O_RDONLY), HANDED),
    ("open", (b"@/bind/new", os.O_WRONLY | os.O_CREAT), "go on"),
    ("open", (b"@/ro/file", os.O_RDONLY), "go on"),
    ("open", (b"@/ro/file", os.O_WRONLY), "EROFS"),
    ("open", (b"@/ro/new", os.O_WRONLY | os.O_CREAT), "EROFS"),
    ("open", (b"@/ro/new", os.O_WRONLY), "ENOENT"),
    ("open", (b"/dev/null", os.O_RDWR), "go on"),
    ("open", (b"/dev/more", os.O_RDWR), "go on"),
    ("open", (b"/dev/ptmx", os.O_RDWR), HANDED),
    ("open", (b"/dev/pts/99999", os.O_RDWR), "ENOENT"),
    ("open", (b"/dev/pts/1/2", os.O_RDWR), "ENOTDIR"),
    ("open", (b"/dev/pts/x/..", os.O_RDONLY), "ENOENT"),
    ("open", (b"/dev/pts/../null", os.O_RDONLY), "go on"),
    ("open", (b"/dev/pts", os.O_RDONLY), HANDED),
    ("open", (b"/dev/fd/0", os.O_RDONLY), "go on"),  # the null device, of pytest
    ("open", (b"/proc/self/status", os.O_RDONLY), HANDED),
    ("open", (b"/proc/thread-self/comm", os.O_WRONLY), HANDED),
    ("open", (b"/proc/1/status", os.O_RDONLY), "ENOENT"),
    ("open", (b"/proc/kcore", os.O_RDONLY), "ENOENT"),
    ("open", (b"/proc/mounts", os.O_RDONLY), HANDED),
    ("open", (b"/proc/sys/kernel/hostname", os.O_WRONLY), "EROFS"),
    ("open", (b"/proc/self/../../dev/null", os.O_RDONLY), "go on"),
    ("open", (b"/proc/self/root/proc/self/fd", os.O_RDONLY), HANDED),
    ("open", (b"/proc/self/fd/999", os.O_RDONLY), "ENOENT"),
    ("stat", (b"/proc/self/exe/x", STAT), "ENOENT"),
    ("lstat", (b"/proc/self", STAT), "go on"),
    ("open", (b"/sys/kernel", os.O_RDONLY), HANDED),
    ("open", (b"/sys/kernel/none", os.O_RDONLY), "ENOENT"),
    ("open", (b"/sys/kernel/x", os.O_WRONLY | os.O_CREAT), "EROFS"),
    ("creat", (b"@/set/file", 0), "EROFS"),
    ("openat2", (CWD, b"@/set/file", struct.pack("3Q", 0, 0, 0), 24), HANDED),
    ("openat2", (CWD, b"@/set/file", struct.pack("3Q", 0, 0, 0x10), 24), "ENOSYS"),
    ("openat2", (CWD, b"@/set/file", struct.pack("3Q", 0, 0, 0x20), 24), "EAGAIN"),
    ("execve", (b"@/set/file",), "go on"),
    ("execve", (b"@/set/program",), "ENOENT"),
    ("execve", (b"@/bind/script",), "ENOENT"),
    ("execve", (b"@/set/made",), "EACCES"),
    ("execve", (b"@/hidden/file",), "ENOENT"),
    ("execveat", (0, b"", 0, 0, EMPTY), "go on"),
    ("execveat", (0, b"", 0, 0, 0), "go on"),
    ("mkdir", (b"@/set", 0), "EEXIST"),
    ("mkdir", (b"@/set/new", 0), "EROFS"),
    ("mkdir", (b"@/none/new", 0), "ENOENT"),
    ("mkdir", (b"@/bind/new", 0), "go on"),
    ("mkdir", (b"@/ro/new", 0), "EROFS"),
    ("mkdir", (b"@/ro/none/new", 0), "ENOENT"),
    ("mkdir", (b"@/ro/file", 0), "go on"),
    ("mkdir", (b"", 0), "go on"),
    ("symlink", (b"anything", b"@/set/new"), "EROFS"),
    ("unlink", (b"@/set/file",), "EROFS"),
    ("unlink", (b"@/hidden/file",), "ENOENT"),
    ("unlink", (b"@/ro/none",), "ENOENT"),
    ("unlink", (b"@/bind/file",), "go on"),
    ("rename", (b"@/bind/file", b"@/bind/moved"), "go on"),
    ("rename", (b"@/bind/file", b"@/set/moved"), "EROFS"),
    ("rename", (b"@/set/file", b"@/bind/moved"), "EXDEV"),
    ("rename", (b"@/hidden/file", b"@/bind/moved"), "ENOENT"),
    ("truncate", (b"@/bind/file", 1), "go on"),
    ("truncate", (b"@/set/file", 1), "EROFS"),
    ("chmod", (b"@/bind/file", 0o640), "0"),
    ("chmod", (b"@/bind/none", 0o640), "ENOENT"),
    ("chmod", (b"@/set/file", 0o640), "EROFS"),
    ("chmod", (b"/dev/null", 0o640), "EPERM"),
    ("chmod", (b"", 0o640), "ENOENT"),
    ("chmod", (0, 0o640), "EFAULT"),
    ("fchmod", (999, 0o640), "EBADF"),
    ("lchown", (b"@/bind/file", os.getuid(), 0xFFFFFFFF), "0"),
    ("fchownat", (CWD, b"@/bind/out", os.getuid(), 0xFFFFFFFF, NOFOLLOW), "0"),
    ("utime", (b"@/bind/file", struct.pack("2q", 1, 2)), "0"),
    ("utimes", (b"@/bind/file", struct.pack("4q", 1, 0, 2, 0)), "0"),
    ("utimensat", (CWD, b"@/bind/file", 0, 0), "0"),
    ("utimensat", (CWD, b"@/bind/file", struct.pack("4q", 1, 0, 2, 0), 0), "0"),
    ("setxattr", (b"@/bind/file", b"user.x", b"y", 1 << 20, 0), "E2BIG"),
    ("removexattr", (b"@/bind/file", b"user.none"), "ENODATA"),
    ("getdents64", (999, STAT, 256), "EBADF"),
    ("connect", (999, STAT, 2), "EBADF"),
]  # fmt: skip


@pytest.mark.parametrize("row", range(len(ROWS)), ids=lambda row: f"{row} {ROWS[row][0]}")
def test_answers(answers: Answers, row: int) -> None:
    """Each call goes on only if its path leads to a name of the view, and otherwise has the jail's error."""
    name, arguments, expected = ROWS[row]
    if name not in CALLS.numbers:
        name = f"{name}at"  # newer architectures
    assert answers(name, *arguments) == expected


def test_a_made_file_has_its_own_size(answers: Answers) -> None:
    """stat(2) of a file made at entry is that of the supervisor's file."""
    found = ctypes.create_string_buffer(256)
    assert answers("statx", CWD, b"@/set/made", 0, 0x7FF, found) == "0"
    assert struct.unpack_from("Q", found, 40)[0] == len("made at entry")


def _listed(answers: Answers, path: bytes) -> set[bytes]:
    buffer, found = ctypes.create_string_buffer(1 << 15), set()
    opened = os.open(path, os.O_RDONLY)
    while (size := answers("getdents64", opened, buffer, len(buffer))) != "0":
        if not size.isdigit():
            os.close(opened)
            return {size.encode()}
        position = 0
        while position < int(size):
            length = struct.unpack_from("H", buffer, position + 16)[0]
            found.add(buffer.raw[position + 19 : position + length].split(b"\0")[0])
            position += length
    os.close(opened)
    return found - {b".", b".."}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (b"@/set", {b"file", b"program", b"other", b"link", b"differs"}),
        (b"@", {b"set", b"bind", b"ro"}),
        (b"@/bind", {b"file", b"script", b"out", b"in", b"self"}),
        (b"@/hidden", {b"ENOENT"}),
        (b"/proc/1", {b"ENOENT"}),
        (b"/dev/pts", {b"ptmx"}),
        (b"/usr", {b"ENOENT"}),
    ],
)
def test_directories_list_the_view(answers: Answers, path: bytes, names: set[bytes]) -> None:
    """A directory that a racing program has opened outside of the view lists nothing."""
    place = answers.top + path[1:] if path[:1] == b"@" else path
    assert _listed(answers, place) == names


def test_proc_lists_this_run(answers: Answers) -> None:
    """Of the processes, /proc has those of the run; so has the directory of one of them."""
    assert {name for name in _listed(answers, b"/proc") if name.isdigit()} == {b"%d" % os.getpid()}
    assert b"status" in _listed(answers, b"/proc/%d" % os.getpid())


def test_metadata_by_descriptor(answers: Answers, tmp_path: Path) -> None:
    """Only files of writable binds, and those without a path, change by a descriptor."""
    with open(tmp_path / "bind/file", "rb") as inside, open(tmp_path / "set/file", "rb") as outside:
        assert answers("fchmod", inside.fileno(), 0o600) == "0"
        assert answers("fchmod", outside.fileno(), 0o600) == "EROFS"
        assert answers("utimensat", inside.fileno(), 0, 0, 0) == "0"
        assert answers("fchownat", inside.fileno(), b"", os.getuid(), 0xFFFFFFFF, EMPTY) == "0"
        assert answers("fchown", outside.fileno(), os.getuid(), 0xFFFFFFFF) == "EROFS"
        assert stat.S_IMODE(os.fstat(inside.fileno()).st_mode) == 0o600
    memory = os.memfd_create("x")
    assert answers("fchmod", memory, 0o600) == "0"
    os.close(memory)


def _address(path: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(struct.pack("H", socket.AF_UNIX) + path, 2 + len(path))


def test_unix_sockets(answers: Answers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A path must be in the view, an abstract name the run's own; the supervisor connects itself."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two, socket.socket() as other:
        rows = [
            ("bind", one, b"set/s", "EROFS"),
            ("bind", one, b"none/s", "ENOENT"),
            ("bind", one, b"set/file", "EADDRINUSE"),
            ("bind", one, b"bind/s", "0"),
            ("connect", two, b"hidden/file", "ENOENT"),
            ("connect", two, b"set/file", "ECONNREFUSED"),
            ("connect", two, b"\0of another", "ECONNREFUSED"),
            ("connect", two, b"bind/s", "0"),
        ]
        for name, end, path, expected in rows:
            address = _address(path)
            assert answers(name, end.fileno(), address, len(address)) == expected, (name, path)
            if name == "bind" and expected == "0":
                one.listen()
        address = _address(b"x")
        assert answers("connect", other.fileno(), address, len(address)) == "go on"
        assert answers("connect", two.fileno(), address, 1) == "EINVAL"
        wrong = ctypes.create_string_buffer(struct.pack("H", socket.AF_INET) + b"x", 3)
        assert answers("bind", one.fileno(), wrong, 3) == "EINVAL"
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        address = _address(b"\0pkgjail-%d" % os.getpid())
        assert answers("bind", one.fileno(), address, len(address)) == "0"
        one.listen()
        assert answers("connect", two.fileno(), address, len(address)) == "0"


def test_calls_on_processes(answers: Answers) -> None:
    """A call on another process goes on if that is one of the run's."""
    number = next(number for number, position in CALLS.on_processes.items() if position == 0)
    for process, expected in ((os.getpid(), notices.GO_ON), (1, (0, -errno.ESRCH, 0))):
        assert answers.supervisor.answer(0, os.getpid(), 0, number, [process, 0, 0, 0, 0, 0]) == expected


def test_devices_in_a_bind(answers: Answers, tmp_path: Path) -> None:
    """A device node that somebody made in a bind cannot be opened."""
    if os.geteuid():
        return
    os.mknod(tmp_path / "bind/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert answers("openat", CWD, b"@/bind/null", os.O_RDONLY) == "EACCES"


def test_what_root_alone_may_read() -> None:
    """Of /sys, the paths that are hidden from root's jail are those that are not opened."""
    assert is_for_root_alone(b"/sys/kernel/debug/x")
    assert is_for_root_alone(b"/sys/devices/pci0000:00/x")
    assert not is_for_root_alone(b"/sys/kernel/mm")


def test_rules(answers: Answers) -> None:
    """Landlock lets the command execute programs, use devices, and write in writable binds: no more."""
    found = dict(rules.rules(answers.names))
    top = answers.top
    assert found[top + b"/set/program"] == landlock.EXECUTE | landlock.READ_FILE
    assert top + b"/set/file" not in found
    assert b"/sys" not in found
    assert not found[top + b"/ro"] & landlock.WRITE_FILE
    assert found[top + b"/bind"] & landlock.WRITE_FILE
    assert found[top + b"/one"] & ~landlock.OF_FILES == 0
    assert not any(rights & landlock.READ_FILE for path, rights in found.items() if path == top)


def test_processes() -> None:
    """A process is found by its parents, and nothing is said of one that has ended."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert processes.is_descendant(child, os.getpid())
    assert not processes.is_descendant(1, os.getpid())
    assert child in processes.descendants(os.getpid())
    os.waitpid(child, 0)
    assert processes.parent_of(child) == 0
    assert processes.thread_group(child) == child
    assert processes.umask_of(child) == 0o077


def test_machines() -> None:
    """The calls of unknown machines are not guessed; those with the generic numbers have the same names."""
    assert calls_of("sparc64") is None
    generic = calls_of("aarch64")
    assert generic is not None
    assert set(generic.numbers) < set(CALLS.numbers) | {"statx"}
    assert generic.numbers["openat"] == 56


@pytest.mark.parametrize(("abi", "words"), [(0, "adds landlock to the boot option"), (5, "has ABI 5")])
def test_what_is_missing(monkeypatch: pytest.MonkeyPatch, abi: int, words: str) -> None:
    """The stage says which kernel or boot option it needs."""
    monkeypatch.setattr(landlock, "abi", lambda: abi)
    assert words in Supervised().obstacle()


def test_a_run_in_this_process(base_manifest: Manifest, tmp_path: Path) -> None:
    """Python gets the status of a command, and its errors."""
    bind = UserBind(source=os.fsencode(tmp_path), destination=os.fsencode(tmp_path), writable=True)
    options = JailOptions(environment=default_environment(), binds=(bind,), cwd=bind.source)
    said: list[str] = []

    class Heard(Silent):
        def warn(self, message: str) -> None:
            said.append(message)

    words = ("sh", "-c", "echo made >file; exit 7")
    assert run_in_stage(base_manifest, words, options, stage="supervised", reporter=Heard()) == 7
    assert (tmp_path / "file").read_text() == "made\n"
    assert "weaker than the default" in said[0]
    with pytest.raises(CommandError, match="there is no such command"):
        run_in_stage(base_manifest, ("none",), options, stage="supervised")
    (tmp_path / "script").write_text("#!/none\n")
    (tmp_path / "script").chmod(0o755)
    with pytest.raises(CommandError, match="needs the interpreter /none"):
        run_in_stage(base_manifest, ("./script",), options, stage="supervised")
    with pytest.raises(RefusedError, match="another source"):
        run_in_stage(base_manifest, words, options, stage="supervised", root=bind.source)
    elsewhere = replace(options, binds=(replace(bind, destination=b"/srv/x"),))
    with pytest.raises(JailError, match="at another path"):
        run_in_stage(base_manifest, words, elsewhere, stage="supervised")
    inputs = replace(options, inputs=(os.fsencode(tmp_path / "file"),))
    with pytest.raises(JailError, match="what later runs depend on"):
        run_in_stage(base_manifest, words, inputs, stage="supervised")


def test_an_ld_cache_without_namespaces(
    base_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest's own ldconfig makes the same ld.so cache under supervision as in a jail."""
    found = []
    for name, stage in (("one", "namespaces"), ("two", "supervised")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        options = JailOptions(environment=default_environment())
        assert run_in_stage(base_manifest, ("true",), options, stage=stage) == 0
        found.append([path.read_bytes() for path in (tmp_path / name).rglob("ld.so.cache/*")])
    assert found[0] == found[1] != []
