"""What a command in a jail has as outside: its umask, the path it came by, and mounts that come later."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.core.errors import JailError
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.core.working_directory import path_of_working_directory
from pkgjail.jails.layout import Layout
from pkgjail.jails.links_on_the_way import add_links, links_of_host, path_inside
from pkgjail.jails.plan import plan_jail
from pkgjail.jails.run import default_environment
from pkgjail.sandbox.steps import Bind, Symlink
from tests.conftest import SYSTEM_PYTHON
from tests.test_plan import manifest as manifest_of_names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Caller


@pytest.fixture
def work(anyone: Caller) -> Path:
    """Return a directory of the user's."""
    directory = anyone.home / "work"
    directory.mkdir()
    os.chown(directory, anyone.uid, anyone.uid)
    return directory


# --- umask --------------------------------------------------------------------------------------

# What the jail itself makes: directories, files that are made at entry, mount points and devices.
_MADE = (
    "/ /bin /etc /etc/passwd /etc/ld.so.cache /tmp /var /var/tmp /srv /dev /dev/null /dev/shm /dev/pts /proc"
)


@pytest.mark.parametrize("umask", [0o002, 0o077])
@pytest.mark.parametrize(
    "way", [pytest.param((), id="its descriptors"), pytest.param(("--tty",), id="a terminal")]
)
def test_a_command_has_the_umask_of_its_caller(
    anyone: Caller, manifest_file: Path, work: Path, umask: int, way: tuple[str, ...]
) -> None:
    """In the first entry and in a replay; what the jail itself makes has the same modes with each umask."""
    script = f"umask; : > /srv/file && mkdir /srv/directory; stat -c %n=%a {_MADE}"
    words: list[str | Path] = ["run", *way, "--bind", f"{work}:/srv", manifest_file, "--", "sh", "-c", script]
    shown = []
    for mask in (0o022, umask, umask):
        ran = anyone.pkgjail(*words, umask=mask)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        used, *modes = ran.stdout.split()
        assert int(used, 8) == mask
        assert (work / "file").stat().st_mode & 0o777 == 0o666 & ~mask
        assert (work / "directory").stat().st_mode & 0o777 == 0o777 & ~mask
        (work / "file").unlink()
        (work / "directory").rmdir()
        shown.append(modes)
    assert "/etc/passwd=644" in shown[0]
    assert shown[1:] == shown[:1] * 2


def test_a_command_in_an_environment_has_the_umask_of_its_caller(anyone: Caller, manifest_file: Path) -> None:
    """Not that of the build, with which the environment's own files are made."""
    built = anyone.pkgjail("build", manifest_file, "env", umask=0o022)
    assert built.returncode == 0, built.stderr
    for umask in ("0007", "0077"):
        ran = anyone.pkgjail("enter", "env", "--", "sh", "-c", "umask", umask=int(umask, 8))
        assert (ran.returncode, ran.stdout.split()) == (0, [umask]), ran.stderr


# --- the path that the caller came by -----------------------------------------------------------


class Tree:
    """A build below `top`, links that lead to it, and the path by which a user came, all by `links`.

    In a link's text, "T" at the beginning is `top`.
    """

    def __init__(self, top: bytes, files: str, links: str, came_by: str) -> None:
        self.top = top
        self.real, self.path = (top + b"/" + name.encode("latin-1") for name in (files, came_by))
        os.makedirs(self.real)
        for line in links.split(", "):
            name, text = (part.encode("latin-1") for part in line.split(" -> "))
            os.makedirs(os.path.dirname(top + b"/" + name), exist_ok=True)
            os.symlink(top + text[1:] if text.startswith(b"T/") else text, top + b"/" + name)

    def options(self, *binds: UserBind, paths: bool = True) -> JailOptions:
        """Return the options of `--cwd`, for a caller who came by `path`."""
        own = UserBind(source=self.real, destination=self.real, writable=True)
        return JailOptions(
            binds=(own, *binds),
            cwd=self.path,
            paths=(self.path,) if paths else (),
            environment=default_environment(),
        )

    def planned(self, options: JailOptions, names: str = "/tmp/x") -> list[str]:
        """Return what a plan makes below `top`, in a jail of a manifest with these names."""
        made = []
        for step in plan_jail(manifest_of_names(names), options, entry_files={}).steps:
            if isinstance(step, Symlink):
                made.append(f"{self._name(step.path)} -> {self._text(step.target)}")
            elif isinstance(step, Bind):
                made.append(f"{self._name(step.path)} bind {self._name(step.source)}")
        return made

    def _name(self, path: bytes) -> str:
        return self._text(path).removeprefix("T/")

    def _text(self, path: bytes) -> str:
        return path.replace(self.top, b"T").decode("latin-1")


