"""Repositories of pacman packages: what repo-add(8) makes, a tar archive of `desc` files (and of `files`)."""

from __future__ import annotations

import io
import os
import re
import tarfile
from functools import partial
from typing import TYPE_CHECKING, Any

from pkgjail.backends.pacman.database import BASE
from pkgjail.backends.pacman.relations import group_of, group_of_name
from pkgjail.core import untrusted
from pkgjail.core.model import is_word, text_path
from pkgjail.repositories.formats import Loaded
from pkgjail.repositories.metadata import Metadata, as_file, fault, first_packed, parsing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pkgjail.core.model import DependencyGroup, Package, Relation
    from pkgjail.repositories.formats import Names

_MOST_MEMBERS = 100_000  # several times those of Arch's largest repository; each costs memory
_NEEDED = ("NAME", "VERSION", "ARCH")
_DATABASE = re.compile(r"(?P<stem>.+)\.db(?:\.tar(?:\.[a-z0-9]+)?)?")


class Pacman:
    """`kinds.Kind` for Arch Linux and its derivatives."""

    family = "arch"
    disttype = "DISTTYPE_ARCH"
    everywhere = "any"
    multilib = False
    fields = ("Depends", "Depends")

    def architecture(self, machine: str) -> str:
        """Pacman's words are those of uname(2), nearly."""
        return {"armv7l": "armv7h"}.get(machine, machine)

    def load(
        self, solv: Any, pool: Any, path: str, architecture: str, *, contents: bool
    ) -> tuple[Loaded, ...]:
        """Each database that `path` is or has, by name."""
        del architecture  # libsolv takes what suits it
        paths = _databases(path) if os.path.isdir(path) else [path]
        if not paths:
            raise fault(
                path, "it has no file such as core.db", "name a repository's database, or their directory"
            )
        return tuple(_load(solv, pool, one, contents=contents) for one in paths)

    def parse(self, text: str, names: Names) -> tuple[DependencyGroup, ...]:
        """Read one requirement as PKGBUILD(5) writes it, or the name of a group: all its packages."""
        group = group_of(text, "whitelist")
        relation = group.alternatives[0]
        members = names.groups.get(relation.name, ())
        if relation.operator or not members or names.provides(relation):
            return (group,)
        return tuple(group_of_name(name, "whitelist") for name in members)

    def base(self, loaded: Collection[Loaded]) -> tuple[tuple[str, ...], ...]:
        """The package `base`."""
        return ((BASE,),) if any(one.essential for one in loaded) else ()

    def alternatives(self, text: str) -> tuple[str, ...]:
        """The one name."""
        return (text.split(" ", maxsplit=1)[0],)

    def clauses(self, text: str) -> tuple[Relation, ...]:
        """None."""
        del text
        return ()

    def is_answered(self, text: str, provides: Collection[str]) -> bool:
        """To pacman a provide without a version answers no requirement of one; to libsolv it does."""
        name, _, rest = text.partition(" ")
        return not rest or name not in provides

    def shown(self, text: str) -> str:
        """Without the spaces."""
        return text.replace(" ", "")


def _databases(directory: str) -> list[str]:
    """The databases of a directory, one for each name, the file that pacman itself asks for first."""
    found: dict[str, str] = {}
    for name in sorted(os.listdir(directory)):
        match = _DATABASE.fullmatch(name)
        if match and not name.endswith((".sig", ".old")):
            found.setdefault(match["stem"], os.path.join(directory, name))
    return [found[stem] for stem in sorted(found)]


def _load(solv: Any, pool: Any, path: str, *, contents: bool) -> Loaded:
    metadata = Metadata()
    data = metadata.unpacked(path)
    entries = dict(_read(path, data, "desc"))
    groups: dict[str, list[str]] = {}
    for where, fields in sorted(entries.items()):
        lacking = [name for name in _NEEDED if len(fields.get(name, ())) != 1]
        if lacking:
            raise fault(path, f"{where} has not one %{lacking[0]}%")
        odd = [name for name in _NEEDED if not is_word(fields[name][0])]
        if odd:
            raise fault(path, f"{where} has a blank or an unprintable character in %{odd[0]}%")
        for group in fields.get("GROUPS", ()):
            groups.setdefault(group, []).append(fields["NAME"][0])
    match = _DATABASE.fullmatch(os.path.basename(path))
    name = match["stem"] if match else os.path.basename(path)
    repository = pool.add_repo(name)
    # To libsolv what replaces a package is always better than that. pacman asks only when it upgrades.
    with parsing(path), as_file(solv, data.replace(b"%REPLACES%\n", b"%-EPLACES%\n")) as file:
        if not repository.add_arch_repo(file, 0) or repository.nsolvables != len(entries):
            raise fault(path, f"libsolv read {repository.nsolvables} of its {len(entries)} packages")
    lists = first_packed(os.path.join(os.path.dirname(path), f"{name}.files")) or first_packed(
        os.path.join(os.path.dirname(path), f"{name}.files.tar")
    )
    return Loaded(
        name=name,
        metadata=metadata,
        handle=repository,
        essential=frozenset({BASE} & {fields["NAME"][0] for fields in entries.values()}),
        groups={group: tuple(sorted(members)) for group, members in groups.items()},
        contents=partial(_contents, metadata, lists) if contents and lists else None,
    )


def _read(path: str, data: bytes, kind: str) -> Iterator[tuple[str, dict[str, tuple[str, ...]]]]:
    """The fields of each member `NAME-VERSION/kind` of the archive. Raises `DatabaseError`.

    An archive ends with two blocks of zeros (pax(1), "ustar Interchange Format"), which one that was cut
    between two members has not.
    """
    if any(data[-1024:]):
        raise fault(path, "it is no whole database of pacman's (it has no end)")
    told = untrusted.parsing(lambda why: fault(path, f"it is no whole database of pacman's ({why})"))
    with told, tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        yield from _members(archive, kind)


def _members(archive: tarfile.TarFile, kind: str) -> Iterator[tuple[str, dict[str, tuple[str, ...]]]]:
    """As `_read`. Raises `ValueError`, and whatever tarfile does.

    A member that is no plain file is passed over: a link may lead to itself, and a sparse one may claim to
    have any size.
    """
    for number, member in enumerate(archive, 1):
        if number > _MOST_MEMBERS:
            raise ValueError(f"it has more than {_MOST_MEMBERS} members")
        file = archive.extractfile(member) if member.isreg() and member.name.endswith(f"/{kind}") else None
        if file is not None and not member.issparse():
            yield member.name, _fields(text_path(file.read()))


def _fields(text: str) -> dict[str, tuple[str, ...]]:
    """`%NAME%`, a value a line, an empty line."""
    fields = {}
    for block in text.strip("\n").split("\n\n"):
        head, *values = block.lstrip("\n").split("\n")
        fields[head.strip("%")] = tuple(values)
    return fields


def _contents(metadata: Metadata, lists: str, packages: Collection[Package]) -> dict[str, tuple[bytes, ...]]:
    """The files of each of `packages` by key, directories too, as the `.files` database has them."""
    wanted = {f"{one.name}-{one.version}/files": one.key for one in packages}
    data = metadata.unpacked(lists, untrusted.FILE_LISTS)
    return {
        wanted[where]: tuple(
            sorted(b"/" + one.encode("utf-8", "surrogateescape").rstrip(b"/") for one in fields["FILES"])
        )
        for where, fields in _read(lists, data, "files")
        if where in wanted and "FILES" in fields
    }
