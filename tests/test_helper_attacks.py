"""Attacks on pkgjaild by an ordinary user: none succeeds, the service lives, and it leaves nothing behind.

Each attack is a function that a process of the user's runs, with a row in the table: what it tries, and what
it must get. An attack that gets what it wants returns a text with SUCCEEDED.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pkgjail.helper import protocol
from pkgjail.manifest import dump_manifest
from pkgjail.sandbox import syscalls as sc
from tests import service as services
from tests.conftest import NOBODY
from tests.service import Service, answer, ask, connect, ended, options_of, running_service, wait_until
from tests.test_export import directory, odd_tree, regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkgjail.core.model import Manifest

pytestmark = [pytest.mark.gate, pytest.mark.skipif(os.geteuid() != 0, reason="only root can start pkgjaild")]

_SECRET = "secret of the host"  # noqa: S105 - no password
_SHELL = ("/usr/bin/busybox", "sh", "-c")
_COVERED = b"/big/covered/secret"
_SECONDS = 60
_PTRACE_ATTACH = 16
_PTRACE_SEIZE = 0x4206


class Site(NamedTuple):
    """What the attacks are after, and with what: directories that root made, and the user's own."""

    service: Service
    strict: Service
    manifest: bytes
    covered: bytes
    root: bytes
    closed: str
    setuid: str
    home: str

    def options(self, *script: str, **changes: Any) -> dict[str, Any]:
        """Return options to run a shell's script, with some of them exchanged."""
        return {**options_of((*_SHELL, "; ".join(script) or "true"), self.root), **changes}

    def ask(self, *script: str, **more: Any) -> socket.socket:
        """Ask for a jail that runs a script, with parts of the request exchanged."""
        changes = more.pop("changes", {})
        service = more.pop("service", self.service)
        more.setdefault("manifest", self.manifest)
        manifest = more.pop("manifest")
        more.setdefault("options", self.options(*script, **changes))
        return ask(service.socket, manifest, more.pop("options"), **more)[0]

    def run(self, *script: str, **more: Any) -> tuple[str, str]:
        """Run a script in a jail; return the last message, and its output."""
        reading, writing = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        client = self.ask(*script, standard=(null, writing, writing), **more)
        os.close(writing)
        last = ended(client)
        with os.fdopen(reading, errors="replace") as output:
            return json.dumps(last), output.read()

    def worker(self) -> tuple[socket.socket, int]:
        """Start a jail that lasts; return the connection and the process of its worker."""
        client = self.ask("sleep 100")
        found: list[int] = []

        def is_there() -> bool:
            keepers = services.children(self.service.process.pid)
            found[:] = [worker for keeper in keepers for worker in services.children(keeper)]
            return bool(found)

        wait_until(is_there)
        time.sleep(0.3)  # it becomes the user
        assert found == services.children(services.children(self.service.process.pid)[0])
        return client, found[0]


class Attack(NamedTuple):
    """A row: what is tried, what it must get (a regular expression), and what root does before."""

    name: str
    gets: str
    run: Callable[[Site], str]
    before: Callable[[Site], object] | None = None


ATTACKS: list[Attack] = []


def attack(
    name: str, gets: str, before: Callable[[Site], object] | None = None
) -> Callable[[Callable[[Site], str]], Callable[[Site], str]]:
    """Add a function to the table."""

    def add(function: Callable[[Site], str]) -> Callable[[Site], str]:
        ATTACKS.append(Attack(name, gets, function, before))
        return function

    return add


def _given(function: Callable[[Site, Any], str], value: Any, site: Site) -> str:
    return function(site, value)


def rows(gets: str, values: dict[str, Any]) -> Callable[[Callable[[Site, Any], str]], None]:
    """Add a function to the table once for each of these values, by name."""

    def add(function: Callable[[Site, Any], str]) -> None:
        for name, value in values.items():
            ATTACKS.append(Attack(name, gets, partial(_given, function, value)))

    return add


@pytest.fixture(scope="module")
def site(library: Path) -> Iterator[Site]:
    """Two daemons, and what root made."""
    with tempfile.TemporaryDirectory(prefix="pkgjaild-site-", dir="/dev/shm") as made:
        place = Path(made)
        place.chmod(0o755)
        manifest = odd_tree(place / "root", [b"name"])
        os.chown(place / "root" / "closed" / "file", NOBODY, NOBODY)
        covered = _covered_tree(place / "root", manifest)
        (place / "closed").mkdir(mode=0o700)
        (place / "closed" / "file").write_text(_SECRET)
        (place / "home").mkdir()
        os.chown(place / "home", NOBODY, NOBODY)
        (place / "setuid").mkdir()
        shutil.copy("/bin/busybox", place / "setuid")
        (place / "setuid" / "busybox").chmod(0o4755)
        target = os.fsencode(place / "root" / "big" / "covered")
        sc.mount(b"tmpfs", target, b"tmpfs", 0)
        roots = f'roots = ["/", "{place}/root"]\n'
        policy = services.POLICY + roots
        limits = "[limits]\nseconds = 1\nper_user = 8\nmounts = 20\nnames = 100000\nbytes = 20000000\n"
        strict = services.POLICY.replace('"/"', f'"{place}/home"') + roots + limits
        try:
            with running_service(library, policy) as service, running_service(library, strict) as other:
                yield Site(
                    service=service,
                    strict=other,
                    manifest=dump_manifest(manifest),
                    covered=dump_manifest(covered),
                    root=os.fsencode(place / "root"),
                    closed=str(place / "closed"),
                    setuid=str(place / "setuid"),
                    home=str(place / "home"),
                )
        finally:
            sc.umount2(target, sc.MNT_DETACH)


