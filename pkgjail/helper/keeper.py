"""The process of one connection: reads the request, judges it, starts the worker, and follows it.

It is root's, and looks up no path that a client named. When the client goes, it kills the worker. When it is
killed itself, the worker dies with it (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.helper import protocol
from pkgjail.helper.errors import RequestError
from pkgjail.helper.log import log
from pkgjail.helper.peers import peer_of, refuse_foreign, refuse_other_sender
from pkgjail.helper.signers import MOST_BYTES, signer_of
from pkgjail.helper.surroundings import surroundings_of
from pkgjail.helper.worker import Task, become_worker, tidy
from pkgjail.manifest import manifest_digest
from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.signals import RELAYED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pkgjail.helper.peers import Peer
    from pkgjail.helper.policy import Policy

_MOST_OPTIONS = 4 << 20  # bytes
_ANSWER_MS = 5000  # until a client has read how its command ended
_PR_SET_CHILD_SUBREAPER = 36
_SENT = frozenset({int(number) for number in (*RELAYED, signal.SIGKILL)})
_WRONG_KINDS = {stat.S_IFDIR: "a directory", stat.S_IFBLK: "a block device", stat.S_IFLNK: "a link"}


class _Content(NamedTuple):
    """What is in the sealed file of a request."""

    options: bytes
    manifest: bytes
    signature: bytes


def keep(connection: socket.socket, policy: Policy, state: str) -> None:
    """Serve one connection."""
    os.setsid()
    sc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # to end what a killed worker leaves
    signal.alarm(policy.limits["seconds"])  # its default action ends this process
    uid = pid = -1
    try:
        with peer_of(connection) as peer:
            uid, pid = peer.uid, peer.pid
            _serve(connection, peer, policy, state)
    except RequestError as error:
        log("refused", uid=uid, pid=pid, why=error)
        with contextlib.suppress(OSError):
            protocol.send(connection, {"refused": str(error)[:4000]}, flags=socket.MSG_DONTWAIT)
    except OSError as error:
        log("gone", uid=uid, pid=pid, why=error.strerror)


def _serve(connection: socket.socket, peer: Peer, policy: Policy, state: str) -> None:
    word = os.urandom(16).hex()
    protocol.send(connection, {"pkgjaild": protocol.VERSION, "word": word})
    packet = protocol.receive(connection, protocol.DESCRIPTORS)
    if packet is None:
        return
    message, passed = packet.message, packet.descriptors
    try:
        _refuse_version(message)
        refuse_other_sender(peer, packet.sender)
        if message.get("word") != word:
            raise RequestError("the request does not repeat the word of the greeting")
        _refuse_stranger(peer, policy)
        if message.get("ask") == "status" and not passed:
            protocol.send(connection, {"welcome": _terms(policy)}, flags=socket.MSG_DONTWAIT)
            return
        if message.get("ask") != "run" or len(passed) != protocol.DESCRIPTORS:
            raise RequestError(
                f"a request to run has {protocol.DESCRIPTORS} descriptors, and no other is known"
            )
        for number in passed[:3]:
            _refuse_kind(number)
        content = _content(message, passed[3], policy)
        digest, signer = _approve(content, policy)
        found = surroundings_of(peer)
        task = Task(
            connection=connection,
            standard=passed[:3],
            options=content.options,
            manifest=content.manifest,
            terminal=message.get("terminal") is True,
            uid=peer.uid,
            gid=peer.gid,
            groups=peer.groups,
            surroundings=found,
            policy=policy,
            state=state,
            digest=digest,
        )
        worker = _start(task)
    finally:
        protocol.close(passed)
    signal.alarm(0)
    log("began", uid=peer.uid, pid=peer.pid, worker=worker, manifest=digest, signer=signer or "-")
    follower = _Follower(connection, peer, worker)
    status = follower.follow()
    log("ended", uid=peer.uid, worker=worker, status=status)
    _end_orphans()
    if follower.was_killed:
        tidy(state, peer.uid, peer.gid)


def _refuse_version(message: Mapping[str, Any]) -> None:
    version = message.get("protocol")
    if version != protocol.VERSION or isinstance(version, bool):
        shown = version if isinstance(version, int) else "none"
        raise RequestError(
            f"the client speaks version {str(shown)[:20]} of the protocol, and pkgjaild version "
            f"{protocol.VERSION}: use the same release of pkgjail for both"
        )


def _refuse_stranger(peer: Peer, policy: Policy) -> None:
    if peer.uid == 0:
        raise RequestError("root needs no helper; use the stage root")
    if not policy.lets_in(peer):
        raise RequestError("the administrator does not let you use pkgjaild (/etc/pkgjaild.toml)")
    refuse_foreign(peer, confined=policy.confined)


def _terms(policy: Policy) -> dict[str, Any]:
    """Return what a client may know of the policy."""
    return {
        "network": policy.network,
        "share_ipc": policy.share_ipc,
        "drift": policy.drift,
        "devices": bool(policy.devices),
        "any_manifest": policy.any_manifest,
        "signed": bool(policy.signers),
    }


def _refuse_kind(descriptor: int) -> None:
    """Refuse a descriptor that no command should have: a directory is a way out of the jail."""
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_PATH:
        raise RequestError("a standard descriptor was opened with O_PATH")
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind in _WRONG_KINDS:
        raise RequestError(f"a standard descriptor is {_WRONG_KINDS[kind]}")


def _content(message: Mapping[str, Any], file: int, policy: Policy) -> _Content:
    """Read the sealed file: options, manifest and signature, in this order."""
    size = protocol.sealed_size(file, policy.limits["bytes"])
    sizes = [message.get(name) for name in ("options", "manifest", "signature")]
    if not all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each <= size for each in sizes):
        raise RequestError("the request does not say what is in its file")
    options, manifest, signature = (int(each or 0) for each in sizes)
    if options + manifest + signature != size or options > _MOST_OPTIONS or signature > MOST_BYTES:
        raise RequestError(
            "the file of the request has another size than its parts, or its options are too large"
        )
    content = _Content(
        protocol.read(file, 0, options),
        protocol.read(file, options, manifest),
        protocol.read(file, options + manifest, signature),
    )
    names = content.manifest.count(b"\n")
    if names > policy.limits["names"]:
        raise RequestError(f"the manifest has {names:,} lines; this host allows {policy.limits['names']:,}")
    return content


def _approve(content: _Content, policy: Policy) -> tuple[str, str]:
    """Return the digest of a manifest, and who signed it if the policy asks; refuse one that it forbids."""
    digest = manifest_digest(content.manifest)
    if policy.any_manifest or digest in policy.digests:
        return digest, ""
    if policy.signers and content.signature:
        return digest, signer_of(content.manifest, content.signature, policy.signers)
    signed = ", or sign it and keep the signature beside it as MANIFEST.sig" if policy.signers else ""
    raise RequestError(
        f"the administrator of this host does not allow the manifest {digest}; ask for it to be added to "
        f"/etc/pkgjaild.toml{signed}"
    )


def _start(task: Task) -> int:
    keeper = os.getpid()
    worker = os.fork()
    if worker == 0:
        become_worker(task, keeper)
    return worker


def _end_orphans() -> None:
    """Kill and reap all children of this process: those of the worker's that it did not wait for."""
    while True:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as children:
            for child in map(int, children.read().split()):
                os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


