"""Find what compilers of the set need to compile and link, as they report it themselves; gcc(1), ld(1).

Each driver runs in the jail to list the programs that it would start and the objects and libraries that it
would link (`-###`), its search paths (`-print-search-dirs`, `-v`), and everything that the standard headers
include (`-M -MG`).
"""

from __future__ import annotations

import posixpath
import re
import shlex
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.text import raw_path, text_path
from pkgjail.review.check.findings import Gap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pkgjail.core.paths import Names
    from pkgjail.review.check.runner import Runner

_SEARCH = (b"/usr/local/bin", b"/usr/bin", b"/bin")
# In the jail. Nothing is written there: the drivers only print their commands.
_SCRATCH = "/tmp/"  # noqa: S108
_OUTPUT = _SCRATCH + "a.out"
_DRIVER = re.compile(
    r"(?:[a-z0-9_]+-[a-z0-9_-]+-)?(gcc|cc|clang|g\+\+|c\+\+|clang\+\+|gfortran)(?:-[0-9.]+)?"
)
# The most that is used of a driver's answer: missing headers, each of which is searched for in all headers
# that were read; directories; commands that it starts; libraries and objects of one command; files that a
# linker script names. Debian's GCC starts three commands, links ten files, and searches twenty directories.
_MOST_HEADERS, _MOST_DIRECTORIES, _MOST_COMMANDS, _MOST_LINKED, _MOST_NAMED = 100, 100, 20, 100, 100
_MOST_DRIVERS = 100
_LINKED = "the compiler links it into its output"
_NAMED = re.compile(rb"(?<=[\s(])/[^\s()]+")
_COMMENT = re.compile(rb"/\*.*?(?:\*/|\Z)", re.DOTALL)
_LANGUAGES = {"g++": "c++", "c++": "c++", "clang++": "c++", "gfortran": "f95"}
# The options to link programs, programs at a fixed address, and libraries: each has start files of its own.
_LINK_OPTIONS = ((), ("-no-pie",), ("-shared",))
# ISO C11, 7.1.2; and the headers of POSIX.1-2017 that nearly every build includes.
_C_HEADERS = """
    assert.h complex.h ctype.h errno.h fenv.h float.h inttypes.h iso646.h limits.h locale.h math.h setjmp.h
    signal.h stdalign.h stdarg.h stdatomic.h stdbool.h stddef.h stdint.h stdio.h stdlib.h stdnoreturn.h
    string.h tgmath.h threads.h time.h uchar.h wchar.h wctype.h
    arpa/inet.h dirent.h dlfcn.h fcntl.h grp.h langinfo.h netdb.h netinet/in.h poll.h pthread.h pwd.h regex.h
    sched.h semaphore.h strings.h sys/ioctl.h sys/mman.h sys/resource.h sys/select.h sys/socket.h sys/stat.h
    sys/time.h sys/types.h sys/un.h sys/utsname.h sys/wait.h syslog.h termios.h unistd.h
""".split()  # noqa: SIM905
# ISO C++14, 17.6.1.2, without the headers of C.
_CXX_HEADERS = """
    algorithm array atomic bitset chrono codecvt complex condition_variable deque exception forward_list
    fstream functional future initializer_list iomanip ios iosfwd iostream istream iterator limits list locale
    map memory mutex new numeric ostream queue random ratio regex scoped_allocator set shared_mutex sstream
    stack stdexcept streambuf string system_error thread tuple type_traits typeindex typeinfo unordered_map
    unordered_set utility valarray vector cassert cctype cerrno cmath cstddef cstdint cstdio cstdlib cstring
    ctime cwchar
""".split()  # noqa: SIM905


class _Driver(NamedTuple):
    """One compiler driver, and the directories in which it searches for programs and libraries."""

    path: bytes
    language: str
    programs: tuple[bytes, ...]
    libraries: tuple[bytes, ...]


