"""An interpreter that has pkgjail installed as by pip. This module imports only the standard library."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
# The distribution's own interpreter, as every user may execute it.
SYSTEM_PYTHON = "/usr/bin/python3"


def declared_entry_points() -> dict[str, list[str]]:
    """Return the entry points that setup.py declares."""
    for node in ast.walk(ast.parse((TOP / "setup.py").read_bytes())):
        if isinstance(node, ast.keyword) and node.arg == "entry_points":
            found: dict[str, list[str]] = ast.literal_eval(node.value)
            return found
    raise AssertionError


def make_python(place: Path, library: Path, groups: dict[str, list[str]] | None = None) -> Path:
    """Make a virtual environment of the distribution's Python that has pkgjail and its entry points."""
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", place], check=True)
    (site,) = place.glob("lib/python3*/site-packages")
    (site / "pkgjail.pth").write_text(f"{library}\n")
    information = site / "pkgjail-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: pkgjail\nVersion: 0.1.0\n")
    groups = groups or declared_entry_points()
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