def _covered_tree(root: Path, manifest: Manifest) -> Manifest:
    """Add a directory of many names to a tree, one of them a secret that root covers; return its manifest."""
    big = root / "big"
    (big / "covered").mkdir(parents=True)
    entries = [directory(b"/big"), directory(b"/big/covered")]
    for number in range(150):
        (big / f"{number:03}").write_text("big")
        entries.append(regular(b"/big/%03d" % number, b"big"))
    (root / os.fsdecode(_COVERED[1:])).write_text(_SECRET)
    entries.append(regular(_COVERED, _SECRET.encode()))
    return replace(manifest, files=tuple(sorted((*manifest.files, *entries), key=lambda entry: entry.path)))


def _as_user(site: Site, each: Attack) -> str:
    """Run an attack in a process of the user's, and return what it got."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "it ended without a word"
        try:
            signal.alarm(_SECONDS)
            if each.before is not None:
                each.before(site)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            sc.prctl(sc.PR_SET_DUMPABLE, 1)
            if each.before is None:
                os.chdir(site.home)
            said = each.run(site)
        except BaseException as error:  # noqa: BLE001 - a child of the test's
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, said.encode(errors="replace")[:60000])
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as answers:
        said = answers.read()
    os.waitpid(child, 0)
    return said


# --- who asks, and from where -------------------------------------------------------------------------


def _status(site: Site) -> str:
    client, greeting = connect(site.service.socket)
    protocol.send(client, {"protocol": protocol.VERSION, "word": greeting["word"], "ask": "status"})
    return json.dumps(answer(client))


def _unshare(flags: int) -> Callable[[Site], object]:
    return lambda _: sc.unshare(flags)


for _name, _flag in {
    "mnt": sc.CLONE_NEWNS, "net": sc.CLONE_NEWNET, "ipc": sc.CLONE_NEWIPC, "uts": sc.CLONE_NEWUTS,
    "cgroup": 0x02000000,
}.items():  # fmt: skip
    attack(f"from another {_name} namespace", f"refused.*another {_name} namespace", _unshare(_flag))(
        lambda site: site.run("true")[0]
    )


@attack("from a user namespace of one's own", "refused.*another user namespace")
def _from_user_namespace(site: Site) -> str:
    sc.unshare(sc.CLONE_NEWUSER)
    return site.run("true")[0]


@attack("from nested user and mount namespaces, with the host's files rearranged", "another user namespace")
def _from_nested_namespaces(site: Site) -> str:
    for _ in range(2):
        uid, gid = os.getuid(), os.getgid()
        sc.unshare(sc.CLONE_NEWUSER | sc.CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} {gid} 1")
    return site.run("true")[0]


@attack("from another process namespace", "refused.*another pid namespace", _unshare(sc.CLONE_NEWPID))
def _from_process_namespace(site: Site) -> str:
    reading, writing = os.pipe()
    if not os.fork():
        os.write(writing, site.run("true")[0].encode())
        os._exit(0)
    return os.read(reading, 4096).decode()


def _chroot(site: Site) -> None:
    os.chroot(os.path.dirname(site.service.place))
    os.chdir("/")


@attack("from another root directory", "cannot look|another root directory", _chroot)
def _from_root(site: Site) -> str:
    client, greeting = connect(f"/{site.service.place.name}/socket")
    protocol.send(client, {"protocol": protocol.VERSION, "word": greeting["word"], "ask": "status"})
    return json.dumps(answer(client))


@attack("from a process confined by Landlock", "refused.*given up gaining privileges")
def _from_landlock(site: Site) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = (ctypes.c_uint64 * 1)(1 << 2)  # reading files is handled, and allowed nowhere
    ruleset = libc.syscall(444, ctypes.byref(attributes), ctypes.c_size_t(8), 0)
    sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    libc.syscall(446, ruleset, 0)
    return _status(site)


@attack("the credentials of root's with a message", "refused by the kernel")
def _as_root(site: Site) -> str:
    client, greeting = connect(site.service.socket)
    message = protocol.encoded({"protocol": 1, "word": greeting["word"], "ask": "status"})
    with contextlib.suppress(PermissionError):
        client.sendmsg([message], [(socket.SOL_SOCKET, 2, struct.pack("iII", 1, 0, 0))])
        return "SUCCEEDED: forged credentials"
    return "refused by the kernel"


@attack("the request is sent by another process", "refused.*sent by another process")
def _another_sender(site: Site) -> str:
    client, greeting = connect(site.service.socket)
    if not os.fork():
        protocol.send(client, {"protocol": protocol.VERSION, "word": greeting["word"], "ask": "status"})
        os._exit(0)
    return json.dumps(answer(client))


@attack("the process that connected ends, and another one sends", "refused.*(another process|has ended)")
def _ended_sender(site: Site) -> str:
    reading, writing = os.pipe()
    if not os.fork():
        client, greeting = connect(site.service.socket)
        if os.fork():
            os._exit(0)
        time.sleep(0.2)
        protocol.send(client, {"protocol": protocol.VERSION, "word": greeting["word"], "ask": "status"})
        os.write(writing, json.dumps(answer(client)).encode())
        os._exit(0)
    return os.read(reading, 4096).decode()


@attack("a request before the greeting, with a guessed word", "refused.*does not repeat the word")
def _guessed_word(site: Site) -> str:
    client, _ = connect(site.service.socket)
    protocol.send(client, {"protocol": protocol.VERSION, "word": "0" * 32, "ask": "status"})
    return json.dumps(answer(client))


@attack("another socket in the place of the service's", "PermissionError")
def _replace_socket(site: Site) -> str:
    os.unlink(site.service.socket)
    return "SUCCEEDED"


@attack("a service of another user's is taken for root's", "and not root")
def _other_service(site: Site) -> str:
    from pkgjail.helper.client import VARIABLE, ask_status

    path = f"{site.home}/socket"
    with protocol.make_socket() as listener, contextlib.suppress(FileNotFoundError):
        listener.bind(path)
        listener.listen()
        os.environ[VARIABLE] = path
        try:
            ask_status()
        finally:
            os.unlink(path)
    return "SUCCEEDED"


# --- the protocol ---------------------------------------------------------------------------------------


@rows(
    "refused.*version",
    {
        "protocol version 0": 0, "protocol version 2": 2, "protocol version as text": "1",
        "protocol version true": True, "no protocol version": None, "protocol version of 400 digits": 10**400,
        "protocol version of a list": [1],
    },
)  # fmt: skip
def _versions(site: Site, version: Any) -> str:
    client = site.ask("true", message={"protocol": version})
    return json.dumps(ended(client))


@rows(
    "refused|closed",
    {
        "a packet of 200,000 bytes": b"x" * 200_000,
        "no JSON": b"\xff\xfe",
        "a list": b"[]",
        "a number": b"1",
        "10,000 nested lists": b"[" * 10_000 + b"]" * 10_000,
        "a number of 10,000 digits": b'{"a":' + b"9" * 10_000 + b"}",
        "not a number": b'{"a":NaN}', "an empty object": b"{}",
    },
)  # fmt: skip
def _packets(site: Site, data: bytes) -> str:
    client, _ = connect(site.service.socket)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    try:
        client.send(data)
    except OSError as error:
        return f"refused by the kernel: {error}"
    return json.dumps(answer(client)) or "closed"


@rows(
    "refused",
    {
        "an unknown request": {"ask": "mount"}, "sizes that are too large": {"options": 10**9},
        "a negative size": {"options": -5},
        "a size of true": {"options": True},
        "no size": {"manifest": None},
        "sizes that leave a rest": {"manifest": 1}, "a size of 400 digits": {"manifest": 10**400},
        "another manifest than the one that is read": {"signature": 4},
    },
)  # fmt: skip
def _messages(site: Site, message: dict[str, Any]) -> str:
    return json.dumps(ended(site.ask("true", message=message)))


@rows(
    "error.*not well formed",
    {
        "a command that is root": {"map_root": True},
        "a jail without its namespaces": {"user_namespace": True},
        "a relative source": {"root": "proc/self/root"}, "NUL in a source": {"root": "/a\0b"},
        "a command of no words": {"argv": []}, "a command of numbers": {"argv": [1]},
        "a variable without a name": {"environment": {"": "x"}},
        "a variable with = in its name": {"environment": {"A=B": "x"}},
        "a list of devices by a path": {"device_sets": ["../../../tmp/x"]},
        "257 binds": {"binds": [["/a", "/a", False]] * 257},
        "a bind of three texts": {"binds": [["/", "/a", "false"]]},
        "a strategy of one's own": {"plan": "host"},
        "a path of a megabyte": {"cwd": "/" + "a" * (1 << 20)}, "text that is no path": {"cwd": "/\ud800"},
    },
)  # fmt: skip
def _options(site: Site, changes: dict[str, Any]) -> str:
    return json.dumps(ended(site.ask("true", changes=changes)))


@rows(
    "refused|error",
    {
        "options that are no JSON": b"\xff" * 10, "options of nested lists": b"[" * 10_000 + b"]" * 10_000,
        "options of 5 million bytes": b" " * 5_000_000,
    },
)  # fmt: skip
def _raw_options(site: Site, data: bytes) -> str:
    return json.dumps(ended(site.ask("true", options=data)))


# --- descriptors ----------------------------------------------------------------------------------------


@rows(
    "refused.*(not in a file in memory|not sealed)",
    {
        "a regular file for the manifest": lambda site: os.open(_own_file(site), os.O_RDONLY),
        "a pipe for the manifest": lambda _: os.pipe()[0],
        "a socket for the manifest": lambda _: socket.socketpair()[0].detach(),
        "a directory for the manifest": lambda _: os.open("/", os.O_RDONLY),
        "/dev/zero for the manifest": lambda _: os.open("/dev/zero", os.O_RDONLY),
        "/proc/self/mem for the manifest": lambda _: os.open("/proc/self/mem", os.O_RDWR),
    },
)  # fmt: skip
def _files(site: Site, make: Callable[[Site], int]) -> str:
    return json.dumps(ended(site.ask("true", file=make(site))))


def _memory(seals: int, size: int = 0) -> int:
    file = os.memfd_create("forged", os.MFD_ALLOW_SEALING)
    os.ftruncate(file, size)
    fcntl.fcntl(file, 1033, seals)
    return file


@rows(
    "refused.*not sealed",
    {
        "a file in memory without seals": 0, "a file that can be written to": 0x1 | 0x2 | 0x4,
        "a file that only later descriptors cannot write to": 0x1 | 0x2 | 0x4 | 0x10,
        "a file that can grow": 0x1 | 0x2 | 0x8, "a file that can shrink": 0x1 | 0x4 | 0x8,
    },
)  # fmt: skip
def _seals(site: Site, seals: int) -> str:
    return json.dumps(ended(site.ask("true", file=_memory(seals, 10))))


@attack("a sealed file of 1 TiB", "refused.*this host allows")
def _sparse(site: Site) -> str:
    return json.dumps(ended(site.ask("true", file=_memory(0xF, 1 << 40), message={"manifest": 1 << 40})))


@attack("a sealed file that cannot be read", "refused.*cannot be read")
def _write_only(site: Site) -> str:
    file = os.open(f"/proc/self/fd/{_memory(0, 10)}", os.O_WRONLY)
    fcntl.fcntl(file, 1033, 0xF)
    return json.dumps(ended(site.ask("true", file=file)))


@attack("the file's position is moved while it is read", "ended")
def _moved_position(site: Site) -> str:
    data = protocol.encoded(site.options("true"))
    file = protocol.sealed((data, site.manifest))
    sizes = {"options": len(data), "manifest": len(site.manifest), "signature": 0}
    client = site.ask(file=file, message=sizes)
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        os.lseek(file, 7, os.SEEK_SET)
    return json.dumps(ended(client))


@rows(
    "refused",
    {
        "a directory as standard input": lambda: os.open("/", os.O_RDONLY),
        "a directory by O_PATH as standard input": lambda: os.open("/", os.O_PATH),
        "a file by O_PATH as standard input": lambda: os.open("/etc/passwd", os.O_PATH),
        "a link by O_PATH as standard input": lambda: os.open("/proc/self/exe", os.O_PATH | os.O_NOFOLLOW),
    },
)  # fmt: skip
def _standard(site: Site, make: Callable[[], int]) -> str:
    null = os.open(os.devnull, os.O_RDWR)
    return json.dumps(ended(site.ask("ls /proc/self/fd/0/", standard=(make(), null, null))))


@rows(
    "refused",
    {"no descriptors": 0, "3 descriptors": 3, "5 descriptors": 5, "253 descriptors": 253},
)
def _numbers(site: Site, count: int) -> str:
    client, greeting = connect(site.service.socket)
    request = {"protocol": protocol.VERSION, "word": greeting["word"], "ask": "run"}
    sizes = {"options": 0, "manifest": 0, "signature": 0}
    protocol.send(client, {**request, **sizes}, [os.open("/", os.O_RDONLY)] * count)
    return json.dumps(answer(client))


@attack("descriptors with a request for the status", "refused")
def _status_descriptors(site: Site) -> str:
    client, greeting = connect(site.service.socket)
    request = {"protocol": protocol.VERSION, "word": greeting["word"], "ask": "status"}
    protocol.send(client, request, (0, 1))
    return json.dumps(answer(client))


# --- files ------------------------------------------------------------------------------------------------


def _own_file(site: Site) -> str:
    path = f"{site.home}/own"
    Path(path).write_text("own")
    return path


def _judge(pair: tuple[str, str]) -> str:
    """Return the end and the output of a run, and whether it has the secret."""
    last, output = pair
    return f"{'SUCCEEDED ' if _SECRET in output or 'uid=0' in output else ''}{last} {output}"


@attack("a bind of a directory that only root may enter", "error|ermission denied")
def _closed_bind(site: Site) -> str:
    return _judge(site.run("cat /x/file", changes={"binds": [[site.closed, "/x", False]]}))


@attack("a bind of a file that only root may read", "error|ermission denied")
def _closed_file(site: Site) -> str:
    return _judge(site.run("cat /tmp/x", changes={"binds": [["/etc/shadow", "/tmp/x", False]]}))


@attack("a writable bind of what only root may write", "Permission denied|Read-only")
def _roots_file(site: Site) -> str:
    changes = {"binds": [["/etc/passwd", "/tmp/x", True]]}
    return _judge(site.run("echo evil >> /tmp/x && echo SUCCEEDED", changes=changes))


@attack("a manifest with /etc/shadow", "error|ermission denied")
def _shadow(site: Site) -> str:
    text = site.manifest.decode()
    found = os.stat("/etc/shadow")
    manifest = _with_file(site, b"/etc/shadow", found.st_mode & 0o7777, found.st_size)
    assert "busybox" in text
    return _judge(site.run("cat /etc/shadow && echo SUCCEEDED", manifest=manifest))


def _with_file(site: Site, path: bytes, mode: int, size: int) -> bytes:
    from pkgjail.manifest import parse_manifest

    manifest = parse_manifest(site.manifest, "m")
    entry = regular(path, b"")._replace(mode=mode, size=size, sha256=None)
    files = tuple(sorted((*manifest.files, entry), key=lambda each: each.path))
    return dump_manifest(replace(manifest, files=files))


@attack("a set-user-ID program of root's in a bind", "uid=65534")
def _setuid(site: Site) -> str:
    changes = {"binds": [[site.setuid, "/srv/x", False]]}
    return _judge(site.run("/srv/x/busybox id; /srv/x/busybox su -c id", changes=changes))


@attack("a set-user-ID program of root's in the manifest", "error|uid=65534|not found")
def _setuid_manifest(site: Site) -> str:
    found = os.stat("/usr/bin/passwd")
    manifest = _with_file(site, b"/usr/bin/passwd", found.st_mode & 0o7777, found.st_size)
    options = options_of((*_SHELL, "/usr/bin/passwd -S; id"), b"/")
    return _judge(site.run(manifest=manifest, options=options))


@rows(
    "refused|error|ended",
    {
        "/proc/self/root as the source": "/proc/self/root", "/proc/1/root as the source": "/proc/1/root",
        "/proc/self/cwd as the source": "/proc/self/cwd",
        "/home as the source": "/home",
        "/dev as the source": "/dev",
        "/proc as the source": "/proc",
    },
)  # fmt: skip
def _roots(site: Site, root: str) -> str:
    return _judge(site.run("cat /closed/file", changes={"root": root}))


@rows(
    "refused|error|ended",
    {
        "/proc/self/root as a bind": "/proc/self/root" + "/etc", "/proc/self/fd as a bind": "/proc/self/fd",
        "/proc/1/root as a bind": "/proc/1/root/root",
        "a name of a keeper's descriptor as a bind": "/proc/self/fd/3",
    },
)  # fmt: skip
def _proc_binds(site: Site, source: str) -> str:
    return _judge(site.run("ls -l /tmp/x/; cat /tmp/x/shadow", changes={"binds": [[source, "/tmp/x", True]]}))


@attack("a link of one's own to a directory of root's", "error|ermission denied")
def _link_to_closed(site: Site) -> str:
    link = f"{site.home}/link"
    with contextlib.suppress(FileExistsError):
        os.symlink(site.closed, link)
    return _judge(site.run("cat /tmp/x/file", changes={"binds": [[link, "/tmp/x", False]]}))


@attack("a bind's directory is exchanged for a link while jails are made", "none of [0-9]+")
def _raced_link(site: Site) -> str:
    return _race(site, site.service, "/etc", "cat /tmp/x/shadow /tmp/x/passwd", "root:")


@attack("a link leads out of the directories of the policy while jails are made", "none of [0-9]+")
def _raced_policy(site: Site) -> str:
    return _race(site, site.strict, "/etc", "cat /tmp/x/passwd", "root:")


def _race(site: Site, service: Service, target: str, script: str, secret: str) -> str:
    """Exchange a directory of the user's and a link to `target` again and again, while jails show it."""
    raced, spare = f"{site.home}/raced", f"{site.home}/spare"
    os.makedirs(raced, exist_ok=True)
    os.symlink(target, spare)
    libc = ctypes.CDLL(None)
    child = os.fork()
    if not child:
        while True:
            libc.renameat2(-100, raced.encode(), -100, spare.encode(), 2)  # RENAME_EXCHANGE
    tries = 20
    try:
        got = [
            site.run(script, service=service, changes={"binds": [[raced, "/tmp/x", False]]})
            for _ in range(tries)
        ]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        _remove_raced(raced, spare)
    # What the user may read anyway is no secret, unless the policy closes it.
    secrets = [output for _, output in got if (secret in output and service is site.strict) or ":$" in output]
    return f"SUCCEEDED {secrets[0]}" if secrets else f"none of {tries}"


