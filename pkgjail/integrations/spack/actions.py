"""What `spack jail` does: build the environment of a Spack, remove it, tell of it."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import CommandError, InputError, JailError, PkgjailError, Problem
from pkgjail.core.model import JailOptions, record
from pkgjail.core.reporter import SILENT
from pkgjail.environments.build import build_environment
from pkgjail.environments.directory import open_environment
from pkgjail.environments.enter import enter_environment
from pkgjail.environments.isolate import VARIABLE
from pkgjail.environments.lock import lock_environment
from pkgjail.environments.remove import remove_environment
from pkgjail.integrations.spack.enter import variables_inside
from pkgjail.integrations.spack.instance import binds_of, make_directories
from pkgjail.integrations.spack.instance_cache import remember
from pkgjail.integrations.spack.state import State, drop_state, load_state, save_state
from pkgjail.jail.detect import is_isolated
from pkgjail.jail.protection import protected_environment, refuse_writable_binds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import Manifest, UserBind
    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.record import Form
    from pkgjail.environments.remove import Removed
    from pkgjail.integrations.spack.instance import Instance

_INSTEAD = (
    "Where no jail can be had, as in many CI containers, Spack 1.2 and newer can deny a build the same files "
    "by its own sandbox: 'spack jail --landlock > sandbox.yaml' writes the rules"
)


@record
class Wish:
    """How an environment is to be built: see `build_environment`; `replace` an active one."""

    manifest: Manifest
    form: Form = "host"
    binds: tuple[UserBind, ...] = ()
    network: bool = True
    variables: tuple[tuple[str, str], ...] = ()
    replace: bool = False


class Active(NamedTuple):
    """An environment that is active now, and a sentence for each tool of Spack's outside of it."""

    state: State
    outside: tuple[str, ...]


def active(root: str) -> State | None:
    """What is active for the Spack in `root`.

    Raises:
        PkgjailError: that cannot be told.

    """
    try:
        return load_state(root, os.environ)
    except ValueError as error:
        raise PkgjailError(str(error)) from error


def build(directory: str, wish: Wish, instance: Instance, reporter: Reporter = SILENT) -> Active:
    """Build an environment for a Spack in `directory`, see that its Python runs there, and make it active.

    Until the last step Spack is as it was, however this ends; what was built by then is removed, or,
    after a kill, is taken away by the next build with `replace`.

    Raises:
        PkgjailError: one is active and is not to be replaced; the directory cannot be used; no jail
            can be had here.
        OSError: something cannot be read or written.

    """
    refuse_inside("build an environment")
    path = os.path.abspath(directory)
    _refuse_open(path, instance)
    before = active(instance.root)
    if before is not None and not wish.replace:
        raise InputError(
            [
                Problem(
                    "",
                    f"cannot build {path}: {before.environment} is active for this Spack; take it away with "
                    "--remove-environment, or replace it with --force",
                )
            ]
        )
    if before is not None:
        remove(before, instance.root, reporter)
    if wish.replace and os.path.isdir(path) and os.listdir(path):
        remove_environment(os.fsencode(path), reporter=reporter)
    build_environment(
        wish.manifest,
        os.fsencode(path),
        form=wish.form,
        binds=wish.binds,
        network=wish.network,
        variables=dict(wish.variables),
        reporter=reporter,
    )
    state = State(path, instance.python, time.time_ns(), removing=False, place="")
    try:
        make_directories(instance)
        _try(state, instance)
        state = save_state(state, instance.root, os.environ)
    except BaseException:
        with contextlib.suppress(PkgjailError, OSError):
            remove_environment(os.fsencode(path))
        raise
    return Active(state, remember(state, instance).outside)


def remove(state: State, root: str, reporter: Reporter = SILENT) -> Removed:
    """Take the active environment away; Spack is as before it.

    From the first step on Spack's commands run outside, and say so, so that none enters any more.

    Raises:
        PkgjailError: a command runs in the environment (it is named), or it is not as it was built;
            then it stays active.
        OSError: as `remove_environment`.

    """
    refuse_inside("remove the environment")
    directory = os.fsencode(state.environment)
    if not os.path.lexists(directory):
        # The last step of a removal that was interrupted, or somebody deleted it.
        from pkgjail.environments.remove import Removed

        drop_state(state)
        return Removed(0, 0)
    with open_environment(directory, "remove") as environment, lock_environment(environment, "remove"):
        pass  # refused before anything is changed
    save_state(state._replace(removing=True), root, os.environ)
    try:
        removed = remove_environment(directory, reporter=reporter)
    except PkgjailError:
        save_state(state._replace(removing=False), root, os.environ)
        raise
    drop_state(state)
    return removed


def refuse_inside(doing: str) -> None:
    """Refuse what can be done outside alone.

    Raises:
        PkgjailError: this process runs in a jail.

    """
    if is_isolated():
        where = os.environ.get(VARIABLE, "a jail")
        raise PkgjailError(f"cannot {doing}: this is inside of {where}; leave it first")


def _refuse_open(path: str, instance: Instance) -> None:
    """Refuse a directory that commands inside could write to."""
    environment = protected_environment(os.fsencode(path))
    for bind in binds_of(instance):
        with _telling_spack(path, os.path.realpath(os.fsdecode(bind.source))):
            refuse_writable_binds([bind], [environment])


@contextlib.contextmanager
def _telling_spack(path: str, place: str) -> Iterator[None]:
    """Tell by what a bind is there, which nobody asked for."""
    try:
        yield
    except JailError as error:
        why = (
            f"cannot build {path}: Spack writes to {place}, so what runs inside could change the "
            "environment; name a directory elsewhere"
        )
        raise InputError([Problem("", why)]) from error


def _try(state: State, instance: Instance) -> None:
    """See that Spack's Python runs in the environment."""
    options = JailOptions(binds=binds_of(instance), environment=variables_inside(os.environ, state, instance))
    argv: Sequence[str] = [instance.python, "-c", "import json, ssl, sqlite3, ctypes"]
    advice = (
        f"cannot run Spack's Python {instance.python} in the environment; add the package that has it to "
        "the whitelist"
    )
    try:
        status = enter_environment(os.fsencode(state.environment), argv, options)
    except CommandError as error:
        raise PkgjailError(f"{advice}: {error}") from error
    except JailError as error:
        raise JailError(f"{error}\n{_INSTEAD}") from error
    if status != 0:
        raise PkgjailError(f"{advice}: it ended with status {status}")
