"""One call of rpm for all that is installed, and its answer cut into packages.

Strings come as rpm's `:shescape` writes them: within quotes, a quote of their own as a shell wants it.
With those replaced by NUL, which no string of rpm's has, a string holds no quote. So two quotes in a
row behind a control character stand nowhere but where the format has put them.
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
from pkgjail.core.model import is_word, record, text_path
from pkgjail.core.untrusted import MIB, RPM_DATABASE, parsing, read_descriptor
from pkgjail.storage.scratch import scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
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
# RFC 4880, 9.4, as hashlib names them; what names none has MD5.
_ALGORITHMS = {0: "md5", 1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512", 11: "sha224"}
_NONE = b"(none)"  # without quotes
_SECTIONS, _FIELDS = 5, 5  # of a package, and of its first section
_RPM = "/usr/bin/rpm"
_MOST_SECONDS = 60
_MOST_PROCESSOR_SECONDS = 10
_MOST_ANSWERED = 128 * MIB  # several times what a system of everything has
_MOST_SAID = 1 << 16
_LIMITS = (
    (resource.RLIMIT_CPU, _MOST_PROCESSOR_SECONDS),
    (resource.RLIMIT_AS, 1024 * MIB),
    (resource.RLIMIT_FSIZE, RPM_DATABASE),
)
_OVER: dict[int, str] = {
    signal.SIGXCPU: f"rpm took more than {_MOST_PROCESSOR_SECONDS} seconds of a processor",
    signal.SIGXFSZ: f"rpm wrote more than {RPM_DATABASE // MIB} MiB",
}


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
    try:
        with scratch("rpm") as place:
            copy_store(root, store, os.fsencode(place))
            answer = _ask(root, store, _command(program, place, store.format.name, form), place)
    except OSError as error:
        raise root.error(
            os_error_text(error), "give TMPDIR a directory with room for a copy of the database"
        ) from error
    *blocks, rest = answer.replace(b"'\\''", b"\0").split(_PACKAGE.encode())
    if rest or not blocks:
        why = (
            "what rpm printed ends within a package" if rest else "it has no packages, or rpm cannot read it"
        )
        raise root.error(f"{text_path(store.file)}: {why}", _remedy(store))
    with _printed(root, store):
        return [cut(block) for block in blocks]


def _printed(root: Root, store: Store) -> AbstractContextManager[None]:
    return parsing(lambda why: root.error(f"{text_path(store.file)}: rpm printed {why}", _remedy(store)))


def _command(program: str, place: str, backend: str, form: str) -> list[str]:
    """The format is named so that rpm looks for no other; a program that can only read bdb knows it too."""
    return [program, "--dbpath", place, "--define", f"_db_backend {backend}", "-qa", "--qf", form]


def _ask(root: Root, store: Store, command: list[str], place: str) -> bytes:
    """What rpm answers, called with no file of the user's, in no language but the one that we read.

    Its database may be made for it to run without end, so what it may take is bounded.
    """
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/dev/null", "TMPDIR": place}
    # Files, as megabytes through a pipe would have the two wait for each other. They have no names.
    with tempfile.TemporaryFile(dir=place) as answer, tempfile.TemporaryFile(dir=place) as said:
        try:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=answer, stderr=said, cwd="/"
            )
        except OSError as error:
            why = f"{command[0]}: {os.strerror(error.errno or 0)}"
            raise root.error(why, "install rpm; it need not be the root's own") from error
        with process:
            try:
                _limit(process.pid)
                process.wait(_MOST_SECONDS)
            except BaseException as error:
                process.kill()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                why = f"{text_path(store.file)}: rpm took more than {_MOST_SECONDS} seconds"
                raise root.error(why, _remedy(store)) from error
        said.seek(0)
        _refuse_failure(root, store, process.returncode, said.read(_MOST_SAID))
        answer.seek(0)
        try:
            return read_descriptor(answer.fileno(), store.file, _MOST_ANSWERED)
        except OSError as error:
            why = f"{text_path(store.file)}: rpm printed more than {_MOST_ANSWERED // MIB} MiB"
            raise root.error(why, _remedy(store)) from error


def _limit(pid: int) -> None:
    """Bound what the process may take: its time, its memory, the files that it makes."""
    for what, most in _LIMITS:
        with suppress(ProcessLookupError):  # it has ended
            soft, hard = resource.prlimit(pid, what)
            allowed = min(one for one in (soft, hard, most) if one != resource.RLIM_INFINITY)
            resource.prlimit(pid, what, (allowed, hard))


def _refuse_failure(root: Root, store: Store, status: int, words: bytes) -> None:
    """Refuse an answer unless rpm said nothing of an error.

    It ends with 0 where it skipped a package that it could not read.
    """
    said = [line for line in text_path(words).splitlines() if line.strip()]
    faults = [line for line in said if line.startswith("error:") or "invalid %_db_backend" in line]
    if not status and not faults:
        return
    over = _OVER.get(-status, "")
    how = f"rpm was killed by signal {-status}" if status < 0 else "rpm failed"
    why = "; ".join((faults or said)[:3]) or f"it ended with {status} and said nothing"
    raise root.error(f"{text_path(store.file)}: {over or f'{how}: {why}'}", _remedy(store))


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
    # Imported keys have no architecture.
    if not (name and version and release and all(map(is_word, (name, version, release, architecture)))):
        raise ValueError(f"a name, version or architecture with a blank or an unprintable sign: {head[:4]!r}")
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
