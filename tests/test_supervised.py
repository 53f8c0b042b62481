"""The stage `supervised` where no namespace can be made: what a command sees, may do, and how it ends."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.manifest import write_manifest
from pkgjail.stages import STAGES
from tests.conftest import SYSTEM_PYTHON
from tests.no_namespaces import PREFIX

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

HELLO = Path(__file__).parent.parent / "examples" / "hello.c"


class Supervised:
    """Runs commands of one user under supervision, with a writable directory `build`."""

    def __init__(self, user: Caller, manifest: Manifest) -> None:
        self.user = user
        self.build = user.home / "build"
        self.build.mkdir()
        write_manifest(manifest, user.home / "m.jsonl")
        (user.home / "secret").write_text("a secret")
        subprocess.run(["chown", "--recursive", f"{user.uid}:{user.uid}", user.home], check=True)

    def words(self, *command: str, options: tuple[str, ...] = ()) -> list[str]:
        """The command line."""
        stage = ["--stage", "supervised", "--bind", str(self.build), *options, f"{self.user.home}/m.jsonl"]
        return [
            *PREFIX,
            SYSTEM_PYTHON,
            "-m",
            "pkgjail",
            "run",
            *stage,
            str(self.user.home / "m.jsonl"),
            "--",
            *command,
        ]

    def __call__(
        self, *command: str, options: tuple[str, ...] = (), **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return self.user.run(self.words(*command, options=options), **{"cwd": self.build, **more})


@pytest.fixture
def run(anyone: Caller, spack_manifest: Manifest) -> Supervised:
    """Runs commands as root, and as an ordinary user, without namespaces."""
    return Supervised(anyone, spack_manifest)


def test_the_default_stage_cannot_be_had_there(run: Supervised) -> None:
    """Protects the other tests: without namespaces there is no jail."""
    words = [word for word in run.words("true") if word not in {"--stage", "supervised"}]
    ran = run.user.run(words)
    assert ran.returncode == 125
    assert "cannot make a jail" in ran.stderr


def test_it_works_here() -> None:
    """Protects that the stage finds nothing at fault on a host that has what it needs."""
    assert STAGES["supervised"].obstacle() == ""


def test_a_compiler_works(run: Supervised) -> None:
    """Protects what the stage is for; the compiler finds a header of the manifest and no other."""
    (run.build / "hello.c").write_bytes(HELLO.read_bytes())
    (run.build / "z.c").write_text("#include <zlib.h>\nint main(void) { return 0; }\n")
    made = run("gcc", "-o", "hello", "hello.c", options=("--cwd",))
    assert made.returncode == 0, made.stderr
    assert "weaker than the default" in made.stderr
    assert run("./hello", options=("--cwd",)).stdout == "C: hello from the jail\n"
    without = run("gcc", "-c", "z.c", options=("--cwd",))
    assert without.returncode == 1
    assert "zlib.h: No such file or directory" in without.stderr
