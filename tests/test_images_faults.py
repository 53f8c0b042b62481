"""Images that are imported, exported and removed, with a stop or a failure at any system call.

The store is whole, an export is the old one or the whole new one, and the next run works and cleans up.
`make test` does the first and the last call of each kind for some, `make test-long` every call for all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli.verbs.image import EXPORTS
from pkgjail.core.reporter import SILENT
from pkgjail.export.image import IMAGE_FORMS
from pkgjail.export.image.content import COMPRESSIONS
from pkgjail.images.importing import import_image
from pkgjail.images.store import find_image, list_images, verify_image
from pkgjail.manifest import write_manifest
from tests.manifest_text import files_alone
from tests.tars import END, archive, directory, file, link, oci_files, symlink, write
from tests.test_drift import entries_of
from tests.test_faults import STOPS, Scene, scene, walk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults import Done, Fault

__all__ = ["scene"]

pytestmark = pytest.mark.gate  # what it asks is the kernel's to answer, not a Python's

LAYERS = [
    directory("d", mode=0o555) + file("d/a", b"abc") + file("d/b") + END,
    link("d/c", "d/a") + symlink("e", "d") + file("d/.wh.b") + END,
]
KILL, *_OTHER_SIGNALS, FULL = STOPS
FAULTS = (*STOPS, "error=EIO", "error=ENOMEM", "error=EINTR")
TAR = directory("d", mode=0o555) + file("d/a", b"abc") + symlink("e", "d") + END
DIRECTORIES = ("oci", "oci-bundle")  # formats that are no file
# Of an image without packages, entry points are looked through for others' backends, in a thousand calls.
STATUS = b"Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"
SYSTEM = file("etc/os-release", b"ID=debian\n") + file("var/lib/dpkg/status", STATUS) + TAR
SOURCES = ("oci archive", "directory", "zstd", "squashfs")
# The jobs of which `make test` disturbs some calls.
USUAL = ("oci archive", "new", "oci-archive", "oci-bundle")


def jobs(*names: str) -> pytest.MarkDecorator:
    """Parametrize a walk: each job with each fault, at some calls or, in the long tests, at every call."""
    rows = [
        pytest.param(name, what, False, id=f"{name}-{what.rpartition('=')[2]}-some")
        for name in names
        if name in USUAL
        for what in (KILL, FULL)
    ]
    rows += [
        pytest.param(name, what, True, id=f"{name}-{what.rpartition('=')[2]}-every", marks=pytest.mark.long)
        for name in names
        for what in FAULTS
    ]
    return pytest.mark.parametrize(("job", "what", "every"), rows)


class Store:
    """A store for one walk, and the sources of images that are imported into it."""

    def __init__(self, scene: Scene) -> None:
        self.path = scene.out.with_name("store")
        self.place = scene.out.parent

    def source(self, form: str) -> Path:
        """Return an image to import, named `app`."""
        tar = self.place / "app.tar"
        if form == "directory":
            return write({"d/a": b"abc", "d/b": b"", "f": b"f"}, self.place / "app")
        if form == "squashfs":
            made = ("mksquashfs", self.source("directory"), self.place / "app.sqfs", "-quiet", "-no-progress")
            subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
            return self.place / "app.sqfs"
        tar.write_bytes(archive(oci_files(LAYERS)) if form == "oci archive" else SYSTEM)
        if form == "zstd":
            subprocess.run(("zstd", "-q", "-f", tar), check=True)
            return self.place / "app.tar.zst"
        return tar

    def fresh(self) -> None:
        """Have an empty store."""
        if self.path.exists():
            if os.geteuid():
                subprocess.run(["chmod", "-R", "u+rwX", self.path], check=True)
            shutil.rmtree(self.path)

    def whole(self) -> list[str]:
        """Return the names of the images; each has all of its files, and is found by its name."""
        images = list_images(str(self.path))
        assert all(verify_image(image, SILENT) == () for image in images)
        assert all(find_image(image.name or image.digest, str(self.path)) == image for image in images)
        return [image.name for image in images]

    def left(self) -> list[str]:
        """Return what is there besides images: names that no program must see."""
        names = [*os.listdir(self.path), *os.listdir(self.path / "names")]
        return [name for name in names if name.startswith(".")]


def check_import(scene: Scene, store: Store, words: list[str], what: str, *, every: bool) -> None:
    """Walk over an import of `app`: there is the whole image or none, and the next one cleans up."""

    def prepare() -> None:
        scene.fresh()
        store.fresh()

    for fault, done in walk(scene, words, what, every=every, prepare=prepare):
        assert store.whole() in ([], [""], ["app"]), fault
        assert done.status != 0 or store.whole() == ["app"], fault
        again = scene.run(words)
        assert (again.status, store.whole()) == (0, ["app"]), (fault, again.err)
        assert store.left() == [], fault


@jobs(*SOURCES)
def test_import(scene: Scene, job: str, what: str, *, every: bool) -> None:
    """From each form."""
    store = Store(scene)
    words = ["image", "import", str(store.source(job)), "--store", str(store.path)]
    check_import(scene, store, words, what, every=every)


@jobs("create")
def test_creation(scene: Scene, job: str, what: str, *, every: bool) -> None:
    """As for an import, with a program in the place of mmdebstrap, which may be what is disturbed."""
    store = Store(scene)
    programs = write(
        {"mmdebstrap": b"#!/bin/sh\nexec cat %s\n" % bytes(store.source("tar"))}, store.place / "bin"
    )
    (programs / "mmdebstrap").chmod(0o755)
    scene.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    words = ["image", job, "app", "--replace", "--suite", "sid", "--mirror", "http://none"]
    check_import(scene, store, [*words, "--store", str(store.path)], what, every=every)


@jobs("replacement")
def test_replacement(scene: Scene, job: str, what: str, *, every: bool) -> None:
    """The name stands for the old image or the new one, both of which are whole."""
    del job
    store = Store(scene)
    old = import_image(store.source("directory"), store=str(store.path)).digest
    words = ["image", "import", "--replace", str(store.source("tar")), "--store", str(store.path)]

    def prepare() -> None:
        scene.fresh()
        store.fresh()
        import_image(store.source("directory"), store=str(store.path))

    for fault, done in walk(scene, words, what, every=every, prepare=prepare):
        assert store.whole() in (["app"], ["app", ""]), fault
        is_old = find_image("app", str(store.path)).digest == old
        assert done.status != 0 or not is_old, fault
        again = scene.run(words)
        assert (again.status, store.whole()) == (0, ["app", ""]), (fault, again.err)
        assert store.left() == [], fault


@jobs("new")
def test_removal(scene: Scene, job: str, what: str, *, every: bool) -> None:
    """There is the whole image or none, and `prune` removes what is left."""
    del job
    store = Store(scene)
    source = store.source("oci archive")
    words = ["image", "rm", "app", "--store", str(store.path)]

    def prepare() -> None:
        scene.fresh()
        store.fresh()
        import_image(source, store=str(store.path))

    def check(fault: Fault, done: Done) -> None:
        assert store.whole() in ([], [""], ["app"]), fault
        assert done.status != 0 or store.whole() == [], fault
        if store.whole() == ["app"]:
            assert scene.run(words).status == 0, fault
        assert scene.run(["image", "prune", "--store", str(store.path)]).status == 0, fault
        assert sorted(os.listdir(store.path)) == ["lock", "names"], fault

    for fault, done in walk(scene, words, what, every=every, prepare=prepare):
        check(fault, done)


@jobs("prune")
def test_prune(scene: Scene, job: str, what: str, *, every: bool) -> None:
    """The image with a name stays, the other is whole or gone, and the next `prune` removes the rest."""
    del job
    store = Store(scene)
    named, unnamed = store.source("tar"), store.source("directory")
    words = ["image", "prune", "--store", str(store.path)]

    def prepare() -> None:
        scene.fresh()
        store.fresh()
        import_image(unnamed, "kept", store=str(store.path))
        import_image(named, "kept", store=str(store.path), replace=True)
        for left in (store.path / ".new-1", store.path / ".going-2"):
            write({"tree/d/f": b"f"}, left)
        (store.path / "names/.new-kept-3").write_bytes(b"")

    for fault, done in walk(scene, words, what, every=every, prepare=prepare):
        assert store.whole() in (["kept"], ["kept", ""]), fault
        assert done.status != 0 or store.whole() == ["kept"], fault
        again = scene.run(words)
        assert (again.status, store.whole(), store.left()) == (0, ["kept"], []), (fault, again.err)


class Target:
    """Where an export is written, in a directory of its own."""

    def __init__(self, scene: Scene, *, is_directory: bool) -> None:
        self.directory = scene.out.with_name("exports")
        self.directory.mkdir()
        self.path = self.directory / "out"
        self._is_directory = is_directory

    def fresh(self) -> None:
        """Have an empty directory or an older file at the path."""
        shutil.rmtree(self.directory)
        self.directory.mkdir()
        if self._is_directory:
            self.path.mkdir()
        else:
            self.path.write_bytes(b"old")

    def content(self) -> list[str]:
        """Return all that is at the path, but for times."""
        if self.path.is_file():
            return [repr(self.path.read_bytes())]
        rows = []
        for each in sorted(self.path.rglob("*")):
            data = os.readlink(each) if each.is_symlink() else each.read_bytes() if each.is_file() else b""
            rows.append(f"{each.relative_to(self.path)} {each.lstat().st_mode:o} {data!r}")
        return rows


def check_export(scene: Scene, words: list[str], what: str, target: Target, *, every: bool) -> None:
    """Walk over an export: at the target is what was there or the whole export, and nothing is beside it."""
    target.fresh()
    old = target.content()
    done = scene.run(words)
    assert done.status == 0, done.err
    whole = target.content()
    assert whole != old

    def prepare() -> None:
        scene.fresh()
        target.fresh()

    for fault, done in walk(scene, words, what, every=every, prepare=prepare):
        assert target.content() in (old, whole), fault
        assert done.status != 0 or target.content() == whole, fault
        if target.path.is_dir() and target.content() == whole:
            target.path.rename(target.path.with_name("moved"))  # no export replaces what is not empty
            shutil.rmtree(target.path.with_name("moved"))
        again = scene.run(words)
        assert (again.status, target.content() == whole) == (0, True), (fault, again.err)
        assert os.listdir(target.directory) == ["out"], fault


@jobs("image export", *(f"image export --format {form}" for form in EXPORTS if form != "tar"))
def test_export_of_an_image(scene: Scene, job: str, what: str, *, every: bool) -> None:
    """At the path is the old file, an empty directory, or the whole export."""
    store = Store(scene)
    import_image(store.source("tar"), store=str(store.path))
    target = Target(scene, is_directory=job.rsplit(maxsplit=1)[-1] in DIRECTORIES)
    words = [*job.split(), "app", "--store", str(store.path), "-o", str(target.path)]
    check_export(scene, words, what, target, every=every)
    assert store.whole() == ["app"]


@jobs(*IMAGE_FORMS, *(f"oci-archive {each}" for each in COMPRESSIONS))
def test_export(scene: Scene, job: str, what: str, *, every: bool) -> None:
    """At the path is the old file, an empty directory, or the whole export."""
    form, *compression = job.split()
    small = tuple(entry for entry in entries_of(scene.host) if entry.path != b"/bin/busybox")
    write_manifest(files_alone(small), scene.out)
    target = Target(scene, is_directory=form in DIRECTORIES)
    words = ["export", str(scene.out), "--root", str(scene.host), "--format", form, "-o", str(target.path)]
    words += ["--compress", *compression] if compression else []
    check_export(scene, words, what, target, every=every)
