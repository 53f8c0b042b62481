"""Parts of `pkgjail.integrations.spack`, each by itself: command lines, binds, records, messages."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

import pkgjail.integrations.spack
from pkgjail.core.entries import Mismatch
from pkgjail.core.errors import DriftError, InputError, Problem
from pkgjail.core.options import UserBind
from pkgjail.core.parameters import parameter
from pkgjail.environments import isolate
from pkgjail.environments.enter import shows
from pkgjail.integrations.spack import active, enter, extensions, hook, inside, wrapper
from pkgjail.integrations.spack.active import ActiveEnvironment
from pkgjail.integrations.spack.caller.argv import is_jail_command, split_argv
from pkgjail.integrations.spack.instance import cache
from pkgjail.integrations.spack.instance.model import (
    Instance,
    has_all_paths,
    instance_binds,
    make_directories,
    symbolic_links,
)
from pkgjail.integrations.spack.instance.uncovered import UncoveredTool
from pkgjail.integrations.spack.messages import with_options

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("line", "options", "command"),
    [
        pytest.param("", [], None, id="nothing"),
        pytest.param("install -v zlib", [], "install", id="a command alone"),
        pytest.param(
            "-d --color always --timestamp find -e x", [], "find", id="options without effect on it"
        ),
        pytest.param(
            "-e dev -C /s -c config:a:b spec",
            ["-e", "dev", "-C", "/s", "-c", "config:a:b"],
            "spec",
            id="options that affect it",
        ),
        pytest.param(
            "--env=dev -D/x -E -m spec",
            ["--env=dev", "-D/x", "-E", "-m"],
            "spec",
            id="options and values in one argument",
        ),
        pytest.param("--print-shell-vars sh,modules", [], None, id="a value that is not a command"),
        pytest.param("-e", ["-e"], None, id="a missing value"),
    ],
)
def test_options_that_affect_the_configuration_are_found(
    line: str, options: list[str], command: str | None
) -> None:
    """The command is found whatever options precede it; some options decide what is bound."""
    assert split_argv(line.split()) == (options, command)


@pytest.mark.parametrize(
    ("command", "has_isolate", "is_jail"),
    [
        ("jail", True, True),
        ("isolate", False, True),
        ("isolate", True, False),
        ("find", False, False),
        (None, False, False),
    ],
)
def test_which_command_runs_outside(command: str | None, has_isolate: bool, is_jail: bool) -> None:  # noqa: FBT001
    """Spack's own `isolate` runs inside, as other commands do."""
    assert is_jail_command(command, has_isolate=has_isolate) is is_jail


def instance(root: Path, **fields: tuple[str, ...]) -> Instance:
    """Return a Spack in `root` with these directories."""
    values = {"writable": (), "readable": (), "watched": (), **fields}
    return Instance(root=str(root), python="/usr/bin/python3", tools=(), **values)


def test_binds_are_the_outermost_directories_and_what_links_lead_to(tmp_path: Path) -> None:
    """The manifest decides about the host's own directories; missing ones are not bound."""
    for name in ("root/etc", "scratch/opt", "venv/lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root" / "opt").symlink_to(tmp_path / "scratch" / "opt")
    one = instance(
        tmp_path / "root",
        writable=(
            f"{tmp_path}/root",
            f"{tmp_path}/root/etc",
            f"{tmp_path}/root/opt",
            "/tmp",
            "/",
            "/no/such",
        ),
        readable=(
            "/usr",
            "/usr/lib/python3",
            f"{tmp_path}/venv",
            f"{tmp_path}/venv/lib",
            f"{tmp_path}/root/etc",
        ),
    )
    assert [(os.fsdecode(bind.source), bind.writable) for bind in instance_binds(one)] == [
        (f"{tmp_path}/root", True),
        (f"{tmp_path}/scratch/opt", True),
        (f"{tmp_path}/venv", False),
    ]


