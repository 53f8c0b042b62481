"""Settings of a site and of a user: what they mean, what is wrong with them; they are never ignored."""

from __future__ import annotations

import os
import shlex
import subprocess
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import SettingsError, UsageError
from pkgjail.core.stage_names import RUNGS, STAGE_NAMES
from pkgjail.settings import files
from pkgjail.settings.read import read_settings
from tests.conftest import SYSTEM_PYTHON

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from pkgjail.settings.model import Settings
    from tests.conftest import Caller

# Root's files may belong to root alone, and the tests' own files are the tests' user's.
_AS_SITE = pytest.mark.skipif(os.geteuid() != 0, reason="a site's file is root's; CI is root")


def _read(tmp_path: Path, site: str | None, user: str | None = None, variable: str = "") -> Settings:
    """Read settings of these texts; None for no file."""
    for name, text in (("site", site), ("user", user)):
        if text is not None:
            (tmp_path / f"{name}.toml").write_text(dedent(text).lstrip("\n"))
    names = [str(tmp_path / f"{name}.toml") for name in ("site", "user")]
    return read_settings(site=names[0], user=names[1], variables={files.VARIABLE: variable})


@_AS_SITE
@pytest.mark.parametrize(
    ("site", "user", "variable", "stage", "origin"),
    [
        (None, None, "", "namespaces", ""),
        ("", "", "", "namespaces", ""),
        ('[stage]\ndefault = "auto"', None, "", "auto", "site.toml:2"),
        ('[stage]\ndefault = "auto"', '# mine\n[stage]\ndefault = "vm"', "", "vm", "user.toml:3"),
        ('stage = {default = "auto"}', 'stage.default = "vm"', "root", "root", "PKGJAIL_STAGE"),
        ('[stage]\ndefault = "vm"', "[stage]\nallow = ['vm', 'helper']", "", "vm", "site.toml:2"),
    ],
)
def test_precedence(  # noqa: PLR0913, PLR0917 - a row
    tmp_path: Path, site: str | None, user: str | None, variable: str, stage: str, origin: str
) -> None:
    """Protects the order: the variable, the user's file, the site's, namespaces; with where it is from."""
    settings = _read(tmp_path, site, user, variable)
    assert (settings.stage, os.path.basename(settings.origin)) == (stage, origin)


def _list(*stages: str) -> str:
    return f"[stage]\nallow = {list(stages)}"


@_AS_SITE
@pytest.mark.parametrize(
    ("site", "user", "usable", "climbable"),
    [
        (None, None, STAGE_NAMES, RUNGS[:3]),
        (None, _list(*RUNGS), RUNGS, RUNGS),
        (_list(*RUNGS), None, RUNGS, RUNGS),
        (_list("namespaces", "vm"), None, ("namespaces", "vm"), ("namespaces",)),
        # A user's list narrows the site's, and never widens it.
        (_list("namespaces", "helper"), _list(*RUNGS), ("namespaces", "helper"), ("namespaces", "helper")),
        (_list(*RUNGS), _list("root", "helper"), ("root", "helper"), ("root", "helper")),
        (_list("root"), _list("helper"), (), ()),
    ],
)
def test_what_is_allowed(
    tmp_path: Path, site: str | None, user: str | None, usable: tuple[str, ...], climbable: tuple[str, ...]
) -> None:
    """Protects a site from users and users from a site: a stage must be in both lists; a weak one in one."""
    settings = _read(tmp_path, site, user)
    assert tuple(name for name in STAGE_NAMES if settings.excluded_by(name) is None) == usable
    assert tuple(name for name in RUNGS if settings.is_climbable(name)) == climbable


