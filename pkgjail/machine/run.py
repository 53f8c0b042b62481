"""Run a command in a machine of its own, which ends with it; or in one that is kept running."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.errors import CommandError, UsageError
from pkgjail.core.given import path_bytes, words
from pkgjail.core.model import record
from pkgjail.core.options import JailOptions
from pkgjail.core.parameters import parameter
from pkgjail.core.reporter import SILENT
from pkgjail.core.sources import refuse_other_source
from pkgjail.core.text import raw_path, text_path
from pkgjail.jails.diagnosis import diagnose
from pkgjail.jails.find_command import find_command, variables_of
from pkgjail.jails.host_name import host_name
from pkgjail.jails.replay import read_account
from pkgjail.jails.run import default_environment, directory_inside
from pkgjail.machine.boot import started_machine
from pkgjail.machine.contents import contents_of
from pkgjail.machine.keeper import kept_machine
from pkgjail.machine.model import MachineOptions
from pkgjail.machine.session import Command, Ended, NotStartedError, run_command
from pkgjail.manifest import dump_manifest, manifest_digest
from pkgjail.sandbox.job import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pkgjail.core.errors import JailError
    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.machine.boot import Guest
    from pkgjail.machine.contents import Contents
    from pkgjail.machine.frames import Link

_SESSION = 1
_KILLED = 137
_LAST_STANDARD = 2


@record
class _Machine:
    """What a machine is made of, and for whom."""

    manifest: Manifest
    contents: Contents
    options: JailOptions
    machine: MachineOptions
    root: bytes
    hostname: str
    reporter: Reporter

    @contextmanager
    def started(self) -> Iterator[Guest]:
        """Start it, and end it when the `with` block ends."""
        with started_machine(
            self.manifest,
            self.contents,
            self.machine,
            root=self.root,
            hostname=self.hostname,
            network=self.options.network,
            reporter=self.reporter,
        ) as guest:
            yield guest

    @property
    def key(self) -> str:
        """Return a digest of all that it is made of."""
        digest = manifest_digest(dump_manifest(self.manifest))
        parts = (digest, self.contents, self.machine, self.root, self.hostname, self.options.network)
        return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()


def run_in_machine(  # noqa: PLR0913 - all but two by keyword
    manifest: Manifest,
    argv: Iterable[AnyPath],
    options: JailOptions | None = None,
    *,
    machine: MachineOptions | None = None,
    keep: AnyPath = b"",
    root: AnyPath = b"/",
    terminal: bool = False,
    reporter: Reporter = SILENT,
) -> int:
    """Run `argv` in a virtual machine among the files of `manifest`, and wait for its end.

    Args:
        manifest: what the command sees, with digests.
        argv: the command.
        options: as for `run_in_jail`. The limits of memory and processors are those of the machine.
        machine: the machine.
        keep: a directory for which the machine goes on running, so that later commands start at once; b"" to
            end it with the command.
        root: the directory that the manifest was resolved from.
        terminal: whether the command gets a terminal of its own, relayed to the caller's.
        reporter: receives progress and warnings.

    Returns:
        The command's exit status, or 128 + n if signal n ended it.

    Raises:
        UsageError: a number of processors is not whole, or copies are asked for and the machine is kept.
        MachineError: there can be no such machine here, or it came to an end before the command.
        CommandError: the command cannot be executed, does not exist, or the machine ran out of memory.
        DriftError, JailError, SourceError: as `run_in_jail`.
        KeyboardInterrupt: a second SIGINT came, and the machine was ended.

    """
    argv = words(argv, "argv")
    keep = path_bytes(keep, "keep")
    root = path_bytes(root, "root")
    options = JailOptions(environment=default_environment()) if options is None else options
    root = os.path.realpath(root)
    refuse_other_source(manifest, root)
    find_command(argv[0], manifest, options, root)
    hostname = host_name()
    contents = contents_of(manifest, options, hostname)
    if contents.read_only and options.warn_of_inputs:
        names = ", ".join(map(text_path, contents.read_only))
        reporter.warn(f"shown read-only in the machine, because later runs depend on it: {names}")
    made_of = _Machine(
        manifest=manifest,
        contents=contents,
        options=options,
        machine=_with_limits(machine or MachineOptions(), options),
        root=root,
        hostname=hostname,
        reporter=reporter,
    )
    command = _command(manifest, argv, options, terminal=terminal)
    with _standard_descriptors():
        return _run_in(made_of, command, keep)


def _run_in(made_of: _Machine, command: Command, keep: bytes) -> int:
    """Run a command in a machine of its own, or in the one that is kept for a directory."""
    reporter = made_of.reporter
    if keep:
        if made_of.machine.share == "copy":
            raise UsageError("a machine that is kept running shares directories, and does not copy them")
        made_of = replace(made_of, machine=replace(made_of.machine, share="9p"))
        with kept_machine(keep, made_of.key, made_of.started) as link:
            return _status(_run(link, command), reporter)
    with made_of.started() as guest:
        ended = _run(guest.running, command)
        guest.shares.bring_back(guest.running, made_of.contents.kept, reporter)
    return _status(ended, reporter)


@contextmanager
def _standard_descriptors() -> Iterator[None]:
    """Have descriptors 0 to 2 be open, so that none of a machine's own gets such a number."""
    opened: list[int] = []
    while not opened or opened[-1] <= _LAST_STANDARD:
        opened.append(os.open(os.devnull, os.O_PATH | os.O_CLOEXEC))
    os.close(opened.pop())
    try:
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _with_limits(machine: MachineOptions, options: JailOptions) -> MachineOptions:
    limits = options.limits
    memory = limits.memory or machine.memory
    processors = machine.processors if limits.cpus is None else int(limits.cpus)
    if limits.cpus is not None and processors != limits.cpus:
        raise UsageError(f"a machine has whole processors: it cannot have {limits.cpus:g}")
    return replace(machine, memory=memory, processors=processors)


def _command(manifest: Manifest, argv: Sequence[str], options: JailOptions, *, terminal: bool) -> Command:
    cwd = directory_inside(manifest, options)
    variables = variables_of(options, cwd)
    uid, gid, _, _, groups = read_account()
    return Command(
        argv=tuple(map(raw_path, argv)),
        cwd=cwd,
        environment=tuple(raw_path(f"{name}={value}") for name, value in sorted(variables.items())),
        uid=uid,
        gid=gid,
        groups=tuple(number for number, _ in groups),
        umask=_umask(),
        processes=options.limits.pids or 0,
        terminal=terminal,
    )


def _run(link: Link, command: Command) -> Ended:
    try:
        return run_command(link, _SESSION, command)
    except NotStartedError as error:
        raise _not_started(error, command) from error


def _status(ended: Ended, reporter: Reporter) -> int:
    if ended.out_of_memory:
        why = (
            "the machine ran out of memory, and its kernel killed a process; "
            f"raise {parameter('Limits.memory')}, or run fewer jobs at once"
        )
        if ended.status:
            raise CommandError(why, _KILLED)
        reporter.warn(why)
    return ended.status


def _not_started(error: NotStartedError, command: Command) -> JailError:
    if error.doing != "execute":
        return error
    name = command.argv[0]
    return diagnose(SetupError("execute", error.number, name, []), text_path(name))


def _umask() -> int:
    """Return this process's umask; setting it to read it would change it for other threads meanwhile."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    return int(fields.get("Umask", "022"), 8)
