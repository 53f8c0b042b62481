"""Read pacman's local database: a directory for each package, with the files `desc` and `files`.

Their format is that of libalpm's lib/libalpm/be_local.c: `%NAME%`, a value per line, an empty line.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from pkgjail.core.model import is_word, record
from pkgjail.core.text import text_path
from pkgjail.core.unpacking import GZIP, unpack
from pkgjail.core.untrusted import DATABASE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.backends.root import Root

LOCAL = b"/var/lib/pacman/local"
_LOCK = b"/var/lib/pacman/db.lck"
VERSION_FILE = b"ALPM_DB_VERSION"
_VERSION = b"9"
# In names of mtree(5), white space, backslashes and characters outside ASCII are octal numbers.
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
_DIGESTS = ((b"sha256digest=", "sha256"), (b"md5digest=", "md5"))
_NO_PARTS = frozenset({b"", b".", b".."})
_RESTORE = "restore it from a backup, or install the package again with pacman -S --dbonly"


@record
class Entry:
    """An installed package: `fields` are those of `desc` without `%`; `directory` has the files."""

    directory: bytes
    name: str
    version: str
    architecture: str
    size: int
    fields: Mapping[str, tuple[str, ...]]


def read_local(root: Root) -> Iterator[Entry]:
    """Yield every package of the root, in the order of the directories. Raises `DatabaseError`."""
    _refuse_locked(root)
    local = root.inside(LOCAL)
    version = root.read(os.path.join(local, VERSION_FILE), missing=b"").strip()
    if version != _VERSION:
        found = f"version {text_path(version)}" if version else f"no {text_path(VERSION_FILE)}"
        raise root.error(
            f"{text_path(local)} has {found}, but version {text_path(_VERSION)} is supported",
            "run pacman-db-upgrade for an older one; use a newer pkgjail for a newer one",
        )
    names = sorted(name for name in root.names(local) if name != VERSION_FILE and not name.startswith(b"."))
    for name in names:
        yield _entry(root, os.path.join(local, name))
    _refuse_locked(root)


def _refuse_locked(root: Root) -> None:
    """Refuse a database that pacman is changing, or was changing when it was killed."""
    path = root.inside(_LOCK)
    if os.path.lexists(path):
        raise root.error(
            f"{text_path(path)} exists: pacman is running, or was interrupted",
            "wait for it; remove that file if no pacman runs",
        )


def _entry(root: Root, directory: bytes) -> Entry:
    path = os.path.join(directory, b"desc")
    with root.parsing(path, _RESTORE):
        fields = _fields(text_path(root.read(path, limit=DATABASE)))
        name, version, architecture = (_one(fields, key) for key in ("NAME", "VERSION", "ARCH"))
        size = _one(fields, "SIZE") if "SIZE" in fields else "0"
        _check(f"{name}-{version}" == text_path(os.path.basename(directory)), f"it is of {name} {version}")
        for what, value in (("name", name), ("version", version), ("architecture", architecture)):
            _check(is_word(value), f"the {what} {value!r} has a blank or an unprintable character")
        _check(re.fullmatch(r"[0-9]{1,18}", size) is not None, f"the size {size!r} is not a number")
    return Entry(
        directory=directory,
        name=name,
        version=version,
        architecture=architecture,
        size=int(size),
        fields=fields,
    )


def _check(is_right: bool, fault: str) -> None:  # noqa: FBT001 - a condition
    if not is_right:
        raise ValueError(fault)


def _fields(text: str) -> dict[str, tuple[str, ...]]:
    """Parse the fields of a file. Raises `ValueError` if it is cut off, or of another form."""
    if not text.endswith("\n\n"):
        raise ValueError("it is empty" if not text else "it ends within a field")
    fields = {}
    for block in text.rstrip("\n").split("\n\n"):
        head, *values = block.lstrip("\n").split("\n")
        if re.fullmatch(r"%[^%]+%", head) is None or head[1:-1] in fields:
            raise ValueError(f"{head!r} is not a field, or is there twice")
        fields[head[1:-1]] = tuple(values)
    return fields


def _one(fields: Mapping[str, tuple[str, ...]], key: str) -> str:
    values = fields.get(key, ())
    if len(values) != 1 or not values[0]:
        raise ValueError(f"it does not have one %{key}%")
    return values[0]


def read_files(root: Root, entry: Entry) -> tuple[tuple[bytes, ...], frozenset[bytes]]:
    """Return the absolute paths that the package lists, and those of them that are in %BACKUP%."""
    path = os.path.join(entry.directory, b"files")
    text = text_path(root.read(path, limit=DATABASE))
    with root.parsing(path, _RESTORE):
        # The list of a package without files is empty.
        fields = _fields(text) if text else {}
        paths = tuple(_absolute(line) for line in fields.get("FILES", ()))
        backup = frozenset(_absolute(line.rpartition("\t")[0]) for line in fields.get("BACKUP", ()))
    return paths, backup & frozenset(paths)


def read_digests(root: Root, entry: Entry) -> dict[bytes, str]:
    """Return `algorithm:digest` of each regular file by path, from the package's `mtree` (mtree(5))."""
    path = os.path.join(entry.directory, b"mtree")
    data = root.read(path, missing=b"", limit=DATABASE)
    with root.parsing(path, _RESTORE):
        _check(not data or data.startswith(GZIP), "it is not packed by gzip")
        lines = unpack(data, DATABASE).split(b"\n")
    found = {}
    for line in lines:
        name, *words = line.split(b" ")
        digest = next(
            (
                f"{kind}:{word[len(mark) :].decode('ascii', 'replace')}"
                for mark, kind in _DIGESTS
                for word in words
                if word.startswith(mark)
            ),
            "",
        )
        if name.startswith(b"./") and digest:
            found[_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), name[1:])] = digest
    return found


def _absolute(line: str) -> bytes:
    path = line.encode("utf-8", "surrogateescape").rstrip(b"/")
    if not _NO_PARTS.isdisjoint(path.split(b"/")):
        raise ValueError(f"{line!r} is not a path of a package")
    return b"/" + path
