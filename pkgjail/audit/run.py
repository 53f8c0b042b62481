"""Run a command in a jail, and record what it looked for."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.api import open_database
from pkgjail.audit.evidence import Run, Source, make_audit
from pkgjail.audit.libraries import known_libraries
from pkgjail.audit.supervisor import observe
from pkgjail.core.errors import DatabaseError, JailError
from pkgjail.core.given import path_bytes, words
from pkgjail.core.reporter import SILENT
from pkgjail.jails.run import prepare_jail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pkgjail.audit.model import Audit
    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.core.options import JailOptions
    from pkgjail.core.reporter import Reporter
    from pkgjail.jails.run import Jail
    from pkgjail.storage.baseline import Publisher


def run_audited(  # noqa: PLR0913 - all but two by keyword
    manifest: Manifest,
    argv: Iterable[AnyPath],
    options: JailOptions | None = None,
    *,
    root: AnyPath = b"/",
    publisher: Publisher | None = None,
    terminal: bool = False,
    reporter: Reporter = SILENT,
) -> Audit:
    """Run `argv` in a jail as `pkgjail.jails.run.run_in_jail` does, and return what it looked for.

    It is evidence and no boundary: another thread can change a path after it was read. The arguments are
    those of `run_in_jail`. The command's exit status is in the result.

    Raises:
        JailError: as `run_in_jail`; also if calls cannot be seen here, the process that sees them failed, or
            the programs run by emulation.
        CommandError: as `run_in_jail`, and other errors likewise.
        DatabaseError: the source's package database is damaged; a source without one has no packages.

    """
    argv = words(argv, "argv")
    root = path_bytes(root, "root")
    jail = prepare_jail(manifest, options, root=root, publisher=publisher, reporter=reporter)
    return audit_in(jail, argv, terminal=terminal)


def audit_in(jail: Jail, argv: Iterable[AnyPath], *, source: AnyPath = b"", terminal: bool = False) -> Audit:
    """Run `argv` in a prepared jail, and return what it looked for. Raises as `run_audited`.

    `source` is the root directory of the source, if the jail shows a copy of its files; b"" for the root that
    the jail was prepared with.
    """
    argv = words(argv, "argv")
    source = path_bytes(source, "source")
    if jail.emulated:
        raise JailError(
            "cannot audit a command that runs by emulation: its look-ups would be recorded as those of the "
            "emulator, which adds its own; audit it on a host of the manifest's architecture, "
            f"{jail.manifest.header.architecture}"
        )
    root = os.path.realpath(source or jail.root)
    binds = [bind.destination for bind in jail.options.binds]
    seen = partial(observe, root=root, binds=binds, libraries=known_libraries(root))
    status = jail.enter(argv, terminal=terminal, observe=seen)
    run = Run(argv, status, jail.observed, jail.options.binds)
    return make_audit(jail.manifest, run, Source(root, _database(root)))


def _database(root: bytes) -> PackageDatabase | None:
    try:
        return open_database(root)
    except DatabaseError:
        return None
