"""What a build put out: snapshots of any directory, the facts in them, and what differs between two."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.audit import outputs
from pkgjail.audit.differences import Difference, compare, find_noise
from pkgjail.audit.facts import read_facts
from pkgjail.audit.outputs import OutputFile, Outputs, take_outputs
from tests.elf_files import NEEDED, dynamic, elf_file

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_LOG = """\
This file contains any messages produced by compilers while running configure.
configure:2345: checking for zlib.h
configure:2345: gcc -c  conftest.c >&5
configure:2345: result: yes
configure:2400: checking whether to be nice
configure:2401: checking for gcc
configure:2402: result: gcc
configure:2403: result: lost
configure:2404: checking for gcc
configure:2405: result: gcc2
## ---------------- ##
## Cache variables. ##
## ---------------- ##

ac_cv_header_zlib_h=yes
## ----------------- ##
## Output variables. ##
## ----------------- ##

LIBS='-lz '
## ----------- ##
## confdefs.h. ##
## ----------- ##

NO=variable
"""
FACTS = [
    (
        "sub/config.log",
        CONFIG_LOG,
        {
            ("test", "checking for zlib.h"): "yes",
            ("test", "checking for gcc"): "gcc",
            ("test", "checking for gcc (2)"): "gcc2",
            ("variable", "ac_cv_header_zlib_h"): "yes",
            ("variable", "LIBS"): "-lz",
        },
    ),
    (
        "config.h",
        "/* by */\n#define HAVE_ZLIB_H 1\n#  define PLAIN\n/* #undef HAVE_X */\n#define MAX(a, b) (a)\n",
        {
            ("define", "HAVE_ZLIB_H"): "#define HAVE_ZLIB_H 1",
            ("define", "PLAIN"): "#define PLAIN",
            ("define", "HAVE_X"): "#undef HAVE_X",
            ("define", "MAX"): "#define MAX (a)",
        },
    ),
    (
        "b/CMakeCache.txt",
        '# Cache\n//Path\nZLIB_LIBRARY:FILEPATH=/usr/lib/libz.so\nHAVE_X:INTERNAL=\n"a:b":STRING=c=d\n',
        {
            ("cmake", "ZLIB_LIBRARY"): "/usr/lib/libz.so",
            ("cmake", "HAVE_X"): "",
            ("cmake", "a:b"): "c=d",
        },
    ),
    (
        "b/meson-info/intro-dependencies.json",
        json.dumps([{"name": "zlib", "version": "1.2", "link_args": ["-lz"]}, {"version": "0"}]),
        {
            ("meson", "zlib.name"): "zlib",
            ("meson", "zlib.version"): "1.2",
            ("meson", "zlib.link_args"): '["-lz"]',
            ("meson", "1.version"): "0",
        },
    ),
    (
        "b/CMakeFiles/CMakeOutput.log",
        "Determining if the include file zlib.h exists passed with the following output:\nx\n",
        {("test", "Determining if the include file zlib.h exists"): "passed"},
    ),
    ("other.h", "#define X 1\n", {}),
]


@pytest.mark.parametrize(("name", "text", "facts"), FACTS, ids=[row[0] for row in FACTS])
def test_facts(name: str, text: str, facts: dict[tuple[str, str], str]) -> None:
    """Each kind of file has the facts that its format gives it, and no others."""
    assert read_facts(name.encode(), text.encode()) == facts


@pytest.mark.parametrize("name", [row[0] for row in FACTS])
@given(text=st.binary(max_size=200) | st.text('#:=" {}[]nameV1\n', max_size=200).map(str.encode))
def test_any_bytes(name: str, text: bytes) -> None:
    """Any content is read without an error."""
    assert all(isinstance(value, str) for value in read_facts(name.encode(), text).values())


def test_long_and_deep_files() -> None:
    """Huge names, values, files and nesting are bounded, and a change in the middle still counts."""
    long = "x" * 100_000
    one, other = (read_facts(b"config.h", f"#define A {text}".encode()) for text in (long, f"{long}y{long}"))
    assert one != other
    assert max(map(len, (*one.values(), *other.values()))) < 300
    many = read_facts(b"config.h", b"".join(b"#define A%d\n" % number for number in range(60_000)))
    assert len(many) == 50_000
    deep = b"meson-info/intro-targets.json"
    assert read_facts(deep, b"[" * 500_000 + b"]" * 500_000) == {}
    assert read_facts(deep, b'{"a":' * 3000 + b"1" + b"}" * 3000) == {}
    assert read_facts(deep, b'{"n": ' + b"9" * 5000 + b"}") == {}


def _library(*needed: bytes) -> bytes:
    return elf_file([dynamic(1, [(NEEDED, name) for name in needed])])


def test_a_hostile_directory(tmp_path: Path) -> None:
    """Names of any bytes, FIFOs, sockets, loops and huge files: none blocks, fails or is followed."""
    top = os.fsencode(tmp_path / "top")
    os.makedirs(top + b"/d\xff\n/e")
    os.mkfifo(top + b"/fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(top + b"/socket")
    os.symlink(b".", top + b"/loop")
    os.symlink(b"/dev/zero", top + b"/zero")
    for name, size in ((b"huge", 1 << 43), (b"config.log", 1 << 40)):
        with open(top + b"/" + name, "wb") as file:
            file.truncate(size)
            file.seek(size - 1)
            file.write(b"z")
    (tmp_path / "top/cut").write_bytes(b"\x7fELF")
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(30):  # deeper than a path can be
        os.mkdir(b"n" * 250, dir_fd=descriptor)
        inner = os.open(b"n" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    began = time.monotonic()
    found = take_outputs(top, 3)
    assert time.monotonic() - began < 60
    files = {path: file for path, file in found.files.items() if not path.startswith(b"nn")}
    assert {path: file.kind for path, file in files.items()} == {
        b"config.log": "regular",
        b"cut": "regular",
        b"d\xff\n": "directory",
        b"d\xff\n/e": "directory",
        b"fifo": "special",
        b"huge": "regular",
        b"loop": "symlink",
        b"socket": "special",
        b"zero": "symlink",
    }
    assert files[b"huge"].sha256.startswith("ends:")
    assert (files[b"loop"].target, found.status, found.left_out) == (b".", 3, 1)
    with open(top + b"/huge", "r+b") as changing:
        changing.seek((1 << 43) - 2)
        changing.write(b"y")
    changed = compare(found, take_outputs(top, 3))
    assert [(each.kind, each.file) for each in changed.differences] == [("bytes", b"huge")]


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or directory that this user may not read is there, without content; root reads everything."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "closed").mkdir()
    really = os.open

    def opened(path: bytes, flags: int, *, dir_fd: int | None = None) -> int:
        if path in {b"file", b"closed"}:
            raise PermissionError(path)
        return really(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", opened)
    found = take_outputs(os.fsencode(tmp_path), 0)
    assert (found.files[b"file"].sha256, found.left_out) == ("unreadable", 1)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limits, names are counted and facts left out."""
    for number in range(10):
        (tmp_path / f"{number}config.h").write_text("#define A 1\n")
    monkeypatch.setattr(outputs, "_MOST_NAMES", 4)
    monkeypatch.setattr(outputs, "_MOST_FACTS", 2)
    found = take_outputs(os.fsencode(tmp_path), 0)
    assert (len(found.files), found.left_out) == (4, 6)
    assert [len(file.facts) for file in found.files.values()] == [1, 1, 0, 0]


