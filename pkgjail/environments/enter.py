"""Enter an environment: compare its record and its manifest with its directory, then make a jail."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.entries import Mismatch
from pkgjail.core.errors import InputError, ModifiedEnvironmentError, Problem
from pkgjail.core.given import path_bytes, words
from pkgjail.core.options import JailOptions
from pkgjail.core.reporter import SILENT
from pkgjail.core.stage_names import DEFAULT
from pkgjail.core.text import text_path
from pkgjail.core.working_directory import path_of_working_directory
from pkgjail.environments.compare import compare_inputs
from pkgjail.environments.directory import open_environment, read_file, read_header, read_record
from pkgjail.environments.file_copy import copied_manifest
from pkgjail.environments.lock import lock_environment
from pkgjail.environments.machine import run_in_kept_machine
from pkgjail.environments.record import MANIFEST, RECORD, TREE
from pkgjail.environments.stage import MACHINE, stage_of_entry
from pkgjail.images.users import note_user
from pkgjail.jails.drift import DriftCheck
from pkgjail.jails.protected_paths import protected_environment
from pkgjail.jails.protection import refuse_writable_binds
from pkgjail.jails.replay import GivenVariables, bind_source_state, save_prepared_jail
from pkgjail.jails.run import default_environment, prepare_jail, report_changes
from pkgjail.manifest import manifest_digest, parse_manifest
from pkgjail.settings.files import settings_state
from pkgjail.storage.baseline import publisher_of
from pkgjail.storage.fingerprint import take_settled_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import UserBind
    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.directory import EnvironmentDirectory
    from pkgjail.environments.record import Header, Record
    from pkgjail.jails.run import Jail
    from pkgjail.stages.model import Request
    from pkgjail.storage.baseline import Publisher

    Run = Callable[[Jail, bytes], int]
    # As `pkgjail.storage.fingerprint.take_fingerprint` returns them.
    States = tuple[tuple[bytes, int, int, int, int], ...]


def enter_environment(  # noqa: PLR0913 - all but three by keyword
    directory: AnyPath,
    argv: Iterable[AnyPath],
    options: JailOptions | None = None,
    *,
    terminal: bool = False,
    run: Run | None = None,
    reporter: Reporter = SILENT,
) -> int:
    """Run `argv` in the jail of an environment, and wait until it ends.

    Args:
        directory: the environment's.
        argv: as `run_in_jail` takes it.
        options: what this entry adds to the options that the environment was built with. Its
            `environment` is added to `default_environment` and the environment's own variables.
        terminal: as `run_in_jail` takes it.
        run: a function that runs `argv` in the jail in its own way, as an audit does. It gets the jail and
            the root directory that the manifest was made from, and returns the exit status.
        reporter: as `run_in_jail` takes it.

    Returns:
        The command's exit status, or 128 + n if signal n ended it.

    Raises:
        InputError: there is no environment, or its build or removal was interrupted; or it has a machine or
            another stage, in which `run` cannot run.
        ModifiedEnvironmentError: its manifest or its tree is not as it was built.
        PkgjailError: another process removes it.
        MachineError, RefusedError: its machine cannot be started, or its stage cannot keep what `options` ask
            for.
        SettingsError, UsageError: as `pkgjail.stages.run_in_stage`.
        CommandError, DriftError, JailError: as `run_in_jail`.

    """
    directory = path_bytes(directory, "directory")
    argv = words(argv, "argv")
    with open_environment(directory, "enter") as environment, lock_environment(environment, "enter"):
        checked = _check(environment, options or JailOptions())
        entry = _Entry(environment, checked, argv, terminal, reporter)
        if (stage := entry.stage()) != DEFAULT:
            if run is not None:
                raise _no_audit(environment, stage)
            return entry.run_in(stage)
        jail = _prepare(environment, checked, reporter)
        if run is not None:
            return run(jail, checked.header.root)
        return jail.enter(argv, terminal=terminal)


def enter_and_save(  # noqa: PLR0913 - as `enter_environment`, and the key of the saved jail
    directory: bytes,
    argv: Sequence[str],
    options: JailOptions,
    invocation: Sequence[str],
    *,
    variables: Sequence[str] = (),
    given: Mapping[str, str] | None = None,
    compared: tuple[str, ...] = (),
    watched: States = (),
    terminal: bool = False,
    reporter: Reporter = SILENT,
) -> int:
    """As `enter_environment`; the prepared jail is saved for `pkgjail.jails.replay.replay`.

    An environment with a tree must be compared with its record at each entry, so its jail is never saved;
    one with a machine or another stage is not replayed.
    A replay checks first that nothing has changed that the jail depends on, including the environment's
    manifest and record.

    Args:
        directory: the environment's.
        argv: what to run.
        options: what this entry adds to the options that the environment was built with.
        invocation: the command line by which the jail is saved, as `save_prepared_jail` takes
            it; it ends in `--` and `argv`.
        variables: likewise.
        given: variables that this entry has besides, if neither `options` nor the environment set them. A
            replay takes those that its own caller gives.
        compared: names of variables; the jail is not replayed if their values differ from the present ones.
        watched: the states of files that `options` depend on.
        terminal: as `run_in_jail` takes it.
        reporter: likewise.

    """
    source, settings = bind_source_state(directory), settings_state()
    with open_environment(directory, "enter") as environment, lock_environment(environment, "enter") as lock:
        paths = [environment.path + b"/" + name for name in (MANIFEST, RECORD)]
        states = take_settled_fingerprint(filter(os.path.lexists, paths))  # before they are read
        defaults, fixed = default_environment(), read_record(environment).header.variables
        replaceable = None
        if given is not None:
            over = {**fixed, **options.environment}
            replaceable = GivenVariables(given, under=defaults, over=over, compared=compared)
            options = replace(options, environment={**given, **over})
        checked = _check(environment, options)
        entry = _Entry(environment, checked, argv, terminal, reporter)
        if (stage := entry.stage()) != DEFAULT:
            return entry.run_in(stage)
        jail = _prepare(environment, checked, reporter)
        if checked.header.form == "host" and jail.lasting:
            jail.prepared.watched += states + watched
            jail.prepared.sources += (source,)
            jail.prepared.locked += (lock,)
            with contextlib.suppress(OSError):  # the next entry prepares its jail itself
                save_prepared_jail(
                    invocation,
                    jail.prepared,
                    terminal=terminal,
                    variables=variables,
                    defaults={**defaults, **fixed},
                    given=replaceable,
                    settings=settings,
                )
        return jail.enter(argv, terminal=terminal)


class _Checked(NamedTuple):
    """What an entry reads of a locked environment, and its options with those of the build."""

    header: Header
    manifest: Manifest
    options: JailOptions


def _check(environment: EnvironmentDirectory, options: JailOptions) -> _Checked:
    """Compare an environment with its record, and return what an entry needs."""
    record = read_record(environment)
    manifest = _read_manifest(environment, record)
    merged = _merge(record.header, options)
    if environment.path not in merged.inputs:  # these are shown read-only
        refuse_writable_binds(merged.binds, [protected_environment(environment.path)])
    if record.header.form != "copy":
        with contextlib.suppress(OSError):  # the build did it; the environment may have moved since then
            note_user(record.header.root, environment.path + b"/" + RECORD)
    return _Checked(record.header, manifest, merged)


class _Entry(NamedTuple):
    """An entry in another stage than the default, which makes no `Jail`."""

    environment: EnvironmentDirectory
    checked: _Checked
    argv: Sequence[str]
    terminal: bool
    reporter: Reporter

    def stage(self) -> str:
        """Return the stage of this entry, as `stage_of_entry` does."""
        return stage_of_entry(self.checked.header, self.request)

    def request(self) -> Request:
        """Return what a stage of pkgjail's own is asked for."""
        from pkgjail.stages.model import Request  # loads all stages

        header, manifest, options = self.checked
        manifest, root, publisher = _shown(self.environment, header, manifest)
        return Request(
            manifest=manifest,
            argv=tuple(self.argv),
            options=options,
            root=root,
            publisher=publisher,
            terminal=self.terminal,
            reporter=self.reporter,
        )

    def run_in(self, stage: str) -> int:
        """Run the command in the stage; return its exit status."""
        if stage == MACHINE:
            return run_in_kept_machine(
                self.environment,
                self.checked.header,
                self.checked.manifest,
                self.argv,
                self.checked.options,
                terminal=self.terminal,
                reporter=self.reporter,
            )
        from pkgjail.stages import STAGES

        return STAGES[stage].run(self.request())


