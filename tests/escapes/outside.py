"""The program around the jail: lays out what is to be reached, enters the jail, and looks what became of it.

Run as the user whom the test is about: HOME MANIFEST RESULT PKGJAIL-OPTION…, with a program around pkgjail in
the variable AROUND. RESULT is JSON: what
the attempts got inside and (those that are known to work there) outside, and the state of what they
are after, before and afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import pty
import resource
import socket
import subprocess
import sys
import termios
import threading
import time
import tty
from pathlib import Path
from typing import Any

from tests.escapes.files import SHOWN
from tests.escapes.harness import call, libc

_SECRET = b"secret of the host"
_VICTIM = """
import ctypes, time
memory = ctypes.create_string_buffer(b"SECRET!")
print(ctypes.addressof(memory), flush=True)
time.sleep(600)
"""
# Descriptors of the caller's; "" is the canary. The limit is lowered below the last two.
_LEFT_OPEN = {50: "/", 100: "", 512: "/etc", 1000: "", 1001: "/"}
_LIMIT = 900
# Without namespaces, binds can be at their own paths alone.
_OWN_PATHS = "supervised" in sys.argv
_SETTINGS = (
    "kernel/core_pattern", "kernel/modprobe", "kernel/hostname", "kernel/domainname",
    "vm/drop_caches", "net/ipv4/ip_forward", "user/max_user_namespaces",
)  # fmt: skip


class Outside:
    """What lies outside: files, a process, keys, IPC objects, sockets and a terminal."""

    def __init__(self, home: Path, prepared: dict[str, Any]) -> None:
        self.home = home
        self.leader, self.terminal = pty.openpty()
        self._leader, self.stray = pty.openpty()  # nobody's controlling terminal
        for terminal in (self.terminal, self.stray):
            tty.setraw(terminal)
        self._sockets: list[socket.socket] = []
        self.victim = subprocess.Popen(
            [sys.executable, "-c", _VICTIM],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={"SECRET": "x"},
        )
        assert self.victim.stdout is not None
        os.sched_setscheduler(self.victim.pid, os.SCHED_OTHER, os.sched_param(0))
        self.facts: dict[str, Any] = {
            **prepared,
            "address": int(self.victim.stdout.readline()),
            "caller": os.getpid(),
            "group": self.victim.pid,
            "hosts": [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) > 400][:50],
            "marker": f"1000.{time.time_ns()}",
            "terminal": 2,
            "victim": self.victim.pid,
            **self._files(),
            **_keys(),
            **_ipc(),
            **self._services(),
        }

    def _files(self) -> dict[str, Any]:
        secret, bind, shown = self.home / "secret", self.home / "bind", self.home / "shown"
        (secret / "canary").write_bytes(_SECRET)
        (bind / "inner").mkdir(exist_ok=True)
        shown.mkdir(exist_ok=True)
        (shown / "file").write_bytes(b"shown")
        with contextlib.suppress(FileExistsError):
            (bind / "hosts-link").symlink_to(secret / "canary")
        return {
            "bind": str(bind),
            "canary": str(secret / "canary"),
            "inner": f"{self.home}/bind/inner" if _OWN_PATHS else "/srv/inner",
            "secret": str(secret),
            "shown": f"{self.home}/shown" if _OWN_PATHS else "/srv/shown",
        }

    def _services(self) -> dict[str, Any]:
        """A service of each kind of socket; each sends the secret to whoever connects."""
        abstract = f"pkgjail-canary-{os.getpid()}"
        path = str(self.home / "secret" / "socket")
        found: dict[str, Any] = {"abstract": abstract, "path_socket": path, "vsock": -1}
        for address in ("\0" + abstract, path):
            self._serve(socket.socket(socket.AF_UNIX), address)
        found["tcp"] = self._serve(socket.socket(), ("127.0.0.1", 0))[1]
        with contextlib.suppress(OSError):  # none on this machine
            any_port = (socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY)
            found["vsock"] = self._serve(socket.socket(socket.AF_VSOCK), any_port)[1]
        return found

    def _serve(self, listener: socket.socket, address: Any) -> Any:
        listener.bind(address)
        listener.listen()
        self._sockets.append(listener)

        def answer() -> None:
            while True:
                connection = listener.accept()[0]
                with connection, contextlib.suppress(OSError):
                    connection.sendall(_SECRET)

        threading.Thread(target=answer, daemon=True).start()
        return listener.getsockname()

    def state(self) -> dict[str, str]:
        """Return the state that the attempts try to change, to compare before and after."""
        shown = os.stat(SHOWN)
        null = os.stat("/dev/null")
        state = {
            "the canary": _digest(self.facts["canary"]),
            "a shown file's content": _digest(SHOWN),
            "a shown file's inode": repr((shown.st_ino, shown.st_mode, shown.st_uid, shown.st_nlink)),
            "a shown file's time": repr(shown.st_mtime_ns),
            "a shown file's attributes": repr(os.listxattr(SHOWN)),
            "the names in /usr/bin": _names_of_attempts("/usr/bin"),
            "the names in /etc": _names_of_attempts("/etc"),
            "the read-only bind": repr([(p.name, p.read_bytes()) for p in (self.home / "shown").iterdir()]),
            "the victim's life": repr(self.victim.poll()),
            "the victim's nice value": repr(os.getpriority(os.PRIO_PROCESS, self.victim.pid)),
            "the victim's i/o priority": repr(libc.syscall(252, 1, self.victim.pid)),
            "the victim's memory": _peek(self.victim.pid, self.facts["address"]),
            "the caller's nice value": repr(os.getpriority(os.PRIO_PROCESS, 0)),
            "mode and owner of /dev/null": repr((null.st_mode, null.st_uid)),
            "the host name": repr(os.uname().nodename),
            "the mounts": Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"),
            "left of the jail": repr(_left(self.facts["marker"])),
            "pushed into the terminal": repr(self._pushed()),
        }
        for name in _SETTINGS:
            with contextlib.suppress(OSError):
                state[name] = Path("/proc/sys", name).read_text(encoding="utf-8")
        return state

    def _pushed(self) -> bytes:
        """Return input of the terminals that nobody typed."""
        pushed = b""
        for terminal in (self.terminal, self.stray):
            count = bytearray(4)
            fcntl.ioctl(terminal, termios.FIONREAD, count)
            pushed += os.read(terminal, 4096) if any(count) else b""
        return pushed

    def close(self) -> None:
        """End and remove what was made."""
        self.victim.kill()
        self.victim.wait()
        libc.shmctl(self.facts["shm"], 0, None)
        libc.semctl(self.facts["sem"], 0, 0)
        libc.msgctl(self.facts["msg"], 0, None)
        libc.mq_unlink(self.facts["mq"].encode())
        os.unlink(self.facts["dev_shm"])
        with contextlib.suppress(OSError):
            call("keyctl", 9, self.facts["user_key"], -4)  # out of the user's keyring, which stays


def _names_of_attempts(directory: str) -> str:
    """Return names with `pkgjail`, as the attempts would make them; other names come and go with packages."""
    return repr(sorted(name for name in os.listdir(directory) if "pkgjail" in name))


def _keys() -> dict[str, Any]:
    """A key in the session's keyring and one in the user's; -1 where the kernel has no keys.

    The user's keyring is one for all runs at once, so the name is this run's.
    """
    name = f"pkgjail-user-canary-{os.getpid()}"
    try:
        call("keyctl", 1, b"pkgjail-session")
        keyring = call("keyctl", 0, -4, 1)
        return {
            "key": call("add_key", b"user", b"pkgjail-canary", _SECRET, len(_SECRET), -3),
            "user_key": call("add_key", b"user", name.encode(), _SECRET, len(_SECRET), -4),
            "user_key_name": name,
            "keyring": keyring,
            "persistent": _persistent(),
        }
    except OSError:
        return {"key": -1, "user_key": -1, "user_key_name": name, "keyring": -1, "persistent": -1}


def _persistent() -> int:
    try:
        return call("keyctl", 22, -1, -3)
    except OSError:
        return -1


def _ipc() -> dict[str, Any]:
    libc.shmat.restype = ctypes.c_void_p
    key = os.getpid() | 0x70000000
    shm = libc.shmget(key, 4096, 0o1600)
    ctypes.memmove(libc.shmat(shm, None, 0), _SECRET, len(_SECRET))
    msg = libc.msgget(key, 0o1600)
    libc.msgsnd(msg, ctypes.create_string_buffer(b"\x01" + bytes(7) + _SECRET, 32), ctypes.c_size_t(24), 0)
    queue = f"/pkgjail-{os.getpid()}"
    libc.mq_open(queue.encode(), os.O_CREAT | os.O_RDWR, 0o600, None)
    dev_shm = f"/dev/shm/pkgjail-canary-{os.getpid()}"
    Path(dev_shm).write_bytes(_SECRET)
    return {
        "ipc_key": key,
        "shm": shm,
        "sem": libc.semget(key, 1, 0o1600),
        "msg": msg,
        "mq": queue,
        "dev_shm": dev_shm,
    }


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _peek(pid: int, address: int) -> str:
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    remote = (ctypes.c_void_p * 2)(address, 8)
    libc.process_vm_readv(pid, local, 1, remote, 1, 0)
    return repr(buffer.value)


def _left(marker: str) -> list[str]:
    found = subprocess.run(["pgrep", "-f", f"^sleep {marker}"], capture_output=True, text=True, check=False)
    return found.stdout.split()


def _enter(outside: Outside, command: list[str], sentinel: Path) -> tuple[int, str]:
    """Run the jail with two terminals, an output file, and many descriptors left open."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for number, path in _LEFT_OPEN.items():
        os.dup2(os.open(path or outside.facts["canary"], os.O_RDONLY), number)

    def lead_a_session() -> None:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_NOFILE, (_LIMIT, most))
        fcntl.ioctl(2, termios.TIOCSCTTY, 0)

    with open(outside.home / "output", "wb") as output:
        jail = subprocess.Popen(
            command,
            stdin=outside.stray,
            stdout=output,
            stderr=outside.terminal,
            pass_fds=tuple(_LEFT_OPEN),
            preexec_fn=lead_a_session,  # noqa: PLW1509 - nothing else of this process runs Python then
        )
    said = b""
    os.set_blocking(outside.leader, False)
    while jail.poll() is None:
        with contextlib.suppress(BlockingIOError):
            said += os.read(outside.leader, 4096)
        if sentinel.exists() and not Path(outside.facts["late"]).exists():
            Path(outside.facts["late"]).write_bytes(b"late")
            sentinel.with_name("go").touch()
        time.sleep(0.02)
    with contextlib.suppress(BlockingIOError):
        said += os.read(outside.leader, 65536)
    return jail.returncode, said.decode(errors="replace")


