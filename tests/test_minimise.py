"""Lists that are too long: real builds, again without some of their lines."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgjail.api import resolve
from pkgjail.audit.differences import NO_NOISE
from pkgjail.audit.list_text import list_text
from pkgjail.audit.minimise import _Search, minimise
from pkgjail.audit.outputs import Outputs
from pkgjail.audit.rebuild import Rebuilt
from pkgjail.audit.step_log import Base, Step, StepLog
from pkgjail.cli.main import main
from pkgjail.core.errors import InputError, PkgjailError, UsageError
from pkgjail.core.model import Dependency, Distribution, Header, Manifest, Package
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.core.reporter import SILENT
from pkgjail.jails.run import default_environment
from pkgjail.manifest.subset import packages_below, whitelist_roots, without_roots

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pkgjail.audit.minimise import Minimal
    from pkgjail.audit.rebuild import Rebuilds

# It needs m4 and bzip2, and looks for bison without need.
BUILD = """\
set -e
mkdir -p out
m4 -P in >out/made
bzip2 -k in -c >out/packed
test -e /usr/bin/bison && : || :
date >out/date
"""
LINES = ("coreutils", "dash", "m4", "bzip2", "bison", "gettext", "flex", "zlib1g-dev", "time", "file")


@pytest.fixture(scope="module")
def long_list(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A manifest of a list of ten lines, of which four are enough."""
    return _resolved(tmp_path_factory.mktemp("long"), LINES)


def _resolved(place: Path, lines: tuple[str, ...]) -> Manifest:
    text = "\n".join(f'  "{line}",' for line in lines)
    (place / "w.toml").write_text(f"[packages]\ndebian = [\n{text}\n]\n[options]\nessential = false\n")
    return resolve([str(place / "w.toml")], hashed=False)


@pytest.fixture
def options(tmp_path: Path) -> JailOptions:
    """Options that show a build of a few lines, and start in it."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "build").write_text(BUILD)
    (work / "in").write_text("m4_define(`x', `y')x\n")
    here = os.fsencode(work)
    bind = UserBind(source=here, destination=here, writable=True)
    return JailOptions(binds=(bind,), cwd=here, environment=default_environment())


def _minimise(manifest: Manifest, options: JailOptions, state: Path | None = None) -> Minimal:
    output = options.cwd + b"/out"
    path = None if state is None else str(state)
    return minimise(manifest, ["sh", "build"], options, output, jobs=2, state=path)


def _lines(found: Minimal) -> tuple[list[str], list[str]]:
    return [root.text for root in found.kept], [root.text for root in found.removed]


def test_ten_lines(long_list: Manifest, options: JailOptions) -> None:
    """The four lines that are needed remain, each proved by a build without it; at most twelve builds."""
    found = _minimise(long_list, options)
    assert _lines(found)[0] == ["coreutils", "dash", "m4", "bzip2"]
    assert sorted(_lines(found)[1]) == sorted(set(LINES) - {"coreutils", "dash", "m4", "bzip2"})
    assert found.runs == len(found.steps) + 2 == 7
    assert found.manifest == without_roots(long_list, found.removed)
    refused = [set(step.without) - set(found.removed) for step in found.steps if not step.accepted]
    assert sorted(map(sorted, refused)) == sorted([root] for root in found.kept)  # no single one can go
    assert {step.why.kind for step in found.steps if step.why} == {"status"}
    assert not os.path.exists(options.cwd + b"/out")


def test_what_is_only_looked_at(long_list: Manifest, options: JailOptions) -> None:
    """A package that the build only looks for stays if the outputs depend on it: the second guess."""
    work = options.cwd.decode()
    with open(f"{work}/build", "a", encoding="utf-8") as build:
        build.write("test -e /usr/bin/file && echo yes >out/found\ntrue\n")
    found = _minimise(long_list, options)
    assert _lines(found)[0] == ["file", "coreutils", "dash", "bzip2", "bison"]  # bison brings m4
    assert found.runs == 9
    whys = {step.why.file for step in found.steps if step.why}
    assert b"found" in whys


def test_ends_at_any_moment(
    long_list: Manifest, options: JailOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that ends after each of its steps goes on where it was: no build is repeated."""
    whole = _minimise(long_list, options, tmp_path / "whole")
    state = tmp_path / "state"
    add_step, add_base = StepLog.add_step, StepLog.add_base

    def interrupted_step(self: StepLog, step: Step) -> None:
        add_step(self, step)
        raise KeyboardInterrupt

    def interrupted_base(self: StepLog, base: Base) -> None:
        add_base(self, base)
        raise KeyboardInterrupt

    monkeypatch.setattr(StepLog, "add_step", interrupted_step)
    monkeypatch.setattr(StepLog, "add_base", interrupted_base)
    for _ in range(len(whole.steps) + 1):
        with pytest.raises(KeyboardInterrupt):
            _minimise(long_list, options, state)
        state.write_bytes(state.read_bytes() + b'{"kind":"st')  # as after a kill
    found = _minimise(long_list, options, state)
    assert (found.runs, _lines(found)) == (0, _lines(whole))
    lines = [json.loads(line) for line in state.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["minimise", "base"] + ["step"] * len(whole.steps)


def test_another_search(long_list: Manifest, options: JailOptions, tmp_path: Path) -> None:
    """Steps of another command, start or manifest are not taken for this one's; nor is anything else."""
    state = tmp_path / "state"
    _minimise(long_list, options, state)
    first, *rest = state.read_text().splitlines(keepends=True)
    (tmp_path / "work/in").write_text("other")
    with pytest.raises(UsageError, match="of another manifest, command, directory or start"):
        _minimise(long_list, options, state)
    (tmp_path / "work/in").write_text("m4_define(`x', `y')x\n")
    for line in (
        "{}",
        "[]",
        "x",
        '{"kind":"base"}',
        "[" * 100_000,
        '{"kind":"step","packages":1,"without":[[1]]}',
    ):
        state.write_text(f"{first}{line}\n{''.join(rest)}")
        with pytest.raises(InputError, match="state:2: this is no line of a log of steps"):
            _minimise(long_list, options, state)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="it is no regular file"):
        _minimise(long_list, options, tmp_path / "fifo")
    with StepLog(str(tmp_path / "held"), {}), pytest.raises(UsageError, match="another process does"):
        _minimise(long_list, options, tmp_path / "held")


