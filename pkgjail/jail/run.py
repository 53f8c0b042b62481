"""Enter a jail: from a manifest and options to a running command and its exit status.

Kept apart from `api` because entering must start quickly: nothing here, nor what it imports, pulls
in networkx, rich or a backend.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import DriftError, ExitDriftError, JailError
from pkgjail.core.model import JailOptions, Limits, text_path
from pkgjail.core.reporter import SILENT
from pkgjail.jail.diagnosis import explain
from pkgjail.jail.drift import Check, changes_since, compare_host
from pkgjail.jail.ld_cache import LOADER_CACHE, loader_cache
from pkgjail.jail.plan import Account, entry_files, plan_jail
from pkgjail.jail.probe import forget
from pkgjail.jail.protection import protect, protected_places
from pkgjail.jail.replay import Prepared, StaleError, account_fields, bind_source, mounts_seen, resolver
from pkgjail.jail.strategy import choose, instead_of_binds, refuse_too_many
from pkgjail.sandbox.launch import StageError
from pkgjail.sandbox.steps import assemble
from pkgjail.storage.cache import tree_directory
from pkgjail.storage.locations import settle_runtime_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.jail.strategy import Choice
    from pkgjail.sandbox.steps import Plan, Step
    from pkgjail.storage.baseline import Publisher


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOME = "/tmp"  # noqa: S108 - the jail's own
_ATTEMPTS = 10


def default_environment() -> dict[str, str]:
    """The environment that a command in the jail gets: nothing of the caller's but TERM.

    LD_*, LIBRARY_PATH, CPATH, PKG_CONFIG_PATH and their like are a leak of their own, so what is
    wanted is named in `JailOptions.environment`.
    """
    account = current_account()
    environment = {
        "HOME": _HOME,
        "LANG": "C.UTF-8",
        "LOGNAME": account.name,
        "PATH": _PATH,
        "SHELL": "/bin/sh",
        "USER": account.name,
    }
    if "TERM" in os.environ:
        environment["TERM"] = os.environ["TERM"]
    return environment


def current_account() -> Account:
    """The calling user as passwd(5) and group(5) know them, or "user" where they do not."""
    uid, gid, name, group = account_fields()
    return Account(name=name, uid=uid, gid=gid, group=group, home=_HOME)


def run_in_jail(  # noqa: PLR0913 - what, and by name how
    manifest: Manifest,
    argv: Sequence[str],
    options: JailOptions | None = None,
    *,
    root: bytes = b"/",
    publisher: Publisher | None = None,
    terminal: bool = False,
    reporter: Reporter = SILENT,
) -> int:
    """Run `argv` in a jail that shows exactly `manifest`, and wait for its end.

    Args:
        manifest: what the jail holds.
        argv: the command; its first word is looked for along the PATH of the environment inside.
        options: binds, working directory, network, environment, limits; None is a closed jail with
            the host's network and `default_environment`.
        root: the directory that the manifest was resolved from.
        publisher: whose baseline counts besides the user's own (`pkgjail.storage.baseline.publisher_of`).
        terminal: give the command a terminal of the jail's own, relayed to the caller's.
        reporter: gets progress where files are compared, and warnings of drift that `options` accept and
            of entries that changed while the command ran.

    Returns:
        The command's exit status, or 128 + n when signal n ended it.

    Raises:
        CommandError: there is no such command in the jail, or it cannot be executed.
        DriftError: files of the host are not as the manifest says, or, where `options` ask for it, are so
            no more when the command has ended.
        JailError: the jail cannot be set up here, or its limits not be held; the message says which
            setting is at fault.
        OutOfMemoryError: the jail was killed, having reached its limit of memory.

    """
    jail = prepare_jail(manifest, options, root=root, publisher=publisher, reporter=reporter)
    return jail.run(argv, terminal=terminal)


def prepare_jail(  # noqa: PLR0913 - what, and by name how
    manifest: Manifest,
    options: JailOptions | None = None,
    *,
    root: bytes = b"/",
    publisher: Publisher | None = None,
    recorded: bool = False,
    reporter: Reporter = SILENT,
) -> Jail:
    """Work out once how a jail is entered, for a program that enters it many times.

    Arguments and errors are those of `run_in_jail`. With `recorded` the caller has compared the content of
    the files with a record of its own; they are compared by kind, mode, size and link text alone.
    """
    if options is None:
        options = JailOptions(environment=default_environment())
    check = Check(
        verify=options.verify,
        allow_drift=options.allow_drift,
        publisher=publisher,
        recorded=recorded,
        reporter=reporter,
    )
    return Jail(manifest, options, os.path.realpath(root), check)


class Jail:
    """A jail that can be entered again and again, from one thread at a time.

    `prepared` is what an entry works from. Each entry looks whether all that it rests on is still
    so, and where it is not, works it out again. It is `lasting` where it is as good as this host allows,
    and not a makeshift for something that failed and may work the next time, and so worth being kept.
    """

    def __init__(self, manifest: Manifest, options: JailOptions, root: bytes, check: Check) -> None:
        self._manifest = manifest
        self._options = options
        self._root = root
        self._check = check
        self._accepted: tuple[tuple[bytes, str], ...] = ()
        self._told: set[bytes] = set()
        self.lasting = True
        self._asked_again = False
        _limits(options)  # what is no limit is refused before any work
        self.prepared = self._prepare()

    def run(self, argv: Sequence[str], *, terminal: bool = False) -> int:
        """Run `argv` in the jail, as `run_in_jail` does."""
        for _ in range(_ATTEMPTS):
            status = self._try(argv, terminal=terminal)
            if status is not None:
                return status
        raise JailError(
            "cannot enter the jail: what it is made from keeps changing, or another process has locked the "
            f"layers in {tree_directory()}; see who with 'lslocks', or use '--plan binds'"
        )

    def _try(self, argv: Sequence[str], *, terminal: bool) -> int | None:
        """Enter once; None where the jail had to be worked out again first."""
        if self._accepted:
            self._check.reporter.warn(str(DriftError(self._accepted, accepted=True)))
        try:
            limits, warn = _limits(self._options), self._check.reporter.warn
            status = self.prepared.run(argv, terminal=terminal, limits=limits, warn=warn)
        except StaleError:
            self.prepared = self._prepare()
            return None
        except StageError as failure:
            # Perhaps in a way that another seccomp filter allowed, say: asked again, once.
            if self._may_ask_again(failure) and forget(tree_directory()):
                self._asked_again = True
                self.prepared = self._prepare()
                return None
            raise explain(failure, argv[0]) from failure
        if self.prepared.host_changed():
            strict = self._options.strict_exit
            report_changes(
                self._manifest, self._root, self._check, accepted=self._accepted, strict=strict, status=status
            )
        return status

    def _may_ask_again(self, failure: StageError) -> bool:
        return failure.doing == "build" and not failure.changes and not self._asked_again

    def _prepare(self) -> Prepared:
        options = self._options
        fields = account_fields()
        host_resolver = resolver() if options.network else None
        sources = tuple(bind_source(bind.source) for bind in options.binds)
        if fault := settle_runtime_directory():
            self._check.reporter.warn(fault)
        mounts = mounts_seen(
            self._root, [os.path.realpath(bind.source) for bind in options.binds if bind.writable]
        )
        host = compare_host(self._manifest, self._root, self._check)
        self._accepted = host.accepted
        plan, choices, shown = _plan(host.manifest, options, self._root)
        self._tell(shown)
        states = {state for choice in choices for state in choice.observed}
        self.lasting = all(choice.lasting for choice in choices)
        return Prepared(
            program=assemble(plan),
            environment=tuple(sorted(options.environment.items())),
            cwd=options.cwd,
            host=host.watched,
            watched=tuple(states - set(host.watched)),
            mounts=mounts,
            sources=sources,
            account=fields,
            resolver=host_resolver,
        )

    def _tell(self, shown: tuple[bytes, ...]) -> None:
        """Say once which paths of writable binds are read-only all the same."""
        new = [text_path(path) for path in shown if path not in self._told]
        self._told.update(shown)
        if new and self._options.warn_of_inputs:
            self._check.reporter.warn(
                f"shown read-only in the jail, as later runs are made from it: {', '.join(new)}"
            )


def report_changes(  # noqa: PLR0913 - what, and by name how
    manifest: Manifest,
    root: bytes,
    check: Check,
    *,
    accepted: tuple[tuple[bytes, str], ...] = (),
    strict: bool,
    status: int,
) -> None:
    """Warn of entries of a manifest that changed on the host while a command ran, which ended with `status`.

    Args:
        manifest: what the jail held.
        root: where its files are, a real path.
        check: whose baseline counts, and who gets the warning.
        accepted: drift that the entry accepted.
        strict: other changes are an error.
        status: what the command ended with.

    Raises:
        ExitDriftError: there are some, with `strict`.

    """
    changes = tuple(sorted(set(changes_since(manifest, root, check.publisher)) - set(accepted)))
    if not changes:
        return
    if strict:
        raise ExitDriftError(changes, status)
    check.reporter.warn(str(ExitDriftError(changes, status)))


def _limits(options: JailOptions) -> tuple[int | None, float | None, int | None] | None:
    """The limits as the stage takes them; None where there are none."""
    if options.limits == Limits():
        return None
    from pkgjail.jail.limits import limits_asked  # only where they are asked for

    return limits_asked(options)


def prepare(manifest: Manifest, options: JailOptions, *, root: bytes = b"/") -> Plan:
    """The plan that `run_in_jail` carries out, with the files that are made at entry.

    Raises:
        JailError: as `run_in_jail`.

    """
    root = os.path.realpath(root)
    host = compare_host(manifest, root, Check(verify=options.verify, allow_drift=options.allow_drift))
    return _plan(host.manifest, options, root)[0]


def content_at_entry(
    manifest: Manifest, root: bytes, options: JailOptions | None = None
) -> dict[bytes, bytes]:
    """The content of the files that the manifest holds by name alone, for the calling user.

    `options` say what drift is accepted; None accepts none.

    Raises:
        DriftError: the host is not as the manifest says.
        JailError: the loader's cache is made in a jail, and that cannot be set up here.

    """
    options = options or JailOptions()
    root = os.path.realpath(root)
    check = Check(verify=options.verify, allow_drift=options.allow_drift)
    found = compare_host(manifest, root, check).manifest
    made = _made_at_entry(found, options, root, lambda: instead_of_binds(choose(found, options, root)))
    names = (entry.path for entry in found.files if entry.origin == "entry")
    return {path: made.get(path, b"") for path in names}


def _plan(
    manifest: Manifest, options: JailOptions, root: bytes
) -> tuple[Plan, tuple[Choice, ...], tuple[bytes, ...]]:
    """The plan, how it shows the host's directories, and what of its writable binds it shows read-only."""
    choices = choose(manifest, options, root, thorough=bool(options.verify))
    instead = instead_of_binds(choices)
    made = _made_at_entry(manifest, options, root, lambda: instead)
    plan = plan_jail(manifest, options, made_at_entry=made, root=root, instead=instead)
    refuse_too_many(plan)
    plan, shown = protect(plan, protected_places(options))
    return plan, choices, shown


def _made_at_entry(
    manifest: Manifest, options: JailOptions, root: bytes, instead: Callable[[], Mapping[bytes, Step]]
) -> dict[bytes, bytes]:
    """What is made at entry; `instead` says how a jail shows directories, where ldconfig must be run."""
    made = entry_files(current_account(), host_resolver=resolver(), network=options.network)
    if any(entry.path == LOADER_CACHE and entry.origin == "entry" for entry in manifest.files):
        made[LOADER_CACHE] = loader_cache(manifest, made, root, instead)
    return made
