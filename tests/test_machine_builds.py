"""Whole builds in machines give what they give in a jail; streams and ends on another architecture."""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.architectures import architecture_of_elf
from tests import hello
from tests.conftest import SYSTEM_PYTHON
from tests.emulators import ARM64, registered_on_the_host
from tests.kernels import CLOUD, FULL, kernel, kernel_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Caller

BUILT = ("hello-2.10/hello", "hello-z")
ENDS = {"exit 0": 0, "exit 7": 7, "kill -SEGV $$": 139}


def build(user: Caller, place: Path, *options: str) -> dict[str, str]:
    """Build in this directory, which is the caller's own, and return the digests of all that is made."""
    hello.prepare(place, hello.download())
    (place / "build").write_text((place / "build").read_text().replace("cd /srv && ", ""))
    subprocess.run(["chown", "--recursive", f"{user.uid}:{user.uid}", place], check=True)
    words = ["run", "--cwd", *options, str(user.home / "m.jsonl"), "--", "sh", "build"]
    done = user.pkgjail(*words, cwd=place, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (3, "Hello, world!\nno zlib\n"), done.stderr
    made = {
        path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(place.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    place.rename(f"{place}-{len(list(user.home.iterdir()))}")
    return made


@pytest.mark.long
@pytest.mark.parametrize("name", [CLOUD, FULL], ids=["copied", "shared"])
def test_a_build_is_the_same_as_in_a_jail(name: str, caller: Caller) -> None:
    """Protects the promise of one manifest for all stages: each file has the same bytes, logs aside."""
    resolved = caller.pkgjail("resolve", "build", "-o", "m.jsonl")
    assert resolved.returncode == 0, resolved.stderr
    place = caller.home / "build"
    expected = build(caller, place)
    found = build(caller, place, "--stage", "vm", "--kernel", str(kernel(name)))
    differ = {path for path in {*expected, *found} if expected.get(path) != found.get(path)}
    assert not differ & set(BUILT)
    # What the kernel is, and when, is written there.
    assert {path for path in differ if not path.endswith(("config.log", "config.status", "log"))} == set()


@pytest.mark.long
def test_a_gibibyte_passes_unchanged(caller: Caller) -> None:
    """Protects the streams: as much as ever is sent comes back, every byte."""
    resolved = caller.pkgjail("resolve", "base", "-o", "m.jsonl")
    assert resolved.returncode == 0, resolved.stderr
    command = f"{SYSTEM_PYTHON} -m pkgjail run --stage vm --kernel {kernel()} m.jsonl -- cat"
    script = f"head -c 1G /dev/urandom | tee >(sha256sum >given) | {command} | sha256sum >got; wait"
    done = caller.run(["bash", "-c", script])
    assert done.returncode == 0, done.stderr
    assert (caller.home / "given").read_text() == (caller.home / "got").read_text()


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may register an emulator for all programs")
def test_an_image_of_another_architecture_builds(caller: Caller) -> None:
    """Protects the promise: programs of another architecture build programs for it; the ends are right."""
    variables = {"PKGJAIL_STORE": str(caller.home / "store")}
    with registered_on_the_host():
        words = ["--arch", "aarch64", "--suite", "bookworm", "--whitelist", "build"]
        made = caller.pkgjail("image", "create", "arm", *words, environment=variables)
        assert made.returncode == 0, made.stderr
        resolved = caller.pkgjail(
            "resolve", "build", "--source", "image:arm", "-o", "m.jsonl", environment=variables
        )
        assert resolved.returncode == 0, resolved.stderr
    place = hello.prepare(caller.home / "build", hello.download())
    options = ["--stage", "vm", "--kernel", str(kernel_of("arm64")), "--source", "image:arm"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return caller.pkgjail("run", *options, *words, environment=variables, stdin=subprocess.DEVNULL)

    built = run("--bind", f"{place}:/srv", "m.jsonl", "--", *hello.COMMAND)
    assert (built.returncode, built.stdout) == (3, "Hello, world!\nno zlib\n"), built.stderr
    for name in BUILT:
        assert architecture_of_elf((place / name).read_bytes()[:64]) is ARM64
    for script, status in ENDS.items():
        assert run("m.jsonl", "--", "sh", "-c", script).returncode == status
    lines = run("m.jsonl", "--", "sh", "-c", "seq 100000 >&2; echo out")
    assert lines.stdout == "out\n"
    assert lines.stderr.endswith("".join(f"{number}\n" for number in range(1, 100001)))
