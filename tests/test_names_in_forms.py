"""Names of any bytes in each form: read back by another program's parser, or by one of this file's own."""

from __future__ import annotations

import codecs
import ctypes
import html
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pkgjail.core.model import FileEntry, is_word
from pkgjail.core.text import escape, printable, raw_path, shell_quote, text_path
from pkgjail.export import export_manifest
from pkgjail.manifest import write_manifest
from pkgjail.review.graph import Edge, GraphView, Node
from pkgjail.review.graph_formats import as_graphml, as_json, dot, mermaid
from tests.manifest_strategies import NAMES, TEXTS, manifests
from tests.manifest_text import manifest_of

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest

# Control characters of one and two bytes, what looks like an escape of one, entities, halves of characters.
HOSTILE = (
    "\x1b]0;x\x07", "\\x1b", "a\nb", "a\\nb", "&#27;&amp;", "#27;<br/>", "\x7f\x9b\u2028\u202e",
    "\udcff\ud800", "\ufffe\uffff", "😀\U000e0001", '"]}--', "'$(x)'", "\\", "a b", "\r", "]]>",
)  # fmt: skip
SETTINGS = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)


def unescape(text: str) -> str:
    """As docs/export.md and docs/review.md say that what `escaped` wrote is read."""
    return codecs.decode(text.encode("ascii", "backslashreplace"), "unicode_escape")


def _shape(names: list[str]) -> GraphView:
    """Return a chain of rules with these names; each requires the next by its name."""
    nodes = tuple(
        Node(name=name, kind="rule", version="", members=(name, "x"), bytes=0, cost=0) for name in names
    )
    edges = tuple(
        Edge(source=one, target=other, kind="Depends", text=one) for one, other in zip(names, names[1:])
    )
    return GraphView(nodes=nodes, edges=edges)


@pytest.mark.parametrize(
    "word",
    ["FILLER", "VARIATION SELECTOR", "GRAPHEME JOINER", "VOWEL INHERENT", "PATTERN BLANK", "NULL NOTEHEAD"],
)
def test_what_is_not_seen_is_shown(word: str) -> None:
    """Protects a reviewer from a second `gcc` that looks like the first. Unicode names the characters."""
    seen = ("GAP FILLER", "LINE FILLER", "SPACE FILLER")  # marks of scripts, with a form of their own
    named = ((chr(number), unicodedata.name(chr(number), "")) for number in range(sys.maxunicode))
    found = [each for each, name in named if word in name and not any(one in name for one in seen)]
    assert found
    for character in found:
        name = f"/usr/bin/g{character}cc"
        for written in (printable(name), escape(name), shell_quote(raw_path(name))):
            assert written.isascii(), written
        assert not is_word(name)
    assert (printable("gcc  "), printable(b"a b"), printable(" " * 9000)[:8]) == (
        "gcc\\x20\\x20",
        "a b",
        "\\x20\\x20",
    )


several = st.lists(TEXTS.filter(bool), min_size=1, max_size=4, unique=True)


@given(TEXTS)
@example("".join(HOSTILE))
@SETTINGS
def test_what_is_escaped_can_be_had_back(text: str) -> None:
    """And nothing in it acts on a terminal, or is refused by a reader of XML."""
    assert escape(text).isprintable()
    assert unescape(escape(text)) == text
    assert printable(text).isprintable()


@given(several)
@example(list(HOSTILE))
@SETTINGS
def test_graphml(names: list[str]) -> None:
    """An XML parser that shares no code with ours gives every name, member and requirement back."""
    space = "{http://graphml.graphdrawing.org/xmlns}"
    tree = ET.fromstring(as_graphml(_shape(names)))  # noqa: S314 - our own
    keys = {key.get("attr.name"): key.get("id") for key in tree.iter(f"{space}key")}

    def value(element: ET.Element, name: str) -> str:
        return next(d.text or "" for d in element.iter(f"{space}data") if d.get("key") == keys[name])

    nodes, edges = list(tree.iter(f"{space}node")), list(tree.iter(f"{space}edge"))
    assert [unescape(node.get("id", "")) for node in nodes] == names
    assert [list(map(unescape, value(node, "members").split(" "))) for node in nodes] == [
        [name, "x"] for name in names
    ]
    assert [(unescape(e.get("source", "")), unescape(value(e, "text"))) for e in edges] == [
        (name, name) for name in names[:-1]
    ]


