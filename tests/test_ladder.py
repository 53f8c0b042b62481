"""The ladder: "auto" takes the strongest stage that works, says which, and never one that is excluded."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail import stages
from pkgjail.api import resolve
from pkgjail.cli.main import main
from pkgjail.core.errors import InputError, JailError, UsageError
from pkgjail.core.model import DevicePattern
from pkgjail.core.options import JailOptions
from pkgjail.environments.build import build_environment
from pkgjail.environments.directory import read_header
from pkgjail.manifest import write_manifest
from pkgjail.settings import files
from pkgjail.settings.model import AllowedStages, Settings
from pkgjail.stages import run_in_stage
from pkgjail.stages.ladder import strongest
from pkgjail.stages.model import KEPT, PROPERTIES, Promise, Request
from tests.conftest import NOBODY, SYSTEM_PYTHON
from tests.forbidden import without_user_namespaces

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from pkgjail.stages.model import Property, Stage
    from tests.conftest import Caller


class Recorder:
    """A reporter that remembers warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def progress(self, task: str, done: int, total: int) -> None:
        """Nothing to remember."""

    def warn(self, message: str) -> None:
        """Remember it."""
        self.warnings.append(message)


class Rung:
    """A stage that works or not, keeps all but some properties, and returns a status of its own."""

    summary = ""

    def __init__(self, name: str, obstacle: str = "", lacking: tuple[Property, ...] = ()) -> None:
        self.name = name
        self._obstacle = obstacle
        self._lacking = lacking
        self.tried = 0

    def promises(self) -> Mapping[Property, Promise]:
        """Return what it promises."""
        return {each: Promise(kept=False) if each in self._lacking else KEPT for each in PROPERTIES}

    def obstacle(self) -> str:
        """Return what it was made with."""
        self.tried += 1
        return self._obstacle

    def run(self, request: Request) -> int:
        """Return a status by its name."""
        return len(self.name) + len(request.argv)


def _rungs(*rungs: Rung) -> Mapping[str, Stage]:
    return {rung.name: rung for rung in rungs}


_ALL = Settings(allowed=(AllowedStages(stages=("namespaces", "root", "helper", "supervised"), origin="s:1"),))
_NO_ROOT = Settings(allowed=(AllowedStages(stages=("namespaces", "helper"), origin="/etc/pkgjail.toml:2"),))


@pytest.mark.parametrize(
    ("obstacles", "settings", "options", "uid", "chosen"),
    [
        ({}, Settings(), JailOptions(), 0, "namespaces"),
        ({"namespaces": "n"}, Settings(), JailOptions(), 0, "root"),
        ({"namespaces": "n"}, Settings(), JailOptions(), 7, "helper"),
        ({"namespaces": "n"}, _NO_ROOT, JailOptions(), 0, "helper"),
        ({"namespaces": "n", "root": "r", "helper": "h"}, Settings(), JailOptions(), 0, ""),
        ({"namespaces": "n", "root": "r", "helper": "h"}, _ALL, JailOptions(), 0, "supervised"),
        ({"namespaces": "n", "root": "r", "helper": "h"}, _ALL, JailOptions(network=False), 0, ""),
        ({"namespaces": "n", "helper": "h"}, _NO_ROOT, JailOptions(), 0, ""),
    ],
)
def test_the_strongest_that_works(  # noqa: PLR0913, PLR0917 - a row
    base_manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    obstacles: dict[str, str],
    settings: Settings,
    options: JailOptions,
    uid: int,
    chosen: str,
) -> None:
    """Protects promises: the order, root for root alone, the weak one listed, all that is asked for kept."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    weak: tuple[Property, ...] = ("exact", "network")
    rungs = [
        Rung(name, obstacles.get(name, ""), weak if name == "supervised" else ())
        for name in ("namespaces", "root", "helper", "supervised", "vm")
    ]
    reporter = Recorder()
    request = Request(manifest=base_manifest, argv=(), options=options, reporter=reporter)
    found = ""
    try:
        found = strongest(_rungs(*rungs), settings, request)
    except JailError as error:
        assert all(f"  {name}: {why}" in str(error) for name, why in obstacles.items())  # noqa: PT017
        assert "'pkgjail doctor'" in str(error)  # noqa: PT017
    assert found == chosen
    assert bool(reporter.warnings) is (chosen not in {"", "namespaces"})
    assert max(rung.tried for rung in rungs) <= 1


def test_what_is_said(base_manifest: Manifest) -> None:
    """The step down is said once, with the reasons; a rung that is excluded or not asked is not tried."""
    reporter = Recorder()
    rungs = [Rung("namespaces", "no userns"), Rung("helper"), Rung("supervised")]
    request = Request(manifest=base_manifest, argv=(), reporter=reporter)
    assert strongest(_rungs(*rungs), _ALL, request) == "helper"
    assert reporter.warnings == [
        "this runs in the stage helper, the strongest that can run it here (not namespaces: no userns)"
    ]
    assert rungs[2].tried == 0
    rungs = [Rung("namespaces", "no userns"), Rung("helper", "none"), Rung("supervised")]
    assert strongest(_rungs(*rungs), _ALL, request) == "supervised"
    assert "; it promises less than namespaces does (not" in reporter.warnings[1]


def test_whose_rights(base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects a command that is to have another user's rights from running with root's."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("SUDO_UID", raising=False)
    reporter = Recorder()
    request = Request(manifest=base_manifest, argv=(), user="nobody", reporter=reporter)
    assert strongest(_rungs(Rung("namespaces"), Rung("root")), Settings(), request) == "root"
    assert (
        "with the rights of the user nobody (not namespaces: it cannot keep the rights"
        in reporter.warnings[0]
    )


def test_devices_of_the_manifest(base_manifest: Manifest) -> None:
    """A rung that cannot show the manifest's devices is not taken."""
    manifest = replace(base_manifest, devices=(DevicePattern(pattern="/dev/fuse", rule=""),))
    rungs = _rungs(Rung("namespaces", "", ("devices",)), Rung("helper"))
    assert strongest(rungs, Settings(), Request(manifest=manifest, argv=())) == "helper"


