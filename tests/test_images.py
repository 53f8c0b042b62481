"""The store of images: each form gives the same image, and the store is whole whatever happens."""

from __future__ import annotations

import bz2
import fcntl
import gzip
import io
import json
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgjail.cli.main import main
from pkgjail.core.entries import describe
from pkgjail.core.errors import ImageError, NamesError, NoImageError, PkgjailError, UsageError
from pkgjail.core.reporter import SILENT
from pkgjail.images.importing import import_image
from pkgjail.images.model import LeftOut
from pkgjail.images.paths import same_in_another_case
from pkgjail.images.store import (
    find_image,
    list_images,
    prune_images,
    remove_image,
    store_path,
    used_image,
    verify_image,
)
from tests.tars import (
    END,
    archive,
    device,
    directory,
    docker_files,
    fifo,
    file,
    link,
    oci_files,
    old_sparse,
    pax,
    symlink,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Caller

ROOT = (
    directory(".", mode=0o755)
    + directory("etc/", mode=0o755)
    + file("etc/shadow", b"secret", mode=0o640, gid=42)
    + file("etc/gshadow", b"secret", mode=0)
    + directory("usr/bin", mode=0o555)
    + file("usr/bin/su", b"su", mode=0o4755, mtime=1234567890)
    + link("usr/bin/sudo", "./usr/bin/su")
    + symlink("bin", "usr/bin")
    + symlink("etc/localtime", "/usr/share/zone")
    + file(b"etc/\xff\n", b"bytes")
    + old_sparse("etc/sparse", 3000, [(1000, 1)])
    + device("dev/null")
    + fifo("run/initctl")
    + pax(file("usr/bin/ping", b"ping"), SCHILY__xattr__security__capability=b"x")
    + directory("var/tmp", mode=0o1777)
)
LINES = """\
 0755 0:0
bin -> usr/bin
dev 0755 0:0
etc 0755 0:0
etc/gshadow 0000 0:0 secret
etc/localtime -> /usr/share/zone
etc/shadow 0640 0:42 secret
etc/sparse 0755 0:0 3000
etc/\\udcff\\n 0755 0:0 bytes
run 0755 0:0
usr 0755 0:0
usr/bin 0555 0:0
usr/bin/ping 0755 0:0 ping
usr/bin/su 4755 0:0 su
usr/bin/sudo 4755 0:0 su
var 0755 0:0
var/tmp 1777 0:0
"""
LEFT_OUT = LeftOut(special=2, set_id=2, attributes=1, owned=1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store of the test's own, the usual one."""
    monkeypatch.delenv("PKGJAIL_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    yield tmp_path / "data" / "pkgjail" / "images"
    subprocess.run(["chmod", "-R", "u+rwX", tmp_path / "data"], check=False, stderr=subprocess.DEVNULL)


def put(place: Path, data: bytes) -> Path:
    """Write an archive."""
    place.write_bytes(data)
    return place


def lines(image_root: bytes) -> str:
    """The image's list as text: path, mode, owner and content."""
    listing = Path(os.fsdecode(image_root)).parent / "files.jsonl"
    rows = []
    for line in listing.read_text().splitlines():
        one = json.loads(line)
        name = one["path"].encode("unicode_escape").decode()
        if one["type"] == "symlink":
            rows.append(f"{name} -> {one['target']}")
            continue
        place = Path(os.fsdecode(image_root), one["path"])
        content = place.read_bytes() if one["type"] == "regular" else b""
        text = f" {one['size']}" if len(content) > 100 else f" {content.decode()}" if content else ""
        rows.append(f"{name} {one['mode']} {one['uid']}:{one['gid']}{text}")
    return "\n".join([*rows, ""])


def zstd(data: bytes) -> bytes:
    """Compress as zstd(1) does."""
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


FORMS: dict[str, tuple[Callable[[bytes], bytes | dict[str, bytes]], str]] = {
    "tar": (lambda tar: tar, "tar"),
    "gzip": (gzip.compress, "tar"),
    "gzip in two parts": (lambda tar: gzip.compress(tar[:1000]) + gzip.compress(tar[1000:]), "tar"),
    "bzip2": (bz2.compress, "tar"),
    "xz": (lzma.compress, "tar"),
    "zstd": (zstd, "tar"),
    "an OCI layout": (lambda tar: oci_files([tar]), "oci"),
    "an OCI archive": (lambda tar: archive(oci_files([tar])), "oci"),
    "a compressed OCI archive": (lambda tar: gzip.compress(archive(oci_files([tar]))), "oci"),
    "an archive of docker save": (lambda tar: archive(docker_files([tar])), "docker"),
    "the same unpacked": (lambda tar: docker_files([tar]), "docker"),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_image(form: str, store: Path, tmp_path: Path) -> None:
    """Protects the digest from depending on the form, and what the list and the disk have."""
    make, found = FORMS[form]
    made = make(ROOT + END)
    source = tmp_path / "image"
    if isinstance(made, dict):
        write(made, source)
    else:
        source.write_bytes(made)
    image = import_image(source)
    assert (image.name, image.format, image.left_out) == ("image", found, LEFT_OUT)
    assert lines(image.root) == LINES
    assert image.digest == "sha256:98766b7c440fbaac9ad9718eeaed899f520e5bc236c5d4fa5cd1d19b6d7870a9"
    root = Path(os.fsdecode(image.root))
    assert image.root.startswith(os.fsencode(store))
    modes = {name: stat.S_IMODE((root / name).lstat().st_mode) for name in ("usr/bin", "usr/bin/su", "etc")}
    assert modes == {"usr/bin": 0o555, "usr/bin/su": 0o755, "etc": 0o755}
    assert (root / "etc/gshadow").stat().st_mode & 0o777 == 0o400
    assert (root / "usr/bin/su").stat().st_mtime == 1234567890
    assert (root / "usr/bin/su").samefile(root / "usr/bin/sudo")
    assert not (root / "dev/null").exists()
    assert verify_image(image, SILENT) == ()


@pytest.mark.slow
def test_squashfs_and_directories(store: Path, tmp_path: Path) -> None:
    """Protects the forms that have a file system of their own: squashfs, and a directory that is open."""
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/su").write_bytes(b"su")
    (root / "usr/bin/su").chmod(0o4755)
    os.link(root / "usr/bin/su", root / "usr/bin/sudo")
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/empty").touch(mode=0o600)
    os.mkfifo(root / "fifo")
    image = tmp_path / "root.sqfs"
    subprocess.run(["mksquashfs", root, image, "-quiet", "-no-progress"], check=True, capture_output=True)
    found = [import_image(root, "directory"), import_image(image)]
    assert found[0].digest == found[1].digest
    assert found[1].left_out.special == 1
    remove_image(found[0].digest)
    assert import_image(image).format == "squashfs"
    remove_image("root")
    found = [import_image(root, "directory"), import_image(image)]
    assert (found[0].names, found[0].left_out.set_id) == (7, 2)
    tree = Path(os.fsdecode(found[0].root))
    assert (tree / "usr/bin/su").samefile(tree / "usr/bin/sudo")
    with pytest.raises(UsageError, match="a squashfs from standard input"), image.open("rb") as stream:
        _from_standard_input(stream, "x")
    assert sorted(path.name for path in (store / "names").iterdir()) == ["directory", "root"]


def _from_standard_input(stream: Any, name: str) -> Any:
    before = os.dup(0)
    os.dup2(stream.fileno(), 0)
    try:
        return import_image("-", name)
    finally:
        os.dup2(before, 0)
        os.close(before)


def test_standard_input(store: Path, tmp_path: Path) -> None:
    """Protects pipes: what comes through one is the same image, and needs a name."""
    del store
    put(tmp_path / "i.tar.gz", gzip.compress(ROOT + END))
    with subprocess.Popen(["cat", tmp_path / "i.tar.gz"], stdout=subprocess.PIPE) as process:
        image = _from_standard_input(process.stdout, "piped")
    assert lines(image.root) == LINES
    with pytest.raises(UsageError, match="without a name"):
        import_image("-")


LAYERS = {
    "a file replaces a file": ([file("a", b"old"), file("a", b"new")], "a 0755 0:0 new\n"),
    "a file replaces a directory": ([file("a/b/c"), file("a", b"new")], "a 0755 0:0 new\n"),
    "a directory replaces a link": (
        [symlink("a", "b"), directory("a") + file("a/b", b"new")], "a 0755 0:0\na/b 0755 0:0 new\n"
    ),
    "a link replaces a directory": ([file("a/b"), symlink("a", "b")], "a -> b\n"),
    "a directory's mode changes": (
        [file("a/b", b"old"), directory("a", mode=0o700)], "a 0700 0:0\na/b 0755 0:0 old\n"
    ),
    "a device hides a file": ([file("a") + file("b", b"old"), device("a")], "b 0755 0:0 old\n"),
    "a name is hidden": ([file("a") + file("b", b"old"), file(".wh.a")], "b 0755 0:0 old\n"),
    "a directory is hidden": ([file("d/a") + file("b", b"old"), file(".wh.d")], "b 0755 0:0 old\n"),
    "nothing is hidden": ([file("b", b"old"), file(".wh.a") + file("d/.wh.a")], "b 0755 0:0 old\n"),
    "a directory is emptied, then filled": (
        [file("d/a"), file("d/.wh..wh..opq") + file("d/b", b"new")], "d 0755 0:0\nd/b 0755 0:0 new\n"
    ),
    "a directory is filled, then emptied": (
        [file("d/a") + file("d/e/x"), file("d/e/b", b"new") + file("d/.wh..wh..opq")],
        "d 0755 0:0\nd/e 0755 0:0\nd/e/b 0755 0:0 new\n",
    ),
    "a hard link to an earlier layer": (
        [file("a", b"old"), link("b", "a") + file(".wh.a")], "b 0755 0:0 old\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("summary", LAYERS)
def test_layers(summary: str, store: Path, tmp_path: Path) -> None:
    """Protects the rules of changesets (OCI Image Layer Filesystem Changeset Specification)."""
    del store
    layers, expected = LAYERS[summary]
    files = oci_files([layer + END for layer in layers])
    image = import_image(put(tmp_path / "a.tar", archive(files)))
    assert lines(image.root) == " 0755 0:0\n" + expected
    assert verify_image(image, SILENT) == ()


def test_one_of_several_images(store: Path, tmp_path: Path) -> None:
    """Protects that nobody gets another image than the one that was meant."""
    del store
    here = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]

    def two(first: dict[str, Any], **facts: Any) -> bytes:
        other = {**first, "digest": f"sha256:{'0' * 64}"}
        named = [
            {**each, "annotations": {"org.opencontainers.image.ref.name": name}, **more}
            for each, name, more in ((first, "app:1", {}), (other, "app:2", facts))
        ]
        return archive(oci_files([file("a") + END], manifests=lambda _: named))

    first = json.loads(oci_files([file("a") + END])["index.json"])["manifests"][0]
    source = put(tmp_path / "a.tar", two(first))
    with pytest.raises(ImageError, match="2 images for this machine; name one of app:1, app:2"):
        import_image(source)
    with pytest.raises(ImageError, match="no image app:3; it has app:1, app:2"):
        import_image(source, reference="app:3")
    assert import_image(source, reference="app:1").names == 2
    assert import_image(source, reference="1").names == 2
    first["platform"] = {"os": "linux", "architecture": here}
    assert import_image(put(source, two(first, platform={"os": "linux", "architecture": "z80"}))).names == 2


def test_a_root_with_an_index_is_a_root(store: Path, tmp_path: Path) -> None:
    """Protects the choice of a form: it can be named."""
    del store
    source = put(tmp_path / "a.tar", file("index.json", b"{}") + END)
    with pytest.raises(ImageError, match="no list 'manifests'"):
        import_image(source)
    assert import_image(source, form="tar").format == "tar"
    with pytest.raises(ImageError, match=r"its manifest\.json cannot be read"):
        import_image(put(source, ROOT + END), form="docker")
    with pytest.raises(UsageError, match="it is a directory"):
        import_image(tmp_path, form="tar")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another content": (lambda root: (root / "bin/f").write_bytes(b"y"), "/bin/f has other content"),
    "another size": (lambda root: (root / "bin/f").write_bytes(b"yy"), "/bin/f has 2 bytes, not 1"),
    "another mode": (lambda root: (root / "bin/f").chmod(0o700), "/bin/f has mode 0700, not 0755"),
    "another target": (lambda root: _relink(root / "l"), "/l is a link to somewhere else"),
    "a name more": (lambda root: (root / "bin/new").touch(), "/bin/new was not made by pkgjail"),
    "a name less": (lambda root: (root / "l").unlink(), "/l is gone"),
    "another kind": (lambda root: _to_a_file(root / "l"), "/l is no longer a symbolic link"),
}  # fmt: skip


def _relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("x")


def _to_a_file(path: Path) -> None:
    path.unlink()
    path.touch()


@pytest.mark.parametrize("change", CHANGES)
def test_verify_finds_each_change(
    change: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects an image from a change that nobody sees."""
    del store
    image = import_image(put(tmp_path / "i.tar", file("bin/f") + symlink("l", "bin/f") + END))
    make, expected = CHANGES[change]
    make(Path(os.fsdecode(image.root)))
    found = [f"{path.decode()} {describe(mismatch)}" for path, mismatch in verify_image(image, SILENT)]
    assert found == [expected]
    assert main(["image", "verify", "i"]) == 1
    assert capsys.readouterr().out == f"{expected}\n4 names, 1 difference\n"
    assert main(["image", "verify", "i", "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["differences"]) == 1


def test_names(store: Path, tmp_path: Path) -> None:
    """Protects a name from another image, and an image with two names until both are gone."""
    one, other = put(tmp_path / "a.tar", file("a") + END), put(tmp_path / "b.tar", file("b") + END)
    first = import_image(one, "x")
    assert import_image(one, "y").root == first.root
    assert import_image(one, "x").digest == first.digest
    with pytest.raises(PkgjailError, match="another one has the name x"):
        import_image(other, "x")
    second = import_image(other, "x", replace=True)
    assert [(each.name, each.digest) for each in list_images()] == [("x", second.digest), ("y", first.digest)]
    remove_image("y")
    assert [each.name for each in list_images()] == ["x"]
    assert not os.path.exists(first.root)
    third = import_image(one, "x", replace=True)
    assert [each.name for each in list_images()] == ["x", ""]
    assert find_image(third.digest).name == "x"
    assert [each.digest for each in prune_images()] == [second.digest]
    remove_image(third.digest)
    assert sorted(os.listdir(store)) == ["lock", "names"]
    assert os.listdir(store / "names") == []
    with pytest.raises(NoImageError, match=r"cannot find the image x in .*: it has none"):
        find_image("x")
    for name in ("", ".x", "a/b", "a:b", "é", "x" * 101):
        with pytest.raises(UsageError):
            import_image(one, name or "-x")


def test_a_name_that_is_taken_gets_the_digest(store: Path, tmp_path: Path) -> None:
    """Protects the name of another image where the caller wants any: it is the same for the same image."""
    name = "x" * 95
    one, other = put(tmp_path / "a.tar", file("a") + END), put(tmp_path / "b.tar", file("b") + END)
    first = import_image(one, name)
    assert import_image(one, name, rename=True) == first
    second = import_image(other, name, rename=True)
    assert second.name == f"{name[:87]}-{second.digest[7:19]}"
    assert import_image(other, name, rename=True) == second
    assert [image.name for image in list_images()] == sorted([first.name, second.name])
    import_image(one, second.name, replace=True)
    with pytest.raises(PkgjailError, match=f"another one has the name {second.name}"):
        import_image(other, name, rename=True)
    assert store.is_dir()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param("head -c 600; kill -KILL $$", "zstd was killed by signal 9", id="killed"),
        pytest.param("echo why >&2; exit 3", r"it is damaged \(why\)", id="failed"),
    ],
)
def test_a_program_that_fails(
    body: str, message: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects from half an image when the program that unpacks ends early."""
    source = put(tmp_path / "a.tar.zst", zstd(file("a", bytes(5000)) + END))
    (tmp_path / "zstd").write_text(f"#!/bin/sh\n{body}\n")
    (tmp_path / "zstd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(PkgjailError, match=message):
        import_image(source)
    assert os.listdir(store) == []


def test_no_room_for_a_thread(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from a traceback at a limit of processes; the program that was started ends."""
    source = put(tmp_path / "a.tar.zst", zstd(file("a") + END))

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(PkgjailError, match="no thread can be started; raise the limit of processes"):
        import_image(source)
    assert os.listdir(store) == []


def test_an_image_in_use_stays(store: Path, tmp_path: Path) -> None:
    """Protects a jail from losing its files."""
    source = put(tmp_path / "a.tar", file("a") + END)
    image = import_image(source)
    with used_image("a"):
        with pytest.raises(PkgjailError, match="a process uses it"):
            remove_image("a")
        assert [each.name for each in list_images()] == ["a"]
        import_image(put(source, file("b") + END), "a", replace=True)
        assert prune_images() == ()
        assert os.path.exists(image.root)
    assert [each.digest for each in prune_images()] == [image.digest]
    assert len(os.listdir(store)) == 3


def test_imports_at_once(store: Path, tmp_path: Path) -> None:
    """Protects the store from importers of the same and of other images, and from removals meanwhile."""
    sources = [put(tmp_path / f"{n}.tar", b"".join(file(f"d/{m}", b"%d" % n) for m in range(200)) + END)
               for n in range(2)]  # fmt: skip

    def work(number: int) -> None:
        image = import_image(sources[number % 2], f"name-{number}")
        assert verify_image(image, SILENT) == ()
        if number % 3 == 0:
            remove_image(f"name-{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(12)))
    left = [each.name for each in list_images()]
    assert left == sorted(f"name-{number}" for number in range(12) if number % 3)
    assert sorted(os.listdir(store))[:2] == ["lock", "names"]
    assert len(os.listdir(store)) == 4


def test_what_a_killed_import_left_is_removed(store: Path, tmp_path: Path) -> None:
    """Protects the disk from what a killed process left, and a running import from being taken for that."""
    source = put(tmp_path / "a.tar", file("a") + END)
    import_image(source)
    for name in (".new-dead", ".new-alive", ".going-dead"):
        (store / name / "tree" / "d").mkdir(parents=True)
        (store / name / "tree" / "d").chmod(0)
    (store / "names" / ".new-a-1").touch()
    descriptor = os.open(store / ".new-alive", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    import_image(source, "b")
    assert sorted(each for each in os.listdir(store) if each.startswith(".")) == [".new-alive"]
    assert sorted(os.listdir(store / "names")) == ["a", "b"]
    os.close(descriptor)
    prune_images()
    assert len(os.listdir(store)) == 3


def test_damaged_records(store: Path, tmp_path: Path) -> None:
    """Protects readers of the store from what is not in it: each says what to do."""
    image = import_image(put(tmp_path / "a.tar", file("a") + END))
    place = Path(os.fsdecode(image.root)).parent
    listing = (place / "files.jsonl").read_bytes()
    (place / "files.jsonl").write_bytes(listing[:-1])
    with pytest.raises(PkgjailError, match="its digest is not the image's"):
        verify_image(image, SILENT)
    (place / "image.json").write_text("{}")
    with pytest.raises(PkgjailError, match=r"image\.json is damaged .*import it again"):
        find_image("a")
    (store / "names" / "a").write_text("x")
    with pytest.raises(PkgjailError, match="names/a has no digest"):
        list_images()


def test_where_it_is(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the order of what names a store: the parameter, the variable, the data directory."""
    assert store_path() == str(store)
    monkeypatch.setenv("PKGJAIL_STORE", str(tmp_path / "variable"))
    assert store_path() == str(tmp_path / "variable")
    assert store_path("x") == f"{os.getcwd()}/x"
    monkeypatch.delenv("PKGJAIL_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store_path() == f"{tmp_path}/.local/share/pkgjail/images"
    monkeypatch.setenv("HOME", "relative")
    with pytest.raises(UsageError, match="you have no home directory"):
        store_path()


def test_a_case_insensitive_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from a file system that takes two names for one: the second is refused, with the first.

    Most systems that run the tests have none, so the calls that make names are as on such a one.
    """
    made: set[bytes] = set()

    def folding(call: Callable[..., Any], position: int) -> Callable[..., Any]:
        def folded(*words: Any, **more: Any) -> Any:
            path = words[position]
            if isinstance(path, bytes) and (call is not real_open or words[1] & os.O_EXCL):
                if path.lower() in made:
                    raise FileExistsError
                made.add(path.lower())
            return call(*words, **more)

        return folded

    real_open = os.open
    monkeypatch.setattr(os, "open", folding(os.open, 0))
    monkeypatch.setattr(os, "mkdir", folding(os.mkdir, 0))
    monkeypatch.setattr(os, "symlink", folding(os.symlink, 1))
    source = put(tmp_path / "a.tar", file("x_mark.h") + file("x_MARK.h") + END)
    with pytest.raises(ImageError, match=r"x_MARK\.h: this file system takes its name for x_mark\.h"):
        import_image(source, store=str(tmp_path / "store"))
    made.clear()
    with pytest.raises(ImageError, match="L: this file system takes its name for l"):
        import_image(put(source, symlink("l", "x") + symlink("L", "x") + END), store=str(tmp_path / "store"))
    made.clear()
    with pytest.raises(ImageError, match="D/x: this file system takes its name for d"):
        import_image(put(source, directory("d") + file("D/x") + END), store=str(tmp_path / "store"))


def test_twins_in_case_are_two_files(store: Path, tmp_path: Path) -> None:
    """Protects the kernel's headers: xt_MARK.h and xt_mark.h are both in linux-libc-dev."""
    del store
    image = import_image(put(tmp_path / "a.tar", file("xt_MARK.h") + file("xt_mark.h") + END))
    assert image.names == 3
    assert same_in_another_case("É".encode(), [b"x", b"e\xcc\x81"]) == b"e\xcc\x81"
    assert same_in_another_case(b"a", [b"a", b"b"]) is None


def test_unreadable_names_of_a_directory(store: Path, user: Caller) -> None:
    """Protects a directory from being imported without what this user may not read: all names are said."""
    del store
    root = user.home / "root"
    (root / "closed").mkdir(parents=True)
    (root / "secret").touch()
    for name in ("closed", "secret"):
        (root / name).chmod(0)
    if user.uid != os.geteuid():
        for path in (root, root / "closed", root / "secret"):
            os.chown(path, user.uid, user.uid)
    done = user.pkgjail("image", "import", root, "--store", user.home / "store")
    assert done.returncode == 2
    assert "cannot import 2 names: this user may not read it" in done.stderr
    assert "  closed\n  secret\n" in done.stderr
    if os.geteuid() == 0:
        assert import_image(root, "r").names == 3
    else:
        with pytest.raises(NamesError):
            import_image(root, "r")


def test_a_store_for_readers(tmp_path: Path, anyone: Caller) -> None:
    """Protects users of a store that they may not write to, and the store from them."""
    store = tmp_path / "shared"
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:2]:
        parent.chmod(0o755)
    source = put(tmp_path / "a.tar", file("a", b"abc", mode=0o644) + END)
    import_image(source, store=str(store))
    store.chmod(0o555 if anyone.uid == os.geteuid() else 0o755)
    environment = {"PKGJAIL_STORE": str(store)}
    shown = anyone.pkgjail("image", "show", "a", "--json", environment=environment)
    assert shown.returncode == 0, shown.stderr
    root = json.loads(shown.stdout)["root"]
    assert anyone.run(["cat", f"{root}/a"]).stdout == "abc"
    assert anyone.pkgjail("image", "verify", "a", environment=environment).returncode == 0
    if anyone.uid != os.geteuid():
        refused = anyone.pkgjail("image", "rm", "a", environment=environment)
        assert refused.returncode == 1
        assert "does not belong to this user alone; name another one with --store" in refused.stderr
    store.chmod(0o755)


def test_the_command(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects what is printed, for people and for programs."""
    del store
    source = put(tmp_path / "a.tar", ROOT + END)
    assert main(["image", "import", str(source), "sys", "--max-names", "99", "--max-size", "1M"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "sys: 17 names, 3.0 kB"
    assert "warning: sys: 2 device nodes, FIFOs and sockets are left out" in err
    assert "warning: sys: 2 files have no set-user-ID or set-group-ID on the disk" in err
    assert "warning: sys: 1 name has lost extended attributes" in err
    assert main(["image", "ls"]) == 0
    assert capsys.readouterr().out.split()[:3] == ["sys", "sha256:98766b7c440f", "17"]
    assert main(["image", "show", "sys"]) == 0
    assert "owners of 1 name" in capsys.readouterr().out
    assert main(["image", "import", str(source), "sys", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == LEFT_OUT._asdict()
    assert main(["image", "import", str(source), "big", "--max-size", "1K"]) == 2
    assert "nothing was imported; raise --max-names or --max-size" in capsys.readouterr().err
    assert main(["image", "ls", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == ["sys"]
    assert main(["image", "rm", "sys"]) == 0
    assert main(["image", "prune"]) == 0
    assert capsys.readouterr().out.endswith("0 images removed\n")
    assert main(["image", "show", "sys"]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["image", "ls", "--stroe", "x"])
    assert ended.value.code == 2
    assert "did you mean '--store'?" in capsys.readouterr().err


NAME = st.text("ab.\udcff ", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
NAMES = st.lists(NAME, min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(NAMES, st.binary(max_size=600) | st.none(), max_size=8))
@settings(max_examples=20)
def test_an_archive_is_the_directory_that_it_is_made_of(
    tmp_path_factory: Any, tree: dict[str, bytes | None]
) -> None:
    """Protects any names and contents: tarfile, which wrote the archive, shares no code with the walk."""
    place = tmp_path_factory.mktemp("any")
    root = place / "root"
    root.mkdir()
    for name, content in tree.items():
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if content is None else path.write_bytes(content)
        except OSError:  # it is another name's directory, or below a file
            continue
    if not os.listdir(root):
        return
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as made:
        made.add(root, ".")
    store = str(place / "store")
    archived = import_image(put(place / "a.tar", data.getvalue()), store=store)
    assert archived.digest == import_image(root, store=store).digest
    shutil.rmtree(place)
