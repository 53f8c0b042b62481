"""Explain why a package or a path is in a manifest, or is not."""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pkgjail.closure.reasons import Chains
from pkgjail.core.devices import find_devices, is_own, pattern_fault
from pkgjail.core.errors import QuestionError
from pkgjail.core.given import words
from pkgjail.core.model import record
from pkgjail.core.nearest import nearest_names
from pkgjail.core.paths import follow
from pkgjail.core.text import raw_path, text_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pkgjail.core.model import Dependency, FileEntry, Manifest, Missing, PackageDatabase

MOST_CHAINS = 1000
"""The most chains that `every` returns for a package."""

_DEV = b"/dev/"
_LINKS = b"/etc/alternatives/"
Verdict = Literal["package", "file", "device", "dropped", "missing", "absent"]
"""The kinds of answers: see `Answer`."""

# Characters of a name that have a meaning in gitignore(5).
_PATTERN = re.compile(r"[*?\[\\]")


@record
class Reason:
    """A package with chains of edges that lead to it, each from a whitelist's line or from "essential".

    `chains` has the shortest one, or every minimal one, shortest first. `cut` is set if there are more than
    `MOST_CHAINS`.
    """

    package: str
    version: str
    chains: tuple[tuple[Dependency, ...], ...]
    cut: bool = False


@record
class Answer:
    """Why `asked` is in a manifest, or is not.

    `verdict` is one of
    - "package": it names packages of the manifest, which are in `reasons`;
    - "file": it is a path of the manifest, `entry`. `reasons` has its owners, the nearest to a whitelist
      first (only that one, unless `every` chain was requested). For a directory without an owner, `below`
      is a path that needs it;
    - "device": this host has the device, and `rule`, a line of a whitelist, allows it; without a rule, every
      jail has it;
    - "dropped": the policy includes it, but `rule`, a line of a blacklist, dropped it;
    - "missing": packages list it, but the host lacks it; see `missing`;
    - "absent": nothing in the policy includes it.

    `path` is the resolved path: links above it are followed inside the manifest. If the name is not in the
    manifest, `owner` is the host's package that owns the path or has the name ("" if there is none, or no
    database was given), `reasons` has that package if it is in the manifest, and `remedy` is the whitelist
    line that would add the name ("" if a blacklist's rule forbids it, or there is nothing to add).

    `also` has the other paths of the same last name, if `asked` is no package's name but that of files.
    `alternative` is the group of update-alternatives(1) by which `owner` has the path. `installable` has the
    packages that are not installed and have the path or the name, by what a package manager has fetched, and
    `nearest` names of packages that may have been meant.
    """

    asked: str
    verdict: Verdict
    path: bytes = b""
    entry: FileEntry | None = None
    reasons: tuple[Reason, ...] = ()
    below: bytes = b""
    rule: str = ""
    missing: Missing | None = None
    owner: str = ""
    remedy: str = ""
    also: tuple[bytes, ...] = ()
    alternative: str = ""
    installable: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()

    @property
    def is_in(self) -> bool:
        """Return whether it is in the manifest."""
        return self.verdict in {"package", "file", "device"}


def why(
    manifest: Manifest,
    asked: Iterable[str],
    *,
    database: PackageDatabase | None = None,
    exists: Callable[[bytes], bool] | None = None,
    every: bool = False,
) -> tuple[Answer, ...]:
    """Explain, for each of `asked` in order, why it is in `manifest` or is not.

    Args:
        manifest: enough for everything that is in it or was dropped.
        asked: absolute paths as `text_path` writes them, names or keys (`name:architecture`) of packages, and
            last names of files (`zlib.h`).
        database: the host's packages, for names that are not in the manifest.
        exists: returns whether the host has a path; only an existing path is suggested for a whitelist.
        every: return every minimal chain instead of the shortest.

    Raises:
        QuestionError: one of `asked` is neither an absolute path nor a possible package name.
        DatabaseError: a record of `database` cannot be read.

    """
    asked = words(asked, "asked")
    index = _Index(manifest, database, exists, every=every)
    return tuple(map(index.answer, asked))


