"""What compilers of the set start, search and link, as they say themselves; gcc(1), ld(1).

Each driver is asked in the jail for the programs it would start and the objects and libraries it would
link (`-###`), for its search paths (`-print-search-dirs`, `-v`), and for all that the standard headers
include (`-M -MG`).
"""

from __future__ import annotations

import posixpath
import re
import shlex
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pkgjail.core.model import raw_path, text_path
from pkgjail.review.check.findings import Want

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pkgjail.core.paths import Names
    from pkgjail.core.programs import Ran

    class Runner(Protocol):
        """What runs programs in the jail, `asked` the last, and reads its files."""

        asked: bytes

        def run(self, argv: Sequence[str], given: bytes = b"") -> Ran:
            """As `running.Inside`."""
            ...

        def read(self, place: bytes) -> bytes:
            """As `running.Inside`."""
            ...


_SEARCH = (b"/usr/local/bin", b"/usr/bin", b"/bin")
# In the jail, where nothing is written: the commands are shown alone.
_SCRATCH = "/tmp/"  # noqa: S108
_OUTPUT = _SCRATCH + "a.out"
_DRIVER = re.compile(
    r"(?:[a-z0-9_]+-[a-z0-9_-]+-)?(gcc|cc|clang|g\+\+|c\+\+|clang\+\+|gfortran)(?:-[0-9.]+)?"
)
# Of what a driver says: headers that are not there, each of which is looked for in all that were read;
# directories; commands that it starts; libraries and objects of one; files that a linker script names.
# Debian's GCC starts three, links ten, and looks in twenty directories.
_MOST_LACKING, _MOST_PLACES, _MOST_COMMANDS, _MOST_LINKED, _MOST_NAMED = 100, 100, 20, 100, 100
_MOST_DRIVERS = 100
_NAMED = re.compile(rb"(?<=[\s(])/[^\s()]+")
_COMMENT = re.compile(rb"/\*.*?(?:\*/|\Z)", re.DOTALL)
_LANGUAGES = {"g++": "c++", "c++": "c++", "clang++": "c++", "gfortran": "f95"}
# How programs, programs at a fixed address and libraries are linked: each has start files of its own.
_LINKS = ((), ("-no-pie",), ("-shared",))
# ISO C11, 7.1.2; and what POSIX.1-2017 has that nearly every build includes.
_C_HEADERS = """
    assert.h complex.h ctype.h errno.h fenv.h float.h inttypes.h iso646.h limits.h locale.h math.h setjmp.h
    signal.h stdalign.h stdarg.h stdatomic.h stdbool.h stddef.h stdint.h stdio.h stdlib.h stdnoreturn.h
    string.h tgmath.h threads.h time.h uchar.h wchar.h wctype.h
    arpa/inet.h dirent.h dlfcn.h fcntl.h grp.h langinfo.h netdb.h netinet/in.h poll.h pthread.h pwd.h regex.h
    sched.h semaphore.h strings.h sys/ioctl.h sys/mman.h sys/resource.h sys/select.h sys/socket.h sys/stat.h
    sys/time.h sys/types.h sys/un.h sys/utsname.h sys/wait.h syslog.h termios.h unistd.h
""".split()  # noqa: SIM905
# ISO C++14, 17.6.1.2, without those of C.
_CXX_HEADERS = """
    algorithm array atomic bitset chrono codecvt complex condition_variable deque exception forward_list
    fstream functional future initializer_list iomanip ios iosfwd iostream istream iterator limits list locale
    map memory mutex new numeric ostream queue random ratio regex scoped_allocator set shared_mutex sstream
    stack stdexcept streambuf string system_error thread tuple type_traits typeindex typeinfo unordered_map
    unordered_set utility valarray vector cassert cctype cerrno cmath cstddef cstdint cstdio cstdlib cstring
    ctime cwchar
""".split()  # noqa: SIM905


class _Driver(NamedTuple):
    path: bytes
    language: str
    programs: tuple[bytes, ...]
    libraries: tuple[bytes, ...]


