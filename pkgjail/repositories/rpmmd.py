"""Repositories of rpm packages (rpm-md), as createrepo_c(8) makes them, and dnf and zypper read them.

repomd.xml names the other files with their digests, which are checked.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from pkgjail.backends.rpm import boolean
from pkgjail.backends.rpm.installed import ARCHITECTURES, BASE
from pkgjail.core.architectures import known_architecture
from pkgjail.core.model import record
from pkgjail.core.untrusted import FILE_LISTS, METADATA, SETTINGS
from pkgjail.repositories.formats import LoadedRepository
from pkgjail.repositories.metadata import Metadata, as_file, fault, parsing, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    _Parts = Mapping[str, "_Part"]

    from pkgjail.core.model import DependencyGroup, Package, Relation
    from pkgjail.repositories.formats import Offer, PoolIndex

_NAMESPACE = "{http://linux.duke.edu/metadata/repo}"
_COUNT = re.compile(rb"<metadata [^<>]*packages=\"([0-9]{1,9})\"")
_REQUIRES, _REQUIRES_END = b"<rpm:requires>", b"</rpm:requires>"
_PATH = re.compile(rb"name=\"[^\"]*?(/[^\" )]+)")
_LISTED = re.compile(rb"<file(?: [^<>]*)?>([^<]+)</file>")
# A rich requirement longer than any that a packager writes; libsolv recurses for each parenthesis.
_TOO_RICH = re.compile(rb"[\"'](?:\(|&)[^\"'<]{16384}")
_MAX_TAG, _MAX_COMMENT, _MAX_COMMENTS = 1 << 18, 1 << 16, 10_000  # bytes, bytes, and how many
_COMMENT = re.compile(rb"<!--|<\?|<!\[CDATA\[")
_ENDS = {b"<!--": b"-->", b"<?": b"?>", b"<![CDATA[": b"]]>"}
_DIGESTS = {"sha": "sha1"}
_KNOWN_DIGESTS = frozenset({"md5", "sha1", "sha224", "sha256", "sha384", "sha512"})
# Packages of the base set that replace each other: one of each tuple is needed.
_EITHER = (("coreutils", "coreutils-single"),)


class RpmMdFormat:
    """`formats.RepositoryFormat` for Fedora, RHEL and its rebuilds (`rhel`), and for openSUSE (`suse`)."""

    disttype = "DISTTYPE_RPM"
    everywhere = "noarch"
    fields = ("Requires", "Requires(pre)")

    def __init__(self, family: str) -> None:
        self.family = family
        self.multilib = family == "rhel"  # openSUSE has packages with other names for that

    def architecture(self, machine: str) -> str:
        """Return rpm's word, which is mostly that of uname(2)."""
        known = known_architecture(machine)
        return known.rpm if known and machine not in ARCHITECTURES else machine

    def load(
        self, solv: Any, solv_pool: Any, path: str, architecture: str, *, contents: bool
    ) -> tuple[LoadedRepository, ...]:
        """Read the repository whose repomd.xml is at or below `path`."""
        del architecture  # libsolv selects by it
        candidates = (path, os.path.join(path, "repodata/repomd.xml"), os.path.join(path, "repomd.xml"))
        found = next(filter(os.path.isfile, candidates), "")
        if not found:
            raise fault(path, "it has no repodata/repomd.xml", "name a repository's directory")
        return (_load(solv, solv_pool, found, contents=contents),)

    def parse(self, text: str, index: PoolIndex) -> tuple[DependencyGroup, ...]:
        """Parse an entry as the rpm backend does."""
        if text.startswith("@"):
            raise ValueError(f"{text!r} is a group of a repository's; name packages")
        return tuple(
            replace(group, alternatives=tuple(_with_architecture(one, index) for one in group.alternatives))
            for group in boolean.entry_groups(text)
        )

    def base(self, loaded: Collection[LoadedRepository]) -> tuple[tuple[str, ...], ...]:
        """Return the packages of the rpm backend's base set that a repository has."""
        present = frozenset().union(*(one.essential for one in loaded))
        replaceable = {name for names in _EITHER for name in names}
        plain = [(name,) for name in sorted(present - replaceable)]
        either = [tuple(name for name in names if name in present) for names in _EITHER]
        return (*plain, *filter(None, either))

    def alternatives(self, text: str) -> tuple[str, ...]:
        """Return the names in a requirement from left to right."""
        try:
            return tuple(_names(boolean.parse(text)))
        except ValueError:  # rpm accepts names that are no requirement in a spec file
            return (text.split(" ", maxsplit=1)[0],)

    def groups(self, text: str, kind: str) -> tuple[DependencyGroup, ...]:
        """Return the parts of a rich requirement."""
        if not boolean.is_rich(text):
            return ()
        try:
            return boolean.groups(text, kind)
        except ValueError:  # libsolv accepts more than we do
            return ()

    def is_satisfied(self, text: str, offer: Offer) -> bool:
        """Return true: libsolv has the same rules."""
        del text, offer
        return True

    def native(self, text: str) -> str:
        """Return the text unchanged."""
        return text


