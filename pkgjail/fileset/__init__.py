"""Collect the file set of a closure: owned paths and unowned files, without what the blacklist drops.

The files that packages list are not enough to run programs: no package owns `/usr/bin/awk` or the CA
bundle. So there are five layers, each a function here or in `unowned`.

builder    add names, apply the blacklist, and make the entries
unowned    alternatives, files that maintainer scripts made, the package database, byte code, and the policy's
           own patterns
owned      packages that own what a pattern matches
rootfs     look at the disk below a root
warnings   warn of paths that are missing, and of rules without effect
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.given import path_bytes
from pkgjail.core.reporter import SILENT
from pkgjail.fileset import unowned
from pkgjail.fileset.builder import FileSetBuilder, Name
from pkgjail.fileset.owned import Owners
from pkgjail.fileset.rootfs import Tree
from pkgjail.fileset.warnings import warn_missing, warn_unmatched
from pkgjail.policy.patterns import matcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Closure, FileSet, Origin, PackageDatabase, Policy
    from pkgjail.core.reporter import Reporter
    from pkgjail.fileset.builder import Hasher

__all__ = ["collect_files"]


def collect_files(  # noqa: PLR0913 - three things go in; the rest have defaults
    database: PackageDatabase,
    closure: Closure,
    policy: Policy,
    *,
    root: AnyPath = b"/",
    hasher: Hasher | None = None,
    reporter: Reporter = SILENT,
) -> FileSet:
    """Return the file set of `closure` as it is on the disk below `root`.

    Args:
        database: the database that `closure` was found in.
        closure: the packages.
        policy: its `includes` add paths, its `drops` remove paths.
        root: the directory that stands for `/`.
        hasher: returns the SHA-256 (hex) of paths; None leaves digests out.
        reporter: receives warnings about what was left out, and the user's drops that match nothing.

    Returns:
        Entries, dropped and missing paths, each sorted by path. Paths are real: what a package lists as
        `/bin/sh` is `/usr/bin/sh` if `/bin` is a link, and the link is also in the set.

    Raises:
        DatabaseError: a package's file list cannot be read.
        OSError: a file cannot be examined or hashed.

    """
    root = path_bytes(root, "root")
    blacklist = matcher(policy.drops)
    builder = FileSetBuilder(Tree(root), blacklist)
    _add_owned(builder, database, closure)
    owners_of = Owners(database, builder.tree)
    keys: dict[str, tuple[str, ...]] = {}
    for package in closure.packages:
        keys[package.name] = tuple(sorted((*keys.get(package.name, ()), package.key)))
    unowned.add_generated(builder, database.generated(), keys, owners_of)
    unowned.add_made_by_scripts(builder, closure.packages, database.script_words, owners_of)
    # After these, because an alternative may be a generated file (Free Pascal's /etc/fpc.cfg).
    unowned.add_alternatives(builder, database.alternatives(), reporter)
    if policy.package_database:
        unowned.add_package_database(builder, database.database_files(closure.packages), reporter)
    unowned.add_byte_code(builder)
    unowned.add_includes(builder, policy.includes, owners_of, reporter)
    unowned.add_unowned_matches(builder, policy.owners, owners_of)
    file_set = builder.finish(hasher)
    warn_missing(file_set, reporter)
    warn_unmatched(blacklist.unmatched(), builder.tree, reporter)
    return file_set


def _add_owned(builder: FileSetBuilder, database: PackageDatabase, closure: Closure) -> None:
    """Add the packages' own paths, each with every package that lists it."""
    names: dict[bytes, Name] = {}
    shared: dict[bytes, list[Name]] = {}
    for package in closure.packages:
        alone, conffiles = Name(owners=(package.key,)), database.conffiles(package)
        paths = database.owned_paths(package)
        own = dict.fromkeys(builder.real_paths(paths), alone)
        if conffiles:
            changed = alone._replace(origin="conffile")
            own.update((builder.real_path(path), changed) for path in paths if path in conffiles)
        for place in names.keys() & own.keys():
            shared.setdefault(place, [names[place]]).append(own[place])
        names.update(own)
    names.update((place, _shared(each)) for place, each in shared.items())
    builder.add(names)


def _shared(names: Sequence[Name]) -> Name:
    """Return a name that several packages list; it is a conffile if any of them says so."""
    origin: Origin = "conffile" if any(name.origin == "conffile" for name in names) else "package"
    return Name(owners=tuple(sorted(owner for name in names for owner in name.owners)), origin=origin)