def _remove_raced(*paths: str) -> None:
    for path in paths:
        if os.path.islink(path):
            os.unlink(path)
        else:
            os.rmdir(path)


@attack("mounts and their points are moved in one's own namespace meanwhile", "none of [0-9]+")
def _raced_mounts(site: Site) -> str:
    target = f"{site.home}/mounted"
    os.makedirs(target, exist_ok=True)
    child = os.fork()
    if not child:
        sc.unshare(sc.CLONE_NEWUSER | sc.CLONE_NEWNS)
        while True:
            sc.mount(b"/etc", target.encode(), None, 0x1000 | sc.MS_REC)
            sc.umount2(target.encode(), sc.MNT_DETACH)
    try:
        got = [site.run("ls /tmp/x", changes={"binds": [[target, "/tmp/x", False]]})[1] for _ in range(10)]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return f"SUCCEEDED {got}" if any("passwd" in each for each in got) else "none of 10"


@rows(
    "error",
    {f"a covered file, by the strategy {plan}": plan for plan in ("auto", "tree", "mask", "whole", "binds")},
)
def _covered(site: Site, plan: str) -> str:
    changes = {"plan": plan, "allow_drift": True}
    drifted = _judge(site.run("cat /big/covered/secret", manifest=site.covered, changes=changes))
    assert "SUCCEEDED" not in drifted, drifted
    return _judge(site.run("cat /big/covered/secret", manifest=site.covered, changes={"plan": plan}))


