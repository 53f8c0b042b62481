"""Time exports of the whitelist `spack` with its files, and imports and exports of images, beside GNU tar."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Subject, timed

if TYPE_CHECKING:
    from collections.abc import Sequence


IMAGE = "PKGJAIL_BENCH_IMAGE"
"""The variable that names the tar archive of a system with dpkg; without it, one of this host's is made."""


def export_subjects(pkgjail: Sequence[str], place: Path) -> list[Subject]:
    """Return whole processes, each of which writes new files; unlike its peers, `export` compares contents.

    Formats that are a few files are beside `tar -c`; a bundle, which is as many files as the manifest has, is
    beside `cp -a`.
    """
    manifest = _manifest_of_spack(pkgjail, place)
    records = map(json.loads, manifest.read_text(encoding="utf-8").splitlines())
    paths = [
        r["path"] if isinstance(r["path"], str) else os.fsdecode(b64decode(r["path"]["base64"]))
        for r in records
        if r["kind"] == "file" and r["origin"] not in {"entry", "alternative"}
    ]
    listed = place / "names"
    listed.write_bytes(b"".join(os.fsencode(path[1:]) + b"\0" for path in paths if path != "/"))
    out = place / "exported"
    name = "tar -c"
    tar = ["tar", "-C", "/", "--no-recursion", "--null", "-T", str(listed), "-cf", str(out)]

    tree, copying = place / "tree", "cp -a"
    tree.mkdir()
    timed(tar)
    timed(["tar", "-C", str(tree), "-xf", str(out)])
    copy = ["cp", "-a", str(tree), str(out)]

    def subject(form: str, peer: str) -> Subject:
        words = [*pkgjail, "export", str(manifest), "--format", form, "-o", str(out)]
        return Subject(f"export --format {form}", lambda: _fresh(words, out), peer)

    return [
        Subject(name, lambda: _fresh(tar, out)),
        *(subject(form, name) for form in ("tar", "oci", "oci-archive", "docker-archive")),
        Subject(copying, lambda: _fresh(copy, out)),
        subject("oci-bundle", copying),
    ]


def image_subjects(pkgjail: Sequence[str], place: Path) -> list[Subject]:
    """Return the import of a tar archive beside `tar -x`, and exports of the image beside `tar -c`."""
    archive = _archive(pkgjail, place)
    out, unpacked, kept = place / "out", place / "unpacked", place / "kept"
    _import(pkgjail, archive, kept)
    root = _shown(pkgjail, kept)["root"]
    unpack, pack = "tar -x", "tar -c of the image"

    def with_tar() -> float:
        _remove(unpacked)
        unpacked.mkdir()
        return timed(["tar", "-C", str(unpacked), "-xf", str(archive)])

    def importing() -> float:
        _remove(out)
        return timed([*pkgjail, "image", "import", str(archive), "system", "--store", str(out)])

    def subject(form: str) -> Subject:
        words = [
            *pkgjail,
            "image",
            "export",
            "system",
            "--store",
            str(kept),
            "--format",
            form,
            "-o",
            str(out),
        ]
        return Subject(f"image export --format {form}", lambda: _fresh(words, out), pack)

    tar = ["tar", "-C", root, "-cf", str(out), "."]
    forms = ("tar", "oci", "oci-archive", "docker-archive")
    return [
        Subject(unpack, with_tar),
        Subject("image import", importing, unpack),
        Subject(pack, lambda: _fresh(tar, out)),
        *map(subject, forms),
    ]


def image_entry_subjects(pkgjail: Sequence[str], place: Path) -> list[Subject]:
    """Return the entry into a manifest of an image, beside that into a manifest of this host."""
    kept = place / "entered"
    _import(pkgjail, _archive(pkgjail, place), kept)
    environment = {**os.environ, "PKGJAIL_STORE": str(kept)}
    source = ["--source", "image:system"]
    host, image = place / "host.jsonl", place / "image.jsonl"
    for words in (["base", "-o", str(host)], ["base", "-o", str(image), *source]):
        subprocess.run([*pkgjail, "resolve", *words], check=True, capture_output=True, env=environment)
    name = "run, a manifest of the host"
    run = [*pkgjail, "run"]
    return [
        Subject(name, lambda: timed([*run, str(host), "--", "true"])),
        Subject(
            "run, a manifest of an image",
            lambda: timed([*run, *source, str(image), "--", "true"], environment=environment),
            name,
        ),
    ]


def _manifest_of_spack(pkgjail: Sequence[str], place: Path) -> Path:
    manifest = place / "exported.manifest.jsonl"
    command = [*pkgjail, "resolve", "spack", "--blacklist", "docs", "-o", str(manifest)]
    subprocess.run(command, check=True, capture_output=True)
    return manifest


def _archive(pkgjail: Sequence[str], place: Path) -> Path:
    if named := os.environ.get(IMAGE):
        return Path(named).absolute()
    archive = place / "system.tar"
    if not archive.exists():
        words = ["export", str(_manifest_of_spack(pkgjail, place)), "--format", "tar", "-o", str(archive)]
        subprocess.run([*pkgjail, *words], check=True, capture_output=True)
    return archive


def _import(pkgjail: Sequence[str], archive: Path, store: Path) -> None:
    words = [*pkgjail, "image", "import", str(archive), "system", "--store", str(store)]
    subprocess.run(words, check=True, capture_output=True)


def _shown(pkgjail: Sequence[str], store: Path) -> dict[str, str]:
    words = [*pkgjail, "image", "show", "system", "--store", str(store), "--json"]
    found: dict[str, str] = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    return found


def _fresh(words: Sequence[str], out: Path) -> float:
    _remove(out)
    return timed(words)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
