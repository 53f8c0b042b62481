"""Stages: ways to run a command among the files of a manifest. Each is a module with its promises.

model        what a stage is, and what it can promise
namespaces   the default: the jail of `pkgjail.jails`
root         the same, made by root without a user namespace
helper       the same, made by a service of root's (`pkgjail.helper`)
supervised   a command beside a supervisor, without namespaces (`pkgjail.supervised`)
bwrap, nspawn, podman, runc
             the same files in containers of these programs (engines)
vm           a virtual machine (`pkgjail.machine`)
engine       what engines have in common
copy         the copy of a manifest's files that an engine shows
container    what an engine is to run: a root, mounts, the command
supervise    the process of an engine: signals, terminal, exit status
trial        whether an engine works here, by trying
ladder       the strongest stage of pkgjail's own that works here ("auto")
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from pkgjail.core.errors import UsageError
from pkgjail.core.given import path_bytes, words
from pkgjail.core.options import JailOptions
from pkgjail.core.reporter import SILENT
from pkgjail.core.stage_names import AUTO, DEFAULT, STAGE_NAMES
from pkgjail.machine.model import MachineOptions
from pkgjail.settings.read import read_settings
from pkgjail.stages.ladder import strongest
from pkgjail.stages.model import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.settings.model import Settings
    from pkgjail.stages.model import Stage
    from pkgjail.storage.baseline import Publisher


class _Stages(Mapping[str, "Stage"]):
    """The stages by name. Each is imported when it is asked for: most commands need one."""

    def __init__(self) -> None:
        self._made: dict[str, Stage] = {}

    def __getitem__(self, name: str) -> Stage:
        if name not in STAGE_NAMES:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = getattr(import_module(f"pkgjail.stages.{name}"), name.capitalize())()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(STAGE_NAMES)

    def __len__(self) -> int:
        return len(STAGE_NAMES)


STAGES: Mapping[str, Stage] = _Stages()
"""The stages by name; the first is the default. The module of each has its name."""


def run_in_stage(  # noqa: PLR0913 - all but two by keyword
    manifest: Manifest,
    argv: Iterable[AnyPath],
    options: JailOptions | None = None,
    *,
    stage: str = DEFAULT,
    root: AnyPath = b"/",
    publisher: Publisher | None = None,
    terminal: bool = False,
    machine: MachineOptions | None = None,
    user: str = "",
    reporter: Reporter = SILENT,
) -> int:
    """Run `argv` in a stage among the files of `manifest`, and wait for its end.

    The stages of engines and machines show a copy of the files, a directory or a disk, which is made at the
    first entry and kept in the user's cache.

    Args:
        manifest: what the command sees; for stages that show a copy, with digests.
        argv: the command.
        options: as for `run_in_jail`.
        stage: one of `STAGES`, or "auto" for the strongest of pkgjail's own that works here.
        root: the directory that the manifest was resolved from.
        publisher: as for `run_in_jail`.
        terminal: whether the command gets a terminal of its own, relayed to the caller's.
        machine: the machine of the stage "vm".
        user: for the stage "root", whose rights and ids the command gets: a name or a number; "" for whoever
            called sudo(8).
        reporter: receives progress and warnings.

    Returns:
        The command's exit status, or 128 + n if signal n ended it.

    Raises:
        RefusedError: the stage cannot keep what `options` ask for.
        SettingsError: a file of settings is wrong.
        UsageError: there is no such stage, or settings exclude it.
        CommandError, DriftError, JailError, SourceError: as `run_in_jail`.

    """
    argv = words(argv, "argv")
    root = path_bytes(root, "root")
    request = Request(
        manifest=manifest,
        argv=tuple(argv),
        options=options or JailOptions(),
        root=root,
        publisher=publisher,
        terminal=terminal,
        machine=machine or MachineOptions(),
        user=user,
        reporter=reporter,
    )
    return STAGES[choose_stage(stage, request)].run(request)


def choose_stage(stage: str, request: Request, settings: Settings | None = None) -> str:
    """Return the name of the stage that a request runs in; only "auto" is not that name already.

    Args:
        stage: one of `STAGES`, or "auto".
        request: what is to be run; with "auto", its reporter is warned if a weaker stage is taken.
        settings: those that apply, by default the present ones.

    Raises:
        JailError: with "auto", if no stage can run it.
        SettingsError, UsageError: as `run_in_stage`.

    """
    if stage not in {*STAGES, AUTO}:
        raise UsageError(f"there is no stage {stage!r}: the stages are {', '.join((*STAGES, AUTO))}")
    settings = read_settings() if settings is None else settings
    if stage == AUTO:
        return strongest(STAGES, settings, request)
    settings.refuse_excluded(stage)
    return stage