def _names(node: boolean.Node) -> list[str]:
    if isinstance(node, boolean.Operation):
        return [name for operand in node.operands for name in _names(operand)]
    return [node.name]


def _with_architecture(relation: Relation, index: PoolIndex) -> Relation:
    """Split `name.arch`, unless a package has or provides that whole name."""
    name, dot, architecture = relation.name.rpartition(".")
    if (
        boolean.is_rich(relation.name)
        or not dot
        or architecture not in ARCHITECTURES
        or index.provides(relation)
    ):
        return relation
    return replace(relation, name=name, architecture=architecture)


@record
class _Part:
    """A file that repomd.xml names."""

    path: str
    algorithm: str
    digest: str


def _load(solv: Any, solv_pool: Any, path: str, *, contents: bool) -> LoadedRepository:
    metadata = Metadata()
    index = metadata.read(path, SETTINGS)
    parts = _parts(path, index)
    repository = solv_pool.add_repo(_label(path))
    with parsing(path), as_file(solv, index) as file:
        repository.add_repomdxml(file, 0)
    primary = _part(metadata, path, parts, "primary")
    _add(solv, solv_pool, parts["primary"].path, primary, lambda file: repository.add_rpmmd(file, None, 0))
    count = _COUNT.search(primary)
    if count is None or int(count[1]) != repository.nsolvables:
        said = f"says {count[1].decode()} packages" if count else "says no number of packages"
        raise fault(parts["primary"].path, f"it {said}, and libsolv read {repository.nsolvables}")
    extend = (
        partial(_extend, solv, solv_pool, repository, metadata, path, parts) if "filelists" in parts else None
    )
    return LoadedRepository(
        name=repository.name,
        metadata=metadata,
        handle=repository,
        essential=frozenset(one.name for one in repository.solvables if one.name in BASE),
        groups={},
        contents=partial(_contents, solv, repository) if contents and extend else None,
        required=frozenset(path for block in _required(primary) for path in _PATH.findall(block)),
        listed=frozenset(_LISTED.findall(primary)),
        extend=extend,
    )


def _extend(  # noqa: PLR0913, PLR0917 - bound by `partial`
    solv: Any, solv_pool: Any, repository: Any, metadata: Metadata, index: str, parts: _Parts
) -> None:
    """Read all file lists: primary.xml has only paths in bin and etc."""
    data = _part(metadata, index, parts, "filelists")
    flags = solv.Repo.REPO_EXTEND_SOLVABLES
    _add(solv, solv_pool, parts["filelists"].path, data, lambda file: repository.add_rpmmd(file, "FL", flags))


def _required(primary: bytes) -> Iterator[bytes]:
    """The lists of requirements in primary.xml."""
    _, *blocks = primary.split(_REQUIRES)
    return (block.partition(_REQUIRES_END)[0] for block in blocks)


def _label(path: str) -> str:
    """The name of the directory with `repodata`."""
    parts = os.path.dirname(os.path.abspath(path)).split("/")
    return (parts[-2] if parts[-1] == "repodata" and len(parts) > 1 else parts[-1]) or "repository"


