"""Images whose documents are damaged are refused with what is wrong."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.images import layouts
from pkgjail.images.streams import DamagedError

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = f"sha256:{'0' * 64}"


def image(**changed: Any) -> dict[str, Any]:
    return {"Config": f"{'0' * 64}.json", "RepoTags": ["a:1"], "Layers": ["l/layer.tar"], **changed}


DOCKER: dict[str, tuple[object, str, str]] = {
    "no list": ({}, "", "manifest.json is no list"),
    "no image": ([], "", "it has 0 such images"),
    "several images": (
        [image(), image(RepoTags=None)],
        "",
        "2 such images; name one of a:1; an image",
    ),
    "no image of that name": ([image()], "b:1", "it has 0 such images; name one of a:1"),
    "more layers than digests": (
        [image(Layers=["l/layer.tar", "m/layer.tar"])],
        "1",
        "it has 2 layers, and 1 digests",
    ),
}


@pytest.mark.parametrize(("manifest", "reference", "words"), DOCKER.values(), ids=DOCKER)
def test_an_archive_of_docker(manifest: object, reference: str, words: str, tmp_path: Path) -> None:
    """Its list of images says one that can be read, or the error says what it says."""
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / f"{'0' * 64}.json").write_text(json.dumps({"rootfs": {"diff_ids": [DIGEST]}}))
    with pytest.raises((DamagedError, ValueError), match=words):
        layouts._docker_layers(os.fsencode(tmp_path), reference)


OBJECTS = {"a list": (b"[]", "is no object"), "a deep one": (b"[" * (1 << 22), "nested too deeply")}


@pytest.mark.parametrize(("data", "words"), OBJECTS.values(), ids=OBJECTS)
def test_a_document(data: bytes, words: str) -> None:
    """A document of an image is one object, of bounded depth."""
    with pytest.raises(ValueError, match=words):
        layouts._object(data)


def test_a_blob_that_changed(tmp_path: Path) -> None:
    """A blob has the content that its name says, or it is damaged; one that is missing is named."""
    place = tmp_path / "blobs/sha256"
    place.mkdir(parents=True)
    with pytest.raises(DamagedError, match="cannot be read"):
        layouts._blob(os.fsencode(tmp_path), {"digest": DIGEST})
    (place / ("0" * 64)).write_text("{}")
    with pytest.raises(DamagedError, match="its digest is not that of its name"):
        layouts._blob(os.fsencode(tmp_path), {"digest": DIGEST})
