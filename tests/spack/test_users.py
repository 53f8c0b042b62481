"""Many users, one Spack: whom an environment serves, who may change it, and environments of one's own."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.integrations.spack.active import ActiveEnvironment, state_directories
from pkgjail.integrations.spack.jail.users import (
    closed_to_users,
    is_for_all,
    leaving_advice,
    rebuilding_advice,
    removal_advice,
)
from tests.spack.test_inside import HOST, WHERE

if TYPE_CHECKING:
    from tests.conftest import Caller
    from tests.spack.conftest import Spack

two_users = pytest.mark.skipif(os.geteuid() != 0, reason="there must be another user; CI is root")
HOOKS = pytest.mark.parametrize("hook", ["entry point", "SPACK_PYTHON"])
ADVICE = "use 'spack jail --build-environment ~/spack-env'"


@pytest.fixture
def other(spack: Spack, neighbour: Caller) -> Spack:
    """The same Spack, as another user who may read it but not write to it."""
    spack.user.home.chmod(0o755)
    spack.user_writes(neighbour.home / "python.toml", (spack.user.home / "python.toml").read_text())
    return spack._replace(user=neighbour)


def where(spack: Spack, hook: str = "entry point") -> str:
    """Return the host name that a command of Spack sees, and what it writes on standard error."""
    done = spack("python", "-c", WHERE, environment={} if hook == "entry point" else spack.wrapped())
    return done.stdout + done.stderr


_ATTEMPTS = """
import os
def attempt(function, *arguments):
    try:
        function(*arguments)
    except OSError:
        return False
    return True
def write(path):
    open(path, "a").close()
print([path for path in {paths!r} if attempt(write, path) or attempt(os.rename, path, path + ".old")])
"""


@two_users
@HOOKS
def test_the_environment_of_the_owner_serves_other_users(spack: Spack, other: Spack, hook: str) -> None:
    """From the first command on. They can change neither it, nor its record, nor Spack; nor their own cache.

    Spack describes itself once for each user, in a cache of the user's own: no user's files decide what
    another's commands see.
    """
    spack.build()
    assert [where(one, hook) for one in (spack, other, other)] == ["pkgjail\n"] * 3
    of_all, of_user = state_directories(str(spack.root), other.variables())
    assert json.loads((spack.user.home / "spack/opt/.pkgjail/active.json").read_text())["removing"] is False
    cache = f"{of_user}/instances.json"
    assert os.stat(cache).st_uid == other.user.uid
    guarded = [
        f"{of_all}/active.json",
        f"{of_all}/instances.json",
        f"{spack.environment}/manifest.jsonl",
        cache,
    ]
    paths = [*guarded, f"{spack.root}/bin/spack", f"{other.user.home}/cache/mine"]
    hooked = {} if hook == "entry point" else other.wrapped()
    done = other("python", "-c", f"exec({_ATTEMPTS.format(paths=paths)!r})", environment=hooked)
    assert (done.stdout, done.stderr) == (str(paths[-1:]) + "\n", "")
    before = os.stat(cache).st_ino
    where(other._replace(), hook)
    assert os.stat(cache).st_ino == before


@two_users
@HOOKS
def test_a_user_can_have_an_environment_of_their_own(spack: Spack, other: Spack, hook: str) -> None:
    """It precedes that of all users, for this user alone, and nothing this user does changes that one."""
    shown = "import os; print(os.environ.get('X'))"
    spack.build("--env", "X=owner")

    def seen(one: Spack) -> str:
        hooked = {} if hook == "entry point" else one.wrapped()
        return one("python", "-c", shown, environment=hooked).stdout

    built = other.build("--env", "X=other")
    assert f"{other.environment} is active for you: " in built.stdout
    assert [seen(spack), seen(other)] == ["owner\n", "other\n"]
    assert f"active: {other.environment}\n" in other("jail").stdout
    again = other("jail", "--build-environment", f"{other.environment}2", "--whitelist", other.whitelist)
    assert f"{other.environment} is active for this Spack" in again.stderr
    other.build("--env", "X=third", "--force")
    assert [seen(spack), seen(other)] == ["owner\n", "third\n"]
    removed = other("jail", "--remove-environment")
    assert removed.stdout.endswith(f"{spack.environment} is active, as for others\n")
    assert [seen(spack), seen(other)] == ["owner\n", "owner\n"]
    refused = other("jail", "--remove-environment")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"cannot remove {spack.environment}: it is the environment of all users" in refused.stderr
    assert ADVICE in refused.stderr
    other.build("--force")
    assert seen(spack) == "owner\n"
    assert spack("jail", "--remove-environment").returncode == 0
    assert [seen(spack), where(other)] == ["None\n", "pkgjail\n"]


@two_users
@HOOKS
def test_a_user_who_may_not_enter_the_environment_is_told_what_to_do(
    spack: Spack, other: Spack, hook: str
) -> None:
    """The build warns of it; no command of this user runs outside."""
    closed = spack.user.home / "closed"
    closed.mkdir(mode=0o700)
    os.chown(closed, spack.user.uid, spack.user.uid)
    words = ("jail", "--build-environment", str(closed / "env"), "--whitelist", spack.whitelist)
    built = spack(*words)
    assert built.returncode == 0
    assert f"they may not enter {closed}; let them, or build in another directory" in built.stderr
    hooked = {} if hook == "entry point" else other.wrapped()
    for command in (["python", "-c", WHERE], ["jail", "--run", "--", "true"], ["jail", "--status"]):
        done = other(*command, environment=hooked)
        assert (done.returncode, "pkgjail\n" in done.stdout, HOST in done.stdout) == (1, False, False)
        assert f"cannot enter {closed}/env: Permission denied\n" in done.stderr
        assert ADVICE in done.stderr
    other.build()
    assert [where(one, hook) for one in (spack, other)] == ["pkgjail\n"] * 2


@two_users
def test_a_private_umask_does_not_stop_the_others(spack: Spack, other: Spack) -> None:
    """They may read the record if they may read Spack: no command can start without it."""
    (spack.root / "opt").mkdir()
    os.chown(spack.root / "opt", spack.user.uid, spack.user.uid)
    script = 'umask 077; exec "$@"'
    words = ["jail", "--build-environment", spack.environment, "--whitelist", spack.whitelist]
    built = spack.user.run(["sh", "-c", script, "-", spack.script, *words], environment=spack.variables())
    assert built.returncode == 0
    assert f"they may not enter {spack.environment}; let them" in built.stderr
    Path(spack.environment).chmod(0o755)
    assert where(other) == "pkgjail\n"


@two_users
def test_an_interrupted_removal_is_for_its_owner_to_finish(spack: Spack, other: Spack) -> None:
    """Another user's command runs outside, as the owner's, and says who can finish it."""
    spack.build()
    record = spack.root / "opt/.pkgjail/active.json"
    spack.user_writes(record, json.dumps({**json.loads(record.read_text()), "removing": True}))
    assert "can finish the removal" in where(other)
    assert "finish the removal with 'spack jail --remove-environment'" in where(spack)


def test_a_record_that_may_not_be_read_stops_every_command(spack: Spack) -> None:
    """The user may have an environment, and does not know."""
    spack.build()
    record = spack.root / "opt/.pkgjail/active.json"
    record.chmod(0)
    if os.access(record, os.R_OK):  # root reads it all the same
        spack.user_writes(record, "")
    assert "active.json: " in where(spack)


@two_users
@HOOKS
def test_a_spack_that_is_read_only_for_all(spack: Spack, other: Spack, hook: str) -> None:
    """An installation of root's, or on a file system that is mounted read-only: each user has an own one."""
    for path in [spack.root, *spack.root.rglob("*")]:
        os.chown(path, 0, 0, follow_symlinks=False)
    for one in (spack, other):
        assert " is active for you: " in one.build().stdout
        assert where(one, hook) == "pkgjail\n"
    assert spack("jail", "--remove-environment").returncode == 0
    assert [where(one, hook) for one in (spack, other)] == [f"{HOST}\n", "pkgjail\n"]


