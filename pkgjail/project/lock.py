"""Make the manifest of a project, and keep it as a lock beside its file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.api import load_policy, open_database, policy_digest, read_manifest, resolve, write_manifest
from pkgjail.core.errors import UsageError
from pkgjail.core.reporter import SILENT
from pkgjail.project.model import LOCK

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.project.model import Project


def lock_project(project: Project, *, reporter: Reporter = SILENT) -> Manifest:
    """Resolve what a project asks for, write its lock, and return the manifest.

    Raises:
        ClosureError, DatabaseError, OSError, PolicyError: as `pkgjail.api.resolve`.

    """
    manifest = resolve(project.lists, project.blacklists, packages=project.packages, reporter=reporter)
    write_manifest(manifest, LOCK)
    return manifest


def locked_manifest(project: Project, *, frozen: bool = False, reporter: Reporter = SILENT) -> Manifest:
    """Return the manifest of a project's lock; if the project asks for something else now, lock it anew.

    Args:
        project: what is asked for.
        frozen: refuse to make or change the lock.
        reporter: receives progress, and a warning if the lock is made anew.

    Raises:
        UsageError: the lock is missing, or is not of what the project asks for, and is `frozen`.
        ManifestError: the lock is damaged.
        DatabaseError, PolicyError: as `pkgjail.api.resolve`; also what else that raises, if it is called.

    """
    asked = policy_digest(
        load_policy(
            project.lists, project.blacklists, packages=project.packages, database=open_database(b"/")
        )
    )
    why = ""
    if os.path.lexists(LOCK):
        manifest = read_manifest(LOCK)
        if manifest.header.policy == asked:
            return manifest
        why = f"{project.file} asks for something else than {LOCK} has"
    if frozen:
        missing = f"{LOCK} is missing; make it with 'pkgjail lock', and keep it in version control"
        differs = f"{why}; run 'pkgjail lock', and review what differs"
        raise UsageError(f"cannot use the lock: {differs if why else missing}")
    if why:
        reporter.warn(f"{why}: locking anew")
    return lock_project(project, reporter=reporter)
