"""The manifest: one canonical form, written at one stroke, and nothing else is read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail import manifest as manifest_module
from pkgjail import model
from pkgjail.errors import InputError, ManifestError
from pkgjail.manifest import (
    build_manifest,
    dump_manifest,
    manifest_digest,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from pkgjail.model import (
    Closure,
    Dependency,
    Distribution,
    Dropped,
    FileEntry,
    FileSet,
    Header,
    Manifest,
    Missing,
    Package,
    Policy,
    Unmet,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

SHA = "0123456789abcdef" * 4


def directory(path: bytes, **more: Any) -> FileEntry:
    """A directory's entry."""
    return FileEntry(path=path, kind="directory", mode=0o755, **more)


def sample() -> Manifest:
    """A manifest with every kind of record and of file in it."""
    policy = Policy(whitelists=("spack",), blacklists=("docs",), packages=())
    closure = Closure(
        packages=(
            Package(name="mawk", version="1.3", architecture="amd64", size=255),
            Package(name="base-files", version="12", architecture="amd64", essential=True, protected=True),
        ),
        dependencies=(
            Dependency(source="spack.toml:7", target="mawk:amd64", kind="whitelist", text="awk"),
            Dependency(
                source="essential", target="base-files:amd64", kind="essential", text="Essential: yes"
            ),
            Dependency(source="base-files:amd64", target="mawk:amd64", kind="Pre-Depends", text="awk"),
        ),
        reasons={},
        unmet=(Unmet(source="mawk:amd64", kind="Depends", text="libc6", reason="libc6 is not installed"),),
    )
    files = FileSet(
        entries=(
            directory(b"/usr", owners=("base-files:amd64", "mawk:amd64")),
            directory(b"/etc", origin="parent"),
            directory(b"/usr/bin"),
            FileEntry(
                path=b"/usr/bin/mawk",
                kind="regular",
                mode=0o4755,
                size=3,
                sha256=SHA,
                owners=("mawk:amd64",),
            ),
            FileEntry(
                path=b"/usr/bin/awk",
                kind="symlink",
                mode=0o777,
                target=b"/etc/alternatives/awk",
                origin="alternative",
                detail="awk",
            ),
            FileEntry(path=b"/usr/bin/private", kind="regular", mode=0o600, size=9),
            FileEntry(path=b"/etc/passwd", kind="regular", mode=0o644, origin="entry", detail="pkgjail run"),
            FileEntry(path=b"/etc/l\xe9", kind="symlink", mode=0o777, target=b"\xff", origin="include"),
            FileEntry(path='/etc/é\n"\\\x01'.encode(), kind="regular", mode=0o644, size=0, origin="conffile"),
        ),
        dropped=(Dropped(path=b"/usr/share/doc/mawk", rule="docs.ignore:3 /usr/share/doc/"),),
        missing=(Missing(path=b"/usr/share/man/\xe9", reason="absent", owners=("mawk:amd64",)),),
    )
    return build_manifest(
        policy, f"sha256:{SHA}", Distribution(id="debian", version="12"), "amd64", closure, files
    )


SAMPLE = dump_manifest(sample())