@attack("a covered directory in a bind", "No such file")
def _covered_bind(site: Site) -> str:
    changes = {"binds": [[os.fsdecode(site.root) + "/big", "/tmp/x", False]]}
    return _judge(
        site.run(
            "cat /tmp/x/covered/secret; umount /tmp/x/covered; cat /tmp/x/covered/secret", changes=changes
        )
    )


@attack("the users' caches in a read-only bind", "error.*caches of pkgjaild")
def _read_caches(site: Site) -> str:
    return _judge(site.run("ls /tmp/x", changes={"binds": [[site.service.state, "/tmp/x", False]]}))


@attack("the users' caches in a bind", "error.*cache")
def _caches(site: Site) -> str:
    return _judge(site.run("ls /tmp/x", changes={"binds": [[site.service.state, "/tmp/x", True]]}))


@attack("the users' caches in a bind of the whole host", "error.*cache")
def _whole_host(site: Site) -> str:
    return _judge(site.run("ls /tmp/x", changes={"binds": [["/", "/tmp/x", True]]}))


@attack("one's own cache by its path outside, to forge it", "PermissionError")
def _forged_cache(site: Site) -> str:
    for place, _, _ in os.walk(site.service.state):
        Path(place, "forged").write_text("SUCCEEDED")
    os.listdir(f"{site.service.state}/{NOBODY}/cache")
    return "SUCCEEDED"


