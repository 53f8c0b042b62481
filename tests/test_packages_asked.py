"""Packages that are asked for by name, without a list: `--package`, and the library's `packages`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pkgjail.cli.main import main, make_parsers, with_place_of_manifest
from pkgjail.core.errors import PolicyError
from pkgjail.policy import load_policy, policy_digest
from tests.memory import MemoryDatabase, parse_records

INSTALLED = """
gcc 12 amd64
zlib1g-dev 1.2 amd64
make 4 amd64
"""


def test_they_are_requirements_with_origins_of_their_own(tmp_path: Path) -> None:
    """They come before those of a list, each counts once, and each says where it was asked for."""
    (tmp_path / "own.toml").write_text('[packages]\ndebian = ["make", "gcc"]\n')
    database = MemoryDatabase(parse_records(INSTALLED))
    names = ["zlib1g-dev (>=  1.1)", "gcc"]
    policy = load_policy([str(tmp_path / "own.toml")], packages=names, database=database)
    assert [(each.text, each.origin) for each in policy.packages] == [
        ("gcc", "packages"),
        ("zlib1g-dev (>= 1.1)", "packages"),
        ("make", "own.toml:2"),
    ]
    alone = load_policy([], packages=["gcc"], database=database)
    (tmp_path / "gcc.toml").write_text('[packages]\ndebian = ["gcc"]\n')
    listed = load_policy([str(tmp_path / "gcc.toml")], database=database)
    assert policy_digest(alone) == policy_digest(listed)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        pytest.param(["gcd"], "packages: cannot satisfy 'gcd'", id="not installed"),
        pytest.param(["make", "a b c"], "packages: bad requirement 'a b c'", id="no requirement"),
    ],
)
def test_what_cannot_be_satisfied_is_told_as_in_a_list(names: list[str], told: str) -> None:
    with pytest.raises(PolicyError) as error:
        load_policy([], packages=names, database=MemoryDatabase(parse_records(INSTALLED)))
    assert told in str(error.value)


def test_a_package_in_the_place_of_a_list_is_recognized() -> None:
    with pytest.raises(PolicyError, match="'gcc' is a package: ask for it with `packages`"):
        load_policy(["gcc"], database=MemoryDatabase(parse_records(INSTALLED)))


@pytest.mark.parametrize(
    ("words", "place"),
    [
        pytest.param("run --package gcc -- gcc -v", "package:", id="a command"),
        pytest.param("run --package=gcc --cwd -- make", "package:", id="with an equals sign"),
        pytest.param("shell --package gcc", "package:", id="a shell"),
        pytest.param("run base --package gcc -- true", "", id="a list besides"),
        pytest.param("run --package gcc --source image:x -- true", "package:", id="of an image"),
        pytest.param("run --source image:x -- true", "image:", id="all of an image"),
        pytest.param("run -- make --package gcc", "project:", id="an option of the command's"),
    ],
)
def test_the_place_of_the_manifest(words: str, place: str) -> None:
    """Protects the command after `--`, which argparse would take for the manifest."""
    given = words.split()
    made = list(with_place_of_manifest(given, make_parsers()[1]))
    assert [word for word in made if word not in given] == ([place] if place else [])


def test_a_command_among_packages_alone(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No list is needed, to run a command or to make a manifest, which says what was asked for."""
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--package", "coreutils", "--", "/usr/bin/echo", "found"]) == 0
    assert capfd.readouterr().out == "found\n"
    assert main(["resolve", "--package", "coreutils", "-o", "m.jsonl"]) == 0
    records = [json.loads(line) for line in Path("m.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [each for each in records if each["kind"] == "dependency" and each["source"] == "packages"]
    assert [each["target"].partition(":")[0] for each in asked] == ["coreutils"]
    assert main(["run", "--package", "coreutils", "m.jsonl", "--", "true"]) == 125
    assert "m.jsonl is a manifest, which is complete: --package" in capfd.readouterr().err
    assert main(["resolve"]) == 2
    assert "name a whitelist, or a package with --package" in capfd.readouterr().err
