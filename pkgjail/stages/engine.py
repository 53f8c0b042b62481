"""What the stages have in common that run a command in a container of another program, the engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pkgjail.core.errors import JailError, PkgjailError
from pkgjail.core.text import printable, raw_path
from pkgjail.jails.emulation import runs_by_emulation
from pkgjail.jails.find_command import find_command, variables_of
from pkgjail.jails.run import directory_inside, prepare
from pkgjail.stages.container import container_of
from pkgjail.stages.copy import copied_files
from pkgjail.stages.model import KEPT, PROPERTIES, Promise, RefusedError, asked_for, refusals
from pkgjail.stages.supervise import supervise
from pkgjail.stages.trial import TRIAL_COMMAND, TRIAL_ENVIRONMENT, trial_plan
from pkgjail.storage.scratch import scratch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from pkgjail.sandbox.steps import Plan
    from pkgjail.stages.container import Container
    from pkgjail.stages.model import Property, Request

_SECONDS = 60
_MOST_SHOWN = 400  # characters of an engine's own message
PROCESS_ONE = "the command is process 1: INT and TERM do nothing unless it handles them"
KILLED_AT_ONCE = "INT and TERM kill the container at once: the command cannot handle them"
SEE_ABOVE = "see its message above"
GOES_ON = "if pkgjail is killed by SIGKILL, the container goes on"
_OWN = "pkgjail does this in its own jail alone"
_COPY = "the files are a copy of what the manifest says"


class Started(NamedTuple):
    """The command line of an engine, its environment, and descriptors above 2 that it inherits."""

    words: tuple[str | bytes, ...]
    environment: Mapping[str, str]
    inherited: tuple[int, ...] = ()


class Engine(ABC):
    """A stage of an engine. `program` is its command, `package` Debian's package with it."""

    name: ClassVar[str]
    summary: ClassVar[str]
    program: ClassVar[str]
    package: ClassVar[str]

    def promises(self) -> Mapping[Property, Promise]:
        """Return what it promises: all, but what no engine does, and what this one does otherwise."""
        kept: dict[Property, Promise] = dict.fromkeys(PROPERTIES, KEPT)
        kept["limits"] = kept["ipc"] = Promise(kept=False, note=_OWN)
        kept["drift"] = Promise(kept=False, note=_COPY)
        kept["devices"] = Promise(kept=False, note=_OWN)
        kept["map-root"] = Promise(kept=False)
        return {**kept, **self.differences()}

    @abstractmethod
    def differences(self) -> Mapping[Property, Promise]:
        """Return the promises of this engine that differ from those of all engines."""

    @abstractmethod
    def started(self, container: Container) -> AbstractContextManager[Started]:
        """Prepare to start the engine; its files are there as long as the context is open.

        Raises:
            RefusedError: it cannot express what the container has.

        """

    def failure(self, container: Container, status: int) -> str:
        """Return why the engine failed to start the command, if it says so in a file of its own; or ""."""
        del container, status
        return ""

    def leftover(self, container: Container) -> tuple[str, ...]:
        """Return the command that removes what the engine left, or () if it left nothing."""
        del container
        return ()

    # --- running ----------------------------------------------------------------------------------

    def run(self, request: Request) -> int:
        """Run the command in a container of the engine."""
        if not self._path():
            raise JailError(f"cannot use the stage {self.name}: {self._absence()}")
        if problems := self._problems(request):
            raise RefusedError(self.name, problems)
        runs_by_emulation(request.manifest, request.reporter)
        # A copy is shown best by whole directories: each is one mount.
        options = replace(request.options, plan="whole")
        with copied_files(request.manifest, request.root, request.reporter) as (manifest, place):
            plan = prepare(manifest, options, root=place)
            find_command(request.argv[0], manifest, request.options, request.root)
            with scratch("stage") as work:
                cwd = directory_inside(manifest, options)
                container = container_of(
                    plan,
                    work,
                    argv=request.argv,
                    cwd=cwd,
                    environment=variables_of(options, cwd).items(),
                    terminal=request.terminal,
                )
                return self._run(container)

    def _run(self, container: Container) -> int:
        try:
            with self.started(container) as start:
                status = supervise(
                    start.words, start.environment, terminal=container.terminal, inherited=start.inherited
                )
        finally:
            self._clean(container)
        if why := self.failure(container, status):
            raise JailError(f"{self.program} cannot start the command: {why}")
        return status

    def _clean(self, container: Container) -> None:
        if words := self.leftover(container):
            silent = subprocess.DEVNULL
            subprocess.run(words, stdin=silent, stdout=silent, stderr=silent, check=False)

    def _problems(self, request: Request) -> list[str]:
        promises = self.promises()
        problems = refusals(promises, asked_for(request))
        if request.options.plan != "auto":
            problems.append("a strategy (the files are one copy)")
        if request.manifest.devices and not promises["devices"].kept:
            patterns = ", ".join(device.pattern for device in request.manifest.devices)
            problems.append(f"the devices that the manifest allows ({patterns})")
        return problems

    # --- trying -----------------------------------------------------------------------------------

    def obstacle(self) -> str:
        """Return why the engine does not work here, or "", after running a command that does nothing."""
        if not self._path():
            return self._absence()
        try:
            with scratch("stage") as work:
                return self._try(_own_trial(self, work))
        except (PkgjailError, OSError) as error:
            return str(error)

    def _try(self, container: Container) -> str:
        try:
            with self.started(container) as start:
                tried = subprocess.run(
                    start.words,
                    env=dict(start.environment),
                    pass_fds=start.inherited,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=_SECONDS,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            return f"{self.program} does not end within {_SECONDS} s"
        finally:
            self._clean(container)
        if not tried.returncode:
            return ""
        lines = tried.stdout.decode("utf-8", "backslashreplace").strip().splitlines()
        why = self.failure(container, tried.returncode)
        if why in {"", SEE_ABOVE}:
            why = lines[-1] if lines else "it gives no reason"
        return printable(why[-_MOST_SHOWN:])

    def _path(self) -> str:
        """Return the program's absolute path, or ""."""
        return os.path.abspath(found) if (found := shutil.which(self.program)) else ""

    def _absence(self) -> str:
        return f"the program {self.program} is not in PATH (Debian's package {self.package} has it)"


def _own_trial(engine: Engine, work: str) -> Container:
    plan = trial_plan()
    if not engine.promises()["user"].kept:
        plan = _as_root(plan)
    return container_of(plan, work, argv=TRIAL_COMMAND, environment=TRIAL_ENVIRONMENT)


def _as_root(plan: Plan) -> Plan:
    from pkgjail.sandbox.steps import MapRoot

    return plan._replace(steps=(MapRoot(), *plan.steps))


# --- words that an engine can have ----------------------------------------------------------------


def check_texts(engine: Engine, container: Container, *, forbidden: str = "", lines: bool = True) -> None:
    """Refuse names that an engine cannot take: those that are not UTF-8, or have certain characters.

    Args:
        engine: the stage, for the message.
        container: what it is to run.
        forbidden: characters that the paths of mounts must not have.
        lines: whether values of variables may have several lines.

    Raises:
        RefusedError: names each of them.

    """
    problems = [
        f"the name {printable(path)} (it has one of {forbidden!r}, or is not UTF-8)"
        for path in _mounted_paths(container)
        if not _is_text(path, forbidden)
    ]
    words = (*container.argv, *(f"{name}={value}" for name, value in container.environment))
    problems += [f"the word {printable(word)} (it is not UTF-8)" for word in words if not _is_text(word)]
    problems += [
        f"the variable {printable(name)} (it has several lines)"
        for name, value in container.environment
        if not lines and "\n" in value
    ]
    if problems:
        raise RefusedError(engine.name, problems)


def _mounted_paths(container: Container) -> Iterator[bytes]:
    for mount in container.mounts:
        yield mount.source
        yield mount.path
    yield container.cwd


def _is_text(word: str | bytes, forbidden: str = "") -> bool:
    raw = raw_path(word) if isinstance(word, str) else word
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return False
    return not any(character in text for character in forbidden)
