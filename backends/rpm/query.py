"""Call rpm once for all installed packages, and split its output into packages.

rpm's `:shescape` writes strings in quotes, with a quote inside as a shell needs it. Once those are replaced
by NUL, which no string of rpm has, strings have no quotes inside. So two quotes in a row after a control
character are always separators of the format.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from pkgjail.backends.rpm.store import copy_store
from pkgjail.core.errors import os_error_text
from pkgjail.core.model import is_word, record
from pkgjail.core.text import text_path
from pkgjail.core.untrusted import MIB, RPM_DATABASE, parsing, read_descriptor
from pkgjail.storage.scratch import scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

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
# RFC 4880, 9.4, with hashlib's names; packages without an algorithm have MD5.
_ALGORITHMS = {0: "md5", 1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512", 11: "sha224"}
_NONE = b"(none)"  # without quotes
_SECTIONS, _FIELDS = 5, 5  # of a package, and of its first section
_RPM = "/usr/bin/rpm"
_MAX_SECONDS = 60
_MAX_PROCESSOR_SECONDS = 10
_MAX_OUTPUT = 128 * MIB  # several times that of a system with every package
_MAX_ERRORS = 1 << 16
_LIMITS = (
    (resource.RLIMIT_CPU, _MAX_PROCESSOR_SECONDS),
    (resource.RLIMIT_AS, 1024 * MIB),
    (resource.RLIMIT_FSIZE, RPM_DATABASE),
)
# Parts of what rpm prints, besides errors, if it cannot read a format.
_UNKNOWN_FORMAT = ("invalid %_db_backend", "using dummy database")
_EXCEEDED: dict[int, str] = {
    signal.SIGXCPU: f"rpm took more than {_MAX_PROCESSOR_SECONDS} seconds of a processor",
    signal.SIGXFSZ: f"rpm wrote more than {RPM_DATABASE // MIB} MiB",
}


@record
class Header:
    """One installed package as rpm printed it; the lists are split when needed."""

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


def query_first(root: Root, stores: Sequence[Store]) -> tuple[Store, list[Header]]:
    """Return the first of `stores` that has packages, and these. Raises `DatabaseError`."""
    for store in stores:
        headers = query(root, store)
        if headers:
            return store, headers
    if not stores:
        raise root.error("it has no rpm database", "name the root directory of a system with one")
    why = f"{text_path(stores[0].file)}: it has no packages, or rpm cannot read it"
    raise root.error(why, _remedy(stores[0]))


def query(root: Root, store: Store) -> list[Header]:
    """Return all installed packages, from one call of rpm on a copy. Raises `DatabaseError`."""
    return _cut(root, store, FORMAT, _header)


def query_digests(root: Root, store: Store) -> dict[tuple[str, str, str], Mapping[bytes, str]]:
    """Return each file's `algorithm:digest` by name, version and architecture of its package, as `query`."""
    return dict(_cut(root, store, _DIGESTS, _digests))


def _cut(root: Root, store: Store, form: str, cut: Callable[[bytes], _T]) -> list[_T]:
    """Return each package in the format `form`, parsed by `cut`."""
    program = shutil.which("rpm") or _RPM
    try:
        with scratch("rpm") as place:
            copy_store(root, store, os.fsencode(place))
            answer = _ask(root, store, _command(program, place, store.format.name, form), place)
    except OSError as error:
        raise root.error(
            os_error_text(error), "give TMPDIR a directory with room for a copy of the database"
        ) from error
    *blocks, rest = answer.replace(b"'\\''", b"\0").split(_PACKAGE.encode())
    if rest:
        why = "what rpm printed ends within a package"
        raise root.error(f"{text_path(store.file)}: {why}", _remedy(store))
    with _printed(root, store):
        return [cut(block) for block in blocks]


def _printed(root: Root, store: Store) -> AbstractContextManager[None]:
    return parsing(lambda why: root.error(f"{text_path(store.file)}: rpm printed {why}", _remedy(store)))


def _command(program: str, place: str, backend: str, form: str) -> list[str]:
    """Name the database format, so that rpm tries no other; one that can only read bdb accepts it too."""
    return [program, "--dbpath", place, "--define", f"_db_backend {backend}", "-qa", "--qf", form]


