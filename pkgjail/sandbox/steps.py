"""The instruction set of the namespace stage: what a jail is made of, as plain data.

A `Plan` is an ordered tuple of steps; `pkgjail.jail.plan` writes it, `pkgjail.sandbox.launch` carries
it out, and anybody may print it. Paths are absolute, normal `bytes` inside the jail; a step may
rely on the directories that earlier steps made and on nothing else.

The stage itself works from what `assemble` makes of a plan: nothing but tuples, strings and
numbers, which can be kept in a file and read back without a class, or the modules that classes need.
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
    """Make a symbolic link; the target is kept as it is and never followed."""

    path: bytes
    target: bytes


class Content(NamedTuple):
    """Make a regular file with this content."""

    path: bytes
    mode: int
    content: bytes


class HostFile(NamedTuple):
    """Bind the host's regular file of the same path, which must have this mode and size.

    `mode` is the permission bits; `size` is in bytes, or None where the plan does not know it.
    """

    path: bytes
    mode: int
    size: int | None


class Overlay(NamedTuple):
    """Show the metadata tree `tree` at `path`, with the content of the host's files of that path.

    `tree` is a real path of the host; see `pkgjail.jail.strategies.data_overlay`.
    """

    path: bytes
    tree: bytes


class Cover(NamedTuple):
    """Show a regular file with this content in the place of the empty one that an overlay has there."""

    path: bytes
    mode: int
    content: bytes


class MaskedOverlay(NamedTuple):
    """Show the host's directory of the path `path` there, less what the mask `mask` hides.

    `mask` is a real path of the host; see `pkgjail.jail.strategies.whiteout_overlay`.
    """

    path: bytes
    mask: bytes


class WholeDirectory(NamedTuple):
    """Make a directory and bind the host's of the same path, which must have this mode, with all in it.

    What is mounted further down on the host is not shown; see `pkgjail.jail.strategies.directory_binds`.
    """

    path: bytes
    mode: int


class Seal(NamedTuple):
    """Make everything mounted so far read-only, without set-user-ID and without devices."""


class Proc(NamedTuple):
    """Mount a proc(5) of the jail's own PID namespace, its global parts read-only, some of them hidden."""

    path: bytes


class Sys(NamedTuple):
    """Show the host's sysfs(5), read-only; to root without directories of what root alone may read."""

    path: bytes


class Devices(NamedTuple):
    """Mount a minimal /dev: null, zero, full, random, urandom, tty, ptmx, pts, shm, fd links."""

    path: bytes


class Tmpfs(NamedTuple):
    """Mount an empty writable tmpfs(5)."""

    path: bytes
    mode: int


class Bind(NamedTuple):
    """Show what the host has at `source` (mounts below it included) at `path`."""

    path: bytes
    source: bytes
    writable: bool


class KeptLink(NamedTuple):
    """Mount the host's symbolic link `source` on itself at `path`, so that the name leads nowhere else."""

    path: bytes
    source: bytes


class Hidden(NamedTuple):
    """Show an empty directory, read-only, in the place of the one that a bind has at `path`."""

    path: bytes


class OneMountNamespace(NamedTuple):
    """Let the command make no mount namespace of its own; last, as no mount can be made after it.

    In one that has let go of a mount point of the jail's, the name could be replaced all the same.
    """


Step = Union[
    Directory, Symlink, Content, HostFile, Overlay, Cover, MaskedOverlay, WholeDirectory, Seal, Proc, Sys,
    Devices, Tmpfs, Bind, KeptLink, Hidden, OneMountNamespace,
]  # fmt: skip


class Plan(NamedTuple):
    """How a jail is put together. `root` is where the host's files are read (`/`, or a tree)."""

    root: bytes
    steps: tuple[Step, ...]
    network: bool
    hostname: str


def assemble(plan: Plan) -> Program:
    """The plan as plain tuples: each step's name, then its fields."""
    steps = tuple((type(step).__name__, *step) for step in plan.steps)
    return plan.root, steps, plan.network, plan.hostname


class Command(NamedTuple):
    """What runs in the jail. `environment` is all of its environment.

    With `terminal` the command gets a terminal of the jail's own, through which the caller's
    standard input and output are relayed; without, it gets the caller's descriptors 0 to 2.
    """

    argv: tuple[str, ...]
    cwd: bytes
    environment: tuple[tuple[str, str], ...]
    terminal: bool