def test_a_build_that_fails(long_list: Manifest, options: JailOptions, tmp_path: Path) -> None:
    """Nothing is taken from a list with which the build fails: it would fail without it, too."""
    (tmp_path / "work/build").write_text("mkdir out; echo >out/x; exit 3")
    with pytest.raises(PkgjailError, match="the build as it is ends with status 3"):
        _minimise(long_list, options)


@pytest.mark.unmeasured  # coverage leaves files of its own in what is built
def test_the_command(
    options: JailOptions, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command prints which lines are needed and why, and its list resolves to these packages."""
    del options
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "w.toml").write_text(
        '[packages]\ndebian = ["coreutils", "dash", "bzip2", "m4", "time"]\n'
        '[options]\nessential = false\nblacklists = ["docs"]\n'
    )
    words = ["minimise", "--cwd", "--output", "out", "-o", "../list.toml", "--state", "../steps", "../w.toml"]
    assert main([*words, "--", "sh", "build"]) == 0
    assert capfd.readouterr().out.splitlines()[1:] == [
        "  w.toml:2: bzip2 (without it: exit status: 0 -> 127)",
        "  w.toml:2: coreutils (without it: exit status: 0 -> 127)",
        "  w.toml:2: dash (without it: exit status: 0 -> 127)",
        "  w.toml:2: m4 (without it: exit status: 0 -> 127)",
        "not needed:",
        "  w.toml:2: time",
    ]
    assert main([*words, "--json", "--", "sh", "build"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert ([root["text"] for root in found["removed"]], found["runs"]) == (["time"], 0)
    listed = resolve([str(tmp_path / "list.toml")], hashed=False)
    assert [package.key for package in listed.packages] == found["packages"]
    assert listed.header.blacklists == ("docs",)
    assert main(["minimise", "--output", "out", "../w.toml", "--", "true"]) == 2
    assert "no writable bind has it" in capfd.readouterr().err
    assert main([*words, "--jobs", "0", "--", "true"]) == 2


def test_all_that_a_list_has(tmp_path: Path) -> None:
    """A list has the files, the owners of files, the devices and the options of the manifest's lists."""
    (tmp_path / "own.ignore").write_text("/usr/share/nothing/\n")
    (tmp_path / "w.toml").write_text(
        '[packages]\ndebian = ["coreutils | busybox", "zlib1g-dev:amd64"]\n'
        '[files]\ninclude = ["/etc/hostname", "/etc/os-release"]\nowners = ["/usr/bin/m4"]\n'
        '[devices]\ninclude = ["/dev/fuse"]\n[options]\nessential = false\nrecommends = true\n'
        'blacklists = ["docs", "./own.ignore"]\n'
    )
    manifest = resolve([str(tmp_path / "w.toml")], hashed=False)
    text = list_text(manifest, whitelist_roots(manifest))
    assert 'blacklist "own.ignore": name its path' in text
    (tmp_path / "again.toml").write_text(text)
    again = resolve([str(tmp_path / "again.toml")], [str(tmp_path / "own.ignore")], hashed=False)
    assert again.packages == manifest.packages
    assert [entry[:7] for entry in again.files] == [entry[:7] for entry in manifest.files]
    assert [device.pattern for device in again.devices] == ["/dev/fuse"]
    assert (again.header.essential, again.header.recommends) == (False, True)


NEEDS = st.frozensets(st.sampled_from(LINES), min_size=1)


@given(needs=NEEDS, used=NEEDS, opened=NEEDS)
@settings(max_examples=60, deadline=None)
def test_any_needs(needs: frozenset[str], used: frozenset[str], opened: frozenset[str]) -> None:
    """Whatever a build needs and the audit says, no line that remains can go, and no set is built twice."""
    manifest = _synthetic()
    built: list[frozenset[str]] = []

    def run_all(manifests: Iterable[Manifest], jobs: int) -> Iterator[tuple[int, Rebuilt]]:
        for number, each in enumerate(manifests):
            names = frozenset(package.name for package in each.packages)
            assert names not in built, jobs
            built.append(names)
            yield (
                number,
                Rebuilt(int(not needs <= names), Outputs(status=int(not needs <= names), files={}), b""),
            )

    rebuilds = SimpleNamespace(run_all=run_all)
    with StepLog(None, {}) as log:
        keys = [tuple(f"{name}:amd64" for name in sorted(names)) for names in (used, opened)]
        log.add_base(Base(outputs=Outputs(status=0, files={}), noise=NO_NOISE, used=keys[0], opened=keys[1]))
        removed = _Search(manifest, cast("Rebuilds", rebuilds), log, 1, SILENT).run()
    roots = whitelist_roots(manifest)
    kept = {root for root in roots if root not in removed}
    assert needs <= {key.partition(":")[0] for key in packages_below(manifest, kept)}
    for root in kept:
        less = packages_below(manifest, kept - {root})
        assert not needs <= {key.partition(":")[0] for key in less}
    if used == needs == opened:
        assert len(built) <= 1 + len(kept)


def _synthetic() -> Manifest:
    """A manifest of ten lines, in which each third package requires the next one, without files."""
    packages = [Package(name=name, version="1", architecture="amd64") for name in LINES]
    edges = [Dependency(source=f"w.toml:{n}", target=f"{name}:amd64", kind="whitelist", text=name)
             for n, name in enumerate(LINES)]  # fmt: skip
    edges += [
        Dependency(source=f"{one}:amd64", target=f"{two}:amd64", kind="Depends", text=two)
        for number, (one, two) in enumerate(zip(LINES, LINES[1:]))
        if number % 3 == 0
    ]
    header = Header(
        schema=1, distribution=Distribution(id="debian", version="12"), architecture="amd64", policy="",
        whitelists=(), blacklists=(), recommends=False, essential=False,
    )  # fmt: skip
    return Manifest(header=header, packages=tuple(packages), dependencies=tuple(edges), files=())
