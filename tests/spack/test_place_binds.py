"""What an entry shows of a command's places: binds, the working directory, warnings; or why it may not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import InputError
from pkgjail.core.options import UserBind
from pkgjail.environments.build import build_environment
from pkgjail.integrations.spack.caller.place_binds import show_places
from pkgjail.integrations.spack.caller.places import named_places
from pkgjail.integrations.spack.caller.request import Request
from pkgjail.integrations.spack.instance.editor import uncovered_editor
from pkgjail.integrations.spack.instance.model import Instance

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from pkgjail.integrations.spack.caller.place_binds import Shown

NOTHING = Instance(root="/", python="", writable=(), readable=(), tools=(), watched=())


@pytest.fixture
def environment(tmp_path: Path, base_manifest: Manifest) -> bytes:
    """An environment of the shipped whitelist `base`."""
    made = os.fsencode(tmp_path / "environment")
    build_environment(base_manifest, made)
    return made


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory beside a home, which has a directory and a file."""
    home, made = tmp_path / "home", tmp_path / "work"
    for path in (home / "src", made):
        path.mkdir(parents=True)
    (home / "spec.yaml").touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(made)
    return made


def show(environment: bytes, line: str = "", *, files: tuple[str, ...] = (), given: str = "") -> Shown:
    """Show the places of a command line; `given` is a directory that the jail shows anyway."""
    command, *words = line.split() or ["find"]
    request = Request("", (), command, named_places(words, ""), files, {})
    source = os.fsencode(given)
    binds = [UserBind(source=source, destination=source, writable=True)] if given else []
    return show_places(request, environment, binds, ())


def described(shown: Shown, top: Path) -> list[str]:
    """Return the binds as text, relative to `top`."""
    return [
        f"{'rw' if bind.writable else 'ro'} {os.path.relpath(os.fsdecode(bind.source), top)}"
        for bind in shown.binds
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("find", ["rw work"], id="the working directory alone"),
        pytest.param("install ~/src", ["rw work", "rw home/src"], id="a directory in the home"),
        pytest.param("install ~/spec.yaml", ["rw work", "rw home/spec.yaml"], id="a file, and not its home"),
        pytest.param("mirror ./new", ["rw work"], id="what is to be made in the working directory"),
        pytest.param("find /usr/bin/env", ["rw work"], id="what the manifest has"),
    ],
)
def test_places_are_shown(
    environment: bytes, work: Path, tmp_path: Path, line: str, expected: list[str]
) -> None:
    """Protects commands from missing what they name, and the home from being shown with it."""
    shown = show(environment, line)
    assert (described(shown, tmp_path), shown.warnings) == (expected, ())
    assert shown.cwd == os.fsencode(work)


def test_a_place_that_is_shown_anyway_has_no_bind_of_its_own(environment: bytes, work: Path) -> None:
    """A mount of its own would keep programs from moving files between it and what is around it."""
    assert show(environment, f"install {work}", given=str(work.parent)).binds == ()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param("install ~/", "it is your home directory", id="the home"),
        pytest.param(
            "mirror ~/new", "it does not exist, and .* is not shown: .*; make it first", id="missing"
        ),
        pytest.param("install /srv", "it is a directory that users share", id="a shared directory"),
    ],
)
@pytest.mark.usefixtures("work")
def test_a_place_that_may_not_be_shown_is_refused(environment: bytes, line: str, why: str) -> None:
    """The word comes before anything runs."""
    with pytest.raises(InputError, match=why):
        show(environment, line)


@pytest.mark.usefixtures("work")
def test_the_environment_is_not_shown_for_writing(environment: bytes) -> None:
    """Protects what decides what is visible from the commands that it decides about."""
    request = Request("", (), "install", named_places([os.fsdecode(environment)], ""), (), {})
    with pytest.raises(InputError, match=r"cannot show \S+/environment in the jail"):
        show_places(request, environment, [], (environment,))


def test_a_command_in_the_home(environment: bytes, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts there, and sees what else is shown; one that needs the directory is refused."""
    home = work.parent / "home"
    monkeypatch.chdir(home)
    assert show(environment).binds == ()
    assert show(environment).cwd == b"/"
    assert show(environment, given=str(home / "src")).cwd == os.fsencode(home)
    with pytest.raises(InputError, match=r"cannot run 'spack dev-build' in .*home: .* home directory"):
        show(environment, "dev-build")


@pytest.mark.usefixtures("work")
def test_a_path_of_the_system_that_the_manifest_lacks(environment: bytes) -> None:
    """Protects who names a program that the jail hides; the manifest decides all the same."""
    shown = show(environment, "find /usr/include/pkgjail-none")
    assert [bind.source for bind in shown.binds] == [os.fsencode(os.getcwd())]
    assert shown.warnings[0].startswith(
        "/usr/include/pkgjail-none is outside of the jail: the manifest decides"
    )


def test_files_of_the_caller_are_read_only(environment: bytes, work: Path, tmp_path: Path) -> None:
    """Those of ssh, git and certificates; one in /usr is decided by the manifest."""
    spec = str(work.parent / "home/spec.yaml")
    shown = show(environment, files=(spec, "/usr/share/pkgjail-none", "/etc/pkgjail-none"))
    assert described(shown, tmp_path)[:2] == ["rw work", "ro home/spec.yaml"]
    assert shown.binds[2] == UserBind(
        source=b"/etc/pkgjail-none", destination=b"/etc/pkgjail-none", writable=False
    )
    assert [warning.split()[0] for warning in shown.warnings] == ["/usr/share/pkgjail-none"]


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        pytest.param({}, "", id="none"),
        pytest.param({"EDITOR": "'"}, "", id="quotes that do not match"),
        pytest.param({"EDITOR": "sh -c x"}, "", id="a program of the manifest"),
        pytest.param({"EDITOR": "pkgjail-none -w"}, "EDITOR /usr/bin/pkgjail-none", id="one of no package"),
        pytest.param({"VISUAL": "/opt/e", "EDITOR": "sh"}, "VISUAL /opt/e", id="VISUAL precedes"),
    ],
)
def test_an_editor_that_the_jail_lacks(environment: bytes, variables: dict[str, str], named: str) -> None:
    """Protects `spack edit` from "no editor found" without a reason."""
    found = uncovered_editor({"PATH": "/usr/bin:/bin", **variables}, environment, NOTHING)
    assert (f"{found.variable} {found.path}" if found else "") == named