def _no_audit(environment: EnvironmentDirectory, stage: str) -> InputError:
    what = "it has a machine" if stage == MACHINE else f"it runs in the stage {stage}"
    why = f"{what}, and only in a jail of namespaces can another process see the command's calls"
    return InputError([Problem("", f"cannot audit a command in {text_path(environment.path)}: {why}")])


def _shown(
    environment: EnvironmentDirectory, header: Header, manifest: Manifest
) -> tuple[Manifest, bytes, Publisher | None]:
    """Return the manifest that an entry shows, where its files are, and who may publish its baseline."""
    if header.form == "copy":
        return copied_manifest(manifest), environment.path + b"/" + TREE, None
    return manifest, header.root, publisher_of(environment.path + b"/" + MANIFEST)


def _prepare(environment: EnvironmentDirectory, checked: _Checked, reporter: Reporter) -> Jail:
    """Return the jail of a locked environment."""
    header, manifest, merged = checked
    manifest, root, publisher = _shown(environment, header, manifest)
    # A tree was just compared with the environment's record, so no digest needs to be compared.
    recorded = header.form == "copy"
    return prepare_jail(
        manifest, merged, root=root, publisher=publisher, recorded=recorded, reporter=reporter
    )


def report_environment_changes(directory: bytes, status: int, *, strict: bool, reporter: Reporter) -> None:
    """Warn of entries of an environment that changed on the host while a command ran.

    Args:
        directory: the environment's.
        status: the command's exit status.
        strict: raise an error instead.
        reporter: gets the warning.

    Raises:
        ExitDriftError: there are changes, with `strict`.
        PkgjailError: the environment's record can no longer be read.

    """
    with open_environment(directory, "enter") as environment:
        record = read_record(environment)
        check = DriftCheck(publisher=publisher_of(environment.path + b"/" + MANIFEST), reporter=reporter)
        manifest = _read_manifest(environment, record)
    report_changes(manifest, record.header.root, check, strict=strict, status=status)


