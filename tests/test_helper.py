"""pkgjaild from outside: a daemon of root's, and an ordinary user who asks it for jails."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.manifest import write_manifest
from tests import service as services
from tests.conftest import SYSTEM_PYTHON, Caller
from tests.service import Service, running_service, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.model import Manifest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start pkgjaild")


@pytest.fixture(scope="module")
def service(library: Path) -> Iterator[Service]:
    """A daemon that lets everybody in."""
    with running_service(library) as started:
        yield started


class Client:
    """An ordinary user with a manifest, who runs commands by a service."""

    def __init__(self, user: Caller, service: Service, manifest: Manifest) -> None:
        self.user = user
        self.service = service
        self.manifest = user.home / "m.jsonl"
        write_manifest(manifest, self.manifest)
        self.manifest.chmod(0o644)
        self.environment = {services.VARIABLE: service.socket}

    def run(
        self, *command: str, options: tuple[str, ...] = (), **more: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a jail of the service."""
        words = ("run", "--stage", "helper", *options, str(self.manifest), "--", *command)
        return self.user.pkgjail(*words, environment=self.environment, **more)

    def start(self, *command: str, options: tuple[str, ...] = (), **more: object) -> subprocess.Popen[str]:
        """Start a command in a jail of the service."""
        words = [
            SYSTEM_PYTHON,
            "-m",
            "pkgjail",
            "run",
            "--stage",
            "helper",
            *options,
            str(self.manifest),
            "--",
        ]
        given = self.user.options(self.environment)
        given.pop("capture_output")
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*words, *command], **{**pipes, **given, **more})


@pytest.fixture
def client(user: Caller, service: Service, base_manifest: Manifest) -> Client:
    return Client(user, service, base_manifest)


def test_a_command_runs_as_in_the_default_jail(client: Client) -> None:
    """Same names, same ids, same streams, same status, and no privilege, for any command line."""
    facts = "id; ls / /etc /usr/bin | cksum; grep -e ^Cap -e ^NoNew /proc/self/status; umask; ulimit -a"
    program = f"{facts}; cat; exit 7"
    default = client.user.pkgjail("run", client.manifest, "--", "sh", "-c", program, input="typed")
    helped = client.run("sh", "-c", program, input="typed")
    assert (helped.returncode, helped.stderr) == (7, "")
    assert default.stdout == helped.stdout
    assert "CapEff:\t0000000000000000" in helped.stdout
    assert helped.stdout.endswith("typed")


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (("nothing-like-it",), 127, "nothing-like-it"),
        (("/etc",), 126, "/etc"),
        (("sh", "-c", "kill -9 $$"), 137, ""),
        (("sh", "-c", "kill -TERM $$"), 143, ""),
        (("true",), 0, ""),
    ],
)
def test_statuses_and_messages_are_those_of_the_default_jail(
    client: Client, command: tuple[str, ...], status: int, words: str
) -> None:
    default = client.user.pkgjail("run", client.manifest, "--", *command)
    helped = client.run(*command)
    assert (helped.returncode, helped.stderr) == (default.returncode, default.stderr)
    assert helped.returncode == status
    assert words in helped.stderr


def test_drift_is_reported_with_its_paths(client: Client, base_manifest: Manifest) -> None:
    """An error crosses the socket with all that it has."""
    files = [e._replace(size=1) if e.path == b"/usr/bin/env" else e for e in base_manifest.files]
    write_manifest(replace(base_manifest, files=tuple(files)), client.manifest)
    helped = client.run("true")
    default = client.user.pkgjail("run", client.manifest, "--", "true")
    assert helped.returncode == default.returncode == 125
    assert "/usr/bin/env" in helped.stderr
    assert helped.stderr == default.stderr


def test_files_are_made_with_the_users_ids_and_umask(client: Client) -> None:
    """What the command makes belongs to the user, by the user's own umask."""
    done = client.run("sh", "-c", "touch made; mkdir directory", options=("--cwd",), umask=0o037)
    assert done.returncode == 0, done.stderr
    found = (client.user.home / "made").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (client.user.uid, 0o640)
    assert (client.user.home / "directory").stat().st_mode & 0o777 == 0o740


def test_what_the_stage_cannot_keep_is_refused(client: Client) -> None:
    done = client.run("true", options=("--map-root", "--memory", "1G"))
    assert done.returncode == 125
    assert "a command that is user 0" in done.stderr
    assert "limits of memory" in done.stderr


