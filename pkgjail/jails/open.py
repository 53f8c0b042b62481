"""A jail in one call, from the names of lists or packages, or from a manifest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import ArgumentError, UsageError
from pkgjail.core.given import list_names, names_list, path_bytes, path_text, sequence, variables, words
from pkgjail.core.model import Manifest
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.core.reporter import SILENT
from pkgjail.core.text import text_path
from pkgjail.jails.run import default_environment, prepare_jail
from pkgjail.manifest import read_manifest

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
        what: a whitelist's name or path, several of them, a manifest, or the path of one. A text is that of a
            whitelist if it ends in `.toml`, or has no `/` and is no file; `.jsonl` is a manifest. A path
            object is a manifest's unless it ends in `.toml`.
        packages: packages besides those of the whitelists.
        blacklists: names or paths of blacklists.
        binds: directories and files of the host that the jail shows besides. A path is shown writable, at the
            path that it has on the host, without symbolic links; a `UserBind` says more.
        cwd: where commands start: a path in the jail, or of the host in a directory of `binds`.
        network: whether the jail shares the host's network.
        env: variables that commands get besides those of `default_environment`. (The `env` of `Jail.run` is
            the whole environment of one command.)
        root: the directory that packages and files come from.
        reporter: receives progress and warnings.

    Raises:
        PkgjailError: as `resolve`, `read_manifest` and `prepare_jail`.

    """
    shown = tuple(_bind(each, index) for index, each in enumerate(sequence(binds, "binds")))
    options = JailOptions(
        binds=shown,
        cwd=_inside(path_bytes(cwd, "cwd"), shown),
        network=network,
        environment={**default_environment(), **variables(env or {}, "env")},
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
    blacklists, packages = list_names(blacklists, "blacklists"), words(packages, "packages")
    lists: Iterable[AnyPath]
    if isinstance(what, Manifest):
        _refuse_additions(packages, blacklists)
        return what
    if not isinstance(what, (str, bytes, os.PathLike)):
        lists = what
    elif _is_list(what):
        lists = [what]
    else:
        _refuse_additions(packages, blacklists)
        return read_manifest(what)
    from pkgjail.api import resolve  # imported only if needed: it is slow to import

    return resolve(lists, blacklists, packages=packages, root=root, hashed=False, reporter=reporter)


def _refuse_additions(*additions: tuple[str, ...]) -> None:
    if any(additions):
        raise UsageError(
            "a manifest is complete: packages and blacklists cannot be given with it; make another one with "
            "resolve"
        )


def _is_list(what: AnyPath) -> bool:
    """Return whether it names a whitelist; a path object names a file, so a manifest unless it is TOML."""
    name = path_text(what)
    return name.endswith(".toml") if isinstance(what, os.PathLike) else names_list(name)


def _bind(given: AnyPath | UserBind, index: int) -> UserBind:
    if isinstance(given, UserBind):
        return given
    if not isinstance(given, (str, bytes, os.PathLike)):
        raise ArgumentError(
            f"binds[{index}] must be a path, or a UserBind for another path in the jail, not {given!r:.60}"
        )
    real = os.path.realpath(path_bytes(given))
    return UserBind(source=real, destination=real, writable=True)


def _inside(cwd: bytes, binds: tuple[UserBind, ...]) -> bytes:
    """Return where commands start: a directory of the host that is bound, by its real path; else as it is."""
    real = os.path.realpath(cwd)
    if any(f"{text_path(real)}/".startswith(f"{text_path(each.destination)}/") for each in binds):
        return real
    if not cwd.startswith(b"/"):
        raise ArgumentError(
            f"cwd must be an absolute path in the jail, or in a directory of binds, not {text_path(cwd)!r}"
        )
    return cwd
