"""Find the libraries and program interpreters that ELF objects of the set need and the set lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.text import text_path
from pkgjail.core.untrusted import shortened
from pkgjail.review.check.findings import Gap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pkgjail.core.model import Dependency
    from pkgjail.core.paths import Names
    from pkgjail.review.check.elf import Elf
    from pkgjail.review.check.ld_search import LdSearch, Trace


def library_gaps(
    names: Names, objects: Mapping[bytes, Elf], ld_search: LdSearch, dependencies: Iterable[Dependency] = ()
) -> Iterator[Gap]:
    """Yield what ld.so would not find when it starts each program and loads each library by itself.

    A library that lacks something by itself is excused if a program loads it and finds everything, for
    example because the program's RPATH leads to what the library needs.

    A plugin is a library that programs load by dlopen(3) alone: it is in a directory that ld.so does not
    search, and no program needs it. ld.so takes what is loaded already under the name that a plugin needs, so
    a plugin is excused if its package, or one that this requires, has a library of that name in any
    directory: OpenJDK's `java` loads `libjvm.so` from a directory that it finds itself. If it lacks something
    else, its package does not require that package.
    """
    traces = {path: ld_search.trace(path) for path in objects if names.entries[path].kind == "regular"}
    excused = _completely_loaded(names, objects, traces)
    plugins = _Plugins(names, objects, ld_search, traces, dependencies)
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
            if plugins.has(at_fault, name) and plugins.is_loaded_before(at_fault, name):
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
                optional_if_outside=plugins.has(at_fault, name),
            )
        yield from _dlopen_gaps(path, elf, ld_search)


class _Plugins:
    """The libraries that programs load by dlopen(3) alone, and what their packages bring for them."""

    def __init__(
        self,
        names: Names,
        objects: Mapping[bytes, Elf],
        ld_search: LdSearch,
        traces: Mapping[bytes, Trace],
        dependencies: Iterable[Dependency],
    ) -> None:
        self._names = names
        self._objects = objects
        self._ld_search = ld_search
        self._of_programs = {
            (requester.place, name)
            for path, trace in traces.items()
            if objects[path].program
            for name, requester in trace.missing.items()
        }
        self._required: dict[str, set[str]] = {}
        for edge in dependencies:
            self._required.setdefault(edge.source, set()).add(edge.target)
        self._by_name: dict[tuple[bytes, tuple[int, str]], set[str]] = {}
        for path, elf in objects.items():
            for name in {elf.soname or path.rpartition(b"/")[2], path.rpartition(b"/")[2]}:
                self._by_name.setdefault((name, elf.abi), set()).update(names.entries[path].owners)

    def has(self, path: bytes, name: bytes) -> bool:
        """Return whether the object at `path`, which lacks the library `name`, is a plugin."""
        elf = self._objects[path]
        directory = path.rpartition(b"/")[0]
        searched = (
            *self._ld_search.configured_directories,
            *self._ld_search.system_directories(elf.abi),
        )
        is_public = any(self._names.find(place).place == directory for place in searched)
        return not elf.program and not is_public and (path, name) not in self._of_programs

    def is_loaded_before(self, path: bytes, name: bytes) -> bool:
        """Return whether the plugin's package, or one that it requires, has the library `name` anywhere."""
        owners = set(self._names.entries[path].owners)
        for owner in tuple(owners):
            owners |= self._required.get(owner, set())
        return not owners.isdisjoint(self._by_name.get((name, self._objects[path].abi), ()))


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