def compiler_gaps(names: Names, runner: Runner) -> Iterator[Gap]:
    """Yield what each compiler driver of the set needs and the set lacks."""
    for path, language in islice(_drivers(names), _MOST_DRIVERS):
        ran = runner.run([text_path(path), "-print-search-dirs"])
        if ran.status:
            continue  # other checks report what keeps it from starting
        programs, libraries = (_search_path(ran.out, kind) for kind in (b"programs", b"libraries"))
        driver = _Driver(path, language, programs, libraries)
        seen: set[bytes] = set()
        for gap in _driver_gaps(names, runner, driver):
            if gap.wanted not in seen:
                seen.add(gap.wanted)
                yield gap


def _drivers(names: Names) -> Iterator[tuple[bytes, str]]:
    """Yield each compiler once, by its shortest path, and its language."""
    places = set()
    for path in sorted(names.entries, key=len):
        match = _DRIVER.fullmatch(text_path(path.rpartition(b"/")[2]))
        if match and path.rpartition(b"/")[0] in _SEARCH:
            found = names.find(path)
            if found.entry is not None and found.place not in places:
                places.add(found.place)
                yield path, _LANGUAGES.get(match[1], "c")


def _search_path(out: bytes, kind: bytes) -> tuple[bytes, ...]:
    """Return the normalized directories in one line of -print-search-dirs."""
    match = re.search(rb"^" + kind + rb": =?(.*)$", out, re.MULTILINE)
    parts = match[1].split(b":") if match else []
    return _first(posixpath.normpath(part) for part in parts if part)


