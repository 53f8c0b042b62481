"""The library: one function for each step, and `resolve`, which does them all up to a manifest.

    open_database -> load_policy -> resolve_closure -> collect_files -> build_manifest
        -> write_manifest / read_manifest

The steps are re-exported here. `pkgjail` itself also exports them, and functions that enter jails, which
resolving does not import. Nothing here prints or exits.
"""

from __future__ import annotations

import contextlib
import gc
import time
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.backends import available, open_database
from pkgjail.closure.graph import closure_graph
from pkgjail.closure.reasons import shortest_reasons
from pkgjail.closure.search import may_be_gone, resolve_closure
from pkgjail.core.errors import ClosureError, DatabaseError, Problem, UsageError
from pkgjail.core.families import with_family
from pkgjail.core.given import list_names, path_bytes, path_text, words
from pkgjail.core.model import Closure, Distribution, PackagePlan, PlannedPackage, Policy
from pkgjail.core.parameters import parameter
from pkgjail.core.reporter import SILENT, warn_each
from pkgjail.core.sources import source_at
from pkgjail.fileset import collect_files
from pkgjail.fileset.owned import required_owners
from pkgjail.manifest import (
    build_manifest,
    dump_manifest,
    manifest_digest,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from pkgjail.policy import load_policy, policy_digest, shipped_blacklists, shipped_whitelists
from pkgjail.policy.patterns import matcher
from pkgjail.storage.baseline import record_baseline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.images.model import Image, ImageLimits
    from pkgjail.repositories.pool import Pool
    from pkgjail.repositories.solver import Chosen

__all__ = [
    "available",
    "build_manifest",
    "closure_graph",
    "collect_files",
    "create_image",
    "dump_manifest",
    "load_policy",
    "manifest_digest",
    "open_database",
    "parse_manifest",
    "plan_packages",
    "policy_digest",
    "read_manifest",
    "record_baseline",
    "resolve",
    "resolve_closure",
    "shipped_blacklists",
    "shipped_whitelists",
    "whole_image",
    "write_manifest",
]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Turn off garbage collection, which takes a sixth more time, although nothing here becomes garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_uncollected()
def resolve(  # noqa: PLR0913 - one name says what; the rest have defaults
    whitelists: Iterable[AnyPath],
    blacklists: Iterable[AnyPath] = (),
    *,
    packages: Iterable[str] = (),
    root: AnyPath = b"/",
    backend: str = "auto",
    recommends: bool | None = None,
    essential: bool | None = None,
    package_database: bool | None = None,
    hashed: bool = True,
    allow_unmet: bool = False,
    baseline: bool = True,
    reporter: Reporter = SILENT,
) -> Manifest:
    """Resolve whitelists to a manifest of the host's packages and files, and record its baseline.

    Args:
        whitelists: names of shipped lists, or paths.
        blacklists: likewise; those that the whitelists name come first.
        packages: requirements besides those of the lists, as the family writes them: "zlib1g (>= 1:1.2)".
        root: the directory whose package database and files are read: the host's, another one, or the `root`
            of an image (`find_source`). The manifest records which of these it is.
        backend: "auto", or a backend by name.
        recommends: follow Recommends too; None leaves it to the whitelists.
        essential: include essential packages; None leaves it to the whitelists.
        package_database: include a package database of exactly the packages, if their package manager is
            among them; None leaves it to the whitelists.
        hashed: record the SHA-256 of regular files.
        allow_unmet: record requirements that nothing installed satisfies, instead of refusing. Those that
            only scripts of rpm packages have are always recorded.
        baseline: record one (`pkgjail.storage.baseline`); otherwise the caller does, or the first entry.
        reporter: receives progress, and warnings about what was left out.

    Raises:
        PolicyError: the lists cannot be used; all their problems at once.
        DatabaseError: the package database cannot be read.
        ClosureError: requirements that nothing installed satisfies, each with its source.
        OSError: a file cannot be read.

    """
    whitelists = list_names(whitelists, "whitelists")
    blacklists = list_names(blacklists, "blacklists")
    packages = words(packages, "packages")
    root = path_bytes(root, "root")
    began = time.time_ns()
    database = open_database(root, backend)
    policy = load_policy(
        whitelists,
        blacklists,
        packages=packages,
        database=database,
        recommends=recommends,
        essential=essential,
        package_database=package_database,
    )
    digest = policy_digest(policy)
    closure = resolve_closure(database, policy, required_owners(database, policy.owners, root, reporter))
    _refuse_unmet(closure, reporter, allow=allow_unmet)
    hasher = _hasher(root, reporter) if hashed else None
    file_set = collect_files(database, closure, policy, root=root, hasher=hasher, reporter=reporter)
    if baseline:
        with contextlib.suppress(OSError):  # then the first entry compares every file
            record_baseline(file_set.entries, root, since=began)
    distribution = with_family(database.distribution, database.family)
    source = source_at(root).recorded
    return build_manifest(policy, digest, distribution, database.architecture, closure, file_set, source)


def create_image(  # noqa: PLR0913 - one name says what; the rest have defaults
    name: str,
    whitelists: Iterable[AnyPath] = (),
    *,
    suite: str = "",
    architecture: str = "",
    mirrors: Iterable[str] = (),
    include: Iterable[str] = (),
    variant: str = "minbase",
    recommends: bool | None = None,
    store: AnyPath = "",
    replace: bool = False,
    limits: ImageLimits | None = None,
    reporter: Reporter = SILENT,
    listen: Callable[[str], object] = len,
) -> Image:
    """Create an image of Debian with the packages that whitelists name, by mmdebstrap(1).

    It downloads, and installs what the variant has and what satisfies each requirement of the whitelists, as
    apt does. Its archive is imported while it is written. SOURCE_DATE_EPOCH is set for it, unless it is
    already: the same packages give the same digest.

    Args:
        name: its name in the store.
        whitelists: names of shipped lists, or paths. Only their requirements for Debian count.
        suite: the release, such as "bookworm"; "" for that of this host, if it is Debian.
        architecture: any system's word for it; "" for this machine's. Its programs must run here, natively
            or by emulation, which is tried first.
        mirrors: addresses, lines of sources.list(5), or files with such lines; none for this host's own apt
            sources of the suite, or if there are none, mmdebstrap's choice.
        include: packages besides, as apt-get(8) takes them.
        variant: what mmdebstrap installs besides, one of `pkgjail.images.creating.VARIANTS`.
        recommends: install Recommends of the whitelists' packages too; None leaves it to the whitelists.
        store: the store's directory; "" for PKGJAIL_STORE, or the user's own.
        replace: take the name from another image that has it.
        limits: the most that the image may have; None for the usual ones.
        reporter: receives progress, and warnings about what was left out.
        listen: receives mmdebstrap's own messages, line by line, from another thread.

    Returns:
        The image, with its digest.

    Raises:
        PolicyError: the lists cannot be used; all their problems at once.
        ImageError: the image has more than the limits allow.
        PkgjailError: another image has the name, mmdebstrap is missing, or it failed: the error has its last
            lines. The store is as it was.
        UsageError: the name or an argument is none that can be used, or this host has no suite of Debian.
        OSError: the store cannot be written.

    """
    whitelists = list_names(whitelists, "whitelists")
    mirrors = words(mirrors, "mirrors")
    include = words(include, "include")
    store = path_text(store, "store")
    from pkgjail.backends.debian.archive import AnyPackages, host_sources, host_suite
    from pkgjail.images.creating import Recipe, create_from_recipe

    policy = load_policy(whitelists, database=AnyPackages(), recommends=recommends)
    rules = [
        f"{rule.origin}: {rule.pattern}: it is no package" for rule in (*policy.includes, *policy.owners)
    ]
    warn_each(reporter, rules, "rules of files; an image has what its packages have")
    suite = suite or host_suite()
    if not suite:
        raise UsageError(f"cannot create an image: this host is not Debian, so name a {parameter('suite')}")
    recipe = Recipe(
        suite=suite,
        variant=variant,
        requirements=policy.packages,
        include=include,
        mirrors=mirrors or host_sources(suite),
        architecture=architecture,
        recommends=policy.recommends,
    )
    return create_from_recipe(
        recipe, name, store=store, replace=replace, limits=limits, reporter=reporter, listen=listen
    )


def whole_image(image: Image) -> Manifest:
    """Return the manifest of a whole image: every name that all users may see, and no packages.

    `/etc/passwd`, `group`, `hosts`, `nsswitch.conf` and `resolv.conf` are made at entry, as in every jail.

    Raises:
        PkgjailError: the image's list is damaged.
        OSError: it cannot be read.

    """
    from pkgjail.images.store import read_listing
    from pkgjail.images.whole import whole_file_set

    distribution, architecture = system_of(image.root)
    policy = Policy(whitelists=(), blacklists=(), packages=(), essential=False)
    nothing = Closure(packages=(), dependencies=(), reasons={})
    files = whole_file_set(read_listing(image))
    source = source_at(image.root).recorded
    return build_manifest(policy, image.digest, distribution, architecture, nothing, files, source)


def system_of(root: bytes) -> tuple[Distribution, str]:
    """Return the distribution and the architecture of a root.

    Without a package database, they are "linux" and that of the programs in the root.
    """
    from pkgjail.backends.machine import machine_of

    try:
        database = open_database(root)
        return with_family(database.distribution, database.family), database.architecture
    except DatabaseError:
        return Distribution(id="linux", version=""), machine_of(root)


def _hasher(root: bytes, reporter: Reporter) -> Callable[[Sequence[bytes]], Mapping[bytes, str]]:
    from pkgjail.storage.hashing import HashCache, hash_files  # imports sqlite3

    return partial(hash_files, root=root, cache=HashCache.default(), reporter=reporter)


def _refuse_unmet(closure: Closure, reporter: Reporter, *, allow: bool) -> None:
    problems = [
        Problem(unmet.source, f"{unmet.kind}: {unmet.text}: {unmet.reason}")
        for unmet in closure.unmet
        if not may_be_gone(unmet)
    ]
    if problems and not allow:
        problems.append(
            Problem("", f"mend the packages, or accept these gaps with {parameter('allow_unmet=True')}")
        )
        raise ClosureError(problems)
    warn_each(reporter, list(map(str, problems)), "requirements that nothing installed satisfies")


def plan_packages(  # noqa: PLR0913 - one name says what; the rest have defaults
    whitelists: Iterable[AnyPath],
    blacklists: Iterable[AnyPath] = (),
    *,
    packages: Iterable[str] = (),
    sources: Iterable[str],
    architecture: str = "",
    recommends: bool | None = None,
    essential: bool | None = None,
    contents: bool = False,
    reporter: Reporter = SILENT,
) -> PackagePlan:
    """Plan the packages that would be installed for whitelists, also on another distribution.

    libsolv chooses the packages as if nothing were installed, from metadata on this machine: nothing is
    fetched. The result is not a manifest: it has only the names of files.

    Args:
        whitelists: names of shipped lists, or paths.
        blacklists: likewise; they remove file names.
        packages: as `resolve` takes them.
        sources: repositories' metadata, each `FAMILY:PATH` (docs/package-plans.md says which paths).
        architecture: that of the packages; "" for this machine's architecture.
        recommends: include recommended packages; None leaves it to the whitelists.
        essential: include the base set; None leaves it to the whitelists.
        contents: name the packages' files, if there are file lists.
        reporter: receives warnings about what was left out.

    Raises:
        PolicyError: the lists cannot be used, or name unavailable packages; all their problems at once.
        DatabaseError: the metadata cannot be read, or libsolv's binding is missing.
        ClosureError: the packages cannot be installed together; all conflicts that libsolv found.

    """
    whitelists = list_names(whitelists, "whitelists")
    blacklists = list_names(blacklists, "blacklists")
    packages = words(packages, "packages")
    sources = words(sources, "sources")
    from pkgjail.repositories import open_available  # imports XML and tar readers
    from pkgjail.repositories.solver import solve

    pool = open_available(sources, architecture, contents=contents)
    policy = load_policy(
        whitelists,
        blacklists,
        packages=packages,
        database=pool,
        recommends=recommends,
        essential=essential,
    )
    solution = solve(pool, policy)
    no_files = "a plan has no files but those of packages"
    rules = [f"{rule.origin}: {rule.pattern}: {no_files}" for rule in policy.includes]
    warn_each(reporter, rules, f"rules of files; {no_files}")
    files = _planned_files(pool, solution.chosen, reporter) if contents else {}
    planned, dropped = _planned(solution.chosen, files, policy)
    return PackagePlan(
        family=pool.family,
        architecture=pool.architecture,
        policy=policy_digest(policy),
        whitelists=policy.whitelists,
        blacklists=policy.blacklists,
        recommends=policy.recommends,
        essential=policy.essential,
        repositories=pool.repositories,
        packages=planned,
        dependencies=solution.dependencies,
        reasons=shortest_reasons(solution.dependencies),
        dropped=dropped,
    )


def _planned_files(pool: Pool, chosen: Iterable[Chosen], reporter: Reporter) -> dict[str, tuple[bytes, ...]]:
    """The files of each package by key; a package is missing if its repository has no file lists."""
    by_repository: dict[str, list[Chosen]] = {}
    for one in chosen:
        by_repository.setdefault(one.repository, []).append(one)
    found: dict[str, tuple[bytes, ...]] = {}
    for name, members in by_repository.items():
        listed = pool.contents([one.package for one in members], name)
        if listed is None:
            reporter.warn(f"{name}: there are no file lists beside its metadata, so no file names")
        else:
            found.update(listed)
    return found


def _planned(
    chosen: Iterable[Chosen], files: Mapping[str, tuple[bytes, ...]], policy: Policy
) -> tuple[tuple[PlannedPackage, ...], int]:
    """The packages with files that no blacklist drops, and the number of dropped files."""
    blacklist = matcher(policy.drops)
    planned, dropped = [], 0
    for one in chosen:
        listed = files.get(one.package.key)
        kept = None if listed is None else tuple(path for path in listed if blacklist(path) is None)
        dropped += len(listed or ()) - len(kept or ())
        planned.append(
            PlannedPackage(package=one.package, repository=one.repository, download=one.download, files=kept)
        )
    return tuple(planned), dropped
