"""The layout: imports run one way, heavy libraries stay in their places, and entering a jail is light.

A unit is what stands directly in `pkgjail`: a module, or a package with all that is in it. Every
import counts, wherever it stands: in a function it would only fail later, and one for type
checkers alone ties two units together for a reader just as well.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.manifest import write_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.model import Manifest

PACKAGE = Path(__file__).resolve().parent.parent / "pkgjail"

# From the bottom to the top. A unit may import what stands in a lower row, and never a neighbour.
ROWS = """
    wording
    errors sandbox filesystems places holding inside situation stdio
    dirstate
    prepared removal model
    patterns reporter cache names parallel untrusted scratch
    probe baseline layers unpacking listening
    policy graph files hashing manifest mounts trees masks whole backends explain
    origin
    drift limiting loader choosing questions planned protected
    api jail report
    export checking verifying
    environments
    __init__
    commands
    spack
    __main__
"""
HEIGHT = {unit: height for height, row in enumerate(ROWS.strip().splitlines()) for unit in row.split()}

# The sandbox's types are known where its plan is made and where its end is told, not elsewhere.
USERS_OF_THE_SANDBOX = {
    "choosing", "environments", "explain", "export", "jail", "limiting", "loader", "mounts", "prepared",
    "probe", "protected", "untrusted", "whole",
}  # fmt: skip

# Everything else that is imported and not the standard library's, and the one place for each.
PLACES = {
    "apt_pkg": "backends/apt.py",
    "argcomplete": "commands/",
    "cyclonedx": "export/cyclonedx.py",
    "debian": "backends/dpkg.py",
    "elftools": "checking/elf.py",
    "networkx": "graph.py",
    "packageurl": "export/",
    "pathspec": "patterns.py",
    "rich": "commands/",
    "solv": "backends/repositories/binding.py",
    "spdx_tools": "export/spdx.py",
    "tomli": "policy/",
    "tomllib": "policy/",
    "typing_extensions": "",  # anywhere, as it is for type checkers alone
}
HEAVY = ("networkx", "rich", "pathspec", "sqlite3", "multiprocessing", "pkgjail.backends", "pkgjail.api")


def unmeasured() -> dict[str, str]:
    """The environment without coverage, which would load itself into each subprocess: not pkgjail's doing."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "COV_CORE"))
    }


def source_files() -> list[Path]:
    """Every module of the package, those behind the link `backends` too."""
    return sorted(Path(folder, name) for folder, _, names in os.walk(PACKAGE, followlinks=True)
                  for name in names if name.endswith(".py"))  # fmt: skip


FILES = {path.relative_to(PACKAGE).as_posix(): path for path in source_files()}


def unit_of(name: str) -> str:
    """The unit that the file `name` belongs to."""
    return name.partition("/")[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The full names of all that a file imports, `from x import y` as `x.y`."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def units_used(name: str) -> set[str]:
    """The other units that the file `name` imports; `__init__` for a name of `pkgjail` itself."""
    parts = [one.split(".") for one in imported(FILES[name]) if one.split(".")[0] == "pkgjail"]
    used = {part[1] if len(part) > 1 and part[1] in HEIGHT else "__init__" for part in parts}
    return used - {unit_of(name)}


def outsiders(name: str) -> set[str]:
    """The top-level modules that the file `name` imports and that are not pkgjail's."""
    return {one.partition(".")[0] for one in imported(FILES[name])} - {"pkgjail"}


def is_standard(module: str) -> bool:
    """Whether a top-level module belongs to Python itself."""
    spec = importlib.util.find_spec(module)
    origin = "" if spec is None else spec.origin or ""
    home = sysconfig.get_paths()["stdlib"]
    return origin in {"built-in", "frozen"} or (origin.startswith(home) and "-packages" not in origin)


def test_every_unit_has_its_row() -> None:
    """Protects the rows from a unit that is in none, or no more there."""
    assert {unit_of(name) for name in FILES} == set(HEIGHT)


@pytest.mark.parametrize("name", FILES)
def test_imports_run_one_way(name: str) -> None:
    """Protects that a unit can be read, tested and changed without those above it or beside it."""
    height = HEIGHT[unit_of(name)]
    assert {used for used in units_used(name) if HEIGHT[used] >= height} == set()


@pytest.mark.parametrize("name", FILES)
def test_fields_with_defaults_come_last(name: str) -> None:
    """Protects Python 3.9, which has no keyword-only dataclasses: newer ones do not mind the order."""
    for node in ast.walk(ast.parse(FILES[name].read_bytes())):
        if isinstance(node, ast.ClassDef) and any(ast.unparse(d) == "record" for d in node.decorator_list):
            has_default = [field.value is not None for field in node.body if isinstance(field, ast.AnnAssign)]
            assert has_default == sorted(has_default), node.name


@pytest.mark.parametrize("name", FILES)
def test_the_sandbox_stands_alone(name: str) -> None:
    """Protects the stage that must be audited: it needs nobody, and few know it."""
    if unit_of(name) == "sandbox":
        assert units_used(name) == set()
        assert [module for module in outsiders(name) if not is_standard(module)] == []
    elif unit_of(name) not in USERS_OF_THE_SANDBOX:
        assert "sandbox" not in units_used(name)


@pytest.mark.parametrize("name", FILES)
def test_libraries_stay_in_their_places(name: str) -> None:
    """Protects start-up times and hosts that lack a library; nothing at all may import Spack."""
    for module in outsiders(name):
        if module in PLACES:
            assert name.startswith(PLACES[module]), module
        else:
            assert is_standard(module), module


@pytest.mark.parametrize(
    "code",
    [
        "import pkgjail",
        "import pkgjail.jail",
        "import pkgjail.manifest",
        "from pkgjail import run_in_jail, read_manifest",
        "from pkgjail.commands import make_parser; make_parser()",
    ],
)
def test_entering_imports_nothing_heavy(code: str) -> None:
    """Protects the time that it takes to enter a jail: what resolving needs is not loaded."""
    code += f"; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=unmeasured(), capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_run_imports_nothing_heavy(base_manifest: Manifest, tmp_path: Path) -> None:
    """Protects the same for the whole of `pkgjail run`, from the first module to the command's end."""
    path = tmp_path / "m.jsonl"
    write_manifest(base_manifest, path)
    command = [sys.executable, "-X", "importtime", "-m", "pkgjail", "run", str(path), "--", "true"]
    done = subprocess.run(command, env=unmeasured(), capture_output=True, text=True, check=False)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0, done.stderr
    assert "pkgjail.jail" in loaded
    assert loaded & set(HEAVY) == set()


def test_resolve_imports_nothing_that_enters(tmp_path: Path) -> None:
    """Protects the time that `pkgjail resolve` takes to start: no stage, no plan, no other verb."""
    command = [sys.executable, "-X", "importtime", "-m", "pkgjail", "resolve", "base", "--no-hash"]
    done = subprocess.run(
        [*command, "-o", tmp_path / "m.jsonl"], env=unmeasured(), capture_output=True, text=True, check=False
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0, done.stderr
    assert "pkgjail.files" in loaded
    entering = {
        "pkgjail.jail",
        "pkgjail.mounts",
        "pkgjail.prepared",
        "pkgjail.sandbox",
        "networkx",
        "pkgjail.commands.run",
    }
    assert loaded & entering == set()
