"""Exports of images: each format has all that was imported, and is the same image again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli.main import main
from pkgjail.cli.verbs import image as verb
from pkgjail.core.errors import InputError, ModifiedImageError
from pkgjail.export.image.content import COMPRESSIONS
from pkgjail.export.image.stored import STORED_FORMS, export_stored_image
from pkgjail.images.importing import import_image
from pkgjail.images.store import find_image
from tests.tars import END, directory, file, header, link
from tests.test_images import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.images.model import Image

LARGEST = (1 << 32) - 2
LONG = "/".join(["d" * 60] * 3)
MORE = (
    directory(".", mode=0o751, uid=3_000_001, gid=5)
    + directory("owned", mode=0o2750, uid=3_000_000, gid=LARGEST)
    + file("owned/file", b"x" * 1000, mode=0o2640, uid=LARGEST, gid=2_097_152, mtime=1_600_000_000)
    + header("owned/link", tarfile.SYMTYPE, linkname="t" * 150, uid=7)
    + file(f"{LONG}/file", b"long")
    + link(f"{LONG}/name", f"{LONG}/file")
    + file("empty", b"", mode=0o600)
    + file("late", b"", mtime=5_000_000_000)
    + END
)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    """An image with all that an archive can have."""
    monkeypatch.setenv("PKGJAIL_STORE", str(tmp_path / "store"))
    (tmp_path / "i.tar").write_bytes(ROOT + MORE)
    return import_image(tmp_path / "i.tar", "Sys.tem")


def ways() -> list[tuple[str, str]]:
    """The formats, and those that can be compressed also so."""
    packed = [(form, kind) for form in ("oci", "oci-archive", "squashfs") for kind in COMPRESSIONS]
    return [*((form, "") for form in STORED_FORMS), *packed]


@pytest.mark.parametrize(("form", "compression"), ways())
def test_an_export_is_the_same_image_again(form: str, compression: str, image: Image, tmp_path: Path) -> None:
    """Protects owners, modes, set-user-ID bits, names of any bytes, links and contents, in each format."""
    out = str(tmp_path / "out")
    exported = export_stored_image(image, form, out, compression=compression)
    again = import_image(out, "again")
    assert (again.digest, again.names) == (image.digest, image.names)
    assert len(exported.diff_ids) == (0 if form in ("squashfs", "tar") else 1)
    other = str(tmp_path / "other")
    assert export_stored_image(image, form, other, compression=compression) == exported
    if form != "oci":
        assert Path(out).read_bytes() == Path(other).read_bytes()


def test_tar_reads_it(image: Image, tmp_path: Path) -> None:
    """Protects from a reader that agrees with the writer alone: GNU tar and tarfile see the same."""
    out = tmp_path / "out.tar"
    export_stored_image(image, "tar", str(out))
    command = ["tar", "--numeric-owner", "--utc", "-tvf", str(out)]
    listed = subprocess.run(command, capture_output=True, check=True, text=True)
    assert listed.stderr == ""
    facts = {words[5]: words[:5] for words in (line.split() for line in listed.stdout.splitlines())}
    assert facts["usr/bin/su"][:2] == ["-rwsr-xr-x", "0/0"]
    assert facts["usr/bin/sudo"][0].startswith("h")
    assert facts["etc/shadow"][:2] == ["-rw-r-----", "0/42"]
    assert facts["owned/"][:2] == ["drwxr-s---", f"3000000/{LARGEST}"]
    assert facts["owned/file"] == ["-rw-r-S---", f"{LARGEST}/2097152", "1000", "2020-09-13", "12:26"]
    assert facts[f"{LONG}/name"][0].startswith("h")
    with tarfile.open(out) as tar:
        members = {item.name: item for item in tar}
    assert members["late"].mtime == 5_000_000_000
    assert (members["owned/link"].linkname, members["owned/link"].uid) == ("t" * 150, 7)
    assert members[f"{LONG}/name"].linkname == f"{LONG}/file"


def test_engines_read_the_layer(image: Image, tmp_path: Path) -> None:
    """Protects the documents of an image: its name, its digest, and what umoci unpacks."""
    exported = export_stored_image(image, "oci", str(tmp_path / "oci"))
    command = ["skopeo", "inspect", f"oci:{tmp_path}/oci:sys-tem"]
    facts = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert facts["Digest"] == exported.digest
    assert facts["Labels"] == {"pkgjail.image": image.digest}
    if os.geteuid() == 0:
        made = tmp_path / "made"
        command = ["umoci", "unpack", "--image", f"{tmp_path}/oci:sys-tem", str(made)]
        subprocess.run(command, capture_output=True, check=True)
        found = (made / "rootfs/owned/file").lstat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o2640, LARGEST, 2_097_152)
        assert (made / "rootfs/usr/bin/su").samefile(made / "rootfs/usr/bin/sudo")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another content": (
        lambda root: (root / "etc/shadow").write_bytes(b"public"), "/etc/shadow has other content"
    ),
    "another mode": (lambda root: (root / "etc/shadow").chmod(0o444), "/etc/shadow has mode 0444"),
    "a name less": (lambda root: (root / "bin").unlink(), "/bin is gone"),
}  # fmt: skip


@pytest.mark.parametrize("form", STORED_FORMS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_change_in_the_store_ends_it(form: str, damage: str, image: Image, tmp_path: Path) -> None:
    """Protects from an export that is not the image; what was there before stays."""
    change, message = DAMAGES[damage]
    change(Path(os.fsdecode(image.root)))
    out = tmp_path / "out"
    if form != "oci":
        out.write_bytes(b"before")
    with pytest.raises(ModifiedImageError) as refused:
        export_stored_image(image, form, str(out))
    assert f"it is not as 'pkgjail image import' left it:\n  {message}" in str(refused.value)
    assert "import it again" in str(refused.value)
    assert sorted(set(os.listdir(tmp_path)) - {"out"}) == ["i.tar", "store"]
    assert form == "oci" or out.read_bytes() == b"before"


def test_what_a_layer_cannot_have(image: Image, tmp_path: Path) -> None:
    """Protects from a name that would delete another one, and from formats that there are not."""
    (tmp_path / "w.tar").write_bytes(file(".wh.x") + END)
    odd = import_image(tmp_path / "w.tar")
    with pytest.raises(InputError, match=r"/\.wh\.x to oci: in a layer"):
        export_stored_image(odd, "oci", str(tmp_path / "out"))
    export_stored_image(odd, "tar", str(tmp_path / "out"))
    with pytest.raises(
        InputError, match="the formats with files are docker-archive, oci, oci-archive, squashfs"
    ):
        export_stored_image(image, "oci-bundle", str(tmp_path / "out"))
    assert verb.EXPORTS == STORED_FORMS


def test_the_command_of_exports(
    image: Image, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Protects pipes, and what people and programs are told."""
    out = tmp_path / "out"
    words = ["image", "export", "Sys.tem"]
    assert main([*words, "-o", str(out)]) == 0
    capfdbinary.readouterr()
    assert main(words) == 0
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == out.read_bytes()
    assert main([*words, "-o", str(out), "--json"]) == 0
    facts = {"file": str(out), "format": "tar", "digest": image.digest}
    assert json.loads(capfdbinary.readouterr().out) == facts
    assert main([*words, "--format", "oci-archive", "-o", str(out)]) == 0
    digest = capfdbinary.readouterr().out.decode().strip()
    assert main([*words, "--format", "oci-archive", "--compress", "gzip", "-o", str(out), "--json"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["image"] != digest
    assert main([*words, "--json"]) == 2
    assert main([*words, "--format", "oci"]) == 2
    assert b"cannot write oci to standard output: name a path with -o" in capfdbinary.readouterr().err
    assert find_image("Sys.tem").digest == image.digest
    Path(os.fsdecode(image.root), "etc/shadow").write_bytes(b"public")
    assert main([*words, "-o", str(out)]) == 1