def test_missing_directories_are_looked_for_again(tmp_path: Path) -> None:
    """A jail is saved only if everything exists, with the links, which could lead elsewhere later."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    complete = instance(
        tmp_path,
        writable=(f"{tmp_path}/root", f"{tmp_path}/root/link"),
        readable=("/usr/no", f"{tmp_path}/root/no"),
    )
    binds = (UserBind(source=b"/", destination=b"/", writable=False),)
    assert has_all_paths(complete, instance_binds(complete))
    assert symbolic_links(complete) == [os.fsencode(tmp_path / "root" / "link")]
    missing = instance(tmp_path, writable=(f"{tmp_path}/file/x",))
    assert not has_all_paths(missing, instance_binds(missing))
    assert has_all_paths(missing, binds)


def test_directories_that_spack_would_create_are_created(tmp_path: Path) -> None:
    """Those that cannot be created are omitted; Spack will not be able to create them either."""
    (tmp_path / "file").touch()
    make_directories(instance(tmp_path, writable=(f"{tmp_path}/a/b", f"{tmp_path}/file/x")))
    assert (tmp_path / "a" / "b").is_dir()


def test_a_path_is_shown_by_a_bind_at_its_own_place() -> None:
    """A bind to another destination shows another path; a common prefix of a name does not count."""
    binds = [
        UserBind(source=b"/a", destination=b"/a", writable=True),
        UserBind(source=b"/c", destination=b"/d", writable=True),
    ]
    assert [shows(binds, path) for path in (b"/a", b"/a/x", b"/ab", b"/c", b"/d")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_the_active_environment_is_saved_and_cleared(tmp_path: Path) -> None:
    """It is read again as it was written; clearing leaves nothing. The user's directory is read first."""
    variables = {"SPACK_USER_CACHE_PATH": str(tmp_path / "cache")}
    root = str(tmp_path / "root")
    one = ActiveEnvironment("/env/\udce9", "/python", 7, removing=False, directory="")
    saved = active.save_active(one, root, variables)
    assert saved == one._replace(directory=f"{root}/opt/.pkgjail")
    assert active.load_active(root, variables) == saved
    own = active.save_active(
        saved._replace(removing=True, directory=active.state_directories(root, variables)[1]), root, variables
    )
    assert active.load_active(root, variables) == own
    for each in (own, saved):
        active.save_cache(each, {"x": 1})
        active.clear_active(each)
    assert active.load_active(root, variables) is None
    assert not os.path.exists(f"{root}/opt/.pkgjail")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', "\xff"])
def test_a_file_that_pkgjail_did_not_write_is_refused(tmp_path: Path, text: str) -> None:
    """Otherwise Spack would run outside, and nobody would notice."""
    directory = tmp_path / "opt" / ".pkgjail"
    directory.mkdir(parents=True)
    (directory / "active.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="did not write it; look at it, and delete it"):
        active.load_active(str(tmp_path), {})


@pytest.mark.parametrize("text", ["", "[]", '{"key": 1}', '{"key": {"states": 1}}'])
def test_a_cache_that_cannot_be_read_is_ignored(tmp_path: Path, text: str) -> None:
    """Spack is asked again."""
    (tmp_path / "instances.json").write_text(text)
    one = ActiveEnvironment("/env", "/python", 7, removing=False, directory=str(tmp_path))
    assert cache._parse(active.load_cache(one).get("key")) is None


DRIFT = DriftError(((b"/usr/include/new.h", Mismatch("missing")),))


def test_nobody_else_may_write_to_the_state_directories(tmp_path: Path) -> None:
    """Whatever the umask: another user could lead this user's commands into an environment of their own."""
    one = ActiveEnvironment("/env", "/python", 7, removing=False, directory="")
    before = os.umask(0)
    try:
        saved = active.save_active(one, str(tmp_path), {})
        active.protected_directories(
            str(tmp_path), {"SPACK_USER_CACHE_PATH": str(tmp_path / "own" / "cache")}
        )
    finally:
        os.umask(before)
    assert saved.directory.startswith(str(tmp_path))
    modes = {path: path.stat().st_mode & 0o022 for path in tmp_path.rglob("*")}
    assert tmp_path / "own/cache/pkgjail" in modes
    assert set(modes.values()) == {0}


@pytest.mark.parametrize(
    ("error", "first", "last"),
    [
        pytest.param(
            DRIFT,
            "==> Error: cannot enter the jail: the host has changed since the manifest was made:",
            "    or build the environment again with 'spack jail --build-environment /env --force'",
            id="drift",
        ),
        pytest.param(
            InputError([Problem("", "cannot enter /env: it is not an environment")]),
            "==> Error: cannot enter /env: it is not an environment",
            "    to run Spack outside again, use 'spack jail --remove-environment'",
            id="no environment",
        ),
        pytest.param(
            OSError(28, "No space"), *["==> Error: cannot enter /env: [Errno 28] No space"] * 2, id="room"
        ),
    ],
)
def test_errors_on_the_way_inside_have_spacks_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, first: str, last: str
) -> None:
    """The command does not run outside instead."""

    def fails(*_: object) -> int:
        raise error

    tool = UncoveredTool("a tool", "/tool", "missing")
    cached = cache.CachedInstance(instance(tmp_path), (tool,))
    one = ActiveEnvironment("/env", "/python", 7, removing=False, directory="")
    active.save_active(one, str(tmp_path), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "load_or_describe", lambda *_: cached)
        patch.setattr(enter, "enter", fails)
        assert inside.run_inside(str(tmp_path), "/python", ["spack", "install", "x"], ["install", "x"]) == 1
    lines = capsys.readouterr().err.splitlines()
    warning = "==> Warning: a tool is not on this host: /tool does not exist"
    assert (lines[0], lines[1], lines[-1]) == (warning, first, last)