@_AS_SITE
def test_an_excluded_stage_is_refused_by_name(tmp_path: Path) -> None:
    """The message has the place of the list, and of the default if that was not the caller's choice."""
    settings = _read(tmp_path, _list("vm", "root"), '[stage]\ndefault = "auto"', "helper")
    with pytest.raises(UsageError) as caught:
        settings.refuse_excluded("helper")
    assert str(caught.value) == (
        "cannot use the stage helper, which PKGJAIL_STAGE makes the default: "
        f"{tmp_path}/site.toml:2 allows only vm, root; name one of these"
    )
    with pytest.raises(UsageError, match="cannot use the stage podman: "):
        settings.refuse_excluded("podman")
    settings.refuse_excluded("vm")


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            """
            [stage]
            default = "namespace"
            alow = ["vm"]
            allow = ["supervized", 7, "", "every"]
            [stages]
            """,
            """
            2: unknown stage 'namespace'; did you mean 'namespaces'?
            3: unknown key 'alow' in [stage]; did you mean 'allow'?
            4: 'allow' must have only strings, not an integer
            4: an empty string in 'allow' names nothing
            4: unknown stage 'supervized'; did you mean 'supervised'?
            4: unknown stage 'every'; use one of NAMES
            5: unknown key 'stages'; did you mean 'stage'?
            """,
        ),
        ("stage = 'vm'", "1: 'stage' must be a table, not a string"),
        ("[stage]\ndefault = 3\nallow = 'vm'", """
            2: 'default' must be a string, not an integer
            3: 'allow' must be an array of strings, not a string
            """),
        ("[stage]\nallow = []", "2: 'allow' is empty, so no command could run; name stages, or leave it out"),
        ("[stage]\nallow = ['vm']\ndefault = 'root'", "3: the default 'root' is not in 'allow', line 2"),
        ("[stage", "1: not valid TOML: Expected ']' at the end of a table declaration"),
        ("a = " + "[" * 40, "1: not a settings file: arrays or tables are nested more than 32 deep"),
        ("# \xe9\n[stage]\ndefault = 'vm'", ""),
    ],
)  # fmt: skip
def test_wrong_settings(tmp_path: Path, text: str, problems: str) -> None:
    """Protects from settings that are not what their author meant: all problems, with their lines."""
    path = tmp_path / "user.toml"
    path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
    names = ", ".join(sorted(STAGE_NAMES))
    expected = [f"{path}:{line}" for line in dedent(problems).replace("NAMES", names).strip().splitlines()]
    found: list[str] = []
    try:
        read_settings(site="", user=str(path), variables={})
    except SettingsError as error:
        found = str(error).splitlines()
    assert found == expected


def test_settings_that_are_not_text(tmp_path: Path) -> None:
    """The line of the byte is given."""
    (tmp_path / "user.toml").write_bytes(b"\n# \xff")
    with pytest.raises(SettingsError, match=r"toml:2: not UTF-8: byte 0xff"):
        read_settings(site="", user=str(tmp_path / "user.toml"), variables={})


def test_a_variable_that_names_no_stage() -> None:
    with pytest.raises(UsageError, match="names no stage: 'namspaces'; did you mean 'namespaces'"):
        read_settings(site="", user="", variables={files.VARIABLE: "namspaces"})


def _owned(path: Path, user: int, group: int) -> Path:
    os.chown(path, user, group)
    return path


def _without(path: Path) -> Path:
    path.unlink()
    return path