class _Index:
    """Indexes over a manifest."""

    def __init__(
        self,
        manifest: Manifest,
        database: PackageDatabase | None,
        exists: Callable[[bytes], bool] | None,
        *,
        every: bool,
    ) -> None:
        self._chains = Chains(manifest.dependencies)
        self._files = {entry.path: entry for entry in manifest.files}
        self._dropped = {dropped.path: dropped.rule for dropped in manifest.dropped}
        self._missing = {missing.path: missing for missing in manifest.missing}
        self._packages = {package.key: package for package in manifest.packages}
        self._top_links = tuple(_top_links(manifest.files))
        self._devices = manifest.devices
        self._database = database
        self._exists = exists
        self._every = every

    def answer(self, asked: str) -> Answer:
        """Answer for a path if the text starts with a slash, otherwise for a package."""
        if asked.startswith("/"):
            return self._for_path(asked)
        if not asked or "/" in asked:
            raise QuestionError(
                f"cannot say why {asked!r}: it is neither an absolute path nor a package's name; "
                "write a path that starts with '/'"
            )
        keys = sorted(key for key, package in self._packages.items() if asked in {key, package.name})
        if keys:
            return Answer(asked=asked, verdict="package", reasons=self._reasons(keys, every=True))
        return self._for_name(asked) or self._absent_package(asked)

    def _for_name(self, asked: str) -> Answer | None:
        """Answer for the files of this last name: the manifest's, otherwise those of the host's packages."""
        end = b"/" + raw_path(asked)
        found = [path for path in self._files if path.endswith(end)]
        if not found and not self._is_package(asked):
            found = self._on_host(end)
        if not found:
            return None
        # The shortest is likelier meant than one in a directory of examples.
        first, *others = sorted(found, key=lambda path: (path.startswith(_LINKS), path.count(b"/"), path))
        return replace(self._for_path(text_path(first)), asked=asked, also=tuple(others))

    def _on_host(self, end: bytes) -> list[bytes]:
        """Return the paths of the host's packages and alternatives that have this end."""
        if self._database is None:
            return []
        owned = (self._database.owned_paths(package) for package in self._database.packages.values())
        links = [link for group in self._database.alternatives() for link, _ in group.links]
        found = {path for paths in (*owned, links) for path in paths if path.endswith(end)}
        return [path for path in found if self._exists is None or self._exists(path)]

    def _is_package(self, asked: str) -> bool:
        found = {} if self._database is None else self._database.packages
        return any(asked in {key, package.name} for key, package in found.items())

    def _for_path(self, asked: str) -> Answer:
        spelled = b"/" + posixpath.normpath(raw_path(asked)).lstrip(b"/")
        path = self._real(spelled)
        entry = self._files.get(path)
        if entry is None:
            return self._for_device(asked, spelled) or self._absent_path(asked, spelled, path)
        below = b""
        if not entry.owners and entry.kind == "directory":
            below = self._first_below(path)
        reasons = self._reasons(entry.owners, every=self._every)
        return Answer(asked=asked, verdict="file", path=path, entry=entry, reasons=reasons, below=below)

    def _for_device(self, asked: str, path: bytes) -> Answer | None:
        if is_own(path):
            return Answer(asked=asked, verdict="device", path=path)
        for device in self._devices if path.startswith(_DEV) else ():
            if path in {found[0] for found in find_devices((raw_path(device.pattern),))}:
                return Answer(asked=asked, verdict="device", path=path, rule=device.rule)
        return None

    def _absent_path(self, asked: str, spelled: bytes, path: bytes) -> Answer:
        owner = self._owner_on_host((path, spelled))
        alternative = ""
        if not owner:
            owner, alternative = self._owner_by_alternative((path, spelled))
        missing, rule = self._missing.get(path), self._dropped.get(path, "")
        owners = missing.owners if missing else (owner,) if owner in self._packages else ()
        return Answer(
            asked=asked,
            verdict="missing" if missing else "dropped" if rule else "absent",
            path=path,
            reasons=self._reasons(owners, every=self._every),
            rule=rule,
            missing=missing,
            owner=owner,
            remedy="" if missing or rule else self._remedy(owner, path),
            alternative=alternative,
            installable=() if owner or missing or rule else self._installable(spelled),
        )

    def _installable(self, path: bytes) -> tuple[str, ...]:
        """Return the packages that are not installed and have a path, or any path of this last name."""
        if self._database is None or (self._exists is not None and path[:1] == b"/" and self._exists(path)):
            return ()
        return self._database.available_with(path)

    def _owner_by_alternative(self, paths: Iterable[bytes]) -> tuple[str, str]:
        """Return the host's package that one of `paths`, a link of alternatives, leads to, and the group."""
        if self._database is None:
            return "", ""
        wanted = {other for path in paths for other in (path, *self._other_spellings(path))}
        for group in self._database.alternatives():
            for number, link in enumerate(group.links):
                if wanted.isdisjoint(link):
                    continue
                for choice in sorted(group.choices, key=lambda each: -each.priority):
                    if owner := self._owner_on_host(choice.targets[number : number + 1]):
                        return owner, group.name
        return "", ""

    def _absent_package(self, asked: str) -> Answer:
        found = {} if self._database is None else self._database.packages
        key = min((key for key, package in found.items() if asked in {key, package.name}), default="")
        if key or self._database is None:
            remedy = self._remedy(key, b"") if key else ""
            return Answer(asked=asked, verdict="absent", owner=key, remedy=remedy)
        names = {package.name for package in found.values()}
        available = self._database.available_names()
        if asked in available:
            return Answer(asked=asked, verdict="absent", installable=(asked,))
        return Answer(
            asked=asked,
            verdict="absent",
            installable=self._installable(raw_path(asked)),
            nearest=tuple(nearest_names(asked, names) or nearest_names(asked, available)),
        )

    def _owner_on_host(self, paths: Iterable[bytes]) -> str:
        """Return the key of the host's package that owns one of `paths`.

        A package may record /usr/lib/x as /lib/x, if /lib is a link to usr/lib.
        """
        if self._database is None:
            return ""
        spelled = dict.fromkeys(other for path in paths for other in (path, *self._other_spellings(path)))
        owners = self._database.owners(spelled.keys())
        return next((owners[path] for path in spelled if path in owners), "")

    def _other_spellings(self, path: bytes) -> Iterator[bytes]:
        for link, place in self._top_links:
            if path.startswith(place + b"/"):
                yield link + path[len(place) :]

    def _remedy(self, owner: str, path: bytes) -> str:
        """Return the whitelist line that would add `owner`, or `path` if no package owns it."""
        if self._database is None or owner in self._packages:
            return ""
        if not owner:
            there = self._exists is not None and self._exists(path)
            return file_line(path) if there else ""
        return package_line(owner, self._database.family, self._database.architecture)

    def _reasons(self, keys: Iterable[str], *, every: bool) -> tuple[Reason, ...]:
        """Return the reasons of packages, nearest to a rule first; only the first unless `every`."""
        nearest = sorted(keys, key=lambda key: (len(self._chains.shortest(key)), key))
        return tuple(map(self._reason, nearest if every else nearest[:1]))

    def _reason(self, key: str) -> Reason:
        if self._every:
            chains = self._chains.minimal(key, MOST_CHAINS + 1)
        else:
            shortest = self._chains.shortest(key)
            chains = (shortest,) if shortest else ()
        return Reason(
            package=key,
            version=self._packages[key].version,
            chains=chains[:MOST_CHAINS],
            cut=len(chains) > MOST_CHAINS,
        )

    def _first_below(self, directory: bytes) -> bytes:
        """Return the first path below a directory that is more than a parent; b"" if there is none."""
        start = directory.rstrip(b"/") + b"/"
        below = (
            path for path, entry in self._files.items() if path.startswith(start) and entry.origin != "parent"
        )
        return min(below, default=b"")

    def _real(self, path: bytes) -> bytes:
        """Follow the manifest's links above `path`, but not its last name."""
        directory, _, name = path.rpartition(b"/")
        try:
            real = follow(directory, self._target)
        except OSError:  # links that go in a circle
            return path
        return real.rstrip(b"/") + b"/" + name

    def _target(self, path: bytes) -> bytes | None:
        entry = self._files.get(path)
        return None if entry is None else entry.target


