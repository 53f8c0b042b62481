"""Hostile archives: each is refused as a whole, with the member's name, and nothing of it stands anywhere."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import ImageError
from pkgjail.images import tree
from pkgjail.images.importing import import_image
from pkgjail.images.model import ImageLimits
from tests.faults import state_of
from tests.tars import (
    BLOCK,
    END,
    archive,
    device,
    digest,
    directory,
    docker_files,
    fifo,
    file,
    header,
    link,
    oci_files,
    old_sparse,
    patched,
    pax,
    symlink,
)

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = ImageLimits(names=100, bytes=1 << 20)
ALWAYS = 1 << 16
"""The growth that is accepted here of any archive."""

E1, E2 = "é".encode(), b"e\xcc\x81"  # the same letter in two forms of Unicode
ZEROS = bytes(1 << 23)
BIG = (1 << 63) - 1


def zstd(data: bytes) -> bytes:
    """Compress as zstd(1) does."""
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


def long_name(size: int, content: bytes = b"") -> bytes:
    """A GNU header with a name of a size, which may be larger than what follows."""
    return header("././@LongLink", tarfile.GNUTYPE_LONGNAME, content, size=size)


# What an archive has (without its end), and how the message begins behind its name; "…" is that alone.
MEMBERS = {
    # --- names
    "an absolute name": (file("/etc/passwd"), "/etc/passwd: its name is absolute"),
    "an absolute name with two slashes": (file("//etc/passwd"), "//etc/passwd: its name is absolute"),
    "the host's root": (directory("/"), ": it has no name"),
    "an absolute name in a pax header": (pax(file("a"), path=b"/etc/x"), "/etc/x: its name is absolute"),
    "an absolute name of the GNU form": (
        long_name(7, b"/etc/x\0") + file("a"), "/etc/x: its name is absolute"
    ),
    "an absolute name of two fields": (
        patched(patched(file("a"), 257, b"ustar\x0000"), 345, b"/etc"), "/etc/a: its name is absolute"
    ),
    "the directory above": (directory(".."), "..: its name has '..'"),
    "a file in the directory above": (file("../x"), "../x: its name has '..'"),
    "a way up and down": (file("a/../b"), "a/../b: its name has '..'"),
    "a way up and out": (file("a/../../b"), "a/../../b: its name has '..'"),
    "a way out behind a dot": (file("./../x"), "./../x: its name has '..'"),
    "a way up at the end": (directory("a/.."), "a/..: its name has '..'"),
    "NUL in a name": (pax(file("a"), path=b"a\0b"), "a\\x00b: its name has a NUL"),
    "no name": (pax(file("a"), path=b""), ": it has no name"),
    "the root as a file": (file("."), ".: it is the root, and not a directory"),
    "the root as a link": (symlink("./", "/"), "./: it is the root, and not a directory"),
    "a long name": (file("n" * 256), "n" * 256 + ": its name is too long"),
    "a long path": (file("n/" * 2000 + "x"), "n/" * 2000 + "x: its name is too long"),
    # --- links
    "a link to above the root": (symlink("a", "../x"), "a: it is a symbolic link that leads out"),
    "a link to the directory above": (symlink("a", ".."), "a: it is a symbolic link that leads out"),
    "a link out of a directory": (symlink("a/b", "../../x"), "a/b: it is a symbolic link that leads out"),
    "a link up, down and out": (symlink("a/b", "../c/../../x"), "a/b: it is a symbolic link that leads out"),
    "an absolute link out": (symlink("a", "/../x"), "a: it is a symbolic link that leads out"),
    "a link to nothing": (symlink("a", ""), "a: it is a symbolic link that Linux cannot have"),
    "a link with NUL": (pax(symlink("a", "b"), linkpath=b"b\0c"), "a: it is a symbolic link that Linux"),
    "a long link": (symlink("a", "t" * 4096), "a: it is a symbolic link that Linux"),
    "a hard link to the host": (link("a", "/etc/passwd"), "a: it is a hard link that leads out"),
    "a hard link to above": (link("a", "../x"), "a: it is a hard link that leads out"),
    "a hard link up and out": (link("a/b", "c/../../x"), "a/b: it is a hard link that leads out"),
    "a hard link to nothing": (link("a", "b"), "a: it is a hard link to no file that is before it: b"),
    "a hard link to what follows": (link("a", "b") + file("b"), "a: it is a hard link to no file"),
    "a hard link to itself": (link("a", "a"), "a: it is a hard link to no file that is before it: a"),
    "a hard link to a directory": (directory("d") + link("a", "d"), "a: it is a hard link to no file"),
    "a hard link through a link": (
        symlink("etc", "/etc") + link("a", "etc/passwd"), "a: it is a hard link to no file"
    ),
    "a hard link to a device": (device("n") + link("a", "n"), "a: it is a hard link to the device n"),
    "a hard link to a FIFO": (fifo("n") + link("a", "n"), "a: it is a hard link to the FIFO n"),
    # --- below
    "a file below a link": (symlink("a", "/tmp") + file("a/x"), "a/x: it is below the symbolic link a"),
    "a file below a link inside": (
        directory("d") + symlink("a", "d") + file("a/x"), "a/x: it is below the symbolic link a"
    ),
    "a directory below a link": (symlink("a", "/tmp") + directory("a/x"), "a/x: it is below the symbolic"),
    "a link below a link": (symlink("a", "/tmp") + symlink("a/x", "y"), "a/x: it is below the symbolic"),
    "a hard link below a link": (
        file("f") + symlink("a", "/tmp") + link("a/x", "f"), "a/x: it is below the symbolic link a"
    ),
    "a file far below a link": (symlink("a", "/") + file("a/b/c/d"), "a/b/c/d: it is below the symbolic"),
    "a file below a link's hard link": (
        symlink("a", "/tmp") + link("b", "a") + file("b/x"), "b/x: it is below the symbolic link b"
    ),
    "a device below a link": (symlink("a", "/tmp") + device("a/x"), "a/x: it is below the symbolic link a"),
    "a file below a file": (file("a") + file("a/x"), "a/x: it is below the regular file a"),
    "a file below a device": (device("a") + file("a/x"), "a/x: it is below the device a"),
    "a file below a FIFO": (fifo("a") + file("a/x"), "a/x: it is below the FIFO a"),
    "a link in a directory's place": (file("a/x") + symlink("a", "/tmp"), "a: other members are below it"),
    "a file in a directory's place": (file("a/x") + file("a"), "a: other members are below it"),
    "a link in the place of a listed directory": (
        directory("a") + symlink("a", "/tmp") + file("a/x"), "a: its name is in the archive twice"
    ),
    # --- names twice
    "a file twice": (file("a") + file("a", b"y"), "a: its name is in the archive twice"),
    "a link twice": (symlink("a", "b") + symlink("a", "b"), "a: its name is in the archive twice"),
    "a file behind a link": (symlink("a", "/etc/passwd") + file("a"), "a: its name is in the archive twice"),
    "a file behind a directory": (directory("a") + file("a"), "a: its name is in the archive twice"),
    "a directory behind a link": (symlink("a", "b") + directory("a"), "a: its name is in the archive twice"),
    "a file behind a device": (device("a") + file("a"), "a: its name is in the archive twice"),
    "a device behind a file": (file("a") + device("a"), "a: its name is in the archive twice"),
    "a hard link twice": (
        file("f") + link("a", "f") + link("a", "f"), "a: its name is in the archive twice"
    ),
    "a name in two ways": (file("d/a") + file("./d//a"), "./d//a: its name is in the archive twice"),
    "a name in two headers": (file("a") + pax(file("b"), path=b"a"), "a: its name is in the archive twice"),
    # --- names that look alike
    "two forms of a letter": (file(E1) + file(E2), "e\u0301: its name is that of é in another form"),
    "two forms of a directory": (
        directory(b"d/" + E1) + file(b"d/" + E2 + b"/x"), "d/e\u0301/x: its name is that of é in another form"
    ),
    "two forms of a link": (symlink(E2, "a") + symlink(E1, "a"), "é: its name is that of e\u0301 in another"),
    # --- kinds and numbers
    "an unknown kind": (file("a", type=b"Z"), "…: a: it has the unknown type b'Z'"),
    "a part of several volumes": (file("a", type=b"M"), "…: a: it has the unknown type b'M'"),
    "a negative size": (
        patched(file("a"), 124, b"\xff" * 12), "…: "
    ),
    "a negative owner": (patched(file("a"), 108, b"\xff" * 8), "a: its owner -1:0 is none"),
    "an owner of 2⁴⁰": (file("a", gid=1 << 40), "a: its owner 0:1099511627776 is none"),
    # --- bombs
    "a file of 8 EiB": (file("a", size=BIG), "a: the image has more than 1,048,576 bytes"),
    "more bytes than the limit": (
        file("a", ZEROS[: 1 << 19]) + file("b", ZEROS[: 1 << 20]), "b: the image has more than 1,048,576"
    ),
    "more names than the limit": (
        b"".join(file(f"{n}", b"") for n in range(101)), "100: the image has more than 100 names"
    ),
    "more implied directories than the limit": (
        file("d/" * 101 + "x"), "d/" * 101 + "x: the image has more than 100 names"
    ),
    "a directory again and again": (directory("a") * 201, "…: it has more than 200 members"),
    "a sparse file of 8 EiB": (
        old_sparse("a", BIG, [(0, 1)]), "a: the image has more than 1,048,576 bytes"
    ),
    "a sparse file of too many zeros": (
        old_sparse("a", 1 << 20, [(0, 1)]), "a: it is a sparse file of 1,048,576 bytes"
    ),
    "a sparse file of a pax header": (
        pax(
            file("a", b"1\n0\n1\n".ljust(BLOCK, b"\0") + b"x"), GNU__sparse__major=b"1",
            GNU__sparse__minor=b"0", GNU__sparse__name=b"a", GNU__sparse__realsize=b"999999",
        ),
        "a: it is a sparse file of 999,999 bytes",
    ),
    "a sparse file with parts over another": (
        old_sparse("a", 99, [(0, 9), (3, 9)]), "…: a: its map of a sparse file is wrong"
    ),
    "a sparse file with a part before the first": (
        old_sparse("a", 99, [(-9, 9), (0, 1)]), "…: a: its map of a sparse file is wrong"
    ),
    "a sparse file with parts behind its end": (
        old_sparse("a", 9, [(90, 9)]), "…: a: its map of a sparse file is wrong"
    ),
    "a name of 8 MiB": (long_name(1 << 23, ZEROS) + file("a"), "…: a member has more than 1 MiB of headers"),
    "a name of 4 GiB that is not there": (long_name(1 << 32), "…: a member has more than 1 MiB of headers"),
    "a pax header of 8 MiB": (
        pax(file("a"), comment=ZEROS), "…: a member has more than 1 MiB of headers"
    ),
    "long names nested as far as headers go": (
        long_name(2, b"a\0") * 1000 + file("a"), "…: it is nested too deeply"
    ),
}  # fmt: skip

SOUND = file("usr/bin/a") + END
# Whole files, and the message.
ARCHIVES = {
    "nothing": (b"", "…: it is truncated: it ends without the block of zeros"),
    "zeros": (END, "…: it is empty"),
    "no archive": (b"no archive" * 100, "…: it is damaged, or no tar archive"),
    "an end within a header": (SOUND[:300], "…: it is truncated: within a header"),
    "an end within a later header": (file("a") + SOUND[:300], "…: it is truncated: within a header"),
    "an end within a content": (
        file("a", b"x" * 5000)[:2000], "a: the archive ends within its content"
    ),
    "an end behind a member": (file("a"), "…: it is truncated: it ends without the block of zeros"),
    "an end behind a pax header": (pax(b"", path=b"a") + END, "…: it is damaged, or no tar"),
    "a damaged later header": (
        file("a") + b"\x01" + SOUND[1:], "…: it is damaged, or no tar archive (bad checksum)"
    ),
    "a gzip file that is truncated": (gzip.compress(SOUND)[:-9], "…: it is truncated"),
    "a bzip2 file that is truncated": (bz2.compress(SOUND)[:-9], "…: it is truncated"),
    "an xz file that is truncated": (lzma.compress(SOUND)[:-9], "…: it is truncated"),
    "a zstd file that is truncated": (zstd(SOUND)[:-5], "…: it is damaged ("),
    "a gzip file that is damaged": (
        gzip.compress(SOUND)[:-8] + bytes(8), "…: it is damaged (Error -3 while decompressing"
    ),
    "an xz file that is damaged": (
        lzma.compress(SOUND)[:40] + bytes(20) + lzma.compress(SOUND)[60:], "…: it is damaged ("
    ),
    "a gzip bomb": (gzip.compress(ZEROS), "…: it unpacks to more than 200 times its size"),
    "a gzip bomb of a file": (
        gzip.compress(file("a", ZEROS[: 1 << 20]) + END), "…: it unpacks to more than 200 times its size"
    ),
    "a bzip2 bomb of a file": (
        bz2.compress(file("a", ZEROS[: 1 << 20]) + END), "…: it unpacks to more than 200 times its size"
    ),
    "an xz bomb of a file": (
        lzma.compress(file("a", ZEROS[: 1 << 20]) + END), "…: it unpacks to more than 200 times its size"
    ),
    "a zstd bomb of a file": (
        zstd(file("a", ZEROS[: 1 << 20]) + END), "…: it unpacks to more than 200 times its size"
    ),
    "an xz file that needs 1.5 GiB": (
        lzma.compress(SOUND, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 3 << 29}]),
        "…: it is damaged (Memory usage limit exceeded)",
    ),
    "a squashfs that is none": (b"hsqs" + bytes(200), "…: it is damaged ("),
    # --- layouts
    "a layer with another digest": (
        archive({
            **oci_files([SOUND], descriptors=[{"digest": digest(b"")}]),
            f"blobs/sha256/{digest(b'')[7:]}": SOUND,
        }),
        "…: layer 1: it is damaged: its digest is not sha256:e3b0",
    ),
    "a layer with another content": (
        archive(oci_files([SOUND], diff_ids=[digest(b"")])), "…: layer 1: it is damaged: the digest of"
    ),
    "a layer without a digest": (archive(oci_files([SOUND], diff_ids=["x"])), "…: x is no SHA-256"),
    "more layers than digests": (
        archive(oci_files([SOUND], diff_ids=[digest(b"")] * 2)), "…: it has 1 layers, and 2 digests"
    ),
    "a layout without an index": (archive({"oci-layout": b"{}"}), "…: its manifest.json cannot be read"),
    "an index without an image": (
        archive(oci_files([SOUND], manifests=lambda _: [])), "…: it has 0 images for this machine"
    ),
    "an index of indexes": (
        archive(oci_files([SOUND]) | {"index.json": b'{"manifests": [' * 300000}), "…: "
    ),
    "a layer of docker's that is elsewhere": (
        archive(docker_files([SOUND], ["../../etc/passwd"])), "…: ../../etc/passwd is no file of such"
    ),
    "a layer that hides the directory above": (
        archive(oci_files([file(".wh...") + SOUND])), "…: layer 1: .wh...: it is a whiteout of no name"
    ),
    "a layer below the link of another": (
        archive(oci_files([symlink("a", "/tmp") + END, file("a/x") + END])),
        "…: layer 2: a/x: it is below the symbolic link a",
    ),
    "a layer with a hard link to what it hides": (
        archive(oci_files([file("a") + END, file(".wh.a") + link("b", "a") + END])),
        "…: layer 2: b: it is a hard link to no file",
    ),
    "a layer that hides a name twice": (
        archive(oci_files([file("a") + END, file(".wh.a") * 2 + END])),
        "…: layer 2: .wh.a: its name is in the archive twice",
    ),
    "a layout with an absolute name": (
        file("oci-layout") + file("/etc/passwd") + END, "/etc/passwd: its name is absolute"
    ),
}  # fmt: skip


@pytest.mark.parametrize("summary", [*MEMBERS, *ARCHIVES])
def test_hostile_archives_are_refused(summary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the store, and everything outside of it, from an archive that somebody else made."""
    monkeypatch.setattr(tree, "ALWAYS", ALWAYS)
    if summary in MEMBERS:
        members, expected = MEMBERS[summary]
        data = members + END
    else:
        data, expected = ARCHIVES[summary]
    (tmp_path / "outside").mkdir()
    source = tmp_path / "outside" / "image.tar"
    source.write_bytes(data)
    before = state_of(tmp_path / "outside")
    with pytest.raises(ImageError) as refused:
        import_image(source, "i", store=str(tmp_path / "store"), limits=LIMITS)
    wanted = f"{source}{expected[1:]}" if expected.startswith("…") else f"{source}: {expected}"
    assert str(refused.value.problems[0]).startswith(wanted)
    assert "nothing was imported" in str(refused.value)
    assert os.listdir(tmp_path / "store") == []
    assert state_of(tmp_path / "outside") == before


def test_there_are_eighty() -> None:
    """Protects the table: a row that is lost shows."""
    assert len(MEMBERS) + len(ARCHIVES) >= 80
