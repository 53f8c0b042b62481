"""Scan the files of a manifest for ELF objects and scripts."""

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


class Scan(NamedTuple):
    """The ELF objects by path, and the first line of each script, without `#!`.

    `unreadable` and `damaged` say why nothing is known about a file.
    """

    objects: dict[bytes, Elf]
    scripts: dict[bytes, bytes]
    unreadable: dict[bytes, str]
    damaged: dict[bytes, str]


def scan_files(entries: Sequence[FileEntry], root: bytes, reporter: Reporter) -> Scan:
    """Read the regular files of `entries` below the real path `root`, in parallel."""
    paths = [e.path for e in entries if e.kind == "regular" and e.origin != "entry"]
    # Each share is a mix of all directories, because directories of libraries take longer.
    shares = [paths[start :: len(paths) // _SHARE + 1] for start in range(len(paths) // _SHARE + 1)]
    processes = min(len(os.sched_getaffinity(0)), len(shares))
    scan_share = partial(_scan_share, root)
    results = (
        map(scan_share, shares) if processes == 1 else in_processes(scan_share, shares, processes, "reading")
    )
    scan = Scan({}, {}, {}, {})
    for done, result in enumerate(results, start=1):
        scan.objects.update(result.objects)
        scan.scripts.update(result.scripts)
        scan.unreadable.update(result.unreadable)
        scan.damaged.update(result.damaged)
        reporter.progress("reading", done, len(shares))
    # Shares finish in any order; sorted by path, the findings are the same each time.
    return Scan(
        dict(sorted(scan.objects.items())),
        dict(sorted(scan.scripts.items())),
        dict(sorted(scan.unreadable.items())),
        dict(sorted(scan.damaged.items())),
    )


def _scan_share(root: bytes, paths: Sequence[bytes]) -> Scan:
    scan = Scan({}, {}, {}, {})
    for path in paths:
        _scan_file(root, path, scan)
    return scan


def _scan_file(root: bytes, path: bytes, scan: Scan) -> None:
    try:
        with opened_below(root, root.rstrip(b"/") + path) as descriptor:
            _scan_open_file(descriptor, path, scan)
    except OSError as error:
        scan.unreadable[path] = error.strerror or str(error)
    except DamagedError as error:
        scan.damaged[path] = str(error)


def _scan_open_file(descriptor: int, path: bytes, scan: Scan) -> None:
    with open(descriptor, "rb", closefd=False) as file:
        start = file.read(4)
        if start == b"\x7fELF":
            elf = read_elf(file)
            if elf is not None:
                scan.objects[path] = elf
        elif start[:2] == b"#!":
            line = (start + file.read(_SHEBANG - len(start))).split(b"\n", 1)[0]
            scan.scripts[path] = line[2:]