def compiler_wants(names: Names, inside: Runner) -> Iterator[Want]:
    """What each compiler driver of the set wants and does not get."""
    for path, language in islice(_drivers(names), _MOST_DRIVERS):
        ran = inside.run([text_path(path), "-print-search-dirs"])
        if ran.status:
            continue  # what keeps it from starting is told elsewhere
        driver = _Driver(path, language, _listed(ran.out, b"programs"), _listed(ran.out, b"libraries"))
        seen: set[bytes] = set()
        for want in _driver_wants(names, inside, driver):
            if want.wanted not in seen:
                seen.add(want.wanted)
                yield want


def _drivers(names: Names) -> Iterator[tuple[bytes, str]]:
    """Each compiler by one path, and its language."""
    places = set()
    for path in sorted(names.entries, key=len):
        match = _DRIVER.fullmatch(text_path(path.rpartition(b"/")[2]))
        if match and path.rpartition(b"/")[0] in _SEARCH:
            found = names.find(path)
            if found.entry is not None and found.place not in places:
                places.add(found.place)
                yield path, _LANGUAGES.get(match[1], "c")


def _listed(out: bytes, what: bytes) -> tuple[bytes, ...]:
    """A line of -print-search-dirs, its directories normal."""
    match = re.search(rb"^" + what + rb": =?(.*)$", out, re.MULTILINE)
    parts = match[1].split(b":") if match else []
    return _first(posixpath.normpath(part) for part in parts if part)


def _first(directories: Iterable[bytes]) -> tuple[bytes, ...]:
    """Each of the first directories once."""
    return tuple(islice(dict.fromkeys(directories), _MOST_PLACES))


def _driver_wants(names: Names, inside: Runner, driver: _Driver) -> Iterator[Want]:
    for options in _LINKS:
        argv = [
            text_path(driver.path),
            "-###",
            *options,
            "-x",
            driver.language,
            "/dev/null",
            "-o",
            _OUTPUT,
        ]
        ran = inside.run(argv)
        lines = ran.err.decode("utf-8", "surrogateescape").splitlines()
        for line in islice((line for line in lines if line.startswith(" ")), _MOST_COMMANDS):
            yield from _command_wants(names, inside, driver, shlex.split(line))
    if driver.language == "f95":
        yield from _fortran_wants(inside, driver)
    else:
        yield from _header_wants(names, inside, driver)


def _command_wants(names: Names, inside: Runner, driver: _Driver, words: Sequence[str]) -> Iterator[Want]:
    """One command that the driver would start: the program, and what a linker's command names."""
    if not words:
        return
    yield from _program_wants(names, driver, raw_path(words[0]))
    if posixpath.basename(words[0]) not in ("collect2", "ld"):
        return
    yield from _program_wants(names, driver, b"ld")
    directories = _first(posixpath.normpath(raw_path(word[2:])) for word in words if word.startswith("-L"))
    linked = dict.fromkeys(word for word in words[1:] if word.endswith(".o") or word.startswith("-l"))
    for word in islice(linked, _MOST_LINKED):
        if word.endswith(".o") and not word.startswith(_SCRATCH):
            place = raw_path(posixpath.normpath(word))
            if b"/" not in place:
                yield _want(driver, place, "it is linked into what it compiles", driver.libraries)
            elif names.find(place).entry is None:
                yield _want(driver, place, "it is linked into what it compiles", (place,))
        elif word.startswith("-l"):
            yield from _library_wants(names, inside, driver, raw_path(word[2:]), directories)


def _program_wants(names: Names, driver: _Driver, program: bytes) -> Iterator[Want]:
    places = (
        (program,) if b"/" in program else tuple(one + b"/" + program for one in (*driver.programs, *_SEARCH))
    )
    if not any(names.find(place).entry for place in places):
        yield Want(
            path=driver.path,
            kind="compiler",
            wanted=program,
            cause="the compiler starts it",
            places=places,
        )


