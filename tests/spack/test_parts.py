"""The parts of `pkgjail.integrations.spack` by themselves: words, binds, records, messages."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import pkgjail.integrations.spack
from pkgjail.core.entries import Mismatch
from pkgjail.core.errors import DriftError, InputError, Problem
from pkgjail.core.model import UserBind
from pkgjail.environments import isolate
from pkgjail.environments.enter import shows
from pkgjail.integrations.spack import enter, extensions, hook, instance_cache, state, wrapper
from pkgjail.integrations.spack.argv import is_own_command, split_words
from pkgjail.integrations.spack.instance import (
    Instance,
    binds_of,
    is_whole,
    links_of,
    make_directories,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("line", "telling", "command"),
    [
        pytest.param("", [], None, id="nothing"),
        pytest.param("install -v zlib", [], "install", id="a command alone"),
        pytest.param("-d --color always --timestamp find -e x", [], "find", id="options that tell nothing"),
        pytest.param(
            "-e dev -C /s -c config:a:b spec",
            ["-e", "dev", "-C", "/s", "-c", "config:a:b"],
            "spec",
            id="those",
        ),
        pytest.param(
            "--env=dev -D/x -E -m spec", ["--env=dev", "-D/x", "-E", "-m"], "spec", id="in one word"
        ),
        pytest.param("--print-shell-vars sh,modules", [], None, id="the value is no command"),
        pytest.param("-e", ["-e"], None, id="a value too few"),
    ],
)
def test_a_command_line_is_understood_before_spack_reads_it(
    line: str, telling: list[str], command: str | None
) -> None:
    """`spack jail` is told from others whatever stands before it; some options decide what is bound."""
    assert split_words(line.split()) == (telling, command)


@pytest.mark.parametrize(
    ("command", "has_isolate", "own"),
    [
        ("jail", True, True),
        ("isolate", False, True),
        ("isolate", True, False),
        ("find", False, False),
        (None, False, False),
    ],
)
def test_which_command_runs_outside(command: str | None, has_isolate: bool, own: bool) -> None:  # noqa: FBT001
    """A Spack's own `isolate` is a command as any other."""
    assert is_own_command(command, has_isolate=has_isolate) is own


def instance(root: Path, **fields: tuple[str, ...]) -> Instance:
    """A Spack in `root`, with these directories."""
    values = {"writable": (), "readable": (), "watched": (), **fields}
    return Instance(root=str(root), python="/usr/bin/python3", tools=(), **values)


def test_binds_are_the_outermost_directories_and_what_links_lead_to(tmp_path: Path) -> None:
    """The host's own directories are the manifest's to decide; what is not there is not bound."""
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
    assert [(os.fsdecode(bind.source), bind.writable) for bind in binds_of(one)] == [
        (f"{tmp_path}/root", True),
        (f"{tmp_path}/scratch/opt", True),
        (f"{tmp_path}/venv", False),
    ]


