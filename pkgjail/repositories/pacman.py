"""Repositories of pacman packages, as repo-add(8) makes them: a tar archive of `desc` (and `files`) files."""

from __future__ import annotations

import io
import os
import re
import tarfile
from functools import partial
from typing import TYPE_CHECKING, Any

from pkgjail.backends.pacman.database import BASE
from pkgjail.backends.pacman.relations import entry_groups, is_satisfied, parse_relation
from pkgjail.core import untrusted
from pkgjail.core.architectures import known_architecture
from pkgjail.core.model import is_word
from pkgjail.core.text import text_path
from pkgjail.repositories.formats import LoadedRepository
from pkgjail.repositories.metadata import Metadata, as_file, fault, first_packed, parsing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pkgjail.core.model import DependencyGroup, Package
    from pkgjail.repositories.formats import Offer, PoolIndex

_MAX_MEMBERS = 100_000  # several times those of Arch's largest repository; each costs memory
_NEEDED = ("NAME", "VERSION", "ARCH")
_DATABASE = re.compile(r"(?P<stem>.+)\.db(?:\.tar(?:\.[a-z0-9]+)?)?")


class PacmanFormat:
    """`formats.RepositoryFormat` for Arch Linux and its derivatives."""

    family = "arch"
    disttype = "DISTTYPE_ARCH"
    everywhere = "any"
    multilib = False
    fields = ("Depends", "Depends")

    def architecture(self, machine: str) -> str:
        """Return pacman's word, which is mostly that of uname(2)."""
        known = known_architecture(machine)
        return known.pacman if known and machine in {known.machine, known.debian} else machine

    def load(
        self, solv: Any, solv_pool: Any, path: str, architecture: str, *, contents: bool
    ) -> tuple[LoadedRepository, ...]:
        """Read each database at or in `path`, by name."""
        del architecture  # libsolv selects by it
        paths = _databases(path) if os.path.isdir(path) else [path]
        if not paths:
            raise fault(
                path, "it has no file such as core.db", "name a repository's database, or their directory"
            )
        return tuple(_load(solv, solv_pool, one, contents=contents) for one in paths)

    def parse(self, text: str, index: PoolIndex) -> tuple[DependencyGroup, ...]:
        """Parse an entry as the pacman backend does."""
        return entry_groups(text, index.groups, index.provides)

    def base(self, loaded: Collection[LoadedRepository]) -> tuple[tuple[str, ...], ...]:
        """Return the package `base`."""
        return ((BASE,),) if any(one.essential for one in loaded) else ()

    def alternatives(self, text: str) -> tuple[str, ...]:
        """Return the name of each alternative."""
        return tuple(part.split(" ", maxsplit=1)[0] for part in text.split(" | "))

    def groups(self, text: str, kind: str) -> tuple[DependencyGroup, ...]:
        """Return none: pacman's requirements are plain."""
        del text, kind
        return ()

    def is_satisfied(self, text: str, offer: Offer) -> bool:
        """Apply pacman's rules to each alternative: libsolv accepts provisions without a version for all."""
        if " " not in text:
            return True
        offers = [parse_relation(one) for one in offer.provides]
        return any(
            is_satisfied(parse_relation(one), offer.name, offer.version, offers) for one in text.split(" | ")
        )

    def native(self, text: str) -> str:
        """Return the text without spaces."""
        return text.replace(" ", "")


def _databases(directory: str) -> list[str]:
    """The databases of a directory, one for each name; of several files, the one that pacman prefers."""
    found: dict[str, str] = {}
    for name in sorted(os.listdir(directory)):
        match = _DATABASE.fullmatch(name)
        if match and not name.endswith((".sig", ".old")):
            found.setdefault(match["stem"], os.path.join(directory, name))
    return [found[stem] for stem in sorted(found)]


