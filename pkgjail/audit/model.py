"""The data types of an audit, all frozen: what a command in a jail looked for, and what was there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pkgjail.core.model import record, short_repr

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["regular", "directory", "symlink", "special", "absent", "refused"]
"""What is at a path: a file, or nothing, or something that the command was refused to look at."""

Area = Literal["manifest", "bind", "jail"]
"""Whose part of a jail a path is in: the manifest's, a bind's, or what the jail makes itself, as /proc."""

Call = Literal["change", "exec", "link", "list", "look", "open"]
"""A kind of call: of a name's creation, change or removal; execve(2); readlink(2); open(2) of a directory;
stat(2), access(2) and chdir(2); open(2) of anything else."""

Clue = Literal["asked", "library", "listed"]
"""How it is known that a command wanted a path: it asked for the path; it asked for a library of that name,
which the source's loader would have found there; it listed the directory, and its own files have the name."""


@record
class Program:
    """A program that ran in the jail, once for each chain of programs that started it.

    `path` is its file inside, `b""` for what starts the command. `script` is the file that an interpreter
    was given. `parent` is the number of the program that started it; 0 has none.
    """

    number: int
    path: bytes
    script: bytes = b""
    parent: int = 0


@record
class Mention:
    """A line of a build's own file that has to do with a path: a test of configure, a source that names it.

    `file` is the path inside, `text` what the line says, and `result` what a test found ("no").
    """

    file: bytes
    line: int
    text: str
    result: str = ""


@record
class LookUp:
    """One path that a command asked for, with links on the way to it resolved.

    `inside` is what the jail has there, in the part `area`. If that is nothing, `source` is what the source
    has there: the host, or the root that the manifest was made from. `owners` are the packages that have the
    path, of the manifest or else of the source, and `rule` the blacklist's line that dropped it.
    `calls` counts calls by kind, and `programs` by the numbers of programs, which need not all be there.
    """

    path: bytes
    inside: Kind
    area: Area
    calls: Mapping[str, int]
    source: Kind = "absent"
    clue: Clue = "asked"
    owners: tuple[str, ...] = ()
    rule: str = ""
    programs: tuple[tuple[int, int], ...] = ()
    mentions: tuple[Mention, ...] = ()

    @property
    def is_wanted(self) -> bool:
        """Return whether the jail does not have it, and the source does."""
        return self.inside == "absent" and self.source != "absent"


@record
class Listing:
    """A directory that a command listed, or asked for in vain, and what it lacked there.

    `hidden` counts the source's names in it that the jail does not have, by package; "" for no package.
    """

    path: bytes
    hidden: Mapping[str, int]


@record
class Nowhere:
    """A directory with names that say nothing one by one: how many, and how often a command asked for them.

    Neither the jail nor the source has them, or the directory is the jail's own, as /tmp and /proc. Beyond a
    limit, names of binds are here too. A name may be counted more than once.
    """

    directory: bytes
    names: int
    asked: int


@record
class Audit:
    """All evidence of one run. `status` is the command's exit status, `manifest` the manifest's digest.

    `family` is that of the source's package database ("" if it has none), `architecture` the manifest's.
    `events` counts all calls that were
    seen, `unread` those whose path could not be read, `rings` calls of io_uring_setup(2), which were refused.
    `folded` is set if paths of binds had to be counted by directory, or programs given up, to save memory.
    """

    def __repr__(self) -> str:
        return short_repr(self)

    manifest: str
    family: str
    architecture: str
    command: tuple[str, ...]
    status: int
    events: int
    unread: int = 0
    rings: int = 0
    folded: bool = False
    programs: tuple[Program, ...] = ()
    look_ups: tuple[LookUp, ...] = ()
    listings: tuple[Listing, ...] = ()
    nowhere: tuple[Nowhere, ...] = ()
