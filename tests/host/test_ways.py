"""The same build in each way: on the host's files, in an image, in a part of it, in stages, in exports.

GNU hello is configured and compiled, and so is a program that takes zlib if it finds it, as `configure` does.
No way has zlib's headers, though the host has: the whitelist `spack` does not name them.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests import hello
from tests.engines import settings_of_podman

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.conftest import Caller


class _Outcome(NamedTuple):
    status: int
    out: str
    hello: str
    hello_z: str


class _Ways:
    """Runs the build in each way as one user, with an image that mmdebstrap makes of the whitelist."""

    def __init__(self, user: Caller) -> None:
        self._user = user
        self._home = user.home
        self._variables = {
            **settings_of_podman(user.home, "overlay"),
            "PKGJAIL_STORE": str(user.home / "store"),
            "USER": "somebody",  # which ch-run wants
        }
        self._do("image", "create", "made", "--whitelist", "spack", "--suite", "bookworm")
        self._do("resolve", "spack", "-o", "host.jsonl")
        self._do("resolve", "spack", "--source", "image:made", "-o", "image.jsonl")
        for form in ("tar", "oci-archive", "oci-bundle"):
            words = ("--source", "image:made", "--format", form, "-o", form)
            self._do("export", "image.jsonl", *words)

    def _do(self, *words: str) -> None:
        done = self._user.pkgjail(*words, environment=self._variables)
        assert done.returncode == 0, done.stderr

    def jail(self, *words: str) -> Callable[[Path], Sequence[str]]:
        """Return a way of pkgjail's."""
        run = ["/usr/bin/python3", "-m", "pkgjail", "run"]
        return lambda place: [*run, "--bind", f"{place}:/srv", *words, "--", *hello.COMMAND]

    def podman(self, place: Path) -> Sequence[str]:
        """Return the command that starts the exported image."""
        image = f"oci-archive:{self._home}/oci-archive"
        return ["podman", "run", "--rm", "--network=none", "-v", f"{place}:/srv", image, *hello.COMMAND]

    def charliecloud(self, place: Path) -> Sequence[str]:
        """Return the command that enters the exported archive, unpacked."""
        root = self._home / "charliecloud"
        root.mkdir()
        unpacked = self._user.run(["tar", "-C", root, "-xf", self._home / "tar"])
        assert unpacked.returncode == 0, unpacked.stderr
        (root / "srv").mkdir()
        return ["ch-run", "-b", f"{place}:/srv", str(root), "--", *hello.COMMAND]

    def runc(self, place: Path) -> Sequence[str]:
        """Return the command that starts the exported bundle."""
        bundle = self._home / "oci-bundle"
        config = json.loads((bundle / "config.json").read_bytes())
        config["process"]["args"] = hello.COMMAND
        mount = {"destination": "/srv", "type": "none", "source": str(place), "options": ["rbind"]}
        config["mounts"].append(mount)
        (bundle / "rootfs/srv").mkdir()
        (bundle / "config.json").write_text(json.dumps(config))
        state = str(self._home / "runc")
        return ["runc", "--root", state, "run", "--bundle", str(bundle), f"pkgjail-ways-{os.getpid()}"]

    def build(self, way: Callable[[Path], Sequence[str]], source: bytes) -> tuple[_Outcome, float]:
        """Build in a new directory; return what came of it, and the seconds."""
        place = hello.prepare(self._home / f"build-{time.time_ns()}", source)
        words = way(place)
        began = time.monotonic()
        done = self._user.run(words, environment=self._variables, stdin=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        made = [place / "hello-2.10/hello", place / "hello-z"]
        digests = [hashlib.sha256(each.read_bytes()).hexdigest() for each in made if each.exists()]
        assert len(digests) == len(made), done.stderr
        return _Outcome(done.returncode, done.stdout, *digests), seconds


@pytest.mark.long
def test_the_same_build_in_each_way(caller: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    """Statuses, outputs and the bytes of the programs agree. A table with times is printed."""
    source = hello.download()
    ways = _Ways(caller)
    image = ("--source", "image:made")
    root = () if os.geteuid() == 0 else ("--map-root",)
    engines = ("bwrap", "podman", "runc", "nspawn") if os.geteuid() == 0 else ("bwrap", "podman", "runc")
    table = {
        "the host's manifest": ways.jail("host.jsonl"),
        "the whole image": ways.jail(*image),
        "the image's manifest": ways.jail(*image, "image.jsonl"),
        "the OCI export, podman": ways.podman,
        "the tar export, charliecloud": ways.charliecloud,
        "the bundle, runc": ways.runc,
    }
    for stage in engines:
        options = ("--stage", stage, *(root if stage == "runc" else ()))
        table[f"the image's manifest, stage {stage}"] = ways.jail(*options, *image, "image.jsonl")
    found = {name: ways.build(way, source) for name, way in table.items()}
    with capsys.disabled():
        sys.stdout.write("\n| way | status | hello | hello-z | s |\n|---|---|---|---|---|\n")
        for name, (outcome, seconds) in found.items():
            digests = f"{outcome.hello[:12]} | {outcome.hello_z[:12]}"
            sys.stdout.write(f"| {name} | {outcome.status} | {digests} | {seconds:.1f} |\n")
    first = found["the image's manifest"][0]
    assert (first.status, first.out) == (3, "Hello, world!\nno zlib\n")
    versions = [_compiler(caller.home / f"{name}.jsonl") for name in ("host", "image")]
    same = {name: outcome for name, (outcome, _) in found.items() if name != "the host's manifest"}
    assert set(same.values()) == {first}
    if versions[0] == versions[1]:
        assert found["the host's manifest"][0] == first


def _compiler(manifest: Path) -> set[tuple[str, str]]:
    """Return the packages with which programs are made, and their versions."""
    records = map(json.loads, manifest.read_text(encoding="utf-8").splitlines())
    names = ("binutils", "cpp-", "gcc-", "libc6", "make")
    return {
        (r["name"], r["version"]) for r in records if r["kind"] == "package" and r["name"].startswith(names)
    }
