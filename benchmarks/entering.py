"""The part of the benchmarks that calls the library; run.py starts it as a separate process.

python entering.py enter MANIFEST [ROOT]    for each line on standard input run `true` once, and print
                                        the seconds that it took; the line says how: `jail`: in the jail
                                        that `prepare_jail` returned; `once`: by `run_in_jail`; `true`:
                                        by `subprocess`; `bare`: likewise, in bare namespaces
python entering.py cut MANIFEST COUNT OUT   write a manifest of `true`, its libraries and other
                                        files, COUNT in all, and the directories that they are in
python entering.py grow ROOT COUNT OUT [EACH]   make a root of COUNT empty files, EACH (1,000) in a
                                        directory, and busybox as `true`, and write its manifest
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from pkgjail import prepare_jail, read_manifest, run_in_jail, write_manifest
from pkgjail.core.model import Distribution, FileEntry, Header, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The files that `true` needs in Debian 12 and later; the others only have to exist.
_FIRST = (b"/true", b"/libc.so.6")
_LOADER = b"/ld-linux"
_TRUE = ("true",)
_BARE = ("unshare", "-Urmpf", "true")


def enter(manifest: Manifest, root: bytes) -> None:
    """Run `true` for each line of standard input, from this process."""
    jail = prepare_jail(manifest, root=root)
    actions: dict[str, Callable[[], int]] = {
        "jail": lambda: jail.enter(["true"]),
        "once": lambda: run_in_jail(manifest, ["true"], root=root).returncode,
        "true": lambda: subprocess.run(_TRUE, check=False).returncode,
        "bare": lambda: subprocess.run(_BARE, check=False).returncode,
    }
    for line in sys.stdin:
        began = perf_counter()
        status = actions[line.strip()]()
        seconds = perf_counter() - began
        if status != 0:
            raise RuntimeError(f"'true' ended with status {status}")
        print(seconds, flush=True)


def grow(root: Path, count: int, each: int = 1000) -> Manifest:
    """Make a root of `count` empty files, `each` in a directory, and busybox; return its manifest."""
    paths: list[bytes] = []
    for number in range(count):
        directory = root / f"usr/share/{number // each}"
        if number % each == 0:
            directory.mkdir(parents=True)
        (directory / str(number)).touch(mode=0o644)
    (root / "bin").mkdir()
    shutil.copy("/bin/busybox", root / "bin/true")
    for place, directories, names in os.walk(bytes(root)):
        paths += [os.path.join(place, name) for name in (*directories, *names)]
    files = [_entry(path, path[len(bytes(root)) :]) for path in [bytes(root) + b"/", *paths]]
    header = Header(
        schema=1,
        distribution=Distribution(id="none", version="1"),
        architecture="all",
        policy="sha256:" + "0" * 64,
        whitelists=(),
        blacklists=(),
        recommends=False,
        essential=False,
    )
    ordered = tuple(sorted(files, key=lambda entry: entry.path))
    return Manifest(header=header, packages=(), dependencies=(), files=ordered)


def _entry(path: bytes, shown_at: bytes) -> FileEntry:
    found = os.stat(path)
    mode = found.st_mode & 0o7777
    if os.path.isdir(path):
        return FileEntry(path=shown_at, kind="directory", mode=mode, origin="parent")
    return FileEntry(path=shown_at, kind="regular", mode=mode, size=found.st_size, origin="include")


def cut(manifest: Manifest, count: int) -> Manifest:
    """Return the manifest with only `count` of its regular files; raise `ValueError` if it has fewer."""
    regular = [e for e in manifest.files if e.kind == "regular" and e.origin != "entry"]
    if len(regular) < count:
        raise ValueError(f"the manifest has {len(regular)} regular files, not {count}")
    first = [e for e in regular if _is_first(e.path)]
    rest = [e for e in regular if not _is_first(e.path)]
    links = [e for e in manifest.files if e.kind == "symlink" and _is_wanted_link(e)]
    chosen = [*(first + rest)[:count], *links]
    directories = {parent for entry in chosen for parent in _parents(entry.path)}
    files = [*chosen, *(e for e in manifest.files if e.path in directories)]
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
    """Run the command that the first argument names."""
    verb, first, *rest = arguments
    if verb == "enter":
        enter(read_manifest(first), os.fsencode(rest[0] if rest else "/"))
    elif verb == "grow":
        write_manifest(grow(Path(first), int(rest[0]), *map(int, rest[2:])), rest[1])
    else:
        write_manifest(cut(read_manifest(first), int(rest[0])), rest[1])


if __name__ == "__main__":
    main(sys.argv[1:])
