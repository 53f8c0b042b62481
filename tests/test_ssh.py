"""git over ssh from a jail, to a real server on the loopback interface."""

from __future__ import annotations

import os
import socketserver
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.api import resolve
from pkgjail.manifest import write_manifest
from tests.conftest import SYSTEM_PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Caller

pytestmark = pytest.mark.slow

_PKGJAIL = (SYSTEM_PYTHON, "-m", "pkgjail")
_WHITELIST = 'include = ["base"]\n[packages]\ndebian = ["git", "openssh-client"]\n'
# ssh(1) and dropbear(8) look up the user's account, and dropbear its key and its shell.
_WITH_ACCOUNT = """\
mount --bind "$1" /etc/passwd
id=$2
shift 2
exec setpriv $id --inh-caps -all --ambient-caps -all "$@"
"""
_AS_ROOT = os.geteuid() == 0
_OF_ONES_OWN = () if _AS_ROOT else ("--user", "--map-current-user", "--keep-caps")


class Host:
    """A host on which the user has the account "someone", with keys and `remote.git` in its home."""

    def __init__(self, user: Caller, passwd: Path) -> None:
        self.home = user.home
        self._options = user.options()
        for name in ("user", "group", "extra_groups"):
            self._options.pop(name, None)
        passwd.write_text(f"someone:x:{user.uid}:{user.uid}::{user.home}:/bin/sh\n")
        become = f"--reuid={user.uid} --regid={user.uid} --clear-groups" if _AS_ROOT else ""
        unshare = ("unshare", *_OF_ONES_OWN, "--mount", "--propagation", "private")
        self._prefix = [*unshare, "sh", "-ec", _WITH_ACCOUNT, "sh", str(passwd), become]

    def run(self, *command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program as the user."""
        return subprocess.run([*self._prefix, *command], **{**self._options, **options}, check=False)

    def make_home(self) -> None:
        """Make the keys and the repository."""
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        for command in (
            ["mkdir", "-m", "700", ".ssh"],
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ".ssh/id_ed25519"],
            ["cp", ".ssh/id_ed25519.pub", ".ssh/authorized_keys"],
            ["dropbearkey", "-t", "ed25519", "-f", "host-key"],
            ["git", "init", "--quiet", "work"],
            ["git", "-C", "work", *identity, "commit", "--quiet", "--allow-empty", "--message", "first"],
            ["git", "clone", "--quiet", "--bare", "work", "remote.git"],
        ):
            done = self.run(*command)
            assert done.returncode == 0, done.stderr

    def know(self, port: int) -> None:
        """Let ssh(1) know the server's key."""
        shown = self.run("dropbearkey", "-y", "-f", "host-key").stdout
        (key,) = (line for line in shown.splitlines() if line.startswith("ssh-ed25519 "))
        (self.home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")


@pytest.fixture(scope="module")
def manifest(library: Path) -> Path:
    """The manifest of git and ssh, which every user may read."""
    whitelist = library / "ssh.toml"
    whitelist.write_text(_WHITELIST)
    path = library / "git-ssh.jsonl"
    write_manifest(resolve([str(whitelist)], hashed=False), path)
    path.chmod(0o644)
    return path


@pytest.fixture(params=["user", "member"] if os.geteuid() == 0 else ["user"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    """The host of an ordinary user, and in root's tests of another who is not "nobody"."""
    made = Host(request.getfixturevalue(request.param), tmp_path / "passwd")
    made.make_home()
    return made


@pytest.fixture
def port(host: Host) -> Iterator[int]:
    """The port of a server that runs as the user.

    Each connection gets a process of its own, so there is no port to choose and no start to wait for.
    """
    command = ("/usr/sbin/dropbear", "-i", "-m", "-s", "-r", host.home / "host-key")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            host.run(*command, capture_output=False, stdin=self.request, stdout=self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        number = int(listening.server_address[1])
        host.know(number)
        threading.Thread(target=listening.serve_forever).start()
        yield number
        listening.shutdown()


def test_git_clones_over_ssh(host: Host, port: int, manifest: Path) -> None:
    """Protects the way that the page on jails names: ssh(1) reads keys in the home of the account."""
    assert host.run("mkdir", "new").returncode == 0
    url = f"ssh://someone@127.0.0.1:{port}{host.home}/remote.git"
    options = ("--env", "HOME", "--ro-bind", host.home / ".ssh", "--cwd")
    command = ("git", "clone", "--quiet", url, "cloned")
    ran = host.run(*_PKGJAIL, "run", *options, manifest, "--", *command, cwd=host.home / "new")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert host.run("git", "-C", "new/cloned", "log", "--format=%s").stdout == "first\n"


def test_ssh_uses_an_agent(host: Host, port: int, manifest: Path) -> None:
    """Protects keys that the jail does not see: it has the socket of the agent, and no private key."""
    script = (
        'ssh-add -q .ssh/id_ed25519 && exec "$@" --env HOME --env SSH_AUTH_SOCK --ro-bind "$SSH_AUTH_SOCK" '
        f"--ro-bind .ssh/known_hosts {manifest} -- ssh -p {port} someone@127.0.0.1 echo hello"
    )
    ran = host.run("ssh-agent", "sh", "-c", script, "sh", *_PKGJAIL, "run")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "hello\n", "")
