"""The public API: what `resolve` refuses, accepts and records, and the exported names."""

from __future__ import annotations

import errno
import gc
import hashlib
import importlib
import os
from typing import TYPE_CHECKING

import pytest

import pkgjail
from pkgjail.api import resolve
from pkgjail.core.errors import ClosureError
from pkgjail.fileset.rootfs import Tree
from tests.debian_roots import USABLE, make_root
from tests.file_cases import Remembering
from tests.tree_text import NOBODY, in_child, parse_tree, tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pkgjail.core.model import Manifest

_UNMET = "a:amd64: Depends: gone (>= 2): 'gone' is not installed"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Return a Debian root whose only package lists a file and has an unmet requirement."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.toml").write_text('packages.debian = ["a"]\n')
    monkeypatch.chdir(tmp_path)
    return make_root(
        tmp_path / "root",
        "a 1 amd64; Depends: gone (>= 2)",
        files={
            "etc/os-release": "ID=debian\nVERSION_ID=12\n",
            "usr/bin/a": "alpha",
            "var/lib/dpkg/info/a.list": "/usr/bin/a\n",
            "var/lib/dpkg/info/dpkg.list": "",
        },
    )


def test_what_nothing_satisfies_is_refused_with_who_asked(root: bytes) -> None:
    """Protects a build from a jail without its packages' requirements."""
    with pytest.raises(ClosureError) as caught:
        resolve(["./a.toml"], root=root)
    first, last = map(str, caught.value.problems)
    assert first.startswith(_UNMET)
    assert last == "mend the packages, or accept these gaps with `allow_unmet=True`"


@pytest.mark.parametrize("backend", USABLE)
@pytest.mark.parametrize("hashed", [True, False])
def test_what_nothing_satisfies_can_be_accepted(root: bytes, backend: str, hashed: bool) -> None:  # noqa: FBT001
    """Unmet requirements are warned of and recorded, and digests are in the manifest on request."""
    reporter = Remembering()
    manifest = resolve(
        ["./a.toml"], root=root, backend=backend, hashed=hashed, allow_unmet=True, reporter=reporter
    )
    assert [one.text for one in manifest.unmet] == ["gone (>= 2)"]
    assert [text for text in reporter.warnings if text.startswith(_UNMET)]
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    assert digests[b"/usr/bin/a"] == (hashlib.sha256(b"alpha").hexdigest() if hashed else None)


def test_garbage_collection_is_as_the_caller_has_it(root: bytes) -> None:
    """Protects programs that resolve: off meanwhile, and then on again, or off as before."""
    states: list[bool] = []

    class Watching:
        def progress(self, task: str, done: int, total: int) -> None:
            """Nothing."""

        def warn(self, message: str) -> None:
            """Observe the state during resolution."""
            del message
            states.append(gc.isenabled())

    resolve(["./a.toml"], root=root, hashed=False, allow_unmet=True, reporter=Watching())
    assert states
    assert not any(states)
    assert gc.isenabled()
    with pytest.raises(ClosureError):
        resolve(["./a.toml"], root=root, hashed=False)
    assert gc.isenabled()
    gc.disable()
    try:
        resolve(["./a.toml"], root=root, hashed=False, allow_unmet=True)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_every_name_that_the_package_offers_is_there() -> None:
    """Protects the names of `__all__`, which are looked up late, and the error for any other."""
    assert set(pkgjail.__all__) <= set(dir(pkgjail))
    assert [name for name in pkgjail.__all__ if getattr(pkgjail, name) is None] == []
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        pkgjail.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_a_directory_that_its_very_owner_may_not_read_is_empty() -> None:
    """Its mode lets others list it; who cannot goes on without."""
    owner = os.geteuid() or NOBODY
    with tree(parse_tree("/odd/x")) as root:
        os.chown(root + b"/odd", owner, owner)
        os.chmod(root + b"/odd", 0o105)
        try:
            assert in_child(lambda: repr(Tree(root).names(b"/odd")), owner) == "[]"
        finally:
            os.chmod(root + b"/odd", 0o700)  # else its owner cannot remove it


def test_no_room_of_the_backends_hides_a_function() -> None:
    """Protects `available` from a package of that name, which would take the place of the function."""
    importlib.import_module("pkgjail.repositories")
    assert callable(importlib.import_module("pkgjail.backends").available)


def test_results_are_short_in_a_shell(base_manifest: Manifest) -> None:
    """Protects whoever types a name at Python's prompt: a manifest has megabytes."""
    shown = repr(base_manifest)
    assert len(shown) < 1000
    assert f"files=<{len(base_manifest.files):,} items>" in shown
    assert f"architecture={base_manifest.header.architecture!r}" in shown


@pytest.mark.parametrize("read", [pkgjail.read_manifest, pkgjail.read_audit])
def test_a_file_that_is_not_there_is_an_error_of_both_kinds(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    """Protects callers who catch pkgjail's errors, and those who catch the system's."""
    with pytest.raises(FileNotFoundError) as missing:
        read(tmp_path / "m")
    assert isinstance(missing.value, pkgjail.PkgjailError)
    assert (missing.value.errno, missing.value.filename) == (errno.ENOENT, str(tmp_path / "m"))
    assert str(missing.value) == f"{tmp_path}/m: No such file or directory"
    (tmp_path / "m").mkdir()
    with pytest.raises(OSError, match="m: Is a directory") as unreadable:
        read(tmp_path / "m")
    assert isinstance(unreadable.value, pkgjail.PkgjailError)
