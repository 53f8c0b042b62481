"""An interpreter that has pkgjail installed as by pip. This module imports only the standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent.parent
# The distribution's own interpreter, as every user may execute it.
SYSTEM_PYTHON = "/usr/bin/python3"


def declared_project() -> dict[str, Any]:
    """Return the table `project` of pyproject.toml."""
    # Here, as the standard library has no tomllib in Python 3.9 and `make_python` can do without.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    project: dict[str, Any] = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def declared_entry_points() -> dict[str, list[str]]:
    """Return the entry points of pyproject.toml, by group."""
    project = declared_project()
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    return {
        group: [f"{name} = {value}" for name, value in points.items()] for group, points in groups.items()
    }


def make_python(place: Path, library: Path, groups: dict[str, list[str]] | None = None) -> Path:
    """Make a virtual environment of the distribution's Python that has pkgjail and its entry points."""
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", place], check=True)
    (site,) = place.glob("lib/python3*/site-packages")
    (site / "pkgjail.pth").write_text(f"{library}\n")
    information = site / "pkgjail-0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: pkgjail\nVersion: 0\n")
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
