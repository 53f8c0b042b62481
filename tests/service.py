"""A pkgjaild for tests, started by root, and clients of it that send what they like."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pkgjail.core.options import JailOptions
from pkgjail.helper import protocol
from pkgjail.helper.wishes import Wish, wish_record
from tests.conftest import SYSTEM_PYTHON

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

POLICY = """
[access]
users = ["*"]
[manifests]
any = true
[files]
binds = ["/"]
"""
VARIABLE = "PKGJAIL_HELPER_SOCKET"


class Service:
    """A daemon with its socket, its state and its log in a directory of root's that users may enter."""

    def __init__(self, library: Path, place: Path, policy: str = POLICY) -> None:
        self.place = place
        self.socket = str(place / "socket")
        self.state = str(place / "state")
        self.log = place / "log"
        self._library = library
        self._policy = place / "policy.toml"
        self._policy.write_text(policy, encoding="utf-8")
        self._policy.chmod(0o644)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the daemon, and wait until it listens."""
        words = [
            "-m",
            "pkgjail.helper",
            "--policy",
            str(self._policy),
            "--socket",
            self.socket,
            "--state",
            self.state,
        ]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [SYSTEM_PYTHON, *words],
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(self._library),
                    "LANG": "C.UTF-8",
                    "PKGJAIL_SHARED_DIR": os.environ.get("PKGJAIL_SHARED_DIR", ""),
                },
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self._listens() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()
        return self.process

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the daemon by a signal, and return its status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def use(self, policy: str) -> None:
        """Start the daemon again, with another policy."""
        self.stop()
        self._policy.write_text(policy, encoding="utf-8")
        self.start()

    def _listens(self) -> bool:
        with protocol.make_socket() as client:
            return client.connect_ex(self.socket) == 0

    def children(self) -> list[int]:
        """Return the keepers, workers, and other processes of the daemon."""
        return descendants(self.process.pid)


@contextlib.contextmanager
def running_service(library: Path, policy: str = POLICY) -> Iterator[Service]:
    """Run a daemon, and end it."""
    with tempfile.TemporaryDirectory(prefix="pkgjaild-", dir="/dev/shm") as made:
        Path(made).chmod(0o755)
        service = Service(library, Path(made), policy)
        try:
            yield service
        finally:
            if service.process.poll() is None:
                service.stop()


def wait_until(holds: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that have not been waited for."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(name))
    return found


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that these started."""
    return [each for child in children(pid) for each in (child, *descendants(child))]


def mounts() -> int:
    """Return how many mounts this mount namespace has."""
    return len(Path("/proc/self/mountinfo").read_bytes().splitlines())


# --- a client that sends what it likes --------------------------------------------------------------


def connect(path: str) -> tuple[socket.socket, dict[str, Any]]:
    """Connect to a daemon, and return its first message too."""
    client = protocol.make_socket()
    client.settimeout(20)
    client.connect(path)
    packet = protocol.receive(client, 1)
    return client, {} if packet is None else dict(packet.message)


def answer(client: socket.socket) -> dict[str, Any]:
    """Return the next message that is neither progress nor a warning; {} at the end."""
    while True:
        try:
            packet = protocol.receive_large(client)
        except ConnectionResetError:
            return {}
        if packet is None:
            return {}
        if not {"progress", "warn"} & set(packet.message):
            return dict(packet.message)


def options_of(argv: Sequence[str] = ("true",), root: bytes = b"/", **changes: Any) -> dict[str, Any]:
    """Return the record of a wish, with some of its fields exchanged."""
    environment = {"PATH": "/usr/bin:/bin"}
    wish = Wish(argv=tuple(argv), options=JailOptions(environment=environment), root=root)
    return {**wish_record(wish), **changes}


def ask(  # noqa: PLR0913 - all by keyword
    path: str,
    manifest: bytes,
    options: dict[str, Any] | bytes | None = None,
    *,
    signature: bytes = b"",
    standard: Sequence[int] | None = None,
    file: int | None = None,
    message: dict[str, Any] | None = None,
) -> tuple[socket.socket, int]:
    """Send a request to run, any part of it exchanged; return the connection, and the file that was made."""
    client, greeting = connect(path)
    data = (
        options
        if isinstance(options, bytes)
        else protocol.encoded(options_of() if options is None else options)
    )
    made = protocol.sealed((data, manifest, signature)) if file is None else file
    sizes = {"options": len(data), "manifest": len(manifest), "signature": len(signature)}
    request = {"protocol": protocol.VERSION, "word": greeting.get("word"), "ask": "run", "terminal": False}
    null = os.open(os.devnull, os.O_RDWR)
    given = (null, null, null) if standard is None else standard
    try:
        protocol.send(client, {**request, **sizes, **(message or {})}, (*given, made))
    finally:
        os.close(null)
    return client, made


def ended(client: socket.socket) -> dict[str, Any]:
    """Return the last message of a connection but the end, which is `refused`, `error` or `ended`."""
    last: dict[str, Any] = {}
    while found := answer(client):
        if not ("ended" in found and ("error" in last or "refused" in last)):
            last = found
    return last


def acts(service: Service) -> list[str]:
    """Return the lines of a daemon's log, without the process ids."""
    return [re.sub(r"\[[0-9]+\]", "", line) for line in service.log.read_text(errors="replace").splitlines()]


def copy_of(program: str, place: Path) -> Path:
    """Copy a program of the host to a place of a test's."""
    return Path(shutil.copy(program, place))


# --- a user who can make no user namespace ----------------------------------------------------------

_FILTERED = """
import ctypes, json, os, struct, sys
uid, command = int(sys.argv[1]), json.loads(sys.argv[2])
load, equal, bits, end = 0x20, 0x15, 0x45, 0x06
allow, eperm, enosys = 0x7fff0000, 0x00050001, 0x00050026
new_user = 0x10000000
program = [
    (load, 0, 0, 0),
    # unshare(2), clone(2), clone3(2)
    (equal, 4, 0, 272), (equal, 3, 0, 56), (equal, 1, 0, 435),
    (end, 0, 0, allow), (end, 0, 0, enosys),
    (load, 0, 0, 16), (bits, 0, 1, new_user), (end, 0, 0, eperm), (end, 0, 0, allow),
]
data = b"".join(struct.pack("=HBBI", *each) for each in program)
buffer = ctypes.create_string_buffer(data)
fprog = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(317, 1, 0, fprog):
    raise OSError(ctypes.get_errno(), "seccomp")
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
os.execvp(command[0], command)
"""


def without_namespaces(command: Sequence[str], uid: int) -> list[str]:
    """Return a command for root that runs `command` as a user to whom a filter forbids user namespaces.

    The filter is one of x86_64, and does not set PR_SET_NO_NEW_PRIVS: it is as if the host forbade them.
    """
    return [SYSTEM_PYTHON, "-c", _FILTERED, str(uid), json.dumps(list(command))]