def _first(directories: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the first directories, each once."""
    return tuple(islice(dict.fromkeys(directories), _MOST_DIRECTORIES))


def _driver_gaps(names: Names, runner: Runner, driver: _Driver) -> Iterator[Gap]:
    for options in _LINK_OPTIONS:
        path = text_path(driver.path)
        ran = runner.run([path, "-###", *options, "-x", driver.language, "/dev/null", "-o", _OUTPUT])
        lines = ran.err.decode("utf-8", "surrogateescape").splitlines()
        for line in islice((line for line in lines if line.startswith(" ")), _MOST_COMMANDS):
            yield from _command_gaps(names, runner, driver, shlex.split(line))
    if driver.language == "f95":
        yield from _fortran_gaps(runner, driver)
    else:
        yield from _header_gaps(names, runner, driver)


def _command_gaps(names: Names, runner: Runner, driver: _Driver, argv: Sequence[str]) -> Iterator[Gap]:
    """Yield what one command of the driver lacks: the program, and for a linker, the files that it links."""
    if not argv:
        return
    yield from _program_gaps(names, driver, raw_path(argv[0]))
    if posixpath.basename(argv[0]) not in ("collect2", "ld"):
        return
    yield from _program_gaps(names, driver, b"ld")
    directories = _first(posixpath.normpath(raw_path(word[2:])) for word in argv if word.startswith("-L"))
    linked = dict.fromkeys(word for word in argv[1:] if word.endswith(".o") or word.startswith("-l"))
    for word in islice(linked, _MOST_LINKED):
        if word.endswith(".o") and not word.startswith(_SCRATCH):
            place = raw_path(posixpath.normpath(word))
            if b"/" not in place:
                yield _gap(driver, place, _LINKED, driver.libraries)
            elif names.find(place).entry is None:
                yield _gap(driver, place, _LINKED, (place,))
        elif word.startswith("-l"):
            yield from _library_gaps(names, runner, driver, raw_path(word[2:]), directories)


def _program_gaps(names: Names, driver: _Driver, program: bytes) -> Iterator[Gap]:
    directories = (*driver.programs, *_SEARCH)
    candidates = (program,) if b"/" in program else tuple(one + b"/" + program for one in directories)
    if not any(names.find(candidate).entry for candidate in candidates):
        yield Gap(
            path=driver.path,
            kind="compiler",
            wanted=program,
            cause="the compiler starts it",
            candidates=candidates,
        )


def _library_gaps(
    names: Names, runner: Runner, driver: _Driver, name: bytes, directories: Sequence[bytes]
) -> Iterator[Gap]:
    files = (b"lib" + name + b".so", b"lib" + name + b".a")
    candidates = [place + b"/" + file for place in directories for file in files]
    found = next((one for one in map(names.find, candidates) if one.entry is not None), None)
    if found is None:
        cause = f"the compiler links its output with -l{text_path(name)}"
        everywhere = tuple(place + b"/" + file for place in driver.libraries for file in files)
        yield Gap(path=driver.path, kind="compiler", wanted=files[0], cause=cause, candidates=everywhere)
        return
    script = runner.read(found.place)
    if not script.startswith((b"\x7fELF", b"!<arch>", b"!<thin>")):
        # A linker script names the files that stand for the library.
        named = (match[0] for match in _NAMED.finditer(_COMMENT.sub(b"", script)))
        for path in islice(named, _MOST_NAMED):
            if names.find(path).entry is None:
                cause = f"the linker script for -l{text_path(name)} names it"
                yield Gap(path=found.place, kind="compiler", wanted=path, cause=cause, candidates=(path,))


def _header_gaps(names: Names, runner: Runner, driver: _Driver) -> Iterator[Gap]:
    headers = _C_HEADERS if driver.language == "c" else [*_C_HEADERS, *_CXX_HEADERS]
    # These are not headers of C++.
    left_out = (
        {"stdatomic.h", "stdnoreturn.h", "threads.h", "tgmath.h"} if driver.language == "c++" else set()
    )
    source = "".join(f"#include <{header}>\n" for header in headers if header not in left_out).encode()
    ran = runner.run([text_path(driver.path), "-v", "-M", "-MG", "-x", driver.language, "-"], source)
    directories = _include_directories(ran.err)
    dependencies = ran.out.replace(b"\\\n", b" ").split()[1:]
    read = [posixpath.normpath(header) for header in dependencies if header.startswith(b"/")]
    missing = [header for header in dependencies if not header.startswith((b"/", b"-", b"<"))]
    for header in islice(dict.fromkeys(missing), _MOST_HEADERS):
        includer = _includer(names, runner, read, header)
        cause = "it is a standard header" if includer is None else f"{text_path(includer)} includes it"
        yield Gap(
            path=includer or driver.path,
            kind="compiler",
            wanted=header,
            cause=cause,
            candidates=tuple(place + b"/" + header for place in directories),
        )
    if ran.status and not missing:
        error = ran.err.decode("utf-8", "replace").strip()[-300:]
        cause = f"it cannot preprocess the standard headers: {error}"
        yield Gap(path=driver.path, kind="compiler", wanted=b"", cause=cause, candidates=())


def _include_directories(err: bytes) -> tuple[bytes, ...]:
    """Return the directories that `-v` lists for headers: those that exist, then those that do not."""
    existing = err.partition(b"search starts here:\n")[2].rpartition(b"\nEnd of search list")[0]
    listed = re.findall(rb"^ (/\S.*)$", existing, re.MULTILINE)
    absent = re.findall(rb'ignoring nonexistent directory "(.*)"', err)
    return _first(map(posixpath.normpath, (*listed, *absent)))


def _includer(names: Names, runner: Runner, read: Sequence[bytes], header: bytes) -> bytes | None:
    """Return the one of the headers `read` that includes `header`, or None."""
    pattern = re.compile(
        rb"^[ \t]*#[ \t]*include(?:_next)?[ \t]*[<\"]" + re.escape(header) + rb"[>\"]", re.MULTILINE
    )
    for path in read:
        found = names.find(path)
        if (
            found.entry is not None
            and found.entry.kind == "regular"
            and pattern.search(runner.read(found.place))
        ):
            return found.place
    return None


def _fortran_gaps(runner: Runner, driver: _Driver) -> Iterator[Gap]:
    """Yield the one standard module that is a file, if it is missing; ISO/IEC 1539-1, clause 17."""
    program = b"program p\nuse, intrinsic :: ieee_arithmetic\nend program\n"
    ran = runner.run([text_path(driver.path), "-fsyntax-only", "-x", "f95", "-"], program)
    if ran.status:
        module = b"ieee_arithmetic.mod"
        yield _gap(driver, b"finclude/" + module, "it is a standard module", driver.libraries)


def _gap(driver: _Driver, name: bytes, cause: str, directories: Sequence[bytes]) -> Gap:
    absolute = name.startswith(b"/")
    candidates = tuple(directories) if absolute else tuple(one + b"/" + name for one in directories)
    return Gap(path=driver.path, kind="compiler", wanted=name, cause=cause, candidates=candidates)