@attack("another user's caches inside a jail", "error.*caches")
def _others_caches(site: Site) -> str:
    return _judge(site.run("ls /tmp/x", changes={"binds": [[f"{site.service.state}/..", "/tmp/x", False]]}))


@attack("devices that the policy does not allow", "error.*does not allow: the devices /dev/kmsg")
def _devices(site: Site) -> str:
    return _judge(site.run("true", changes={"devices": ["/dev/kmsg", "/dev/mem"]}))


@attack("shared memory that the policy does not allow", "error.*--share-ipc")
def _ipc(site: Site) -> str:
    return _judge(site.run("true", changes={"share_ipc": True}))


@attack("a bind outside of the policy's directories", "error.*allows no bind of /etc")
def _outside_policy(site: Site) -> str:
    return _judge(site.run("true", service=site.strict, changes={"binds": [["/etc", "/tmp/x", False]]}))


# --- manifests --------------------------------------------------------------------------------------------


@attack("a manifest of a million names", "refused.*(lines|bytes); this host allows|refused.*this host allows")
def _million(site: Site) -> str:
    line = b'{"kind":"file","mode":"0644","origin":"package","path":"/usr/%07d","type":"regular"}\n'
    return json.dumps(
        ended(site.ask("true", manifest=b"".join([line % number for number in range(1_000_000)])))
    )


