"""What caused a path to differ between two manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pkgjail.core.model import FileEntry, Manifest

PackageChangeKind = Literal["added", "removed", "upgraded", "downgraded", "changed"]
"""What became of a package from one manifest to the other."""

Aspect = Literal["type", "content", "digest", "size", "mode", "target", "owners", "origin"]
"""What may differ of a path that is in both manifests."""

# Of the changes of several owners the one that says most.
_ORDER: tuple[PackageChangeKind, ...] = ("upgraded", "downgraded", "changed", "added", "removed")
# What a package's records say of a path, and nothing of what is there.
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
"""What made a path differ: see `Cause`."""


class Cause(NamedTuple):
    """Why a path differs, by the `kind` and a `detail` of it.

    - "package": `detail` is the package's key and how it changed;
    - "blacklist": a rule drops it in one of the manifests; `detail` is the rule;
    - "whitelist": `[files]` of a whitelist names it in one of them; `detail` is the line;
    - "alternatives": another choice was made; `detail` is the group;
    - "generated": a program of the host made it anew; `detail` says which;
    - "configuration": the administrator's change of a configuration file; `detail` is the package;
    - "host": the host has it otherwise while nothing of the packages or the policy changed (drift);
      `detail` is the package that lists it, or "";
    - "digests": nothing but that one of the manifests has no digests;
    - "pkgjail": it is made at entry, or a directory that something else needs.
    """

    kind: CauseKind
    detail: str = ""


class Causes:
    """The causes between two manifests.

    `changes` says for each package that came, went or has another version how it changed.
    """

    def __init__(self, old: Manifest, new: Manifest, changes: Mapping[str, PackageChangeKind]) -> None:
        """Index what is in, what was dropped and what was missing."""
        self._rules = tuple({one.path: one.rule for one in manifest.dropped} for manifest in (old, new))
        self._files = tuple({one.path: one for one in manifest.files} for manifest in (old, new))
        self._missing = tuple({one.path for one in manifest.missing} for manifest in (old, new))
        self._same_policy = old.header.policy == new.header.policy
        self._changes = changes

    def of(
        self, path: bytes, old: FileEntry | None, new: FileEntry | None, what: Collection[Aspect] = ()
    ) -> Cause:
        """The cause of a path that is `old` in the one manifest and `new` in the other.

        The first of these that holds: a blacklist's rule took it from one of them; an alternatives group
        chose otherwise; a package that lists it came, went or has another version; a whitelist's line names
        it; digests alone are missing; then it is the host's doing.
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
        """The rule by which the manifest that lacks `entry` dropped it, or what this alternative leads to."""
        rules, files = self._rules[lacking], self._files[1 - lacking]
        for _ in range(3):  # the link, the administrative link, the target
            if path in rules or entry.origin != "alternative" or entry.target is None:
                return rules.get(path)
            path = entry.target
            entry = files.get(path, entry)
        return rules.get(path)

    def _package(self, old: FileEntry | None, new: FileEntry | None, what: Collection[Aspect]) -> str | None:
        """The owner that changed, and how, or None where none did that explains the change.

        While another owner stays as it is, one that comes or goes changes what lists a path, and nothing of
        what is there.
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
        """Whether a package listed the path in the manifest that lacks it, too: then the host lacked it."""
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
