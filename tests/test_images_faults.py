"""Imports and removals of images, stopped at any system call or with a full disk: the store is whole."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.reporter import SILENT
from pkgjail.images.importing import import_image
from pkgjail.images.store import list_images, verify_image
from tests.tars import END, archive, directory, file, link, oci_files, symlink
from tests.test_faults import STOPS, Scene, scene, thorough, walk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults import Done, Fault

__all__ = ["scene"]

pytestmark = pytest.mark.gate  # what it asks is the kernel's to answer, not a Python's

LAYERS = [
    directory("d", mode=0o555) + file("d/a", b"abc") + file("d/b") + END,
    link("d/c", "d/a") + symlink("e", "d") + file("d/.wh.b") + END,
]

# The other signals end a program by the same way as in the other walks.
each_fault = pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=() if what in (STOPS[0], STOPS[-1]) else pytest.mark.long) for what in STOPS],
)


class Store:
    """A store for one walk, and the image that is imported into it."""

    def __init__(self, scene: Scene) -> None:
        self.path = scene.out.with_name("store")
        self.source = scene.out.with_name("app.tar")
        self.source.write_bytes(archive(oci_files(LAYERS)))

    def fresh(self) -> None:
        """Have an empty store."""
        if self.path.exists():
            subprocess.run(["chmod", "-R", "u+rwX", self.path], check=True)
            shutil.rmtree(self.path)

    def whole(self) -> list[str]:
        """Return the names of the images; each has all of its files."""
        images = list_images(str(self.path))
        assert all(verify_image(image, SILENT) == () for image in images)
        return [image.name for image in images]


def names_of(directory: Path) -> list[str]:
    """The names in a directory that another program must not see."""
    return [name for name in os.listdir(directory) if name.startswith((".new-", ".going-"))]


@thorough
@each_fault
def test_import(scene: Scene, what: str, *, every: bool) -> None:
    """There is the whole image or none, and the next import removes what is left."""
    store = Store(scene)
    words = ["image", "import", str(store.source), "--store", str(store.path)]

    def prepare() -> None:
        scene.fresh()
        store.fresh()

    for fault, done in walk(scene, words, what, every=every, prepare=prepare):
        assert store.whole() in ([], [""], ["app"]), fault
        assert done.status != 0 or store.whole() == ["app"], fault
        again = scene.run(words)
        assert (again.status, store.whole()) == (0, ["app"]), (fault, again.err)
        assert names_of(store.path) + names_of(store.path / "names") == [], fault


@thorough
@each_fault
def test_removal(scene: Scene, what: str, *, every: bool) -> None:
    """There is the whole image or none, and `prune` removes what is left."""
    store = Store(scene)
    words = ["image", "rm", "app", "--store", str(store.path)]

    def prepare() -> None:
        scene.fresh()
        store.fresh()
        import_image(store.source, store=str(store.path))

    def check(fault: Fault, done: Done) -> None:
        assert store.whole() in ([], [""], ["app"]), fault
        assert done.status != 0 or store.whole() == [], fault
        if store.whole() == ["app"]:
            assert scene.run(words).status == 0, fault
        assert scene.run(["image", "prune", "--store", str(store.path)]).status == 0, fault
        assert sorted(os.listdir(store.path)) == ["lock", "names"], fault

    for fault, done in walk(scene, words, what, every=every, prepare=prepare):
        check(fault, done)
