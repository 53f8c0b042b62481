"""Who is responsible for what is lacking, and the way out: the manifest's own record, then the host's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.model import text_path
from pkgjail.core.paths import Names
from pkgjail.review.check.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.review.check.findings import Want


class Blame:
    """Makes findings of wants. All places are looked up at once, since package databases are slow."""

    def __init__(
        self, manifest: Manifest, root: bytes, database: PackageDatabase | None, wants: Iterable[Want]
    ) -> None:
        self._owners = {entry.path: entry.owners for entry in manifest.files}
        self._dropped = {dropped.path: dropped.rule for dropped in manifest.dropped}
        self._missing = {missing.path: missing.owners for missing in manifest.missing}
        self._packages = {package.key for package in manifest.packages}
        self._names = Names(manifest.files)
        self._real = _RealPaths(root)
        places = {place for want in wants for place in self._places(want)}
        self._on_host: Mapping[bytes, str] = {}
        if database is not None:
            self._on_host = database.owners(places | {p for one in places for p in _merged(one)})

    def is_void(self, want: Want) -> bool:
        """Whether a want of what belongs to the set is of nothing that this host has."""
        return want.of_the_set and not self._cause(want)[0]

    def is_note(self, want: Want) -> bool:
        """Whether it may be so wanted: what is lacking is optional, or a package's outside the set."""
        responsible = self._cause(want)[0] if want.of_the_set else ""
        return want.optional or (responsible in self._on_host.values() and responsible not in self._packages)

    def finding(self, want: Want) -> Finding:
        """The finding of one want."""
        responsible, fix = self._cause(want)
        return Finding(
            path=want.path,
            kind=want.kind,
            wanted=want.wanted,
            cause=want.cause,
            owners=self._owners.get(want.path, ()),
            responsible=responsible,
            fix=fix,
        )

    def _places(self, want: Want) -> tuple[bytes, ...]:
        """Where what is wanted would be, as packages list it: a link's end too, where the set has it.

        A directory above it that the set lacks is no such place: whose that is says nothing of what is in it.
        """
        places = [place for place in want.places if b"\0" not in place]  # which no file system has
        ends = ((place, self._names.find(place)) for place in places)
        lacking = [
            found.place
            for place, found in ends
            if found.entry is None and not place.startswith(found.place + b"/")
        ]
        return tuple(dict.fromkeys(map(self._real.of, (*lacking, *places))))

    def _cause(self, want: Want) -> tuple[str, str]:
        places = self._places(want)
        for place in places:
            rule = self._dropped_by(place)
            if rule:
                return rule, f"take {text_path(place)} back in: a line '!{text_path(place)}' behind that rule"
        for place in places:
            owner = self._owner(place)
            if owner:
                return owner, self._fix(owner, place)
        for place in places:
            if place in self._missing:
                listed = self._missing[place]
                fix = f"install {', '.join(listed)} again: the host lacks what it lists"
                return next(iter(listed), ""), fix
        for place in places:
            if os.path.lexists(self._real.on_host(place)):
                return (
                    "",
                    f"add {text_path(place)} to [files] of a whitelist: it is there, and no package owns it",
                )
        return "", self._nowhere(want)

    def _nowhere(self, want: Want) -> str:
        """The way out where what is wanted is nowhere on the host."""
        if want.kind == "unreadable":
            return "check as a user that may read it; if it has changed, resolve the manifest again"
        owners = ", ".join(self._owners.get(want.path, ())) or "what made it"
        leave_out = f"leave {text_path(want.path)} out by a blacklist (it comes with {owners})"
        if want.kind == "damaged":
            return f"install what has it again, or {leave_out}"
        return f"the host has no {text_path(want.wanted)} either: install what has it, or {leave_out}"

    def _dropped_by(self, place: bytes) -> str:
        """The rule that took `place` away, or a directory above it."""
        while place not in (b"", b"/"):
            if place in self._dropped:
                return self._dropped[place]
            place = place.rpartition(b"/")[0]
        return ""

    def _owner(self, place: bytes) -> str:
        return next((self._on_host[one] for one in (place, *_merged(place)) if one in self._on_host), "")

    def _fix(self, owner: str, place: bytes) -> str:
        if owner in self._packages:
            return (
                f"resolve the manifest again: {owner} is in it, and {text_path(place)} of that package is not"
            )
        return f'add "{owner.partition(":")[0]}" to [packages] of a whitelist'


class _RealPaths:
    """Paths as packages list them: directories above resolved as the host has them, the last name kept."""

    def __init__(self, root: bytes) -> None:
        self._prefix = root.rstrip(b"/")
        self._directories: dict[bytes, bytes] = {}

    def of(self, path: bytes) -> bytes:
        """The path as the host has it, its directory's links followed; each directory once."""
        directory, _, name = path.rpartition(b"/")
        if directory not in self._directories:
            real = os.path.realpath(self._prefix + directory)
            inside = real.startswith(self._prefix + b"/")
            self._directories[directory] = real[len(self._prefix) :] if inside else directory
        return self._directories[directory].rstrip(b"/") + b"/" + name

    def on_host(self, path: bytes) -> bytes:
        return self._prefix + path


def _merged(path: bytes) -> tuple[bytes, ...]:
    """The other name of a path that /usr was merged from: older packages list that one."""
    return (path[len(b"/usr") :],) if path.startswith(b"/usr/") else ()
