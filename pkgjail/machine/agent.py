"""The agent: the program that is process 1 of a guest. It is compiled once, for each architecture, and kept.

Its source is in C, since the files of a manifest need not have any program that could do this. It is linked
statically.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.core.architectures import architecture_named, host_architecture
from pkgjail.core.errors import os_error_text
from pkgjail.core.text import printable
from pkgjail.core.untrusted import shortened
from pkgjail.jails.layer_cache import Recipe, ensure_layer
from pkgjail.machine.model import MachineError
from pkgjail.storage.locations import cache_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import FileEntry

_SOURCES = Path(__file__).parent / "assets" / "agent"
_OPTIONS = ("-std=gnu11", "-O2", "-Wall", "-static", "-s")
_KIND = "agent"
_PROGRAM = b"agent"
_MOST_SAID = 1000  # characters


def agent(architecture: str) -> bytes:
    """Return the agent for an architecture, in Debian's word.

    Raises:
        MachineError: there is no compiler for it here, or it fails.
        OSError: the cache cannot be written.

    """
    program = compiler(architecture)
    sources = sorted(_SOURCES.iterdir())
    state = hashlib.sha256()
    for part in (program, _version(program), *_OPTIONS):
        state.update(part.encode("utf-8", "surrogateescape") + b"\0")
    for source in sources:
        state.update(source.read_bytes() + b"\0")

    def make(place: bytes, _entries: Sequence[FileEntry], _root: bytes) -> None:
        files = [str(source) for source in sources if source.suffix == ".c"]
        _compile([program, *_OPTIONS, "-o", os.fsdecode(os.path.join(place, _PROGRAM)), *files], architecture)

    recipe = Recipe(kind=_KIND, entries=(), root=b"/", make=make, content=state.hexdigest())
    try:
        layer = ensure_layer(recipe, Path(cache_directory()).resolve(), thorough=True)
    except OSError as error:
        why = os_error_text(error, cache_directory())
        raise MachineError(f"cannot keep the agent: {why}; set XDG_CACHE_HOME") from error
    return Path(os.fsdecode(os.path.join(layer.path, _PROGRAM))).read_bytes()


def compiler(architecture: str) -> str:
    """Return the path of a C compiler for an architecture."""
    named = architecture_named(architecture)
    names = [f"{named.triplet}-gcc"]
    if named == host_architecture():
        names = ["cc", "gcc", *names]
    for name in names:
        if found := shutil.which(name):
            return os.path.abspath(found)
    package = "gcc and libc6-dev" if len(names) > 1 else f"gcc-{named.triplet.replace('_', '-')}"
    raise MachineError(
        f"cannot make the program that runs in a machine of {architecture}: no C compiler "
        f"({' or '.join(names)}) is in PATH; install {package} (Debian's name)"
    )


def _version(program: str) -> str:
    found = subprocess.run(
        [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False, errors="replace"
    )
    return found.stdout


def _compile(command: list[str], architecture: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, errors="replace"
    )
    if done.returncode:
        said = shortened(printable(" ".join(done.stderr.split())), _MOST_SAID)
        raise MachineError(
            f"cannot make the program that runs in a machine of {architecture}: {command[0]} ended with "
            f"status {done.returncode}: {said or 'it gives no reason'}; it needs a C library "
            "to link statically (Debian: libc6-dev, or libc6-dev-ARCH-cross; Fedora: glibc-static)"
        )
