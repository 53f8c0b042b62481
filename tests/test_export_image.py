"""Images and archives of a manifest's files: read by tarfile, hashlib and the field's own programs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgjail.api import resolve
from pkgjail.cli.main import main
from pkgjail.cli.verbs import export as verb
from pkgjail.core.errors import ExportDriftError, InputError, PkgjailError
from pkgjail.core.model import FileEntry, Manifest, Package
from pkgjail.export import FORMS
from pkgjail.export.image import IMAGE_FORMS, content, export_image
from pkgjail.export.image.layers import ALONE, MOST_LAYERS, layers_of, stem
from pkgjail.export.image.tar import TIME, Stamp, member_header, member_size, padding
from pkgjail.export.image.writing import BILLS
from pkgjail.manifest import dump_manifest, manifest_digest, write_manifest
from tests.manifest_text import files_alone
from tests.manifest_text import manifest_of as manifest_of_text
from tests.test_export import (
    FIT,
    LINE_ENDS,
    NO_DIGEST,
    NOT_UTF8,
    described,
    directory,
    manifest_of,
    odd_tree,
    regular,
    seen,
    symlink,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.conftest import Caller

HOSTS = b"127.0.0.1\tlocalhost pkgjail\n::1\tlocalhost ip6-localhost ip6-loopback\n"
LONG = (b"n" * 240, b"\xff" * 101, b"x" * 100, b"y" * 99)
NAMES = (*FIT, *LINE_ENDS, *NOT_UTF8, *LONG)
EMPTY = hashlib.sha256(b"{}").hexdigest()


def packaged_tree(root: Path, versions: Mapping[str, str]) -> Manifest:
    """Make a tree of packages below `root`, each with a file of its version, a link and a conffile."""
    lines = []
    for number, (name, version) in enumerate(versions.items()):
        text = f"{name} {version}" * (number + 1)
        lines += [
            f"{name} {version}",
            f"/opt/{name}/file {len(text)} #{text.replace(' ', '_')} of {name}",
            f"/opt/{name}/link -> file of {name}",
            f"/etc/{name}.conf {len(name)} #{name} of {name}, conffile",
            f"/opt/shared/{name}/both {len(name)} #{name} of {','.join(sorted(versions))}",
        ]
        for path, data in (
            (f"opt/{name}/file", text.replace(" ", "_")),
            (f"etc/{name}.conf", name),
            (f"opt/shared/{name}/both", name),
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(data)
        (root / f"opt/{name}/link").unlink(missing_ok=True)
        (root / f"opt/{name}/link").symlink_to("file")
    for each in [root, *root.rglob("*")]:
        if not each.is_symlink():
            each.chmod(0o755 if each.is_dir() else 0o644)
    return manifest_of_text("\n".join(lines))


def tree_of(image: Path) -> dict[bytes, str]:
    """The names of an OCI layout's image, whose layers are applied in their order."""
    found: dict[bytes, str] = {}
    for layer in layers_in(image):
        found.update(seen(layer))
    return found


def blob(image: Path, descriptor: Mapping[str, Any]) -> bytes:
    """A blob of a layout, compared with its descriptor."""
    data = (image / "blobs" / str(descriptor["digest"]).replace(":", "/")).read_bytes()
    assert descriptor["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert descriptor["size"] == len(data)
    return data


def image_manifest(image: Path) -> dict[str, Any]:
    """The image's own manifest, by the index of a layout."""
    index = json.loads((image / "index.json").read_bytes())
    described = index["manifests"][0]
    found = json.loads(blob(image, described))
    assert isinstance(found, dict)
    return found


def layers_in(image: Path) -> list[bytes]:
    """The layers of a layout's image, decompressed by other programs, and compared with the DiffIDs."""
    found = image_manifest(image)
    config = json.loads(blob(image, found["config"]))
    layers = []
    for descriptor, diff_id in zip(found["layers"], config["rootfs"]["diff_ids"]):
        data = blob(image, descriptor)
        kind = descriptor["mediaType"].rpartition("+")[2]
        if kind == "gzip":
            data = gzip.decompress(data)
        elif kind == "zstd":
            data = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
        assert diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
        layers.append(data)
    assert len(config["history"]) == len(layers) == len(config["rootfs"]["diff_ids"])
    return layers


def members(path: Path) -> dict[str, bytes]:
    """The files of an archive of blobs."""
    with tarfile.open(path) as tar:
        found = {item.name: tar.extractfile(item) for item in tar}
        return {name: file.read() for name, file in found.items() if file is not None}


def files_below(top: Path) -> dict[str, bytes]:
    """The same of a directory."""
    return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}