@pytest.mark.parametrize(
    ("change", "of_site", "words"),
    [
        (lambda path: path.chmod(0o646), False, "other users may write to these settings; check them"),
        (lambda path: path.chmod(0o664), False, ""),
        (lambda path: _owned(path, 0, 7).chmod(0o664), True, "other users may write"),
        (lambda path: path.chmod(0o664), True, ""),
        (lambda path: _owned(path, 7, 7), False, "belong to another user than you; set HOME or"),
        (lambda path: _owned(path, 7, 7), True, "belong to another user than root; chown root it"),
        (lambda path: _without(path).mkdir(), False, "Is a directory; repair it, or remove it"),
        (lambda path: os.mkfifo(_without(path)), True, "it is a FIFO, and not a regular file"),
        (
            lambda path: _without(path).symlink_to("gone"),
            False,
            "No such file or directory; repair",
        ),
        (lambda path: _without(path).symlink_to(path), True, "Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"#" * 2_000_000), True, "it has more than 1 MiB"),
        (_without, True, ""),
    ],
)
@_AS_SITE
def test_a_file_that_cannot_be_believed(
    tmp_path: Path, change: Callable[[Path], object], words: str, *, of_site: bool
) -> None:
    """Protects from settings of another user's, and from settings that exist and silently have no effect."""
    path = tmp_path / "pkgjail.toml"
    path.write_text('[stage]\ndefault = "namespaces"\n')
    change(path)
    names = (str(path), "") if of_site else ("", str(path))
    found = ""
    try:
        read_settings(site=names[0], user=names[1], variables={})
    except SettingsError as error:
        found = str(error)
    assert found.startswith(f"{path}: " if words else "")
    assert words in found


_AS_READER = """
import sys
from pkgjail.core.errors import PkgjailError
from pkgjail.settings.read import read_settings
try:
    print(read_settings(site=sys.argv[1], user=sys.argv[2], variables={}).stage)
except PkgjailError as error:
    print(error)
"""


@_AS_SITE
def test_what_an_ordinary_user_may_not_read(user: Caller) -> None:
    """A site's file must be readable. A home that the user may not enter has none (`su` keeps HOME)."""
    closed = user.home / "closed"
    closed.mkdir(mode=0o700)
    for path in (user.home / "pkgjail.toml", closed / "pkgjail.toml"):
        path.write_text('[stage]\ndefault = "vm"\n')
        path.chmod(0o600)

    def read(site: str, own: str) -> str:
        return user.run([SYSTEM_PYTHON, "-c", _AS_READER, site, own]).stdout

    site = str(user.home / "pkgjail.toml")
    assert read(site, "") == (
        f"{site}: cannot read these settings: Permission denied; let everybody read it, or remove it\n"
    )
    assert "let everybody read it" in read("", site)
    assert read("", str(closed / "pkgjail.toml")) == "namespaces\n"
    assert "let everybody read it" in read(str(closed / "pkgjail.toml"), "")


def test_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the documented places; a user without a home directory has no settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    assert files.settings_files() == ("/etc/pkgjail.toml", "/c/pkgjail.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", "/h")
    assert files.settings_files() == ("/etc/pkgjail.toml", "/h/.config/pkgjail.toml")
    monkeypatch.setattr(os.path, "expanduser", str)  # as for a user without an account
    assert files.settings_files() == ("/etc/pkgjail.toml",)


def test_state_shows_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects saved jails: made, written, replaced, linked to another file, removed; and nothing else."""
    site, target = tmp_path / "site.toml", tmp_path / "target"
    monkeypatch.setattr(files, "SITE", str(site))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    target.write_text("")
    changes: tuple[Callable[[], object], ...] = (
        lambda: site.symlink_to(target),
        lambda: target.write_text("#"),
        lambda: os.replace(_made(tmp_path / "new"), site),
        site.unlink,
    )
    for change in changes:
        state = files.settings_state()
        assert not files.settings_changed(state)
        change()
        assert files.settings_changed(state)


def _made(path: Path) -> Path:
    path.write_text("")
    return path


def test_nothing_is_loaded_without_files(user: Caller) -> None:
    """Protects the time of every command where nobody has settings: no TOML is read."""
    code = (
        "import sys; from pkgjail.settings.read import read_settings; "
        "print(read_settings(site='/etc/none.toml').stage, "
        "[name for name in ('tomllib', 'tomli', 'pkgjail.policy', 'difflib') if name in sys.modules])"
    )
    done = user.run([SYSTEM_PYTHON, "-c", code])
    assert done.stdout == "namespaces []\n", done.stderr


@pytest.fixture
def saved(anyone: Caller, base_manifest: Manifest, manifest_file: Path) -> Callable[..., tuple[str, bool]]:
    """Return a function that runs a command line, and says whether the jail was prepared anew."""
    del base_manifest

    def run(**variables: str) -> tuple[str, bool]:
        runtime = anyone.home / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        os.chown(runtime, anyone.uid, anyone.uid)
        python = [SYSTEM_PYTHON, "-X", "importtime", "-m", "pkgjail"]
        words = [*python, "run", str(manifest_file), "--", "echo", "ran"]
        environment = {"XDG_RUNTIME_DIR": str(runtime), **variables}
        done = anyone.run(words, environment=environment)
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        rest = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
        return done.stdout + "\n".join(rest), "pkgjail.cli.main" in loaded

    return run


def test_a_saved_jail_depends_on_settings(anyone: Caller, saved: Callable[..., tuple[str, bool]]) -> None:
    """Protects a user whose settings exclude or replace the default from a jail saved before they did."""
    assert saved() == ("ran\n", True)
    assert saved() == ("ran\n", False)
    assert "PKGJAIL_STAGE names no stage" in saved(PKGJAIL_STAGE="nonsense")[0]
    path = anyone.home / ".config/pkgjail.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text('[stage]\nallow = ["vm"]\n')
    os.chown(path, anyone.uid, anyone.uid)
    refused, anew = saved()
    assert f"cannot use the stage namespaces: {path}:2 allows only vm; name one of these" in refused
    assert anew
    path.write_text('[stage]\nallow = ["vm", "namespaces"]\n')
    assert saved() == ("ran\n", True)
    assert saved() == ("ran\n", False)
    path.unlink()
    assert saved() == ("ran\n", True)


@_AS_SITE
def test_the_sites_file_is_read(anyone: Caller, manifest_file: Path) -> None:
    """Protects the path /etc/pkgjail.toml: a mount namespace of the test's own has one."""
    place = anyone.home / "etc"
    place.mkdir()
    (place / "pkgjail.toml").write_text('[stage]\nallow = ["vm"]\n')
    inner = [SYSTEM_PYTHON, "-m", "pkgjail", "run", str(manifest_file), "--", "true"]
    become = ["setpriv", f"--reuid={anyone.uid}", f"--regid={anyone.uid}", "--clear-groups"]
    script = f"mount -t overlay -o lowerdir={place}:/etc none /etc; exec {shlex.join([*become, *inner])}"
    options = anyone.options()
    for name in ("user", "group", "extra_groups"):
        options.pop(name, None)
    done = subprocess.run(["unshare", "-m", "sh", "-ec", script], **options, check=False)
    assert (done.returncode, done.stderr) == (
        125,
        "pkgjail: cannot use the stage namespaces: /etc/pkgjail.toml:2 allows only vm; name one of these\n",
    )
