"""Repositories' metadata that somebody else made: bombs, entities, odd archives end in one error, soon."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import subprocess
import sys
import tarfile
import zlib
from typing import TYPE_CHECKING

import pytest

from pkgjail.core import unpacking
from pkgjail.core.unpacking import MissingProgramError, UnpackError, unpack
from tests.bounded import pkgjail

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# By the distribution's own Python, which has libsolv's binding.
pytestmark = pytest.mark.gate

MIB = 1 << 20
LIST = '[packages]\ndebian = ["a"]\nrhel = ["a"]\narch = ["a"]\n[options]\nessential = false\n'


def said(tmp_path: Path, source: str, *words: str) -> tuple[int, str]:
    """The status of a plan from `source`, and what is said, within the bounds."""
    (tmp_path / "w.toml").write_text(LIST)
    machine = "amd64" if source.startswith("debian:") else "x86_64"
    options = ["--available", source, "--arch", machine, "-o", str(tmp_path / "plan"), *words]
    done = pkgjail("resolve", tmp_path / "w.toml", *options)
    assert not done.stderr or len(done.stderr) < 20_000
    return done.returncode, done.stderr


# --- unpacking -----------------------------------------------------------------------------------------


def gzip_bomb(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(b"a" * MIB) for _ in range(mebibytes)]) + packer.flush()


def bzip2_bomb(mebibytes: int) -> bytes:
    packer = bz2.BZ2Compressor()
    return b"".join([packer.compress(b"a" * MIB) for _ in range(mebibytes)]) + packer.flush()


def xz_bomb(mebibytes: int) -> bytes:
    packer = lzma.LZMACompressor(preset=0)
    return b"".join([packer.compress(b"a" * MIB) for _ in range(mebibytes)]) + packer.flush()


def program_bomb(name: str, mebibytes: int) -> bytes:
    with subprocess.Popen([name, "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        return process.communicate(bytes(MIB * mebibytes))[0]


BOMBS = {
    "gz": lambda: gzip_bomb(1000),
    "bz2": lambda: bzip2_bomb(300),
    "xz": lambda: xz_bomb(300),
    "zstd": lambda: program_bomb("zstd", 600),
    "lz4": lambda: program_bomb("lz4", 600),
}


@pytest.mark.gate
@pytest.mark.parametrize("packed", BOMBS)
def test_bombs(packed: str, tmp_path: Path) -> None:
    """Protects memory from what unpacks to a thousand times its size, by whichever program."""
    (tmp_path / "Packages").write_bytes(BOMBS[packed]())
    status, words = said(tmp_path, f"debian:{tmp_path}/Packages")
    assert status == 3
    assert f"{tmp_path}/Packages: it unpacks to more than " in words


TEXT = b"Package: a\nVersion: 1\nArchitecture: amd64\n\n"
PACKED = {
    "gz": gzip.compress(TEXT),
    "gz of two": gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]),
    "bz2": bz2.compress(TEXT),
    "bz2 of two": bz2.compress(TEXT[:9]) + bz2.compress(TEXT[9:]),
    "xz": lzma.compress(TEXT),
    "xz of two, padded": lzma.compress(TEXT[:9]) + bytes(8) + lzma.compress(TEXT[9:]),
    "nothing known": TEXT,
}


@pytest.mark.parametrize("form", PACKED)
def test_what_is_packed_is_whole(form: str) -> None:
    """Protects what is unpacked from being cut at a stream's end or at a piece's."""
    assert unpack(PACKED[form], len(TEXT)) == TEXT


@pytest.mark.parametrize("form", [form for form in PACKED if form != "nothing known"])
def test_what_is_packed_is_bounded_and_cut_off(form: str) -> None:
    """Protects the bound from being one off, and damaged data from being taken for whole."""
    with pytest.raises(UnpackError, match="it unpacks to more than 0 MiB"):
        unpack(PACKED[form], len(TEXT) - 1)
    with pytest.raises(UnpackError, match="it is damaged"):
        unpack(PACKED[form][:-7], MIB)


def test_growth_is_bounded_beyond_the_first_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects a small file that unpacks to a few megabytes, and no others, from the bound on growth."""
    monkeypatch.setattr(unpacking, "ALWAYS", MIB)
    assert len(unpack(gzip_bomb(1), 10 * MIB)) == MIB
    with pytest.raises(UnpackError, match="it unpacks to more than 1 MiB"):
        unpack(gzip_bomb(2), 10 * MIB)


