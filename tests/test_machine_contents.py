"""What the root of a machine has besides the files of its disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.model import JailOptions, UserBind
from pkgjail.machine.contents import Shown, contents_of
from tests.test_export import directory, manifest_of

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_later_runs_depend_on_is_named_by_its_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects pkgjail's own cache below a writable bind: changes of a copy are compared with these paths."""
    (tmp_path / "cache/pkgjail").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = bytes(tmp_path)
    options = JailOptions(binds=(UserBind(source=place, destination=place, writable=True),))
    found = contents_of(manifest_of(directory(b"/")), options, "host")
    assert [step.path for step in found.steps if isinstance(step, Shown)] == [place]
    assert place + b"/cache/pkgjail" in found.kept