@given(several)
@example(list(HOSTILE))
@SETTINGS
def test_mermaid_and_json(names: list[str]) -> None:
    """Labels of Mermaid by entities, with "#" for "&"; JSON by Python's parser."""
    labels = re.findall(r'^  n[0-9]+\[/"(.*)"/\]$', mermaid(_shape(names)), re.MULTILINE)
    read = [html.unescape(re.sub("#([0-9]+);", r"&#\1;", label.rpartition("<br/>")[0])) for label in labels]
    assert list(map(unescape, read)) == names
    assert [node["name"] for node in json.loads(as_json(_shape(names)))["nodes"]] == names


def test_graphviz_draws_what_was_named() -> None:
    """SVG is XML for any name; a title is the node's name as in DOT."""
    drawn = subprocess.run(
        ["dot", "-Tsvg"], input=dot(_shape(list(HOSTILE))).encode(), capture_output=True, check=True
    )
    tree = ET.fromstring(drawn.stdout)  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    groups = [one for one in tree.iter(f"{space}g") if one.get("class") == "node"]
    texts = [next(one.iter(f"{space}text")).text or "" for one in groups]
    assert sorted(" ".join(unescape(text).split()) for text in texts) == sorted(
        " ".join(name.split()) for name in HOSTILE
    )


@pytest.mark.slow
@given(manifests())
@SETTINGS
def test_sha256sums(manifest: Manifest) -> None:
    """By sha256sum(1): a line that begins with a backslash has escapes in its name."""
    wanted = [(entry.sha256, b"." + entry.path) for entry in manifest.files if entry.sha256]
    if not wanted:
        return
    signs = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}
    found = []
    for line in export_manifest(manifest, "sha256sums").split(b"\n")[:-1]:
        digest, _, name = line.lstrip(b"\\").partition(b"  ")
        if line.startswith(b"\\"):
            name = re.sub(rb"\\[\\nr]", lambda match: signs[match[0]], name)
        found.append((digest.decode(), name))
    assert found == wanted


def test_fstab_by_mount_and_by_the_c_library(tmp_path: Path) -> None:
    """Both libmount (mount, findmnt) and getmntent(3), which systemd uses, read the same names."""
    names = [raw_path(text) for text in HOSTILE if "/" not in text and "\ud800" not in text]
    names += [b"\xff\xfe", b"#x", b"\t", bytes(range(1, 47)) + bytes(range(48, 256))]
    manifest = _files([b"/" + name for name in names])
    table = tmp_path / "fstab"
    table.write_bytes(export_manifest(manifest, "fstab", root=b"/r", at=b"/at"))
    wanted = {(b"/r" + entry.path, b"/at" + entry.path) for entry in manifest.files if entry.size is not None}
    assert wanted <= set(_by_the_c_library(table))
    command = ["findmnt", "--tab-file", str(table), "--raw", "--noheadings", "--output", "SOURCE,TARGET"]
    lines = subprocess.run(command, capture_output=True, check=True).stdout.splitlines()
    # --raw writes what is not printable as \xNN, blanks and backslashes too.
    read = {tuple(_raw(word) for word in line.split(b" ")) for line in lines}
    assert wanted <= read


def _raw(word: bytes) -> bytes:
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), word)


class _Mount(ctypes.Structure):
    _fields_ = (
        ("source", ctypes.c_char_p),
        ("target", ctypes.c_char_p),
        ("type", ctypes.c_char_p),
        ("options", ctypes.c_char_p),
        ("frequency", ctypes.c_int),
        ("pass", ctypes.c_int),
    )