def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the message that names what to install."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingProgramError, match="zstd"):
        unpack(b"\x28\xb5\x2f\xfd", MIB)


# --- Debian --------------------------------------------------------------------------------------------

STANZA = "Package: a\nVersion: 1\nArchitecture: amd64\n"
FOLDED = "b|\n "
DEBIAN: dict[str, tuple[Callable[[], str], int, str]] = {
    "alternatives without end": (
        lambda: f"{STANZA}Depends: {'b|' * 100_000}c\n\n",
        3,
        ":1: this stanza has more than",
    ),
    "folded alternatives": (
        lambda: f"{STANZA}Depends: {FOLDED * 100_000}c\n\n",
        3,
        ":1: this stanza has more than",
    ),
    "a field a million times": (lambda: STANZA + "Essential: yes\n" * 1_000_000, 0, "planned: 1 packages"),
    "a line of megabytes": (
        lambda: f"Package: {'a' * 20_000_000}\nVersion: 1\nArchitecture: amd64\n\n",
        2,
        "'a' is not",
    ),
    "control bytes": (lambda: f"{STANZA}Depends: \x1b[2Jx\n\n", 1, "\\x1b[2Jx"),
    "no UTF-8": (lambda: f"{STANZA}Depends: \udcff\n\n", 1, "\\xff"),
    "numbers of thousands of digits": (
        lambda: f"{STANZA}Installed-Size: {'9' * 10_000}\nSize: -5\n\n",
        0,
        "planned",
    ),
    "a field twice": (lambda: f"{STANZA}Version: 2\n\n", 3, "does not have one field 'Version'"),
    "nothing": (lambda: "", 3, "it has packages for nothing"),
}


@pytest.mark.gate
@pytest.mark.parametrize("summary", DEBIAN)
def test_odd_packages_files(summary: str, tmp_path: Path) -> None:
    """Protects libsolv from what ends its process, and us from searches whose time grows with the square."""
    make, status, words = DEBIAN[summary]
    (tmp_path / "Packages").write_bytes(make().encode("utf-8", "surrogateescape"))
    found = said(tmp_path, f"debian:{tmp_path}/Packages")
    assert found[0] == status, found
    assert words in found[1] + ("planned: 1 packages" if status == 0 else "")


def test_contents_are_read_line_by_line(tmp_path: Path) -> None:
    """Protects memory from Contents files, whose lines are many."""
    (tmp_path / "Packages").write_text(f"{STANZA}\n")
    lines = b"".join(b"usr/share/%d\tadmin/b\n" % number for number in range(4_000_000))
    (tmp_path / "Contents-amd64.gz").write_bytes(gzip.compress(lines + b"usr/y a/a\n"))
    status, words = said(tmp_path, f"debian:{tmp_path}", "--contents")
    assert status == 0, words
    assert '"/usr/y"' in (tmp_path / "plan").read_text()


# --- rpm-md --------------------------------------------------------------------------------------------

NAMES = 'xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm"'
ENTITIES = '<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(12)
)


def a_package(inner: str = "") -> str:
    """One package of primary.xml with `inner` in its format."""
    return (
        '<package type="rpm"><name>a</name><arch>x86_64</arch><version epoch="0" ver="1" rel="1"/>'
        f'<checksum type="sha256" pkgid="YES">{"0" * 64}</checksum><format>{inner}</format></package>'
    )


def requires(name: str) -> str:
    """A requirement in primary.xml."""
    return f'<rpm:requires><rpm:entry name="{name}"/></rpm:requires>'


def primary(body: str, count: object = 1) -> bytes:
    """A whole primary.xml."""
    return f'<?xml version="1.0"?><metadata {NAMES} packages="{count}">{body}</metadata>'.encode()