# The files, the links, the path by which the user came, and the links in the jail.
_WAYS = [
    pytest.param("gpfs/me", "home -> T/gpfs", "home/me", "home -> T/gpfs", id="an absolute link"),
    pytest.param("gpfs/me", "home -> gpfs", "home/me", "home -> gpfs", id="a relative link"),
    pytest.param("gpfs/me", "home/me -> ../gpfs/me", "home/me", "home/me -> ../gpfs/me", id="the last name"),
    pytest.param(
        "gpfs/me",
        "home -> net/home, net -> T/nfs, nfs/home -> ../gpfs, gpfs/now -> me, other -> gpfs",
        "home/now",
        "home -> net/home, net -> T/nfs, nfs/home -> ../gpfs, gpfs/now -> me",
        id="a chain, and none beside it",
    ),
    pytest.param(
        "g\xff \n/b'$(x)", "h\\\xfe -> g\xff \n", "h\\\xfe/b'$(x)", "h\\\xfe -> g\xff \n", id="odd names"
    ),
]  # fmt: skip


@pytest.mark.parametrize(("files", "links", "came_by", "made"), _WAYS)
@pytest.mark.parametrize("way", ["--cwd", "--bind"])
def test_the_links_on_the_way_are_made(  # noqa: PLR0913, PLR0917 - a row
    tmp_path: Path, files: str, links: str, came_by: str, made: str, way: str
) -> None:
    """The bind is at the path without links, whichever path the caller named."""
    tree = Tree(bytes(tmp_path), files, links, came_by)
    bind = UserBind(source=tree.path, destination=tree.path, writable=True)
    options = tree.options() if way == "--cwd" else JailOptions(binds=(bind,))
    assert tree.planned(options) == [*made.split(", "), f"{files} bind {files}"]
    assert [path for path, _ in links_of_host(options)] == [
        step.path
        for step in plan_jail(manifest_of_names("/tmp/x"), options, entry_files={}).steps
        if isinstance(step, Symlink)
    ]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return a tree in which a link to a home leads to the build."""
    return Tree(bytes(tmp_path), "gpfs/me/build", "home -> gpfs", "home/me/build")


_OWN = "gpfs/me/build bind gpfs/me/build"


def test_a_link_that_the_jail_cannot_have_is_not_made(tree: Tree) -> None:
    """The manifest's names come first, then the destinations of binds. No link leads nowhere."""
    top = os.fsdecode(tree.top)
    assert tree.planned(tree.options(), f"{top}/home") == [_OWN]
    for link in ("home -> elsewhere", "home -> gpfs"):  # the manifest's own
        assert tree.planned(tree.options(), f"{top}/{link}") == [link, _OWN]
    many = "\n".join(f"{top}/{number}" for number in range(100))  # in a directory for an overlay
    assert tree.planned(tree.options(), many) == ["home -> gpfs", _OWN]  # the bind is there too
    os.mkdir(tree.top + b"/data")
    below = UserBind(source=tree.top + b"/data", destination=tree.path + b"/data", writable=False)
    assert tree.planned(tree.options(below)) == [_OWN, "home/me/build/data bind data"]
    other = UserBind(source=tree.top + b"/data", destination=tree.top + b"/data", writable=False)
    alone = JailOptions(binds=(other,), paths=(tree.path,))
    assert tree.planned(alone) == ["data bind data"]


def test_a_link_that_a_bind_shows_is_not_made_again(tree: Tree) -> None:
    """The bind of a home shows its links."""
    whole = UserBind(source=tree.top, destination=tree.top, writable=False)
    plan = plan_jail(manifest_of_names("/tmp/x"), tree.options(whole), entry_files={})
    assert not any(isinstance(step, Symlink) for step in plan.steps)


def test_a_bind_stays_where_it_was_asked_for_if_links_cannot_be_made(tree: Tree) -> None:
    top = os.fsdecode(tree.top)
    bind = UserBind(source=tree.path, destination=tree.path, writable=False)
    assert tree.planned(JailOptions(binds=(bind,)), f"{top}/home/x") == ["home/me/build bind gpfs/me/build"]