def _library_wants(
    names: Names, inside: Runner, driver: _Driver, name: bytes, directories: Sequence[bytes]
) -> Iterator[Want]:
    files = (b"lib" + name + b".so", b"lib" + name + b".a")
    places = [place + b"/" + file for place in directories for file in files]
    found = next((one for one in map(names.find, places) if one.entry is not None), None)
    if found is None:
        cause = f"it links what it compiles with -l{text_path(name)}"
        everywhere = tuple(place + b"/" + file for place in driver.libraries for file in files)
        yield Want(path=driver.path, kind="compiler", wanted=files[0], cause=cause, places=everywhere)
        return
    script = inside.read(found.place)
    if not script.startswith((b"\x7fELF", b"!<arch>", b"!<thin>")):
        # A linker script names the files that stand for the library.
        named = (match[0] for match in _NAMED.finditer(_COMMENT.sub(b"", script)))
        for path in islice(named, _MOST_NAMED):
            if names.find(path).entry is None:
                cause = f"the linker script for -l{text_path(name)} names it"
                yield Want(path=found.place, kind="compiler", wanted=path, cause=cause, places=(path,))


def _header_wants(names: Names, inside: Runner, driver: _Driver) -> Iterator[Want]:
    headers = _C_HEADERS if driver.language == "c" else [*_C_HEADERS, *_CXX_HEADERS]
    # C++ has neither of these.
    left_out = (
        {"stdatomic.h", "stdnoreturn.h", "threads.h", "tgmath.h"} if driver.language == "c++" else set()
    )
    source = "".join(f"#include <{header}>\n" for header in headers if header not in left_out).encode()
    ran = inside.run([text_path(driver.path), "-v", "-M", "-MG", "-x", driver.language, "-"], source)
    directories = _include_directories(ran.err)
    words = ran.out.replace(b"\\\n", b" ").split()[1:]
    read = [posixpath.normpath(word) for word in words if word.startswith(b"/")]
    lacking = [word for word in words if not word.startswith((b"/", b"-", b"<"))]
    for header in islice(dict.fromkeys(lacking), _MOST_LACKING):
        by = _includer(names, inside, read, header)
        cause = "it is a standard header" if by is None else f"{text_path(by)} includes it"
        places = tuple(place + b"/" + header for place in directories)
        yield Want(path=by or driver.path, kind="compiler", wanted=header, cause=cause, places=places)
    if ran.status and not lacking:
        cause = (
            "it cannot preprocess the standard headers: " + ran.err.decode("utf-8", "replace").strip()[-300:]
        )
        yield Want(path=driver.path, kind="compiler", wanted=b"", cause=cause, places=())


def _include_directories(err: bytes) -> tuple[bytes, ...]:
    """What `-v` says of the search for headers: those that are there, then those that are not."""
    there = err.partition(b"search starts here:\n")[2].rpartition(b"\nEnd of search list")[0]
    listed = re.findall(rb"^ (/\S.*)$", there, re.MULTILINE)
    absent = re.findall(rb'ignoring nonexistent directory "(.*)"', err)
    return _first(map(posixpath.normpath, (*listed, *absent)))


def _includer(names: Names, inside: Runner, read: Sequence[bytes], header: bytes) -> bytes | None:
    """The header that includes `header`, of those that were `read`."""
    wanted = re.compile(
        rb"^[ \t]*#[ \t]*include(?:_next)?[ \t]*[<\"]" + re.escape(header) + rb"[>\"]", re.MULTILINE
    )
    for path in read:
        found = names.find(path)
        if (
            found.entry is not None
            and found.entry.kind == "regular"
            and wanted.search(inside.read(found.place))
        ):
            return found.place
    return None


def _fortran_wants(inside: Runner, driver: _Driver) -> Iterator[Want]:
    """The one standard module that is a file; ISO/IEC 1539-1, clause 17."""
    program = b"program p\nuse, intrinsic :: ieee_arithmetic\nend program\n"
    ran = inside.run([text_path(driver.path), "-fsyntax-only", "-x", "f95", "-"], program)
    if ran.status:
        module = b"ieee_arithmetic.mod"
        yield _want(driver, b"finclude/" + module, "a standard module", driver.libraries)


def _want(driver: _Driver, name: bytes, cause: str, directories: Sequence[bytes]) -> Want:
    places = tuple(directories) if name.startswith(b"/") else tuple(one + b"/" + name for one in directories)
    return Want(path=driver.path, kind="compiler", wanted=name, cause=cause, places=places)