SAMPLE_BODY = r"""
{"architecture":"amd64","blacklists":["docs"],"distribution":{"id":"debian","version":"12"},"essential":true,"kind":"header","policy":"sha256:SHA","recommends":false,"schema":1,"whitelists":["spack"]}
{"architecture":"amd64","essential":true,"key":"base-files:amd64","kind":"package","name":"base-files","protected":true,"size":0,"version":"12"}
{"architecture":"amd64","essential":false,"key":"mawk:amd64","kind":"package","name":"mawk","protected":false,"size":255,"version":"1.3"}
{"field":"Pre-Depends","kind":"dependency","source":"base-files:amd64","target":"mawk:amd64","text":"awk"}
{"field":"essential","kind":"dependency","source":"essential","target":"base-files:amd64","text":"Essential: yes"}
{"field":"whitelist","kind":"dependency","source":"spack.toml:7","target":"mawk:amd64","text":"awk"}
{"kind":"file","mode":"0755","origin":"parent","path":"/etc","type":"directory"}
{"kind":"file","mode":"0777","origin":"include","path":{"base64":"L2V0Yy9s6Q=="},"target":{"base64":"/w=="},"type":"symlink"}
{"detail":"pkgjail run","kind":"file","mode":"0644","origin":"entry","path":"/etc/passwd","type":"regular"}
{"kind":"file","mode":"0644","origin":"conffile","path":"/etc/é\n\"\\\u0001","size":0,"type":"regular"}
{"kind":"file","mode":"0755","origin":"package","owners":["base-files:amd64","mawk:amd64"],"path":"/usr","type":"directory"}
{"kind":"file","mode":"0755","origin":"package","path":"/usr/bin","type":"directory"}
{"detail":"awk","kind":"file","mode":"0777","origin":"alternative","path":"/usr/bin/awk","target":"/etc/alternatives/awk","type":"symlink"}
{"kind":"file","mode":"4755","origin":"package","owners":["mawk:amd64"],"path":"/usr/bin/mawk","sha256":"SHA","size":3,"type":"regular"}
{"kind":"file","mode":"0600","origin":"package","path":"/usr/bin/private","size":9,"type":"regular"}
{"kind":"dropped","path":"/usr/share/doc/mawk","rule":"docs.ignore:3 /usr/share/doc/"}
{"kind":"missing","owners":["mawk:amd64"],"path":{"base64":"L3Vzci9zaGFyZS9tYW4v6Q=="},"reason":"absent"}
{"field":"Depends","kind":"unmet","reason":"libc6 is not installed","source":"mawk:amd64","text":"libc6"}
""".lstrip("\n").replace("SHA", SHA)  # fmt: skip  # noqa: E501 - lines as they are written


def sealed(body: str) -> bytes:
    """`body` with the end record that belongs to it, as a careful forger would make it."""
    data = body.encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(data).hexdigest()
    return data + f'{{"kind":"end","records":{body.count(chr(10))},"sha256":"{digest}"}}\n'.encode()


def test_the_form_is_what_reviewers_were_promised() -> None:
    """Every kind of record, sorted by the bytes of paths, absent values left out, nothing of the host."""
    assert SAMPLE.decode() == sealed(SAMPLE_BODY).decode()


