"""The choice of a strategy: the first that works here, or the requested one or an error."""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.core.errors import JailError
from pkgjail.core.model import FileEntry, PlanOption, StrategyName
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails import probe, strategy
from pkgjail.jails.run import default_environment, prepare, run_in_jail
from pkgjail.jails.strategy import choose_strategies
from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.steps import assemble
from pkgjail.storage.locks import layer_directories

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from pkgjail.jails.strategy import Choice

WAYS: tuple[StrategyName, ...] = ("tree", "mask", "whole", "binds")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "pkgjail"


def chosen(manifest: Manifest, plan: PlanOption = "auto", root: bytes = b"/") -> dict[bytes, Choice]:
    return {choice.top: choice for choice in choose_strategies(manifest, JailOptions(plan=plan), root)}


def fail(monkeypatch: pytest.MonkeyPatch, *ways: str) -> None:
    """Let the probe of these strategies fail."""
    real = probe.probe_obstacle

    def probe_obstacle(way: StrategyName, *others: Any, **more: Any) -> str:
        return f"no {way} today" if way in ways else real(way, *others, **more)

    monkeypatch.setattr(strategy, "probe_obstacle", probe_obstacle)


@pytest.mark.parametrize(
    ("failing", "tried"),
    [
        ((), {"tree": ""}),
        (("tree",), {"tree": "no tree today", "mask": ""}),
        (("tree", "mask"), {"tree": "no tree today", "mask": "no mask today", "whole": ""}),
        (WAYS[:3], {"tree": "no tree today", "mask": "no mask today", "whole": "no whole today"}),
    ],
    ids=WAYS,
)
def test_auto_takes_the_first_that_works(
    base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...], tried: dict[str, str]
) -> None:
    """In the documented order; and each makes a jail."""
    fail(monkeypatch, *failing)
    choice = chosen(base_manifest)[b"/usr"]
    assert choice.strategy == WAYS[len(failing)]
    assert dict(choice.tried) == tried
    assert (
        run_in_jail(base_manifest, ["true"], JailOptions(environment=default_environment())).returncode == 0
    )


@pytest.mark.parametrize("way", WAYS[:3])
def test_a_requested_strategy_that_does_not_work_is_refused(
    base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch, way: StrategyName
) -> None:
    """There is no silent fallback."""
    fail(monkeypatch, way)
    if way == "whole":  # files alone are what 'whole' comes down to
        assert chosen(base_manifest, way)[b"/usr"].strategy == "binds"
        return
    with pytest.raises(JailError, match=f"cannot use the plan '{way}' for /usr: no {way} today; use `plan="):
        prepare(base_manifest, JailOptions(plan=way))


@pytest.mark.parametrize(
    ("plan", "step", "way"),
    [
        ("tree", "Overlay", "tree"),
        ("mask", "MaskedOverlay", "mask"),
        ("whole", "WholeDirectory", "whole"),
        ("binds", "HostFile", "binds"),
    ],
)
def test_a_requested_strategy_is_used(
    base_manifest: Manifest, plan: StrategyName, step: str, way: StrategyName
) -> None:
    prepared = prepare(base_manifest, JailOptions(plan=plan))
    counts = Counter(type(step).__name__ for step in prepared.steps)
    others = {"Overlay", "MaskedOverlay", "WholeDirectory"} - {step}
    assert counts[step] >= 1
    assert not others & set(counts)
    assert chosen(base_manifest, plan)[b"/usr"].strategy == way
    assert len(layer_directories(assemble(prepared)[1])) == {"tree": 3, "mask": 2}.get(plan, 0)


def test_a_small_directory_has_file_binds(base_manifest: Manifest) -> None:
    """Whatever overlay is requested. Directory binds are for small directories too."""
    for plan in ("auto", "tree", "mask"):
        choice = chosen(base_manifest, plan)[b"/var"]
        assert (choice.strategy, choice.tried) == ("binds", ())
        assert choice.why == "fewer than 100 names, for which a bind per file is as quick"
    assert [way for way, _ in chosen(base_manifest, "whole")[b"/var"].tried] == ["whole"]


def test_a_directory_with_files_made_at_entry_has_no_whiteout_overlay(base_manifest: Manifest) -> None:
    """The files differ from entry to entry, but the layer is cached.

    A data layer has empty files to mount them over.
    """
    choice = chosen(base_manifest, "mask")[b"/etc"]
    assert choice.strategy == "binds"
    assert "is made at entry" in dict(choice.tried)["mask"]
    assert chosen(base_manifest)[b"/etc"].strategy == "tree"


