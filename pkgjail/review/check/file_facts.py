"""What the files of a manifest are to those that start them: ELF objects, scripts, or neither."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.parallel import in_processes
from pkgjail.core.untrusted import opened_below
from pkgjail.review.check.elf import DamagedError, Elf, read_elf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import FileEntry
    from pkgjail.core.reporter import Reporter

# BINPRM_BUF_SIZE of linux/binfmts.h, less the end of the line.
_SHEBANG = 255
_SHARE = 250


class Facts(NamedTuple):
    """By path: the objects, and the first lines of scripts without `#!`.

    `unreadable` and `damaged` say why nothing is known of a file.
    """

    objects: dict[bytes, Elf]
    scripts: dict[bytes, bytes]
    unreadable: dict[bytes, str]
    damaged: dict[bytes, str]


def read_facts(entries: Sequence[FileEntry], root: bytes, reporter: Reporter) -> Facts:
    """Read the regular files of `entries` below the real path `root`, in parallel."""
    paths = [e.path for e in entries if e.kind == "regular" and e.origin != "entry"]
    # The same mix of files in each share: directories of libraries take longer.
    shares = [paths[start :: len(paths) // _SHARE + 1] for start in range(len(paths) // _SHARE + 1)]
    processes = min(len(os.sched_getaffinity(0)), len(shares))
    read = partial(_read_share, root)
    results = map(read, shares) if processes == 1 else in_processes(read, shares, processes, "reading")
    facts = Facts({}, {}, {}, {})
    for done, result in enumerate(results, start=1):
        facts.objects.update(result.objects)
        facts.scripts.update(result.scripts)
        facts.unreadable.update(result.unreadable)
        facts.damaged.update(result.damaged)
        reporter.progress("reading", done, len(shares))
    # By path, for the same findings each time: shares are done in any order.
    return Facts(
        dict(sorted(facts.objects.items())),
        dict(sorted(facts.scripts.items())),
        dict(sorted(facts.unreadable.items())),
        dict(sorted(facts.damaged.items())),
    )


def _read_share(root: bytes, paths: Sequence[bytes]) -> Facts:
    facts = Facts({}, {}, {}, {})
    for path in paths:
        _read(root, path, facts)
    return facts


def _read(root: bytes, path: bytes, facts: Facts) -> None:
    try:
        with opened_below(root, root.rstrip(b"/") + path) as descriptor:
            _read_opened(descriptor, path, facts)
    except OSError as error:
        facts.unreadable[path] = error.strerror or str(error)
    except DamagedError as error:
        facts.damaged[path] = str(error)


def _read_opened(descriptor: int, path: bytes, facts: Facts) -> None:
    with open(descriptor, "rb", closefd=False) as file:
        start = file.read(4)
        if start == b"\x7fELF":
            elf = read_elf(file)
            if elf is not None:
                facts.objects[path] = elf
        elif start[:2] == b"#!":
            line = (start + file.read(_SHEBANG - len(start))).split(b"\n", 1)[0]
            facts.scripts[path] = line[2:]
