"""A project's own jail: `pkgjail.toml`, its lock, and commands without a manifest."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli.main import main
from pkgjail.core.errors import InputError
from pkgjail.project.begin import beginning
from pkgjail.project.model import FILE, LOCK, PYPROJECT, Project
from pkgjail.project.read import read_project
from tests.conftest import NOBODY

if TYPE_CHECKING:
    from pathlib import Path

SMALL = 'packages = ["coreutils", "dash"]\n'


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, which is the working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_the_beginning_can_be_read(project: Path) -> None:
    """With odd names, it is TOML that means the same; and what is asked for is what was named."""
    odd = 'a"b\\c\x7f'
    (project / FILE).write_text(beginning(["build", "./l.toml"], [odd, "gcc"]), encoding="utf-8")
    assert read_project() == Project(file=FILE, lists=("build", "./l.toml"), packages=(odd, "gcc"))


def test_all_keys(project: Path) -> None:
    text = """
lists = ["base"]
blacklists = ["docs"]
[run]
bind = ["/a:/b"]
ro-bind = ["/c"]
env = ["A=1", "B"]
cwd = false
network = false
"""
    expected = Project(
        file=FILE,
        lists=("base",),
        blacklists=("docs",),
        bind=("/a:/b",),
        ro_bind=("/c",),
        env=("A=1", "B"),
        cwd=False,
        network=False,
    )
    (project / FILE).write_text(text)
    assert read_project() == expected
    (project / FILE).unlink()
    (project / PYPROJECT).write_text(f"[tool.pkgjail]{text.replace('[run]', '[tool.pkgjail.run]')}")
    assert read_project() == replace(expected, file=PYPROJECT)


@pytest.mark.parametrize(
    ("file", "text", "problems"),
    [
        pytest.param(FILE, "", 'pkgjail.toml:1: it asks for nothing; add lists = ["build"]', id="empty"),
        pytest.param(FILE, "packages = [", "pkgjail.toml:1: not valid TOML", id="no TOML"),
        pytest.param(
            FILE,
            'package = ["gcc"]\npackages = "gcc"\n[run]\ncwdd = 1\nbind = 2\ncwd = "no"\n',
            "pkgjail.toml:1: unknown key 'package'; did you mean 'packages'?\n"
            "pkgjail.toml:2: 'packages' must be an array of strings, not a string\n"
            "pkgjail.toml:4: unknown key 'cwdd' in [run]; did you mean 'cwd'?\n"
            "pkgjail.toml:5: 'bind' must be an array of strings, not an integer\n"
            "pkgjail.toml:6: 'cwd' must be true or false, not a string",
            id="all problems at once",
        ),
        pytest.param(FILE, "run = 1\n" + SMALL, "pkgjail.toml:1: 'run' must be a table", id="no table"),
        pytest.param(
            PYPROJECT,
            "[tool.pkgjail]\nx = 1\n",
            "pyproject.toml:2: unknown key 'x' in [tool.pkgjail]",
            id="a part",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(project: Path, file: str, text: str, problems: str) -> None:
    (project / file).write_text(text)
    with pytest.raises(InputError) as error:
        read_project()
    assert problems in str(error.value)


def test_a_directory_without_a_project(project: Path) -> None:
    """Other Python projects have a pyproject.toml, too."""
    assert read_project() is None
    (project / PYPROJECT).write_text('[project]\nname = "x"\n')
    assert read_project() is None


def test_a_command_cannot_take_the_place_of_the_file(project: Path) -> None:
    """A second file, which a command could add to the directory, is refused."""
    (project / FILE).write_text(SMALL)
    (project / PYPROJECT).write_text(f"[tool.pkgjail]\n{SMALL}")
    with pytest.raises(InputError, match=r"besides pkgjail\.toml; remove one of them"):
        read_project()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_refused(project: Path) -> None:
    """In a directory that others may write to, it could show the caller's files to a command."""
    (project / FILE).write_text(SMALL)
    os.chown(project / FILE, NOBODY, NOBODY)
    with pytest.raises(InputError, match=f"it belongs to another user, {NOBODY}"):
        read_project()


def test_a_file_that_cannot_be_read(project: Path) -> None:
    (project / FILE).mkdir()
    with pytest.raises(InputError, match=r"pkgjail.toml:1: "):
        read_project()


