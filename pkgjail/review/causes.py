"""Find what caused a path to differ between two manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pkgjail.core.model import FileEntry, Manifest

PackageChangeKind = Literal["added", "removed", "upgraded", "downgraded", "changed"]
"""The change of a package from one manifest to the other."""

Aspect = Literal["type", "content", "digest", "size", "mode", "target", "owners", "origin"]
"""The properties of a path in both manifests that may differ."""

# The most informative change first, if several owners changed.
_ORDER: tuple[PackageChangeKind, ...] = ("upgraded", "downgraded", "changed", "added", "removed")
# Aspects of the packages' records, not of the file itself.
_RECORDS: frozenset[Aspect] = frozenset({"owners", "origin"})


CauseKind = Literal[
    "package",
    "blacklist",
    "whitelist",
    "alternatives",
    "generated",
    "configuration",
    "host",
    "digests",
    "pkgjail",
]
"""The kinds of causes: see `Cause`."""


class Cause(NamedTuple):
    """Why a path differs: the `kind` of cause and a `detail`.

    - "package": a package changed; `detail` is its key and how it changed;
    - "blacklist": a rule drops the path in one manifest; `detail` is the rule;
    - "whitelist": `[files]` of a whitelist names the path in one manifest; `detail` is the line;
    - "alternatives": another alternative was chosen; `detail` is the group;
    - "generated": a program of the host generated the file again; `detail` says which;
    - "configuration": an administrator changed a configuration file; `detail` is the package;
    - "host": the host's file changed, but neither packages nor policy did (drift); `detail` is the package
      that lists it, or "";
    - "digests": the only difference is that one manifest has no digests;
    - "pkgjail": the path is made at entry, or is a directory that another path needs.
    """

    kind: CauseKind
    detail: str = ""


class Causes:
    """The causes of differences between two manifests.

    `changes` maps each package that was added, removed or has another version to how it changed.
    """

    def __init__(self, old: Manifest, new: Manifest, changes: Mapping[str, PackageChangeKind]) -> None:
        """Index the files, and the dropped and missing names."""
        self._rules = tuple({one.path: one.rule for one in manifest.dropped} for manifest in (old, new))
        self._files = tuple({one.path: one for one in manifest.files} for manifest in (old, new))
        self._missing = tuple({one.path for one in manifest.missing} for manifest in (old, new))
        self._same_policy = old.header.policy == new.header.policy
        self._changes = changes

    def of(
        self, path: bytes, old: FileEntry | None, new: FileEntry | None, what: Collection[Aspect] = ()
    ) -> Cause:
        """Return the cause of a path that is `old` in one manifest and `new` in the other.

        The first that applies: a blacklist's rule dropped it from one of them; another alternative was
        chosen; a package that lists it was added, removed or has another version; a whitelist's line names
        it; only digests are missing; otherwise, the host changed it.
        """
        entry = next(one for one in (new, old) if one is not None)
        rule = self._rule(path, entry, 0 if old is None else 1) if None in {old, new} else None
        if rule is not None:
            return Cause("blacklist", rule)
        package = self._package(old, new, what)
        if entry.origin == "alternative" and (package is None or "target" in what):
            return Cause("alternatives", entry.detail)
        if package is not None and not self._was_missing(path, old, new):
            return Cause("package", package)
        if entry.origin == "include" and not what and not self._same_policy:
            return Cause("whitelist", entry.detail)
        if set(what) == {"digest"}:
            return Cause("digests")
        return _of_the_host(entry)

    def _rule(self, path: bytes, entry: FileEntry, lacking: int) -> str | None:
        """Return the rule that dropped `entry`, or what its alternative leads to, from the other manifest."""
        rules, files = self._rules[lacking], self._files[1 - lacking]
        for _ in range(3):  # the link, the administrative link, the target
            if path in rules or entry.origin != "alternative" or entry.target is None:
                return rules.get(path)
            path = entry.target
            entry = files.get(path, entry)
        return rules.get(path)

    def _package(self, old: FileEntry | None, new: FileEntry | None, what: Collection[Aspect]) -> str | None:
        """Return the owner whose change explains the path's, and how it changed; None if there is none.

        If another owner is unchanged, an added or removed owner changes who lists the path, but not the
        file.
        """
        before, after = (set(entry.owners) if entry is not None else set() for entry in (old, new))
        owners = before | after
        if set(what) - _RECORDS and any(owner not in self._changes for owner in before & after):
            owners = before & after
        changed = sorted(
            (owner for owner in owners if owner in self._changes),
            key=lambda owner: (_ORDER.index(self._changes[owner]), owner),
        )
        return f"{changed[0]} {self._changes[changed[0]]}" if changed else None

    def _was_missing(self, path: bytes, old: FileEntry | None, new: FileEntry | None) -> bool:
        """Return whether a package listed the path in the manifest that lacks it: then the host lacked it."""
        return path in self._missing[0] if old is None else new is None and path in self._missing[1]


def _of_the_host(entry: FileEntry) -> Cause:
    owner = entry.owners[0] if entry.owners else ""
    if entry.origin == "conffile":
        return Cause("configuration", owner)
    if entry.origin == "generated":
        return Cause("generated", entry.detail)
    if entry.origin in {"entry", "parent"}:
        return Cause("pkgjail")
    return Cause("host", owner)
