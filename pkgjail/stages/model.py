"""The types of stages: what one is asked to run, what it promises, and what every stage can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from pkgjail.core.errors import PkgjailError
from pkgjail.core.model import record
from pkgjail.core.options import JailOptions, Limits
from pkgjail.core.reporter import SILENT
from pkgjail.machine.model import MachineOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.storage.baseline import Publisher

Property = Literal[
    "exact",
    "content",
    "read-only",
    "stays",
    "unprivileged",
    "kernel",
    "filter",
    "processes",
    "user",
    "map-root",
    "network",
    "devices",
    "limits",
    "ipc",
    "drift",
    "variables",
    "signals",
    "ends",
    "failure",
]

PROPERTIES: Mapping[Property, str] = {
    "exact": "shows the names of the manifest, and no others but the jail's own directories",
    "content": "the content of files outside of the manifest cannot be read",
    "read-only": "the command cannot write to them",
    "stays": "changes of the host's files do not reach a running command",
    "unprivileged": "the command has no capability and can gain no privilege",
    "kernel": "settings of the kernel cannot be written, and what only the host's root may read is hidden",
    "filter": "keyrings, io_uring and input pushed into terminals are closed",
    "processes": "the command sees its own processes only",
    "user": "the command has your user and group ids",
    "map-root": "the command can be user 0, and you outside",
    "network": "the command can be without network",
    "devices": "devices of the host can be shown, and those that the manifest allows are",
    "limits": "memory, processors and processes can be limited",
    "ipc": "memory can be shared with processes outside",
    "drift": "files that differ from the manifest can be accepted",
    "variables": "the command has the jail's variables, and no others",
    "signals": "keys and signals reach the command as they do outside",
    "ends": "everything ends with pkgjail, even if that is killed",
    "failure": "a failure to start has the statuses 125 to 127, and a message",
}
"""All properties by which stages differ, with their words."""

_OF_OPTIONS: Mapping[Property, str] = {
    "map-root": "a command that is user 0",
    "network": "a command without network",
    "devices": "devices",
    "limits": "limits of memory, processors or processes",
    "ipc": "shared memory with processes outside",
    "drift": "files that differ from the manifest",
    "user": "a command with your user id",
}


class Promise(NamedTuple):
    """Whether a stage keeps a property, and the words on it: why not, or what to know."""

    kept: bool
    note: str = ""


KEPT = Promise(kept=True)


def promises_of_jail() -> dict[Property, Promise]:
    """Return what a jail of pkgjail's own promises, which shows the host's files: all but one."""
    kept: dict[Property, Promise] = dict.fromkeys(PROPERTIES, KEPT)
    kept["stays"] = Promise(kept=False, note="the files are the host's own; a warning tells what changed")
    return kept


@record
class Request:
    """What a stage is asked to run.

    The fields are the arguments of `pkgjail.jails.run.run_in_jail`; `machine` and `keep` are for the
    stage `vm` alone, as `pkgjail.machine.run.run_in_machine` takes them. `user` is for the stage `root`: the
    user whose rights the command gets (`pkgjail.jails.as_user.find_user`).
    """

    manifest: Manifest
    argv: tuple[str, ...]
    options: JailOptions = JailOptions()
    root: bytes = b"/"
    publisher: Publisher | None = None
    terminal: bool = False
    machine: MachineOptions = MachineOptions()
    keep: bytes = b""
    user: str = ""
    reporter: Reporter = SILENT


class Stage(Protocol):
    """A way to run a command among the files of a manifest."""

    @property
    def name(self) -> str:
        """Return the name, by which users choose it."""
        ...

    @property
    def summary(self) -> str:
        """Return what it is, in a few words."""
        ...

    def promises(self) -> Mapping[Property, Promise]:
        """Return what it promises the calling user, by `PROPERTIES`."""
        ...

    def obstacle(self) -> str:
        """Return why it does not work here, or "" if it does. It is found by trying, in at most a minute."""
        ...

    def run(self, request: Request) -> int:
        """Run the command and return its exit status, or 128 + n if signal n ended it.

        Raises:
            PkgjailError: as `pkgjail.stages.run_in_stage`.

        """
        ...


class RefusedError(PkgjailError):
    """A stage cannot keep what was asked for; `problems` has all of it."""

    def __init__(self, stage: str, problems: Sequence[str]) -> None:
        super().__init__(stage, tuple(problems))
        self.stage = stage
        self.problems = tuple(problems)

    def __str__(self) -> str:
        words = "; ".join(self.problems)
        return f"the stage {self.stage} cannot keep what was asked for: {words}; use the stage namespaces"


def asked_for(request: Request) -> Iterator[Property]:
    """Yield the properties that a request depends on, of those that not every stage keeps."""
    options = request.options
    asked: dict[Property, bool] = {
        "map-root": options.map_root,
        "user": not options.map_root,
        "network": not options.network,
        "limits": options.limits != Limits(),
        "ipc": options.share_ipc,
        "drift": options.allow_drift,
        "devices": bool(options.devices or options.device_sets),
    }
    return (each for each, is_asked in asked.items() if is_asked)


def refusals(promises: Mapping[Property, Promise], asked: Iterator[Property]) -> list[str]:
    """Return the words on each property that is asked for and not promised."""
    return [
        f"{_OF_OPTIONS[each]} ({promises[each].note})" if promises[each].note else _OF_OPTIONS[each]
        for each in asked
        if not promises[each].kept
    ]
