"""The places that a command takes from its caller: paths on command lines, and what is never shown whole."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.options import UserBind
from pkgjail.integrations.spack.caller import places
from pkgjail.integrations.spack.caller.places import Place, files_of_caller, named_places, why_not_whole
from pkgjail.integrations.spack.caller.variables import configuring_variables, given_variables, is_for_shells
from pkgjail.integrations.spack.instance.model import Instance, instance_binds, is_covered, never_shown

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with two files and two directories, which is the working directory."""
    made = tmp_path / "home"
    for name in ("src/deep", "proj"):
        (made / name).mkdir(parents=True)
    for name in ("spec.yaml", "proj/spack.yaml"):
        (made / name).touch()
    monkeypatch.setenv("HOME", str(made))
    monkeypatch.chdir(made)
    return made


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("zlib@1.2 +shared %gcc /abc123 zlib/abc123", [], id="specs"),
        pytest.param("-p 4 zlib --fresh missing", [], id="options and words that are no paths"),
        pytest.param("./spec.yaml", ["file spec.yaml"], id="a file"),
        pytest.param("spec.yaml proj", ["file spec.yaml"], id="words: a file counts, a directory does not"),
        pytest.param("-d src zlib", ["directory src"], id="an option's value"),
        pytest.param("--source-path=src --path src/deep", ["directory src", "directory src/deep"], id="long"),
        pytest.param("--directory mirror", ["missing mirror"], id="a directory to be made"),
        pytest.param("-d mirror", [], id="an option that may be a flag"),
        pytest.param("-d./src", ["directory src"], id="option and value in one word"),
        pytest.param("proj/spack.yaml", ["file proj/spack.yaml"], id="a word with a slash that exists"),
        pytest.param("foo dev_path=~/src", ["directory src"], id="a variant of a spec"),
        pytest.param("file://{home}/src https://a.b/c", ["directory src"], id="addresses"),
        pytest.param("/dev/null <(x) /proc/1", [], id="devices"),
        pytest.param("../home/src/../proj", ["directory proj"], id="by way of other directories"),
    ],
)
def test_paths_on_a_command_line_are_found(home: Path, line: str, expected: list[str]) -> None:
    """Specs, numbers and URLs are none."""
    found = named_places(line.format(home=home).split(), "")
    assert [f"{place.kind} {os.path.relpath(place.path, home)}" for place in found] == expected


def test_paths_in_a_spec_of_one_word_are_found(home: Path) -> None:
    """A shell passes a quoted spec as one word."""
    found = named_places([f"foo dev_path={home}/src ^bar dev_path='{home}/proj'"], "")
    assert [place.path for place in found] == [f"{home}/src", f"{home}/proj"]


def test_paths_in_a_working_directory_that_is_shown_are_left_out(home: Path) -> None:
    """They need no bind, and each would need a saved jail of its own."""
    assert named_places(["./spec.yaml", "src", "."], str(home)) == ()
    assert [place.path for place in named_places([".."], str(home))] == [str(home.parent)]


@pytest.mark.parametrize(
    ("place", "source"),
    [
        pytest.param(Place("proj/spack.yaml", "file"), "proj", id="Spack looks for more beside its manifest"),
        pytest.param(Place("spec.yaml", "file"), "spec.yaml", id="another file"),
        pytest.param(Place("src", "directory"), "src", id="a directory"),
        pytest.param(Place("src/a/b", "missing"), "src", id="a directory to be made"),
    ],
)
def test_the_source_of_a_place(home: Path, place: Place, source: str) -> None:
    """Protects Spack from lacking what it reads beside a file, or makes in a directory."""
    assert Place(f"{home}/{place.path}", place.kind).source == f"{home}/{source}"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/", "it is the root directory"),
        ("/usr/share", "the manifest decides about /usr"),
        ("/lib", "the manifest decides about /usr"),  # a link on a system with one /usr
        ("/etc", "the manifest decides about /etc"),
        ("/opt/vendor", "the manifest decides about /opt"),
        ("/usr/local/src", "the manifest decides about /usr/local"),
        ("/run/user", "the manifest decides about /run"),
        ("/var", "it is a directory that users share"),
        ("/var/tmp", "it is a directory that users share"),
        ("{home}", "it is your home directory, and software in it would be visible that nobody declared"),
        ("{home}/..", "your home directory is in it"),
        ("{link}", "it is your home directory, and software in it would be visible that nobody declared"),
        ("{home}/.local", "it is the directory of software that you installed"),
        ("{sticky}", "it is a directory that users share"),
        ("{home}/src", ""),
        ("{home}/.local/share/work", ""),
        ("{sticky}/mine", ""),
    ],
)
def test_directories_that_are_never_shown_whole(home: Path, path: str, why: str) -> None:
    """Undeclared software could be in them. A directory further down may be shown."""
    sticky, link = home.parent / "scratch", home.parent / "link"
    (sticky / "mine").mkdir(parents=True)
    sticky.chmod(0o1777)
    link.symlink_to(home)
    assert why_not_whole(path.format(home=home, sticky=sticky, link=link)) == why


