"""A manifest with every kind of record in it, and every way in which one line of it can be wrong."""

from __future__ import annotations

import hashlib
from typing import Any

from pkgjail.core.model import (
    Closure,
    Dependency,
    Distribution,
    Dropped,
    FileEntry,
    FileSet,
    Manifest,
    Missing,
    Package,
    Policy,
    Unmet,
)
from pkgjail.manifest import build_manifest, dump_manifest

SHA = "0123456789abcdef" * 4


def directory(path: bytes, **more: Any) -> FileEntry:
    """Return the entry of a directory."""
    return FileEntry(path=path, kind="directory", mode=0o755, **more)


def sample() -> Manifest:
    """Return a manifest with every kind of record and file."""
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


def with_digest_line(body: str) -> bytes:
    """Return `body` with a fitting end record, as a careful forger would make it."""
    data = body.encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(data).hexdigest()
    return data + f'{{"kind":"end","records":{body.count(chr(10))},"sha256":"{digest}"}}\n'.encode()


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
    ("a version that is two words", '"version":"1.3"', '"version":"1.3 x"', "m:3: names, versions and arch"),
    (
        "a negative size",
        '"size":3',
        '"size":-3',
        "m:14: a package and a regular file have a size",
    ),
    ("a negative package", '"size":255', '"size":-255', "m:3: a package and a regular file have a size of 0"),
    (
        "a size of 401",
        '"size":3',
        f'"size":{10**400}',
        "m:14: a size has at most 22 digits, and th",
    ),
    (
        "a package of 23",
        '"size":255',
        f'"size":{10**22}',
        "m:3: a size has at most 22 digits",
    ),
    (
        "a file that is said to be dropped",
        '"path":"/usr/share/doc/mawk"',
        '"path":"/usr/bin/mawk"',
        "m:16: /usr/bin/mawk stands above as a file or as dropped",
    ),
    ("another schema", '"schema":1', '"schema":0', "m:1: schema 0 is unknown"),
    ("a newer schema", '"schema":1', '"schema":4,"zap":[]', "m:1: made by a newer pkgjail (schema 4"),
    (
        "a source of schema 3",
        '"schema":1',
        '"schema":1,"source":"directory"',
        "m:1: schema must be 3, the first",
    ),
    (
        "a source that is a path",
        '"schema":1',
        '"schema":3,"source":"/srv"',
        "m:1: source is neither 'directory' nor",
    ),
    ("a schema that nothing needs", '"schema":1', '"schema":2', "m:1: schema must be 1, the first that has"),
    (
        "a family of schema 2",
        '{"id":"debian"',
        '{"family":"rhel","id":"debian"',
        "m:1: schema must be 2, the",
    ),
    (
        "a family that the id implies",
        '{"id":"debian"',
        '{"family":"debian","id":"debian"',
        "m:1: distribution must be an object of id and, unless empty, version and a family that the id does",
    ),
    ("an empty family", '{"id":"debian"', '{"family":"","id":"debian"', "m:1: distribution must be an"),
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
    ("a file without a size", '"size":9,', "", "m:15: a package and a regular file have a size"),
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