def _load(solv: Any, solv_pool: Any, path: str, *, contents: bool) -> LoadedRepository:
    metadata = Metadata()
    data = metadata.unpacked(path)
    entries = dict(_read(path, data, "desc"))
    groups: dict[str, list[str]] = {}
    for where, fields in sorted(entries.items()):
        absent = [name for name in _NEEDED if len(fields.get(name, ())) != 1]
        if absent:
            raise fault(path, f"{where} does not have one %{absent[0]}%")
        bad = [name for name in _NEEDED if not is_word(fields[name][0])]
        if bad:
            raise fault(path, f"{where} has a blank or an unprintable character in %{bad[0]}%")
        for group in fields.get("GROUPS", ()):
            groups.setdefault(group, []).append(fields["NAME"][0])
    match = _DATABASE.fullmatch(os.path.basename(path))
    name = match["stem"] if match else os.path.basename(path)
    repository = solv_pool.add_repo(name)
    # libsolv prefers a package to those that it replaces. pacman does so only when it upgrades.
    with parsing(path), as_file(solv, data.replace(b"%REPLACES%\n", b"%-EPLACES%\n")) as file:
        if not repository.add_arch_repo(file, 0) or repository.nsolvables != len(entries):
            raise fault(path, f"libsolv read {repository.nsolvables} of its {len(entries)} packages")
    lists = first_packed(os.path.join(os.path.dirname(path), f"{name}.files")) or first_packed(
        os.path.join(os.path.dirname(path), f"{name}.files.tar")
    )
    return LoadedRepository(
        name=name,
        metadata=metadata,
        handle=repository,
        essential=frozenset({BASE} & {fields["NAME"][0] for fields in entries.values()}),
        groups={group: tuple(sorted(members)) for group, members in groups.items()},
        contents=partial(_contents, metadata, lists) if contents and lists else None,
    )


def _read(path: str, data: bytes, kind: str) -> Iterator[tuple[str, dict[str, tuple[str, ...]]]]:
    """The fields of each member `NAME-VERSION/kind` of the archive. Raises `DatabaseError`.

    An archive ends with two blocks of zeros (pax(1), "ustar Interchange Format"), which are missing if it
    was cut between two members.
    """
    if any(data[-1024:]):
        raise fault(path, "it is not a complete database of pacman (it has no end)")
    parsing_archive = untrusted.parsing(
        lambda why: fault(path, f"it is not a complete database of pacman ({why})")
    )
    with parsing_archive, tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        yield from _members(archive, kind)


def _members(archive: tarfile.TarFile, kind: str) -> Iterator[tuple[str, dict[str, tuple[str, ...]]]]:
    """As `_read`. Raises `ValueError`, and anything that tarfile raises.

    A member that is not a plain file is skipped: a link may lead to itself, and a sparse file may claim any
    size.
    """
    for number, member in enumerate(archive, 1):
        if number > _MAX_MEMBERS:
            raise ValueError(f"it has more than {_MAX_MEMBERS} members")
        file = archive.extractfile(member) if member.isreg() and member.name.endswith(f"/{kind}") else None
        if file is not None and not member.issparse():
            yield member.name, _fields(text_path(file.read()))


def _fields(text: str) -> dict[str, tuple[str, ...]]:
    """Parse blocks of `%NAME%`, one value per line, and an empty line."""
    fields = {}
    for block in text.strip("\n").split("\n\n"):
        head, *values = block.lstrip("\n").split("\n")
        fields[head.strip("%")] = tuple(values)
    return fields


def _contents(metadata: Metadata, lists: str, packages: Collection[Package]) -> dict[str, tuple[bytes, ...]]:
    """Return the paths of each of `packages` by key, with directories, as in the `.files` database."""
    keys = {f"{one.name}-{one.version}/files": one.key for one in packages}
    data = metadata.unpacked(lists, untrusted.FILE_LISTS)
    return {
        keys[where]: tuple(
            sorted(b"/" + one.encode("utf-8", "surrogateescape").rstrip(b"/") for one in fields["FILES"])
        )
        for where, fields in _read(lists, data, "files")
        if where in keys and "FILES" in fields
    }