def walked(tree: Path) -> dict[bytes, str]:
    """The names of a directory, in the form of `described`; each is the user's, and has the exports' time."""
    found = {}
    top = os.fsencode(tree)
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files, b"."):
            path = os.path.normpath(folder + b"/" + name)
            at = os.lstat(path)
            assert (at.st_mtime, at.st_uid, at.st_gid) == (TIME, os.geteuid(), os.getegid()), path
            mode = f"{stat.S_IMODE(at.st_mode):04o}"
            if stat.S_ISLNK(at.st_mode):
                row = f"link {os.readlink(path)!r}"
            elif stat.S_ISDIR(at.st_mode):
                row = f"directory {mode}"
            else:
                row = f"regular {mode} {hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()}"
            found[path[len(top) :] or b"/"] = row
    return found


# --- archives -----------------------------------------------------------------------------------


def test_a_tar_has_exactly_the_manifest(tmp_path: Path) -> None:
    """Names of any bytes and lengths, kinds, modes, contents and links, by tarfile and by GNU tar."""
    manifest = odd_tree(tmp_path / "root", NAMES)
    export_image(manifest, "tar", str(tmp_path / "out.tar"), root=os.fsencode(tmp_path / "root"))
    data = (tmp_path / "out.tar").read_bytes()
    found = seen(data)
    assert {path.removeprefix(b"/.") or b"/": row for path, row in found.items()} == described(
        manifest.files, HOSTS
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {(item.uid, item.gid, item.uname, item.gname, item.mtime) for item in tar} == {
            (0, 0, "", "", TIME)
        }
    listed = subprocess.run(
        ["tar", "-t", "--null", "--quoting-style=literal", "-f", tmp_path / "out.tar"],
        capture_output=True,
        check=True,
    )
    assert listed.stderr == b""
    made = tmp_path / "made"
    made.mkdir()
    subprocess.run(["tar", "-xpf", tmp_path / "out.tar", "-C", made], check=True)
    times = {path.lstat().st_mtime for path in [made, *made.rglob("*")]}
    assert times == {TIME}


def test_long_names_and_large_files_have_headers_that_tarfile_reads() -> None:
    """A size of 8 GiB and more does not fit into eleven octal digits."""
    entry = regular(b"/" + b"d/" * 80 + b"f", b"")._replace(size=9 << 30)
    item = tarfile.TarInfo.frombuf(member_header(entry, 9 << 30)[-512:], "utf-8", "surrogateescape")
    assert item.size == 9 << 30
    link = symlink(b"/l", b"t" * 300)
    with tarfile.open(fileobj=io.BytesIO(member_header(link, 0) + bytes(1024))) as tar:
        assert [each.linkname for each in tar] == ["t" * 300]


def test_an_image_has_exactly_the_manifest(tmp_path: Path) -> None:
    """The layers, one over another, give the manifest; no layer has a name twice or one of another layer."""
    manifest = odd_tree(tmp_path / "root", NAMES)
    export_image(manifest, "oci", str(tmp_path / "oci"), root=os.fsencode(tmp_path / "root"))
    assert (tmp_path / "oci/oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'
    found = tree_of(tmp_path / "oci")
    assert {path.removeprefix(b"/.") or b"/": row for path, row in found.items()} == described(
        manifest.files, HOSTS
    )
    assert image_manifest(tmp_path / "oci")["annotations"] == {
        "pkgjail.manifest": manifest_digest(dump_manifest(manifest))
    }


@given(
    st.integers(1, 1600), st.integers(0, 1600), st.sampled_from(["regular", "directory", "symlink", "link"])
)
@settings(max_examples=200, deadline=None)
def test_the_size_of_a_member_is_known_before(name: int, target: int, kind: Any) -> None:
    """Protects archives that several processes write at once, from a member that covers the next one."""
    path, text = b"/" + b"n" * name, b"t" * target
    stamp = Stamp(link=b"/" + text) if kind == "link" else Stamp()
    entry = FileEntry(
        path, "regular" if kind == "link" else kind, 0o644, target=text if kind == "symlink" else None
    )
    header = member_header(entry, name, stamp)
    size = name if kind == "regular" else 0
    assert member_size(entry, size, stamp) == len(header) + size + len(padding(size))


VERSIONS = {f"p{number}": "1" for number in range(70)}


def test_the_bytes_are_those_of_every_release(tmp_path: Path) -> None:
    """Protects the promise of the same bytes, on each Python that the matrix has, from changes by mistake."""
    manifest = packaged_tree(tmp_path / "root", {"liba": "1", "b": "2"})
    root = os.fsencode(tmp_path / "root")
    exported = export_image(manifest, "oci", str(tmp_path / "oci"), root=root, name="golden:1")
    assert exported.digest == GOLDEN_IMAGE
    export_image(manifest, "tar", str(tmp_path / "tar"), root=root)
    assert hashlib.sha256((tmp_path / "tar").read_bytes()).hexdigest() == GOLDEN_TAR


GOLDEN_IMAGE = "sha256:deb71a69786123cad21ac604639718594f553385b27a9ee29fc798eab83410b2"
GOLDEN_TAR = "e55adb33d85a9908cfdbb65f114a3e9181200cbe6ffff22d0cc56b2c4dda4433"


@pytest.mark.slow
def test_two_users_write_the_same_bytes(anyone: Caller, tmp_path: Path) -> None:
    """The same by another user, with another umask, time zone and language, from the command."""
    manifest = odd_tree(anyone.home / "root", NAMES)
    for path in (anyone.home / "root").rglob("*"):
        if not path.is_symlink() and path.is_dir():
            path.chmod(path.stat().st_mode | 0o005)
    files = tuple(
        e._replace(mode=e.mode | 0o005) if e.kind == "directory" and e.path != b"/" else e
        for e in manifest.files
        if e.path != b"/closed/file"
    )
    manifest = replace(manifest, files=files)
    write_manifest(manifest, anyone.home / "m.jsonl")
    export_image(manifest, "oci-archive", str(tmp_path / "mine"), root=os.fsencode(anyone.home / "root"))
    subprocess.run(["chown", f"{anyone.uid}", anyone.home], check=True)
    command = ["export", "m.jsonl", "--root", "root", "--format", "oci-archive", "-o", "theirs"]
    done = anyone.pkgjail(*command, environment={"TZ": "Asia/Tokyo", "LC_ALL": "C"}, umask=0o077)
    assert (done.returncode, done.stderr) == (0, "")
    assert (anyone.home / "theirs").read_bytes() == (tmp_path / "mine").read_bytes()


def test_the_archives_have_the_blobs_of_the_layout(tmp_path: Path) -> None:
    """An oci-archive is the layout's files; a docker-archive has the same layers and configuration."""
    manifest = packaged_tree(tmp_path / "root", VERSIONS)
    root = os.fsencode(tmp_path / "root")
    digests = [
        export_image(manifest, form, str(tmp_path / form), root=root, name="a/b:c").diff_ids
        for form in ("oci", "oci-archive", "docker-archive")
    ]
    assert digests[0] == digests[1] == digests[2]
    assert ALONE < len(digests[0]) <= MOST_LAYERS
    layout = files_below(tmp_path / "oci")
    assert members(tmp_path / "oci-archive") == layout
    docker = members(tmp_path / "docker-archive")
    (listed,) = json.loads(docker.pop("manifest.json"))
    assert docker.items() < layout.items()
    assert listed["RepoTags"] == ["a/b:c"]
    assert docker.keys() == {listed["Config"], *listed["Layers"]}
    config = json.loads(docker[listed["Config"]])
    assert [f"sha256:{hashlib.sha256(docker[name]).hexdigest()}" for name in listed["Layers"]] == config[
        "rootfs"
    ]["diff_ids"]


@pytest.mark.parametrize("kind", content.COMPRESSIONS)
@pytest.mark.parametrize("form", ["oci", "oci-archive"])
def test_compressed_layers_have_the_same_diff_ids(form: str, kind: str, tmp_path: Path) -> None:
    """Protects what is promised of a compressed image; other programs decompress its layers."""
    manifest = packaged_tree(tmp_path / "root", {"a": "1", "b": "1"})
    root = os.fsencode(tmp_path / "root")
    plain = export_image(manifest, "oci", str(tmp_path / "plain"), root=root)
    packed = export_image(manifest, form, str(tmp_path / "packed"), root=root, compression=kind)
    image = tmp_path / "packed"
    if form == "oci-archive":
        image = tmp_path / "unpacked"
        subprocess.run(["tar", "-xf", tmp_path / "packed", "--one-top-level=" + str(image)], check=True)
    assert tree_of(image) == tree_of(tmp_path / "plain")
    assert packed.diff_ids == plain.diff_ids
    assert packed.digest != plain.digest


@pytest.mark.gate  # as test_sbom: the libraries are not on each Python of the matrix
@pytest.mark.parametrize("bill", BILLS)
def test_a_bill_of_materials_refers_to_the_image(bill: str, tmp_path: Path) -> None:
    """The image is the same with it and without; the referrer's subject is the image."""
    manifest = packaged_tree(tmp_path / "root", {"a": "1"})
    root = os.fsencode(tmp_path / "root")
    plain = export_image(manifest, "oci", str(tmp_path / "plain"), root=root)
    with_bill = export_image(manifest, "oci", str(tmp_path / "oci"), root=root, bill=bill)
    assert with_bill == plain
    first, second = json.loads((tmp_path / "oci/index.json").read_bytes())["manifests"]
    referrer = json.loads(blob(tmp_path / "oci", second))
    assert referrer["subject"] == {key: first[key] for key in ("mediaType", "digest", "size")}
    assert second["artifactType"] == referrer["artifactType"] == referrer["layers"][0]["mediaType"]
    assert referrer["config"]["digest"] == f"sha256:{EMPTY}"
    assert b'"a"' in blob(tmp_path / "oci", referrer["layers"][0])
    command = ["skopeo", "inspect", f"oci:{tmp_path}/oci:w"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert found["Digest"] == plain.digest


# --- layers -------------------------------------------------------------------------------------


def synthetic(sizes: Sequence[int], *, upgraded: int = -1, to: int = 0) -> Manifest:
    """A manifest of packages with these sizes, of which one is of another version, and maybe another size."""
    packages, files = [], [directory(b"/"), directory(b"/f")]
    for number, size in enumerate(sizes):
        version = "2" if number == upgraded else "1"
        name = f"{'lib' * (number % 2)}{chr(97 + number % 26)}{number}"
        packages.append(Package(name=name, version=version, architecture="x", essential=number < 3))
        owner = (packages[-1].key,)
        path = b"/f/%03d" % number
        bytes_of = to if number == upgraded else size
        entry = regular(path, version.encode())._replace(size=bytes_of, owners=owner)
        files += [entry, symlink(path + b"-link", version.encode())._replace(owners=owner)]
        files.append(directory(path + b"-dir")._replace(owners=owner))
    files.append(FileEntry(path=b"/f/status", kind="regular", mode=0o644, origin="entry"))
    files.append(regular(b"/f/both", b"")._replace(owners=tuple(p.key for p in packages[:2])))
    found = files_alone(tuple(sorted(files, key=lambda entry: entry.path)))
    return replace(found, packages=tuple(sorted(packages, key=lambda package: package.key)))


SIZES = st.lists(st.integers(0, 1 << 20), min_size=1, max_size=150)


@given(SIZES)
@settings(max_examples=50, deadline=None)
def test_every_name_is_in_one_layer(sizes: list[int]) -> None:
    """At most as many layers as engines take; packages that are many are grouped, the largest are alone."""
    manifest = synthetic(sizes)
    layers = layers_of(manifest)
    assert len(layers) <= MOST_LAYERS
    assert sorted(e.path for layer in layers for e in layer.entries) == [e.path for e in manifest.files]
    assert sorted(p.key for layer in layers for p in layer.packages) == [p.key for p in manifest.packages]
    assert layers[-1].packages == ()
    for layer in layers[:-1]:
        assert {owner for entry in layer.entries for owner in entry.owners} == {p.key for p in layer.packages}
    alone = [layer for layer in layers[:-1] if len(layer.packages) == 1]
    assert len(alone) >= min(len(sizes), ALONE)


@given(SIZES, st.data())
@settings(max_examples=150, deadline=None)
def test_an_upgrade_changes_two_layers(sizes: list[int], data: st.DataObject) -> None:
    """Those of the package and the last one. If its size crosses a power of two, at most two others change.

    Then another package may take its place among the largest, or lose it.
    """
    number = data.draw(st.integers(0, len(sizes) - 1))
    old, bits = layers_of(synthetic(sizes)), sizes[number].bit_length()
    same = data.draw(st.integers((1 << bits) >> 1, max(0, (1 << bits) - 1)))
    new = layers_of(synthetic(sizes, upgraded=number, to=same))
    assert len([layer for layer in new if layer.entries not in {each.entries for each in old}]) <= 1
    assert [[p.key for p in layer.packages] for layer in new] == [[p.key for p in x.packages] for x in old]
    other = layers_of(synthetic(sizes, upgraded=number, to=data.draw(st.integers(0, 1 << 21))))
    changed = [layer for layer in other if layer.entries not in {each.entries for each in old}]
    assert len(changed) <= 3


def test_an_upgrade_leaves_the_other_blobs(tmp_path: Path) -> None:
    """The same with bytes: one layer changes here, where the last has no record of versions."""
    first = export_image(
        packaged_tree(tmp_path / "one", VERSIONS),
        "oci",
        str(tmp_path / "a"),
        root=os.fsencode(tmp_path / "one"),
    )
    upgraded = {**VERSIONS, "p7": "3"}
    second = export_image(
        packaged_tree(tmp_path / "two", upgraded),
        "oci",
        str(tmp_path / "b"),
        root=os.fsencode(tmp_path / "two"),
    )
    assert len(set(second.diff_ids) - set(first.diff_ids)) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("libpam-modules", "pam"),
        ("libpam0g", "pam"),
        ("perl-base", "perl"),
        ("python3.11", "python"),
        ("lib", "lib"),
        ("7zip", "7zip"),
        ("libX11", "libX11"),
    ],
)
def test_packages_of_a_source_have_a_stem(name: str, expected: str) -> None:
    """A manifest does not have source packages: names stand for them."""
    assert stem(name) == expected


# --- refusals -----------------------------------------------------------------------------------


def names_in(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


@pytest.mark.parametrize("form", IMAGE_FORMS)
def test_drift_is_refused_and_nothing_is_left(form: str, tmp_path: Path) -> None:
    """Every name that differs is listed: those that lstat(2) shows, and then content too."""
    manifest = packaged_tree(tmp_path / "root", {"a": "1", "b": "2", "c": "3"})
    root = tmp_path / "root"
    (root / "opt/b/file").write_bytes(b"X" * (root / "opt/b/file").stat().st_size)
    before = names_in(tmp_path)
    with pytest.raises(ExportDriftError, match="cannot export the files") as refused:
        export_image(manifest, form, str(tmp_path / "out"), root=os.fsencode(root))
    assert [(path, found.what) for path, found in refused.value.changes] == [(b"/opt/b/file", "content")]
    assert names_in(tmp_path) == before
    (root / "opt/a/file").unlink()
    (root / "etc/c.conf").write_bytes(b"longer")
    (root / "opt/c/link").unlink()
    (root / "opt/c/link").mkdir()
    with pytest.raises(ExportDriftError) as refused:
        export_image(manifest, form, str(tmp_path / "out"), root=os.fsencode(root))
    assert [(path, found.what) for path, found in refused.value.changes] == [
        (b"/etc/c.conf", "size"),
        (b"/opt/a/file", "missing"),
        (b"/opt/b/file", "content"),
        (b"/opt/c/link", "kind"),
    ]
    assert names_in(tmp_path) == before


DRIFTS: dict[str, Any] = {
    "missing": lambda path: path.unlink(),
    "linked": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
    "kind": lambda path: subprocess.run(["sh", "-c", 'rm "$0" && mkfifo "$0"', path], check=True),
    "size": lambda path: path.write_bytes(b"other"),
    "unreachable": lambda path: path.chmod(0),
}


@pytest.mark.parametrize("what", [each for each in DRIFTS if each != "unreachable" or os.geteuid() != 0])
def test_a_file_that_changes_meanwhile_is_found_as_it_is_read(what: str, tmp_path: Path) -> None:
    """After the first look at all names, each file is looked at once more by its descriptor."""
    path = tmp_path / "f"
    path.write_bytes(b"data")
    entry = regular(b"/f", b"data")
    passed: list[bytes] = []

    def sink(data: memoryview) -> None:
        passed.append(bytes(data))

    buffer = content.Buffer(sink)
    assert content.copy_file(entry, os.fsencode(path), buffer) is None
    buffer.flush()
    assert b"".join(passed) == b"data"
    DRIFTS[what](path)
    found = content.copy_file(entry, os.fsencode(path), content.Buffer(sink))
    assert found is not None
    assert found.what == what


def test_a_file_that_shrinks_while_it_is_read_is_found(tmp_path: Path) -> None:
    """There are fewer bytes than its size said."""
    path = tmp_path / "f"
    path.write_bytes(b"12")
    with path.open("rb") as file:
        assert content.Buffer(len).copy(file.fileno(), 5, hashlib.sha256()) == 3


REFUSED = [
    pytest.param("oci", [NO_DIGEST], {}, "the manifest has no digests", id="no digests"),
    pytest.param(
        "oci", [regular(b"/a", b""), NO_DIGEST], {}, "/f to oci: others may not read it", id="one without"
    ),
    pytest.param("oci", [symlink(b"/.wh.a", b"")], {}, "/.wh.a to oci: in a layer", id="whiteout"),
    pytest.param("oci-bundle", [symlink(b"/tmp", b"/x")], {}, "/tmp to oci-bundle: the jail", id="link"),
    pytest.param("vmdk", [], {}, "the formats with files are docker-archive, oci,", id="unknown"),
    pytest.param("oci", [], {"compression": "xz"}, "the compressions are gzip, zstd", id="compression"),
    pytest.param("tar", [], {"compression": "zstd"}, "cannot compress a tar", id="compressed tar"),
    pytest.param("tar", [], {"name": "x"}, "cannot name a tar", id="named tar"),
    pytest.param("oci", [], {"name": "A b"}, "cannot name an image 'A b'", id="name"),
    pytest.param("oci", [], {"bill": "x"}, "the bills of materials are cyclonedx, spdx", id="bill"),
    pytest.param("tar", [], {"bill": "spdx"}, "only to oci, oci-archive", id="bill of a tar"),
]


@pytest.mark.parametrize(("form", "entries", "options", "message"), REFUSED)
def test_what_an_image_cannot_have_is_refused(
    form: str, entries: list[FileEntry], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Nothing is left out in silence, and nothing is written."""
    (tmp_path / "root").mkdir()
    root = os.fsencode(tmp_path / "root")
    with pytest.raises(InputError, match=message):
        export_image(
            manifest_of(directory(b"/"), *entries), form, str(tmp_path / "out"), root=root, **options
        )
    assert names_in(tmp_path) == {"root"}


def test_all_wrong_arguments_are_told_at_once(tmp_path: Path) -> None:
    """Not one after another."""
    with pytest.raises(InputError) as refused:
        export_image(
            manifest_of(directory(b"/")),
            "tar",
            str(tmp_path / "x"),
            compression="gzip",
            name="x",
            bill="spdx",
        )
    assert len(refused.value.problems) == 3


def test_zstd_that_is_missing_or_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to do, and nothing is left."""
    manifest = packaged_tree(tmp_path / "root", {"a": "1"})
    root = os.fsencode(tmp_path / "root")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="zstd: the program is not in PATH"):
        export_image(manifest, "oci", str(tmp_path / "out"), root=root, compression="zstd")
    with pytest.raises(PkgjailError, match="tar2sqfs is not in PATH; install squashfs-tools-ng"):
        export_image(manifest, "squashfs", str(tmp_path / "out"), root=root)
    for name in ("zstd", "tar2sqfs"):
        (tmp_path / name).write_text("#!/bin/sh\n/bin/cat >&2; exit 3\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(PkgjailError, match="zstd ended with status 3"):
        export_image(manifest, "oci", str(tmp_path / "out"), root=root, compression="zstd")
    with pytest.raises(PkgjailError, match="tar2sqfs ended with status 3: etc/"):
        export_image(manifest, "squashfs", str(tmp_path / "out"), root=root)
    assert names_in(tmp_path) == {"root", "zstd", "tar2sqfs"}


@pytest.mark.parametrize("form", ["oci", "oci-bundle"])
def test_a_directory_that_is_not_empty_is_not_written_over(form: str, tmp_path: Path) -> None:
    """Nor a file or a link; an empty directory is replaced."""
    manifest = packaged_tree(tmp_path / "root", {"a": "1"})
    root = os.fsencode(tmp_path / "root")
    (tmp_path / "out").mkdir()
    export_image(manifest, form, str(tmp_path / "out"), root=root)
    full = files_below(tmp_path / "out")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("out")
    for name in ("out", "file", "link"):
        with pytest.raises(InputError, match="exists and is not an empty directory; name another path"):
            export_image(manifest, form, str(tmp_path / name), root=root)
    assert files_below(tmp_path / "out") == full


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk at the last step, of a directory and of a file."""
    manifest = packaged_tree(tmp_path / "root", {"a": "1"})
    root = os.fsencode(tmp_path / "root")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "full")

    monkeypatch.setattr(os, "rename", fail)
    for form in ("oci", "oci-bundle", "oci-archive", "tar"):
        with pytest.raises(OSError, match="full") as failed:
            export_image(manifest, form, str(tmp_path / "out"), root=root)
        assert failed.value.filename == str(tmp_path / "out")
    assert names_in(tmp_path) == {"root"}


# --- bundles and file systems -------------------------------------------------------------------


def test_a_bundle_has_the_files_and_no_rights(tmp_path: Path) -> None:
    """The tree is the manifest's, without bits that would give others the user's rights; see runc's below."""
    manifest = odd_tree(tmp_path / "root", NAMES)
    (tmp_path / "root/set").write_bytes(b"")
    (tmp_path / "root/set").chmod(0o4755)
    manifest = manifest_of(*manifest.files, regular(b"/set", b"", 0o4755))
    warnings: list[str] = []

    class Warned:
        """Collects warnings."""

        def progress(self, task: str, done: int, total: int) -> None:
            assert (task, done <= total) == ("exporting", True)

        def warn(self, message: str) -> None:
            warnings.append(message)

    export_image(
        manifest, "oci-bundle", str(tmp_path / "b"), root=os.fsencode(tmp_path / "root"), reporter=Warned()
    )
    assert [w.partition(":")[0] for w in warnings] == [
        "2 names copied without their set-user-ID and set-group-ID bits"
    ]
    found = walked(tmp_path / "b/rootfs")
    expected = described([e._replace(mode=e.mode & 0o1777) for e in manifest.files], HOSTS)
    assert found == {**dict.fromkeys((b"/dev", b"/sys"), "directory 0755"), **expected}
    config = json.loads((tmp_path / "b/config.json").read_bytes())
    assert config["process"]["capabilities"].keys() >= {"bounding", "ambient"}
    assert not any(config["process"]["capabilities"].values())
    assert ("uidMappings" in config["linux"]) == (os.geteuid() != 0)


def test_a_squashfs_has_exactly_the_manifest(tmp_path: Path) -> None:
    """Read by unsquashfs, whose authors are others than the writer's."""
    names = [name for name in NAMES if b"\n" not in name]
    manifest = odd_tree(tmp_path / "root", names)
    for kind in ("", "zstd"):
        out = tmp_path / f"out{kind}"
        export_image(manifest, "squashfs", str(out), root=os.fsencode(tmp_path / "root"), compression=kind)
        listed = subprocess.run(["unsquashfs", "-lln", "-d", "", out], capture_output=True, check=True).stdout
        rows = [line.split(None, 5) for line in listed.splitlines() if line[:1] in (b"d", b"l", b"-")]
        assert len(rows) == len(manifest.files)
        assert {row[1] for row in rows} == {b"0/0"}
        assert {row[3] for row in rows} == {b"1980-01-02"}
        for path in (b"/odd/plain", b"/odd/dplain/plain", b"/closed/file"):
            got = subprocess.run(["unsquashfs", "-cat", out, path], capture_output=True, check=True).stdout
            entry = next(e for e in manifest.files if e.path == path)
            assert hashlib.sha256(got).hexdigest() == entry.sha256


# --- the command --------------------------------------------------------------------------------


def test_the_command_knows_the_formats() -> None:
    """The command's lists stand beside those of the library, which need not be imported for a parser."""
    assert verb.TEXTS == FORMS
    assert verb.IMAGES == IMAGE_FORMS
    assert (verb.COMPRESSIONS, verb.BILLS) == (content.COMPRESSIONS, BILLS)


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The digest is a line on standard output; with --json there are the DiffIDs, too."""
    manifest = packaged_tree(tmp_path / "root", {"a": "1"})
    write_manifest(manifest, tmp_path / "m.jsonl")
    command = ["export", str(tmp_path / "m.jsonl"), "--root", str(tmp_path / "root"), "--format"]
    assert main([*command, "oci", "-o", str(tmp_path / "oci")]) == 0
    said = capsys.readouterr()
    assert "the manifest has no /tmp, which every jail has and the image does not" in said.err
    digest = said.out.strip()
    assert json.loads((tmp_path / "oci/index.json").read_bytes())["manifests"][0]["digest"] == digest
    assert main([*command, "oci-archive", "-o", str(tmp_path / "x"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["digest"], facts["format"], len(facts["diff_ids"])) == (digest, "oci-archive", 2)
    assert main([*command, "tar", "-o", str(tmp_path / "x")]) == 0
    assert capsys.readouterr().out == ""
    (tmp_path / "root/opt/a/file").unlink()
    assert main([*command, "tar", "-o", str(tmp_path / "x"), "--json"]) == 3
    assert json.loads(capsys.readouterr().err)["changes"] == [{"path": "/opt/a/file", "found": "is gone"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "oci"], "--format oci needs -o FILE"),
        (["--format", "mtree", "--compress", "gzip"], "--compress goes with the formats docker-archive,"),
        (["--format", "mtree", "--sbom", "spdx"], "--sbom goes with"),
        (["--format", "apptainer"], "name the OCI archive with --at"),
        (["--format", "apptainer", "--at", "/a b"], "cannot express the archive's path /a b"),
    ],
)
def test_the_command_refuses(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options that do not go together."""
    write_manifest(manifest_of(directory(b"/")), tmp_path / "m.jsonl")
    assert main(["export", str(tmp_path / "m.jsonl"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_devices_are_no_part_of_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A warning says so, as the engine can show them."""
    manifest = manifest_of(directory(b"/"))
    from pkgjail.core.model import DevicePattern

    header = replace(manifest.header, schema=2)
    devices = (DevicePattern(pattern="/dev/fuse", rule="w.toml:1"),)
    write_manifest(replace(manifest, header=header, devices=devices), tmp_path / "m.jsonl")
    (tmp_path / "root").mkdir()
    command = ["export", str(tmp_path / "m.jsonl"), "--root", str(tmp_path / "root"), "--format", "tar"]
    assert main([*command, "-o", str(tmp_path / "x")]) == 0
    assert "allows devices (/dev/fuse), which no tar has" in capsys.readouterr().err


def test_a_definition_for_apptainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the letter of the format: a header of keys and values, and a section."""
    manifest = manifest_of(directory(b"/"))
    write_manifest(manifest, tmp_path / "m.jsonl")
    assert main(["export", str(tmp_path / "m.jsonl"), "--format", "apptainer", "--at", "/srv/a.tar"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["Bootstrap: oci-archive", "From: /srv/a.tar"]
    assert lines[-2:] == ["%labels", f"    pkgjail.manifest {manifest_digest(dump_manifest(manifest))}"]


# --- the field's own programs -------------------------------------------------------------------


def test_skopeo_and_umoci_accept_an_image(tmp_path: Path) -> None:
    """Umoci unpacks the manifest: names of any bytes, modes, times, and owners if root unpacks it."""
    manifest = odd_tree(tmp_path / "root", NAMES)
    root = os.fsencode(tmp_path / "root")
    exported = export_image(manifest, "oci", str(tmp_path / "oci"), root=root, name="odd")
    command = ["skopeo", "inspect", f"oci:{tmp_path}/oci:odd"]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (facts["Digest"], tuple(facts["Layers"])) == (exported.digest, exported.diff_ids)
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    image = f"{tmp_path}/oci:odd"
    subprocess.run(
        ["umoci", "unpack", *rootless, "--image", image, tmp_path / "made"], capture_output=True, check=True
    )
    assert walked(tmp_path / "made/rootfs") == described(manifest.files, HOSTS)


@pytest.mark.slow
def test_runc_runs_the_bundle(anyone: Caller) -> None:
    """As root and as an ordinary user: the command has no rights, the root is read-only, /tmp is writable.

    Root's command cannot write the kernel's settings either, for which no capability is needed.
    """
    write_manifest(odd_tree(anyone.home / "root", NAMES), anyone.home / "m.jsonl")
    subprocess.run(["chown", "--recursive", f"{anyone.uid}:{anyone.uid}", anyone.home], check=True)
    done = anyone.pkgjail("export", "m.jsonl", "--root", "root", "--format", "oci-bundle", "-o", "bundle")
    assert done.returncode == 0, done.stderr
    config = json.loads((anyone.home / "bundle/config.json").read_bytes())
    script = (
        "id -u; grep CapBnd /proc/self/status; touch /x || echo no; echo yes >/tmp/x; cat /tmp/x; "
        "cd /proc/sys/kernel; cat core_pattern >/tmp/x; cat /tmp/x >core_pattern || echo no; exit 7"
    )
    config["process"]["args"] = ["/usr/bin/busybox", "sh", "-c", script]
    (anyone.home / "bundle/config.json").write_text(json.dumps(config))
    command = ["runc", "--root", "state", "run", "--bundle", "bundle", f"pkgjail-test-{os.getpid()}"]
    ran = anyone.run(command, stdin=subprocess.DEVNULL)
    assert (ran.returncode, ran.stdout) == (7, f"0\nCapBnd:\t{0:016x}\nno\nyes\nno\n"), ran.stderr


@pytest.mark.slow
def test_an_archive_of_this_host(tmp_path: Path) -> None:
    """By several processes, with an ld.so cache that a jail's ldconfig makes: twice the same bytes."""
    base = resolve(["base"])
    for name in ("one", "two"):
        export_image(base, "tar", str(tmp_path / name))
    data = (tmp_path / "one").read_bytes()
    assert data == (tmp_path / "two").read_bytes()
    found = {path.removeprefix(b"/.") or b"/": row for path, row in seen(data).items()}
    made = {e.path: found[e.path] for e in base.files if e.origin == "entry"}
    assert {**described(base.files, b""), **made} == found
    assert hashlib.sha256(b"").hexdigest() not in found[b"/etc/ld.so.cache"]
