"""What an engine is to run: a root directory, mounts, and the command. It is made from a mount plan.

The plan is the jail's own (`pkgjail.jails.plan`), for the copy of the files. Its directories, links and files
that are made at entry become a small tree, the skeleton, which is removed after the run; all else becomes
mounts. So an engine that makes names in its root does not change the copy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import PkgjailError
from pkgjail.core.text import text_path
from pkgjail.sandbox import steps as plans

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pkgjail.sandbox.steps import Plan, Step

    # As in the step of the plan.
    Devices = tuple[tuple[bytes, str, int, bytes], ...]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SKELETON, _EMPTY = b"skeleton", b"empty"


class Mount(NamedTuple):
    """A bind mount: the host's `source`, a real path, with the mounts below it, at `path`."""

    source: bytes
    path: bytes
    writable: bool = False


class Container(NamedTuple):
    """What an engine is to run.

    `name` is unique on the host. `work` is a directory of the user alone, for files of the engine, removed
    after the run. `root` is the skeleton. `mounts` come in this order, after the kernel's file systems and
    `scratch`, which are empty writable file systems of mode 1777. With `keep_names`, the command must not be
    able to make mount namespaces, in which it could rename the directories of mount points.
    """

    name: str
    work: str
    root: bytes
    mounts: tuple[Mount, ...]
    scratch: tuple[bytes, ...]
    devices: Devices
    argv: tuple[str, ...]
    cwd: bytes
    environment: tuple[tuple[str, str], ...]
    network: bool
    hostname: str
    as_root: bool
    keep_names: bool
    terminal: bool


class _Skeleton:
    """The tree of a plan, and its mounts."""

    def __init__(self, work: bytes, source: bytes) -> None:
        self._source = source.rstrip(b"/")
        self._work = work
        self._empty = os.path.join(work, _EMPTY)
        self.root = os.path.join(work, _SKELETON)
        self.mounts: list[Mount] = []
        self.scratch: list[bytes] = []
        self.devices: Devices = ()
        self._modes: list[tuple[bytes, int]] = []
        os.mkdir(self.root, 0o700)
        os.mkdir(self._empty, 0o555)

    def add(self, steps: Iterable[Step]) -> None:
        """Carry out steps, in their order."""
        for step in steps:
            if not self._is_in_scratch(step):
                self._add(step)
        for path, mode in reversed(self._modes):  # deepest first: one without write permission can be filled
            os.chmod(path, mode)

    def _is_in_scratch(self, step: Step) -> bool:
        """Return whether the step makes a mount point in a scratch directory, which engines do themselves."""
        if not isinstance(step, (plans.Directory, plans.Symlink, plans.Content)):
            return False
        is_within = any(step.path.startswith(path + b"/") for path in self.scratch)
        if is_within and isinstance(step, plans.Symlink):
            raise PkgjailError(
                f"cannot make the link {text_path(step.path)}: an engine shows an empty directory there; "
                "name what you bind by its path without links"
            )
        return is_within

    def _add(self, step: Step) -> None:
        if isinstance(step, plans.Directory):
            self._directory(step.path, step.mode)
        elif isinstance(step, plans.Symlink):
            os.symlink(step.target, self.root + step.path)
        elif isinstance(step, plans.Content):
            self._file(step.path, step.mode, step.content)
        elif isinstance(step, plans.Cover):
            self._cover(step)
        elif isinstance(step, plans.HostFile):
            self._file(step.path, 0o444, b"")
            self.mounts.append(Mount(self._source + step.path, step.path))
        elif isinstance(step, plans.WholeDirectory):
            self._directory(step.path, step.mode)
            self.mounts.append(Mount(self._source + step.path, step.path))
        elif isinstance(step, plans.Devices):
            self.devices = step.shown
        elif isinstance(step, plans.Tmpfs):
            self.scratch.append(step.path)
        elif isinstance(step, plans.Bind):
            self.mounts.append(Mount(step.source, step.path, step.writable))
        elif isinstance(step, plans.Hidden):
            self.mounts.append(Mount(self._empty, step.path))
        elif isinstance(step, plans.KeptLink):
            raise PkgjailError(
                f"cannot show {text_path(os.path.dirname(step.source))} writable: an engine cannot protect "
                f"{text_path(step.source)}, a link on which later runs depend; bind a directory further down"
            )
        elif not isinstance(step, _OF_ENGINE):
            raise TypeError(step)

    def _directory(self, path: bytes, mode: int) -> None:
        if path != b"/":
            os.mkdir(self.root + path, 0o700)
        self._modes.append((self.root + path.rstrip(b"/"), mode))

    def _file(self, path: bytes, mode: int, content: bytes) -> None:
        _write(self.root + path, mode, content)

    def _cover(self, step: plans.Cover) -> None:
        source = os.path.join(self._work, b"cover-%d" % len(self.mounts))
        _write(source, step.mode, step.content)
        self.mounts.append(Mount(source, step.path))


def _write(path: bytes, mode: int, content: bytes) -> None:
    with open(os.open(path, _NEW, 0o600), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)


# What an engine does by itself, or what is a field of the container.
_OF_ENGINE = (plans.Seal, plans.Proc, plans.Sys, plans.MapRoot, plans.OneMountNamespace)


def container_of(  # noqa: PLR0913 - all but two by keyword
    plan: Plan,
    work: str,
    *,
    argv: Sequence[str],
    cwd: bytes = b"/",
    environment: Iterable[tuple[str, str]] = (),
    terminal: bool = False,
) -> Container:
    """Make the skeleton of a plan in `work`, an empty directory, and return what is to run.

    Args:
        plan: a plan without overlays.
        work: the directory, of the user alone.
        argv: the command.
        cwd: its working directory.
        environment: all of its variables.
        terminal: whether it gets a terminal of its own.

    Raises:
        PkgjailError: no engine can do what the plan has.
        OSError: the skeleton cannot be written.

    """
    skeleton = _Skeleton(os.fsencode(work), plan.root)
    skeleton.add(plan.steps)
    kinds = {type(step) for step in plan.steps}
    return Container(
        name=f"pkgjail-{os.urandom(8).hex()}",
        work=work,
        root=skeleton.root,
        mounts=tuple(skeleton.mounts),
        scratch=tuple(skeleton.scratch),
        devices=skeleton.devices,
        argv=tuple(argv),
        cwd=cwd,
        environment=tuple(sorted(environment)),
        network=plan.network,
        hostname=plan.hostname,
        as_root=plans.MapRoot in kinds,
        keep_names=plans.OneMountNamespace in kinds,
        terminal=terminal,
    )
