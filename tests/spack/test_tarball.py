"""`spack jail --tarball` and `--source`: an environment of an image's files, or of a directory's."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.api import resolve
from pkgjail.export.image import export_image
from tests.spack.real import ROOTS
from tests.spack.test_inside import HOST, WHERE
from tests.tars import END, file, symlink

if TYPE_CHECKING:
    import subprocess

    from tests.spack.conftest import Spack

PACKAGES = ["base-files", "dash", "python3", *(["git"] if ROOTS else [])]
LIST = f"[packages]\ndebian = {json.dumps(PACKAGES)}\n[options]\nessential = false\n"
MARK = "etc/of-the-image"
LOOK = f"import os; print(os.uname().nodename, os.path.exists('/{MARK}') and open('/{MARK}').read())"


@pytest.fixture(scope="session")
def root_tar(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An archive, without its end, of a root that has packages of this host and their database."""
    place = tmp_path_factory.mktemp("root")
    (place / "list.toml").write_text(LIST)
    export_image(resolve([str(place / "list.toml")], hashed=True), "tar", str(place / "root.tar"))
    data = (place / "root.tar").read_bytes()
    (place / "root.tar").unlink()
    return data[: -len(END)]


def tarball(spack: Spack, root_tar: bytes, mark: bytes = b"one") -> str:
    """Write `system.tar` with the root and a file of no package, and a whitelist; returns its path."""
    path = spack.user.home / "system.tar"
    path.write_bytes(root_tar + file(MARK, mark, mode=0o644) + END)
    spack.user_writes(spack.user.home / "python.toml", LIST)
    return str(path)


def build(spack: Spack, *words: str) -> subprocess.CompletedProcess[str]:
    """Build the environment; whether that succeeds is looked at by the caller."""
    return spack("jail", "--build-environment", spack.environment, *words)


def seen(spack: Spack) -> list[str]:
    """Return where a command of Spack runs, and the text of the file that marks an image."""
    done = spack("python", "-c", LOOK)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def images(spack: Spack) -> list[dict[str, Any]]:
    """Return the images of the user's store."""
    found: list[dict[str, Any]] = json.loads(spack.user.pkgjail("image", "ls", "--json").stdout)
    return found


@pytest.mark.parametrize("form", [None, "--copy", "--permanent"])
def test_an_environment_of_a_tarball(spack: Spack, root_tar: bytes, form: str | None) -> None:
    """It shows the whole image, which stays in the store as long; a copy does not need it."""
    command = ["isolate", "--build-environment", spack.environment, "--tarball", tarball(spack, root_tar)]
    done = spack(*command, *filter(None, [form]))
    assert done.returncode == 0, done.stderr
    assert seen(spack) == ["pkgjail", "one"]
    (image,) = images(spack)
    assert image["name"] == "system"
    assert f"names of image:{image['digest']}, the host's network" in spack("jail", "--status").stdout
    removed = spack.user.pkgjail("image", "rm", "system")
    if form == "--copy":
        assert (removed.returncode, removed.stderr) == (0, "")
        assert seen(spack) == ["pkgjail", "one"]
    else:
        assert removed.returncode == 1
        assert f"the environment {spack.environment} shows its files" in removed.stderr
        assert seen(spack) == ["pkgjail", "one"]
    if form == "--permanent":
        assert f"{image['root']}/usr/bin" in done.stdout
    assert spack("jail", "--remove-environment").returncode == 0
    assert spack("python", "-c", WHERE).stdout == HOST + "\n"
    if form != "--copy":
        assert spack.user.pkgjail("image", "rm", "system").returncode == 0
    assert images(spack) == []


def test_a_part_of_an_image(spack: Spack, root_tar: bytes) -> None:
    """Lists choose among the image's packages, and a manifest was made from the image or is refused."""
    path = tarball(spack, root_tar)
    done = build(spack, "--tarball", path, "--whitelist", spack.whitelist)
    assert done.returncode == 0, done.stderr
    assert seen(spack) == ["pkgjail", "False"]
    manifest = str(spack.user.home / "m.jsonl")
    assert spack.user.pkgjail("resolve", spack.whitelist, "-o", manifest).returncode == 0
    refused = build(spack, "--force", "--source", "image:system", "--manifest", manifest)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "it was made from a host; leave out --source" in refused.stderr
    assert seen(spack) == ["pkgjail", "False"]


def test_other_sources(spack: Spack, root_tar: bytes) -> None:
    """An image of the store, a directory and the host, each in the place of the one before."""
    path = tarball(spack, root_tar)
    assert spack.user.pkgjail("image", "import", path, "mine").returncode == 0
    done = build(spack, "--source", "image:mine")
    assert done.returncode == 0, done.stderr
    assert seen(spack) == ["pkgjail", "one"]
    (image,) = images(spack)
    copy = spack.user.home / "root"
    assert spack.user.run(["cp", "-a", image["root"], copy]).returncode == 0
    (copy / MARK).write_bytes(b"two")
    lists = ["--force", "--whitelist", spack.whitelist]
    for source in (f"dir:{copy}", "host"):
        done = build(spack, "--source", source, *lists)
        assert done.returncode == 0, done.stderr
        assert seen(spack) == ["pkgjail", "False"]
    assert spack.user.pkgjail("image", "rm", "mine").returncode == 0


def test_tarballs_of_one_name(spack: Spack, root_tar: bytes) -> None:
    """The same image is there once; another one gets a name of its own, and both have what they show."""
    assert build(spack, "--tarball", tarball(spack, root_tar)).returncode == 0
    assert build(spack, "--force", "--tarball", tarball(spack, root_tar)).returncode == 0
    (old,) = images(spack)
    done = build(spack, "--force", "--tarball", tarball(spack, root_tar, b"two"))
    assert done.returncode == 0, done.stderr
    (new,) = (image for image in images(spack) if image["digest"] != old["digest"])
    assert new["name"] == f"system-{new['digest'][7:19]}"
    assert f"it shows the image {new['name']}, which stays in the store as long\n" in done.stdout
    assert f"environment {spack.environment} shows" in spack.user.pkgjail("image", "rm", new["name"]).stderr
    assert spack.user.pkgjail("image", "rm", "system").returncode == 0
    assert seen(spack) == ["pkgjail", "two"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["--tarball", "no.tar"], "no.tar: No such file", id="no tarball"),
        pytest.param(["--tarball", "bad.tar"], "l: it is a symbolic link that leads out", id="hostile"),
        pytest.param(["--tarball", "bad.tar", "--source", "host"], "--tarball excludes --source", id="two"),
        pytest.param(["--source", "image:no"], "cannot find the image no", id="no image"),
        pytest.param(["--source", "no"], "cannot use the source 'no'", id="no source"),
    ],
)
def test_what_is_refused(spack: Spack, words: list[str], message: str) -> None:
    """As Spack's own errors; no environment is active, and the store has no image."""
    (spack.user.home / "bad.tar").write_bytes(symlink("l", "../x") + END)
    done = build(spack, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("==> Error: ")
    assert message in done.stderr
    assert "outside; no environment is active" in spack("jail").stdout
    assert images(spack) == []


def test_a_refusal_that_needs_no_image_comes_first(spack: Spack, root_tar: bytes) -> None:
    """Before the tarball is read, so that it leaves no image behind."""
    spack.build()
    done = build(spack, "--tarball", tarball(spack, root_tar))
    assert done.returncode == 1
    assert f"{spack.environment} is active for this Spack" in done.stderr
    assert images(spack) == []
    assert not os.path.exists(spack.user.home / ".local/share/pkgjail/images")