@attack("a manifest of a million names that are not sorted, within the limit of bytes", "refused.*lines")
def _million_short(site: Site) -> str:
    return json.dumps(ended(site.ask("true", manifest=b"{}\n" * 1_000_000)))


@rows(
    "error",
    {
        "a manifest of zeros": b"\0" * 1_000_000, "a manifest of nested lists": b"[" * 100_000 + b"\n",
        "an empty manifest": b"",
        "a manifest with a path out of it": b'{"kind":"file","path":"/../etc/shadow"}\n',
    },
)  # fmt: skip
def _manifests(site: Site, manifest: bytes) -> str:
    return json.dumps(ended(site.ask("true", manifest=manifest)))


@attack("more mounts than the policy allows", "error.*mounts; the administrator allows 20")
def _too_many_mounts(site: Site) -> str:
    return _judge(
        site.run(
            "true", service=site.strict, manifest=site.covered, changes={"plan": "binds", "allow_drift": True}
        )
    )


@attack("200 binds of a tree with all its mounts", "error|ended")
def _many_binds(site: Site) -> str:
    binds = [["/proc", f"/tmp/x{number}", False] for number in range(200)]
    return _judge(site.run("true", changes={"binds": binds}))


# --- processes ----------------------------------------------------------------------------------------------


@attack("1,000 connections", "[0-9]+ of 1000 refused")
def _thousand(site: Site) -> str:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    clients = []
    refused = 0
    for _ in range(1000):
        client = protocol.make_socket()
        client.settimeout(20)
        client.connect(site.service.socket)
        clients.append(client)
    for client in clients:
        packet = protocol.receive(client)
        refused += packet is not None and "refused" in packet.message
    return f"{refused} of 1000 refused" if refused >= 900 else f"SUCCEEDED: {refused} refused"


