"""One call of rpm for all that is installed, and its answer cut into packages.

Strings come as rpm's `:shescape` writes them: within quotes, a quote of their own as a shell wants it.
With those replaced by NUL, which no string of rpm's has, a string holds no quote. So two quotes in a
row behind a control character stand nowhere but where the format has put them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from pkgjail.backends.rpm.store import copy_store
from pkgjail.model import record, text_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pkgjail.backends.root import Root
    from pkgjail.backends.rpm.store import Store

_T = TypeVar("_T")
_PACKAGE, _SECTION, _ITEM, _STRING = "\x1e''", "\x1d''", "\n''", "\t''\t"
FORMAT = _SECTION.join((
    _STRING.join(("%{NAME:shescape}", "%{VERSION:shescape}", "%{RELEASE:shescape}", "%{ARCH:shescape}"))
    + _STRING
    + "%{EPOCHNUM} %{LONGSIZE}",
    "[%{PROVIDEFLAGS} %{PROVIDENAME:shescape}\t''\t%{PROVIDEVERSION:shescape}\n'']",
    "[%{REQUIREFLAGS} %{REQUIREFLAGS:deptype} %{REQUIRENAME:shescape}\t''\t%{REQUIREVERSION:shescape}\n'']",
    "[%{RECOMMENDFLAGS} weak %{RECOMMENDNAME:shescape}\t''\t%{RECOMMENDVERSION:shescape}\n'']",
    "[%{FILEFLAGS} %{FILESTATES} %{FILENAMES:shescape}\n'']",
)) + _PACKAGE  # fmt: skip
_DIGESTS = _SECTION.join((
    _STRING.join(("%{NAME:shescape}", "%{VERSION:shescape}", "%{RELEASE:shescape}", "%{ARCH:shescape}"))
    + _STRING
    + "%{EPOCHNUM} %{FILEDIGESTALGO}",
    "[%{FILEDIGESTS} %{FILENAMES:shescape}\n'']",
)) + _PACKAGE  # fmt: skip
# RFC 4880, 9.4, as hashlib names them; what names none has MD5.
_ALGORITHMS = {0: "md5", 1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512", 11: "sha224"}
_NONE = b"(none)"  # without quotes
_SECTIONS, _FIELDS = 5, 5  # of a package, and of its first section
_RPM = "/usr/bin/rpm"


@record
class Header:
    """One installed package as rpm printed it; the lists are cut when they are asked for."""

    name: str
    version: str
    release: str
    architecture: str
    epoch: int
    size: int
    provides: bytes
    requires: bytes
    recommends: bytes
    files: bytes

    @property
    def evr(self) -> str:
        """`[epoch:]version-release`, without an epoch of 0, as rpm prints it."""
        return (
            f"{self.epoch}:{self.version}-{self.release}" if self.epoch else f"{self.version}-{self.release}"
        )


def query(root: Root, store: Store) -> list[Header]:
    """All that is installed, from one call of rpm on a copy of the database. Raises `DatabaseError`."""
    return _cut(root, store, FORMAT, _header)


def query_digests(root: Root, store: Store) -> dict[tuple[str, str, str], Mapping[bytes, str]]:
    """By name, version and architecture of each package the `algorithm:digest` of its files, as `query`."""
    return dict(_cut(root, store, _DIGESTS, _digests))


def _cut(root: Root, store: Store, form: str, cut: Callable[[bytes], _T]) -> list[_T]:
    """Each package in the format `form`, cut by `cut`."""
    program = shutil.which("rpm") or _RPM
    with tempfile.TemporaryDirectory(prefix="pkgjail-rpm-") as place:
        copy_store(root, store, os.fsencode(place))
        done = _ask(root, program, place, store.format.name, form)
    _refuse_failure(root, store, done)
    data = done.stdout.replace(b"'\\''", b"\0")
    *blocks, rest = data.split(_PACKAGE.encode())
    if rest or not blocks:
        why = (
            "what rpm printed ends within a package" if rest else "it has no packages, or rpm cannot read it"
        )
        raise root.error(f"{text_path(store.file)}: {why}", _remedy(store))
    try:
        return [cut(block) for block in blocks]
    except ValueError as error:
        raise root.error(f"{text_path(store.file)}: rpm printed {error}", _remedy(store)) from error


def _ask(root: Root, program: str, place: str, backend: str, form: str) -> subprocess.CompletedProcess[bytes]:
    """Call rpm, with no file of the user's, in no language but the one that we read.

    The format is named so that rpm looks for no other; a program that can only read bdb knows it too.
    """
    command = [program, "--dbpath", place, "--define", f"_db_backend {backend}", "-qa", "--qf", form]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/dev/null", "TMPDIR": place}
    try:
        # Megabytes through a pipe would have the two wait for each other.
        with open(os.path.join(place, "answer"), "w+b") as answer:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.PIPE,
                check=False,
                cwd="/",
            )
            answer.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, answer.read(), done.stderr)
    except OSError as error:
        why = f"{program}: {os.strerror(error.errno or 0)}"
        raise root.error(why, "install rpm; it need not be the root's own") from error


def _refuse_failure(root: Root, store: Store, done: subprocess.CompletedProcess[bytes]) -> None:
    """Refuse an answer unless rpm said nothing of an error.

    It ends with 0 where it skipped a package that it could not read.
    """
    said = [line for line in text_path(done.stderr).splitlines() if line.strip()]
    faults = [line for line in said if line.startswith("error:") or "invalid %_db_backend" in line]
    if not done.returncode and not faults:
        return
    how = f"rpm was killed by signal {-done.returncode}" if done.returncode < 0 else "rpm failed"
    why = "; ".join((faults or said)[:3]) or f"it ended with {done.returncode} and said nothing"
    raise root.error(f"{text_path(store.file)}: {how}: {why}", _remedy(store))


def _remedy(store: Store) -> str:
    return (
        f"where the database (format {store.format.name}) is newer than this rpm use a newer rpm; "
        "else restore it from a backup, or try 'rpmdb --rebuilddb' there"
    )


def _header(block: bytes) -> Header:
    """Cut one package. Raises `ValueError` for what the format does not print."""
    sections = block.split(_SECTION.encode())
    head = sections[0].split(_STRING.encode())
    if len(sections) != _SECTIONS or len(head) != _FIELDS:
        raise ValueError(f"a package without all its fields: {block[:80]!r}")
    name, version, release, architecture = map(_string, head[:4])
    epoch, size = head[4].split(b" ")
    return Header(
        name=name,
        version=version,
        release=release,
        architecture=architecture,
        epoch=int(epoch),
        size=_number(size),
        provides=sections[1],
        requires=sections[2],
        recommends=sections[3],
        files=sections[4],
    )


def _digests(block: bytes) -> tuple[tuple[str, str, str], Mapping[bytes, str]]:
    """Cut one package with its files' digests. Raises `ValueError`."""
    head, files = (*block.split(_SECTION.encode()), b"")[:2]
    fields = head.split(_STRING.encode())
    if len(fields) != _FIELDS:
        raise ValueError(f"a package without all its fields: {block[:80]!r}")
    name, version, release, architecture = map(_string, fields[:4])
    epoch, algorithm = map(_number, fields[4].split(b" "))
    evr = f"{epoch}:{version}-{release}" if epoch else f"{version}-{release}"
    kind = _ALGORITHMS.get(algorithm)
    items = (item.partition(b" ") for item in files.split(_ITEM.encode())[:-1] if kind)
    found = {
        path[1:-1].replace(b"\0", b"'"): f"{kind}:{digest.decode()}" for digest, _, path in items if digest
    }
    return (name, evr, architecture), found


