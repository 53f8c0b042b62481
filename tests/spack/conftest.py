"""A Spack for each test: a copy of each one that PKGJAIL_SPACK_ROOT names, or a stand-in."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.conftest import SYSTEM_PYTHON
from tests.spack.interpreter import make_python
from tests.spack.real import ROOTS, copy_spack, version_of
from tests.spack.standin import make_standin

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Caller

# Enough for Spack's Python, and quick to resolve.
WHITELIST = 'include = ["base"]\n[packages]\ndebian = ["python3"]\n'
if ROOTS:  # which needs git for some of its commands
    WHITELIST = WHITELIST.replace('"python3"', '"python3", "git"')


class Spack(NamedTuple):
    """A Spack of an ordinary user, and an interpreter for it that has pkgjail installed."""

    root: Path
    python: Path
    user: Caller

    @property
    def script(self) -> str:
        """The program `spack`."""
        return str(self.root / "bin" / "spack")

    @property
    def environment(self) -> str:
        """The directory of its environment."""
        return str(self.user.home / "env")

    @property
    def whitelist(self) -> str:
        """The path of a whitelist that has what its Python needs."""
        return str(self.user.home / "python.toml")

    def variables(self, **more: str) -> dict[str, str]:
        """Return variables that give it its own directories and its Python."""
        return {
            "PYTHONPATH": "",
            "SPACK_PYTHON": str(self.python),
            "SPACK_USER_CONFIG_PATH": str(self.user.home / "config"),
            "SPACK_USER_CACHE_PATH": str(self.user.home / "cache"),
            "SPACK_DISABLE_LOCAL_CONFIG": "1",
            **more,
        }

    def wrapped(self) -> dict[str, str]:
        """Return variables that run it by the wrapper, on the distribution's Python without pkgjail."""
        wrapper = str(self.python.parent / "pkgjail-spack-python")
        return {"SPACK_PYTHON": wrapper, "PKGJAIL_SPACK_PYTHON": SYSTEM_PYTHON}

    def __call__(
        self, *arguments: str, environment: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `spack …`."""
        variables = self.variables(**(environment or {}))
        return self.user.run([self.script, *arguments], environment=variables, **options)

    def build(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `spack jail --build-environment`, which must succeed."""
        done = self(
            "jail",
            "--build-environment",
            self.environment,
            "--whitelist",
            self.whitelist,
            *arguments,
            **options,
        )
        assert done.returncode == 0, done.stderr
        return done

    def configure(self, section: str, text: str) -> None:
        """Write a file of its configuration."""
        self.user_writes(self.root / "etc" / "spack" / f"{section}.yaml", text)

    def user_writes(self, path: Path, text: str) -> None:
        """Write a file that belongs to the user."""
        path.write_text(text)
        if self.user.uid != os.geteuid():
            os.chown(path, self.user.uid, self.user.uid)


@pytest.fixture(params=ROOTS or (None,), ids=lambda root: version_of(root).text if root else "stand-in")
def spack(request: pytest.FixtureRequest, user: Caller, library: Path) -> Spack:
    root = user.home / "spack"
    if request.param is None:
        make_standin(root)
    else:
        copy_spack(request.param, root)
    python = make_python(user.home / "python", library)
    (user.home / "python.toml").write_text(WHITELIST)
    if user.uid != os.geteuid():
        subprocess.run(["chown", "-R", "-h", f"{user.uid}:{user.uid}", user.home], check=True)
    return Spack(root, python, user)