def index(data: bytes, algorithm: str = "sha256", href: str = "repodata/p.xml.gz") -> bytes:
    """A repomd.xml for the packed primary.xml `data`."""
    known = algorithm if algorithm in {"sha256", "md5", "sha512"} else "sha1"
    digest = hashlib.new(known, data).hexdigest()
    return (
        '<repomd xmlns="http://linux.duke.edu/metadata/repo"><data type="primary">'
        f'<checksum type="{algorithm}">{digest}</checksum><location href="{href}"/></data></repomd>'
    ).encode()


PRIMARIES: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "sound": (lambda: primary(a_package()), 0, ""),
    "entities": (
        lambda: f"{ENTITIES}]>".encode() + primary("&m;" + a_package()),
        3,
        "it has a document type",
    ),
    "UTF-16": (lambda: primary(a_package()).decode().encode("utf-16"), 3, "it has a byte 0"),
    "parentheses": (
        lambda: primary(a_package(requires("(" * 100_000))),
        3,
        "a requirement of more than 16,384",
    ),
    "parentheses as entities": (
        lambda: primary(a_package(requires("&#40;" * 100_000))),
        3,
        "a requirement of",
    ),
    "nested as deep as may be": (
        lambda: primary(a_package(requires(f"{'(a if ' * 1500}b{')' * 1500}"))),
        0,
        "",
    ),
    "a long tag": (lambda: primary(a_package(requires("a" * 9_000_000))), 3, "it has a tag of more than"),
    "a long comment": (
        lambda: primary(f"<!--{'<metadata >' * 500_000}-->{a_package()}"),
        3,
        "comments that are",
    ),
    "many remarks": (lambda: primary("<?a?>" * 500_000 + a_package()), 3, "comments that are"),
    "tags in CDATA": (lambda: primary(a_package(f"<x><![CDATA[{'<file ' * 9000}]]></x>")), 0, ""),
    "deep": (lambda: primary("<a>" * 500_000), 3, "mismatched tag"),
    "a count of thousands of digits": (lambda: primary(a_package(), "9" * 10_000), 3, "it says no number"),
}


@pytest.mark.gate
@pytest.mark.parametrize("summary", PRIMARIES)
def test_odd_primary_files(summary: str, tmp_path: Path) -> None:
    """Protects from entities, from what libsolv's parsers take without end for, and from its recursion."""
    make, status, words = PRIMARIES[summary]
    packed = gzip.compress(make())
    (tmp_path / "repodata").mkdir()
    (tmp_path / "repodata/p.xml.gz").write_bytes(packed)
    (tmp_path / "repodata/repomd.xml").write_bytes(index(packed))
    found = said(tmp_path, f"rhel:{tmp_path}")
    assert found[0] == status, found
    assert words in found[1]


PACKED_XML = gzip.compress(primary(a_package()), mtime=0)
INDICES: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "sha is sha1": (lambda: index(PACKED_XML, "sha"), 0, ""),
    "a digest of any length": (lambda: index(PACKED_XML, "shake_128"), 3, "'shake_128' is not a digest"),
    "no digest": (lambda: index(PACKED_XML, ""), 3, "'' is not a digest of metadata"),
    "a digest with a long name": (lambda: index(PACKED_XML, "x" * 100_000), 3, " … "),
    "entities": (f"{ENTITIES}]><repomd>&m;</repomd>".encode, 3, "it has a document type"),
    "a file of the host": (
        lambda: b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><repomd>&e;</repomd>',
        3,
        "a document type",
    ),
    "deep": (lambda: b"<a>" * 200_000, 3, "not well-formed XML"),
    "large": (lambda: b"<a/>" * 500_000, 3, "it has more than 1 MiB"),
    "above the repository": (lambda: index(PACKED_XML, href="../../x"), 3, "no place below the repository"),
    "a long way": (lambda: index(PACKED_XML, href="a/" * 5000), 3, "File name too long"),
}


@pytest.mark.gate
@pytest.mark.parametrize("summary", INDICES)
def test_odd_indices(summary: str, tmp_path: Path) -> None:
    """Protects from odd types of checksums, entities, and names that lead elsewhere."""
    make, status, words = INDICES[summary]
    (tmp_path / "repodata").mkdir()
    (tmp_path / "repodata/p.xml.gz").write_bytes(PACKED_XML)
    (tmp_path / "repodata/repomd.xml").write_bytes(make())
    found = said(tmp_path, f"rhel:{tmp_path}")
    assert found[0] == status, found
    assert words in found[1]