def capabilities(section: bytes) -> Iterator[tuple[int, str, str]]:
    """The provides of a package: flags, name, and version, "" where there is none."""
    for item in section.split(_ITEM.encode())[:-1]:
        flags, _, rest = item.partition(b" ")
        name, _, version = rest.partition(_STRING.encode())
        yield _number(flags), _string(name), _string(version)


def requirements(section: bytes) -> Iterator[tuple[int, str, str, str]]:
    """The requirements of a package: flags, the kinds that rpm names (`pre,post`), name, version."""
    for item in section.split(_ITEM.encode())[:-1]:
        flags, kinds, rest = item.split(b" ", 2)
        name, _, version = rest.partition(_STRING.encode())
        yield _number(flags), kinds.decode(), _string(name), _string(version)


def files(section: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The files of a package: flags, state, path."""
    for item in section.split(_ITEM.encode())[:-1]:
        flags, state, name = item.split(b" ", 2)
        yield _number(flags), _number(state), name[1:-1].replace(b"\0", b"'")


def quoted(path: bytes) -> bytes:
    """How `path` stands at the end of an item."""
    return b"'" + path.replace(b"'", b"\0") + b"'" + _ITEM.encode()


def _string(item: bytes) -> str:
    """A string; "" for one that the package does not have."""
    return "" if item == _NONE else text_path(item[1:-1].replace(b"\0", b"'"))


@lru_cache(maxsize=1024)  # most are flags of files, and the same few
def _number(item: bytes) -> int:
    """A number; 0 for one that the package does not have."""
    return 0 if item == _NONE else int(item)