def test_the_library(base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`run_in_stage` climbs too, and refuses what settings exclude."""
    monkeypatch.setattr(stages, "STAGES", _rungs(Rung("namespaces", "no"), Rung("helper"), Rung("vm")))
    assert run_in_stage(base_manifest, ["true"], stage="auto") == 7
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "pkgjail.toml").write_text('[stage]\nallow = ["vm"]\n')
    with pytest.raises(UsageError, match=r"cannot use the stage helper: .*allows only vm"):
        run_in_stage(base_manifest, ["true"], stage="helper")
    assert run_in_stage(base_manifest, ["true"], stage="vm") == 3
    with pytest.raises(JailError, match=r"helper: .*does not allow it"):
        run_in_stage(base_manifest, ["true"], stage="auto")


def test_the_command_line(
    base_manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """`run` and `shell` take the default of the settings, climb if that is "auto", and refuse other users."""
    path = tmp_path / "m.jsonl"
    write_manifest(base_manifest, path)
    monkeypatch.setattr(stages, "STAGES", _rungs(Rung("namespaces", "no"), Rung("helper"), Rung("vm")))
    monkeypatch.setenv(files.VARIABLE, "auto")
    assert main(["run", str(path), "--", "true"]) == 7
    assert "warning: this runs in the stage helper" in capfd.readouterr().err
    assert main(["shell", str(path)]) == 7
    assert main(["run", "--stage", "namespaces", str(path), "--", "sh", "-c", "exit 9"]) == 9
    assert main(["run", "--audit", str(tmp_path / "a"), str(path), "--", "true"]) == 125
    assert "cannot audit a command in the stage helper" in capfd.readouterr().err
    monkeypatch.setattr(stages, "STAGES", _rungs(Rung("namespaces"), Rung("helper")))
    assert main(["run", str(path), "--", "sh", "-c", "exit 9"]) == 9
    assert capfd.readouterr().err == ""
    assert main(["run", "--stage", "namespaces", "--user", "nobody", str(path), "--", "true"]) == 125
    assert "--user goes with the stage root" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="limits of a user namespace with all ids; CI is root")
def test_where_user_namespaces_are_off(caller: Caller, base_manifest: Manifest) -> None:
    """Root steps down to the stage root, and says so, in spite of a saved jail; others are told why not."""
    path = caller.home / "m.jsonl"
    write_manifest(base_manifest, path)
    path.chmod(0o644)
    caller.home.chmod(0o755)
    words = [SYSTEM_PYTHON, "-m", "pkgjail", "run", "--stage", "auto", str(path), "--", "id", "-u"]
    for _ in (1, 2):
        assert caller.run(words).stdout == "0\n"
    done = caller.run(without_user_namespaces(words), environment={"SUDO_UID": str(NOBODY)})
    assert done.stdout == f"{NOBODY}\n", done.stderr
    assert "this runs in the stage root, the strongest" in done.stderr
    assert "user.max_user_namespaces is 0" in done.stderr
    other = caller.run(
        without_user_namespaces(words, NOBODY), environment={"XDG_RUNTIME_DIR": "", "HOME": "/"}
    )
    assert other.returncode == 125
    assert "namespaces: cannot make a jail" in other.stderr


def test_environments(
    base_manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """An environment has the stage that it was built for; "auto" climbs at each entry; settings count."""
    manifest = tmp_path / "m.jsonl"
    write_manifest(base_manifest, manifest)
    monkeypatch.setattr(stages, "STAGES", _rungs(Rung("namespaces", "no"), Rung("helper", "", ("network",))))
    place = str(tmp_path / "env")
    assert main(["build", "--stage", "auto", str(manifest), place]) == 0
    assert read_header(os.fsencode(place)).stage == "auto"
    assert main(["enter", place, "--", "true"]) == 7
    assert "this runs in the stage helper" in capfd.readouterr().err
    assert main(["enter", "--audit", str(tmp_path / "a"), place, "--", "true"]) == 125
    assert "it runs in the stage helper, and only in a jail of namespaces" in capfd.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(stages, "STAGES", _rungs(Rung("namespaces"), Rung("helper")))
        for _ in (1, 2):  # the second may be a replay
            assert main(["enter", place, "--", "sh", "-c", "exit 9"]) == 9
    monkeypatch.setenv(files.VARIABLE, "helper")
    second = str(tmp_path / "env2")
    assert main(["build", "--no-network", str(manifest), second]) == 1
    assert (
        "the stage helper cannot keep what was asked for: a command without network" in capfd.readouterr().err
    )
    assert main(["build", str(manifest), second]) == 0
    assert main(["enter", "--verify", second, "--", "true"]) == 7
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "pkgjail.toml").write_text('[stage]\nallow = ["vm"]\n')
    assert main(["enter", second, "--", "true"]) == 125
    assert "cannot use the stage helper, which PKGJAIL_STAGE makes the default" in capfd.readouterr().err
    assert main(["build", str(manifest), str(tmp_path / "env3")]) == 2
    monkeypatch.setenv(files.VARIABLE, "podman")
    assert main(["build", str(manifest), str(tmp_path / "env3")]) == 2
    assert "PKGJAIL_STAGE makes podman the default stage, which no environment can" in capfd.readouterr().err
    with pytest.raises(InputError, match="'podman' cannot be its stage"):
        build_environment(base_manifest, os.fsencode(tmp_path / "env3"), stage="podman")


@pytest.mark.skipif(os.geteuid() != 0, reason="the stage root is root's; CI is root")
@pytest.mark.parametrize("form", [[], ["--copy"]])
def test_an_environment_of_root(
    caller: Caller, base_manifest: Manifest, form: list[str], tmp_path: Path
) -> None:
    """Protects environments where user namespaces are off: their jail is the stage root's."""
    manifest = caller.home / "m.jsonl"
    write_manifest(base_manifest, manifest)
    words = ["build", "--stage", "root", *form, str(manifest), str(tmp_path / "env")]
    assert caller.pkgjail(*words).returncode == 0
    script = "readlink /proc/self/ns/user; id -u; ls -d /work"
    done = caller.pkgjail("enter", str(tmp_path / "env"), "--", "sh", "-c", script)
    assert done.stdout == f"{os.readlink('/proc/self/ns/user')}\n0\n", done.stderr


_LADDER = """
place=$1 manifest=$2 python=$3 uid=$4
mount -t tmpfs -o mode=755 none /run
mount -t overlay -o userxattr,lowerdir=/etc,upperdir="$place/up",workdir="$place/work" none /etc
run() {
  echo "== $*"
  setpriv --reuid="$uid" --regid="$uid" --clear-groups "$python" -m pkgjail run "$@" 2>&1
}
"$python" -m pkgjail.helper --print-policy |
  sed 's/^users = .*/users = ["*"]/; s/^groups = .*/groups = []/' > /etc/pkgjaild.toml
"$python" -m pkgjail.helper 2>/dev/null & service=$!
for _ in $(seq 100); do test -S /run/pkgjaild/socket && break; sleep 0.1; done
run --stage auto "$manifest" -- id -u
kill $service; wait $service
run --stage auto "$manifest" -- id -u
printf '[stage]\\ndefault = "auto"\\nallow = ["namespaces", "helper", "supervised"]\\n' > /etc/pkgjail.toml
run "$manifest" -- id -u
run --share-ipc "$manifest" -- id -u
echo 'user.max_user_namespaces=15000' > /etc/sysctl.d/90-pkgjail.conf; sysctl --system >/dev/null 2>&1
run "$manifest" -- id -u
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="limits of a user namespace with all ids; CI is root")
def test_the_whole_ladder(user: Caller, tmp_path: Path) -> None:
    """An ordinary user without user namespaces: by the service, by none, supervised, after the remedy."""
    for name in ("up", "work"):
        (tmp_path / name).mkdir()
    manifest = user.home / "m.jsonl"
    write_manifest(resolve(["base"]), manifest)  # the service has no baseline, so it compares digests
    arguments = (str(tmp_path), str(manifest), SYSTEM_PYTHON, str(user.uid))
    command = without_user_namespaces(["unshare", "-m", "sh", "-c", _LADDER, "-", *arguments])
    options = user.options()
    for name in ("user", "group", "extra_groups"):
        options.pop(name, None)
    done = subprocess.run(command, check=False, **options)
    helper, none, supervised, shared, namespaces = done.stdout.split("== ")[1:]
    uid = f"\n{user.uid}\n"
    assert "this runs in the stage helper, the strongest" in helper, done
    assert helper.endswith(uid), helper
    assert "no stage of pkgjail's own can run this here" in none
    assert "supervised: it promises less, so it must be named" in none
    assert "this runs in the stage supervised" in supervised
    assert "promises less than namespaces" in supervised
    assert supervised.endswith(uid)
    assert "supervised: it cannot keep shared memory" in shared
    assert namespaces == f"{manifest} -- id -u{uid}"