def _ask(root: Root, store: Store, command: list[str], place: str) -> bytes:
    """Return rpm's output, without configuration files of the user, and in the language that we parse.

    A hostile database may make rpm run forever, so its resources are limited.
    """
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/dev/null", "TMPDIR": place}
    # Files without names: with pipes, rpm and we might wait for each other.
    with tempfile.TemporaryFile(dir=place) as answer, tempfile.TemporaryFile(dir=place) as errors:
        try:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=answer, stderr=errors, cwd="/"
            )
        except OSError as error:
            why = f"{command[0]}: {os.strerror(error.errno or 0)}"
            raise root.error(why, "install rpm; it need not be the root's own") from error
        with process:
            try:
                _limit(process.pid)
                process.wait(_MAX_SECONDS)
            except BaseException as error:
                process.kill()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                why = f"{text_path(store.file)}: rpm took more than {_MAX_SECONDS} seconds"
                raise root.error(why, _remedy(store)) from error
        errors.seek(0)
        _refuse_failure(root, store, process.returncode, errors.read(_MAX_ERRORS))
        answer.seek(0)
        try:
            return read_descriptor(answer.fileno(), store.file, _MAX_OUTPUT)
        except OSError as error:
            why = f"{text_path(store.file)}: rpm printed more than {_MAX_OUTPUT // MIB} MiB"
            raise root.error(why, _remedy(store)) from error


def _limit(pid: int) -> None:
    """Limit the time, the memory and the file sizes of the process."""
    for what, limit in _LIMITS:
        with suppress(ProcessLookupError):  # it has ended
            soft, hard = resource.prlimit(pid, what)
            allowed = min(one for one in (soft, hard, limit) if one != resource.RLIM_INFINITY)
            resource.prlimit(pid, what, (allowed, hard))


def _refuse_failure(root: Root, store: Store, status: int, printed: bytes) -> None:
    """Refuse output if rpm printed an error.

    It ends with 0 even if it skipped a package that it could not read.
    """
    lines = [line for line in text_path(printed).splitlines() if line.strip()]
    faults = [line for line in lines if line.startswith("error:") or any(map(line.count, _UNKNOWN_FORMAT))]
    if not status and not faults:
        return
    exceeded = _EXCEEDED.get(-status, "")
    how = f"rpm was killed by signal {-status}" if status < 0 else "rpm failed"
    why = "; ".join((faults or lines)[:3]) or f"it ended with {status} and said nothing"
    raise root.error(f"{text_path(store.file)}: {exceeded or f'{how}: {why}'}", _remedy(store))


def _remedy(store: Store) -> str:
    if store.format.name == "ndb":
        return (
            "many programs rpm are built without this format (ndb, of openSUSE), as Debian 12's is: use that "
            "of Debian 13 or openSUSE; otherwise restore the database from a backup, or try "
            "'rpmdb --rebuilddb' there"
        )
    return (
        f"if the database (format {store.format.name}) is newer than this rpm, use a newer rpm; "
        "otherwise restore it from a backup, or try 'rpmdb --rebuilddb' there"
    )


def _header(block: bytes) -> Header:
    """Parse one package. Raises `ValueError` for output that is not of the format."""
    sections = block.split(_SECTION.encode())
    head = sections[0].split(_STRING.encode())
    if len(sections) != _SECTIONS or len(head) != _FIELDS:
        raise ValueError(f"a package without all its fields: {block[:80]!r}")
    name, version, release, architecture = map(_string, head[:4])
    epoch, size = head[4].split(b" ")
    # Imported keys have no architecture.
    if not (name and version and release and all(map(is_word, (name, version, release, architecture)))):
        raise ValueError(
            f"a name, version or architecture with a blank or an unprintable character: {head[:4]!r}"
        )
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
    """Parse one package with the digests of its files. Raises `ValueError`."""
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
    """Yield the provides of a package: flags, name, and version ("" if there is none)."""
    for item in section.split(_ITEM.encode())[:-1]:
        flags, _, rest = item.partition(b" ")
        name, _, version = rest.partition(_STRING.encode())
        yield _number(flags), _string(name), _string(version)


def requirements(section: bytes) -> Iterator[tuple[int, str, str, str]]:
    """Yield the requirements of a package: flags, rpm's kinds (`pre,post`), name, version."""
    for item in section.split(_ITEM.encode())[:-1]:
        flags, kinds, rest = item.split(b" ", 2)
        name, _, version = rest.partition(_STRING.encode())
        yield _number(flags), kinds.decode(), _string(name), _string(version)


def files(section: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the files of a package: flags, state, path."""
    for item in section.split(_ITEM.encode())[:-1]:
        flags, state, name = item.split(b" ", 2)
        yield _number(flags), _number(state), name[1:-1].replace(b"\0", b"'")


def quoted(path: bytes) -> bytes:
    """Return `path` as it is at the end of an item."""
    return b"'" + path.replace(b"'", b"\0") + b"'" + _ITEM.encode()


def _string(item: bytes) -> str:
    """Parse a string; "" if the package has none."""
    return "" if item == _NONE else text_path(item[1:-1].replace(b"\0", b"'"))


@lru_cache(maxsize=1024)  # most are flags of files, and the same few
def _number(item: bytes) -> int:
    """Parse a number; 0 if the package has none."""
    return 0 if item == _NONE else int(item)
