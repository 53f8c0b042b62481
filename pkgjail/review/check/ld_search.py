"""The ld.so search in a manifest: which file ld.so(8) would load for each library.

The order is that of glibc since 2.26: DT_RPATH of the object that needs the library and of those that loaded
it, DT_RUNPATH of the object alone, the ld.so cache as ldconfig(8) makes it in the jail, the default
directories. LD_LIBRARY_PATH is not set in a jail. The legacy subdirectories that glibc 2.37 abandoned are not
searched.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple

from pkgjail.core.jail_names import LD_CACHE, LDCONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.paths import Names
    from pkgjail.review.check.elf import Elf

_CONFIGURATION = b"/etc/ld.so.conf"
_MOST_CONFIGURATIONS = 200  # files, each of which may include the next
# The value of AT_PLATFORM, by elf(5)'s machine.
_PLATFORMS = {
    "EM_X86_64": b"x86_64",
    "EM_386": b"i686",
    "EM_AARCH64": b"aarch64",
    "EM_PPC64": b"powerpc64le",
    "EM_S390": b"s390x",
}
# The x86-64 psABI's levels, best first, with the flags of proc_cpuinfo(5) that each requires.
_LEVELS = (
    (b"x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    (b"x86-64-v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    (b"x86-64-v2", {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
)


class LoadedObject(NamedTuple):
    """One object of a process: the `path` at which it was found, and its `place` after all links.

    `requester` is the object that needs it, None for the program itself.
    """

    path: bytes
    place: bytes
    elf: Elf
    requester: LoadedObject | None


class Trace(NamedTuple):
    """The libraries that ld.so loads for a program, by the requested name, and those that it does not find.

    `missing` has for each name the object that requested it, and `searched` the directories that were tried.
    """

    found: dict[bytes, bytes]
    missing: dict[bytes, LoadedObject]
    searched: dict[bytes, tuple[bytes, ...]]


class LdSearch:
    """The ld.so search in one manifest; `read` returns the text of a file, empty if there is none."""

    def __init__(self, names: Names, objects: Mapping[bytes, Elf], read: Callable[[bytes], bytes]) -> None:
        self._names = names
        self.objects = objects
        self._read = read
        self._levels: dict[bytes, bool] = {}
        self._defaults: dict[tuple[int, str], tuple[bytes, ...]] = {}

    def trace(self, path: bytes) -> Trace:
        """Return what ld.so loads for the object at `path` (links resolved), breadth first as in `ldd`."""
        main = LoadedObject(path, path, self.objects[path], None)
        loaded = [main]
        trace = Trace({}, {}, {})
        if main.elf.interpreter:
            found = self._object(main.elf.interpreter, main.elf)
            if found is not None:
                # It is loaded before all others, by its own name.
                loaded.append(LoadedObject(main.elf.interpreter, found, self.objects[found], main))
        for requester in loaded:  # which grows
            for name in requester.elf.needed:
                if _is_loaded(name, loaded, trace):
                    continue
                library = self._find(name, requester, main)
                if library is None:
                    # Another object may still find it, but the program does not start anyway.
                    trace.missing.setdefault(name, requester)
                    searched = dict.fromkeys(self._directories(requester, main))
                    trace.searched.setdefault(name, tuple(searched))
                    continue
                trace.found[name] = library.path
                if all(other.place != library.place for other in loaded):
                    loaded.append(library)
        return trace

    def finds(self, name: bytes, path: bytes) -> bool:
        """Return whether dlopen(3) of the library `name` succeeds for the object at `path`."""
        requester = LoadedObject(path, path, self.objects[path], None)
        return self._find(name, requester, requester) is not None

    def system_directories(self, abi: tuple[int, str]) -> tuple[bytes, ...]:
        """Return the default directories, which each distribution builds into its ld.so."""
        if abi not in self._defaults:
            self._defaults[abi] = _defaults(self._ld_so_directory(abi))
        return self._defaults[abi]

    def _find(self, name: bytes, requester: LoadedObject, main: LoadedObject) -> LoadedObject | None:
        for path in self._candidates(name, requester, main):
            if (place := self._object(path, main.elf)) is not None:
                return LoadedObject(path, place, self.objects[place], requester)
        return None

    def _candidates(self, name: bytes, requester: LoadedObject, main: LoadedObject) -> Iterator[bytes]:
        """Yield all paths that are tried for a name, in order."""
        if b"/" in name:
            yield self._expand(name, requester)
            return
        for directory in self._own_directories(requester, main):
            yield from self._in_directory(directory, name, main.elf.abi)
        yield from self._in_cache_or_defaults(name, requester, main.elf.abi)

    def _own_directories(self, requester: LoadedObject, main: LoadedObject) -> Iterator[bytes]:
        """Yield the requester's RUNPATH, or without one, RPATH of it and of the objects that loaded it."""
        if not requester.elf.runpath:
            chain: LoadedObject | None = requester
            seen_main = False
            while chain is not None:
                seen_main = seen_main or chain.place == main.place
                yield from (self._expand(one, chain) for one in chain.elf.rpath if one)
                chain = chain.requester
            if not seen_main:
                yield from (self._expand(one, main) for one in main.elf.rpath if one)
        yield from (self._expand(one, requester) for one in requester.elf.runpath if one)

    def _in_cache_or_defaults(
        self, name: bytes, requester: LoadedObject, abi: tuple[int, str]
    ) -> Iterator[bytes]:
        if not requester.elf.default_directories:
            return
        if self._has_cache and _is_cached(name):
            for directory in (*self.configured_directories, *self.system_directories(abi)):
                for path in self._in_directory(directory, name, abi):
                    place = self._names.find(path)
                    elf = self.objects.get(place.place)
                    if elf is not None and elf.soname in (b"", name):
                        yield path
        for directory in self.system_directories(abi):
            yield from self._in_directory(directory, name, abi)

    def _directories(self, requester: LoadedObject, main: LoadedObject) -> Iterator[bytes]:
        """Yield all directories that are searched, for a message."""
        yield from self._own_directories(requester, main)
        if requester.elf.default_directories:
            yield from self.configured_directories if self._has_cache else ()
            yield from self.system_directories(main.elf.abi)

    def _in_directory(self, directory: bytes, name: bytes, abi: tuple[int, str]) -> Iterator[bytes]:
        """Yield the file in each subdirectory for a level of this processor, then the file itself."""
        if abi == (64, "EM_X86_64") and self._has_levels(directory):
            for level in _levels():
                yield directory + b"/glibc-hwcaps/" + level + b"/" + name
        yield directory + b"/" + name

    def _object(self, path: bytes, like: Elf) -> bytes | None:
        """Return the place of the object at `path` if it can be loaded into the same process, or None."""
        found = self._names.find(path)
        elf = self.objects.get(found.place) if found.entry is not None else None
        return found.place if elf is not None and elf.abi == like.abi else None

    def _expand(self, text: bytes, owner: LoadedObject) -> bytes:
        """Replace `$ORIGIN`, `$LIB` and `$PLATFORM`, with or without braces, as for `owner`; ld.so(8)."""
        if b"$" in text:
            platform = _PLATFORMS.get(owner.elf.abi[1], b"")
            library = self.system_directories(owner.elf.abi)[0].lstrip(b"/")
            tokens = ((b"ORIGIN", owner.path.rpartition(b"/")[0]), (b"LIB", library), (b"PLATFORM", platform))
            for token, value in tokens:
                text = text.replace(b"${" + token + b"}", value).replace(b"$" + token, value)
        return text.rstrip(b"/") if len(text) > 1 else text

    def _has_levels(self, directory: bytes) -> bool:
        if directory not in self._levels:
            self._levels[directory] = self._names.find(directory + b"/glibc-hwcaps").entry is not None
        return self._levels[directory]

    @cached_property
    def _has_cache(self) -> bool:
        """Return whether the jail has an ld.so cache: ldconfig makes it at entry if the set has ldconfig."""
        names = self._names.entries
        return LD_CACHE in names and any(self._names.find(path).entry for path in LDCONFIG)

    @cached_property
    def configured_directories(self) -> tuple[bytes, ...]:
        """The directories that ld.so.conf names, in its order; ldconfig(8)."""
        return tuple(dict.fromkeys(self._configured(_CONFIGURATION, set())))

    def _configured(self, path: bytes, seen: set[bytes]) -> Iterator[bytes]:
        seen.add(path)
        for line in self._read(path).split(b"\n"):
            words = line.partition(b"#")[0].split()
            if words[:1] == [b"include"]:
                for pattern in words[1:]:
                    absolute = (
                        pattern if pattern.startswith(b"/") else path.rpartition(b"/")[0] + b"/" + pattern
                    )
                    for name in sorted(self._matching(absolute)):
                        # Each file once: a second time would add no directory.
                        if name not in seen and len(seen) < _MOST_CONFIGURATIONS:
                            yield from self._configured(name, seen)
            elif words[:1] != [b"hwcap"]:
                # A line may name several, separated by colons or commas.
                for word in b" ".join(words).replace(b":", b" ").replace(b",", b" ").split():
                    yield word.partition(b"=")[0].rstrip(b"/")

    def _matching(self, pattern: bytes) -> Iterator[bytes]:
        directory, _, last = pattern.rpartition(b"/")
        for name in self._by_directory.get(directory, ()):
            if fnmatchcase(name.rpartition(b"/")[2].decode("latin-1"), last.decode("latin-1")):
                yield name

    @cached_property
    def _by_directory(self) -> Mapping[bytes, list[bytes]]:
        found: dict[bytes, list[bytes]] = {}
        for name in self._names.entries:
            found.setdefault(name.rpartition(b"/")[0], []).append(name)
        return found

    def _ld_so_directory(self, abi: tuple[int, str]) -> bytes:
        interpreters = {elf.interpreter for elf in self.objects.values() if elf.abi == abi}
        for interpreter in sorted(interpreters - {b""}):
            found = self._names.find(interpreter)
            if found.entry is not None:
                return found.place.rpartition(b"/")[0]
        return b"/usr/lib"


def _defaults(directory: bytes) -> tuple[bytes, ...]:
    """Return the default directories of an ld.so in `directory`.

    Debian's is in a directory of the architecture and also searches /lib; others search only their own.
    """
    short = directory[len(b"/usr") :] if directory.startswith(b"/usr/") else directory
    own = (short, b"/usr" + short)
    return own if short.count(b"/") == 1 else (*own, b"/lib", b"/usr/lib")


@lru_cache(maxsize=1)
def _levels() -> tuple[bytes, ...]:
    """Return the levels that this processor supports, best first; each requires those below it."""
    flags: set[str] = set()
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("flags"):
            flags = set(line.split())
            break
    supported: list[bytes] = []
    for name, required in reversed(_LEVELS):
        if not required <= flags:
            break
        supported.insert(0, name)
    return tuple(supported)


def _is_cached(name: bytes) -> bool:
    """Return whether ldconfig takes a file for a library, by its name."""
    return name.startswith((b"lib", b"ld-")) and b".so" in name


def _is_loaded(name: bytes, loaded: list[LoadedObject], trace: Trace) -> bool:
    return name in trace.found or any(name in (one.elf.soname, one.path) for one in loaded)
