"""Run a command in a jail: from a manifest and options to the command's exit status.

This is not in `pkgjail.api`, because entering must start quickly: neither this module nor what it
imports loads networkx, rich or a backend.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pkgjail.core.devices import find_devices
from pkgjail.core.errors import DriftError, ExitDriftError, JailError, UsageError
from pkgjail.core.given import instance_of, path_bytes, words
from pkgjail.core.jail_names import HOSTNAME, LD_CACHE, SEARCH_PATH, SHARED_MEMORY
from pkgjail.core.model import Manifest
from pkgjail.core.options import JailOptions, Limits
from pkgjail.core.parameters import parameter
from pkgjail.core.reporter import SILENT
from pkgjail.core.sources import refuse_other_source, source_at
from pkgjail.core.text import counted, text_path
from pkgjail.jails.automounts import automount_warnings
from pkgjail.jails.devices import absent_devices, device_patterns, show_devices
from pkgjail.jails.diagnosis import diagnose
from pkgjail.jails.drift import DriftCheck, changes_since_baseline, compare_host
from pkgjail.jails.emulation import runs_by_emulation
from pkgjail.jails.etc_files import Account, current_account, etc_files
from pkgjail.jails.host_name import host_name
from pkgjail.jails.layout import Layout
from pkgjail.jails.ld_cache import make_ld_cache
from pkgjail.jails.links_on_the_way import add_links, links_of_host, path_inside
from pkgjail.jails.missing import advice_on_missing, candidates
from pkgjail.jails.owned_copies import owned_copies
from pkgjail.jails.package_database import database_content, database_sources
from pkgjail.jails.plan import plan_jail
from pkgjail.jails.probe import forget_answers
from pkgjail.jails.protected_paths import protected_paths
from pkgjail.jails.protection import protect
from pkgjail.jails.replay import (
    PreparedJail,
    StaleError,
    bind_source_state,
    read_account,
    read_resolv_conf,
    relevant_mounts,
)
from pkgjail.jails.strategy import choose_strategies, refuse_too_many_mounts, steps_by_directory
from pkgjail.sandbox.job import SetupError
from pkgjail.sandbox.launch import try_out
from pkgjail.sandbox.steps import assemble
from pkgjail.storage.fingerprint import take_settled_fingerprint
from pkgjail.storage.locations import runtime_directory
from pkgjail.storage.locks import layer_directories, lock_shared, unlock
from pkgjail.storage.own_files import ensure_runtime_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from subprocess import CompletedProcess
    from typing import Any

    from typing_extensions import Self, Unpack

    from pkgjail.core.devices import Device
    from pkgjail.core.errors import Change
    from pkgjail.core.given import AnyPath
    from pkgjail.core.reporter import Reporter
    from pkgjail.jails.strategy import Choice
    from pkgjail.jails.streams import StreamOptions, Streams
    from pkgjail.sandbox.observation import Observation, Observe
    from pkgjail.sandbox.steps import Plan, Step
    from pkgjail.sandbox.terminal import Terminal
    from pkgjail.storage.baseline import Publisher

_ATTEMPTS = 10
_BINDS: Final = "plan='binds'"


def default_environment(*, map_root: bool = False) -> dict[str, str]:
    """Return the default environment of a command in a jail. Of the caller's, it has only TERM.

    LD_*, LIBRARY_PATH, CPATH, PKG_CONFIG_PATH and similar variables would lead a build to the host's files,
    so name each variable that the command needs in `JailOptions.environment`.
    """
    account = current_account(map_root=map_root)
    environment = {
        "HOME": account.home,
        "LANG": "C.UTF-8",
        "LOGNAME": account.name,
        "PATH": SEARCH_PATH,
        "SHELL": "/bin/sh",
        "USER": account.name,
    }
    if "TERM" in os.environ:
        environment["TERM"] = os.environ["TERM"]
    return environment


def run_in_jail(  # noqa: PLR0913 - all but two by keyword
    manifest: Manifest,
    argv: Iterable[AnyPath],
    options: JailOptions | None = None,
    *,
    root: AnyPath = b"/",
    publisher: Publisher | None = None,
    terminal: bool = False,
    reporter: Reporter = SILENT,
    **streams: Unpack[StreamOptions],
) -> CompletedProcess[Any]:
    """Run `argv` in a jail that shows exactly `manifest`, and wait for its end, as `subprocess.run` does.

    Args:
        manifest: what the jail has.
        argv: the command. Its first word is searched along the PATH of the environment inside.
        options: binds, working directory, network, environment and limits. None is a jail without binds,
            with the host's network and `default_environment`.
        root: the directory that the manifest was resolved from.
        publisher: a user whose baseline counts like the caller's (`pkgjail.storage.baseline.publisher_of`).
        terminal: whether the command gets a terminal of the jail's own, relayed to the caller's.
        reporter: receives progress while files are compared, and warnings of drift that `options` accept and
            of entries that changed while the command ran.
        streams: `stdin`, `stdout`, `stderr`, `input`, `capture_output`, `text`, `timeout`, `check` and `env`,
            as `pkgjail.jails.streams.StreamOptions` says.

    Returns:
        What `subprocess.run` returns. `returncode` is the command's exit status, or 128 + n if signal n
        ended it.

    Raises:
        ArgumentError: an argument has a wrong type.
        CommandError: there is no such command in the jail, or it cannot be executed.
        CommandStatusError: with `check`, the command ended with another status than 0.
        CommandTimeoutError: the command ran longer than `timeout`, and was killed.
        DriftError: the host differs from the manifest, or, if `options` are strict about it, entries changed
            while the command ran.
        JailError: the jail cannot be set up here, its limits cannot be enforced, or the manifest is for an
            architecture whose programs do not run here; the message names the setting at fault.
        OutOfMemoryError: the jail reached its memory limit and was killed.
        SourceError: the manifest was made from another source.
        UsageError: streams contradict each other.

    """
    from pkgjail.jails.streams import streams_of  # imported only if needed

    argv, own = words(argv, "argv"), streams_of(streams, "run_in_jail")
    jail = prepare_jail(manifest, options, root=root, publisher=publisher, reporter=reporter)
    return jail.run_with(argv, own, terminal=terminal)


def prepare_jail(  # noqa: PLR0913 - all but two by keyword
    manifest: Manifest,
    options: JailOptions | None = None,
    *,
    root: AnyPath = b"/",
    publisher: Publisher | None = None,
    recorded: bool = False,
    reporter: Reporter = SILENT,
) -> Jail:
    """Prepare a jail once, for a program that enters it many times.

    Arguments and errors are those of `run_in_jail`. With `recorded`, the caller has compared the content of
    the files with a record of its own, so they are compared only by kind, mode, size and link text.
    """
    root = path_bytes(root, "root")
    instance_of(manifest, Manifest, "manifest", "use read_manifest or resolve, or pkgjail.jail")
    if options is None:
        options = JailOptions(environment=default_environment())
    instance_of(options, JailOptions, "options")
    check = DriftCheck(
        verify=options.verify,
        allow_drift=options.allow_drift,
        publisher=publisher,
        recorded=recorded,
        reporter=reporter,
    )
    return Jail(manifest, options, os.path.realpath(root), check)


class Jail:
    """A jail that can be entered many times, from one thread at a time, until its `with` block ends if any.

    `manifest`, `options` and `root` are those that it was made of; `root` is a real path. It is `emulated` if
    its programs are for another architecture and run by an emulator.
    `prepared` is the prepared jail. Each entry checks the state that it depends on, and prepares it anew if
    that has changed. It is `lasting`, and so worth saving, unless a better strategy failed for a reason that
    may be temporary.
    """

    def __init__(self, manifest: Manifest, options: JailOptions, root: bytes, check: DriftCheck) -> None:
        self.manifest = manifest
        self.options = options
        self.root = root
        self._check = check
        self._accepted: tuple[Change, ...] = ()
        self._warned_of: set[bytes] = set()
        self._warnings: set[str] = set()
        self.lasting = True
        self.observed = b""
        self._probed_again = False
        self._is_closed = False
        _limits(options)  # refuses a wrong limit before any work
        refuse_other_source(manifest, root)
        self.emulated = runs_by_emulation(manifest, check.reporter)
        self.prepared = self._prepare()
        for warning in absent_devices(manifest):
            check.reporter.warn(warning)

    def __repr__(self) -> str:
        return f"<Jail of {counted(len(self.manifest.packages), 'package')}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True

    def run(
        self, argv: Iterable[AnyPath], *, terminal: bool = False, **streams: Unpack[StreamOptions]
    ) -> CompletedProcess[Any]:
        """Run `argv` in the jail, as `run_in_jail` does. Arguments, result and errors are the same."""
        from pkgjail.jails.streams import streams_of  # imported only if needed

        return self.run_with(words(argv, "argv"), streams_of(streams, "run"), terminal=terminal)

    def run_with(
        self, argv: Sequence[str], streams: Streams, *, terminal: bool = False
    ) -> CompletedProcess[Any]:
        """Run `argv` with these streams, as `run` does."""
        if not streams.are_given:
            return streams.result(argv, self.enter(argv, terminal=terminal, environment=streams.environment))
        if terminal:
            raise UsageError("terminal cannot be given with other streams, or with a timeout")
        return self.serve(argv, streams)

    def serve(self, argv: Sequence[str], streams: Streams) -> CompletedProcess[Any]:
        """Run `argv` with streams that are served even if all are the caller's: another thread may cancel."""
        with streams:
            status = self.enter(argv, streams=streams, environment=streams.environment)
        return streams.result(argv, status)

    def enter(
        self,
        argv: Sequence[str],
        *,
        terminal: Terminal = False,
        observe: Observe | None = None,
        streams: Streams | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Run `argv` in the jail and return its exit status. Errors are those of `run_in_jail`.

        Args:
            argv: the command.
            terminal: may also be a function that takes the part of `pkgjail.sandbox.terminal.relay`.
            observe: called in a process of its own that sees the jail's calls
                (`pkgjail.sandbox.observation`); what it returns is then in `observed`.
            streams: those of the command, None for the caller's.
            environment: that of the command, None for the one of `options`.

        """
        if self._is_closed:
            raise UsageError("the jail is closed: its 'with' block has ended")
        if not argv:
            raise UsageError("argv has no command")
        for _ in range(_ATTEMPTS):
            status = self._try(
                argv, terminal=terminal, observe=observe, streams=streams, environment=environment
            )
            if status is not None:
                return status
        raise JailError(
            "cannot enter the jail: the files that it is made from keep changing, or another process has "
            f"locked the layers in {runtime_directory()}; see who with 'lslocks', or use {parameter(_BINDS)}"
        )

    def _try(
        self,
        argv: Sequence[str],
        *,
        terminal: Terminal,
        observe: Observe | None,
        streams: Streams | None,
        environment: Mapping[str, str] | None,
    ) -> int | None:
        """Run `argv` once and return its exit status, or None if the jail had to be prepared anew instead."""
        if self._accepted:
            self._check.reporter.warn(str(DriftError(self._accepted, accepted=True)))
        try:
            limits, warn = _limits(self.options), self._check.reporter.warn
            observation = None if observe is None else _observation(observe)
            status = self.prepared.run(
                argv,
                terminal=terminal,
                limits=limits,
                warn=warn,
                observation=observation,
                streams=streams,
                environment=environment,
            )
        except StaleError:
            self.prepared = self._prepare()
            return None
        except SetupError as failure:
            # A stored answer of the probe may be wrong, as under another seccomp filter. Probe again, once.
            if self._may_probe_again(failure) and forget_answers(Path(runtime_directory())):
                self._probed_again = True
                self.prepared = self._prepare()
                return None
            variables = self.options.environment if environment is None else environment
            package_of = partial(self._package_of, argv[0], variables)
            raise diagnose(failure, argv[0], package_of=package_of) from failure
        if observation is not None:
            self.observed = observation.result
        if self.prepared.host_changed():
            strict = self.options.strict_exit
            report_changes(
                self.manifest, self.root, self._check, accepted=self._accepted, strict=strict, status=status
            )
        return status

    def _package_of(self, command: str, environment: Mapping[str, str], path: bytes) -> str:
        """Return words on who could bring a missing path into the jail; for b"", that of the command."""
        names = [path] if path else candidates(command, environment)
        return advice_on_missing(names, self.manifest, self.root)

    def _may_probe_again(self, failure: SetupError) -> bool:
        return failure.doing == "build" and not failure.changes and not self._probed_again

    def _prepare(self) -> PreparedJail:
        options = self.options
        account = read_account()
        resolv_conf = read_resolv_conf() if options.network else None
        sources = tuple(bind_source_state(bind.source) for bind in options.binds)
        self._warn_of_automounts()
        links = links_of_host(options)
        if fault := ensure_runtime_directory():
            self._check.reporter.warn(fault)
        writable = [os.path.realpath(bind.source) for bind in options.binds if bind.writable]
        if options.share_ipc:
            writable.append(os.path.realpath(SHARED_MEMORY))
        mounts = relevant_mounts(self.root, writable)
        patterns = device_patterns(self.manifest, options)
        devices = find_devices(patterns)
        database_states = take_settled_fingerprint(database_sources(self.manifest, self.root))
        host = compare_host(self.manifest, self.root, self._check)
        self._accepted = host.accepted
        copies, copied = owned_copies(host.manifest.files, self.root, allow_drift=options.allow_drift)
        plan, choices, protected = _plan(host.manifest, options, self.root, devices, copies)
        self._warn_of_protected(protected)
        cwd = directory_inside(host.manifest, options)
        environment = dict(options.environment)
        if options.cwd in options.paths:
            environment.setdefault("PWD", text_path(cwd))  # as the caller's shell has it
        states = {*copied, *database_states, *(state for choice in choices for state in choice.observed)}
        self.lasting = all(choice.lasting for choice in choices)
        return PreparedJail(
            program=assemble(plan),
            environment=tuple(sorted(environment.items())),
            cwd=cwd,
            host=host.watched,
            watched=tuple(states - set(host.watched)),
            mounts=mounts,
            sources=sources,
            links=links,
            account=account,
            resolv_conf=resolv_conf,
            devices=(patterns, devices),
            locked=(os.path.dirname(self.root),) if source_at(self.root).kind == "image" else (),
        )

    def _warn_of_automounts(self) -> None:
        """Warn once of each bind that will not show what an automounter mounts."""
        for message in automount_warnings(self.options.binds):
            if message not in self._warnings:
                self._warnings.add(message)
                self._check.reporter.warn(message)

    def _warn_of_protected(self, paths: tuple[bytes, ...]) -> None:
        """Warn once of each path in a writable bind that is read-only nevertheless."""
        new = [text_path(path) for path in paths if path not in self._warned_of]
        self._warned_of.update(paths)
        if new and self.options.warn_of_inputs:
            self._check.reporter.warn(
                f"shown read-only in the jail, because later runs depend on it: {', '.join(new)}"
            )


def report_changes(  # noqa: PLR0913 - all but three by keyword
    manifest: Manifest,
    root: bytes,
    check: DriftCheck,
    *,
    accepted: tuple[Change, ...] = (),
    strict: bool,
    status: int,
) -> None:
    """Warn of entries of a manifest that changed on the host while a command ran.

    Args:
        manifest: what the jail had.
        root: the directory of its files, a real path.
        check: the publisher whose baseline counts, and the reporter that receives the warning.
        accepted: drift that was accepted at entry; there is no warning of it.
        strict: whether other changes are an error.
        status: the command's exit status.

    Raises:
        ExitDriftError: with `strict`, if there are changes.

    """
    changes = tuple(sorted(set(changes_since_baseline(manifest, root, check.publisher)) - set(accepted)))
    if not changes:
        return
    if strict:
        raise ExitDriftError(changes, status)
    check.reporter.warn(str(ExitDriftError(changes, status)))


def _observation(observe: Observe) -> Observation:
    from pkgjail.sandbox.observation import Observation  # imported only if needed

    return Observation(observe)


def _limits(options: JailOptions) -> tuple[int | None, float | None, int | None] | None:
    """Return the limits as the sandbox takes them, or None if there are none."""
    if options.limits == Limits():
        return None
    from pkgjail.jails.limits import checked_limits  # imported only if needed

    return checked_limits(options)


def prepare(manifest: Manifest, options: JailOptions, *, root: bytes = b"/") -> Plan:
    """Return the plan that `run_in_jail` carries out, with the files that are made at entry.

    Raises:
        JailError: as `run_in_jail`.

    """
    root = os.path.realpath(root)
    refuse_other_source(manifest, root)
    host = compare_host(manifest, root, DriftCheck(verify=options.verify, allow_drift=options.allow_drift))
    copies, _ = owned_copies(host.manifest.files, root, allow_drift=options.allow_drift)
    return _plan(host.manifest, options, root, show_devices(manifest, options), copies)[0]


def prepare_and_try(
    manifest: Manifest, options: JailOptions, *, root: bytes = b"/"
) -> tuple[Plan, JailError | None]:
    """As `prepare`; also set up the jail as an entry does, without a command, and return why that fails."""
    plan = prepare(manifest, options, root=root)
    try:
        _try_out(plan)
    except SetupError as failure:
        # As in `Jail`: a stored answer of the probe may be wrong.
        if failure.changes or not forget_answers(Path(runtime_directory())):
            return plan, diagnose(failure, "")
    else:
        return plan, None
    plan = prepare(manifest, options, root=root)
    try:
        _try_out(plan)
    except SetupError as failure:
        return plan, diagnose(failure, "")
    return plan, None


def _try_out(plan: Plan) -> None:
    program = assemble(plan)
    locks = lock_shared(layer_directories(program[1]))
    try:
        try_out(program)
    finally:
        unlock(locks)


def content_at_entry(
    manifest: Manifest, root: bytes, options: JailOptions | None = None
) -> dict[bytes, bytes]:
    """Return the content of the files that are made at entry, for the calling user, by path.

    `options` say which drift is accepted; None accepts none.

    Raises:
        DriftError: the host differs from the manifest.
        JailError: the ld.so cache is made in a jail, and that cannot be set up here.

    """
    options = options or JailOptions()
    root = os.path.realpath(root)
    refuse_other_source(manifest, root)
    check = DriftCheck(verify=options.verify, allow_drift=options.allow_drift)
    found = compare_host(manifest, root, check).manifest
    content = entry_files(
        found, options, root, lambda: steps_by_directory(choose_strategies(found, options, root))
    )
    names = (entry.path for entry in found.files if entry.origin == "entry")
    return {path: content.get(path, b"") for path in names}


def content_for_anyone(manifest: Manifest, root: bytes) -> dict[bytes, bytes]:
    """Return the content of the files that are made at entry, the same for every user, by path.

    The accounts are those of root and nobody, the host name is the default one, and resolv.conf(5) is empty.
    The host must be as the manifest says.

    Raises:
        JailError: as `content_at_entry`.

    """
    root = os.path.realpath(root)
    options = JailOptions(network=False)
    content = entry_files(
        manifest,
        options,
        root,
        lambda: steps_by_directory(choose_strategies(manifest, options, root)),
        account=Account(name="root", uid=0, gid=0, group="root", home="/root"),
    )
    names = (entry.path for entry in manifest.files if entry.origin == "entry")
    return {path: content.get(path, b"") for path in names}


def _plan(
    manifest: Manifest,
    options: JailOptions,
    root: bytes,
    devices: Sequence[Device],
    copies: Mapping[bytes, bytes],
) -> tuple[Plan, tuple[Choice, ...], tuple[bytes, ...]]:
    """Return the plan, its strategies, and the paths in its writable binds that it shows read-only."""
    choices = choose_strategies(manifest, options, root, thorough=bool(options.verify))
    steps = steps_by_directory(choices)
    hostname = host_name(user_namespace=options.user_namespace)
    content = entry_files(manifest, options, root, lambda: steps, hostname=hostname)
    plan = plan_jail(
        manifest,
        options,
        entry_files=content,
        root=root,
        hostname=hostname,
        directory_steps=steps,
        devices=devices,
        copies=copies,
    )
    refuse_too_many_mounts(plan)
    plan, protected = protect(plan, protected_paths(options))
    return plan, choices, protected


def directory_inside(manifest: Manifest, options: JailOptions) -> bytes:
    """Return the path in the jail at which the command starts."""
    if options.cwd not in options.paths or os.path.realpath(options.cwd) == options.cwd:
        return options.cwd
    layout = Layout(manifest)
    add_links(layout, options)
    return path_inside(layout, options)


def entry_files(  # noqa: PLR0913 - what, and by name for whom
    manifest: Manifest,
    options: JailOptions,
    root: bytes,
    directory_steps: Callable[[], Mapping[bytes, Step]] = dict,
    *,
    hostname: str = HOSTNAME,
    account: Account | None = None,
    run_ldconfig: Callable[[Plan, Sequence[str], bytes], int] | None = None,
) -> dict[bytes, bytes]:
    """Return the content of the files made at entry.

    `directory_steps` is called if ldconfig must run, and that is done by `run_ldconfig` if it is given
    (`pkgjail.jails.ld_cache.make_ld_cache`).
    """
    content = etc_files(
        account or current_account(map_root=options.map_root, home=options.environment.get("HOME", "")),
        resolv_conf=read_resolv_conf(),
        network=options.network,
        hostname=hostname,
    )
    content.update(database_content(manifest, root))
    if any(entry.path == LD_CACHE and entry.origin == "entry" for entry in manifest.files):
        content[LD_CACHE] = make_ld_cache(
            manifest,
            content,
            root,
            directory_steps,
            user_namespace=options.user_namespace,
            run_ldconfig=run_ldconfig,
        )
    return content
