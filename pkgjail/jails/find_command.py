"""A command that something else than the jail itself runs: its variables, and whether it is there."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import JailError
from pkgjail.core.jail_names import KERNEL_DIRECTORIES, TMP
from pkgjail.core.text import raw_path, text_path
from pkgjail.jails.diagnosis import diagnose
from pkgjail.jails.layout import Layout
from pkgjail.jails.missing import advice_on_missing, candidates
from pkgjail.sandbox.job import SetupError

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions

# Names that every jail has, or whose content is not the manifest's.
_NOT_LISTED = (*KERNEL_DIRECTORIES, TMP)


def variables_of(options: JailOptions, cwd: bytes) -> dict[str, str]:
    """Return the variables of a command that starts in `cwd`, a path in the jail."""
    variables = dict(options.environment)
    if options.cwd in options.paths:
        variables.setdefault("PWD", text_path(cwd))  # as the caller's shell has it
    return variables


def find_command(name: str, manifest: Manifest, options: JailOptions, root: bytes) -> None:
    """Refuse a command that nothing in the jail has, for programs that answer that in ways of their own.

    Args:
        name: the first word of the command.
        manifest: what the jail has.
        options: its binds and variables.
        root: the directory that the manifest was resolved from.

    Raises:
        CommandError: with the status 127, and the words of the jail.

    """
    paths = candidates(name, options.environment)
    layout = Layout(manifest)
    for path in paths:
        with contextlib.suppress(JailError):
            if _is_there(layout.resolve(path), layout, options):
                return
    if not paths:  # relative to the working directory, which a bind may show
        return
    advice = advice_on_missing(paths, manifest, os.path.realpath(root))
    failure = SetupError("execute", errno.ENOENT, raw_path(name), [])
    raise diagnose(failure, name, package_of=lambda _: advice) from None


def _is_there(path: bytes, layout: Layout, options: JailOptions) -> bool:
    if layout.kind(path) is not None or path.startswith(tuple(each + b"/" for each in _NOT_LISTED)):
        return True
    shown = ((bind.destination.rstrip(b"/"), bind.source) for bind in options.binds)
    return any(
        (path + b"/").startswith(destination + b"/") and os.path.lexists(source + path[len(destination) :])
        for destination, source in shown
    )