def test_without_network_there_is_a_loopback_alone(client: Client) -> None:
    done = client.run("cat", "/proc/net/dev", options=("--no-network",))
    assert [line.split(":")[0].strip() for line in done.stdout.splitlines()[2:]] == ["lo"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command(client: Client, number: signal.Signals) -> None:
    """A handler of the command's runs, as it would outside."""
    name = number.name[3:]
    running = client.start(
        "sh", "-c", f"trap 'echo caught; exit 5' {name}; echo ready; while :; do sleep 0.1; done"
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    running.send_signal(number)
    assert running.communicate(timeout=20)[0] == "caught\n"
    assert running.returncode == 5


def test_a_second_interrupt_kills_the_jail(client: Client) -> None:
    running = client.start("sh", "-c", "trap '' INT; echo ready; while :; do sleep 0.1; done")
    assert running.stdout is not None
    running.stdout.readline()
    running.send_signal(signal.SIGINT)
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "killed" in said
    wait_until(lambda: client.service.children() == [])


def test_the_client_stops_and_goes_on_with_the_command(client: Client) -> None:
    """Job control: a stop inside stops the client, and SIGCONT to it continues the command."""
    running = client.start(
        "sh", "-c", "echo ready; kill -STOP $$; echo again",
        # In a process group that is not orphaned, however pytest was started: see pkgjail.sandbox.signals.
        start_new_session=False, preexec_fn=os.setpgrp,
    )  # fmt: skip
    assert running.stdout is not None
    running.stdout.readline()

    def is_stopped() -> bool:
        state = Path(f"/proc/{running.pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        return state == b"T"

    wait_until(is_stopped)
    running.send_signal(signal.SIGCONT)
    assert running.communicate(timeout=20)[0] == "again\n"
    assert running.returncode == 0


def test_a_terminal_of_its_own(client: Client) -> None:
    """`-t`: the command has a terminal with the size of the caller's, and keys reach it."""
    leader, follower = pty.openpty()
    os.set_blocking(leader, False)
    running = client.start(
        "sh", "-c", "tty; stty size; read word; echo got $word",
        options=("-t",), stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    said = b""

    def read(word: bytes) -> bool:
        nonlocal said
        with contextlib.suppress(OSError):
            said += os.read(leader, 4096)
        return word in said

    wait_until(lambda: read(b"0 0"))
    os.write(leader, b"typed\r")
    wait_until(lambda: read(b"got typed"))
    assert running.wait(timeout=20) == 0
    assert b"/dev/pts/0" in said
    os.close(leader)


def test_the_jail_ends_with_its_client(client: Client) -> None:
    running = client.start("sh", "-c", "echo ready; sleep 1000")
    assert running.stdout is not None
    running.stdout.readline()
    assert client.service.children()
    running.kill()
    running.communicate(timeout=20)
    wait_until(lambda: client.service.children() == [])


def test_everything_ends_with_the_daemon_and_it_starts_again(
    library: Path, user: Caller, base_manifest: Manifest
) -> None:
    """SIGKILL of the daemon leaves a socket, and no process and no mount; the next one takes its place."""
    before = services.mounts()
    with running_service(library) as service:
        client = Client(user, service, base_manifest)
        running = client.start("sh", "-c", "echo ready; sleep 1000")
        assert running.stdout is not None
        running.stdout.readline()
        children = service.children()
        service.stop(signal.SIGKILL)
        _, said = running.communicate(timeout=20)
        assert running.returncode == 125
        assert "pkgjaild has ended" in said
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))
        wait_until(lambda: services.mounts() <= before)  # other tests mount, too
        service.start()
        assert client.run("true").returncode == 0


def test_a_policy_decides_who_and_what(library: Path, user: Caller, base_manifest: Manifest) -> None:
    """Each refusal names what the administrator does not allow."""
    with running_service(library, '[access]\nusers = ["root"]\n[manifests]\nany = true\n') as service:
        client = Client(user, service, base_manifest)
        assert "does not let you use pkgjaild" in client.run("true").stderr
        service.use(services.POLICY.replace("any = true", f'digests = ["sha256:{"0" * 64}"]'))
        assert "does not allow the manifest sha256:" in client.run("true").stderr
        service.use(services.POLICY.replace('"/"', '"/srv"') + "[allow]\nnetwork = false\ndrift = false\n")
        assert "the host's network; use --no-network" in client.run("true").stderr
        words = client.run("true", options=("--no-network", "--cwd")).stderr
        assert f"allows no bind of {client.user.home}" in words
        assert "--allow-drift" in client.run("true", options=("--no-network", "--allow-drift")).stderr
        assert client.run("true", options=("--no-network",)).returncode == 0
        assert "--share-ipc" in client.run("true", options=("--no-network", "--share-ipc")).stderr
        service.use(services.POLICY + "[limits]\nmounts = 3\nnames = 100\n")
        assert "this host allows 100" in client.run("true").stderr


def test_a_signed_manifest_is_accepted(
    library: Path, user: Caller, base_manifest: Manifest, tmp_path: Path
) -> None:
    """A signature of somebody in the administrator's file counts for exactly the manifest that was signed."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with running_service(library) as service:
        signers = service.place / "signers"
        signers.write_text(f"admin@site {key.with_suffix('.pub').read_text()}")
        signers.chmod(0o644)
        service.use(services.POLICY.replace("any = true", f'signers = "{signers}"'))
        client = Client(user, service, base_manifest)
        assert "sign it" in client.run("true").stderr
        sign = [
            "ssh-keygen",
            "-q",
            "-Y",
            "sign",
            "-n",
            "pkgjail-manifest",
            "-f",
            str(key),
            str(client.manifest),
        ]
        subprocess.run(sign, check=True)
        signature = Path(f"{client.manifest}.sig")
        signature.chmod(0o644)
        assert client.run("true").returncode == 0, service.log.read_text()
        assert any("signer=admin@site" in line for line in services.acts(service))
        files = [entry for entry in base_manifest.files if entry.path != b"/usr/bin/env"]
        write_manifest(replace(base_manifest, files=tuple(files)), client.manifest)
        assert "nobody whom the administrator allows" in client.run("true").stderr