def test_what_is_not_there_yet_will_be_looked_for_again(tmp_path: Path) -> None:
    """Only where all is there may an entry be kept, with the links, which could lead elsewhere later."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    whole = instance(
        tmp_path,
        writable=(f"{tmp_path}/root", f"{tmp_path}/root/link"),
        readable=("/usr/no", f"{tmp_path}/root/no"),
    )
    binds = (UserBind(source=b"/", destination=b"/", writable=False),)
    assert is_whole(whole, binds_of(whole))
    assert links_of(whole) == [os.fsencode(tmp_path / "root" / "link")]
    missing = instance(tmp_path, writable=(f"{tmp_path}/file/x",))
    assert not is_whole(missing, binds_of(missing))
    assert is_whole(missing, binds)


def test_directories_that_spack_would_make_are_made(tmp_path: Path) -> None:
    """Where that is refused they are left out, as they will be for Spack."""
    (tmp_path / "file").touch()
    make_directories(instance(tmp_path, writable=(f"{tmp_path}/a/b", f"{tmp_path}/file/x")))
    assert (tmp_path / "a" / "b").is_dir()


def test_a_path_is_shown_by_a_bind_at_its_own_place() -> None:
    """A bind elsewhere shows another path, and a name that only begins alike is another."""
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


def test_a_state_survives_its_file(tmp_path: Path) -> None:
    """What is written is read again; dropped, nothing is left. A user's own place is asked first."""
    variables = {"SPACK_USER_CACHE_PATH": str(tmp_path / "cache")}
    root = str(tmp_path / "root")
    one = state.State("/env/\udce9", "/python", 7, removing=False, place="")
    saved = state.save_state(one, root, variables)
    assert saved == one._replace(place=f"{root}/opt/.pkgjail")
    assert state.load_state(root, variables) == saved
    own = state.save_state(
        saved._replace(removing=True, place=state.places(root, variables)[1]), root, variables
    )
    assert state.load_state(root, variables) == own
    for each in (own, saved):
        state.save_cache(each, {"x": 1})
        state.drop_state(each)
    assert state.load_state(root, variables) is None
    assert not os.path.exists(f"{root}/opt/.pkgjail")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', "\xff"])