@attack("a client that connects and sends nothing", "closed after [0-9.]+ s")
def _silent(site: Site) -> str:
    client, _ = connect(site.strict.socket)
    began = time.monotonic()
    assert answer(client) == {}
    took = time.monotonic() - began
    return f"closed after {took:.1f} s" if took < 5 else f"SUCCEEDED: {took} s"


@attack("eight silent clients at once, and an honest one after them", "refused.*welcome")
def _silent_clients(site: Site) -> str:
    silent = [connect(site.strict.socket)[0] for _ in range(8)]
    refused = connect(site.strict.socket)[1]
    for client in silent:
        answer(client)
    time.sleep(0.3)
    client, greeting = connect(site.strict.socket)
    protocol.send(client, {"protocol": protocol.VERSION, "word": greeting["word"], "ask": "status"})
    return json.dumps([refused, answer(client)])


@rows(
    "gone",
    {
        "death after connecting": "connect", "death after the greeting": "greeting",
        "death after the request": "request", "death while the jail runs": "run",
    },
)  # fmt: skip
def _deaths(site: Site, moment: str) -> str:
    child = os.fork()
    if not child:
        if moment == "connect":
            protocol.make_socket().connect(site.service.socket)
        elif moment == "greeting":
            connect(site.service.socket)
        else:
            site.ask("sleep 100")
            time.sleep(1 if moment == "run" else 0)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    return "gone"


@attack("a client that never reads what its jail reports", "gone")
def _deaf(site: Site) -> str:
    client = site.ask("true")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    time.sleep(1)
    return "gone"


@rows(
    "ended|closed|\\{\\}",
    {
        "signal 0": 0, "signal 19": 19, "signal 999": 999, "signal -1": -1, "a signal by name": "KILL",
        "signal true": True, "a message instead of a signal": None,
    },
)  # fmt: skip
def _signals(site: Site, number: Any) -> str:
    client = site.ask("sleep 100")
    protocol.send(client, {"signal": number})
    return json.dumps(ended(client))


@attack("kill the daemon and its keepers", "PermissionError PermissionError")
def _kill_daemon(site: Site) -> str:
    _, worker = site.worker()
    keeper = int(Path(f"/proc/{worker}/stat").read_bytes().rpartition(b")")[2].split()[1])
    got = []
    for process in (site.service.process.pid, keeper):
        try:
            os.kill(process, signal.SIGKILL)
            got.append("SUCCEEDED")
        except PermissionError as error:  # noqa: PERF203 - two of them
            got.append(type(error).__name__)
    return " ".join(got)


@attack("kill one's own worker", "ended.*137")
def _kill_worker(site: Site) -> str:
    client, worker = site.worker()
    os.kill(worker, signal.SIGKILL)
    return json.dumps(ended(client))


@attack("stop one's own worker, and go", "gone")
def _stop_worker(site: Site) -> str:
    _, worker = site.worker()
    os.kill(worker, signal.SIGSTOP)
    return "gone"


def _ptrace(request: int, pid: int) -> None:
    _call(101, request, pid, 0, 0)


def _peek(pid: int) -> None:
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    _call(310, pid, local, ctypes.c_ulong(1), local, ctypes.c_ulong(1), ctypes.c_ulong(0))


def _getfd(pid: int) -> None:
    _call(438, sc.pidfd_open(pid), 0, 0)


def _call(number: int, *arguments: Any) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(number, *arguments)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def _mark(pid: int) -> None:
    Path(f"/proc/{pid}/oom_score_adj").write_text("-1000")


