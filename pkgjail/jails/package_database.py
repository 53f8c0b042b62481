"""The package database of a jail: the host's records of exactly the manifest's packages, made at entry.

dpkg has one file with the records of all packages of the host. The jail's has the same records, to the byte,
of the manifest's packages alone. So dpkg-query(1), dpkg-checkbuilddeps(1) and dpkg-shlibdeps(1) find in the
jail what is in the jail. Files for one package each (`info/NAME.list`) are the host's, and the manifest has
their digests.

pacman has a directory with files for each package. They are the host's, too, except `desc`, which is made
without the time of the installation, because that differs between hosts. rpm's file is made by
`pkgjail.jails.rpm_database`.

The host's file changes with every package that is installed or removed. That is no drift as long as the
records of the manifest's packages have the manifest's versions.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from pkgjail.core.entries import MISSING, Mismatch
from pkgjail.core.errors import JailError, os_error_text
from pkgjail.core.parameters import parameter
from pkgjail.core.paths import Names
from pkgjail.core.text import text_path
from pkgjail.core.untrusted import read_below
from pkgjail.storage.fingerprint import take_settled_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.errors import Change
    from pkgjail.core.model import FileEntry, Manifest, Package
    from pkgjail.jails.rpm_database import RpmDatabase

_DPKG, _PACMAN, _RPM = "dpkg", "pacman", "rpm"
_STATUS, _DIVERSIONS, _ARCH = b"status", b"diversions", b"arch"
_ALL = "all"
_WITHOUT: Final = "package_database=False"
_MANAGERS = frozenset({_DPKG, _PACMAN, _RPM})
_INSTALL_DATE = re.compile(rb"^%INSTALLDATE%\n(?:.+\n)*\n?", re.MULTILINE)
# The last two words of the status of a package that is fully installed; dpkg-query(1).
_INSTALLED = b" ok installed"
# All files of such a package are in place, and it satisfies dependencies; only triggers are still to be
# processed, its own or those of another package: dpkg(1). This passes while the host installs something else.
_TRIGGERS = re.compile(rb"^(Status: .* ok) triggers-(?:awaited|pending)$", re.MULTILINE)
_TRIGGER_FIELDS = re.compile(rb"^Triggers-(?:Awaited|Pending):.*(?:\n[ \t].*)*\n?", re.MULTILINE)
_NOT_INSTALLED = "the package is not installed"


def database_sources(manifest: Manifest, root: bytes) -> tuple[bytes, ...]:
    """Return the host's files below the real path `root` that the jail's package database is made from."""
    prefix = root.rstrip(b"/")
    paths = (prefix + entry.path for entry in _made(manifest))
    return tuple(filter(os.path.lexists, paths))


def database_content(manifest: Manifest, root: bytes) -> dict[bytes, bytes]:
    """Return the content of the files of the package database that are made at entry, by path.

    A package that the host no longer has is left out; `database_changes` finds it.

    Raises:
        JailError: a file of the host's package database cannot be read.

    """
    return {entry.path: _content(entry, manifest, root) for entry in _made(manifest)}


def database_changes(manifest: Manifest, root: bytes) -> tuple[Change, ...]:
    """Return the drift of the host's package database: records of the manifest's packages that differ.

    Raises:
        JailError: as `database_content`.

    """
    return tuple(change for entry in _made(manifest) for change in _changes(entry, manifest, root))


def _made(manifest: Manifest) -> Iterator[FileEntry]:
    """Yield the entries of the package database that are made at entry."""
    return (entry for entry in manifest.files if entry.origin == "entry" and entry.detail in _MANAGERS)


def _content(entry: FileEntry, manifest: Manifest, root: bytes) -> bytes:
    name = os.path.basename(entry.path)
    if name == _ARCH:
        return _architectures(manifest)
    if entry.detail == _RPM:
        return _rpm_database(entry, manifest, root).content
    data = _read(root, entry.path)
    if entry.detail == _PACMAN:
        return _INSTALL_DATE.sub(b"", data)
    if name == _STATUS:
        records = _records(data)
        return b"".join(records[p.key] + b"\n\n" for p in manifest.packages if p.key in records)
    return _diversions(data, manifest) if name == _DIVERSIONS else b""


def _changes(entry: FileEntry, manifest: Manifest, root: bytes) -> Iterator[Change]:
    """Yield a record that is gone, and the first in the status file that is not of the manifest's version."""
    if entry.detail == _DPKG and os.path.basename(entry.path) != _STATUS:
        return
    if not os.path.lexists(root.rstrip(b"/") + entry.path):
        yield entry.path, MISSING
        return
    if entry.detail == _PACMAN:  # the version is in the path
        return
    if entry.detail == _RPM:
        for name, version, architecture in sorted(_rpm_database(entry, manifest, root).absent)[:1]:
            yield entry.path, Mismatch("record", f"{name}:{architecture} {version}", _NOT_INSTALLED)
        return
    records = _records(_read(root, entry.path))
    for package in manifest.packages:
        if fault := _fault(records.get(package.key), package):
            yield entry.path, Mismatch("record", f"{package.key} {package.version}", fault)
            return