def test_no_directory(tmp_path: Path) -> None:
    """A build that made no directory, or a file or link in its place, put out nothing."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("none", "file", "link"):
        assert take_outputs(os.fsencode(tmp_path / name), 0).files == {}


def _at(place: Path, status: int = 0, **files: bytes) -> Outputs:
    """Take the outputs of a directory with these files."""
    place.mkdir()
    for name, content in files.items():
        (place / name.replace("_", ".")).write_bytes(content)
    return take_outputs(os.fsencode(place), status)


def test_the_most_telling_first(tmp_path: Path) -> None:
    """The status, then NEEDED, config.h, configure's tests, variables, names, and bytes; no text of logs."""
    log = CONFIG_LOG.replace("result: yes", "result: no").replace("-lz", "-lx") + "temporary\n"
    old = _at(
        tmp_path / "a", 0, config_log=CONFIG_LOG.encode(), config_h=b"#define A 1", x=_library(b"libz.so.1")
    )
    new = _at(tmp_path / "b", 2, config_log=log.encode(), config_h=b"/* #undef A */", x=_library(), new=b"")
    assert compare(old, new).differences[:4] == (
        Difference("status", b"", "", "0", "2"),
        Difference("needed", b"x", "libz.so.1", "needed", ""),
        Difference("define", b"config.h", "A", "#define A 1", "#undef A"),
        Difference("test", b"config.log", "checking for zlib.h", "yes", "no"),
    )
    rest = [(each.kind, each.file) for each in compare(old, new).differences[4:]]
    assert rest == [
        ("variable", b"config.log"),
        ("name", b"new"),
        ("bytes", b"config.h"),
        ("bytes", b"x"),
    ]


