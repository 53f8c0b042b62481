"""The layout: imports run one way, heavy libraries stay in their places, and entering a jail is light.

A room is what stands directly in `pkgjail`: a folder with all that is in it, or a module. Imports run
one way between rooms, and between files. Every import counts, wherever it stands: one in a function
would only fail later, and one for type checkers alone ties two files together for a reader just as well.
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

    from pkgjail.core.model import Manifest

PACKAGE = Path(__file__).resolve().parent.parent / "pkgjail"

# From the bottom to the top. A room may import what stands in a lower row, and never a neighbour.
ROWS = """
    sandbox
    core
    storage
    policy closure manifest backends images
    fileset repositories settings
    api
    jails project
    review export
    machine supervised helper browse
    stages
    environments audit doctor
    __init__
    cli
    integrations
    __main__
"""
HEIGHT = {room: height for height, row in enumerate(ROWS.strip().splitlines()) for room in row.split()}

# The sandbox is known where its steps are made and where its system calls serve, not elsewhere.
USERS_OF_THE_SANDBOX = (
    "audit/", "core/untrusted.py", "doctor/", "environments/", "helper/", "jails/", "machine/", "stages/",
    "supervised/",
)  # fmt: skip

# Everything else that is imported and not the standard library's, and the one place for each.
PLACES: dict[str, str | tuple[str, ...]] = {
    "apt_pkg": "backends/apt.py",
    "argcomplete": "cli/",
    "cyclonedx": "export/cyclonedx.py",
    "pytest": "integrations/pytest_fixture.py",
    "debian": "backends/dpkg.py",
    "elftools": "review/check/elf.py",
    "networkx": "closure/",
    "packageurl": "export/",
    "pathspec": "policy/patterns.py",
    "rich": ("cli/", "browse/"),
    "solv": "repositories/libsolv.py",
    "spdx_tools": "export/spdx.py",
    "textual": ("browse/app.py", "browse/listing.py"),
    "tomli": "policy/",
    "tomllib": "policy/",
    "typing_extensions": "",  # anywhere, as it is for type checkers alone
}
VERBS = "cli/verbs/__init__.py"
HEAVY = ("networkx", "rich", "pathspec", "sqlite3", "multiprocessing", "pkgjail.backends", "pkgjail.api")


def unmeasured() -> dict[str, str]:
    """Return the environment without coverage, which would load itself into each subprocess."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "COV_CORE"))
    }


def source_files() -> list[Path]:
    """Return every module of the package, including those behind the link `backends`."""
    return sorted(Path(folder, name) for folder, _, names in os.walk(PACKAGE, followlinks=True)
                  for name in names if name.endswith(".py"))  # fmt: skip


FILES = {path.relative_to(PACKAGE).as_posix(): path for path in source_files()}


def room_of(name: str) -> str:
    """The room that the file `name` belongs to."""
    return name.partition("/")[0].removesuffix(".py")


def module_of(name: str) -> str:
    """The module's full name."""
    parts = ["pkgjail", *name.removesuffix(".py").split("/")]
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_of(name): name for name in FILES}


def imported(path: Path) -> Iterator[str]:
    """The full names of all that a file imports, `from x import y` as `x.y`."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_used(name: str) -> set[str]:
    """The other files of pkgjail that the file `name` imports."""
    used = set()
    for one in imported(FILES[name]):
        module = one
        while module and module not in MODULES:
            module = module.rpartition(".")[0]
        used.update([MODULES[module]] if module else [])
    return used - {name}


def rooms_used(name: str) -> set[str]:
    """The other rooms that the file `name` imports."""
    return {room_of(used) for used in files_used(name)} - {room_of(name)}


def outsiders(name: str) -> set[str]:
    """The top-level modules that the file `name` imports and that are not pkgjail's."""
    return {one.partition(".")[0] for one in imported(FILES[name])} - {"pkgjail"}


def is_standard(module: str) -> bool:
    """Return whether a top-level module belongs to Python itself."""
    spec = importlib.util.find_spec(module)
    origin = "" if spec is None else spec.origin or ""
    home = sysconfig.get_paths()["stdlib"]
    return origin in {"built-in", "frozen"} or (origin.startswith(home) and "-packages" not in origin)


def test_every_room_has_its_row() -> None:
    """Protects the rows from a room that is in none, or no longer there."""
    assert {room_of(name) for name in FILES} == set(HEIGHT)


@pytest.mark.parametrize("name", FILES)
def test_imports_run_one_way(name: str) -> None:
    """Protects that a room can be read, tested and changed without those above it or beside it."""
    height = HEIGHT[room_of(name)]
    assert {used for used in rooms_used(name) if HEIGHT[used] >= height} == set()


def test_no_files_import_in_a_circle() -> None:
    """Protects that a file can be read after those that it imports, and before those that import it."""
    waiting = {name: files_used(name) for name in FILES}
    while ready := [name for name, used in waiting.items() if not used & waiting.keys()]:
        for name in ready:
            del waiting[name]
    assert waiting == {}


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("cli/verbs/")])
def test_verbs_import_no_verb(name: str) -> None:
    """Protects that a verb can be changed alone: what several verbs share stands in `pkgjail.cli`."""
    assert [used for used in files_used(name) if used.startswith("cli/verbs/") and used != VERBS] == []


@pytest.mark.parametrize("name", FILES)
def test_fields_with_defaults_come_last(name: str) -> None:
    """Protects Python 3.9, which has no keyword-only dataclasses: newer ones do not mind the order."""
    for node in ast.walk(ast.parse(FILES[name].read_bytes())):
        if isinstance(node, ast.ClassDef) and any(ast.unparse(d) == "record" for d in node.decorator_list):
            has_default = [field.value is not None for field in node.body if isinstance(field, ast.AnnAssign)]
            assert has_default == sorted(has_default), node.name


@pytest.mark.parametrize("name", FILES)
def test_the_sandbox_stands_alone(name: str) -> None:
    """Protects the room that must be audited: it needs no other, and few know it."""
    if room_of(name) == "sandbox":
        assert rooms_used(name) == set()
        assert [module for module in outsiders(name) if not is_standard(module)] == []
    elif not name.startswith(USERS_OF_THE_SANDBOX):
        assert "sandbox" not in rooms_used(name)


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
        "import pkgjail.jails.run",
        "import pkgjail.manifest",
        "from pkgjail import run_in_jail, read_manifest",
        "from pkgjail.cli.main import make_parser; make_parser()",
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
    assert "pkgjail.jails.run" in loaded
    assert loaded & set(HEAVY) == set()


def test_resolve_imports_nothing_that_enters(tmp_path: Path) -> None:
    """Protects the time that `pkgjail resolve` takes to start: no stage, no plan, no other verb."""
    command = [sys.executable, "-X", "importtime", "-m", "pkgjail", "resolve", "base", "--no-hash"]
    done = subprocess.run(
        [*command, "-o", tmp_path / "m.jsonl"], env=unmeasured(), capture_output=True, text=True, check=False
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0, done.stderr
    assert "pkgjail.fileset" in loaded
    entering = {
        "pkgjail.jails.run",
        "pkgjail.jails.plan",
        "pkgjail.jails.replay",
        "pkgjail.sandbox",
        "networkx",
        "pkgjail.cli.verbs.run",
    }
    assert loaded & entering == set()
