"""Build and remove the environment of a Spack, for `spack jail`."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import CommandError, InputError, JailError, PkgjailError, Problem
from pkgjail.core.model import record
from pkgjail.core.options import JailOptions
from pkgjail.core.reporter import SILENT
from pkgjail.core.stage_names import DEFAULT
from pkgjail.environments.build import build_environment
from pkgjail.environments.directory import open_environment, read_header
from pkgjail.environments.enter import enter_environment
from pkgjail.environments.isolate import VARIABLE
from pkgjail.environments.lock import lock_environment
from pkgjail.environments.record import RECORD
from pkgjail.environments.remove import Removed, check_removal, remove_environment
from pkgjail.environments.replace import (
    choose_place,
    exists,
    move_back,
    move_into_place,
    remove_leftovers,
    remove_replaced,
)
from pkgjail.images.users import note_user
from pkgjail.integrations.spack.active import (
    ActiveEnvironment,
    clear_active,
    load_active,
    may_change,
    save_active,
)
from pkgjail.integrations.spack.enter import jail_variables, protected_inputs
from pkgjail.integrations.spack.instance.cache import store_instance
from pkgjail.integrations.spack.instance.model import instance_binds, make_directories
from pkgjail.integrations.spack.jail.users import own_advice, whose
from pkgjail.jails.detect import is_isolated
from pkgjail.jails.protected_paths import protected_environment
from pkgjail.jails.protection import refuse_writable_binds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.options import UserBind
    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.record import Form
    from pkgjail.integrations.spack.instance.model import Instance
    from pkgjail.integrations.spack.instance.uncovered import UncoveredTool
    from pkgjail.machine.model import MachineOptions

_INSTEAD = (
    "If no jail can be made here, as in many CI containers, Spack 1.2 and newer can deny a build the same "
    "files by its own sandbox: 'spack jail --landlock > DIRECTORY/config.yaml' writes the rules, and "
    "'spack -C DIRECTORY install ...' applies them"
)


@record
class BuildOptions:
    """Options of `build_environment`; with `replace` the new environment replaces the active one.

    `root` is the real path of the manifest's source. `passed` are names and patterns of variables that each
    command gets of its caller's.
    """

    manifest: Manifest
    root: bytes = b"/"
    form: Form = "host"
    machine: MachineOptions | None = None
    stage: str = DEFAULT
    binds: tuple[UserBind, ...] = ()
    network: bool = True
    variables: tuple[tuple[str, str], ...] = ()
    passed: tuple[str, ...] = ()
    replace: bool = False


class BuiltForSpack(NamedTuple):
    """An environment that is active now, and the tools in Spack's configuration that it does not show."""

    active: ActiveEnvironment
    uncovered: tuple[UncoveredTool, ...]


def active_environment(root: str) -> ActiveEnvironment | None:
    """Return the active environment of the Spack in `root`; None if there is none.

    Raises:
        PkgjailError: its record cannot be read.

    """
    try:
        return load_active(root, os.environ)
    except ValueError as error:
        raise PkgjailError(str(error)) from error


