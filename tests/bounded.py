"""Running something within bounds: 1 GiB of memory, ten seconds of a processor, an end within a minute.

A helper of tests that hand hostile input to pkgjail; `python -m tests.bounded ROOT FILE…` is its worker.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.test_layout import unmeasured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MEMORY = 1 << 30  # bytes
SECONDS = 10
SECRET = "of-another-user"  # noqa: S105 - no password
HUGE = 20 << 30  # bytes


def within_bounds(
    command: Sequence[str | Path], seconds: int = SECONDS, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program within the bounds; what it printed is text. A minute is for a busy machine."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    given: dict[str, Any] = {"capture_output": True, "text": True, "errors": "surrogateescape", "timeout": 60}
    given.update({"env": unmeasured(), **options})
    return subprocess.run(list(map(str, command)), preexec_fn=limit, check=False, **given)


def pkgjail(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run pkgjail within the bounds; it must not end by a traceback or by a limit."""
    done = within_bounds([sys.executable, "-m", "pkgjail", *arguments], **options)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode >= 0, (done.returncode, done.stderr)
    return done


# --- the kinds of things that can be where a file is expected ----------------------------------------


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # zero


def _directory(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, HUGE)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _link_out(path: Path) -> None:
    path.symlink_to("../" * 30 + "secret")


def _link_out_by_name(path: Path) -> None:
    path.symlink_to(os.environ["SECRET"])


def _unreadable(path: Path) -> None:
    path.touch()
    path.chmod(0)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "FIFO": (_fifo, "it is a FIFO, and not a regular file"),
    "device": (_device, "it is a character device, and not a regular file"),
    "directory": (_directory, "Is a directory"),
    "socket": (_socket, "it is a socket, and not a regular file"),
    "sparse": (_sparse, "the most that is read of such a file"),
    "loop": (_loop, "Too many levels of symbolic links"),
}
"""What must be refused wherever it stands, and what is said of it."""

PERHAPS: dict[str, Callable[[Path], None]] = {
    "link to a device": _link_to_device,
    "link out": _link_out,
    "link out by its name": _link_out_by_name,
    "unreadable": _unreadable,
}
"""What is as if nothing were there, or may be read by root."""


def _answer(root: bytes) -> str:
    """Return the result of reading the whole database of `root`."""
    from pkgjail.backends import open_database
    from pkgjail.core.errors import DatabaseError

    try:
        database = open_database(root, os.environ.get("BACKEND", "auto"))
        for package in database.packages.values():
            database.owned_paths(package)
            database.conffiles(package)
            database.digests(package)
            database.requirements(package, recommends=True)
        database.alternatives()
        return f"read: {database.distribution} {database.architecture} {sorted(database.packages)}"
    except DatabaseError as error:
        return f"refused: {error}"


def _tried(root: Path, path: Path, make: Callable[[Path], None]) -> str:
    """The same with something made by `make` in the place of `path`, which is put back."""
    aside = path.with_name(f"{path.name}.aside") if path.exists() else None
    if aside:
        path.rename(root / "aside")
    try:
        make(path)
        signal.alarm(SECONDS)
        return _answer(os.fsencode(root))
    except PermissionError:  # only root makes devices
        return "cannot be made"
    finally:
        signal.alarm(0)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if aside:
            (root / "aside").rename(path)


def _outcomes(root: Path, files: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for file in files:
        for kind, (make, _) in REFUSED.items():
            yield file, kind, _tried(root, root / file, make)
        for kind, make in PERHAPS.items():
            yield file, kind, _tried(root, root / file, make)
    yield "", "", _answer(os.fsencode(root))


if __name__ == "__main__":
    for outcome in _outcomes(Path(sys.argv[1]), sys.argv[2:]):
        sys.stdout.write(f"{json.dumps(outcome)}\n")
        sys.stdout.flush()