def _parts(path: str, data: bytes) -> dict[str, _Part]:
    """Return the files that repomd.xml names, by type. Raises `DatabaseError`."""
    _refuse_hostile(path, data)
    with parsing(path):
        try:
            top = ET.fromstring(data)  # noqa: S314 - it has no entities of its own
        except ET.ParseError as error:
            line = error.position[0]
            raise fault(path, f"not well-formed XML ({error.msg})", line=line) from error
    base = os.path.dirname(os.path.dirname(os.path.abspath(path)))
    if os.path.basename(os.path.dirname(os.path.abspath(path))) != "repodata":
        base = os.path.dirname(os.path.abspath(path))
    found = {}
    for entry in top.iter(f"{_NAMESPACE}data"):
        location, checksum = entry.find(f"{_NAMESPACE}location"), entry.find(f"{_NAMESPACE}checksum")
        href = "" if location is None else location.get("href", "")
        if not href or checksum is None or href.startswith("/") or ".." in href.split("/"):
            raise fault(
                path, f"the entry {entry.get('type')!r} has no checksum, or no place below the repository"
            )
        algorithm = checksum.get("type", "")
        part = _Part(
            path=_place(base, href),
            algorithm=_DIGESTS.get(algorithm, algorithm),
            digest=(checksum.text or "").strip(),
        )
        found[entry.get("type", "")] = part
    if "primary" not in found:
        raise fault(path, "it names no primary metadata")
    return found


def _refuse_hostile(path: str, data: bytes) -> None:
    """Refuse XML that no metadata has, and that takes parsers very long.

    A document type may declare entities that grow. UTF-16, which would hide it from this search, has zero
    bytes. A parser that receives its input in pieces scans a tag or comment from the start for each piece.
    """
    for mark, what in ((b"<!DOCTYPE", "a document type"), (b"\0", "a byte 0")):
        at = data.find(mark)
        if at >= 0:
            line = data.count(b"\n", 0, at) + 1
            raise fault(path, f"it has {what}, which metadata never has", line=line)
    if any(data.find(b">", at, at + _MAX_TAG) < 0 for at in range(0, len(data) - _MAX_TAG, _MAX_TAG)):
        raise fault(path, f"it has a tag of more than {_MAX_TAG} bytes")
    for number, match in enumerate(_COMMENT.finditer(data)):
        end = data.find(_ENDS[match[0]], match.end(), match.end() + _MAX_COMMENT)
        if end < 0 or number == _MAX_COMMENTS:
            line = data.count(b"\n", 0, match.start()) + 1
            raise fault(path, "it has comments that are too long, or too many", line=line)


def _place(base: str, href: str) -> str:
    """Return the path of a file: below the repository, or beside repomd.xml if the user moved it there."""
    below = os.path.join(base, href)
    beside = os.path.join(base, os.path.basename(href))
    return beside if os.path.isfile(beside) and not os.path.isfile(below) else below


def _part(metadata: Metadata, index: str, parts: _Parts, kind: str) -> bytes:
    """Return the content of a file. Raises `DatabaseError` if its digest is not that of repomd.xml."""
    part = parts[kind]
    if part.algorithm not in _KNOWN_DIGESTS:
        raise fault(index, f"{part.algorithm!r} is not a digest of metadata")
    data = metadata.read(part.path)
    digest = hashlib.new(part.algorithm, data).hexdigest()
    if digest != part.digest:
        raise fault(part.path, f"its {part.algorithm} is not what {os.path.basename(index)} says")
    unpacked = unpack(part.path, data, METADATA if kind == "primary" else FILE_LISTS)
    _refuse_hostile(part.path, unpacked)
    if _TOO_RICH.search(unpacked):
        raise fault(part.path, "it has a requirement of more than 16,384 characters")
    return unpacked


def _add(solv: Any, solv_pool: Any, path: str, data: bytes, read: Callable[[Any], bool]) -> None:
    """Pass `data` of `path` to a function of libsolv."""
    with parsing(path), as_file(solv, data) as file:
        if not read(file):
            said = str(solv_pool.errstr)
            line = re.search(r" at line (\d+)", said)
            why = re.sub(r"^repo_rpmmd: | at line \d+(:\d+)?$", "", said)
            raise fault(path, why, line=int(line[1]) if line else 0)


def _contents(solv: Any, repository: Any, packages: Collection[Package]) -> dict[str, tuple[bytes, ...]]:
    """Return the paths of each of `packages` by key, with directories and ghosts, as in filelists.xml."""
    keys = {(one.name, one.version, one.architecture): one.key for one in packages}
    flags = solv.Dataiterator.SEARCH_FILES | solv.Dataiterator.SEARCH_COMPLETE_FILELIST
    found = {}
    for one in repository.solvables:
        key = keys.get((one.name, one.evr, one.arch))
        if key is not None:
            paths = {str(each.str) for each in one.Dataiterator(solv.SOLVABLE_FILELIST, None, flags)}
            found[key] = tuple(sorted(path.encode("utf-8", "surrogateescape") for path in paths))
    return found
