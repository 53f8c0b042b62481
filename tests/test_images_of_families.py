"""Images of each family of packages: imported, resolved, entered and exported alike, by root and others."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.api import resolve
from pkgjail.export.image import IMAGE_FORMS
from pkgjail.images.importing import import_image
from pkgjail.images.store import read_listing
from pkgjail.manifest import read_manifest
from tests.real_roots import the_root
from tests.test_images_faults import DIRECTORIES

if TYPE_CHECKING:
    from pkgjail.core.model import FileEntry, Manifest
    from pkgjail.images.model import ImageEntry
    from tests.conftest import Caller

pytestmark = pytest.mark.gate  # roots are made by the families' own programs

FAMILIES = {"deb": "debian", "rpm": "rhel", "pacman": "arch"}
MADE = "made at entry"


def row(entry: FileEntry | ImageEntry) -> str:
    """One name: its kind and mode, and its content by the digest."""
    return f"{entry.kind} {entry.mode:04o} {entry.sha256 or (entry.target or b'')!r}"


def rows_of(files: tuple[FileEntry, ...]) -> dict[bytes, str]:
    """Return what an export of these files has: kinds, modes, and contents by their digests."""
    found = {}
    for entry in files:
        found[entry.path] = MADE if entry.origin == "entry" else row(entry)
    return found


def rows_in(form: str, place: Path, store: str) -> dict[bytes, str]:
    """The same of an export, read by an import; each name must be root's."""
    if form == "oci-bundle":
        return walked(place / "rootfs")
    image = import_image(place, form.replace("-", "."), store=store)
    found = {}
    for path, entry in read_listing(image).items():
        assert (entry.uid, entry.gid) == (0, 0), path
        found[b"/" + path] = row(entry)
    return found


def walked(tree: Path) -> dict[bytes, str]:
    """The same of a directory."""
    found = {}
    top = os.fsencode(tree)
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files, b"."):
            path = os.path.normpath(folder + b"/" + name)
            at = os.lstat(path)
            kind = "regular"
            what: bytes | str = b""
            if stat.S_ISLNK(at.st_mode):
                kind, what = "symlink", os.readlink(path)
            elif stat.S_ISDIR(at.st_mode):
                kind = "directory"
            else:
                what = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
            found[path[len(top) :] or b"/"] = f"{kind} {stat.S_IMODE(at.st_mode):04o} {what!r}"
    return found


def made_image(family: str, caller: Caller, store: dict[str, str]) -> Path:
    """Import the root of all packages, resolve a whitelist of some from it; returns the manifest."""
    archive = caller.home / "system.tar"
    subprocess.run(["tar", "--numeric-owner", "-C", the_root(family), "-cf", archive, "."], check=True)
    archive.chmod(0o644)
    whitelist = caller.home / "w.toml"
    whitelist.write_text(
        f'[packages]\n{FAMILIES[family]} = ["base", "app", "odd++name.2"]\n'
        '[options]\nblacklists = ["unreadable.ignore"]\n'
    )
    (caller.home / "unreadable.ignore").write_text("/usr/share/odd/it's\n")
    for path in (whitelist, caller.home / "unreadable.ignore"):
        path.chmod(0o644)
    for words in (
        ["image", "import", "system.tar"],
        ["resolve", "--source", "image:system", "./w.toml", "-o", "m.jsonl"],
    ):
        done = caller.pkgjail(*words, environment=store)
        assert done.returncode == 0, done.stderr
    return caller.home / "m.jsonl"


def same(manifest: Manifest, other: Manifest) -> None:
    """Compare what two manifests have, of which one is of an image: there no program has another's rights."""
    assert manifest.header.source.startswith("image:sha256:")
    assert (manifest.packages, manifest.dependencies) == (other.packages, other.dependencies)
    assert [entry.path for entry in other.files if entry.mode & 0o4000] == [b"/usr/share/odd/.hidden"]
    assert list(manifest.files) == [entry._replace(mode=entry.mode & 0o1777) for entry in other.files]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_of_each_family(family: str, anyone: Caller, tmp_path: Path) -> None:
    """Protects images with other package databases than Debian's, and exports of their manifests."""
    store = {"PKGJAIL_STORE": str(anyone.home / "store")}
    path = made_image(family, anyone, store)
    manifest = read_manifest(path)
    same(manifest, resolve([str(anyone.home / "w.toml")], root=os.fsencode(the_root(family))))
    words = [
        "run",
        "--source",
        "image:system",
        "m.jsonl",
        "--",
        "sh",
        "-c",
        "cat /usr/share/app/data; exit 7",
    ]
    ran = anyone.pkgjail(*words, environment=store)
    data = (the_root(family) / "usr/share/app/data").read_text()
    assert (ran.returncode, ran.stdout) == (7, data), ran.stderr
    expected = rows_of(manifest.files)
    for form in IMAGE_FORMS:
        words = ["export", "m.jsonl", "--source", "image:system", "--format", form, "-o", form]
        done = anyone.pkgjail(*words, environment=store)
        assert done.returncode == 0, done.stderr
        found = rows_in(form, anyone.home / form, str(tmp_path / "store"))
        besides = found.keys() - expected.keys()
        assert besides <= ({b"/dev", b"/proc", b"/sys", b"/tmp"} if form in DIRECTORIES else set()), form
        assert {at: MADE if expected[at] == MADE else found.get(at) for at in expected} == expected, form
    umoci = ["umoci", "unpack", *([] if anyone.uid == 0 else ["--rootless"]), "--image", "oci:w", "made"]
    unpacked = anyone.run(umoci)
    assert unpacked.returncode == 0, unpacked.stderr
    found = walked(anyone.home / "made/rootfs")
    assert {at: MADE if expected[at] == MADE else found.pop(at) for at in expected} == expected