def test_spack_may_not_write_to_a_home_itself(home: Path) -> None:
    """A view in the home is made by names beside it. Binds of the user's own may show the home."""
    one = Instance(
        root="/s", python="/p", writable=(str(home), str(home.parent), "/tmp", f"{home}/src"),
        readable=(str(home),), tools=(), watched=(),
    )  # fmt: skip
    assert never_shown(one, ()) == [str(home), str(home.parent)]
    whole = UserBind(source=bytes(home), destination=bytes(home), writable=True)
    assert never_shown(one, [whole]) == [str(home.parent)]
    assert [bind.source for bind in instance_binds(one)] == [bytes(home / "src")]
    own = replace(one, root=str(home), writable=(str(home),))  # as of a service user
    assert (never_shown(own, ()), [bind.source for bind in instance_binds(own)]) == ([], [bytes(home)])


def test_a_bind_within_another_needs_no_mount_of_its_own(home: Path) -> None:
    """Otherwise no file could be moved between them; what is read-only stays so."""

    def bind(name: str, *, writable: bool = True) -> UserBind:
        path = bytes(home / name)
        return UserBind(source=path, destination=path, writable=writable)

    assert is_covered(bind("src/deep"), [bind("src")])
    assert not is_covered(bind("src/deep", writable=False), [bind("src")])
    assert not is_covered(bind("src/deep"), [bind("src", writable=False)])
    assert not is_covered(bind("proj"), [bind("src")])


def test_the_files_of_the_caller_that_exist(home: Path) -> None:
    """Git's, ssh's, and those that variables name."""
    (home / ".ssh").mkdir()
    for name in (".gitconfig", ".ssh/known_hosts", ".ssh/id_rsa", "ca.pem"):
        (home / name).touch()
    variables = {
        "SSL_CERT_FILE": f"{home}/ca.pem",
        "SSH_AUTH_SOCK": "/no/such",
        "CURL_CA_BUNDLE": "relative",
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    expected = [".gitconfig", ".ssh/known_hosts", "ca.pem"]
    assert files_of_caller(variables) == tuple(f"{home}/{name}" for name in expected)
    (home / ".config/git").mkdir(parents=True)
    assert files_of_caller({}) == (f"{home}/.gitconfig", f"{home}/.ssh/known_hosts", f"{home}/.config/git")
    assert files_of_caller({"XDG_CONFIG_HOME": f"{home}/x"})[2:] == ()


CALLERS = {
    "SPACK_X": "1", "SPACK_LOADED_HASHES": "1", "HOME": "1", "TMPDIR": "1", "USER": "1", "https_proxy": "1",
    "SLURM_JOB_ID": "1", "CI": "1", "CI_JOB_ID": "1", "GIT_SSH_COMMAND": "1", "COLUMNS": "1", "EDITOR": "1",
    "SITE_A": "1", "SITE_PATH": "1", "PATH": "1", "LD_LIBRARY_PATH": "1", "LD_PRELOAD": "1", "CPATH": "1",
    "MODULEPATH": "1", "PWD": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "line", "expected"),
    [
        pytest.param(
            (), "install zlib",
            "CI CI_JOB_ID COLUMNS EDITOR GIT_SSH_COMMAND SLURM_JOB_ID SPACK_LOADED_HASHES https_proxy",
            id="by default",
        ),
        pytest.param(
            ("SITE_*", "MODULEPATH"), "find",
            "CI CI_JOB_ID COLUMNS EDITOR GIT_SSH_COMMAND MODULEPATH SITE_A SLURM_JOB_ID SPACK_LOADED_HASHES "
            "https_proxy",
            id="a site's own; a pattern passes on no path",
        ),
        pytest.param(
            (), "load zlib",
            "CI CI_JOB_ID COLUMNS CPATH EDITOR GIT_SSH_COMMAND LD_LIBRARY_PATH MODULEPATH PATH SITE_A "
            "SITE_PATH SLURM_JOB_ID SPACK_LOADED_HASHES https_proxy",
            id="a command that prints code for the caller's shell",
        ),
    ],
)  # fmt: skip
def test_variables_that_are_passed_on(words: tuple[str, ...], line: str, expected: str) -> None:
    """No jail depends on these, so each command takes its own caller's."""
    command, *arguments = line.split()
    assert sorted(given_variables(CALLERS, words, command, arguments)) == expected.split()
    assert list(configuring_variables(CALLERS)) == ["HOME", "SPACK_X", "TMPDIR", "USER"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("env activate x", True),
        ("env deactivate", True),
        ("env list", False),
        ("unload", True),
        ("find", False),
    ],
)
def test_commands_that_print_code_for_shells(line: str, expected: bool) -> None:  # noqa: FBT001
    """They need the variables of the shell, as they print changed values of these."""
    command, *arguments = line.split()
    assert is_for_shells(command, arguments) is expected


def test_variables_to_which_options_refer_affect_the_configuration() -> None:
    """Spack expands them, so it needs them inside, and their values decide what is shown."""
    variables = {"A": "1", "B_2": "2", "C": "3", "PATH": "4"}
    options = ["-c", "config:build_stage:$A/${B_2}/x", "-c", "config:misc_cache:$PATH/$spack"]
    assert configuring_variables(variables, options) == {"A": "1", "B_2": "2", "USER": ""}


def test_a_deleted_working_directory_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that do not need it work all the same."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert places.working_place() == ""
    assert named_places(["./x"], "") == ()
