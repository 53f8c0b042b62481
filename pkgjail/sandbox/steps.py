"""The steps of a mount plan, as plain data: the instruction set of the sandbox.

A `Plan` is an ordered tuple of steps. `pkgjail.jails.plan` writes it, `pkgjail.sandbox.launch` carries it
out, and `pkgjail mounts` prints it. Paths are absolute, normal `bytes` inside the jail. A step may depend on
the directories that earlier steps made, and on nothing else.

The sandbox itself takes the result of `assemble`: only tuples, strings and numbers. These can be stored in
a file and read back without these classes and the modules that they need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Union

if TYPE_CHECKING:
    from pkgjail.sandbox.rootfs import Program


class Directory(NamedTuple):
    """Make a directory in the jail's root (a tmpfs)."""

    path: bytes
    mode: int


class Symlink(NamedTuple):
    """Make a symbolic link. Its target is neither changed nor followed."""

    path: bytes
    target: bytes


class Content(NamedTuple):
    """Make a regular file with this content."""

    path: bytes
    mode: int
    content: bytes


class HostFile(NamedTuple):
    """Bind the host's regular file of the same path, which must have this mode and size.

    `mode` is the permission bits; `size` is in bytes, or None if it is not known.
    """

    path: bytes
    mode: int
    size: int | None


class Overlay(NamedTuple):
    """Mount a data overlay at `path`: the names of `layer`, with the content of the host's files there.

    `layer` is a real path of the host; see `pkgjail.jails.strategies.data_overlay`.
    """

    path: bytes
    layer: bytes


class Cover(NamedTuple):
    """Mount a regular file with this content over the empty one that an overlay has there."""

    path: bytes
    mode: int
    content: bytes


class MaskedOverlay(NamedTuple):
    """Mount a whiteout overlay at `path`: the host's directory of that path, without what `layer` hides.

    `layer` is a real path of the host; see `pkgjail.jails.strategies.whiteout_overlay`.
    """

    path: bytes
    layer: bytes


class WholeDirectory(NamedTuple):
    """Make a directory and bind the host's directory of the same path, which must have this mode.

    Mounts below it on the host are not shown; see `pkgjail.jails.strategies.directory_binds`.
    """

    path: bytes
    mode: int


class Seal(NamedTuple):
    """Make everything mounted so far read-only, without set-user-ID and without devices."""


class Proc(NamedTuple):
    """Mount a proc(5) of the jail's PID namespace. Its global parts are read-only, and some are hidden."""

    path: bytes


class Sys(NamedTuple):
    """Bind the host's sysfs(5), read-only. For root, hide directories of files that only root may read."""

    path: bytes


class Devices(NamedTuple):
    """Mount a minimal /dev: null, zero, full, random, urandom, tty, ptmx, pts, shm, fd links.

    `shown` are devices of the host besides, bound at the same paths, and links to them: for each its path,
    "character", "block" or "link", the device's number, and the link's text.
    """

    path: bytes
    shown: tuple[tuple[bytes, str, int, bytes], ...] = ()


class Tmpfs(NamedTuple):
    """Mount an empty writable tmpfs(5)."""

    path: bytes
    mode: int


class Bind(NamedTuple):
    """Bind the host's `source`, with the mounts below it, at `path`."""

    path: bytes
    source: bytes
    writable: bool


class KeptLink(NamedTuple):
    """Mount the host's symbolic link `source` on itself at `path`, so that it cannot be replaced."""

    path: bytes
    source: bytes


class Hidden(NamedTuple):
    """Mount an empty, read-only directory over the one that a bind has at `path`."""

    path: bytes


class MapRoot(NamedTuple):
    """Let the command be user 0, with subordinate ids. This is the first step, if it is one.

    `pkgjail.sandbox.command` carries it out.
    """


class NoUserNamespace(NamedTuple):
    """Make the jail without a user namespace. This is the first step, if it is one.

    The process that makes the jail has the privileges of `pkgjail.sandbox.privileged`. The command cannot
    make user namespaces either.
    """


class OneMountNamespace(NamedTuple):
    """Forbid the command to make mount namespaces. This is the last step: no mount can be made after it.

    In a mount namespace of its own, the command could unmount what protects a name, and replace it.
    """


Step = Union[
    Directory, Symlink, Content, HostFile, Overlay, Cover, MaskedOverlay, WholeDirectory, Seal, Proc, Sys,
    Devices, Tmpfs, Bind, KeptLink, Hidden, MapRoot, NoUserNamespace,
    OneMountNamespace,
]  # fmt: skip


class Plan(NamedTuple):
    """A mount plan. `root` is the directory of the host's files (`/`, or a tree).

    With `share_ipc`, the jail has the caller's IPC namespace, not one of its own.
    """

    root: bytes
    steps: tuple[Step, ...]
    network: bool
    hostname: str
    share_ipc: bool = False


def assemble(plan: Plan) -> Program:
    """Return the plan as plain tuples: each step's name, then its fields."""
    steps = tuple((type(step).__name__, *step) for step in plan.steps)
    return plan.root, steps, plan.network, plan.hostname, plan.share_ipc


class Command(NamedTuple):
    """The command to run in the jail. `environment` is its whole environment.

    With `terminal`, the command gets a terminal of the jail's own, which is relayed to the caller's standard
    input and output. Otherwise it gets the caller's descriptors 0 to 2.
    """

    argv: tuple[str, ...]
    cwd: bytes
    environment: tuple[tuple[str, str], ...]
    terminal: bool
