"""Attribution: who is responsible for a gap, and how to fix it, by the manifest, then by the host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple

from pkgjail.core.paths import Names
from pkgjail.core.text import text_path
from pkgjail.review.check.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.review.check.findings import Gap


class _Responsible(NamedTuple):
    """The party that is responsible for a gap, and the candidate that shows it.

    - "rule": the blacklist's rule `name` dropped the path;
    - "package", "other package": the package `name` has it on the host, and is or is not in the set;
    - "missing": the package `name` of the set lists it, but the host lacked it;
    - "unowned": the host has it, but no package lists it;
    - "absent": the host has none of the candidates.
    """

    kind: Literal["rule", "package", "other package", "missing", "unowned", "absent"]
    name: str = ""
    path: bytes = b""


class Attribution:
    """Makes findings of gaps. It looks up all paths at once, because package databases are slow."""

    def __init__(
        self, manifest: Manifest, root: bytes, database: PackageDatabase | None, gaps: Iterable[Gap]
    ) -> None:
        self._owners = {entry.path: entry.owners for entry in manifest.files}
        self._dropped = {dropped.path: dropped.rule for dropped in manifest.dropped}
        self._missing = {missing.path: missing.owners for missing in manifest.missing}
        self._packages = {package.key for package in manifest.packages}
        self._names = Names(manifest.files)
        self._host = _HostPaths(root)
        paths = {path for gap in gaps for path in self._candidates(gap)}
        self._host_owners: Mapping[bytes, str] = {}
        if database is not None:
            self._host_owners = database.owners(paths | {old for path in paths for old in _unmerged(path)})

    def is_reported(self, gap: Gap) -> bool:
        """Return whether the gap is a finding or a note, and not something that this host does not have."""
        return not gap.only_if_attributed or self._responsible(gap).name != ""

    def is_note(self, gap: Gap) -> bool:
        """Return whether the gap is a note: it is optional, or only a package outside the set fills it.

        Nothing on the host may fill it either: packages have links, plugins and examples for others that they
        only suggest.
        """
        if gap.optional:
            return True
        if gap.optional_if_outside and not self._packages.isdisjoint(self._owners.get(gap.path, ())):
            return self._responsible(gap).kind in ("other package", "absent")
        return gap.only_if_attributed and self._responsible(gap).kind == "other package"

    def finding(self, gap: Gap) -> Finding:
        """Return the gap with its owners, who is responsible, and the fix."""
        responsible = self._responsible(gap)
        return Finding(
            path=gap.path,
            kind=gap.kind,
            wanted=gap.wanted,
            cause=gap.cause,
            owners=self._owners.get(gap.path, ()),
            responsible=responsible.name,
            fix=self._fix(gap, responsible),
        )

    def _candidates(self, gap: Gap) -> tuple[bytes, ...]:
        """Return the gap's candidates as packages list them, and the targets of those that are links.

        If the set lacks a directory above a candidate, who owns that directory says nothing about the
        candidate, so the directory is not returned.
        """
        candidates = [path for path in gap.candidates if b"\0" not in path]  # no file system has these
        found = ((path, self._names.find(path)) for path in candidates)
        targets = [
            end.place for path, end in found if end.entry is None and not path.startswith(end.place + b"/")
        ]
        return tuple(dict.fromkeys(map(self._host.listed, (*targets, *candidates))))

    def _responsible(self, gap: Gap) -> _Responsible:
        """Return the first that applies to any candidate: a rule, a package of the host, a missing path."""
        candidates = self._candidates(gap)
        for path in candidates:
            rule = self._dropping_rule(path)
            if rule:
                return _Responsible("rule", rule, path)
        for path in candidates:
            owner = self._host_owner(path)
            if owner:
                return _Responsible("package" if owner in self._packages else "other package", owner, path)
        for path in candidates:
            if path in self._missing:
                return _Responsible("missing", next(iter(self._missing[path]), ""), path)
        for path in candidates:
            if self._host.has(path):
                return _Responsible("unowned", "", path)
        return _Responsible("absent")

    def _dropping_rule(self, path: bytes) -> str:
        """Return the rule that dropped `path` or a directory above it, or ""."""
        while path not in (b"", b"/"):
            if path in self._dropped:
                return self._dropped[path]
            path = path.rpartition(b"/")[0]
        return ""

    def _host_owner(self, path: bytes) -> str:
        spellings = (path, *_unmerged(path))
        return next((self._host_owners[one] for one in spellings if one in self._host_owners), "")

    def _fix(self, gap: Gap, responsible: _Responsible) -> str:
        path = text_path(responsible.path)
        if responsible.kind == "rule":
            return f"take {path} back in: a line '!{path}' after that rule"
        if responsible.kind == "package":
            return f"resolve the manifest again: it has {responsible.name}, but not {path} of that package"
        if responsible.kind == "other package":
            return f'add "{responsible.name.partition(":")[0]}" to [packages] of a whitelist'
        if responsible.kind == "missing":
            owners = ", ".join(self._missing[responsible.path])
            return f"install {owners} again: the host lacks a file that it lists"
        if responsible.kind == "unowned":
            return f"add {path} to [files] of a whitelist: no package of the host owns it"
        return self._fix_if_absent(gap)

    def _fix_if_absent(self, gap: Gap) -> str:
        """Return the fix if the host has none of the candidates either."""
        if gap.kind == "unreadable":
            return "check as a user that may read it; if it has changed, resolve the manifest again"
        owners = ", ".join(self._owners.get(gap.path, ())) or "what made it"
        leave_out = f"leave {text_path(gap.path)} out by a blacklist (it comes with {owners})"
        if gap.kind == "damaged":
            return f"install its package again, or {leave_out}"
        if gap.kind == "module" and not gap.optional and not gap.only_if_attributed:
            # With all files of the host it does not fail, or it does not answer at all.
            return (
                f"take back what a blacklist dropped of it, or add what it needs to [files], or {leave_out}"
            )
        wanted = text_path(gap.wanted)
        return f"the host has no {wanted} either: install a package that has it, or {leave_out}"


class _HostPaths:
    """Resolves paths as packages list them: through the host's links, except for the last name."""

    def __init__(self, root: bytes) -> None:
        self._prefix = root.rstrip(b"/")
        self._directories: dict[bytes, bytes] = {}

    def listed(self, path: bytes) -> bytes:
        """Return the path with its directory's links followed; each directory is resolved once."""
        directory, _, name = path.rpartition(b"/")
        if directory not in self._directories:
            real = os.path.realpath(self._prefix + directory)
            is_below = real.startswith(self._prefix + b"/")
            self._directories[directory] = real[len(self._prefix) :] if is_below else directory
        return self._directories[directory].rstrip(b"/") + b"/" + name

    def has(self, path: bytes) -> bool:
        """Return whether the host has the path."""
        return os.path.lexists(self._prefix + path)


def _unmerged(path: bytes) -> tuple[bytes, ...]:
    """Return the path's name from before /usr was merged, if it had one: older packages list that."""
    return (path[len(b"/usr") :],) if path.startswith(b"/usr/") else ()
