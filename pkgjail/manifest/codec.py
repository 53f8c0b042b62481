"""A manifest's records as lines: the one place that knows their names, their order and their form.

Each line is a JSON object (RFC 8259) with its keys sorted, no white space between tokens, and
nothing escaped that need not be. The lines are put together by hand, with json's own function for
every string: it takes half the time of json.dumps, and the reader, which writes each manifest anew
to see that it is the canonical form, spends that time whenever a jail is entered.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from json.encoder import encode_basestring as quoted
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pkgjail.core.model import Dependency, Dropped, FileEntry, Header, Manifest, Missing, Package, Unmet

SCHEMA = 1
"""The version of the format that is written, and the newest that is read."""

KINDS = ("header", "package", "dependency", "file", "dropped", "missing", "unmet", "end")
"""The values of `kind`, in the order of their sections."""

# What each section is sorted by: the fields of a record that no two records share.
BY_KEY = attrgetter("key")
BY_PATH = attrgetter("path")
BY_DEPENDENCY = attrgetter("source", "target", "kind", "text")
BY_UNMET = attrgetter("source", "kind", "text")


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest in its canonical form, its sections sorted.

    Text that stands for undecodable bytes (PEP 383) is written with JSON's own escapes, as
    `backslashreplace` happens to do for lone surrogates.
    """
    lines = list(_body(manifest))
    body = "\n".join([*lines, ""]).encode("utf-8", "backslashreplace")
    return body + end_line(len(lines), hashlib.sha256(body).hexdigest())


def end_line(records: int, sha256: str) -> bytes:
    """The last line: the number of lines before it, and the digest of their bytes."""
    return f'{{"kind":"end","records":{records:d},"sha256":"{sha256}"}}\n'.encode()


def _body(manifest: Manifest) -> Iterator[str]:
    yield _header(manifest.header)
    yield from map(_package, sorted(manifest.packages, key=BY_KEY))
    yield from map(_dependency, sorted(manifest.dependencies, key=BY_DEPENDENCY))
    yield from _files(sorted(manifest.files, key=BY_PATH))
    yield from map(_dropped, sorted(manifest.dropped, key=BY_PATH))
    yield from map(_missing, sorted(manifest.missing, key=BY_PATH))
    yield from map(_unmet, sorted(manifest.unmet, key=BY_UNMET))


def _flag(value: bool) -> str:  # noqa: FBT001 - it is what is written
    return "true" if value else "false"


def _list(texts: Iterable[str]) -> str:
    return f"[{','.join(map(quoted, texts))}]"


def _owners(owners: tuple[str, ...]) -> str:
    return f',"owners":{_list(sorted(owners))}' if owners else ""


def _bytes(path: bytes) -> str:
    """A path as JSON: a string where it is UTF-8, and else an object with its base64 form."""
    try:
        return quoted(path.decode())
    except UnicodeDecodeError:
        return f'{{"base64":"{b64encode(path).decode()}"}}'


def _header(header: Header) -> str:
    version = header.distribution.version
    return (
        f'{{"architecture":{quoted(header.architecture)}'
        f',"blacklists":{_list(header.blacklists)}'
        f',"distribution":{{"id":{quoted(header.distribution.id)}'
        + (f',"version":{quoted(version)}}}' if version else "}")
        + f',"essential":{_flag(header.essential)}'
        f',"kind":"header"'
        f',"policy":{quoted(header.policy)}'
        f',"recommends":{_flag(header.recommends)}'
        f',"schema":{header.schema:d}'
        f',"whitelists":{_list(header.whitelists)}}}'
    )


def _package(package: Package) -> str:
    return (
        f'{{"architecture":{quoted(package.architecture)}'
        f',"essential":{_flag(package.essential)}'
        f',"key":{quoted(package.key)}'
        f',"kind":"package"'
        f',"name":{quoted(package.name)}'
        f',"protected":{_flag(package.protected)}'
        f',"size":{package.size:d}'
        f',"version":{quoted(package.version)}}}'
    )


def _dependency(edge: Dependency) -> str:
    return (
        f'{{"field":{quoted(edge.kind)}'
        f',"kind":"dependency"'
        f',"source":{quoted(edge.source)}'
        f',"target":{quoted(edge.target)}'
        f',"text":{quoted(edge.text)}}}'
    )


def _files(entries: Iterable[FileEntry]) -> Iterator[str]:
    """The lines of the files; what comes before the path is the same in many of them, and made once."""
    heads: dict[tuple[object, ...], str] = {}
    for entry in entries:
        path, kind, mode, size, target, sha256, owners, origin, detail = entry
        same = (detail, mode, origin, owners)
        head = heads.get(same)
        if head is None:
            head = heads[same] = _file_head(entry)
        hashed = "" if sha256 is None else f',"sha256":{quoted(sha256)}'
        sized = "" if size is None else f',"size":{size:d}'
        leads = "" if target is None else f',"target":{_bytes(target)}'
        yield f'{head},"path":{_bytes(path)}{hashed}{sized}{leads},"type":{quoted(kind)}}}'


def _file_head(entry: FileEntry) -> str:
    detail = f'"detail":{quoted(entry.detail)},' if entry.detail else ""
    head = f'{{{detail}"kind":"file","mode":"{entry.mode:04o}","origin":{quoted(entry.origin)}'
    return head + _owners(entry.owners)


def _dropped(dropped: Dropped) -> str:
    return f'{{"kind":"dropped","path":{_bytes(dropped.path)},"rule":{quoted(dropped.rule)}}}'


def _missing(missing: Missing) -> str:
    owners = _owners(missing.owners)
    return f'{{"kind":"missing"{owners},"path":{_bytes(missing.path)},"reason":{quoted(missing.reason)}}}'


def _unmet(unmet: Unmet) -> str:
    return (
        f'{{"field":{quoted(unmet.kind)}'
        f',"kind":"unmet"'
        f',"reason":{quoted(unmet.reason)}'
        f',"source":{quoted(unmet.source)}'
        f',"text":{quoted(unmet.text)}}}'
    )
