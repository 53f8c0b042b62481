"""Fingerprints of directories show every change of their names, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.storage import fingerprint
from pkgjail.storage.fingerprint import (
    changed_directories,
    take_fingerprint,
    take_settled_fingerprint,
    unverifiable_paths,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def _replace(d: Path) -> None:
    (d / "new").write_text("as long")
    (d / "new").rename(d / "file")


def _same_names_in_another_directory(d: Path) -> None:
    d.rename(d.with_name("old"))
    d.mkdir()
    (d / "file").write_text("as long")
    os.utime(d, ns=(0, (d.parent / "old").stat().st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "shows"),
    [
        pytest.param(lambda d: (d / "new").touch(), True, id="a name that came"),
        pytest.param(lambda d: (d / "file").unlink(), True, id="a name that went"),
        pytest.param(lambda d: (d / "file").rename(d / "other"), True, id="another name"),
        pytest.param(_replace, True, id="another file of that name"),
        pytest.param(lambda d: (d / "dir").mkdir(), True, id="a directory in it"),
        pytest.param(_same_names_in_another_directory, True, id="another directory with its time"),
        pytest.param(lambda d: d.rename(d.with_name("moved")), True, id="gone"),
        pytest.param(lambda d: d.chmod(0o700), True, id="another mode"),
        pytest.param(lambda d: os.utime(d, ns=(0, 0)), True, id="another time"),
        pytest.param(lambda d: (d / "file").write_text("content"), False, id="content written in place"),
        pytest.param(lambda d: (d / "file").read_text(), False, id="a file that is read"),
        pytest.param(os.listdir, False, id="names that are read"),
    ],
)
def test_what_shows(tmp_path: Path, change: Callable[[Path], object], *, shows: bool) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    (directory / "file").write_text("content")
    observed = take_settled_fingerprint([bytes(directory)])
    assert changed_directories(observed) == []
    change(directory)
    assert changed_directories(observed) == ([bytes(directory)] if shows else [])


def test_changes_in_one_tick_of_the_clock_show(tmp_path: Path) -> None:
    """A record that is kept is made when later changes get another time."""
    for number in range(20):
        (tmp_path / f"{number}").touch()
        observed = take_settled_fingerprint([bytes(tmp_path)])
        (tmp_path / f"{number}").rename(tmp_path / f"{number}-new")
        assert changed_directories(observed) == [bytes(tmp_path)]


def test_what_cannot_be_observed_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        take_fingerprint([bytes(tmp_path), bytes(tmp_path / "gone")])


@pytest.mark.parametrize("module", ["fingerprint", "marshal_store", "mounts", "own_files"])
def test_it_is_light(module: str) -> None:
    """Protects the time of an entry, which uses these modules before anything else."""
    heavy = {"dataclasses", "enum", "hashlib", "pathlib", "re", "typing"}
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        f"import pkgjail.storage.{module}; print({heavy} & set(sys.modules))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(Path(fingerprint.__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_lies_on_another_device_now_is_unknown(tmp_path: Path) -> None:
    """Protects from a file system whose number is another one: all content in it may be too."""
    path, other = bytes(tmp_path), bytes(tmp_path / "d")
    (tmp_path / "d").mkdir()
    (state, marked), (there, _) = take_settled_fingerprint([path]), take_settled_fingerprint([other])
    assert unverifiable_paths((state, there, marked)) == set()
    moved = (there[0], there[1] + 1, *there[2:])
    assert unverifiable_paths((state, moved, marked)) == {other}


@pytest.mark.parametrize(
    ("ctime", "waited"),
    [
        pytest.param(1_000_290_000_001, 0.02, id="in this tick"),
        pytest.param(999_900_000_001, 0, id="before it"),
        pytest.param(1_000_000_000_000, 1.02, id="in this second, on a file system that keeps no less"),
        pytest.param(998_000_000_000, 0, id="before it, there"),
    ],
)
def test_how_long_a_state_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ctime: int, waited: float
) -> None:
    """Protects records of ext3, and of ext4 with small inodes: changes in one second leave one time."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_300_000_000)
    real = fingerprint._state
    monkeypatch.setattr(fingerprint, "_state", lambda path: (*real(path)[:4], ctime))
    take_settled_fingerprint([bytes(tmp_path)])
    assert sum(slept) == waited
