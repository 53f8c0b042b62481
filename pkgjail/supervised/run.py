"""Run a command under supervision: from a manifest and options to the command's exit status."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.core.errors import JailError
from pkgjail.core.jail_names import KERNEL_DIRECTORIES
from pkgjail.core.paths import follow
from pkgjail.core.sources import refuse_other_source
from pkgjail.core.text import first_of, text_path
from pkgjail.jails.devices import show_devices
from pkgjail.jails.diagnosis import diagnose
from pkgjail.jails.drift import DriftCheck, compare_host
from pkgjail.jails.find_command import find_command, variables_of
from pkgjail.jails.missing import advice_on_missing, candidates
from pkgjail.jails.plan import plan_jail
from pkgjail.jails.protected_paths import protected_paths
from pkgjail.jails.protection import protect
from pkgjail.jails.run import directory_inside, entry_files, report_changes
from pkgjail.sandbox.job import SetupError
from pkgjail.storage.scratch import scratch
from pkgjail.supervised.calls import known_calls
from pkgjail.supervised.launch import Words, run_supervised
from pkgjail.supervised.names import (
    Bind,
    Names,
    binds_of,
    differing_links,
    make_differing_links,
    names_of,
    read_link,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions
    from pkgjail.core.reporter import Reporter
    from pkgjail.sandbox.steps import Plan
    from pkgjail.storage.baseline import Publisher

_TEMPORARY = ("TMPDIR", "TMP", "TEMP")
_SYS = KERNEL_DIRECTORIES[2]


def run_command(  # noqa: PLR0913 - all but three by keyword
    manifest: Manifest,
    argv: Sequence[str],
    options: JailOptions,
    *,
    publisher: Publisher | None,
    terminal: bool,
    reporter: Reporter,
) -> int:
    """Run `argv` under supervision among the files of `manifest`, and wait for its end.

    The arguments, the result and the errors are those of `pkgjail.jails.run.run_in_jail`; the root is this
    host's. What supervision cannot keep must have been refused.
    """
    root = b"/"
    refuse_other_source(manifest, root)
    check = DriftCheck(
        verify=options.verify, allow_drift=options.allow_drift, publisher=publisher, reporter=reporter
    )
    host = compare_host(manifest, root, check)
    plan = _plan(host.manifest, options)
    for warning in _unusable_links(plan):
        reporter.warn(warning)
    cwd = directory_inside(host.manifest, options)
    find_command(argv[0], host.manifest, options, root)
    calls = known_calls()
    with scratch("supervised") as place:
        private, links = (
            os.path.join(os.path.realpath(os.fsencode(place)), name) for name in (b"tmp", b"links")
        )
        for path in (private, links):
            os.mkdir(path, 0o700)
        variables = variables_of(options, cwd)
        for name in _TEMPORARY:
            variables.setdefault(name, text_path(private))
        words = Words(tuple(argv), cwd, tuple(sorted(variables.items())), terminal)
        try:
            status = run_supervised(
                words, lambda: _names(plan, private, links), calls, network=options.network
            )
        except SetupError as failure:
            advice = partial(_advice, argv[0], manifest, options)
            raise diagnose(failure, argv[0], package_of=advice) from failure
    report_changes(manifest, root, check, accepted=host.accepted, strict=options.strict_exit, status=status)
    return status


def _plan(manifest: Manifest, options: JailOptions) -> Plan:
    """Return the plan of the jail that the command would have.

    Raises:
        JailError: it has what cannot be shown without namespaces.

    """
    hostname = os.uname().nodename
    plan = plan_jail(
        manifest,
        options,
        entry_files=entry_files(manifest, options, b"/", hostname=hostname, run_ldconfig=_run_ldconfig),
        hostname=hostname,
        devices=show_devices(manifest, options),
    )
    if unshowable := _unshowable_binds(plan):
        raise JailError(
            f"cannot show without namespaces: {'; '.join(first_of(unshowable))}; bind it at its own path"
        )
    _, protected = protect(plan, protected_paths(options))
    if protected:
        words = ", ".join(first_of([text_path(path) for path in protected]))
        raise JailError(
            f"cannot protect without namespaces what later runs depend on: {words}; a writable bind shows "
            "it: move it out of the bind, or bind a directory further down"
        )
    return plan


def _run_ldconfig(plan: Plan, argv: Sequence[str], out: bytes) -> int:
    """Run the manifest's own ldconfig under supervision, which may write to the directory `out`."""

    def names() -> Names:
        """Return what it sees."""
        made = names_of(plan)
        made.add_bind(Bind(out, os.open(out, os.O_PATH | os.O_CLOEXEC), writable=True))
        return made

    try:
        return run_supervised(Words(tuple(argv), b"/", ()), names, known_calls(), network=False)
    except SetupError as failure:
        raise diagnose(failure, argv[0]) from failure


def _unshowable_binds(plan: Plan) -> list[str]:
    """Return words on the binds that would need a mount."""
    binds = binds_of(plan)
    writable = [bind.path for bind in binds if bind.writable]
    return [
        f"a bind of {text_path(bind.source)} at another path, {text_path(bind.path)}"
        for bind in binds
        if bind.source != bind.path
    ] + [
        f"{text_path(bind.path)}, a read-only bind in a writable one"
        for bind in binds
        if not bind.writable and any(bind.path.startswith(path.rstrip(b"/") + b"/") for path in writable)
    ]


def _unusable_links(plan: Plan) -> Iterator[str]:
    """Yield a warning of the links that lead to another program on this host."""
    names = names_of(plan)
    found = [
        f"{text_path(path)} (here it leads to {text_path(read_link(path)) or 'nothing'})"
        for path in differing_links(names)
        if names.files.get(_end(names, path), 0) & 0o111
    ]
    if found:
        yield (
            "these links differ on this host, and without namespaces no program can be started by them: "
            + ", ".join(first_of(found))
        )


def _end(names: Names, path: bytes) -> bytes:
    try:
        return follow(path, names.targets.get)
    except OSError:
        return path


def _names(plan: Plan, private: bytes, links: bytes) -> Names:
    """In the supervisor: return the names that the command sees, and open its binds."""
    names = names_of(plan)
    binds = [(bind.path, bind.writable, False) for bind in binds_of(plan)]
    for path, writable, is_read_by_us in (*binds, (private, True, False), (_SYS, False, True)):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        names.add_bind(Bind(path, opened, writable, os.path.isdir(path), is_read_by_us))
    make_differing_links(names, links)
    return names


def _advice(command: str, manifest: Manifest, options: JailOptions, path: bytes) -> str:
    paths = [path] if path else candidates(command, options.environment)
    return advice_on_missing(paths, manifest, b"/")
