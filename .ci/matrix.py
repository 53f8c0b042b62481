"""Run the tests on every Python from 3.9 to 3.13 that this machine has, and say which ran.

    matrix.py [MINOR ...]       (9 and 13 for the oldest and the newest alone)

An interpreter is looked for as `python3.N` in PATH and among pyenv's versions. Each gets a virtual
environment of its own under .venv-matrix, kept for the next time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

MINORS = range(9, 14)
TOP = Path(__file__).resolve().parent.parent
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "jsonschema", "typing_extensions", "PyYAML")
# Installed afterwards: with the others, the pip of Python 3.9 looks for versions for ten minutes.
LATER = ("textual",)
# These want a browser's driver or validators, which old versions of pip resolve in minutes: see 'make test'.
ELSEWHERE = ("tests/test_report.py", "tests/test_sbom.py")
# These take minutes, and what they test is the kernel's part, the same under each Python: see 'make test'.
SLOW = tuple(
    f"tests/{name}.py"
    for name in (
        "environments/test_interruptions", "test_escapes", "test_exactness", "test_exactness_host",
        "test_faults", "test_nesting", "test_proc_links",
    )
)  # fmt: skip


def works(interpreter: str, minor: int) -> bool:
    """Whether this really is Python 3.`minor` with venv (pyenv's shims often are not)."""
    check = f"import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, {minor}))"
    return subprocess.run([interpreter, "-c", check], capture_output=True, check=False).returncode == 0


def find(minor: int) -> str | None:
    """An interpreter of Python 3.`minor`, or None."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    in_path = shutil.which(f"python3.{minor}")
    candidates = [str(path) for path in sorted(versions.glob(f"3.{minor}.*/bin/python3"))]
    return next((c for c in [*filter(None, [in_path]), *candidates] if works(c, minor)), None)


def test(interpreter: str, minor: int) -> bool:
    """Run the tests in this interpreter's virtual environment; whether they passed."""
    home = TOP / ".venv-matrix" / f"3.{minor}"
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", home], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--editable", TOP, *TOOLS], check=True)
    subprocess.run([*install, *LATER], check=True)
    tests = [python, "-m", "pytest", "-q", "-n", "2", "-m", "not long and not gate", "-p", "no:cacheprovider"]
    tests += [f"--ignore={name}" for name in (*ELSEWHERE, *SLOW)]
    environment = {**os.environ, "PKGJAIL_EXAMPLES": "100"}
    return subprocess.run(tests, cwd=TOP, env=environment, check=False).returncode == 0


def main() -> int:
    """Run all; exit 1 if the tests failed on any."""
    asked = [int(word) for word in sys.argv[1:]] or MINORS
    found = {minor: find(minor) for minor in asked}
    results = {minor: test(interpreter, minor) for minor, interpreter in found.items() if interpreter}
    for minor in asked:
        outcome = {None: "not on this machine", True: "passed", False: "FAILED"}[results.get(minor)]
        print(f"Python 3.{minor}: {outcome}", flush=True)
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