def test_lines_are_json_s_own_canonical_form() -> None:
    """The lines that are put together by hand are those that json makes of the same records."""
    for line in SAMPLE.decode().splitlines():
        assert line == json.dumps(json.loads(line), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def test_a_rolling_distribution_has_no_version() -> None:
    """Arch has no VERSION_ID; the header leaves it out and reads back as empty."""
    rolling = build_manifest(
        Policy(whitelists=(), blacklists=(), packages=()),
        "",
        Distribution(id="arch", version=""),
        "x86_64",
        Closure(packages=(), dependencies=(), reasons={}),
        FileSet(entries=()),
    )
    data = dump_manifest(rolling)
    assert b'"distribution":{"id":"arch"}' in data
    assert parse_manifest(data, "m") == rolling


# --- what is refused --------------------------------------------------------------------------

HEADER, PACKAGE, MAWK, PRE_DEPENDS, *_ = SAMPLE_BODY.splitlines()


# Each row: what is wrong, the text to replace in the body, its replacement, the problems. The end
# record always fits, so that nothing but the check in question can refuse.
REFUSED = [
    ("not JSON", '"size":255', '"size":', "m:3: not JSON"),
    ("an empty line", MAWK, "", "m:3: the line is empty"),
    ("no object", MAWK, "[1]", "m:3: a line is one JSON object"),
    ("deeper than any parser follows", MAWK, "[" * 100_000, "m:3: not JSON"),
    (
        "a key twice",
        '"size":255',
        '"size":255,"size":255',
        "m:3: not JSON as a manifest has it: the key 'size'",
    ),
    ("white space", '"size":255', '"size": 255', "m:3: not the canonical form"),
    (
        "keys out of order",
        '"size":255,"version":"1.3"',
        '"version":"1.3","size":255',
        "m:3: not the canonical form",
    ),
    ("an escape without need", "Essential: yes", "Essential: \\u0079es", "m:5: not the canonical form"),
    ("two records in a line", f"{MAWK}\n", f"{MAWK},", "m:3: not JSON"),
    ("an unknown kind", '"kind":"unmet"', '"kind":"wish"', "m:18: kind 'wish' is none of header"),
    ("an unknown field", '"size":255', '"size":255,"ssize":1', "m:3: a package record has no field 'ssize'"),
    (
        "a field of another kind",
        '"rule":"docs',
        '"size":1,"rule":"docs',
        "m:16: a dropped record has no field 'size'",
    ),
    ("a field is not there", ',"version":"1.3"', "", "m:3: a package record needs the field 'version'"),
    ("text for a number", '"size":255', '"size":"255"', "m:3: size must be a whole number"),
    ("a fraction", '"size":255', '"size":255.0', "m:3: size must be a whole number"),
    ("a flag for a number", '"size":255', '"size":true', "m:3: size must be a whole number"),
    ("a number for a flag", '"recommends":false', '"recommends":0', "m:1: recommends must be true or false"),
    ("null", '"size":9', '"size":null', "m:15: size must be a whole number"),
    ("not a number", '"size":9', '"size":NaN', "m:15: size must be a whole number"),
    ("text for a list", '["docs"]', '"docs"', "m:1: blacklists must be a list of texts"),
    ("an empty detail", '"detail":"awk"', '"detail":""', "m:13: detail must be text, left out where empty"),
    ("an empty list of owners", '["base-files:amd64","mawk:amd64"]', "[]", "m:11: owners must be a list"),
    (
        "an empty version",
        '"id":"debian","version":"12"',
        '"id":"debian","version":""',
        "m:1: distribution must be",
    ),
    ("a mode that is no text", '"mode":"4755"', '"mode":4755', "m:14: mode must be four octal digits"),
    ("a mode of five digits", '"mode":"4755"', '"mode":"14755"', "m:14: mode must be four octal digits"),
    ("a negative mode", '"mode":"4755"', '"mode":"-755"', "m:14: mode must be four octal digits"),
    ("a negative size", '"size":3', '"size":-3', "m:14: a regular file has a size of 0 or more"),
    ("a negative package", '"size":255', '"size":-255', "m:3: a package has a name"),
    ("another schema", '"schema":1', '"schema":0', "m:1: schema 0 is unknown"),
    ("a newer schema", '"schema":1', '"schema":2,"zap":[]', "m:1: made by a newer pkgjail (schema 2"),
    ("a key that is not the name's", '"key":"mawk:amd64"', '"key":"mawk:i386"', "m:3: a package's key is"),
    ("lines out of order", f"{PACKAGE}\n{MAWK}", f"{MAWK}\n{PACKAGE}", "m:3: the line is out of order"),
    ("a line twice", MAWK, f"{MAWK}\n{MAWK}", "m:4: the record before is for the same thing"),
    (
        "a path twice",
        '"/usr/bin/private"',
        '"/usr/bin/mawk"',
        "m:15: the record before is for the same thing",
    ),
    (
        "sections out of order",
        f"{MAWK}\n{PRE_DEPENDS}",
        f"{PRE_DEPENDS}\n{MAWK}",
        "m:4: a record of kind package can't",
    ),
    ("a second header", HEADER, f"{HEADER}\n{HEADER}", "m:2: a manifest has one record of kind header"),
    ("no header", f"{HEADER}\n", "", "m:1: this is not a manifest"),
    (
        "a relative path",
        '"/usr/bin/private"',
        '"usr/bin/private"',
        "m:15: path 'usr/bin/private' is not absolute",
    ),
    (
        "a final slash",
        '"/usr/bin/private"',
        '"/usr/bin/private/"',
        "m:15: path '/usr/bin/private/' is not absolute",
    ),
    (
        "a doubled slash",
        '"/usr/bin/private"',
        '"/usr//private"',
        "m:15: path '/usr//private' is not absolute",
    ),
    ("two slashes at the start", '"/usr/bin/private"', '"//usr"', "m:15: path '//usr' is not absolute"),
    ("a dot", '"/usr/bin/private"', '"/usr/bin/."', "m:15: path '/usr/bin/.' is not absolute"),
    ("two dots", '"/usr/bin/private"', '"/usr/bin/.."', "m:15: path '/usr/bin/..' is not absolute"),
    ("NUL in a path", '"/usr/bin/private"', '"/usr/bin/p\\u0000"', "m:15: path '/usr/bin/p\\x00' is not"),
    ("a root that is a file", '"/usr/bin/private"', '"/"', "m:15: the root must be a directory"),
    (
        "dots in a dropped path",
        '"/usr/share/doc/mawk"',
        '"/usr/../mawk"',
        "m:16: path '/usr/../mawk' is not absolute",
    ),
    (
        "a missing path's NUL",
        '{"base64":"L3Vzci9zaGFyZS9tYW4v6Q=="}',
        '"/\\u0000"',
        "m:17: path '/\\x00' is not",
    ),
    (
        "a parent without an entry",
        '"/usr/bin/private"',
        '"/usr/lib/x"',
        "m:15: /usr/lib has no entry of type dir",
    ),
    (
        "a symlink for a parent",
        '"/usr/bin/mawk"',
        '"/usr/bin/awk/x"',
        "m:14: /usr/bin/awk has no entry of type dir",
    ),
    ("a lone surrogate", '"/usr/bin/private"', '"/usr/bin/\\udcff"', "m:15: path must be text, or"),
    ("base64 of UTF-8", '{"base64":"/w=="}', '{"base64":"Lw=="}', "m:8: target must be text, or"),
    ("base64 with loose bits", '{"base64":"/w=="}', '{"base64":"/x=="}', "m:8: target must be text, or"),
    ("base64 without padding", '{"base64":"/w=="}', '{"base64":"/w"}', "m:8: target must be text, or"),
    ("base64 that is none", '{"base64":"/w=="}', '{"base64":7}', "m:8: target must be text, or"),
    ("an object for a path", '{"base64":"/w=="}', '{"base32":"/w=="}', "m:8: target must be text, or"),
    ("a link without a target", ',"target":"/etc/alternatives/awk"', "", "m:13: a symlink has a target"),
    ("a link to nothing", '"target":"/etc/alternatives/awk"', '"target":""', "m:13: a symlink has a target"),
    (
        "NUL in a target",
        '"target":"/etc/alternatives/awk"',
        '"target":"\\u0000"',
        "m:13: a symlink has a target",
    ),
    (
        "a link's own mode",
        '"mode":"0777","origin":"alt',
        '"mode":"0755","origin":"alt',
        "m:13: a symlink's mode is",
    ),
    ("a file with a target", '"size":9,', '"size":9,"target":"x",', "m:15: only a symlink has a target"),
    ("a directory with a target", '"/usr",', '"/usr","target":"x",', "m:11: only a symlink has a target"),
    ("a link with a size", '"/usr/bin/awk",', '"/usr/bin/awk","size":1,', "m:13: only a regular file"),
    ("a link with a digest", '"/usr/bin/awk",', f'"/usr/bin/awk","sha256":"{SHA}",', "m:13: only a regular"),
    ("a directory with a size", '"/usr",', '"/usr","size":1,', "m:11: only a regular file has a size"),
    ("a file without a size", '"size":9,', "", "m:15: a regular file has a size"),
    (
        "a size before entry",
        '"/etc/passwd",',
        '"/etc/passwd","size":1,',
        "m:9: a file that is made at entry has",
    ),
    (
        "a digest in capitals",
        SHA[:8] + "89abcdef" + SHA[16:] + '","size":3',
        SHA.upper() + '","size":3',
        "m:14: a sha",
    ),
    ("a short digest", f'"{SHA}","size"', f'"{SHA[1:]}","size"', "m:14: a sha256 is 64"),
    ("an unknown type", '"size":9,"type":"regular"', '"type":"fifo"', "m:15: type 'fifo' is none of"),
    ("an unknown origin", '"origin":"conffile"', '"origin":"nowhere"', "m:10: origin 'nowhere' is none of"),
    ("an unknown reason", '"reason":"absent"', '"reason":"gone"', "m:17: reason 'gone' is none of"),
    (
        "an unknown owner",
        'owners":["mawk:amd64"],"path":"',
        'owners":["gawk:amd64"],"path":"',
        "m:14: owner gawk:am",
    ),
    (
        "owners out of order",
        '["base-files:amd64","mawk:amd64"]',
        '["mawk:amd64","base-files:amd64"]',
        "m:11: owners",
    ),
    (
        "an owner twice",
        '["base-files:amd64","mawk:amd64"]',
        '["mawk:amd64","mawk:amd64"]',
        "m:11: owners are out",
    ),
    (
        "an unknown target",
        '7","target":"mawk:amd64"',
        '7","target":"gawk:amd64"',
        "m:6: target gawk:amd64 is no",
    ),
    (
        "an unknown source",
        '"source":"base-files:amd64"',
        '"source":"base:amd64"',
        "m:4: source base:amd64 is no",
    ),
    (
        "essential by another name",
        '"source":"essential"',
        '"source":"essentiel"',
        "m:5: source essentiel is no",
    ),
    ("nobody asked", '"source":"spack.toml:7"', '"source":""', "m:6: source  is no package"),
    (
        "unmet by nobody",
        '"source":"mawk:amd64","text":"libc6"',
        '"source":"x","text":"libc6"',
        "m:18: source x is no",
    ),
]


@pytest.mark.parametrize(("summary", "old", "new", "problem"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused(summary: str, old: str, new: str, problem: str) -> None:
    """A manifest that pkgjail would not have written is refused with its line, though its end fits."""
    assert old in SAMPLE_BODY, summary
    with pytest.raises(ManifestError) as caught:
        parse_manifest(sealed(SAMPLE_BODY.replace(old, new)), "m")
    assert problem in str(caught.value), summary


# Each row: what is wrong, the bytes, the first problem.
BROKEN = [
    ("an empty file", b"", "m:1: this is not a manifest"),
    ("another file", b"[packages]\ndebian = []\n", "m:1: this is not a manifest"),
    ("not UTF-8", SAMPLE.replace(b"docs.ignore", b"docs\xff"), "m:16: byte "),
    ("cut in a line", SAMPLE[:-1], "m:19: the manifest is cut in the middle of this line"),
    ("cut at a line", SAMPLE[: SAMPLE.rindex(b"\n", 0, -1) + 1], "m:18: the manifest is cut after this line"),
    ("cut after the header", f"{HEADER}\n".encode(), "m:1: the manifest is cut after this line"),
    ("a line taken out", SAMPLE.replace(f"{MAWK}\n".encode(), b""), "m:3: target mawk:amd64 is no package"),
    ("a plausible edit", SAMPLE.replace(b'"size":255', b'"size":256'), "m:19: the lines above are not those"),
    (
        "two manifests in one",
        SAMPLE + SAMPLE,
        "m:20: a record of kind header can't stand after one of kind end",
    ),
    ("a line after the end", SAMPLE + b"\n", "m:20: the line is empty"),
    (
        "a wrong count",
        SAMPLE.replace(b'"records":18', b'"records":17'),
        "m:19: the lines above are not those",
    ),
    ("carriage returns", SAMPLE.replace(b"\n", b"\r\n"), "m:1: not the canonical form"),
]


@pytest.mark.parametrize(("summary", "data", "problem"), BROKEN, ids=[row[0] for row in BROKEN])
def test_broken(summary: str, data: bytes, problem: str) -> None:
    """A manifest that was cut, joined or changed is refused, wherever the cut is."""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(data, "m")
    assert str(caught.value).startswith(problem), summary


def test_all_problems_are_told_at_once_and_their_number_is_bounded() -> None:
    """Several faults give several lines in order; a file of nonsense does not give thousands."""
    faulty = SAMPLE_BODY.replace('"size":255', '"size":"255"').replace(
        '"reason":"absent"', '"cause":"absent"'
    )
    with pytest.raises(ManifestError) as caught:
        parse_manifest(sealed(faulty), "m")
    assert [problem.origin for problem in caught.value.problems] == ["m:3", "m:17"]
    with pytest.raises(ManifestError) as caught:
        parse_manifest((f"{HEADER}\n" + "x\n" * 50).encode(), "m")
    assert [problem.origin for problem in caught.value.problems] == [
        *(f"m:{line}" for line in range(2, 22)),
        "m",
    ]


# --- properties -------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.binary(max_size=4).map(
    model.text_path
)
WORDS = st.text("abcxyz+-.09", min_size=1, max_size=5)
NAMES = (
    st.binary(min_size=1, max_size=5).map(lambda raw: raw.replace(b"\0", b"n").replace(b"/", b"s"))
    | st.sampled_from([b"a", b"\n", "é\u2028".encode(), b"\xff", b"\xed\xb3\xbf", b'"\\\x7f'])
).filter(lambda name: name not in {b".", b".."})
TARGETS = st.binary(min_size=1, max_size=8).map(lambda raw: raw.replace(b"\0", b"n"))
ORIGINS = st.sampled_from(["package", "conffile", "alternative", "generated", "include", "parent"])


@st.composite
def entries(draw: st.DrawFn, owners: st.SearchStrategy[tuple[str, ...]]) -> tuple[FileEntry, ...]:
    """A tree of files of all types, sorted, every parent of which is a directory of the tree."""
    parents, found = [b""], {}
    for _ in range(draw(st.integers(0, 8))):
        path = draw(st.sampled_from(parents)) + b"/" + draw(NAMES)
        if path in found:
            continue
        kind = draw(st.sampled_from(["regular", "directory", "symlink"]))
        regular = kind == "regular"
        found[path] = FileEntry(
            path=path,
            kind=kind,
            mode=0o777 if kind == "symlink" else draw(st.integers(0, 0o7777)),
            size=draw(st.integers(0, 2**63)) if regular else None,
            sha256=draw(st.none() | st.just(SHA)) if regular else None,
            target=draw(TARGETS) if kind == "symlink" else None,
            owners=draw(owners),
            origin=draw(ORIGINS),
            detail=draw(TEXTS),
        )
        if kind == "directory":
            parents.append(path)
    return tuple(found[path] for path in sorted(found))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any sound manifest, sorted."""
    names = draw(st.lists(WORDS, min_size=1, max_size=3, unique=True))
    packages = [
        Package(
            name=name,
            version=draw(WORDS),
            architecture="amd64",
            essential=draw(st.booleans()),
            size=draw(st.integers(0, 9)),
        )
        for name in names
    ]
    packages.sort(key=lambda package: package.key)
    keys = st.sampled_from([package.key for package in packages])
    owners = st.lists(keys, max_size=3, unique=True).map(lambda some: tuple(sorted(some)))
    asked = st.tuples(keys, st.sampled_from(["Depends", "Recommends"]), TEXTS) | st.tuples(
        st.just("w.toml:1"), st.just("whitelist"), TEXTS
    )
    edges = draw(st.lists(st.tuples(asked, keys), max_size=4, unique=True))
    unmet = draw(st.lists(asked, max_size=2, unique=True))
    paths = st.lists(
        st.lists(NAMES, min_size=1).map(lambda parts: b"/" + b"/".join(parts)), max_size=3, unique=True
    )
    return Manifest(
        header=Header(
            schema=1,
            distribution=Distribution(id=draw(TEXTS), version=draw(TEXTS)),
            architecture=draw(TEXTS),
            policy=draw(TEXTS),
            whitelists=tuple(draw(st.lists(TEXTS, max_size=2))),
            blacklists=tuple(draw(st.lists(TEXTS, max_size=2))),
            recommends=draw(st.booleans()),
            essential=draw(st.booleans()),
        ),
        packages=tuple(packages),
        dependencies=tuple(
            Dependency(source=source, target=target, kind=kind, text=text)
            for source, target, kind, text in sorted((ask[0], target, *ask[1:]) for ask, target in edges)
        ),
        files=draw(entries(owners)),
        dropped=tuple(Dropped(path=path, rule=draw(TEXTS)) for path in sorted(draw(paths))),
        missing=tuple(
            Missing(
                path=path, reason=draw(st.sampled_from(["absent", "private", "special"])), owners=draw(owners)
            )
            for path in sorted(draw(paths))
        ),
        unmet=tuple(
            Unmet(source=source, kind=kind, text=text, reason=draw(TEXTS))
            for source, kind, text in sorted(unmet)
        ),
    )


@given(manifests())
def test_what_is_dumped_is_what_is_parsed(manifest: Manifest) -> None:
    """Paths of any bytes and texts of any characters come back as they went; the bytes are json's own."""
    data = dump_manifest(manifest)
    assert parse_manifest(data, "m") == manifest
    for line in data.decode().split("\n")[:-1]:
        plain = json.dumps(json.loads(line), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        assert line.encode() == plain.encode("utf-8", "backslashreplace")


@given(manifests(), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_reach_the_bytes(manifest: Manifest, random: Random) -> None:
    """Whatever order the stages hand things over in, the same manifest has the same bytes."""

    def shuffled(records: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(random.sample(records, len(records)))

    other = Manifest(
        header=manifest.header,
        packages=shuffled(manifest.packages),
        dependencies=shuffled(manifest.dependencies),
        files=shuffled(manifest.files),
        dropped=shuffled(manifest.dropped),
        missing=shuffled(manifest.missing),
        unmet=shuffled(manifest.unmet),
    )
    assert dump_manifest(other) == dump_manifest(manifest)


@given(manifests(), st.data())
def test_no_change_of_bytes_or_lines_goes_unseen(manifest: Manifest, data: st.DataObject) -> None:
    """A changed byte, a lost, doubled or moved line, a cut: refused, and with a line to look at."""
    written = dump_manifest(manifest)
    lines = written.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(written) - 1), label="at")
    line = data.draw(st.integers(0, len(lines) - 1), label="line")
    other = data.draw(st.integers(0, len(lines) - 1), label="other")
    swapped = lines.copy()
    swapped[line], swapped[other] = swapped[other], swapped[line]
    byte = bytes([data.draw(st.integers(0, 255), label="byte")])
    changed = {
        written[:at] + byte + written[at + 1 :],
        written[:at],
        written[:at] + written[at + 1 :],
        b"".join(lines[:line] + lines[line + 1 :]),
        b"".join(lines[: line + 1] + lines[line:]),
        b"".join(swapped),
    } - {written}
    for each in changed:
        with pytest.raises(ManifestError) as caught:
            parse_manifest(each, "m")
        assert all(problem.origin.startswith("m") and problem.message for problem in caught.value.problems)


@given(manifests(), st.data())
def test_a_careful_forger_gets_a_different_manifest_or_none(manifest: Manifest, data: st.DataObject) -> None:
    """No two byte strings read as the same manifest, the end record made to fit or not."""
    body = dump_manifest(manifest).splitlines(keepends=True)[:-1]
    text = b"".join(body)
    at = data.draw(st.integers(0, len(text) - 1), label="at")
    forged = text[:at] + bytes([data.draw(st.integers(0, 255), label="byte")]) + text[at + 1 :]
    digest = hashlib.sha256(forged).hexdigest()
    forged += f'{{"kind":"end","records":{len(body)},"sha256":"{digest}"}}\n'.encode()
    try:
        read = parse_manifest(forged, "m")
    except ManifestError:
        return
    assert (read == manifest) == (forged == dump_manifest(manifest))
    assert dump_manifest(read) == forged


# --- the schema -------------------------------------------------------------------------------

SCHEMA = json.loads(Path(manifest_module.__file__).with_name("manifest.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_a_schema_and_takes_every_line() -> None:
    """Other tools may trust the schema that ships with the package."""
    VALIDATOR.check_schema(SCHEMA)
    for line in SAMPLE.decode().splitlines():
        VALIDATOR.validate(json.loads(line))


@given(manifests())
def test_the_schema_takes_whatever_is_written(manifest: Manifest) -> None:
    """The schema and the writer agree for any manifest."""
    for line in dump_manifest(manifest).decode().split("\n")[:-1]:
        assert VALIDATOR.is_valid(json.loads(line)), line


# The rows that a schema of one line can't tell: they are about two lines, or about the text itself.
BEYOND_A_SCHEMA = {
    "a key twice", "white space", "keys out of order", "an escape without need", "a fraction",
    "a key that is not the name's", "lines out of order", "a line twice", "a path twice",
    "sections out of order", "a second header", "no header", "a final slash", "a doubled slash",
    "two slashes at the start", "a dot", "two dots", "a root that is a file", "dots in a dropped path",
    "a parent without an entry", "a symlink for a parent", "a lone surrogate", "base64 of UTF-8",
    "base64 with loose bits", "base64 without padding", "an unknown owner", "owners out of order",
    "an unknown target", "an unknown source", "essential by another name", "unmet by nobody",
    "not JSON", "an empty line", "deeper than any parser follows", "two records in a line",
}  # fmt: skip
BAD_LINES = [row for row in REFUSED if row[0] not in BEYOND_A_SCHEMA]


@pytest.mark.parametrize(("summary", "old", "new", "_"), BAD_LINES, ids=[row[0] for row in BAD_LINES])
def test_the_schema_refuses(summary: str, old: str, new: str, _: str) -> None:
    """What one line can tell of being wrong, the schema tells too."""
    lines = [json.loads(line) for line in SAMPLE_BODY.replace(old, new).splitlines()]
    assert not all(map(VALIDATOR.is_valid, lines)), summary


# --- files ------------------------------------------------------------------------------------


def names(directory: Path) -> list[str]:
    """What is in a directory, temporary files included."""
    return sorted(path.name for path in directory.iterdir())


def test_write_then_read(tmp_path: Path) -> None:
    """The digest names the bytes on the disk, the mode follows the umask, nothing else is left."""
    path = tmp_path / "m.jsonl"
    for umask, mode in ((0o077, 0o600), (0o022, 0o644)):
        before = os.umask(umask)
        try:
            digest = write_manifest(sample(), path)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert digest == manifest_digest(path.read_bytes()) == f"sha256:{hashlib.sha256(SAMPLE).hexdigest()}"
    assert read_manifest(path) == sample()
    assert names(tmp_path) == ["m.jsonl"]


def test_a_relative_path_is_below_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-o m.jsonl` is the usual call."""
    monkeypatch.chdir(tmp_path)
    write_manifest(sample(), "m.jsonl")
    assert read_manifest("m.jsonl") == sample()


@pytest.mark.parametrize("failing", ["fsync", "rename"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: type[BaseException]
) -> None:
    """A full disk or a Ctrl-C at any step changes nothing and leaves no rubbish."""
    path = tmp_path / "m.jsonl"
    path.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise error(errno.ENOSPC, "full")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(error) as caught:
        write_manifest(sample(), path)
    assert getattr(caught.value, "filename", str(path)) == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["m.jsonl"]


def test_a_write_that_does_not_fit_leaves_the_old_manifest(tmp_path: Path) -> None:
    """A real refusal of the kernel in the middle of the bytes: a limit on the size of files."""
    path = tmp_path / "m.jsonl"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(SAMPLE) - 1, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_manifest(sample(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["m.jsonl"]


WRITE_FOR_EVER = """
import sys
from pkgjail.manifest import read_manifest, write_manifest

manifest = read_manifest(sys.argv[1])
while True:
    write_manifest(manifest, sys.argv[1])
    print(flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_manifest(tmp_path: Path) -> None:
    """Wherever the kill falls, who reads finds a manifest that is sound."""
    path = tmp_path / "m.jsonl"
    write_manifest(sample(), path)
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(path)],
        stdout=subprocess.PIPE,
        cwd=Path(manifest_module.__file__).parents[1],
    ) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline()
            assert read_manifest(path) == sample()
        process.kill()
    assert read_manifest(path) == sample()


def test_a_filesystem_that_syncs_no_directories_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network filesystems answer EINVAL; the rename has happened, and other errors count."""
    real, code = os.fsync, errno.EINVAL

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_manifest(sample(), tmp_path / "m.jsonl")
    code = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_manifest(sample(), tmp_path / "m.jsonl")


@pytest.mark.parametrize("what", ["symlink", "fifo", "directory"])
def test_what_is_no_regular_file_is_not_written_over(tmp_path: Path, what: str) -> None:
    """`-o /dev/null` as root must not replace the device, nor a link be followed or replaced."""
    path = tmp_path / "m.jsonl"
    precious = tmp_path / "precious"
    precious.write_text("kept")
    make: dict[str, Callable[[], object]] = {
        "symlink": lambda: path.symlink_to(precious),
        "fifo": lambda: os.mkfifo(path),
        "directory": path.mkdir,
    }
    make[what]()
    kind = stat.S_IFMT(path.lstat().st_mode)
    with pytest.raises(InputError, match="name another path"):
        write_manifest(sample(), path)
    assert stat.S_IFMT(path.lstat().st_mode) == kind
    assert precious.read_text() == "kept"
    assert names(tmp_path) == ["m.jsonl", "precious"]