def main() -> None:
    """Do all of it once."""
    home, manifest, result = map(Path, sys.argv[1:4])
    outside = Outside(home, json.loads((home / "prepared.json").read_text(encoding="utf-8")))
    bind, attempts = home / "bind", home / "attempts"
    try:
        (bind / "facts.json").write_text(json.dumps(outside.facts), encoding="utf-8")
        before = outside.state()
        inside = ["-m", "tests.escapes.inside", str(bind / "facts.json")]
        options = ["--bind", str(bind), "--ro-bind", str(attempts), "--env", f"PYTHONPATH={attempts}"]
        if _OWN_PATHS:
            options += ["--ro-bind", f"{home}/shown"]
        else:
            options += ["--bind", f"{bind}/inner:/srv/inner", "--ro-bind", f"{home}/shown:/srv/shown"]
        options += sys.argv[4:]
        around = os.environ.get("AROUND", "").split()
        command = [
            *around,
            sys.executable,
            "-m",
            "pkgjail",
            "run",
            *options,
            str(manifest),
            "--",
            "python3",
            *inside,
        ]
        status, said = _enter(outside, [*command, str(bind / "inside.json"), "all"], bind / "started")
        time.sleep(0.2)
        after = outside.state()
        subprocess.run(
            [sys.executable, *inside, str(bind / "outside.json"), "control"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=outside.terminal,
        )
        report = {"status": status, "said": said, "before": before, "after": after}
        for name in ("inside", "outside"):
            with contextlib.suppress(FileNotFoundError):
                report[name] = json.loads((bind / f"{name}.json").read_text(encoding="utf-8"))
        result.write_text(json.dumps(report), encoding="utf-8")
    finally:
        outside.close()


if __name__ == "__main__":
    main()
