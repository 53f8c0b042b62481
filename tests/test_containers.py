"""Containers as hosts: behind an engine's default confinement a jail works, or both `plan` and `run` say why.

The surroundings are those of tests/engines.py. docs/containers.md says which real engines were tried.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pkgjail.manifest import write_manifest
from tests.conftest import SYSTEM_PYTHON
from tests.engines import HOST_NAME, in_engine

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

pytestmark = pytest.mark.gate  # the kernel decides, not a Python


def written(manifest: Manifest, who: Caller) -> Path:
    """Write a manifest where this user can read it."""
    path = who.home / "m.jsonl"
    write_manifest(manifest, path)
    path.chmod(0o644)
    return path


def pkgjail(
    who: Caller, engine: str, *words: object, covered: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run pkgjail in a container of that engine, with caches of its own: the ld.so cache is made there."""
    command = in_engine(engine, [SYSTEM_PYTHON, "-m", "pkgjail", *words], covered=covered)
    own = {"XDG_CACHE_HOME": f"{who.home}/cache"}
    return who.run(command, environment={**own, **variables})


def test_a_filter_that_forbids_a_host_name(caller: Caller, base_manifest: Manifest) -> None:
    """The jail has the container's, at the first entry and at the next, and /etc/hosts has that name too.

    podman's and Docker's filters refuse sethostname(2) in every namespace, and no promise needs it.
    """
    manifest = written(base_manifest, caller)
    planned = pkgjail(caller, "podman", "mounts", manifest)
    assert (planned.returncode, planned.stderr) == (0, "")
    assert planned.stdout.endswith(f"host name: {HOST_NAME}\nentry: works here (tried)\n")
    show = ["run", manifest, "--", "sh", "-c", "uname -n; cat /etc/hosts"]
    ran = [pkgjail(caller, "podman", *show) for _ in range(2)]
    hosts = f"127.0.0.1\tlocalhost {HOST_NAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    assert [(each.returncode, each.stdout, each.stderr) for each in ran] == [
        (0, f"{HOST_NAME}\n{hosts}", "")
    ] * 2


def test_a_jail_with_the_name_of_its_host_is_recognized(
    caller: Caller, spack_manifest: Manifest, library: Path
) -> None:
    """Protects Spack's hook, which would enter a second time: the name of a jail is not always its own."""
    manifest = written(spack_manifest, caller)
    script = "from pkgjail.jails.detect import is_isolated; print(is_isolated(), __import__('os').uname()[1])"
    shown = ["--ro-bind", library, "--env", "PYTHONPATH"]
    ran = pkgjail(caller, "podman", "run", *shown, manifest, "--", "python3", "-c", script)
    assert (ran.stdout, ran.stderr) == (f"True {HOST_NAME}\n", "")


_MORE = "; 'pkgjail doctor' says more, and '--stage auto' takes another stage if one works"
_UNMASK = "podman run --security-opt unmask=ALL, docker run --security-opt systempaths=unconfined"
_ALLOW = "podman run --security-opt seccomp=unconfined, docker run --security-opt seccomp=unconfined"
_BOTH = (
    "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL, "
    "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
)
_COVERED = (
    "the kernel refuses a new /proc because parts of this one are covered "
    "(/proc/fs, /proc/sys, /proc/version), as a container's engine does; start the container with an "
    "unmasked /proc: "
)
_UNSHARE = (
    "this host does not let ordinary users make user namespaces: a seccomp filter (a container's?) forbids "
    "unshare(2); start the container with a profile that allows it: "
)
REFUSALS = [
    pytest.param("no filter", True, f"{_COVERED}{_UNMASK}", id="covered"),
    pytest.param("podman", True, f"{_COVERED}{_UNMASK}", id="podman"),
    pytest.param("Docker", True, f"{_UNSHARE}{_BOTH}", id="Docker"),
    pytest.param("Docker", False, f"{_UNSHARE}{_ALLOW}", id="Docker with an unmasked proc"),
]


@pytest.mark.parametrize(("engine", "covered", "why"), REFUSALS)
def test_what_the_engine_must_allow_is_named(
    user: Caller,
    base_manifest: Manifest,
    engine: str,
    covered: bool,  # noqa: FBT001 - a row
    why: str,
) -> None:
    """By each command in the same words: `plan` does not promise what an entry cannot keep."""
    manifest = written(base_manifest, user)
    for words in (["mounts", manifest], ["run", manifest, "--", "true"]):
        ran = pkgjail(user, engine, *words, covered=covered)
        assert (ran.returncode, ran.stderr) == (
            3 if words[0] == "mounts" else 125,
            f"pkgjail: cannot make a jail: {why}{_MORE}\n",
        )


def test_a_plan_says_so_even_if_all_before_entry_works(caller: Caller, tmp_path: Path) -> None:
    """A set without ldconfig needs no jail until it is entered; `plan` prints the plan, and that it fails."""
    (tmp_path / "w.toml").write_text('[files]\ninclude = ["/etc/debian_version"]\n')
    words = ["--no-essential", "--json", tmp_path / "w.toml"]
    for covered in (False, True):
        planned = pkgjail(caller, "podman", "mounts", *words, covered=covered)
        facts = json.loads(planned.stdout)
        assert facts["hostname"] == HOST_NAME
        if covered:
            assert (planned.returncode, facts["entry"]) == (
                3,
                f"cannot make a jail: {_COVERED}{_UNMASK}{_MORE}",
            )
            assert json.loads(planned.stderr.splitlines()[-1])["message"] == facts["entry"]
        else:
            assert (planned.returncode, facts["entry"]) == (0, None)


def test_a_plan_has_what_entry_falls_back_to(caller: Caller, base_manifest: Manifest) -> None:
    """A stored answer of the probe may be wrong behind another filter: `plan` tries again, as entry does."""
    manifest = written(base_manifest, caller)
    assert "/usr: tree: " in pkgjail(caller, "podman", "mounts", manifest).stdout
    planned = pkgjail(caller, "one without fsopen", "mounts", manifest)
    assert (planned.returncode, planned.stderr) == (0, "")
    assert "/usr: whole: " in planned.stdout
    assert pkgjail(caller, "one without fsopen", "run", manifest, "--", "true").returncode == 0