def _by_the_c_library(table: Path) -> list[tuple[bytes, bytes]]:
    library = ctypes.CDLL(None)
    library.setmntent.restype = ctypes.c_void_p
    library.setmntent.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.getmntent.restype = ctypes.POINTER(_Mount)
    library.getmntent.argtypes = [ctypes.c_void_p]
    stream = library.setmntent(os.fsencode(table), b"r")
    found = []
    while entry := library.getmntent(stream):
        found.append((entry.contents.source, entry.contents.target))
    library.endmntent(ctypes.c_void_p(stream))
    return found


def _files(paths: list[bytes]) -> Manifest:
    manifest = manifest_of("a 1\n/x 1 of a")
    made = [
        FileEntry(path=path, kind="regular", mode=0o644, size=1, owners=("a:amd64",)) for path in set(paths)
    ]
    files = tuple(sorted((*manifest.files, *made), key=lambda entry: entry.path))
    return replace(manifest, files=files)


def test_a_word_of_the_shell() -> None:
    """A name that is printed to be copied is one word to bash, the same bytes."""
    names = [raw_path(text) for text in HOSTILE if "\ud800" not in text]
    names += [bytes([byte]) for byte in range(1, 256)] + [b"-n", b"*", b"a'b", b"~", b"\x1b'1"]
    words = " ".join(map(shell_quote, names))
    assert words.isprintable()
    printed = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, check=True
    ).stdout
    assert printed.split(b"\0")[:-1] == names


def _words_of_bash(line: str) -> list[bytes]:
    command = ["bash", "-c", f"printf '%s\\0' {line}"]
    return subprocess.run(command, capture_output=True, check=True).stdout.split(b"\0")[:-1]


@given(st.lists(NAMES, min_size=1, max_size=5))
@SETTINGS
def test_words_of_the_shell(names: list[bytes]) -> None:
    words = " ".join(map(shell_quote, names))
    printed = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, check=True
    ).stdout
    assert printed.split(b"\0")[:-1] == names


@pytest.mark.parametrize("form", ["bwrap", "sha256sums"])
def test_a_terminal_gets_no_control_characters(form: str, tmp_path: Path) -> None:
    """Output for a program that would act on a terminal is refused there, and goes through a pipe."""
    manifest = manifest_of("a 1\n/x\x1b]0;x\x07 1 #aa of a")
    write_manifest(manifest, tmp_path / "m.jsonl")
    name = str(tmp_path / "m.jsonl")
    command = [sys.executable, "-m", "pkgjail", "export", "--format", form, name]
    piped = subprocess.run(command, capture_output=True, check=True).stdout
    assert b"\x1b" in piped
    main, terminal = pty.openpty()
    ran = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, text=True, check=False)
    os.close(terminal)
    assert (ran.returncode, "it is a terminal" in ran.stderr) == (2, True)
    os.set_blocking(main, False)
    with pytest.raises(OSError, match=r"Input/output|unavailable"):  # nothing was written
        os.read(main, 1)
    os.close(main)


def test_where_something_was_written_is_told_on_one_line(tmp_path: Path) -> None:
    """By every verb that makes something: the name of it does nothing to a terminal, and can be copied."""
    place = tmp_path / "a\x1b]0;x\x07\n'b"
    place.mkdir()
    write_manifest(manifest_of("a 1\n/usr/"), place / "m")
    command = [sys.executable, "-m", "pkgjail"]
    for words in (
        ["resolve", "base", "--no-hash", "-o", str(place / "new")],
        ["report", str(place / "m"), "-o", str(place / "page")],
        ["build", str(place / "m"), str(place / "env")],
        ["remove", str(place / "env")],
    ):
        ran = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
        told = ran.stdout + ran.stderr
        assert all(line.isprintable() for line in told.splitlines())
        assert printable(text_path(os.fsencode(place))) in told
        if "with: " in told:
            copied = told.rpartition("with: ")[2].split("\n")[0].split(" ", 2)[2].removesuffix(" -- COMMAND")
            assert _words_of_bash(copied) == [os.fsencode(words[-1])]
