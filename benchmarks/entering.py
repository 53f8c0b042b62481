"""The library's part in the benchmarks; run.py starts it as a process of its own.

python entering.py enter MANIFEST       for each line on standard input run `true` in the jail by
                                        `run_in_jail`, and print the seconds that it took
python entering.py cut MANIFEST COUNT OUT   write a manifest of `true`, its libraries and other
                                        files, COUNT in all, and the directories that they are in
"""

from __future__ import annotations

import dataclasses
import sys
from time import perf_counter
from typing import TYPE_CHECKING

from pkgjail import read_manifest, run_in_jail, write_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.model import FileEntry, Manifest

# What `true` needs to run in Debian 12 and later; the rest of the files only have to be there.
_FIRST = (b"/true", b"/libc.so.6")
_LOADER = b"/ld-linux"


def enter(manifest: Manifest) -> None:
    """Enter the jail once a line, from this one process."""
    for _ in sys.stdin:
        began = perf_counter()
        status = run_in_jail(manifest, ["true"])
        seconds = perf_counter() - began
        if status != 0:
            raise RuntimeError(f"'true' ended with status {status}")
        print(seconds, flush=True)


def cut(manifest: Manifest, count: int) -> Manifest:
    """The manifest with only `count` of its regular files; raises `ValueError` if it has fewer."""
    regular = [e for e in manifest.files if e.kind == "regular" and e.origin != "entry"]
    if len(regular) < count:
        raise ValueError(f"the manifest has {len(regular)} regular files, not {count}")
    first = [e for e in regular if _is_first(e.path)]
    rest = [e for e in regular if not _is_first(e.path)]
    links = [e for e in manifest.files if e.kind == "symlink" and _is_wanted_link(e)]
    kept = [*(first + rest)[:count], *links]
    directories = {parent for entry in kept for parent in _parents(entry.path)}
    files = [*kept, *(e for e in manifest.files if e.path in directories)]
    return dataclasses.replace(manifest, files=tuple(files), dropped=(), missing=())


def _is_first(path: bytes) -> bool:
    return path.endswith(_FIRST) or _LOADER in path


def _is_wanted_link(entry: FileEntry) -> bool:
    return entry.path.count(b"/") == 1 or _LOADER in entry.path


def _parents(path: bytes) -> Iterator[bytes]:
    while path != b"/":
        path = path.rpartition(b"/")[0] or b"/"
        yield path


def main(arguments: list[str]) -> None:
    """Do what the first argument says."""
    verb, manifest = arguments[0], read_manifest(arguments[1])
    if verb == "enter":
        enter(manifest)
    else:
        write_manifest(cut(manifest, int(arguments[2])), arguments[3])


if __name__ == "__main__":
    main(sys.argv[1:])
