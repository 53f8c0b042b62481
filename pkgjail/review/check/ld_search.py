"""The dynamic loader's search, in a manifest: which file it takes for each library; ld.so(8).

As glibc does it since 2.26: DT_RPATH of the object that asks and of those that brought it in,
DT_RUNPATH of the object alone, ld.so.cache as ldconfig(8) makes it in the jail, the default directories.
LD_LIBRARY_PATH is not set in a jail. The legacy subdirectories that glibc 2.37 gave up are not searched.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple

from pkgjail.core.jail_names import LD_CACHE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.paths import Names
    from pkgjail.review.check.elf import Elf

_CONFIGURATION = b"/etc/ld.so.conf"
_MOST_CONFIGURATIONS = 200  # files; each includes the next, at most
_LDCONFIG = (b"/usr/sbin/ldconfig", b"/sbin/ldconfig")
# What AT_PLATFORM says, and where Debian puts $LIB, by elf(5)'s machine and class.
_PLATFORMS = {
    "EM_X86_64": b"x86_64",
    "EM_386": b"i686",
    "EM_AARCH64": b"aarch64",
    "EM_PPC64": b"powerpc64le",
    "EM_S390": b"s390x",
}
# The x86-64 psABI's levels, best first, by the flags of proc_cpuinfo(5) that tell them.
_LEVELS = (
    (b"x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    (b"x86-64-v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    (b"x86-64-v2", {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
)


class Loaded(NamedTuple):
    """One object of a process: `path` as it was found, `place` where its links end, who `asked` for it."""

    path: bytes
    place: bytes
    elf: Elf
    asked: Loaded | None


class Trace(NamedTuple):
    """What the loader maps for a program, by the name that was asked for, and what it does not find.

    `missing` has for each name the object that asked, and `searched` the directories that were tried.
    """

    found: dict[bytes, bytes]
    missing: dict[bytes, Loaded]
    searched: dict[bytes, tuple[bytes, ...]]


class Loader:
    """The loader of one manifest; `read` gives the text of a file of it, empty where there is none."""

    def __init__(self, names: Names, objects: Mapping[bytes, Elf], read: Callable[[bytes], bytes]) -> None:
        self._names = names
        self.objects = objects
        self._read = read
        self._levels: dict[bytes, bool] = {}
        self._defaults: dict[tuple[int, str], tuple[bytes, ...]] = {}

    def trace(self, path: bytes) -> Trace:
        """What starting the object at `path` (links resolved) loads, breadth first, as `ldd` shows it."""
        first = Loaded(path, path, self.objects[path], None)
        loaded = [first]
        trace = Trace({}, {}, {})
        if first.elf.interpreter:
            found = self._object(first.elf.interpreter, first.elf)
            if found is not None:
                # It is there before all others, by its own name.
                loaded.append(Loaded(first.elf.interpreter, found, self.objects[found], first))
        for each in loaded:  # which grows
            for name in each.elf.needed:
                if _is_loaded(name, loaded, trace):
                    continue
                one = self._find(name, each, first)
                if one is None:
                    # Another one that asks may find it yet; the program does not start all the same.
                    trace.missing.setdefault(name, each)
                    trace.searched.setdefault(name, tuple(dict.fromkeys(self._directories(each, first))))
                    continue
                trace.found[name] = one.path
                if all(other.place != one.place for other in loaded):
                    loaded.append(one)
        return trace

    def finds(self, name: bytes, path: bytes) -> bool:
        """Whether the object at `path` gets the library `name` from dlopen(3)."""
        asker = Loaded(path, path, self.objects[path], None)
        return self._find(name, asker, asker) is not None

    def system_directories(self, abi: tuple[int, str]) -> tuple[bytes, ...]:
        """The default directories: those of the loader itself, which each distribution builds into it."""
        if abi not in self._defaults:
            self._defaults[abi] = _defaults(self._loader_directory(abi))
        return self._defaults[abi]

    def _find(self, name: bytes, asker: Loaded, first: Loaded) -> Loaded | None:
        if b"/" in name:
            path = self._expand(name, asker)
            place = self._object(path, first.elf)
            return None if place is None else Loaded(path, place, self.objects[place], asker)
        for directory in self._before_cache(asker, first):
            for path in self._candidates(directory, name, first.elf.abi):
                if (place := self._object(path, first.elf)) is not None:
                    return Loaded(path, place, self.objects[place], asker)
        for path in self._behind(name, asker, first.elf.abi):
            if (place := self._object(path, first.elf)) is not None:
                return Loaded(path, place, self.objects[place], asker)
        return None

    def _before_cache(self, asker: Loaded, first: Loaded) -> Iterator[bytes]:
        """RPATH up the chain of those that asked, unless the asker has a RUNPATH, which comes then."""
        if not asker.elf.runpath:
            chain: Loaded | None = asker
            seen_first = False
            while chain is not None:
                seen_first = seen_first or chain.place == first.place
                yield from (self._expand(one, chain) for one in chain.elf.rpath if one)
                chain = chain.asked
            if not seen_first:
                yield from (self._expand(one, first) for one in first.elf.rpath if one)
        yield from (self._expand(one, asker) for one in asker.elf.runpath if one)

    def _behind(self, name: bytes, asker: Loaded, abi: tuple[int, str]) -> Iterator[bytes]:
        if not asker.elf.default_directories:
            return
        if self._has_cache and _is_cached(name):
            for directory in (*self.configured_directories, *self.system_directories(abi)):
                for path in self._candidates(directory, name, abi):
                    place = self._names.find(path)
                    elf = self.objects.get(place.place)
                    if elf is not None and elf.soname in (b"", name):
                        yield path
        for directory in self.system_directories(abi):
            yield from self._candidates(directory, name, abi)

    def _directories(self, asker: Loaded, first: Loaded) -> Iterator[bytes]:
        """All that are searched, for a message."""
        yield from self._before_cache(asker, first)
        if asker.elf.default_directories:
            yield from self.configured_directories if self._has_cache else ()
            yield from self.system_directories(first.elf.abi)

    def _candidates(self, directory: bytes, name: bytes, abi: tuple[int, str]) -> Iterator[bytes]:
        """The file in a directory, after those in its subdirectories for what the processor can."""
        if abi == (64, "EM_X86_64") and self._has_levels(directory):
            for level in _levels():
                yield directory + b"/glibc-hwcaps/" + level + b"/" + name
        yield directory + b"/" + name

    def _object(self, path: bytes, like: Elf) -> bytes | None:
        """Where the object at `path` is, if it can be loaded into the same process."""
        found = self._names.find(path)
        elf = self.objects.get(found.place) if found.entry is not None else None
        return found.place if elf is not None and elf.abi == like.abi else None

    def _expand(self, text: bytes, each: Loaded) -> bytes:
        """`$ORIGIN`, `$LIB` and `$PLATFORM`, with braces or without; ld.so(8)."""
        if b"$" in text:
            platform = _PLATFORMS.get(each.elf.abi[1], b"")
            library = self.system_directories(each.elf.abi)[0].lstrip(b"/")
            tokens = ((b"ORIGIN", each.path.rpartition(b"/")[0]), (b"LIB", library), (b"PLATFORM", platform))
            for token, value in tokens:
                text = text.replace(b"${" + token + b"}", value).replace(b"$" + token, value)
        return text.rstrip(b"/") if len(text) > 1 else text

    def _has_levels(self, directory: bytes) -> bool:
        if directory not in self._levels:
            self._levels[directory] = self._names.find(directory + b"/glibc-hwcaps").entry is not None
        return self._levels[directory]

    @cached_property
    def _has_cache(self) -> bool:
        """The jail has one if the set has ldconfig, which then makes it at entry."""
        names = self._names.entries
        return LD_CACHE in names and any(self._names.find(path).entry for path in _LDCONFIG)

    @cached_property
    def configured_directories(self) -> tuple[bytes, ...]:
        """What ld.so.conf names, in its order; ldconfig(8)."""
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
                        # Each once: what one names a second time is searched already.
                        if name not in seen and len(seen) < _MOST_CONFIGURATIONS:
                            yield from self._configured(name, seen)
            elif words[:1] != [b"hwcap"]:
                # Several may stand in a line, with colons or commas between.
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

    def _loader_directory(self, abi: tuple[int, str]) -> bytes:
        interpreters = {elf.interpreter for elf in self.objects.values() if elf.abi == abi}
        for interpreter in sorted(interpreters - {b""}):
            found = self._names.find(interpreter)
            if found.entry is not None:
                return found.place.rpartition(b"/")[0]
        return b"/usr/lib"


def _defaults(directory: bytes) -> tuple[bytes, ...]:
    """Debian's loader is in a directory of the architecture's, and knows /lib besides; others have one."""
    short = directory[len(b"/usr") :] if directory.startswith(b"/usr/") else directory
    own = (short, b"/usr" + short)
    return own if short.count(b"/") == 1 else (*own, b"/lib", b"/usr/lib")


@lru_cache(maxsize=1)
def _levels() -> tuple[bytes, ...]:
    """The levels that this processor has, best first; each asks for those below it."""
    flags: set[str] = set()
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("flags"):
            flags = set(line.split())
            break
    had: list[bytes] = []
    for name, needs in reversed(_LEVELS):
        if not needs <= flags:
            break
        had.insert(0, name)
    return tuple(had)


def _is_cached(name: bytes) -> bool:
    """What ldconfig takes for a library, by name."""
    return name.startswith((b"lib", b"ld-")) and b".so" in name


def _is_loaded(name: bytes, loaded: list[Loaded], trace: Trace) -> bool:
    return name in trace.found or any(name in (one.elf.soname, one.path) for one in loaded)
