"""The command line: what it prints where, its exit status, and that nothing is half-written."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import sys
import termios
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli.jail_options import parse_bind
from pkgjail.cli.main import VERBS, main, make_parsers
from pkgjail.core.errors import UsageError
from pkgjail.core.options import UserBind
from pkgjail.manifest import read_manifest, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Caller


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` less `docs`, as the command writes it."""
    path = tmp_path_factory.mktemp("manifest") / "base.jsonl"
    assert main(["resolve", "base", "--blacklist", "docs", "--no-hash", "-o", str(path)]) == 0
    return path


@pytest.fixture
def faulty_inputs(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working directory: a whitelist with five faults, a manifest that the host has left behind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text(_FIVE_FAULTS)
    parsed = read_manifest(manifest)
    files = [e._replace(mode=0o600) if e.path == b"/usr/bin/env" else e for e in parsed.files]
    write_manifest(replace(parsed, files=tuple(files)), tmp_path / "drifted.jsonl")


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_teaches(
    verb: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each verb says in a sentence or more what it is for; a line that can be copied may be wider."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*([verb] if verb else []), "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert len(told) > 200
    assert [line for line in told.splitlines() if len(line) > 80 and not line.startswith("  pkgjail ")] == []


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        pytest.param(["resolve", "spak"], 2, "did you mean 'spack'", id="unknown whitelist"),
        pytest.param(["resolve", "base", "--backend", "rpx"], 3, "rpx", id="unknown backend"),
        pytest.param(["resolve", "base", "--root", "/no/such"], 3, "/no/such", id="no such root"),
        pytest.param(["show", "/no/such.jsonl"], 1, "/no/such.jsonl: No such file", id="no such manifest"),
        pytest.param(["run", "/no/such.jsonl", "--", "true"], 125, "No such file", id="run without manifest"),
        pytest.param(["run", "base"], 125, "there is no command", id="run without command"),
        pytest.param(["run", "--bind", "a:b", "base", "--", "true"], 125, "absolute path", id="bad bind"),
        pytest.param(
            ["run", "--ro-bind", "/:/usr", "base", "--", "true"], 125, "would cover", id="covering bind"
        ),
        pytest.param(["run", "--env", "=x", "base", "--", "true"], 125, "NAME=VALUE", id="bad variable"),
        pytest.param(
            ["run", "--env", "A*=x", "base", "--", "true"], 125, "takes no value", id="a pattern's value"
        ),
        pytest.param(["run", "base", "--", "nope"], 127, "no such command in the jail", id="no such command"),
        pytest.param(["backends", "--root", "/no/such"], 3, "", id="no backend"),
        pytest.param(
            ["build", "/no/such.jsonl", "/no/env"], 1, "/no/such.jsonl: No such", id="build of nothing"
        ),
        pytest.param(
            ["enter", "/no/such", "--", "true"], 125, "cannot enter /no/such: No", id="enter nothing"
        ),
        pytest.param(["enter", "/no/such"], 125, "there is no command", id="enter without command"),
        pytest.param(["remove", "/no/such"], 2, "cannot remove /no/such: No such file", id="remove nothing"),
        pytest.param(["remove", "/etc"], 2, "/etc: it is not an environment", id="remove what is none"),
    ],
)
def test_what_cannot_be_done_is_told(
    arguments: list[str], status: int, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    assert text in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        pytest.param([], 2, "start here:", id="nothing: the help"),
        pytest.param(["rnu"], 2, "invalid choice: 'rnu'", id="unknown verb"),
        pytest.param(["show"], 2, "pkgjail show: error: the following arguments", id="too few"),
        pytest.param(["show", "--frob", "m"], 2, "pkgjail show: error: unrecognized", id="unknown option"),
        pytest.param(["run"], 125, "pkgjail run: error: the following arguments", id="run: too few"),
        pytest.param(["run", "--frob", "m", "--", "x"], 125, "arguments: --frob", id="run: unknown before"),
        pytest.param(["run", "m", "--frob", "--", "x"], 125, "arguments: --frob", id="run: unknown behind"),
        pytest.param(["run", "m", "--bind"], 125, "argument --bind: expected one", id="run: lacks a value"),
        pytest.param(["run", "--verify=x", "m"], 125, "invalid choice: 'x'", id="run: no such way to verify"),
        pytest.param(["build", "m"], 2, "pkgjail build: error: the following", id="build: too few"),
        pytest.param(["build", "--copy", "--fstab", "m", "d"], 2, "not allowed with", id="build: two forms"),
        pytest.param(["enter"], 125, "pkgjail enter: error: the following", id="enter: too few"),
        pytest.param(["enter", "d", "--frob", "--", "x"], 125, "arguments: --frob", id="enter: unknown"),
        pytest.param(
            ["enter", "--blacklist", "docs", "d", "--", "x"], 125, "unrecognized", id="enter: policy"
        ),
        pytest.param(["remove"], 2, "pkgjail remove: error: the following", id="remove: too few"),
        pytest.param(["shell", "m", "--frob"], 125, "arguments: --frob", id="shell: unknown option"),
    ],
)
def test_bad_usage_is_told_on_standard_error(
    arguments: list[str], status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And never with a status that the command in the jail may have, below 125."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (status, "")
    assert text in captured.err


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("--no-network --env A=1 --env B=2 M -- env -u C", id="options before"),
        pytest.param("M --no-network --env A=1 --env B=2 -- env -u C", id="options behind"),
        pytest.param("--env A=1 M --env B=2 --no-network -- env -u C", id="options on both sides"),
        pytest.param("--env A=1 M --env B=2 --no-network env -u C", id="without a '--'"),
        pytest.param("M --env=A=1 --env B=2 --no-network -- env --", id="the command's own '--'"),
    ],
)
def test_options_stand_before_or_behind_the_manifest(
    manifest: Path, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Protects options from being taken for words of the command, and its words for options."""
    assert main(["run", *(str(manifest) if word == "M" else word for word in line.split())]) == 0
    assert {"A=1", "B=2"} <= set(capfd.readouterr().out.splitlines())


def test_an_environment_by_its_commands(
    manifest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Options stand on both sides of DIR; what is printed is for people, or JSON."""
    env = str(tmp_path / "env")
    assert main(["build", "--json", "--env", "A=1", str(manifest), env]) == 0
    built = json.loads(capfd.readouterr().out)
    assert (built["directory"], built["form"], built["names"]) == (env, "host", 1)
    assert main(["enter", "--verify", "--env", "B=2", env, "--env", "C=3", "--no-network", "--", "env"]) == 0
    assert {"A=1", "B=2", "C=3"} <= set(capfd.readouterr().out.splitlines())
    assert main(["remove", env]) == 0
    assert capfd.readouterr().out == f"{env}: 1 name deleted\n"


def test_lines_for_fstab_are_those_of_the_export(
    manifest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """On standard output alone, to be put into a file; with --json among the rest."""
    env = str(tmp_path / "env")
    assert main(["export", str(manifest), "--format", "fstab", "--at", f"{env}/root"]) == 0
    lines = capfd.readouterr().out
    assert main(["build", "--fstab", str(manifest), env]) == 0
    captured = capfd.readouterr()
    assert captured.out == lines
    assert "enter it with: pkgjail enter" in captured.err
    assert main(["remove", env, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["gone"] == 0
    assert main(["build", "--fstab", "--json", str(manifest), env]) == 0
    assert json.loads(capfd.readouterr().out)["fstab"] == lines.splitlines()


def test_policy_arguments_do_not_go_with_a_manifest(
    manifest: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--blacklist", "docs", str(manifest), "--", "true"]) == 125
    assert "give them to 'pkgjail resolve'" in capfd.readouterr().err


_FIVE_FAULTS = """\
include = ["base", "no-such-list"]
[packages]
debian = ["gcc (>> )", "no-such-package"]
debain = ["gcc"]
[files]
include = ["relative/path"]
[options]
essential = "yes"
"""


def test_all_problems_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each a line with file:line, so that an editor finds it."""
    path = tmp_path / "bad.toml"
    path.write_text(_FIVE_FAULTS)
    assert main(["resolve", str(path), "-o", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"bad.toml:{n}" for n in (1, 3, 3, 4, 6, 8)]
    assert not (tmp_path / "out").exists()


def test_an_unknown_package_suggests_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[packages]\ndebian = ["coreutlis"]\n')
    assert main(["resolve", str(path)]) == 2
    assert "did you mean 'coreutils'" in capsys.readouterr().err


def test_the_manifest_goes_to_standard_output_by_default(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["resolve", "base", "--no-hash"]) == 0
    captured = capfdbinary.readouterr()
    assert json.loads(captured.out.splitlines()[0])["kind"] == "header"
    assert b"packages" in captured.err


def test_summaries_as_json(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`resolve --json` and `show --json` agree on the same manifest."""
    assert (
        main(["resolve", "base", "--blacklist", "docs", "--no-hash", "--json", "-o", str(tmp_path / "m")])
        == 0
    )
    resolved = json.loads(capsys.readouterr().out)
    assert main(["show", "--json", str(manifest)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["summary"] == resolved
    parsed = read_manifest(manifest)
    assert resolved["packages"] == len(parsed.packages)
    assert resolved["names"] == len(parsed.files)
    assert sum(shown["by_origin"].values()) == len(parsed.files)
    assert sum(shown["dropped"].values()) == len(parsed.dropped)


def test_every_verb_speaks_json() -> None:
    """Programs get JSON; if standard output belongs to a command, only pkgjail's own messages are JSON."""
    _, verbs = make_parsers()
    working = {verb: parser for verb, parser in verbs.items() if not parser.inner}
    without = [verb for verb, parser in working.items() if "--json" not in parser.format_help()]
    assert without == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            ["resolve", "--json", "bad.toml"],
            {
                "error": "PolicyError",
                "exit_status": 2,
                "problems": {"bad.toml:1", "bad.toml:3", "bad.toml:4", "bad.toml:6", "bad.toml:8"},
            },
            id="an input, problem by problem",
        ),
        pytest.param(
            ["run", "--json", "--verify", "drifted.jsonl", "--", "true"],
            {"error": "DriftError", "exit_status": 125, "changes": {"/usr/bin/env"}},
            id="a host that has changed",
        ),
        pytest.param(
            ["run", "drifted.jsonl", "--json", "--verify", "--allow-drift", "--", "nope"],
            {"error": "CommandError", "exit_status": 127},
            id="no such command, behind a warning",
        ),
        pytest.param(
            ["graph", "--json", "/no/such"],
            {"error": "MissingFileError", "exit_status": 1},
            id="no such file",
        ),
    ],
)
@pytest.mark.usefixtures("faulty_inputs")
def test_failures_as_json(
    arguments: list[str], told: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard error has one object a line and nothing else; the last says why the command ended."""
    assert main(arguments) == told["exit_status"]
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.err.splitlines()]
    assert [line.keys() for line in lines[:-1]] == [{"warning"}] * (len(lines) - 1)
    found = lines[-1]
    assert found.pop("message")
    if "problems" in found:
        found["problems"] = {problem["origin"] for problem in found["problems"]}
    if "changes" in found:
        found["changes"] = {change["path"] for change in found["changes"]}
    assert found == told
    assert captured.out == ""


def test_what_is_made_as_json(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An export says what it wrote; code and page stand whole in the object."""
    out = tmp_path / "out"
    assert main(["export", "--json", "--format", "mtree", str(manifest), "-o", str(out)]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written == {"file": str(out), "format": "mtree", "bytes": out.stat().st_size}
    assert main(["export", "--json", "--format", "mtree", str(manifest)]) == 2
    assert json.loads(capsys.readouterr().err)["error"] == "UsageError"
    for words, name in ((["completion", "bash"], "code"), (["man"], "page")):
        assert main(words) == 0
        plain = capsys.readouterr().out
        assert main([*words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[name] + "\n" == plain


def test_check_by_its_command(manifest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The status is 0 if the manifest is closed, otherwise 1, and text and JSON agree."""
    assert main(["check", str(manifest)]) == 0
    assert "closed: " in capfd.readouterr().out
    whole = read_manifest(manifest)
    files = tuple(entry for entry in whole.files if not entry.path.endswith(b"/libselinux.so.1"))
    holed = tmp_path / "holed.jsonl"
    write_manifest(replace(whole, files=files), holed)
    assert main(["check", "--static", str(holed)]) == 1
    text = capfd.readouterr().out
    assert main(["check", "--static", "--json", str(holed)]) == 1
    findings = json.loads(capfd.readouterr().out)["findings"]
    assert {finding["wanted"] for finding in findings} == {"libselinux.so.1"}
    assert {finding["responsible"] for finding in findings} == {"libselinux1:amd64"}
    assert all(finding["cause"] in text for finding in findings)


def test_verify_by_its_command(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A manifest comes by name or from standard input; the status is 1 if something differs; JSON agrees."""
    assert main(["verify", "--quick", str(manifest)]) == 0
    assert "as the manifest says: " in capfd.readouterr().out
    with manifest.open() as source:
        monkeypatch.setattr(sys, "stdin", source)
        assert main(["verify", "--quick", "--json", "-"]) == 0
    assert json.loads(capfd.readouterr().out)["holds"]
    assert main(["verify", str(manifest)]) == 3
    assert "no digests" in capfd.readouterr().err
    assert main(["verify", "--quick", "--root", "/var", "--all", str(manifest)]) == 1
    captured = capfd.readouterr()
    assert "packages outside the manifest cannot be named" in captured.err
    assert "missing /usr/bin/bash (bash:amd64): there is no such regular file" in captured.out


def test_show_prints_tables(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(manifest)]) == 0
    short = capsys.readouterr().out
    assert main(["show", "--all", str(manifest)]) == 0
    full = capsys.readouterr().out
    for heading in ("By package", "By directory", "How names come", "Dropped"):
        assert heading in short
    assert "(--all)" in short
    assert "(--all)" not in full
    assert len(full) > len(short)


def test_backends(capsys: pytest.CaptureFixture[str]) -> None:
    """Exactly one serves, and `--json` says the same."""
    assert main(["backends"]) == 0
    text = capsys.readouterr().out
    assert main(["backends", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows if row["serves"]] == [
        line.split()[0] for line in text.splitlines() if " serves " in line
    ]
    assert {row["name"] for row in rows} >= {"apt", "dpkg"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_code(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "pkgjail" in capsys.readouterr().out


def test_completion_completes() -> None:
    """As bash calls argcomplete: the verbs that begin with the typed letters."""
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": "pkgjail re",
        "COMP_POINT": "10",
        "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout",
    }
    ran = subprocess.run(
        [sys.executable, "-c", "from pkgjail.cli.main import main; main()"],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert sorted(ran.stdout.split()) == ["remove", "report", "resolve"]


def test_the_manual_page_is_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Groff sets it without a warning, and every line of each verb's help is in what it sets."""
    assert main(["man"]) == 0
    page = capsys.readouterr().out
    groff = ["groff", "-man", "-ww", "-Kutf8", "-Tutf8", "-P-c", "-P-b", "-P-o", "-P-u", "-rLL=100n"]
    done = subprocess.run(groff, input=page, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lint = subprocess.run(["mandoc", "-T", "lint"], input=page, capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")
    plain = {" ".join(line.split()) for line in re.sub("[\u2010\u2212]", "-", done.stdout).splitlines()}
    monkeypatch.setenv("COLUMNS", "80")  # argparse leaves two of them free
    for verb in VERBS:
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert [line for line in told if line not in plain] == [], verb
    assert "130 interrupted" in plain
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["man"]) == 0
    assert capsys.readouterr().out == page


def test_environment_variables(manifest: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.environ["PKGJAIL_TEST_PASSED"] = "on"
    try:
        arguments = ["--env", "A=b=c", "--env", "PKGJAIL_TEST_P*", "--env", "PKGJAIL_TEST_ABSENT"]
        assert main(["run", *arguments, str(manifest), "--", "env"]) == 0
    finally:
        del os.environ["PKGJAIL_TEST_PASSED"]
    out, err = capfd.readouterr()
    assert err == (
        "pkgjail: warning: '--env PKGJAIL_TEST_ABSENT' passes nothing on: no such variable is set\n"
    )
    shown = out.splitlines()
    assert {"A=b=c", "PKGJAIL_TEST_PASSED=on"} <= set(shown)
    assert not [line for line in shown if line.startswith("PKGJAIL_TEST_ABSENT")]


def test_binds_and_cwd(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").write_text("data")
    monkeypatch.chdir(tmp_path)
    arguments = ["--cwd", "--ro-bind", "data:/srv/data", "--bind", "data", "--no-network"]
    assert (
        main(["run", *arguments, str(manifest), "--", "sh", "-c", "cat /srv/data data; pwd; echo x > new"])
        == 0
    )
    assert capfd.readouterr().out == f"datadata{tmp_path}\n"
    assert (tmp_path / "new").read_text() == "x\n"


@pytest.mark.parametrize(
    ("option", "text", "bound"),
    [
        ("--bind", "/a", ("/a", "/a", True)),
        ("--bind", "/a:/b/../c", ("/a", "/c", True)),
        ("--bind", "/a:/b:ro", ("/a", "/b", False)),
        ("--bind", "/a:/b:rw", ("/a", "/b", True)),
        ("--bind", "/a::ro", ("/a", "/a", False)),
        ("--ro-bind", "/a:/b", ("/a", "/b", False)),
        ("--ro-bind", "/a:/b:ro", ("/a", "/b", False)),
        ("--bind", r"/a\:b:/c\:ro", ("/a:b", "/c:ro", True)),
        ("--bind", r"/a\\:/b\c", ("/a\\", r"/b\c", True)),
        ("--bind", "/a\\", ("/a\\", "/a\\", True)),
        ("--ro-bind", "/a:/b:rw", "it says rw"),
        ("--bind", "/a:/b:z", "there is no option 'z'; the options are ro and rw"),
        ("--bind", "/a:/b:ro:", "write SRC, SRC:DST or SRC:DST:OPTION"),
        ("--bind", "/a:ro", "with an absolute path for DST"),
        ("--bind", ":/b", "write SRC"),
        ("--bind", "", "write SRC"),
    ],
)
def test_what_a_bind_says(option: str, text: str, bound: tuple[str, str, bool] | str) -> None:
    """Text after the second colon is understood or refused, and never becomes a part of a path."""
    if isinstance(bound, str):
        with pytest.raises(UsageError, match=bound):
            parse_bind(text, writable=option == "--bind")
        return
    source, destination, writable = bound
    expected = UserBind(source=source.encode(), destination=destination.encode(), writable=writable)
    assert parse_bind(text, writable=option == "--bind") == expected


@pytest.mark.parametrize("verb", ["run", "build"])
def test_every_verb_knows_read_only_binds(
    verb: str, manifest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--bind DIR:/data:ro` is read-only at once, and in an environment that remembers it."""
    (tmp_path / "data").mkdir()
    words = ["--bind", f"{tmp_path}/data:/data:ro", str(manifest)]
    command = ["--", "sh", "-c", "touch /data/new"]
    if verb == "build":
        assert main(["build", *words, str(tmp_path / "env")]) == 0
        assert main(["enter", str(tmp_path / "env"), *command]) != 0
    else:
        assert main(["run", *words, *command]) != 0
    assert "Read-only file system" in capfd.readouterr().err
    assert main(["run", "--bind", f"{tmp_path}/data:/data:ro,z", str(manifest), *command]) == 125


def test_a_reader_that_closes_early_is_no_error(caller: Caller) -> None:
    """`pkgjail resolve base | head -1` ends quietly."""
    command = f"{sys.executable} -m pkgjail resolve base --no-hash | head -c 10"
    ran = caller.run(["bash", "-c", f"set -o pipefail; {command}"], environment={"PYTHONPATH": ""})
    assert "Traceback" not in ran.stderr
    assert "Broken" not in ran.stderr


@pytest.mark.gate
def test_a_host_without_user_namespaces_is_told_which_setting(user: Caller, manifest: Path) -> None:
    """The switch is thrown in a user namespace of the test's own, whose limit it then is."""
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    (user.home / "m.jsonl").write_bytes(manifest.read_bytes())
    ran = user.run(
        [
            "unshare",
            "-Ur",
            "sh",
            "-c",
            script,
            "sh",
            "/usr/bin/python3",
            "-m",
            "pkgjail",
            "run",
            "m.jsonl",
            "true",
        ]
    )
    assert ran.returncode == 125
    assert "user.max_user_namespaces is 0; as root: sysctl -w" in ran.stderr


def _small_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_a_full_disk_leaves_the_old_manifest(tmp_path: Path) -> None:
    """Writing fails part of the way, as on a full disk (here EFBIG); the old bytes stay."""
    out = tmp_path / "out.jsonl"
    out.write_text("old")
    command = [sys.executable, "-m", "pkgjail", "resolve", "base", "--no-hash", "-o", str(out)]
    ran = subprocess.run(command, preexec_fn=_small_disk, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    assert str(out) in ran.stderr
    assert out.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.jsonl"]


@pytest.mark.parametrize("delay", [0.05, 0.15, 0.25, 0.35, 0.45])
def test_a_kill_leaves_the_old_manifest_or_the_new(tmp_path: Path, delay: float) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old")
    command = [sys.executable, "-m", "pkgjail", "resolve", "base", "--no-hash", "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    time.sleep(delay)
    process.kill()
    process.wait()
    assert out.read_text() == "old" or read_manifest(out)


def test_the_status_tells_where_nothing_can_be_printed() -> None:
    """Protects callers who recognize a failure of pkgjail by its status."""
    with open("/dev/full", "w", encoding="ascii") as full:
        command = [sys.executable, "-m", "pkgjail", "run", "/no/such.jsonl", "--", "true"]
        assert subprocess.run(command, stderr=full, check=False).returncode == 125


def test_ctrl_c_ends_with_130() -> None:
    command = [sys.executable, "-c", "from pkgjail.__main__ import main; raise SystemExit(main())"]
    reading, writing = os.pipe()
    command += ["resolve", "/dev/stdin"]
    process = subprocess.Popen(command, stdin=reading, stderr=subprocess.PIPE, text=True)
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        pipe.write(b"#")
        while int.from_bytes(fcntl.ioctl(reading, termios.FIONREAD, bytes(4)), sys.byteorder):
            time.sleep(0.01)  # until the command reads it
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    os.close(reading)
    assert (process.returncode, error) == (130, "pkgjail: interrupted\n")


def test_a_shell_has_a_terminal_of_its_own(manifest: Path) -> None:
    """In it keys reach the shell, its size is the caller's, and its end is the command's."""
    pid, terminal = os.forkpty()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "pkgjail", "shell", str(manifest)])
    output = b""
    try:
        os.write(terminal, b"stty size; tty; exit 9\n")
        while chunk := os.read(terminal, 4096):
            output += chunk
    except OSError:  # EIO: the terminal has hung up
        pass
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9, output
    assert b"/dev/pts/0" in output