def test_files_made_at_entry_are_mounted_over_a_data_overlay(
    base_manifest: Manifest, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each jail has its own, read-only and with the right mode; the layer is shared by all."""
    options = JailOptions(environment=default_environment(), plan="tree")
    script = "grep -c pkgjail /etc/hosts; stat -c %a /etc/passwd; echo x 2>/dev/null >> /etc/hosts || echo no"
    assert run_in_jail(base_manifest, ["sh", "-c", script], options).returncode == 0
    assert capfd.readouterr().out.split() == ["1", "644", "no"]
    closed = JailOptions(environment=default_environment(), plan="tree", network=False)
    assert run_in_jail(base_manifest, ["sh", "-c", "test ! -s /etc/resolv.conf"], closed).returncode == 0


@pytest.mark.parametrize(("way", "refused"), [("tree", True), ("mask", True), ("whole", False)])
def test_a_bind_that_needs_a_new_mount_point(
    base_manifest: Manifest, tmp_path: Path, way: StrategyName, *, refused: bool
) -> None:
    """An overlay is read-only; with file binds the directory is the jail's own."""
    bind = UserBind(source=bytes(tmp_path), destination=b"/usr/lib/new/place", writable=False)
    options = JailOptions(binds=(bind,), environment=default_environment(), plan=way)
    if refused:
        with pytest.raises(JailError, match="a bind needs a new mount point there: /usr/lib/new/place"):
            prepare(base_manifest, options)
    else:
        assert run_in_jail(base_manifest, ["test", "-d", "/usr/lib/new/place"], options).returncode == 0


def test_more_mounts_than_the_kernel_allows_are_refused(
    base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is mounted, and with the number. An overlay needs few."""
    monkeypatch.setattr(strategy, "mounts_left", lambda: 150)
    with pytest.raises(
        JailError, match=r"of \d,\d\d\d bind mounts: this host allows 100 more \(fs.mount-max\)"
    ):
        prepare(base_manifest, JailOptions(plan="binds"))
    assert prepare(base_manifest, JailOptions(plan="tree"))


def test_the_number_of_mounts_left(tmp_path: Path) -> None:
    (tmp_path / "sys" / "fs").mkdir(parents=True)
    (tmp_path / "self").mkdir()
    (tmp_path / "sys" / "fs" / "mount-max").write_text("100\n")
    (tmp_path / "self" / "mountinfo").write_text("one\ntwo\n")
    assert probe.mounts_left(tmp_path) == 98


def test_kernel_directories_and_files_have_no_strategy(tmp_path: Path) -> None:
    """A manifest can have them, but the jail mounts its own."""
    paths = [b"/", b"/dev", b"/link", b"/proc", b"/sys", b"/tmp", b"/usr"]
    entries = [FileEntry(path=path, kind="directory", mode=0o755) for path in paths]
    entries[2] = entries[2]._replace(kind="symlink", target=b"usr")
    assert list(strategy._top_directories(_manifest_of(entries))) == [b"/usr"]
    assert tmp_path.is_dir()


def _manifest_of(entries: list[FileEntry]) -> Manifest:
    from tests.test_plan import manifest

    return replace(manifest(""), files=tuple(entries))


@pytest.mark.parametrize("way", WAYS[:3])
def test_the_probe_mounts_the_directory_itself(cache: Path, way: StrategyName) -> None:
    """So another file system, or another depth of overlays, does not count."""
    with os.scandir(b"/usr/bin") as names:
        files = [found.name for found in names if found.is_file(follow_symlinks=False)]
    sample = files[0]
    assert probe.probe_obstacle(way, b"/usr/bin", cache, sample) == ""
    assert [name.split("-")[0] for name in os.listdir(cache) if name != ".lock"] == [way]
    assert (
        probe.probe_obstacle(way, b"/proc/self/gone", cache, sample)
        == "/proc/self/gone: No such file or directory"
    )


_LIES: dict[str, tuple[StrategyName, str]] = {
    "fsmount_data_overlay": ("tree", "an overlay shows other content than the file has"),
    "fsmount_whiteout_overlay": ("mask", "an overlay does not hide what it should"),
    "open_tree": ("whole", "a bind mount shows other names"),
}


@pytest.mark.parametrize("call", _LIES)
def test_the_probe_checks_what_it_mounted(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A kernel that mounts without an error may show something else."""
    for path in ("host/sample", "other/sample", "other/more"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(f"what {path} has"[:11])
    real, flags = sc.open_tree, sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC
    other = bytes(tmp_path / "other")
    monkeypatch.setattr(sc, call, lambda *_: real(sc.AT_FDCWD, other, flags))
    way, answer = _LIES[call]
    assert probe.probe_obstacle(way, bytes(tmp_path / "host"), cache, b"sample") == answer
    assert os.listdir(cache) == [".lock"]


def test_a_file_system_without_extended_attributes_is_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, the runtime directory's before Linux 6.6. Python names the file by its descriptor then."""

    def setxattr(descriptor: int, *_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), descriptor)

    monkeypatch.setattr(os, "setxattr", setxattr)
    (tmp_path / "sample").write_text("x")
    answer = probe.probe_obstacle("tree", bytes(tmp_path), cache, b"sample")
    assert answer == f"{cache}: Operation not supported"


@pytest.mark.parametrize(("number", "lasting"), [(errno.ENOSPC, False), (errno.EOPNOTSUPP, True)])
def test_a_temporary_failure_makes_a_choice_not_lasting(
    base_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, lasting: bool
) -> None:
    """A lack of space may be over the next time; a lack of support is not."""

    def setxattr(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(strategy, "_PREFERENCE", ("tree",))
    monkeypatch.setattr(os, "setxattr", setxattr)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    usr = next(
        choice for choice in choose_strategies(base_manifest, JailOptions(), b"/") if choice.top == b"/usr"
    )
    assert (usr.strategy, usr.lasting) == ("binds", lasting)