def test_noise_is_left_out(tmp_path: Path) -> None:
    """A difference between two equal runs does not count; the rest of the same file still does."""
    one = _at(tmp_path / "a", x=_library(b"a") + b"10:00", tmp4f_o=b"", same=b"1")
    two = _at(tmp_path / "b", x=_library(b"a") + b"10:01", tmp3z_o=b"", same=b"1")
    noise = find_noise(one, two)
    same = _at(tmp_path / "c", x=_library(b"a") + b"10:02", tmp88_o=b"", same=b"1")
    other = _at(tmp_path / "d", x=_library(b"a", b"b") + b"10:03", tmp99_o=b"", tmp99_c=b"", same=b"2")
    assert compare(one, same, noise).is_same
    assert [(each.kind, each.file, each.name) for each in compare(one, other, noise).differences] == [
        ("needed", b"x", "b"),
        ("name", b"tmp99.c", ""),
        ("bytes", b"same", ""),
    ]


def test_many_differences() -> None:
    """A comparison is bounded, and says how many differences it leaves out."""
    one = Outputs(status=0, files={})
    other = Outputs(status=1, files={b"%d" % number: OutputFile(kind="directory") for number in range(1500)})
    found = compare(one, other)
    assert (len(found.differences), found.more, found.differences[0].kind) == (1000, 501, "status")


FILES = st.dictionaries(
    st.sampled_from([b"a", b"b", b"c1", b"c2", b"config.log"]),
    st.builds(
        OutputFile,
        kind=st.sampled_from(["regular", "directory", "symlink"]),
        mode=st.sampled_from([0o644, 0o755]),
        sha256=st.sampled_from(["", "1", "2"]),
        target=st.sampled_from([b"", b"t"]),
        facts=st.dictionaries(
            st.sampled_from([("needed", "z"), ("define", "Z")]), st.sampled_from(["1", "2"])
        ),
    ),
)
OUTPUTS = st.builds(Outputs, status=st.integers(0, 1), files=FILES)


@given(OUTPUTS, OUTPUTS, OUTPUTS)
def test_properties(one: Outputs, two: Outputs, three: Outputs) -> None:
    """Nothing differs from itself, nor by what is noise; a comparison turned round has the values turned."""
    assert compare(one, one).is_same
    noise = find_noise(one, two)
    assert compare(one, two, noise).is_same
    assert compare(two, one, noise).is_same
    turned = {each._replace(old=each.new, new=each.old) for each in compare(three, one, noise).differences}
    assert turned == set(compare(one, three, noise).differences)
