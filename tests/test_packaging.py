"""Packaging: what a wheel and an sdist contain, what they declare, and that the project's settings agree."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import pkgjail
from tests.test_layout import PLACES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.gate

TOP = Path(__file__).resolve().parent.parent
PACKAGE = TOP / "pkgjail"
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = list(chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()))
MAKEFILE = (TOP / "Makefile").read_text(encoding="utf-8")
# The distribution that brings a module, if it has another name; None if it is a package of the host's.
DISTRIBUTIONS = {
    "apt_pkg": None,
    "cyclonedx": "cyclonedx-python-lib",
    "debian": "python-debian",
    "elftools": "pyelftools",
    "packageurl": "packageurl-python",
    "pytest": None,  # who uses the fixture has it
    "solv": None,
    "spdx_tools": "spdx-tools",
    "tomllib": None,
    "typing_extensions": None,
}
# Distributions of which pkgjail uses what is not documented.
BOUNDED = {"argcomplete", "pathspec", "pyelftools", "spdx-tools"}


@pytest.fixture(scope="module")
def release() -> ModuleType:
    """The script behind `make release`."""
    spec = importlib.util.spec_from_file_location("release", TOP / ".ci" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(release: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The sources, the sdist and the wheel of this checkout."""
    place = tmp_path_factory.mktemp("release")
    return (place / "source", *release.build(place))


def test_packages_have_all_files_and_no_others(release: Any, built: tuple[Path, Path, Path]) -> None:
    """A folder or a kind of file that setuptools does not find is noticed, and so is a test in the wheel."""
    release.check(*built)


def test_incomplete_wheel_is_refused(release: Any, built: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """The comparison is one: a file that is in the sources alone is named."""
    source, sdist, wheel = built
    release.copy_checkout(tmp_path)
    (tmp_path / "pkgjail" / "new.data").touch()
    with pytest.raises(release.UnsoundError, match=r"missing: pkgjail/new\.data$"):
        release.check(tmp_path, sdist, wheel)
    assert (source / "pkgjail").is_dir()


def test_wheel_works_when_installed(release: Any, built: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Entry points, lists and assets of a wheel are found where pip puts them."""
    library = str(tmp_path / "library")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        library,
    ]
    subprocess.run([*install, built[2]], check=True)
    release.use(Path(sys.executable), tmp_path, PYTHONPATH=library)
    assert (tmp_path / "base.html").stat().st_size > 0


DATED = "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2030-01-31\n\n- New.\n\n## [1.1.0] - 2029-12-31\n"
CHANGELOGS = [
    ("dated, and nothing is unreleased", DATED, []),
    ("no heading for what is unreleased", DATED.replace("## [Unreleased]\n", ""), []),
    ("an entry is unreleased", DATED.replace("d]\n", "d]\n\n- Newer.\n"), ["has entries below [Unreleased]"]),
    ("no date", DATED.replace("2030-01-31", "unreleased"), ["gives no date for [1.2.0]"]),
    ("an older version", DATED.replace("## [1.2.0] - 2030-01-31\n\n- New.\n", ""), ["[1.1.0] as its latest"]),
    ("no version", "# Changelog\n", ["[] as its latest"]),
]


@pytest.mark.parametrize(
    ("text", "faults"), [row[1:] for row in CHANGELOGS], ids=[row[0] for row in CHANGELOGS]
)
def test_changelog_must_agree_with_the_version(release: Any, text: str, faults: list[str]) -> None:
    """A release has an entry in the changelog that is dated, and leaves nothing behind."""
    found = release.changelog_faults(text, "1.2.0")
    assert len(found) == len(faults)
    assert all(part in fault for part, fault in zip(faults, found))


def test_changelog_has_this_version(release: Any) -> None:
    """The changelog's latest version is the package's; it has no date before the release."""
    found = release.changelog_faults((TOP / "CHANGELOG.md").read_text(encoding="utf-8"), pkgjail.__version__)
    assert not [fault for fault in found if "as its latest version" in fault]


def test_version_is_read_without_an_import(release: Any) -> None:
    """The version is one literal; setuptools would import pkgjail, with all it depends on, for any other."""
    (value,) = (
        node.value
        for node in ast.parse((PACKAGE / "__init__.py").read_bytes()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    )
    assert ast.literal_eval(value) == pkgjail.__version__ == release.declared_version()
    assert PROJECT["dynamic"] == ["version"]


def test_dependencies_are_those_that_are_imported() -> None:
    """Each library that the code imports is declared, and no other."""
    imported = {DISTRIBUTIONS.get(module, module) for module in PLACES} - {None}
    assert {_name(requirement) for requirement in REQUIREMENTS} == imported


def test_upper_bounds_are_on_private_details() -> None:
    """A version is excluded only if pkgjail uses what its library does not document."""
    bounded = {_name(requirement) for requirement in REQUIREMENTS if "<" in requirement.partition(";")[0]}
    assert bounded == BOUNDED


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0]


def test_no_code_of_others_is_in_the_package() -> None:
    """The page of a review contains scripts of pkgjail's own, so that one licence covers all."""
    scripts = [path.name for path in PACKAGE.glob("**/*.js")]
    assert scripts
    assert not [name for name in scripts if ".min." in name]
    assert PROJECT["license"] == "MIT"


def test_help_names_each_target() -> None:
    """`make` prints a line for each target that a person would ask for."""
    targets = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE))
    printed = subprocess.run(
        ["make", "--no-print-directory"], cwd=TOP, capture_output=True, text=True, check=True
    )
    described = dict(line.split(maxsplit=1) for line in printed.stdout.splitlines()[1:])
    assert described.keys() == targets


def test_hooks_are_the_gates() -> None:
    """Git runs before a commit what `make lint` runs, by the same programs."""
    hooks = yaml.safe_load((TOP / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    _, _, recipe = MAKEFILE.partition("\nlint:")
    gates = re.findall(r"^\t\$\(VENV\)/(.*)$", recipe.partition("\n\n")[0], re.MULTILINE)
    assert [hook["entry"] for hook in hooks if "stages" not in hook] == [f".venv/{gate}" for gate in gates]


QUICK = """
import subprocess, pytest
def test_pure(): pass
def test_process(): subprocess.run(["true"])
def test_record(): open("/var/lib/dpkg/status")
@pytest.mark.slow
def test_slow(): raise AssertionError
"""


def test_quick_skips_what_is_impure(tmp_path: Path) -> None:
    """`make quick` starts no process, reads no package manager's records, and leaves slow tests out."""
    (tmp_path / "test_quick.py").write_text(QUICK)
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "no:cacheprovider"]
    quick = subprocess.run(
        [*command, "-p", "tests.pure", str(tmp_path)], cwd=TOP, capture_output=True, text=True, check=True
    )
    assert "1 passed, 2 skipped, 1 deselected" in quick.stdout
