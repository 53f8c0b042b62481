"""What the root of a machine has besides the files of its disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.options import JailOptions, UserBind
from pkgjail.machine.contents import Shown, contents_of
from tests.test_export import directory, manifest_of

if TYPE_CHECKING:
    from pathlib import Path


def test_what_later_runs_depend_on_is_named_by_its_paths(tmp_path: Path) -> None:
    """Protects a manifest below a writable bind: changes of a copy are compared with these paths."""
    place = bytes(tmp_path / "place")
    (tmp_path / "place").mkdir()
    (tmp_path / "place/m.jsonl").write_bytes(b"")
    options = JailOptions(
        binds=(UserBind(source=place, destination=place, writable=True),), inputs=(place + b"/m.jsonl",)
    )
    found = contents_of(manifest_of(directory(b"/")), options, "host")
    assert [step.path for step in found.steps if isinstance(step, Shown)] == [place]
    assert found.kept == (place + b"/m.jsonl",)
