"""A Spack for each test: a copy of the one that PKGJAIL_SPACK_ROOT names, else of a stand-in."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.conftest import SPACK_ROOT, SYSTEM_PYTHON, TOP
from tests.spack.standin import make_standin

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Caller

# Enough for Spack's Python, and quickly resolved.
WHITELIST = 'include = ["base"]\n[packages]\ndebian = ["python3"]\n'


class Spack(NamedTuple):
    """A Spack of an ordinary user's, and an interpreter for it that has pkgjail installed."""

    root: Path
    python: Path
    user: Caller

    @property
    def script(self) -> str:
        """The program `spack`."""
        return str(self.root / "bin" / "spack")

    @property
    def environment(self) -> str:
        """Where its environment is built."""
        return str(self.user.home / "env")

    @property
    def whitelist(self) -> str:
        """A whitelist of what its Python needs."""
        return str(self.user.home / "python.toml")

    def variables(self, **more: str) -> dict[str, str]:
        """What of the environment keeps it to itself, and has it run on its Python."""
        return {
            "PYTHONPATH": "",
            "SPACK_PYTHON": str(self.python),
            "SPACK_USER_CONFIG_PATH": str(self.user.home / "config"),
            "SPACK_USER_CACHE_PATH": str(self.user.home / "cache"),
            "SPACK_DISABLE_LOCAL_CONFIG": "1",
            **more,
        }

    def wrapped(self) -> dict[str, str]:
        """The variables by which it runs on the distribution's Python, which has no pkgjail."""
        wrapper = str(self.python.parent / "pkgjail-spack-python")
        return {"SPACK_PYTHON": wrapper, "PKGJAIL_SPACK_PYTHON": SYSTEM_PYTHON}

    def __call__(
        self, *words: str, environment: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `spack …`."""
        variables = self.variables(**(environment or {}))
        return self.user.run([self.script, *words], environment=variables, **options)

    def build(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`spack jail --build-environment`, which must work out."""
        done = self(
            "jail", "--build-environment", self.environment, "--whitelist", self.whitelist, *words, **options
        )
        assert done.returncode == 0, done.stderr
        return done

    def configure(self, section: str, text: str) -> None:
        """Write a file of its configuration."""
        self.user_writes(self.root / "etc" / "spack" / f"{section}.yaml", text)

    def user_writes(self, path: Path, text: str) -> None:
        """Write a file that is the user's."""
        path.write_text(text)
        if self.user.uid != os.geteuid():
            os.chown(path, self.user.uid, self.user.uid)


def declared_entry_points() -> dict[str, list[str]]:
    """Those that setup.py declares."""
    for node in ast.walk(ast.parse((TOP / "setup.py").read_bytes())):
        if isinstance(node, ast.keyword) and node.arg == "entry_points":
            found: dict[str, list[str]] = ast.literal_eval(node.value)
            return found
    raise AssertionError


def make_python(place: Path, library: Path) -> Path:
    """A virtual environment of the distribution's Python with pkgjail in it, as pip leaves it."""
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", place], check=True)
    (site,) = place.glob("lib/python3*/site-packages")
    (site / "pkgjail.pth").write_text(f"{library}\n")
    information = site / "pkgjail-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: pkgjail\nVersion: 0.1.0\n")
    groups = declared_entry_points()
    lines = [line for group, points in groups.items() for line in (f"[{group}]", *points)]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for point in groups["console_scripts"]:
        name, module, function = point.replace(":", " = ").split(" = ")
        script = place / "bin" / name
        script.write_text(
            f"#!{place}/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        )
        script.chmod(0o755)
    return place / "bin" / "python"


@pytest.fixture
def spack(user: Caller, library: Path) -> Spack:
    root = user.home / "spack"
    if SPACK_ROOT:
        shutil.copytree(SPACK_ROOT, root, symlinks=True)
    else:
        make_standin(root)
    python = make_python(user.home / "python", library)
    (user.home / "python.toml").write_text(WHITELIST)
    if user.uid != os.geteuid():
        subprocess.run(["chown", "-R", "-h", f"{user.uid}:{user.uid}", user.home], check=True)
    return Spack(root, python, user)
