"""A jail in one call, from the names of lists or packages, or from a manifest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.given import names_list, path_text
from pkgjail.core.model import Manifest
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.core.reporter import SILENT
from pkgjail.jails.run import default_environment, prepare_jail

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pkgjail.core.given import AnyPath
    from pkgjail.core.reporter import Reporter
    from pkgjail.jails.run import Jail


def jail(  # noqa: PLR0913 - all but one by keyword
    what: AnyPath | Manifest | Iterable[AnyPath] = (),
    *,
    packages: Iterable[str] = (),
    blacklists: Iterable[AnyPath] = (),
    binds: Iterable[AnyPath | UserBind] = (),
    cwd: AnyPath = b"/",
    network: bool = True,
    env: Mapping[str, str] | None = None,
    root: AnyPath = b"/",
    reporter: Reporter = SILENT,
) -> Jail:
    """Return a jail that runs commands, ready to be used in a `with` block.

    What is not here, `JailOptions` has: make a manifest by `resolve`, and the jail by `prepare_jail`.

    Args:
        what: a whitelist's name or path, several of them, a manifest, or the path of one. A name is that of a
            whitelist if it ends in `.toml`, or has no `/` and is no file; `.jsonl` is a manifest.
        packages: packages besides those of the whitelists.
        blacklists: names or paths of blacklists.
        binds: directories and files of the host that the jail shows besides. A path is shown writable, at the
            path that it has on the host, without symbolic links.
        cwd: where commands start: a path in the jail.
        network: whether the jail shares the host's network.
        env: variables that commands get besides those of `default_environment`.
        root: the directory that packages and files come from.
        reporter: receives progress and warnings.

    Raises:
        PkgjailError: as `resolve`, `read_manifest` and `prepare_jail`.

    """
    options = JailOptions(
        binds=tuple(map(_bind, binds)),
        cwd=cwd,
        network=network,
        environment={**default_environment(), **(env or {})},
    )
    manifest = manifest_of(what, packages, blacklists, root, reporter)
    return prepare_jail(manifest, options, root=root, reporter=reporter)


def manifest_of(
    what: AnyPath | Manifest | Iterable[AnyPath],
    packages: Iterable[str],
    blacklists: Iterable[AnyPath],
    root: AnyPath,
    reporter: Reporter = SILENT,
) -> Manifest:
    """Return the manifest of a jail that `jail` makes from the same arguments. Errors are the same."""
    if isinstance(what, Manifest):
        return what
    if isinstance(what, (str, bytes, os.PathLike)):
        if not names_list(path_text(what)):
            from pkgjail.manifest import read_manifest

            return read_manifest(what)
        what = [what]
    from pkgjail.api import resolve  # imported only if needed: it is slow to import

    return resolve(what, blacklists, packages=packages, root=root, hashed=False, reporter=reporter)


def _bind(given: AnyPath | UserBind) -> UserBind:
    if isinstance(given, UserBind):
        return given
    real = os.path.realpath(path_text(given, "binds"))
    return UserBind(source=real, destination=real, writable=True)