@rows(
    "PermissionError|EPERM",
    {
        "ptrace(2) of a worker": lambda pid: _ptrace(_PTRACE_ATTACH, pid),
        "PTRACE_SEIZE of a worker": lambda pid: _ptrace(_PTRACE_SEIZE, pid),
        "the memory of a worker": lambda pid: os.open(f"/proc/{pid}/mem", os.O_RDWR),
        "the variables of a worker": lambda pid: Path(f"/proc/{pid}/environ").read_bytes(),
        "the root of a worker": lambda pid: os.listdir(f"/proc/{pid}/root"),
        "the descriptors of a worker": lambda pid: os.listdir(f"/proc/{pid}/fd"),
        "the mount namespace of a worker": lambda pid: os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY),
        "the memory of a worker by process_vm_readv": _peek,
        "a descriptor of a worker by pidfd_getfd": _getfd,
        "the map of ids of a worker": lambda pid: Path(f"/proc/{pid}/uid_map").write_text("0 0 1"),
        "the mark of a worker for the memory killer": _mark,
    },
)  # fmt: skip
def _worker(site: Site, act: Callable[[int], object]) -> str:
    _, worker = site.worker()
    return f"SUCCEEDED: {act(worker)!r}"


@attack("the limits of one's worker are lowered at any moment", "none of [0-9]+")
def _lowered_limits(site: Site) -> str:
    for number in range(12):
        client = site.ask("id -u; cat /closed/file")
        deadline = time.monotonic() + 0.02 * number
        while time.monotonic() < deadline:
            time.sleep(0.002)
        for pid in services.descendants(site.service.process.pid):
            for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
                with contextlib.suppress(OSError, ValueError):
                    resource.prlimit(pid, limit, (4, 4))
        last = ended(client)
        assert last, "no answer"
    return "none of 12"


@attack("signals to one's worker at any moment", "none of [0-9]+")
def _signalled(site: Site) -> str:
    for number in range(12):
        client = site.ask("id -u")
        time.sleep(0.02 * number)
        for pid in services.descendants(site.service.process.pid):
            for each in (signal.SIGSEGV, signal.SIGALRM, signal.SIGCONT):
                with contextlib.suppress(OSError):
                    os.kill(pid, each)
        ended(client)
    return "none of 12"


@attack("a client with no descriptors to spare", "ended|error")
def _few_descriptors(site: Site) -> str:
    client, greeting = connect(site.service.socket)
    data = protocol.encoded(site.options("true"))
    file = protocol.sealed((data, site.manifest))
    null = os.open(os.devnull, os.O_RDWR)
    resource.setrlimit(resource.RLIMIT_NOFILE, (5, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    sizes = {"options": len(data), "manifest": len(site.manifest), "signature": 0}
    request = {"protocol": protocol.VERSION, "word": greeting["word"], "ask": "run", **sizes}
    protocol.send(client, request, (null, null, null, file))
    last: dict[str, Any] = {}
    while True:  # an attached error needs a descriptor of this process
        found = client.recv(protocol.MOST_BYTES)
        if not found:
            return json.dumps(last)
        last = last if "error" in last else json.loads(found)


@attack("privileges inside, by what a jail of root's could have", "CapEff:\t0000000000000000")
def _inside(site: Site) -> str:
    script = (
        "grep CapEff /proc/self/status",
        "mount -t tmpfs x /tmp",
        "umount /closed",
        "chroot / id",
        "mknod /tmp/x c 1 1",
    )
    return _judge(site.run(*(f"{each} && echo done" for each in script))).replace("SUCCEEDED", "")


@attack("processes outside, seen from inside", "1 |ended")
def _outside(site: Site) -> str:
    last, output = site.run("ls /proc", "kill -9 -1")
    pids = [int(word) for word in output.split() if word.isdigit()]
    return f"SUCCEEDED: {pids}" if any(pid > 50 for pid in pids) else f"{last} {pids}"


@pytest.mark.parametrize("each", ATTACKS, ids=lambda each: each.name)
def test_no_attack_succeeds(site: Site, each: Attack) -> None:
    """The attack gets what it must, the service answers, and no mount, process or directory is left."""
    before, state = services.mounts(), set(os.listdir(site.service.state))
    said = _as_user(site, each)
    assert "SUCCEEDED" not in said, said
    assert re.search(each.gets, said, re.DOTALL), f"{each.name}: got {said[:2000]}"
    for service in (site.service, site.strict):
        assert service.process.poll() is None
        wait_until(partial(_is_idle, service))
    services.wait_until(lambda: services.mounts() <= before)  # other tests mount, too
    assert set(os.listdir(site.service.state)) - state <= {str(NOBODY)}
    alive = Attack("an honest user", "welcome", _status)
    assert "welcome" in _as_user(site, alive)


def _is_idle(service: Service) -> bool:
    return service.children() == []


def test_there_are_enough_attacks() -> None:
    """The table has at least sixty rows, each with a name of its own."""
    names = [each.name for each in ATTACKS]
    assert len(set(names)) == len(names)
    assert len(names) >= 60
