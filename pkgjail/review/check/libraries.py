"""Find the libraries and program interpreters that ELF objects of the set need and the set lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.model import text_path
from pkgjail.core.untrusted import shortened
from pkgjail.review.check.findings import Gap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.paths import Names
    from pkgjail.review.check.elf import Elf
    from pkgjail.review.check.ld_search import LdSearch, Trace


def library_gaps(names: Names, objects: Mapping[bytes, Elf], ld_search: LdSearch) -> Iterator[Gap]:
    """Yield what ld.so would not find when it starts each program and loads each library by itself.

    A library that lacks something by itself is excused if a program loads it and finds everything, for
    example because the program's RPATH leads to what the library needs.
    """
    traces = {path: ld_search.trace(path) for path in objects if names.entries[path].kind == "regular"}
    excused = _completely_loaded(names, objects, traces)
    reported: set[tuple[bytes, bytes]] = set()
    for path, trace in traces.items():
        elf = objects[path]
        if elf.interpreter and names.find(elf.interpreter).entry is None:
            yield Gap(
                path=path,
                kind="interpreter",
                wanted=elf.interpreter,
                cause="the kernel starts this program by it, and it is not in the set",
                candidates=(elf.interpreter,),
            )
        for name, requester in trace.missing.items():
            # The object that needs the library is at fault: report it once, not for each program.
            at_fault = requester.place
            if (at_fault, name) in reported or (at_fault in excused and at_fault == path):
                continue
            reported.add((at_fault, name))
            searched = trace.searched[name]
            where = ":".join(map(text_path, searched)) or "any directory"
            when = "" if at_fault == path else f" when {text_path(path)} loads this file"
            candidates = (name,) if b"/" in name else tuple(place + b"/" + name for place in searched)
            yield Gap(
                path=at_fault,
                kind="library",
                wanted=name,
                cause=f"ld.so does not find it in {where}{when}",
                candidates=candidates,
            )
        yield from _dlopen_gaps(path, elf, ld_search)


def _completely_loaded(
    names: Names, objects: Mapping[bytes, Elf], traces: Mapping[bytes, Trace]
) -> frozenset[bytes]:
    """Return the libraries that some program loads without anything missing."""
    loaded: set[bytes] = set()
    for path, trace in traces.items():
        if objects[path].program and not trace.missing:
            loaded.update(names.find(library).place for library in trace.found.values())
    return frozenset(loaded)


def _dlopen_gaps(path: bytes, elf: Elf, ld_search: LdSearch) -> Iterator[Gap]:
    for dlopen in elf.dlopens:
        if not any(ld_search.finds(name, path) for name in dlopen.sonames):
            purpose = shortened(f"{dlopen.feature or 'something'} ({dlopen.priority})")
            directories = ld_search.system_directories(elf.abi)
            yield Gap(
                path=path,
                kind="library",
                wanted=dlopen.sonames[0] if dlopen.sonames else b"",
                cause=f"its note says that it loads it for {purpose}",
                candidates=tuple(place + b"/" + name for name in dlopen.sonames for place in directories),
                optional=True,
            )
