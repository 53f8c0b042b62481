"""`pkgjail doctor` in real containers of podman, as root and rootless: right, and its remedies work."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.api import resolve
from pkgjail.environments.build import build_environment
from tests.conftest import SYSTEM_PYTHON
from tests.engines import settings_of_podman
from tests.test_doctor import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Caller

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="podman as root and as another user; CI is root"),
]
_ROOTLESS = 1  # daemon, who has an account, and gets subordinate ids here
_LIST = """
include = ["base"]
[packages]
debian = ["python3", "libpython3-stdlib", "util-linux"]
"""
# An /etc with lines of subuid(5), for this mount namespace alone.
_SUBORDINATE = """
mount -t overlay -o lowerdir="$1":/etc none /etc
shift; exec "$@"
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files of a small system with Python, which podman takes as a container's root directory."""
    place = tmp_path_factory.mktemp("podman")
    (place / "w.toml").write_text(_LIST)
    manifest = resolve([str(place / "w.toml")], hashed=False)
    build_environment(manifest, os.fsencode(place / "env"), form="copy")
    yield place / "env/root"
    shutil.rmtree(place)


@pytest.fixture(params=["root", "rootless"])
def podman(request: pytest.FixtureRequest, library: Path, tree: Path, caller: Caller) -> Callable[..., Seen]:
    """Return a function that runs the doctor in a container with these options of `podman run`."""
    uid = 0 if request.param == "root" else _ROOTLESS
    home = caller.home / "podman"
    home.mkdir()
    root = home / "root"
    subprocess.run(["cp", "-a", tree, root], check=True)
    variables = settings_of_podman(home)
    subprocess.run(["chown", "-R", f"{uid}:{uid}", home], check=True)
    caller.home.chmod(0o711)
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    os.chown(runtime, uid, uid)
    storage = Path(variables["CONTAINERS_STORAGE_CONF"]).read_text()
    os.chown(storage.partition('runroot = "')[2].partition('"')[0], uid, uid)
    etc = caller.home / "etc"
    etc.mkdir()
    for name in ("subuid", "subgid"):
        (etc / name).write_text("daemon:100000:65536\n")
    environment = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), **variables}
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]

    def run(*options: str) -> Seen:
        words = ["podman", "run", "--rm", "--network=none", "-v", f"{library}:/opt/library:ro"]
        words += ["-e", "PYTHONPATH=/opt/library", *options, "--rootfs", str(root)]
        command = [*become, *words, SYSTEM_PYTHON, "-m", "pkgjail", "doctor", "--json"]
        script = ["unshare", "-m", "sh", "-ec", _SUBORDINATE, "-", str(etc), *command]
        done = subprocess.run(script, env=environment, cwd=home, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        return Seen(done.returncode, done.stdout)

    return run


def _options(remedy: dict[str, Any]) -> list[str]:
    """Return the options of podman in the line to paste."""
    [line] = remedy["lines"]
    words = shlex.split(line)
    assert words[:2] + words[-2:] == ["podman", "run", "IMAGE", "COMMAND"]
    return words[2:-2]


def test_a_container(podman: Callable[..., Seen]) -> None:
    """By default /proc is covered, and root lacks capabilities; with what is to paste both stages work."""
    seen = podman()
    found = seen.stage("namespaces")
    assert (seen.status, found["cause"], seen.facts["kernel"]["container"]) == (3, "covered", "podman")
    [remedy] = found["remedies"]
    assert remedy["who"] == "starter"
    other = podman(*_options(remedy), "--user", "1234")
    assert (other.status, other.facts["user"].split()[0]) == (0, "1234")
    after = podman(*_options(remedy))
    assert (after.status, after.stage("namespaces")["works"]) == (0, True), after.facts
    assert not after.stage("root")["works"]
    [privileged] = after.stage("root")["remedies"]
    last = podman(*_options(privileged))
    assert last.stage("root")["works"], last.stage("root")["obstacle"]