class _Follower:
    """Follows a worker: passes on signals from the client, and reports stops and the end to it."""

    def __init__(self, connection: socket.socket, peer: Peer, worker: int) -> None:
        self._connection = connection
        self._peer = peer
        self._worker = worker
        self._is_heard = True
        self.was_killed = False

    def follow(self) -> int:
        """Follow until the worker has ended, and return its exit status, or 128 + n for signal n."""
        woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(woken, select.POLLIN)
        poll.register(self._peer.pidfd, select.POLLIN)
        poll.register(self._connection, select.POLLIN)
        while (status := self._state()) is None:
            ready = dict(poll.poll())
            if woken in ready:
                os.read(woken, 4096)
            if self._connection.fileno() in ready and self._is_heard:
                self._hear()
            if self._peer.pidfd in ready:
                self._is_heard = False
            if not self._is_heard:
                os.kill(self._worker, signal.SIGKILL)
                os.waitid(os.P_PID, self._worker, os.WEXITED | os.WNOWAIT)
        if self._is_heard:
            self._answer({"ended": status})
        return status

    def _state(self) -> int | None:
        """Return the worker's status once it has ended; report each time that it is stopped."""
        while True:
            ended, status = os.waitpid(self._worker, os.WNOHANG | os.WUNTRACED)
            if not ended:
                return None
            if not os.WIFSTOPPED(status):
                self.was_killed = os.WIFSIGNALED(status)
                return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            self._answer({"stopped": os.WSTOPSIG(status)})

    def _hear(self) -> None:
        """Take one message of the client: a signal for the worker. Whatever else it sends ends its jail."""
        try:
            packet = protocol.receive(self._connection)
            number = None if packet is None else packet.message.get("signal")
        except (OSError, RequestError):
            number = None
        if isinstance(number, bool) or number not in _SENT:
            self._is_heard = False
        else:
            os.kill(self._worker, int(number))

    def _answer(self, message: Mapping[str, Any]) -> None:
        """Send a message. A client that does not read is waited for only a few seconds."""
        with contextlib.suppress(OSError):
            self._connection.settimeout(_ANSWER_MS / 1000)
            protocol.send(self._connection, message)
            self._connection.settimeout(None)