def test_a_state_that_pkgjail_did_not_write_is_refused(tmp_path: Path, text: str) -> None:
    """Else Spack would run outside, and nobody would know."""
    place = tmp_path / "opt" / ".pkgjail"
    place.mkdir(parents=True)
    (place / "active.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="did not write it; look at it, and delete it"):
        state.load_state(str(tmp_path), {})


@pytest.mark.parametrize("text", ["", "[]", '{"key": 1}', '{"key": {"states": 1}}'])
def test_a_cache_that_cannot_be_read_is_asked_for_again(tmp_path: Path, text: str) -> None:
    """It is no more than a cache."""
    (tmp_path / "instances.json").write_text(text)
    one = state.State("/env", "/python", 7, removing=False, place=str(tmp_path))
    assert instance_cache._read(state.load_cache(one).get("key")) is None


DRIFT = DriftError(((b"/usr/include/new.h", Mismatch("missing")),))


def test_nobody_else_may_write_what_is_active(tmp_path: Path) -> None:
    """Whatever the umask: who could, would lead this user's next commands into an environment of theirs."""
    one = state.State("/env", "/python", 7, removing=False, place="")
    before = os.umask(0)
    try:
        saved = state.save_state(one, str(tmp_path), {})
        state.closed_places(str(tmp_path), {"SPACK_USER_CACHE_PATH": str(tmp_path / "own" / "cache")})
    finally:
        os.umask(before)
    assert saved.place.startswith(str(tmp_path))
    modes = {path: path.stat().st_mode & 0o022 for path in tmp_path.rglob("*")}
    assert tmp_path / "own/cache/pkgjail" in modes
    assert set(modes.values()) == {0}


@pytest.mark.parametrize(
    ("error", "first", "last"),
    [
        pytest.param(
            DRIFT,
            "==> Error: cannot enter the jail: the host has changed since the manifest was made:",
            "    or build the environment anew with 'spack jail --build-environment /env --force'",
            id="drift",
        ),
        pytest.param(
            InputError([Problem("", "cannot enter /env: it is no environment")]),
            "==> Error: cannot enter /env: it is no environment",
            "    'spack jail --remove-environment' has Spack run outside again",
            id="no environment",
        ),
        pytest.param(
            OSError(28, "No space"), *["==> Error: cannot enter /env: [Errno 28] No space"] * 2, id="room"
        ),
    ],
)
def test_what_keeps_a_command_out_is_told_as_spack_tells_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, first: str, last: str
) -> None:
    """The command does not run outside in place of inside."""

    def fails(*_: object) -> int:
        raise error

    known = instance_cache.Known(instance(tmp_path), ("a tool is outside",))
    one = state.State("/env", "/python", 7, removing=False, place="")
    state.save_state(one, str(tmp_path), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instance_cache, "know", lambda *_: known)
        patch.setattr(enter, "enter", fails)
        assert hook.run_inside(str(tmp_path), "/python", ["spack", "install", "x"], ["install", "x"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert (told[0], told[1], told[-1]) == ("==> Warning: a tool is outside", first, last)


def test_while_an_environment_is_being_removed_commands_run_outside_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A removal that was interrupted leaves Spack usable."""
    state.save_state(state.State("/env", "/python", 7, removing=True, place=""), str(tmp_path), {})
    assert hook.run_inside(str(tmp_path), "/python", ["spack", "find"], ["find"]) is None
    assert "==> Warning: /env is being removed" in capsys.readouterr().err


def test_the_hook_does_nothing_where_no_spack_runs() -> None:
    """Whatever else calls the entry points is left alone."""
    hook.go_inside()
    assert hook.is_called()
    assert [os.path.basename(path) for path in extensions.extension_paths()] == [
        "spack-jail",
        "spack-isolate",
    ]


def test_spack_finds_the_three_functions_of_the_paper() -> None:
    """As a library."""
    assert pkgjail.integrations.spack.isolate_environment is isolate.isolate_environment
    assert pkgjail.integrations.spack.build_chroot_environment is isolate.build_chroot_environment
    assert pkgjail.integrations.spack.remove_chroot_environment is isolate.remove_chroot_environment
    with pytest.raises(AttributeError, match="nothing"):
        _ = pkgjail.integrations.spack.nothing


def test_the_wrapper_finds_the_real_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is named, else that of the environment, else the first that is not itself."""
    names = tmp_path / "bin"
    names.mkdir()
    for name in ("python3", "python", "other"):
        (names / name).write_text("#!/bin/sh\n")
        (names / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(names))
    monkeypatch.setattr("sys.argv", [str(names / "python3")])
    assert wrapper.real_python(None) == str(names / "python")
    state.save_state(
        state.State("/env", str(names / "other"), 7, removing=False, place=""), str(tmp_path), {}
    )
    assert wrapper.real_python(str(tmp_path)) == str(names / "other")
    monkeypatch.setenv(wrapper.VARIABLE, "python3")
    assert wrapper.real_python(str(tmp_path)) == str(names / "python3")


def test_the_wrapper_knows_spacks_script(tmp_path: Path) -> None:
    """Another program that SPACK_PYTHON is used for runs as it would."""
    (tmp_path / "lib" / "spack" / "spack").mkdir(parents=True)
    words = {
        "": None,
        f"{tmp_path}/bin/spack find": str(tmp_path),
        "/usr/bin/spack find": None,
        "-c pass": None,
    }
    assert {line: wrapper.spack_root(line.split()) for line in words} == words


@pytest.mark.parametrize(
    "name", ["SPACK_ROOT", "HOME", "TMPDIR", "USER", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "https_proxy"]
)
def test_what_spack_told_is_kept_by_every_variable_that_it_sees(tmp_path: Path, name: str) -> None:
    """Protects from an answer that was given with another variable: configuration may have it in paths."""
    one = state.State(str(tmp_path), "python", 1, removing=False, place=str(tmp_path))
    keys = {instance_cache._key(one, "python", [], {name: value, "OTHER": "x"}) for value in ("a", "b")}
    assert len(keys) == 2


def test_what_spack_told_on_another_machine_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects users of a home that several machines share: configuration may depend on the machine."""
    one = state.State(str(tmp_path), "python", 1, removing=False, place=str(tmp_path))
    here = instance_cache._key(one, "python", [], {})
    assert instance_cache._key(one, "python", [], {}) == here
    other = os.uname_result(("Linux", "elsewhere", "6", "1", "riscv64"))
    monkeypatch.setattr(os, "uname", lambda: other)
    assert instance_cache._key(one, "python", [], {}) != here
