"""From a closure to a file set that runs: owned paths, what no package lists, less the blacklist.

DESIGN: package lists alone do not run (no package owns `/usr/bin/awk` or the CA bundle), so the
set is made of four layers, each a function here or in `extras`; `draft` keeps and judges the
names, `tree` looks at the disk, `telling` has the warnings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.reporter import SILENT
from pkgjail.fileset import unowned
from pkgjail.fileset.builder import Draft, Name
from pkgjail.fileset.rootfs import Tree
from pkgjail.fileset.warnings import tell_idle, tell_missing
from pkgjail.policy.patterns import matcher

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pkgjail.core.model import Closure, FileSet, Origin, PackageDatabase, Policy
    from pkgjail.core.reporter import Reporter
    from pkgjail.fileset.builder import Hasher

__all__ = ["collect_files"]


def collect_files(  # noqa: PLR0913 - three things go in; the rest have defaults
    database: PackageDatabase,
    closure: Closure,
    policy: Policy,
    *,
    root: bytes = b"/",
    hasher: Hasher | None = None,
    reporter: Reporter = SILENT,
) -> FileSet:
    """Make the file set of `closure` as the root `root` has it on disk.

    Args:
        database: where `closure` comes from.
        closure: the packages.
        policy: its `includes` add paths, its `drops` take paths away.
        root: the directory that stands for `/`.
        hasher: gives the SHA-256 (hex) of the paths it is passed; None leaves digests out.
        reporter: hears of what was left out, and of the user's drops that match nothing.

    Returns:
        Entries, dropped and missing paths, each sorted by path. Paths are real: a name that a
        package lists as `/bin/sh` is `/usr/bin/sh` where `/bin` is a link, and the link is in.

    Raises:
        DatabaseError: a package's file list cannot be read.
        OSError: a file cannot be looked at or hashed.

    """
    judge = matcher(policy.drops)
    draft = Draft(Tree(root), judge)
    _add_owned(draft, database, closure)
    unowned.add_alternatives(draft, database.alternatives(), reporter)
    owners_of = _Owners(database, draft.tree)
    keys: dict[str, tuple[str, ...]] = {}
    for package in closure.packages:
        keys[package.name] = tuple(sorted((*keys.get(package.name, ()), package.key)))
    unowned.add_generated(draft, database.generated(), keys, owners_of)
    unowned.add_byte_code(draft)
    unowned.add_includes(draft, policy.includes, owners_of, reporter)
    file_set = draft.finish(hasher)
    tell_missing(file_set, reporter)
    tell_idle(judge.unmatched(), draft.tree, reporter)
    return file_set


def _add_owned(draft: Draft, database: PackageDatabase, closure: Closure) -> None:
    """The packages' own paths, each with every package that lists it."""
    names: dict[bytes, Name] = {}
    shared: dict[bytes, list[Name]] = {}
    for package in closure.packages:
        alone, conffiles = Name(owners=(package.key,)), database.conffiles(package)
        paths = database.owned_paths(package)
        own = dict.fromkeys(draft.places(paths), alone)
        if conffiles:
            changed = alone._replace(origin="conffile")
            own.update((draft.place(path), changed) for path in paths if path in conffiles)
        for place in names.keys() & own.keys():
            shared.setdefault(place, [names[place]]).append(own[place])
        names.update(own)
    names.update((place, _shared(each)) for place, each in shared.items())
    draft.add(names)


def _shared(names: Sequence[Name]) -> Name:
    """A name that several packages bring; its content is the administrator's if any of them says so."""
    origin: Origin = "conffile" if any(name.origin == "conffile" for name in names) else "package"
    return Name(owners=tuple(sorted(owner for name in names for owner in name.owners)), origin=origin)


class _Owners:
    """Which package of the whole database owns a path that is to come in without one."""

    def __init__(self, database: PackageDatabase, tree: Tree) -> None:
        self._database = database
        self._tree = tree

    def __call__(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """The owner's key for those real paths of `paths` that have one.

        A package may record `/usr/lib/x` as `/lib/x` where `/lib` is a link to `usr/lib`.
        """
        spelled = {path: path for path in paths}
        for link, target in self._tree.top_links():
            below = target + b"/"
            spelled.update((link + p[len(target) :], p) for p in paths if p.startswith(below))
        return {spelled[path]: key for path, key in self._database.owners(spelled.keys()).items()}