def package_line(key: str, family: str, architecture: str) -> str:
    """Return the whitelist's line that adds the package `key`, on a system of this native architecture."""
    return f"packages.{family} = [{toml_string(package_entry(key, architecture))}]"


def package_entry(key: str, architecture: str) -> str:
    """Return the entry of a whitelist that names the package `key`, on a system of this architecture."""
    name, _, own = key.rpartition(":")
    return name if own in {architecture, "all"} else key


def file_line(path: bytes) -> str:
    """Return the whitelist's line that adds a path without a package; "" if a whitelist cannot name it."""
    pattern = file_pattern(path)
    is_device = path.startswith(_DEV) and not pattern_fault(raw_path(pattern))
    table = "devices" if is_device else "files"
    return f"{table}.include = [{toml_string(pattern)}]" if pattern else ""


def file_pattern(path: bytes) -> str:
    """Return the pattern of a whitelist that matches a path alone; "" if a whitelist cannot name it."""
    return _PATTERN.sub(r"\\\g<0>", text_path(path)) if _is_utf8(path) else ""


def _top_links(files: Iterable[FileEntry]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the links in the root directory, each with its target."""
    for entry in files:
        if entry.target is not None and entry.path.count(b"/") == 1:
            yield entry.path, posixpath.normpath(posixpath.join(b"/", entry.target))


def _is_utf8(path: bytes) -> bool:
    return path.decode("utf-8", "replace").encode() == path


def toml_string(text: str) -> str:
    """Return a TOML basic string: as in JSON, but for one character that only TOML forbids."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