def test_from_nothing_to_a_command(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The first five minutes: what is told without a file, then init, a command, and its lock."""
    assert main(["run", "--", "true"]) == 125
    assert "begin a project here with 'pkgjail init'" in capfd.readouterr().err
    assert main(["init", "--package", "coreutils", "--package", "dash"]) == 0
    assert main(["init", "--package", "dash"]) == 2
    assert "is there already" in capfd.readouterr().err
    assert main(["run", "--locked", "--", "true"]) == 125
    assert f"{LOCK} is missing; make it with 'pkgjail lock'" in capfd.readouterr().err
    command = ["run", "--", "sh", "-c", "pwd; echo made >file; rm pkgjail.toml || rm *.jsonl || echo kept"]
    assert main(command) == 0
    found = capfd.readouterr()
    assert found.out == f"{project}\nkept\n"
    assert re.match(rf"made {LOCK}, of \d+ packages; keep it in version control\n", found.err)
    assert (project / "file").read_text() == "made\n"
    lock = (project / LOCK).read_bytes()
    assert main(["run", "--locked", "--", "true"]) == 0
    assert (capfd.readouterr().err, (project / LOCK).read_bytes()) == ("", lock)


def test_a_file_that_asks_for_something_else(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The lock follows the file, unless it shall stay as it is; options of the command line are added."""
    (project / FILE).write_text(SMALL)
    assert main(["lock"]) == 0
    assert f"written to {LOCK}" in capfd.readouterr().out
    (project / FILE).write_text('packages = ["coreutils", "dash", "hostname"]\n[run]\nenv = ["A=1"]\n')
    assert main(["run", "--locked", "--", "true"]) == 125
    assert f"{FILE} asks for something else than {LOCK} has" in capfd.readouterr().err
    assert main(["run", "--env", "B=2", "--", "sh", "-c", "hostname; echo $A $B"]) == 0
    assert capfd.readouterr().out == "pkgjail\n1 2\n"
    assert main(["lock", "--json"]) == 0
    assert '"packages"' in capfd.readouterr().out


def test_packages_of_one_run_are_added_to_those_of_the_file(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They once took the place of the file's, without a word."""
    (project / FILE).write_text('packages = ["dash"]\n[run]\nenv = ["A=1"]\n')
    assert main(["run", "--package", "make", "--", "dash", "-c", "make -v | head -c8; echo $A; pwd"]) == 0
    found = capfd.readouterr()
    assert found.out == f"GNU Make1\n{project}\n"
    added = f"the packages are added to those of {FILE} for this run, without its lock"
    assert found.err.splitlines()[-1] == added
    lock = (project / LOCK).read_bytes()
    assert main(["run", "--locked", "--", "dash", "-c", "! make -v"]) == 0
    assert (project / LOCK).read_bytes() == lock


@pytest.mark.parametrize("words", ["-q run", "--quiet run", "-v --debug run", "run -q"])
def test_options_before_the_verb_change_no_meaning(
    words: str, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first word of the command was once taken for a manifest, so that it ran in another jail."""
    (project / FILE).write_text(SMALL)
    (project / "base").mkdir()
    assert main([*words.split(), "--", "sh", "-c", "pwd", "base"]) == 0
    assert capfd.readouterr().out == f"{project}\n"


def test_advice_is_for_the_project_s_file(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A whitelist's line is an error there."""
    (project / FILE).write_text(SMALL)
    assert main(["lock"]) == 0
    assert main(["why", LOCK, "zlib.h"]) == 1
    said = capfd.readouterr().out
    assert f'to add it, write in {FILE}: packages = ["zlib1g-dev"]' in said
    assert main(["run", "--audit", "a.jsonl", "--", "sh", "-c", "cat /usr/include/zlib.h"]) == 1
    assert main(["audit", "show", "a.jsonl"]) == 0
    assert f'{FILE}: packages = ["zlib1g-dev"]' in capfd.readouterr().out


def test_a_project_above_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / FILE).write_text(SMALL)
    (project / "sub/dir").mkdir(parents=True)
    monkeypatch.chdir(project / "sub/dir")
    assert main(["run", "--", "true"]) == 125
    assert f"the project in {project} works there: change to it" in capfd.readouterr().err


def test_the_order_of_packages_does_not_matter(project: Path) -> None:
    (project / FILE).write_text('packages = ["dash", "hostname"]\n')
    assert main(["lock"]) == 0
    lock = (project / LOCK).read_bytes()
    (project / FILE).write_text('packages = ["hostname", "dash", "hostname"]\n')
    assert main(["run", "--locked", "--", "true"]) == 0
    assert main(["lock"]) == 0
    assert (project / LOCK).read_bytes() == lock


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--package", "dash", "--locked", "--", "true"], "--locked is for a project's lock"),
        (["run", "--blacklist", "docs", "--", "true"], "cannot add to a project by --blacklist"),
        (["init", "--list", "nix"], "unknown whitelist 'nix'"),
        (["init", "--package", "no-such-package"], "cannot satisfy 'no-such-package'"),
        (["lock"], "begin a project here with 'pkgjail init'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[str], told: str, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if words[0] == "run":
        (project / FILE).write_text(SMALL)
    assert main(words) in {2, 125}
    assert told in capfd.readouterr().err
    assert words[0] == "run" or os.listdir(project) == []


def test_a_shell_and_init_as_json(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--package", "dash", "--json"]) == 0
    assert '"written": "pkgjail.toml"' in capfd.readouterr().out
    assert main(["shell"]) == 0
    assert (project / LOCK).exists()
