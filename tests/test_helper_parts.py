"""The parts of pkgjaild in this process: messages, peers, the policy, wishes, and each process's own work."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.core.errors import CommandError, JailError, PolicyError
from pkgjail.core.options import JailOptions, Limits, UserBind
from pkgjail.helper import __main__ as command
from pkgjail.helper import client, keeper, log, peers, places, protocol, server, signers, surroundings, worker
from pkgjail.helper.errors import HelperError, RequestError, ServiceError
from pkgjail.helper.policy import Policy, is_within, read_policy
from pkgjail.helper.wishes import Wish, refusals, wish_of, wish_record
from pkgjail.manifest import dump_manifest
from pkgjail.sandbox import syscalls as sc
from pkgjail.stages.helper import Helper
from pkgjail.stages.model import PROPERTIES, RefusedError, Request
from tests import service as services
from tests.service import options_of, wait_until
from tests.test_export import odd_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkgjail.core.model import Manifest

IS_ROOT = os.geteuid() == 0
AS_ROOT = pytest.mark.skipif(not IS_ROOT, reason="only root is pkgjaild")


def policy_of(tmp_path: Path, text: str = services.POLICY) -> Policy:
    """Return the policy of a text."""
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return read_policy(str(path))


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return policy_of(tmp_path)


# --- the policy -------------------------------------------------------------------------------------------

_ALL = '[access]\nusers = ["root"]\n'
_ANY = "[manifests]\nany = true\n"
WRONG = [
    ("", ":1: nobody may ask for a jail"),
    ("x = 1\n" + _ALL + _ANY, ":1: unknown key 'x'"),
    (_ALL + _ANY + "[limits]\nfoo = 1\n", ":6: unknown key 'foo' in [limits]"),
    ("access = 1\n" + _ANY, ":1: 'access' must be a table"),
    ('[access]\nusers = "root"\n' + _ANY, ":2: 'users' must be an array of strings"),
    ('[access]\nusers = ["nobody-like-it"]\n' + _ANY, ":2: this host has no user 'nobody-like-it'"),
    ('[access]\ngroups = ["nobody-like-it"]\n' + _ANY, ":2: this host has no group 'nobody-like-it'"),
    (_ALL + "confined = 1\n" + _ANY, ":3: 'confined' must be true or false"),
    (_ALL + "socket_group = 1\n" + _ANY, ":3: 'socket_group' must be the name of a group"),
    (_ALL + 'socket_group = "no-such"\n' + _ANY, ":3: this host has no group 'no-such'"),
    (_ALL, ":1: no manifest is allowed"),
    (_ALL + _ANY + f'digests = ["sha256:{"0" * 64}"]\n', ":4: 'any' allows every manifest"),
    (_ALL + '[manifests]\ndigests = ["0"]\n', ":4: a digest is 'sha256:'"),
    (_ALL + '[manifests]\nsigners = "/nonexistent"\n', ":4: 'signers' must be the path of a file"),
    (_ALL + _ANY + '[files]\nbinds = ["home"]\n', ":6: 'home' is no absolute path"),
    (_ALL + _ANY + '[allow]\ndevices = ["/etc/passwd"]\n', ":6: '/etc/passwd' is no path below /dev"),
    (_ALL + _ANY + "[limits]\nseconds = 0\n", ":6: 'seconds' must be a whole number"),
    (_ALL + _ANY + "[limits]\nseconds = true\n", ":6: 'seconds' must be a whole number"),
    ("[access\n", "line 1"),
]


@pytest.mark.parametrize(("text", "words"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_with_a_policy_is_said_by_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PolicyError) as raised:
        policy_of(tmp_path, text)
    assert words in str(raised.value)


def test_a_policy_lets_in_by_user_and_group(tmp_path: Path) -> None:
    """A user is let in by id, or by a group of the asking process."""
    found = policy_of(
        tmp_path, f'[access]\nusers = ["root"]\ngroups = ["daemon"]\nsocket_group = "daemon"\n{_ANY}'
    )
    assert found.socket_group == 1
    rows = [((0, 0, ()), True), ((7, 7, ()), False), ((7, 1, ()), True), ((7, 7, (5, 1)), True)]
    for (uid, gid, groups), lets_in in rows:
        assert found.lets_in(peers.Peer(1, uid, gid, groups, -1)) is lets_in
    assert policy_of(tmp_path).lets_in(peers.Peer(1, 7, 7, (), -1))
    assert not is_within(b"/home2", (b"/home",))
    assert is_within(b"/home/a", (b"/home",))
    assert is_within(b"/x", (b"/",))


# --- wishes -----------------------------------------------------------------------------------------------


def test_a_wish_comes_back_as_it_was() -> None:
    """Names of any bytes, and each option that the service has, survive the way."""
    odd = b"/a\xff\n\xc3\xa4"
    options = JailOptions(
        binds=(UserBind(source=odd, destination=b"/x", writable=True),), devices=(b"/dev/null",),
        device_sets=("fabric",), cwd=odd, paths=(odd,), network=False, environment={"A": "\udcff"},
        plan="binds", verify="hash", allow_drift=True, strict_exit=True, share_ipc=True, inputs=(odd,),
        warn_of_inputs=False, user_namespace=False,
    )  # fmt: skip
    wish = Wish(argv=("sh", "\udcff"), options=options, root=odd)
    assert wish_of(protocol.decoded(protocol.encoded(wish_record(wish)))) == wish


_WISHES: list[dict[str, Any]] = [
    {"extra": 1}, {"argv": []}, {"argv": [1]}, {"argv": "sh"}, {"argv": ["a\0"]}, {"root": "x"}, {"root": "/" + "x" * 5000},  # noqa: E501
    {"cwd": "/\ud800"}, {"device_sets": ["../x"]}, {"network": 1}, {"plan": "x"}, {"environment": []},
    {"environment": {"A=": "x"}}, {"environment": {"": "x"}}, {"binds": 1}, {"binds": [["/", "/a", False]] * 257},  # noqa: E501
    {"binds": [1]}, {"binds": [["/", "/a", 1]]},
]  # fmt: skip


@pytest.mark.parametrize("changes", _WISHES, ids=range(len(_WISHES)))
def test_a_malformed_wish_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="not well formed"):
        wish_of(options_of(argv=("true",)) | changes)


def test_what_a_policy_does_not_allow_is_said_at_once(tmp_path: Path, base_manifest: Manifest) -> None:
    found = policy_of(
        tmp_path, services.POLICY + '[allow]\nnetwork = false\ndrift = false\ndevices = ["/dev/dri"]\n'
    )
    asked = JailOptions(devices=(b"/dev/dri/card0", b"/dev/kmsg"), share_ipc=True, allow_drift=True)
    words = "; ".join(refusals(Wish(argv=("x",), options=asked, root=b"/"), base_manifest, found))
    assert all(word in words for word in ("--no-network", "--share-ipc", "allow_drift=True", "/dev/kmsg"))
    assert "card0" not in words
    sets = JailOptions(device_sets=("fabric",))
    assert (
        "--gpus"
        in refusals(Wish(argv=("x",), options=sets, root=b"/"), base_manifest, policy_of(tmp_path))[0]
    )


# --- messages -----------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets; the second one says who sent what."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    protocol.ask_for_senders(theirs)
    for each in (ours, theirs):
        each.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def test_messages_pass_with_descriptors_and_their_sender(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    protocol.send(ours, {"a": "\udcff"}, (0, 1))
    packet = protocol.receive(theirs, 2)
    assert packet is not None
    assert packet.message == {"a": "\udcff"}
    assert packet.sender == protocol.Sender(os.getpid(), os.getuid(), os.getgid())
    assert len(packet.descriptors) == 2
    assert not any(os.get_inheritable(each) for each in packet.descriptors)
    protocol.close(packet.descriptors)
    protocol.send_large(ours, {"small": 1})
    protocol.send_large(ours, {"large": "x" * 100_000})
    for message in ({"small": 1}, {"large": "x" * 100_000}):
        received = protocol.receive_large(theirs)
        assert received is not None
        assert received.message == message
    ours.close()
    assert protocol.receive(theirs) is None


@pytest.mark.parametrize(
    "data",
    [
        b"x" * (protocol.MOST_BYTES + 1),
        b"[]",
        b"\xff",
        b"[" * 9000,
        b'{"a":NaN}',
        b'{"a":' + b"1" * 5000 + b"}",
    ],
)
def test_what_is_no_message_is_refused(pair: tuple[socket.socket, socket.socket], data: bytes) -> None:
    """Nothing of it is left open."""
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(pair[0], [data], [0])
    with pytest.raises(RequestError):
        protocol.receive(pair[1], 1)
    socket.send_fds(pair[0], [b"{}"], [0, 1, 2])
    with pytest.raises(RequestError):
        protocol.receive(pair[1])
    assert len(os.listdir("/proc/self/fd")) == before


def test_nested_json_is_refused() -> None:
    with pytest.raises(RequestError, match="nested"):
        protocol.decoded(b'{"a":' + b"[" * 2_000_000)


def test_a_sealed_file_is_read_by_its_parts() -> None:
    file = protocol.sealed((b"one", b"", b"two"))
    with os.fdopen(file) as closing:
        assert protocol.sealed_size(closing.fileno(), 6) == 6
        assert protocol.read(closing.fileno(), 3, 3) == b"two"
        with pytest.raises(RequestError, match="this host allows 5"):
            protocol.sealed_size(closing.fileno(), 5)
        with pytest.raises(RequestError, match="shorter"):
            protocol.read(closing.fileno(), 3, 4)
        with pytest.raises(PermissionError):
            os.write(file, b"x")
    with os.fdopen(os.memfd_create("x", os.MFD_ALLOW_SEALING), "rb") as unsealed:  # noqa: SIM117
        with pytest.raises(RequestError, match="not sealed"):
            protocol.sealed_size(unsealed.fileno(), 5)
    reading, writing = os.pipe()
    with pytest.raises(RequestError, match="not in a file in memory"):
        protocol.sealed_size(reading, 5)
    protocol.close((reading, writing))


# --- peers ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _listening(place: Path) -> Iterator[socket.socket]:
    with protocol.make_socket() as listener:
        listener.bind(str(place / "s"))
        listener.listen()
        protocol.ask_for_senders(listener)
        yield listener


def _peer_of_child(
    listener: socket.socket, path: Path, work: Callable[[], object]
) -> tuple[int, socket.socket]:
    """Fork a child that does something, connects and waits; return it and the connection."""
    child = os.fork()
    if child == 0:
        try:
            work()
            with protocol.make_socket() as connecting:
                connecting.connect(str(path))
                protocol.send(connecting, {"from": "child"})
                time.sleep(60)
        finally:
            os._exit(0)
    return child, listener.accept()[0]


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: None, ""),
        (lambda: sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1), "given up gaining privileges"),
        pytest.param(lambda: sc.unshare(sc.CLONE_NEWUTS), "another uts namespace", marks=AS_ROOT),
        pytest.param(lambda: os.chroot("/dev/shm"), "another root directory", marks=AS_ROOT),
    ],
)
def test_a_peer_is_judged_by_where_it_is(work: Callable[[], object], words: str) -> None:
    """Protects the check that a client means the same files by the same paths."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        listener = stack.enter_context(_listening(place))
        path = place / "s" if "root" not in words else Path("/", place.name, "s")
        child, connection = _peer_of_child(listener, path, work)
        stack.enter_context(connection)
        try:
            with peers.peer_of(connection) as peer:
                assert (peer.pid, peer.uid) == (child, os.getuid())
                packet = protocol.receive(connection)
                assert packet is not None
                peers.refuse_other_sender(peer, packet.sender)
                if words:
                    with pytest.raises(RequestError, match=words):
                        peers.refuse_foreign(peer, confined=False)
                else:
                    peers.refuse_foreign(peer, confined=False)
                with pytest.raises(RequestError, match="another process"):
                    peers.refuse_other_sender(peer, protocol.Sender(1, peer.uid, peer.gid))
                os.kill(child, signal.SIGKILL)
                wait_until(lambda: not peers.is_alive(peer))
                with pytest.raises(RequestError, match="has ended"):
                    peers.refuse_foreign(peer, confined=True)
        finally:
            os.waitpid(child, 0)
        with pytest.raises(RequestError, match="has ended"), peers.peer_of(connection) as peer:
            peers.refuse_foreign(peer, confined=True)