def test_a_description_is_for_the_options_that_it_was_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scope of `-C` would otherwise count for commands without it."""
    described = instance(tmp_path)
    asked: list[list[str]] = []
    one = active.save_active(
        ActiveEnvironment("/env", described.python, 7, removing=False, directory=""), str(tmp_path), {}
    )

    def describe(_root: str, _python: str, options: list[str]) -> dict[str, object]:
        asked.append(options)
        return asdict(described)

    monkeypatch.setattr(cache, "_describe", describe)
    monkeypatch.setattr(cache, "_with_uncovered", lambda _, found: cache.CachedInstance(found, ()))
    cache.store_instance(one, described, ["-C", "/scope"])
    for options in (["-C", "/scope"], [], []):
        cache.load_or_describe(one, str(tmp_path), described.python, options)
    assert asked == [[]]


def test_during_a_removal_commands_run_outside_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted removal leaves Spack usable."""
    active.save_active(
        ActiveEnvironment("/env", "/python", 7, removing=True, directory=""), str(tmp_path), {}
    )
    assert inside.run_inside(str(tmp_path), "/python", ["spack", "find"], ["find"]) is None
    assert "==> Warning: /env is being removed" in capsys.readouterr().err


def test_the_hook_does_nothing_without_spack() -> None:
    """Other programs that call the entry points are not affected."""
    hook.go_inside()
    assert hook.is_called()
    assert [os.path.basename(path) for path in extensions.extension_paths()] == [
        "spack-jail",
        "spack-isolate",
    ]


def test_spack_finds_the_three_functions_of_the_paper() -> None:
    """For Spack as a library."""
    assert pkgjail.integrations.spack.isolate_environment is isolate.isolate_environment
    assert pkgjail.integrations.spack.build_chroot_environment is isolate.build_chroot_environment
    assert pkgjail.integrations.spack.remove_chroot_environment is isolate.remove_chroot_environment
    with pytest.raises(AttributeError, match="nothing"):
        _ = pkgjail.integrations.spack.nothing


def test_the_wrapper_finds_the_real_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is named, or that of the environment, or the first that is not the wrapper itself."""
    names = tmp_path / "bin"
    names.mkdir()
    for name in ("python3", "python", "other"):
        (names / name).write_text("#!/bin/sh\n")
        (names / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(names))
    monkeypatch.setattr("sys.argv", [str(names / "python3")])
    assert wrapper.real_python(None) == str(names / "python")
    active.save_active(
        ActiveEnvironment("/env", str(names / "other"), 7, removing=False, directory=""), str(tmp_path), {}
    )
    assert wrapper.real_python(str(tmp_path)) == str(names / "other")
    monkeypatch.setenv(wrapper.VARIABLE, "python3")
    assert wrapper.real_python(str(tmp_path)) == str(names / "python3")


def test_the_wrapper_recognizes_spacks_script(tmp_path: Path) -> None:
    """Any other program that uses SPACK_PYTHON runs as it would without the wrapper."""
    (tmp_path / "lib" / "spack" / "spack").mkdir(parents=True)
    expected = {
        "": None,
        f"{tmp_path}/bin/spack find": str(tmp_path),
        "/usr/bin/spack find": None,
        "-c pass": None,
    }
    assert {line: wrapper.spack_root(line.split()) for line in expected} == expected


@pytest.mark.parametrize("name", ["SPACK_ROOT", "HOME", "TMPDIR", "USER", "SSL_CERT_DIR", "CURL_CA_BUNDLE"])
def test_every_variable_that_spack_reads_is_in_the_cache_key(tmp_path: Path, name: str) -> None:
    """Protects from an answer for other variables: paths in the configuration may contain them."""
    one = ActiveEnvironment(str(tmp_path), "python", 1, removing=False, directory=str(tmp_path))
    keys = {cache._key(one, "python", [], {name: value, "OTHER": "x"}) for value in ("a", "b")}
    assert len(keys) == 2


def test_an_answer_from_another_machine_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects users whose machines share a home: the configuration may depend on the machine."""
    one = ActiveEnvironment(str(tmp_path), "python", 1, removing=False, directory=str(tmp_path))
    here = cache._key(one, "python", [], {})
    assert cache._key(one, "python", [], {}) == here
    other = os.uname_result(("Linux", "elsewhere", "6", "1", "riscv64"))
    monkeypatch.setattr(os, "uname", lambda: other)
    assert cache._key(one, "python", [], {}) != here


def test_messages_name_what_the_command_has() -> None:
    """Protects from advice to use options that are only pkgjail's own command line's."""
    advice = f"use {parameter('root')}, {parameter('source')} or {parameter('limits.names')}"
    expected = "use --source dir:PATH, --source or --max-names of 'pkgjail image import'"
    assert with_options(advice) == expected
