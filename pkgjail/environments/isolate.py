"""The three functions of "Generate a Reproducible Environment for Spack" (2017), by their names there.

A program calls `isolate_environment` when it starts. If an environment is configured and the program does
not run in a jail yet, its command line is run in the environment, and the program ends with that status.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pkgjail.core.given import path_bytes
from pkgjail.core.options import JailOptions
from pkgjail.core.reporter import SILENT
from pkgjail.environments.process import process_argv
from pkgjail.jails.detect import is_isolated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import UserBind
    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.journal import Built
    from pkgjail.environments.remove import Removed

VARIABLE = "PKGJAIL_ENVIRONMENT"
"""The variable that names the environment's directory."""


def build_chroot_environment(  # noqa: PLR0913 - one is required; the others have defaults
    directory: AnyPath,
    manifest: Manifest | None = None,
    *,
    copy: bool = False,
    root: AnyPath = b"/",
    binds: tuple[UserBind, ...] = (),
    network: bool = True,
    variables: Mapping[str, str] | None = None,
    reporter: Reporter = SILENT,
) -> Built:
    """Make `directory` an environment; by default of the shipped whitelist `spack` without `docs`.

    Args:
        directory: a new directory, or an empty one of the caller's.
        manifest: what the environment shows instead of the default.
        copy: copy the files into `directory`, so that upgrades of the host do not affect it.
        root: the directory that the manifest was, or will be, resolved from.
        binds: what each entry shows in addition, for example Spack itself and its install tree.
        network: whether each entry shares the host's network.
        variables: what the environment of each entry has in addition to `default_environment`.
        reporter: receives progress and warnings.

    Raises:
        PkgjailError, OSError: as `resolve` and `build_environment`.

    """
    root = path_bytes(root, "root")
    from pkgjail.environments.build import build_environment

    if manifest is None:
        from pkgjail.api import resolve

        manifest = resolve(["spack"], ["docs"], root=root, hashed=copy, reporter=reporter)
    return build_environment(
        manifest,
        directory,
        form="copy" if copy else "host",
        root=root,
        binds=binds,
        network=network,
        variables=variables,
        reporter=reporter,
    )


def remove_chroot_environment(directory: AnyPath, *, reporter: Reporter = SILENT) -> Removed:
    """Remove the environment in `directory`; see `remove_environment`."""
    from pkgjail.environments.remove import remove_environment

    return remove_environment(directory, reporter=reporter)


def isolate_environment(
    directory: AnyPath | None = None,
    argv: Sequence[str] | None = None,
    options: JailOptions | None = None,
) -> None:
    """Continue in the environment: run this process's command line there, and end with its status.

    Returns at once if no environment is configured, or if the process already runs in a jail. Otherwise it
    does not return: a caller who had to end the process could forget that, and would build outside.

    Args:
        directory: the environment's; None takes the variable `PKGJAIL_ENVIRONMENT`. If that is unset or
            empty, no environment is configured.
        argv: the command line; None for that of this process.
        options: what the entry adds to the options that the environment was built with. None starts in the
            current directory if a bind of the environment shows it, otherwise in `/`.

    Raises:
        SystemExit: with the command's exit status, or 128 + n if signal n ended it.
        PkgjailError: as `enter_environment`, for example because there is no environment. Nothing has run.

    """
    if directory is None:
        directory = os.environ.get(VARIABLE) or None
    if directory is None or is_isolated():
        return
    from pkgjail.environments.enter import enter_environment, working_directory

    path = os.fsencode(directory)
    if options is None:
        cwd = working_directory(path)
        options = JailOptions(cwd=cwd, paths=(cwd,))
    sys.stdout.flush()
    sys.stderr.flush()
    status = enter_environment(path, process_argv() if argv is None else argv, options)
    raise SystemExit(status)
