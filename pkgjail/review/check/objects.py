"""Libraries and program interpreters that ELF objects of the set want and do not get."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.model import text_path
from pkgjail.core.untrusted import shortened
from pkgjail.review.check.findings import Want

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.paths import Names
    from pkgjail.review.check.elf import Elf
    from pkgjail.review.check.ld_search import Loader, Trace


def object_wants(names: Names, objects: Mapping[bytes, Elf], loader: Loader) -> Iterator[Want]:
    """What starting each program, and loading each library by itself, does not find.

    A library that fails by itself is well where every program that is linked to it loads all: one whose
    RPATH brings in what it needs, for example.
    """
    traces = {path: loader.trace(path) for path in objects if names.entries[path].kind == "regular"}
    excused = _loaded_whole(names, objects, traces)
    told: set[tuple[bytes, bytes]] = set()
    for path, trace in traces.items():
        elf = objects[path]
        if elf.interpreter and names.find(elf.interpreter).entry is None:
            cause = "the kernel starts this program by it, and it is not in the set"
            yield Want(
                path=path, kind="interpreter", wanted=elf.interpreter, cause=cause, places=(elf.interpreter,)
            )
        for name, asker in trace.missing.items():
            # The one that asks is at fault, and told once, not by each program that loads it.
            at = asker.place
            if (at, name) in told or (at in excused and at == path):
                continue
            told.add((at, name))
            searched = trace.searched[name]
            where = ":".join(map(text_path, searched)) or "nowhere"
            by = "" if at == path else f", as {text_path(path)} loads it"
            cause = f"the loader does not find it in {where}{by}"
            places = (name,) if b"/" in name else tuple(place + b"/" + name for place in searched)
            yield Want(path=at, kind="library", wanted=name, cause=cause, places=places)
        yield from _dlopen_wants(path, elf, loader)


def _loaded_whole(
    names: Names, objects: Mapping[bytes, Elf], traces: Mapping[bytes, Trace]
) -> frozenset[bytes]:
    """The libraries that some program loads, and without anything missing."""
    whole: set[bytes] = set()
    for path, trace in traces.items():
        if objects[path].program and not trace.missing:
            whole.update(names.find(one).place for one in trace.found.values())
    return frozenset(whole)


def _dlopen_wants(path: bytes, elf: Elf, loader: Loader) -> Iterator[Want]:
    for dlopen in elf.dlopens:
        if not any(loader.finds(name, path) for name in dlopen.sonames):
            wanted = dlopen.sonames[0] if dlopen.sonames else b""
            why = shortened(f"{dlopen.feature or 'something'} ({dlopen.priority})")
            cause = f"its note says that it loads it for {why}"
            directories = loader.system_directories(elf.abi)
            places = tuple(place + b"/" + name for name in dlopen.sonames for place in directories)
            yield Want(path=path, kind="library", wanted=wanted, cause=cause, places=places, optional=True)