def test_a_loop_of_links_is_the_callers_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    loop = bytes(tmp_path / "loop")
    with pytest.raises(JailError, match="Too many levels of symbolic links"):
        plan_jail(
            manifest_of_names("/tmp/x"),
            JailOptions(binds=(UserBind(source=loop, destination=loop, writable=False),)),
            entry_files={},
        )


@pytest.mark.parametrize("words", [["--cwd"], ["--bind", "."]])
def test_a_command_finds_files_by_the_path_that_its_caller_came_by(
    anyone: Caller, manifest_file: Path, words: list[str]
) -> None:
    """And by the one without links. So it is in a replay, for another path, and once a link has changed."""
    tree = Tree(os.fsencode(anyone.home), "gpfs/me", "home -> gpfs, other -> home", "other/me")
    with open(tree.real + b"/configure", "w", encoding="ascii") as file:
        file.write("#!/bin/sh\nexit 7\n")
    os.chmod(tree.real + b"/configure", 0o555)  # noqa: S103 - a program
    script = '"$1/me/configure"; echo $? "$(pwd -L)" "$PWD"; readlink "$1"; readlink "$2"; "$3/me/configure"'

    def run(came_by: str) -> tuple[int, str]:
        names = [f"{anyone.home}/{name}" for name in (came_by, "home", "gpfs")]
        ran = anyone.pkgjail(
            "run", *words, manifest_file, "--", "sh", "-c", script, "sh", *names,
            cwd=f"{anyone.home}/{came_by}/me", environment={"PWD": f"{anyone.home}/{came_by}/me"},
        )  # fmt: skip
        return ran.returncode, ran.stdout.replace(str(anyone.home), "H") + ran.stderr

    def expected(came_by: str, *links: str) -> tuple[int, str]:
        here = f"H/{came_by}/me" if words == ["--cwd"] else "/"
        return 7, "\n".join([f"7 {here} {here}", *links, ""])

    assert [run("other"), run("other")] == [expected("other", "home", "gpfs")] * 2
    assert run("home") == expected("home", "gpfs", "gpfs")
    os.unlink(tree.top + b"/other")
    os.symlink(b"./home", tree.top + b"/other")
    assert run("other") == expected("other", "./home", "gpfs")


def test_a_variable_that_leads_elsewhere_does_not_count(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """PWD may be left over from a program that changed the directory."""
    monkeypatch.chdir(os.fsdecode(tree.real))
    top = os.fsdecode(tree.top)
    for value in (f"{top}/home", f"{top}/home/../home/me/build", "home/me/build", f"{top}/none", ""):
        monkeypatch.setenv("PWD", value)
        assert path_of_working_directory() == tree.real
    monkeypatch.setenv("PWD", f"/{top}/home//me/build/")
    assert path_of_working_directory() == tree.path


def test_the_command_starts_without_links_if_they_cannot_be_made(tree: Tree) -> None:
    for names, path in (("/tmp/x", tree.path), (f"{os.fsdecode(tree.top)}/home", tree.real)):
        layout = Layout(manifest_of_names(names))
        add_links(layout, tree.options())
        assert path_inside(layout, tree.options()) == path


def test_an_environment_is_entered_at_the_path_that_its_caller_came_by(
    anyone: Caller, manifest_file: Path
) -> None:
    """Whether the bind of the build or the caller names it by links; for `--cwd`, and for a program."""
    tree = Tree(os.fsencode(anyone.home), "gpfs/me", "home -> gpfs", "home/me")
    built = anyone.pkgjail("build", "--bind", "home/me", manifest_file, "env")
    assert built.returncode == 0, built.stderr
    code = "from pkgjail import *; isolate_environment('../../env', ['sh', '-c', 'pwd; pwd -P'])"
    for path in (tree.path, tree.real):
        at: dict[str, Any] = {"cwd": path, "environment": {"PWD": os.fsdecode(path)}}
        entered = anyone.pkgjail("enter", "--cwd", "../../env", "--", "sh", "-c", "pwd; pwd -P", **at)
        continued = anyone.run([SYSTEM_PYTHON, "-c", code], **at)
        expected = f"{os.fsdecode(path)}\n{os.fsdecode(tree.real)}\n"
        assert [entered.stdout, continued.stdout] == [expected] * 2, entered.stderr + continued.stderr
