"""Environments of images: the image stays as long as an environment shows its files."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pkgjail.api import whole_image
from pkgjail.core.errors import PkgjailError
from pkgjail.environments.build import build_environment
from pkgjail.environments.enter import enter_environment
from pkgjail.environments.remove import remove_environment
from pkgjail.images import users
from pkgjail.images.importing import import_image
from pkgjail.images.store import list_images, prune_images, remove_image
from tests.real_roots import BUSYBOX
from tests.tars import END, file

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from pkgjail.environments.record import Form
    from pkgjail.images.model import Image


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def image(store: str, tmp_path: Path) -> Image:
    """An image that has busybox and nothing else, named `app`."""
    with open(BUSYBOX, "rb") as busybox:
        (tmp_path / "app.tar").write_bytes(file("bin/busybox", busybox.read()) + END)
    return import_image(tmp_path / "app.tar", store=store)


@pytest.fixture
def of_image(image: Image) -> Manifest:
    return whole_image(image)


@pytest.mark.parametrize("form", ["host", "fstab", "copy"])
def test_an_image_in_use_stays(
    form: Form, image: Image, of_image: Manifest, store: str, env_path: bytes
) -> None:
    """Until the environment is removed; neither `rm` nor `prune` takes it. A copy does not need it."""
    build_environment(of_image, env_path, form=form, root=image.root)
    if form == "copy":
        remove_image("app", store)
        assert enter_environment(env_path, ["/bin/busybox", "true"]) == 0
        return
    for name in ("app", image.digest):
        with pytest.raises(PkgjailError, match=rf"the environment {os.fsdecode(env_path)} shows its files"):
            remove_image(name, store)
    os.unlink(f"{store}/names/app")
    assert prune_images(store) == ()
    assert len(list_images(store)) == 1
    remove_environment(env_path)
    assert len(prune_images(store)) == 1
    assert os.listdir(f"{store}/users") == []


def test_two_environments_of_one_image(image: Image, of_image: Manifest, store: str, env_path: bytes) -> None:
    """The image stays until the last of them is gone, and another image may go meanwhile."""
    for path in (env_path, env_path + b"2"):
        build_environment(of_image, path, root=image.root)
    other = f"{store}.tar"
    with open(other, "wb") as tar:
        tar.write(file("a") + END)
    import_image(other, "other", store=store)
    with pytest.raises(PkgjailError, match=r"env2? and 1 others show its files"):
        remove_image("app", store)
    remove_image("other", store)
    remove_environment(env_path)
    with pytest.raises(PkgjailError, match="env2 shows its files"):
        remove_image("app", store)
    remove_environment(env_path + b"2")
    remove_image("app", store)


def test_an_environment_that_moved(image: Image, of_image: Manifest, store: str, env_path: bytes) -> None:
    """It is noted by its new path when it is entered."""
    build_environment(of_image, env_path, root=image.root)
    os.rename(env_path, env_path + b"2")
    assert enter_environment(env_path + b"2", ["/bin/busybox", "true"]) == 0
    with pytest.raises(PkgjailError, match="env2 shows its files"):
        remove_image("app", store)


def test_what_only_has_an_environment_s_path(
    image: Image, of_image: Manifest, store: str, env_path: bytes
) -> None:
    """A deleted environment, or one of other files in its place, does not keep the image."""
    build_environment(of_image, env_path, root=image.root)
    remove_environment(env_path)
    assert os.listdir(f"{store}/users") != []
    build_environment(of_image, env_path, form="copy", root=image.root)
    remove_image("app", store)


def test_another_source_has_no_notes(image: Image, of_image: Manifest, tmp_path: Path) -> None:
    """Protects the directories above a root that is no image."""
    (tmp_path / "a/b").mkdir(parents=True)
    shutil.copytree(os.fsdecode(image.root), tmp_path / "a/b/root")
    build_environment(of_image, bytes(tmp_path / "env"), root=bytes(tmp_path / "a/b/root"))
    assert (os.listdir(tmp_path / "a"), os.listdir(tmp_path / "a/b")) == (["b"], ["root"])


def test_a_record_that_cannot_be_read_keeps_the_image(
    image: Image, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that is away for a moment."""
    (tmp_path / "env").mkdir()
    (tmp_path / "env/environment.jsonl").write_bytes(b"{}\n")
    users.note_user(image.root, bytes(tmp_path / "env/environment.jsonl"))
    monkeypatch.setattr("builtins.open", _failing_for("environment.jsonl"))
    with pytest.raises(PkgjailError, match="env shows its files"):
        remove_image("app", store)


def _failing_for(name: str) -> object:
    real = open

    def fail(path: object, *arguments: object, **options: object) -> object:
        if isinstance(path, bytes) and path.endswith(name.encode()):
            raise TimeoutError(path)
        return real(path, *arguments, **options)  # type: ignore[call-overload]

    return fail


@pytest.mark.skipif(os.geteuid() != 0, reason="gives the store to another user")
def test_a_store_of_another_user(image: Image, of_image: Manifest, store: str, env_path: bytes) -> None:
    """It is not changed: its owner may remove the image."""
    os.chown(store, 65534, 65534)
    build_environment(of_image, env_path, root=image.root)
    assert sorted(os.listdir(store)) == sorted(["lock", "names", image.digest.replace(":", "-")])
    assert enter_environment(env_path, ["/bin/busybox", "true"]) == 0