def build(
    directory: str,
    options: BuildOptions,
    instance: Instance,
    spack_options: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> BuiltForSpack:
    """Build an environment for a Spack in `directory`, check that its Python runs there, and activate it.

    `spack_options` are those that `instance` was described with, such as `-C DIRECTORY`.

    Until the last step Spack is as it was, however this ends. What was built until then is removed; after a
    kill, the next build with `replace` removes it. With `replace`, the active environment stays until the new
    one is active. An environment that this user may not change, as another user's, stays in any case: the new
    one is for this user alone.

    Raises:
        PkgjailError: another environment is active and may not be replaced; the directory cannot be used;
            no jail can be made here.
        OSError: something cannot be read or written.

    """
    path = os.path.abspath(directory)
    earlier = refuse_early(path, instance, replace=options.replace)
    place, leaving = _place(path, earlier, options, reporter)
    build_environment(
        options.manifest,
        place,
        form=options.form,
        root=options.root,
        binds=options.binds,
        network=options.network,
        variables=dict(options.variables),
        machine=options.machine,
        stage=options.stage,
        reporter=reporter,
    )
    active = ActiveEnvironment(
        path,
        instance.python,
        time.time_ns(),
        removing=False,
        directory="" if earlier is None else earlier.directory,
        passed=options.passed,
    )
    try:
        make_directories(instance)
        _try_python(active._replace(environment=os.fsdecode(place)), instance, reporter)
        active, replaced = _activate(active, place, instance)
    except BaseException:
        with contextlib.suppress(PkgjailError, OSError):
            remove_environment(place)
        raise
    if options.form != "copy":
        with contextlib.suppress(OSError):  # the first entry does it again
            note_user(options.root, os.path.join(os.path.realpath(os.fsencode(path)), RECORD))
    for each in (*leaving, *replaced):
        remove_replaced(each, reporter)
    return BuiltForSpack(active, store_instance(active, instance, spack_options).uncovered)


def refuse_early(directory: str, instance: Instance, *, replace: bool) -> ActiveEnvironment | None:
    """Refuse what `build` would refuse whatever the environment shows; return the one that is to be replaced.

    That of another user is not replaced, and is no reason to refuse.

    Raises:
        PkgjailError: as `build`.

    """
    refuse_inside("build an environment")
    path = os.path.abspath(directory)
    _refuse_writable(path, instance)
    active = active_environment(instance.root)
    if active is None or not may_change(active):
        return None
    if not replace:
        why = (
            f"cannot build {path}: {active.environment} is active for this Spack; remove it with "
            "--remove-environment, or replace it with --force"
        )
        raise InputError([Problem("", why)])
    return active


def _activate(
    active: ActiveEnvironment, place: bytes, instance: Instance
) -> tuple[ActiveEnvironment, tuple[bytes, ...]]:
    """Give the environment in `place` its path and record it; return it and where one it replaces is now."""
    path = os.fsencode(active.environment)
    if place == path:
        return save_active(active, instance.root, os.environ), ()
    old = move_into_place(place, path)
    try:
        return save_active(active, instance.root, os.environ), (old,)
    except BaseException:
        move_back(place, path)
        raise


def _place(
    path: str, earlier: ActiveEnvironment | None, options: BuildOptions, reporter: Reporter
) -> tuple[bytes, list[bytes]]:
    """Return where to build, and the environments elsewhere that are to be removed afterwards.

    Raises `PkgjailError` or `OSError` if something is to be replaced and cannot be.
    """
    if not options.replace:
        return os.fsencode(path), []
    leaving = []
    if earlier is not None and os.path.realpath(earlier.environment) != os.path.realpath(path):
        directory = os.fsencode(earlier.environment)
        remove_leftovers(directory, reporter)
        if exists(directory):
            check_removal(directory)
            leaving.append(directory)
    return choose_place(os.fsencode(path), reporter), leaving


def remove(active: ActiveEnvironment, root: str, reporter: Reporter = SILENT) -> Removed:
    """Remove the active environment; afterwards Spack is as it was before it was built.

    From the first step on Spack's commands run outside, with a warning, so that none enters any more.

    Raises:
        PkgjailError: the environment is another user's; a command runs in it (it is named), or it was
            modified; then it stays active.
        OSError: as `remove_environment`.

    """
    refuse_inside("remove the environment")
    if not may_change(active):
        raise PkgjailError(f"cannot remove {active.environment}: {whose(active)}; {own_advice()}")
    directory = os.fsencode(active.environment)
    remove_leftovers(directory, reporter)
    if not exists(directory):
        # The last step of a removal was interrupted, or somebody deleted the directory.
        clear_active(active)
        return Removed(0, 0)
    with open_environment(directory, "remove") as environment, lock_environment(environment, "remove"):
        pass  # refused before anything is changed
    save_active(active._replace(removing=True), root, os.environ)
    try:
        removed = remove_environment(directory, reporter=reporter)
    except PkgjailError:
        save_active(active._replace(removing=False), root, os.environ)
        raise
    clear_active(active)
    return removed


def refuse_inside(attempt: str) -> None:
    """Refuse what can only be done outside of a jail.

    Raises:
        PkgjailError: this process runs in a jail.

    """
    if is_isolated():
        where = os.environ.get(VARIABLE, "a jail")
        raise PkgjailError(f"cannot {attempt}: this command runs inside of {where}; leave it first")


def _refuse_writable(path: str, instance: Instance) -> None:
    """Refuse a directory that commands in the jail could write to."""
    environment = protected_environment(os.fsencode(path))
    for bind in instance_binds(instance):
        with _explaining_bind(path, os.path.realpath(os.fsdecode(bind.source))):
            refuse_writable_binds([bind], [environment])


@contextlib.contextmanager
def _explaining_bind(path: str, source: str) -> Iterator[None]:
    """Say in errors where a bind comes from that the user did not ask for."""
    try:
        yield
    except JailError as error:
        why = (
            f"cannot build {path}: Spack writes to {source}, so commands inside could change the "
            "environment; name a directory elsewhere"
        )
        raise InputError([Problem("", why)]) from error


def _try_python(active: ActiveEnvironment, instance: Instance, reporter: Reporter) -> None:
    """Check that Spack's Python runs in the environment. A machine is the one of the commands that follow."""
    options = JailOptions(
        binds=instance_binds(instance), environment=jail_variables(os.environ, active, instance)
    )
    directory = os.fsencode(active.environment)
    has_machine = read_header(directory).machine is not None
    if has_machine:
        options = replace(options, inputs=protected_inputs(active, instance), warn_of_inputs=False)
    argv: Sequence[str] = [instance.python, "-c", "import json, ssl, sqlite3, ctypes"]
    message = (
        f"cannot run Spack's Python {instance.python} in the environment; add the package that has it to "
        "the whitelist"
    )
    try:
        status = enter_environment(directory, argv, options, reporter=reporter if has_machine else SILENT)
    except CommandError as error:
        raise PkgjailError(f"{message}: {error}") from error
    except JailError as error:
        if has_machine:
            raise
        raise JailError(f"{error}\n{_INSTEAD}") from error
    if status != 0:
        raise PkgjailError(f"{message}: it ended with status {status}")
