"""The library: one function a stage, and `resolve`, which goes the whole way to a manifest.

    open_database -> load_policy -> resolve_closure -> collect_files -> build_manifest
        -> write_manifest / read_manifest -> plan_jail -> run_in_jail

The stages are re-exported here; `pkgjail` itself exports them too. Nothing here prints or exits.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.backends import available, open_database
from pkgjail.errors import ClosureError, Problem
from pkgjail.files import collect_files
from pkgjail.graph import closure_graph, resolve_closure
from pkgjail.manifest import (
    build_manifest,
    dump_manifest,
    manifest_digest,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from pkgjail.mounts import plan_jail
from pkgjail.policy import load_policy, policy_digest, shipped_blacklists, shipped_whitelists
from pkgjail.reporter import SILENT
from pkgjail.seals import seal_host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pkgjail.model import Closure, Manifest
    from pkgjail.reporter import Reporter

__all__ = [
    "available",
    "build_manifest",
    "closure_graph",
    "collect_files",
    "dump_manifest",
    "load_policy",
    "manifest_digest",
    "open_database",
    "parse_manifest",
    "plan_jail",
    "policy_digest",
    "read_manifest",
    "resolve",
    "resolve_closure",
    "seal_host",
    "shipped_blacklists",
    "shipped_whitelists",
    "write_manifest",
]


def resolve(  # noqa: PLR0913 - one name says what; the rest have defaults
    whitelists: Sequence[str],
    blacklists: Sequence[str] = (),
    *,
    root: bytes = b"/",
    backend: str = "auto",
    recommends: bool | None = None,
    essential: bool | None = None,
    hashed: bool = True,
    allow_unmet: bool = False,
    reporter: Reporter = SILENT,
) -> Manifest:
    """Go from whitelists to a manifest of the host's packages and files, and seal it (`pkgjail.seals`).

    Args:
        whitelists: names of shipped lists, or paths.
        blacklists: likewise; those that the whitelists name come first.
        root: the directory whose package database and files are read.
        backend: "auto", or a backend by name.
        recommends: follow Recommends too; None leaves it to the whitelists.
        essential: take Essential packages in; None leaves it to the whitelists.
        hashed: record the SHA-256 of regular files.
        allow_unmet: record requirements that nothing installed satisfies, instead of refusing.
        reporter: hears of progress and of what was left out.

    Raises:
        PolicyError: the lists cannot be used; all their problems at once.
        DatabaseError: the package database cannot be read.
        ClosureError: requirements that nothing installed satisfies, each with who asked.
        OSError: a file cannot be read.

    """
    database = open_database(root, backend)
    policy = load_policy(
        whitelists, blacklists, database=database, recommends=recommends, essential=essential
    )
    closure = resolve_closure(database, policy)
    _refuse_unmet(closure, reporter, allow=allow_unmet)
    hasher = _hasher(root, reporter) if hashed else None
    file_set = collect_files(database, closure, policy, root=root, hasher=hasher, reporter=reporter)
    with contextlib.suppress(OSError):  # then the first entry seals it
        seal_host(file_set.entries, root)
    return build_manifest(
        policy, policy_digest(policy), database.distribution, database.architecture, closure, file_set
    )


def _hasher(root: bytes, reporter: Reporter) -> Callable[[Sequence[bytes]], Mapping[bytes, str]]:
    from pkgjail.hashing import HashCache, hash_files  # brings sqlite3 in

    return partial(hash_files, root=root, cache=HashCache.default(), reporter=reporter)


def _refuse_unmet(closure: Closure, reporter: Reporter, *, allow: bool) -> None:
    problems = [
        Problem(unmet.source, f"{unmet.kind}: {unmet.text}: {unmet.reason}") for unmet in closure.unmet
    ]
    if problems and not allow:
        problems.append(Problem("", "mend the packages, or accept these gaps with --allow-unmet"))
        raise ClosureError(problems)
    for problem in problems:
        reporter.warn(str(problem))