def _rpm_database(entry: FileEntry, manifest: Manifest, root: bytes) -> RpmDatabase:
    from pkgjail.jails.rpm_database import filtered_database  # for few manifests

    packages = frozenset((one.name, one.version, one.architecture) for one in manifest.packages)
    state = take_settled_fingerprint(database_sources(manifest, root))
    return filtered_database(root, entry.path, packages, state)


def _fault(record: bytes | None, package: Package) -> str:
    if record is None:
        return _NOT_INSTALLED
    if not _field(record, b"Status").endswith(_INSTALLED):
        return "the package is not fully installed"
    version = text_path(_field(record, b"Version"))
    return "" if version == package.version else f"its version is {version}"


def _records(data: bytes) -> Mapping[str, bytes]:
    """Return the stanzas of dpkg's status file by the package's key, without the empty line at their ends."""
    records = {}
    for stanza in data.split(b"\n\n"):
        architecture = _field(stanza, b"Architecture")
        if architecture:  # a package that was removed may have none
            key = text_path(_field(stanza, b"Package") + b":" + architecture)
            records[key] = _without_triggers(stanza).strip(b"\n")
    return records


def _without_triggers(stanza: bytes) -> bytes:
    """Return the stanza as it will be when all triggers are processed."""
    if b" ok triggers-" not in stanza:
        return stanza
    return _TRIGGER_FIELDS.sub(b"", _TRIGGERS.sub(rb"\1 installed", stanza))


def _field(stanza: bytes, name: bytes) -> bytes:
    """Return the value of a field of one line; empty if the stanza does not have it. deb822(5)."""
    start = (b"\n" + stanza).find(b"\n" + name + b":")
    return b"" if start < 0 else stanza[start + len(name) + 1 :].partition(b"\n")[0].strip()


def _diversions(data: bytes, manifest: Manifest) -> bytes:
    """Return the diversions by packages of the manifest, and those that moved one of its files.

    Each takes three lines: the path, where it was moved, and the package or ":" (dpkg-divert(1)).
    """
    lines = data.split(b"\n")
    if len(lines) < 3:  # noqa: PLR2004 - none
        return b""
    packages = {package.name.encode() for package in manifest.packages}
    names = Names(manifest.files)
    triples = zip(lines[::3], lines[1::3], lines[2::3])
    kept = [each for each in triples if each[2] in packages or names.find(each[1]).entry]
    return b"".join(line + b"\n" for each in kept for line in each)


def _architectures(manifest: Manifest) -> bytes:
    """Return the native architecture and those of foreign packages, one a line (dpkg --add-architecture)."""
    native = manifest.header.architecture
    foreign = {package.architecture for package in manifest.packages} - {native, _ALL}
    return "".join(f"{name}\n" for name in (native, *sorted(foreign))).encode()


def _read(root: bytes, path: bytes) -> bytes:
    """Return the content of a file of the host's package database; empty if there is none."""
    try:
        return read_below(root, root.rstrip(b"/") + path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise JailError(
            f"cannot make {text_path(path)} for the jail: {os_error_text(error)}; make it readable, or "
            f"make the manifest again without a package database ({parameter(_WITHOUT)})"
        ) from error
