"""The options -q, -v and --debug, `pkgjail help`, `-V`, and the nearest command of a misspelt one."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli import verbosity
from pkgjail.cli.console import ConsoleReporter
from pkgjail.cli.main import main, make_parsers
from pkgjail.cli.verbs import backends as verb_backends
from pkgjail.manifest import write_manifest

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from pathlib import Path

    from pkgjail.core.model import Manifest


@pytest.fixture(autouse=True)
def _usual() -> Iterator[None]:
    """Undo the options of a test's command line."""
    yield
    main(["help"])


@pytest.fixture
def manifest(base_manifest: Manifest, tmp_path: Path) -> Path:
    """A manifest in a file."""
    write_manifest(base_manifest, tmp_path / "m.jsonl")
    return tmp_path / "m.jsonl"


def test_every_command_has_them() -> None:
    """Also commands of commands, and the command line itself: before and behind a verb are the same."""
    parser, verbs = make_parsers()
    for each in (parser, *verbs.values()):
        told = each.format_help()
        assert all(f"  {flag}" in told for flag in ("-q, --quiet", "-v, --verbose", "--debug")), each.prog


@pytest.mark.parametrize("words", ["-q resolve base -o F", "resolve -q base -o F", "resolve base -o F -q"])
def test_quiet_prints_nothing_of_finished_work(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever the option stands; the file is written all the same."""
    out = tmp_path / "m"
    assert main([str(out) if word == "F" else word for word in [*words.split(), "--no-hash"]]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert out.stat().st_size


def test_quiet_keeps_results_and_errors(manifest: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A warning goes, also one of a run whose options follow the manifest; results and errors stay."""
    noisy = ["--env", "PKGJAIL_TEST_ABSENT", "--", "echo", "done"]
    assert main(["run", str(manifest), *noisy]) == 0
    assert "warning" in capfd.readouterr().err
    assert main(["run", str(manifest), "-q", *noisy]) == 0
    assert capfd.readouterr() == ("done\n", "")
    assert main(["show", "-q", "/no/such"]) == 1
    assert capfd.readouterr().err == "pkgjail: /no/such: No such file or directory\n"
    assert main(["why", "-q", str(manifest), "/usr/bin/env"]) == 0
    assert "/usr/bin/env: file" in capfd.readouterr().out


def test_verbose_says_steps_and_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each on standard error, where they cannot spoil a result; an object of --json stays alone."""
    assert main(["resolve", "-v", "base", "-o", str(tmp_path / "m")]) == 0
    err = capsys.readouterr().err
    assert re.search(r"^pkgjail: hashing: [\d,]+ in \d+\.\d\d s$", err, re.MULTILINE)
    assert re.search(r"^pkgjail: resolve: done in \d+\.\d\d s$", err, re.MULTILINE)
    assert main(["resolve", "-v", "--json", "base", "-o", str(tmp_path / "m")]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out)["packages"]


def test_the_reporter_by_verbosity(capsys: pytest.CaptureFixture[str]) -> None:
    """What -q and -v mean for those who call the library; the last one applies."""
    for words, said in ((["-q"], ""), (["-v"], "pkgjail: hashing: 3 in "), (["-v", "-q"], "")):
        main([*words, "help"])
        capsys.readouterr()
        with ConsoleReporter() as reporter:
            reporter.progress("hashing", 0, 3)
            reporter.progress("hashing", 3, 3)
        assert capsys.readouterr().err.startswith(said)
        assert bool(said) == verbosity.is_verbose()


def _broken(arguments: Namespace) -> int:
    del arguments
    raise KeyError("lost") from ValueError("the first fault")


def _break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb_backends, "run", _broken)


def test_an_unforeseen_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the place, the version and --debug; a script gets an object; no traceback without --debug."""
    _break(monkeypatch)
    assert main(["backends"]) == 1
    err = capsys.readouterr().err
    assert re.fullmatch(
        r"pkgjail: an unexpected error at test_verbosity\.py:\d+: KeyError: 'lost'; "
        r"this is a fault of pkgjail [\d.]+\S*: report it with what the same command prints with --debug\n",
        err,
    )
    assert main(["backends", "--json"]) == 1
    told = json.loads(capsys.readouterr().err)
    assert (told["error"], told["exit_status"]) == ("InternalError", 1)
    assert main(["backends", "-v"]) == 1
    because = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    assert because == ["  because of KeyError: 'lost'", "  because of ValueError: the first fault"]
    assert main(["backends", "--debug"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in _broken" in err


def test_a_foreseen_error_has_a_traceback_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    for words, there in ((["show", "/no/such"], False), (["show", "--debug", "/no/such"], True)):
        assert main(words) == 1
        err = capsys.readouterr().err
        assert ("Traceback" in err, err.splitlines()[-1]) == (
            there,
            "pkgjail: /no/such: No such file or directory",
        )


@pytest.mark.parametrize("topic", ["", "run", "image import"])
def test_help_is_the_help(
    topic: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same text as --help, to the letter."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*topic.split(), "--help"])
    wanted = capsys.readouterr().out
    assert main(["help", *topic.split()]) == 0
    assert capsys.readouterr().out == wanted
    assert main(["help", "--json", *topic.split()]) == 0
    assert json.loads(capsys.readouterr().out)["help"] + "\n" == wanted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param("help resovle", "no command 'resovle'; did you mean 'resolve'?\n", id="help"),
        pytest.param("help xyz", "no command 'xyz'; 'pkgjail help' lists the commands\n", id="none near"),
    ],
)
def test_help_of_what_is_no_command(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert capsys.readouterr().err.endswith(said)


@pytest.mark.parametrize(
    ("words", "last"),
    [
        pytest.param("resovle base", "invalid choice: 'resovle'; did you mean 'resolve'?", id="verb"),
        pytest.param("image lss", "invalid choice: 'lss'; did you mean 'ls'?", id="a verb's command"),
        pytest.param("completion bsh", "invalid choice: 'bsh'; did you mean 'bash'?", id="value"),
    ],
)
def test_a_misspelt_word_gets_the_nearest_alone(
    words: str, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not behind a list of all 25 commands."""
    with pytest.raises(SystemExit):
        main(words.split())
    assert capsys.readouterr().err.endswith(f"{last}\n")


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        pytest.param("plan M", "the command 'plan' is now called 'mounts'", id="command"),
        pytest.param("-v plan M", "the command 'plan' is now called 'mounts'", id="behind an option"),
        pytest.param("-q plan M", "", id="not with -q"),
        pytest.param("mounts --plan binds M", "the option --plan is now called --strategy", id="option"),
        pytest.param("run M --plan=binds -- true", "the option --plan is now called --strategy", id="of run"),
        pytest.param("mounts --strategy binds M", "", id="the new name"),
    ],
)
def test_former_names_work(
    words: str, warned: str, manifest: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As the new ones do, with a warning that names these; no help has them."""
    assert main([str(manifest) if word == "M" else word for word in words.split()]) == 0
    captured = capfd.readouterr()
    warnings = [line for line in captured.err.splitlines() if "warning" in line]
    assert warnings == ([f"pkgjail: warning: {warned}"] if warned else [])
    if "binds" in words and "run" not in words:
        assert ": binds: " in captured.out
    _, verbs = make_parsers()
    assert "plan" not in verbs
    assert "--plan" not in verbs["run"].format_help()


def test_help_of_a_former_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "plan"]) == 0
    assert capsys.readouterr().out.startswith("usage: pkgjail mounts ")


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([flag])
    assert re.fullmatch(r"pkgjail \d+\.\d+\S*\n", capsys.readouterr().out)
