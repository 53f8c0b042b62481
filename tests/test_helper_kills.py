"""Kills at any moment: whatever of client, daemon, keeper, worker and command goes, nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from pkgjail.storage.removal import is_left_over
from tests import service as services
from tests.service import Service, running_service, wait_until
from tests.test_helper import Client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.geteuid() != 0, reason="only root can start pkgjaild")]

VICTIMS = ("client", "daemon", "keeper", "worker", "init", "command")
# Seconds after the client has connected; a jail takes some 0.5 s to be made the first time.
_DELAYS = [0.05 * number for number in range(16)]


@pytest.fixture
def service(library: Path) -> Iterator[Service]:
    """A daemon with empty caches."""
    with running_service(library) as started:
        yield started


def _victim(service: Service, client: int, victim: str) -> int:
    """Return the process to kill, or the last one that there is yet on the way to it."""
    chain = [client, service.process.pid]
    while len(chain) < len(VICTIMS) and (children := services.children(chain[-1])):
        chain.append(children[0])
    return chain[min(VICTIMS.index(victim), len(chain) - 1)]


def _left(service: Service) -> list[str]:
    """Return what is half-made in the users' caches."""
    return [
        os.path.join(place, name)
        for place, directories, files in os.walk(service.state)
        for name in (*directories, *files)
        if is_left_over(name)
    ]


def _processes(word: str) -> list[str]:
    """Return the processes with this word in their arguments."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as words:
            found += [name] if word.encode() in words.read().split(b"\0") else []
    return found


@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_left_of_a_kill_at_any_moment(
    service: Service, user: Caller, base_manifest: Manifest, victim: str
) -> None:
    """No mount, no process and no half-made directory, and the next jail is made."""
    client = Client(user, service, base_manifest)
    before, word = services.mounts(), f"86399.{os.getpid()}"
    for delay in _DELAYS:
        running = client.start("sleep", word, options=("--cwd",))
        wait_until(lambda: service.children() or running.poll() is not None)  # noqa: B023 - called at once
        time.sleep(delay)
        processes = service.children()
        with contextlib.suppress(ProcessLookupError):
            os.kill(_victim(service, running.pid, victim), signal.SIGKILL)
        running.communicate(timeout=30)
        assert running.returncode != 0
        if service.process.poll() is not None or victim == "daemon":
            service.process.wait(timeout=30)
            wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in processes))  # noqa: B023
            service.start()
        wait_until(lambda: service.children() == [])
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in processes))  # noqa: B023
        services.wait_until(lambda: services.mounts() <= before)  # other tests mount, too
        if victim != "keeper":  # only root can kill it; the next jail of the user removes what it left
            assert _left(service) == []
    assert client.run("true").returncode == 0
    assert _left(service) == []
    wait_until(lambda: not _processes(word))