def _read_manifest(environment: EnvironmentDirectory, record: Record) -> Manifest:
    """Compare the manifest and the tree with the record, and return the manifest."""
    changes = compare_inputs(environment, record.entries)
    data = read_file(environment, MANIFEST)
    if not changes and (data is None or manifest_digest(data) != record.header.manifest):
        changes = [(MANIFEST, Mismatch("manifest"))]
    if data is None or changes:
        raise ModifiedEnvironmentError(
            f"enter {text_path(environment.path)}",
            tuple(changes),
            "undo the change, or remove the environment and build it again",
        )
    return parse_manifest(data, text_path(environment.path + b"/" + MANIFEST))


def _merge(header: Header, options: JailOptions) -> JailOptions:
    return replace(
        options,
        binds=(*header.binds, *options.binds),
        devices=(*header.devices, *options.devices),
        device_sets=(*header.device_sets, *options.device_sets),
        network=header.network and options.network,
        environment={
            **default_environment(map_root=options.map_root),
            **header.variables,
            **options.environment,
        },
    )


def read_built_manifest(directory: bytes) -> Manifest:
    """Return the manifest that an environment was built from.

    Raises:
        InputError, ModifiedEnvironmentError: as `enter_environment`.

    """
    with open_environment(directory, "enter") as environment:
        return _read_manifest(environment, read_record(environment))


def working_directory(directory: bytes, binds: Iterable[UserBind] = ()) -> bytes:
    """Return the working directory's path if an environment's jail, with `binds` added, shows it; else `/`.

    The path is that by which the caller came.

    Raises:
        InputError: there is no environment.

    """
    try:
        path = path_of_working_directory()
    except FileNotFoundError:  # it was deleted
        return b"/"
    return path if shows((*read_header(directory).binds, *binds), path) else b"/"


def shows(binds: Iterable[UserBind], path: bytes) -> bool:
    """Check whether one of these binds shows the host's `path` in the jail at the same path.

    Either may be named through symbolic links.
    """
    sources = [bind.source for bind in binds if bind.source == bind.destination]
    return any(
        (wanted + b"/").startswith(source.rstrip(b"/") + b"/")
        for wanted, source in (
            *((path, source) for source in sources),
            *((os.path.realpath(path), os.path.realpath(source)) for source in sources),
        )
    )