def test_a_part_that_is_a_fifo(tmp_path: Path) -> None:
    """Protects from waiting for a file that repomd.xml names."""
    (tmp_path / "repodata").mkdir()
    os.mkfifo(tmp_path / "repodata/p.xml.gz")
    (tmp_path / "repodata/repomd.xml").write_bytes(index(b""))
    status, words = said(tmp_path, f"rhel:{tmp_path}")
    assert status == 3
    assert "p.xml.gz: it is a FIFO" in words


# --- pacman --------------------------------------------------------------------------------------------

DESC = b"%NAME%\na\n\n%VERSION%\n1-1\n\n%ARCH%\nx86_64\n\n"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **pax: str) -> tarfile.TarInfo:
    """A member of an archive, with headers of pax(1)."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.pax_headers = (
        kind,
        link,
        {name.replace("__", "."): v for name, v in pax.items()},
    )
    return made


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """An archive of these."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for info, data in members:
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sparse() -> tarfile.TarInfo:
    """A member that says that it has exabytes, nearly all of them holes."""
    name = {"GNU.sparse.name": "a-1/desc", "GNU.sparse.realsize": str(1 << 62)}
    made = member("a-1/desc")
    made.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", **name}
    return made


ARCHIVES: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "sound": (lambda: archive((member("a-1/desc"), DESC)), 0, ""),
    "a link to itself": (
        lambda: archive((member("a-1/desc", tarfile.SYMTYPE, "desc"), b"")),
        3,
        "for nothing",
    ),
    "a hard link to itself": (
        lambda: archive((member("a-1/desc", tarfile.LNKTYPE, "a-1/desc"), b"")),
        3,
        "for nothing",
    ),
    "a FIFO": (lambda: archive((member("a-1/desc", tarfile.FIFOTYPE), b"")), 3, "for nothing"),
    "a size of thousands of digits": (
        lambda: archive((member("a-1/desc", size="9" * 10_000), DESC)),
        3,
        "not have one %NAME%",
    ),
    "a sparse file of exabytes": (
        lambda: archive((sparse(), b"1\n0\n1\n" + bytes(506) + DESC)),
        3,
        "for nothing",
    ),
    "members without end": (
        lambda: archive(*((member(f"x{n}"), b"") for n in range(100_001))),
        3,
        "100000 members",
    ),
    "no archive": (
        lambda: os.urandom(2000).replace(b"\0", b"x") + bytes(1024),
        3,
        "it is not a complete database",
    ),
    "nothing": (lambda: b"", 3, "it is not a complete database"),
}


@pytest.mark.gate
@pytest.mark.parametrize("summary", ARCHIVES)
def test_odd_archives(summary: str, tmp_path: Path) -> None:
    """Protects from members that are no files, and from those that claim any size."""
    make, status, words = ARCHIVES[summary]
    (tmp_path / "x.db").write_bytes(make())
    found = said(tmp_path, f"arch:{tmp_path}/x.db")
    assert found[0] == status, found
    assert words in found[1]


# --- kinds of files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["debian", "rhel", "arch"])
def test_metadata_that_is_no_file(family: str, tmp_path: Path) -> None:
    """Protects from waiting for a FIFO, and from devices and holes."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 20 << 30)
    for name, words in (
        ("fifo", "it is a FIFO"),
        ("holes", "it has more than"),
        ("/dev/zero", "character device"),
    ):
        status, found = said(tmp_path, f"{family}:{tmp_path / name}")
        assert status == 3
        assert words in found or (family == "rhel" and "it has no repodata/repomd.xml" in found)


def test_metadata_from_a_shell(tmp_path: Path) -> None:
    """Protects `<(…)` as the name of a Packages file."""
    (tmp_path / "Packages").write_text(f"{STANZA}\n")
    (tmp_path / "w.toml").write_text(LIST)
    command = (
        f"{sys.executable} -m pkgjail resolve w.toml --available debian:<(cat Packages) --arch amd64 -o plan"
    )
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