def test_kernels_without_the_newer_options_are_asked_otherwise(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.5 there is no SO_PEERPIDFD, and more than 256 groups do not fit."""
    monkeypatch.setattr(peers, "_PEER_PIDFD", 9999)
    with peers.peer_of(pair[1]) as peer:
        assert peers.is_alive(peer)
    monkeypatch.setattr(peers, "_MOST_BYTES", 1)
    with peers.peer_of(pair[1]) as peer:
        assert set(peer.groups) == set(os.getgroups())

    def pidfd_open(_: int) -> int:
        raise ProcessLookupError

    monkeypatch.setattr(sc, "pidfd_open", pidfd_open)
    with pytest.raises(RequestError, match="has ended"), peers.peer_of(pair[1]):
        pass


def _myself(pair: tuple[socket.socket, socket.socket]) -> contextlib.AbstractContextManager[peers.Peer]:
    return peers.peer_of(pair[1])


def test_surroundings_are_taken_over(pair: tuple[socket.socket, socket.socket]) -> None:
    """Those of this process are its own already, so nothing changes, and all of them are read."""
    with _myself(pair) as peer:
        found = surroundings.surroundings_of(peer)
        assert len(found.limits) == len(surroundings._RESOURCES)
        assert found.umask == 0o022
        surroundings.take_over(found)
        assert surroundings.surroundings_of(peer) == found
        assert os.umask(0o022) == 0o022
        with pytest.raises(RequestError, match="cannot take over /nonexistent"):
            surroundings.take_over(found._replace(groups=(b"/nonexistent/cgroup.procs",)))
        with pytest.raises(RequestError, match="the limits of your process"):
            surroundings.take_over(found._replace(processors=frozenset({9999})))
        with pytest.raises(RequestError, match="cannot look at your process"):
            surroundings.surroundings_of(peer._replace(pid=1 << 30))
    surroundings._set_limit(7, -1, -1)
    assert surroundings._control_groups(b"0::/../x\n1:cpu:/nonexistent\n") == ()


# --- signatures, places, the log ------------------------------------------------------------------------------  # noqa: E501


def test_signatures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature counts for the bytes that were signed, in pkgjail's namespace, by somebody who may."""
    manifest, key, allowed = tmp_path / "m", tmp_path / "key", tmp_path / "allowed"
    manifest.write_bytes(b"manifest\n")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    allowed.write_text(f"somebody {(tmp_path / 'key.pub').read_text()}")
    sign = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n"]
    subprocess.run([*sign, signers.NAMESPACE, str(manifest)], check=True)
    signature = (tmp_path / "m.sig").read_bytes()
    assert signers.signer_of(b"manifest\n", signature, str(allowed)) == "somebody"
    (tmp_path / "m.sig").unlink()
    subprocess.run([*sign, "another-namespace", str(manifest)], check=True)
    for data, other in (
        (b"other\n", signature),
        (b"manifest\n", (tmp_path / "m.sig").read_bytes()),
        (b"x", b"x"),
    ):
        with pytest.raises(RequestError, match="nobody whom the administrator allows"):
            signers.signer_of(data, other, str(allowed))
    monkeypatch.setattr(signers, "_SECONDS", 0)
    with pytest.raises(RequestError, match="nobody"):
        signers.signer_of(b"manifest\n", signature, str(allowed))
    monkeypatch.setattr(signers, "_PATH", "/nonexistent")
    with pytest.raises(RequestError, match="no ssh-keygen"):
        signers.signer_of(b"manifest\n", signature, str(allowed))


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caches are closed, those of an earlier boot go, and nobody else can replace them."""
    state = str(tmp_path / "state")
    old = tmp_path / "state" / "7" / "run-old"
    old.mkdir(parents=True)
    places.make_state(state)
    assert not old.exists()
    assert os.stat(state).st_mode & 0o777 == 0o700
    own = places.make_own(state, os.getuid(), os.getgid())
    assert places.make_own(state, os.getuid(), os.getgid()) == own
    found = places.variables(own, "/home")
    assert os.path.isdir(found["XDG_CACHE_HOME"])
    assert os.path.isdir(found["XDG_RUNTIME_DIR"])
    (tmp_path / "link").symlink_to(state)
    with pytest.raises(ServiceError, match="a link leads to it"):
        places.make_state(str(tmp_path / "link"))
    with pytest.raises(ServiceError, match="cannot start"):
        places.make_state("/proc/nothing/state")
    monkeypatch.setattr(places, "replaceable_part", lambda _: "/x")
    with pytest.raises(ServiceError, match="others can replace /x"):
        places.make_state(state)


def test_a_line_of_the_log_is_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.log("refused", why='a\nb "c" \x1b[31m' + "x" * 5000, uid=7)
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert len(line) < 1100
    assert "uid=7" in line
    with open(os.devnull, encoding="ascii") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        log.log("not written")


# --- the keeper -----------------------------------------------------------------------------------------------  # noqa: E501


class _Kept:
    """A keeper in a thread's place: this process is the service, a thread the client."""

    def __init__(self, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, self.theirs = pair
        for name in ("setsid",):
            monkeypatch.setattr(os, name, lambda: None)
        monkeypatch.setattr(signal, "alarm", lambda _: None)
        monkeypatch.setattr(sc, "prctl", lambda *_: None)
        monkeypatch.setattr(keeper, "_end_orphans", lambda: None)
        self.tidied: list[int] = []
        monkeypatch.setattr(keeper, "tidy", lambda _, uid, __: self.tidied.append(uid))
        monkeypatch.setattr(keeper, "_refuse_stranger", lambda *_: None)
        self.got: list[dict[str, Any]] = []

    def serve(self, policy: Policy, request: Callable[[str], None]) -> dict[str, Any]:
        """Serve a client that makes a request with the greeting's word; return the last message that it got."""  # noqa: E501

        def ask() -> None:
            greeting = protocol.receive(self.ours)
            assert greeting is not None
            request(str(greeting.message["word"]))
            with contextlib.suppress(TimeoutError, OSError):
                while (packet := protocol.receive(self.ours)) is not None:
                    self.got.append(dict(packet.message))

        thread = threading.Thread(target=ask)
        thread.start()
        before = signal.getsignal(signal.SIGCHLD)
        try:
            keeper.keep(self.theirs, policy, "/nonexistent")
        finally:
            signal.signal(signal.SIGCHLD, before)
            signal.set_wakeup_fd(-1)
        self.theirs.close()
        thread.join()
        return self.got[-1] if self.got else {}

    def request(
        self, manifest: bytes = b"m\n", message: dict[str, Any] | None = None
    ) -> Callable[[str], None]:
        """Return a request to run."""

        def send(word: str) -> None:
            file = protocol.sealed((b"{}", manifest))
            sizes = {"options": 2, "manifest": len(manifest), "signature": 0}
            given = {"protocol": protocol.VERSION, "word": word, "ask": "run", "terminal": False, **sizes}
            null = os.open(os.devnull, os.O_RDWR)
            protocol.send(self.ours, {**given, **(message or {})}, (null, null, null, file))
            protocol.close((null, file))

        return send


@pytest.fixture
def kept(pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> _Kept:
    return _Kept(pair, monkeypatch)


def _sleep(seconds: float) -> int:
    time.sleep(seconds)
    return 0


def _worker(monkeypatch: pytest.MonkeyPatch, work: Callable[[], int]) -> None:
    """Let the worker be a child that does something."""

    def start(_: object) -> int:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os._exit(work())
        return child

    monkeypatch.setattr(keeper, "_start", start)


def test_a_keeper_follows_its_worker_to_the_end(
    kept: _Kept, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    _worker(monkeypatch, lambda: 7)
    assert kept.serve(policy, kept.request()) == {"ended": 7}
    assert kept.tidied == []


def test_a_keeper_passes_on_signals_and_reports_stops(
    kept: _Kept, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> int:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(60)
        return 0

    _worker(monkeypatch, work)
    ask = kept.request()

    def request(word: str) -> None:
        ask(word)
        assert protocol.receive(kept.ours).message == {"stopped": signal.SIGSTOP}  # type: ignore[union-attr]
        protocol.send(kept.ours, {"signal": int(signal.SIGCONT)})
        protocol.send(kept.ours, {"signal": int(signal.SIGTERM)})

    assert kept.serve(policy, request) == {"ended": 128 + signal.SIGTERM}
    assert kept.tidied == [os.getuid()]


@pytest.mark.parametrize("message", [None, {"signal": 999}, {"x": 1}])
def test_a_keeper_kills_what_nobody_waits_for(
    kept: _Kept, policy: Policy, monkeypatch: pytest.MonkeyPatch, message: dict[str, Any] | None
) -> None:
    """The client has gone, or sends what is no signal."""
    _worker(monkeypatch, lambda: _sleep(60))
    ask = kept.request()

    def request(word: str) -> None:
        ask(word)
        if message is None:
            kept.ours.shutdown(socket.SHUT_RDWR)  # close() does not end it: the worker here has it, too
        else:
            protocol.send(kept.ours, message)

    assert kept.serve(policy, request) == {}
    assert kept.tidied == [os.getuid()]


_REQUESTS = [
    ({"protocol": 2}, "version 2"), ({"protocol": "1"}, "version none"), ({"word": "x"}, "the word of the greeting"),  # noqa: E501
    ({"ask": "mount"}, "no other is known"), ({"options": True}, "does not say"), ({"options": 1}, "another size"),  # noqa: E501
    ({"manifest": 99}, "does not say"), ({"ask": "status"}, "no other is known"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), _REQUESTS, ids=range(len(_REQUESTS)))
def test_a_keeper_refuses(kept: _Kept, policy: Policy, changes: dict[str, Any], words: str) -> None:
    assert words in kept.serve(policy, kept.request(message=changes))["refused"]


def test_a_keeper_counts_names_and_knows_manifests(kept: _Kept, tmp_path: Path, policy: Policy) -> None:
    few = replace(policy, limits={**policy.limits, "names": 1})
    assert "this host allows 1" in kept.serve(few, kept.request(manifest=b"a\nb\n"))["refused"]
    content = keeper._Content(b"", b"m", b"")
    with pytest.raises(RequestError, match="sign it"):
        keeper._approve(content, replace(policy, any_manifest=False, signers=str(tmp_path)))
    with pytest.raises(RequestError, match="does not allow the manifest"):
        keeper._approve(content, replace(policy, any_manifest=False))
    (tmp_path / "signers").write_text("")
    with pytest.raises(RequestError, match="nobody"):  # noqa: PT012
        signed = replace(policy, any_manifest=False, signers=str(tmp_path / "signers"))
        keeper._approve(content._replace(signature=b"x"), signed)


def test_a_keeper_tells_its_terms_and_outlives_clients(kept: _Kept, policy: Policy) -> None:
    def status(word: str) -> None:
        protocol.send(kept.ours, {"protocol": protocol.VERSION, "word": word, "ask": "status"})

    assert kept.serve(policy, status)["welcome"]["network"] is True
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    with theirs:
        keeper.keep(theirs, policy, "/nonexistent")  # it has gone before the greeting
    silent, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    silent.shutdown(socket.SHUT_WR)
    with theirs, silent:
        keeper.keep(theirs, policy, "/nonexistent")  # it goes after the greeting


def test_descriptors_of_the_wrong_kind() -> None:
    for path, flags in (("/", os.O_RDONLY), ("/etc/passwd", os.O_PATH)):
        descriptor = os.open(path, flags)
        with pytest.raises(RequestError, match="standard descriptor"):
            keeper._refuse_kind(descriptor)
        os.close(descriptor)


def test_strangers_are_refused(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = peers.Peer(1, 7, 7, (), -1)
    with pytest.raises(RequestError, match="root needs no helper"):
        keeper._refuse_stranger(peer._replace(uid=0), policy)
    with pytest.raises(RequestError, match="does not let you"):
        keeper._refuse_stranger(peer, replace(policy, users=frozenset()))
    judged: list[bool] = []
    monkeypatch.setattr(keeper, "refuse_foreign", lambda _, *, confined: judged.append(confined))
    keeper._refuse_stranger(peer, policy)
    assert judged == [False]


def test_a_keeper_ends_what_its_worker_left() -> None:
    """In a child: all its children are killed and reaped, also those of others that it got."""
    child = os.fork()
    if child == 0:
        for _ in range(3):
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
        keeper._end_orphans()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


# --- the worker -----------------------------------------------------------------------------------------------  # noqa: E501


def _task(
    pair: tuple[socket.socket, socket.socket],
    policy: Policy,
    tree: Path,
    manifest: Manifest,
    *script: str,
    **more: Any,
) -> worker.Task:
    options = {**options_of(("/usr/bin/busybox", "sh", "-c", *script), os.fsencode(tree)), **more}
    with peers.peer_of(pair[1]) as peer:
        found = surroundings.surroundings_of(peer)
    return worker.Task(
        connection=pair[1], standard=(0, 1, 2), options=protocol.encoded(options), manifest=dump_manifest(manifest),  # noqa: E501
        terminal=False, uid=os.getuid(), gid=os.getgid(), groups=(), surroundings=found,
        policy=replace(policy, roots=(os.fsencode(tree.parent),)), state="/var/cache/pkgjaild", digest="sha256:x",  # noqa: E501
    )  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, Manifest]:
    return tmp_path / "root", odd_tree(tmp_path / "root", [b"name"])


@AS_ROOT
def test_a_worker_makes_the_jail_and_replays_it(
    pair: tuple[socket.socket, socket.socket], policy: Policy, tree: tuple[Path, Manifest]
) -> None:
    """The second time, neither the manifest is read nor a plan made."""
    task = _task(pair, policy, *tree, "exit 5")
    assert worker.enter(task) == 5
    assert worker.enter(task._replace(manifest=b"not read")) == 5
    other = task._replace(policy=replace(task.policy, network=False))
    with pytest.raises(RequestError, match="the host's network"):
        worker.enter(other)
    (tree[0] / "usr/bin/busybox").chmod(0o555)
    with pytest.raises(JailError, match="has changed"):
        worker.enter(task)


@AS_ROOT
@pytest.mark.parametrize(
    ("changes", "allowed", "words"),
    [
        ({}, {"roots": (b"/srv",)}, "does not allow files of"),
        (
            {"binds": [["/etc", "/tmp/x", False]]},
            {"binds": (b"/srv",), "writable": ()},
            "allows no bind of /etc",
        ),
        ({"binds": [["/srv", "/tmp/x", True]]}, {"writable": (b"/home",)}, r"\(writable\)"),
        ({"binds": [["/var", "/tmp/x", False]]}, {}, "would show the caches"),
        ({"plan": "binds"}, {"limits": {"mounts": 1}}, "the administrator allows 1"),
    ],
)
def test_a_worker_compares_the_plan_with_the_policy(  # noqa: PLR0913, PLR0917
    pair: tuple[socket.socket, socket.socket],
    policy: Policy,
    tree: tuple[Path, Manifest],
    changes: dict[str, Any],
    allowed: dict[str, Any],
    words: str,
) -> None:
    task = _task(pair, policy, *tree, "exit 5", **changes)
    with pytest.raises(RequestError, match=words):
        worker.enter(task._replace(policy=replace(task.policy, **allowed)))


@AS_ROOT
def test_a_worker_becomes_the_user_and_reports(
    pair: tuple[socket.socket, socket.socket], policy: Policy, tree: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """In a child, all of it; an error comes over the connection."""
    for directory in (tmp_path, *list(tmp_path.parents)[:3]):
        with contextlib.suppress(OSError):
            directory.chmod(directory.stat().st_mode | 0o055)
    state = str(tmp_path / "state")
    places.make_state(state)
    os.chown(tree[0] / "closed/file", 65534, 65534)
    good = _task(pair, policy, *tree, "exit $(id -u | cut -c 1-2)")
    bad = _task(pair, policy, *tree, "exit 5", argv=["/nothing"])
    for task, status in ((good, 65), (bad, 125)):
        child = os.fork()
        if child == 0:
            worker.become_worker(task._replace(uid=65534, gid=65534, state=state), os.getppid())
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 125:
            assert services.answer(pair[0])["error"]["kind"] == "CommandError"
        assert ended == status
    half = Path(state, "65534", "cache", "pkgjail", ".new-x")
    half.mkdir()
    os.chown(half, 65534, 65534)
    worker.tidy(state, 65534, 65534)
    assert not half.exists()


def test_a_worker_tells_errors_and_homes(pair: tuple[socket.socket, socket.socket]) -> None:
    assert str(worker._told(RequestError("why"))) == "pkgjaild cannot make the jail: why"
    assert "No such file" in str(worker._told(FileNotFoundError(2, "No such file", "/x")))
    error = CommandError("x", 127)
    assert worker._told(error) is error
    assert worker._home(0) == "/root"
    assert worker._home(54321) == "/"
    report = worker._Report(pair[1])
    report.progress("hashing", 1, 2)
    report.warn("careful")
    assert protocol.receive(pair[0]).message == {"progress": ["hashing", 1, 2]}  # type: ignore[union-attr]
    assert protocol.receive(pair[0]).message == {"warn": "careful"}  # type: ignore[union-attr]
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"t"], [0])
    worker._hand_over(pair[1])(theirs, -1, None)
    packet = protocol.receive(pair[0], 1)
    assert packet is not None
    assert packet.message == {"terminal": True}
    protocol.close(packet.descriptors)
    ours.close()
    worker._hand_over(pair[1])(theirs, -1, None)
    theirs.close()


# --- the daemon -----------------------------------------------------------------------------------------------  # noqa: E501

_CLIENT = """
import os, signal, socket, sys
from pkgjail.helper import protocol
clients = []
for number in range(3):
    client = protocol.make_socket()
    client.connect(sys.argv[1])
    clients.append(client)
    print(sorted(protocol.receive(client).message), flush=True)
for client in clients:
    client.close()
os.kill(os.getppid(), signal.SIGTERM)
"""


@AS_ROOT
def test_a_daemon_counts_and_ends(tmp_path: Path, policy: Policy) -> None:
    """It greets as many clients as the policy lets a user have at once, refuses others, and leaves no socket."""  # noqa: E501
    few = replace(policy, limits={**policy.limits, "per_user": 2}, socket_group=0)
    path = str(tmp_path / "run" / "socket")
    state = tmp_path / "state"
    (state / "65534").mkdir(parents=True)
    os.chown(state / "65534", 65534, 65534)
    started: list[subprocess.Popen[bytes]] = []

    def connect() -> None:
        wait_until(lambda: os.path.exists(path))
        started.append(subprocess.Popen([sys.executable, "-c", _CLIENT, path], stdout=subprocess.PIPE))

    thread = threading.Thread(target=connect)
    thread.start()
    server.serve(few, path, str(state))
    thread.join()
    said = started[0].communicate()[0].decode()
    assert said == "['pkgjaild', 'word']\n['pkgjaild', 'word']\n['refused']\n"
    assert not os.path.exists(path)
    daemon = server._Daemon(server.Service(replace(few, limits={**few.limits, "connections": 0}), ""), None)  # type: ignore[arg-type]
    assert "all users" in daemon._excess(7)


@AS_ROOT
def test_one_daemon_for_each_socket(tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "socket")
    with server._listening(policy, path), pytest.raises(ServiceError, match="another pkgjaild listens"):  # noqa: SIM117
        with server._listening(policy, path):
            pass
    Path(path).write_text("no socket")
    with pytest.raises(ServiceError, match="in use"), server._listening(policy, path):
        pass
    with pytest.raises(ServiceError, match="cannot start"), server._listening(policy, "/proc/x/socket"):
        pass
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    with pytest.raises(ServiceError, match="must be started by root"):
        server.serve(policy, path, str(tmp_path))


def test_a_socket_of_systemd_is_taken(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """As sd_listen_fds(3) passes it; one of another kind is refused."""
    for kind, is_right in ((socket.SOCK_SEQPACKET, True), (socket.SOCK_STREAM, False)):
        with socket.socket(socket.AF_UNIX, kind) as passed:
            monkeypatch.setattr(server, "_FIRST_PASSED", os.dup(passed.fileno()))
            monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
            monkeypatch.setenv("LISTEN_FDS", "1")
            refused = contextlib.nullcontext() if is_right else pytest.raises(ServiceError, match="SEQPACKET")
            with refused, server._listening(policy, "/nonexistent") as listener:
                assert listener.type == socket.SOCK_SEQPACKET


# --- the client -----------------------------------------------------------------------------------------------  # noqa: E501


class _Heard:
    """Receives progress and warnings."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def progress(self, task: str, done: int, total: int) -> None:
        self.heard.append((task, done, total))

    def warn(self, message: str) -> None:
        self.heard.append(message)


@contextlib.contextmanager
def _played(place: Path, monkeypatch: pytest.MonkeyPatch, *messages: Any) -> Iterator[list[Any]]:
    """Play the service to one client: greet, take its request, and send messages; yields what it asked."""
    asked: list[Any] = []
    with _listening(place) as listener:
        monkeypatch.setenv(client.VARIABLE, str(place / "s"))
        monkeypatch.setattr(client, "uid_of", lambda _: 0)

        def play() -> None:
            connection = listener.accept()[0]
            with connection:
                greeting, *rest = messages
                if greeting is None:
                    return
                protocol.send(connection, greeting)
                packet = protocol.receive(connection, protocol.DESCRIPTORS)
                if packet is None:
                    return
                asked.append(packet.message)
                protocol.close(packet.descriptors)
                for message in rest:
                    if callable(message):
                        message(connection, asked)
                    else:
                        protocol.send_large(connection, message)

        thread = threading.Thread(target=play)
        thread.start()
        yield asked
        thread.join()


_HELLO = {"pkgjaild": protocol.VERSION, "word": "w"}


def _run(manifest: Manifest, **more: Any) -> int:
    wish = Wish(argv=("true",), options=JailOptions(inputs=(b"/nonexistent",)), root=b"/")
    return client.run_by_service(manifest, wish, **more)


def test_a_client_takes_what_the_service_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base_manifest: Manifest
) -> None:
    heard = _Heard()
    messages = ({"progress": ["hashing", 1, 2]}, {"warn": "careful"}, {"ended": 7})
    with _played(tmp_path, monkeypatch, _HELLO, *messages) as asked:
        assert _run(base_manifest, reporter=heard) == 7
    assert heard.heard == [("hashing", 1, 2), "careful"]
    assert (asked[0]["ask"], asked[0]["word"], asked[0]["signature"]) == ("run", "w", 0)


_ANSWERS = [
    (
        ({"error": {"kind": "CommandError", "message": "no x" * 9000, "status": 127}}, {"ended": 125}),
        CommandError,
        "no x",
    ),
    (({"refused": "not you"},), HelperError, "pkgjaild refuses: not you"),
    ((), HelperError, "has ended, and the command with it"),
    (({"ended": "x"},), HelperError, "no answer"),
    (({"error": 1},), HelperError, "no answer"),
    (({"error": {"kind": "KeyboardInterrupt", "message": "twice"}},), KeyboardInterrupt, "twice"),
]


@pytest.mark.parametrize(("messages", "kind", "words"), _ANSWERS, ids=range(len(_ANSWERS)))
def test_a_client_raises_what_the_service_reports(  # noqa: PLR0913, PLR0917
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    base_manifest: Manifest,
    messages: tuple[Any, ...],
    kind: type[BaseException],
    words: str,
) -> None:
    with _played(tmp_path, monkeypatch, _HELLO, *messages), pytest.raises(kind, match=words):
        _run(base_manifest)


def test_a_client_passes_on_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base_manifest: Manifest
) -> None:
    """A signal to the client reaches the service; a second interrupt asks for the jail's end."""

    def signals(connection: socket.socket, asked: list[Any]) -> None:
        for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGINT):
            signal.pthread_kill(threading.main_thread().ident or 0, number)
            asked.append(protocol.receive(connection).message)  # type: ignore[union-attr]
            time.sleep(0.3)
        protocol.send(connection, {"stopped": int(signal.SIGUSR1)})
        asked.append(protocol.receive(connection).message)  # type: ignore[union-attr]
        protocol.send(connection, {"ended": 137})

    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with _played(tmp_path, monkeypatch, _HELLO, signals) as asked, pytest.raises(KeyboardInterrupt):
            _run(base_manifest)
    finally:
        signal.signal(signal.SIGUSR1, before)
    sent = [message["signal"] for message in asked[1:]]
    assert sent == [signal.SIGUSR1, signal.SIGINT, signal.SIGKILL, signal.SIGCONT]


def test_a_client_relays_a_terminal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    base_manifest: Manifest,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def show(connection: socket.socket, _: list[Any]) -> None:
        leader, follower = os.openpty()
        protocol.send(connection, {"terminal": True}, (leader,))
        os.close(leader)
        os.write(follower, b"shown")
        time.sleep(0.2)
        os.close(follower)
        protocol.send(connection, {"ended": 0})

    with open(os.devnull, "rb") as null:
        before = os.dup(0)
        os.dup2(null.fileno(), 0)
        try:
            with _played(tmp_path, monkeypatch, _HELLO, show):
                assert _run(base_manifest, terminal=True) == 0
        finally:
            os.dup2(before, 0)
            os.close(before)
    assert "shown" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (({"pkgjaild": 2},), "version 2"),
        (({"refused": "too many"},), "too many"),
        ((None,), "closed the connection"),
        ((_HELLO, {"x": 1}), "gave no answer"),
        ((_HELLO, lambda connection, _: connection.send(b"x")), "gave no answer"),
    ],
)
def test_a_client_says_why_it_cannot_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: tuple[Any, ...], words: str
) -> None:
    with _played(tmp_path, monkeypatch, *messages):
        assert words in Helper().obstacle()


def test_only_roots_service_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(client.VARIABLE, str(tmp_path / "none"))
    assert "cannot reach pkgjaild" in Helper().obstacle()
    with _played(tmp_path, monkeypatch, None):
        monkeypatch.setattr(client, "uid_of", lambda _: 7)
        assert "user 7 listens there" in Helper().obstacle()


def test_a_client_passes_its_signature_and_null_devices(tmp_path: Path) -> None:
    (tmp_path / "m.sig").write_bytes(b"signature")
    options = JailOptions(inputs=(bytes(tmp_path / "m"),))
    assert client._signature(Wish(argv=("x",), options=options, root=b"/")) == b"signature"
    assert client._signature(Wish(argv=("x",), options=JailOptions(), root=b"/")) == b""
    assert client._is_open(0)
    assert not client._is_open(999)


def test_the_stage(monkeypatch: pytest.MonkeyPatch, base_manifest: Manifest, tmp_path: Path) -> None:
    """It promises for each property, refuses what it cannot keep, and asks the service."""
    stage = Helper()
    assert list(stage.promises()) == list(PROPERTIES)
    asked: list[Wish] = []

    def run(_: Manifest, wish: Wish, **__: object) -> int:
        asked.append(wish)
        return 3

    monkeypatch.setattr("pkgjail.stages.helper.run_by_service", run)
    assert stage.run(Request(manifest=base_manifest, argv=("x",), root=b"/etc/..")) == 3
    assert asked[0].root == b"/"
    with pytest.raises(RefusedError, match="user 0"):
        stage.run(Request(manifest=base_manifest, argv=("x",), options=JailOptions(map_root=True)))
    with pytest.raises(RefusedError, match="limits"):
        stage.run(Request(manifest=base_manifest, argv=("x",), options=JailOptions(limits=Limits(pids=5))))
    header = replace(base_manifest.header, architecture="s390x")
    with pytest.raises(RefusedError, match="s390x"):
        stage.run(Request(manifest=replace(base_manifest, header=header), argv=("x",)))
    with _played(tmp_path, monkeypatch, _HELLO, {"welcome": {}}):
        assert stage.obstacle() == ""


# --- the command line -----------------------------------------------------------------------------------------  # noqa: E501


def _main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pkgjaild", *words])
    return command.main()


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.toml"
    assert _main(monkeypatch, "--policy", str(policy)) == 1
    assert "write one: pkgjaild --print-policy" in capsys.readouterr().err
    assert _main(monkeypatch, "--print-policy") == 0
    assert "[access]" in capsys.readouterr().out
    assert _main(monkeypatch, "--print-unit", "socket") == 0
    assert "ListenSequentialPacket=/run/pkgjaild/socket" in capsys.readouterr().out
    policy.write_text(services.POLICY)
    replaced: list[str] = []
    monkeypatch.setattr(command, "replaceable_part", lambda _: replaced[0] if replaced else "")
    assert _main(monkeypatch, "--check", "--policy", str(policy)) == 0
    assert "is valid" in capsys.readouterr().out
    served: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda *given: served.append(given))
    assert _main(monkeypatch, "--policy", str(policy), "--socket", "/s", "--state", "/t") == 0
    assert served[0][1:] == ("/s", "/t")
    policy.write_text("")
    assert _main(monkeypatch, "--check", "--policy", str(policy)) == 1
    assert f"{policy}:1: nobody may ask" in capsys.readouterr().err
    assert _main(monkeypatch, "--check", "--policy", str(tmp_path)) == 1
    replaced.append("/x")
    assert _main(monkeypatch, "--check", "--policy", str(policy)) == 1
    assert "others than root can replace /x" in capsys.readouterr().err


def test_json_is_what_it_was() -> None:
    """Protects that no message needs more than JSON's own types."""
    assert json.loads(protocol.encoded(options_of())) == options_of()