@pytest.mark.parametrize(
    ("modes", "closed"),
    [
        pytest.param({"spack": 0o755, "env": 0o755}, "", id="open to all"),
        pytest.param({"spack": 0o755, "env": 0o700}, "env", id="closed itself"),
        pytest.param({"spack": 0o755, "above": 0o750}, "above", id="closed above"),
        pytest.param({"spack": 0o700, "above": 0o700}, "", id="a Spack for its owner alone"),
    ],
)
def test_who_may_enter_an_environment(tmp_path: Path, modes: dict[str, int], closed: str) -> None:
    """A warning names the directory that others would have to be let into; groups are below."""
    paths = {"spack": tmp_path / "spack", "above": tmp_path / "above", "env": tmp_path / "above/env"}
    for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent, tmp_path.parent.parent.parent):
        if os.stat(directory).st_uid == os.geteuid() and directory != directory.parent:
            directory.chmod(stat.S_IMODE(directory.stat().st_mode) | 0o055)
    for name, path in paths.items():
        path.mkdir()
        path.chmod(modes.get(name, 0o755))
    expected = str(paths[closed]) if closed else ""
    assert closed_to_users(str(paths["spack"]), str(paths["env"])) == expected


@two_users
@pytest.mark.parametrize(("mode", "group"), [(0o750, 4321), (0o700, 4321), (0o750, 0)])
def test_members_of_spacks_group_are_its_users(tmp_path: Path, mode: int, group: int) -> None:
    """If others may not enter it; the primary group of the builder may be private."""
    for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        directory.chmod(0o755)
    root, env = tmp_path / "spack", tmp_path / "env"
    for path in (root, env):
        path.mkdir()
        os.chown(path, -1, 4321)
    root.chmod(0o750)
    env.chmod(mode)
    os.chown(env, -1, group)
    expected = "" if (mode, group) == (0o750, 4321) else str(env)
    assert closed_to_users(str(root), str(env)) == expected
    os.chown(root, -1, os.getegid())
    assert closed_to_users(str(root), str(env)) == ""


def test_what_a_user_is_told_of_their_own_environment(tmp_path: Path) -> None:
    """The commands that this user can run, and no others."""
    active = ActiveEnvironment("/e", "/p", 1, removing=False, directory=str(tmp_path))
    assert leaving_advice(active) == "to run Spack outside again, use 'spack jail --remove-environment'"
    assert "'spack jail --build-environment /e --force'" in rebuilding_advice(active)
    assert removal_advice(active, "spack isolate").endswith("'spack isolate --remove-environment'")
    assert not is_for_all(active, "/spack")
