"""The three functions of "Generate a Reproducible Environment for Spack" (2017), by their names there.

A program calls `isolate_environment` when it starts. Where an environment is configured and the
program does not run in a jail yet, its command line is run in the environment, and the program ends
as that does.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Union

from pkgjail.core.errors import JailError
from pkgjail.core.model import JailOptions
from pkgjail.jail.detect import is_isolated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.core.model import Manifest, UserBind
    from pkgjail.environments.builder import Built
    from pkgjail.environments.remove import Removed

    AnyPath = Union[str, bytes, os.PathLike[str], os.PathLike[bytes]]

VARIABLE = "PKGJAIL_ENVIRONMENT"
"""The variable that names the environment's directory."""


def build_chroot_environment(  # noqa: PLR0913 - one says where; the rest have defaults
    directory: AnyPath,
    manifest: Manifest | None = None,
    *,
    copy: bool = False,
    root: bytes = b"/",
    binds: tuple[UserBind, ...] = (),
    network: bool = True,
    variables: Mapping[str, str] | None = None,
) -> Built:
    """Make `directory` an environment, of the shipped whitelist `spack` less `docs` by default.

    Args:
        directory: it must not be there, or be an empty directory of the caller's.
        manifest: what the environment holds, where it is to be something else.
        copy: copy the files into `directory`, so that it outlives upgrades of the host.
        root: where the files are that the manifest was, or is to be, resolved from.
        binds: what each entry shows besides: Spack itself and where it installs, for example.
        network: whether each entry shares the host's network.
        variables: what each entry's environment has besides `default_environment`.

    Raises:
        PkgjailError, OSError: as `resolve` and `build_environment`.

    """
    from pkgjail.environments.build import build_environment

    if manifest is None:
        from pkgjail.api import resolve

        manifest = resolve(["spack"], ["docs"], root=root, hashed=copy)
    return build_environment(
        manifest,
        os.fsencode(directory),
        form="copy" if copy else "host",
        root=root,
        binds=binds,
        network=network,
        variables=variables,
    )


def remove_chroot_environment(directory: AnyPath) -> Removed:
    """Remove the environment in `directory`; see `remove_environment`."""
    from pkgjail.environments.remove import remove_environment

    return remove_environment(os.fsencode(directory))


def isolate_environment(
    directory: AnyPath | None = None,
    argv: Sequence[str] | None = None,
    options: JailOptions | None = None,
) -> None:
    """Go on in the environment: run this process's command line there, and end as that does.

    Returns at once where no environment is configured, and where the process runs in a jail already.
    Else it does not return: were the end left to the caller, one who forgets it would build outside.

    Args:
        directory: the environment's; None takes the variable `PKGJAIL_ENVIRONMENT`, and where that is
            not set or empty there is none.
        argv: the command line; None is that of this process.
        options: what the entry has besides what the environment was built with. None goes on in the
            current directory where a bind of the environment shows that, else in `/`.

    Raises:
        SystemExit: with the command's exit status, or 128 + n when signal n ended it.
        PkgjailError: as `enter_environment`: there is no environment, say. Nothing has run.

    """
    if directory is None:
        directory = os.environ.get(VARIABLE) or None
    if directory is None or is_isolated():
        return
    from pkgjail.environments.enter import bound_directory, enter_environment

    place = os.fsencode(directory)
    if options is None:
        options = JailOptions(cwd=bound_directory(place, os.getcwdb()))
    sys.stdout.flush()
    sys.stderr.flush()
    status = enter_environment(place, own_command() if argv is None else argv, options)
    raise SystemExit(status)


def own_command() -> list[str]:
    """The command line that this process was started by, with the interpreter's path.

    Raises:
        JailError: it cannot be told, as in a program that embeds Python.

    """
    if not sys.executable:
        raise JailError("cannot tell this program's command line; pass 'argv' to isolate_environment")
    words = getattr(sys, "orig_argv", None)  # Python 3.10
    if words is None:
        words = _command_of_process()
    return [sys.executable, *words[1:]]


def _command_of_process() -> list[str]:
    """The words of proc_pid_cmdline(5)."""
    with open("/proc/self/cmdline", "rb") as file:
        return [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
