"""Mentions: what a build's own files say of a path that it asked for, or of a name that it did not see.

The logs are parts of what autoconf 2.71, CMake 3.25 and 4.4, and Meson 1.12 wrote.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pkgjail.audit.build_files import LARGEST, build_file, read_build_files
from pkgjail.audit.mentions import MOST_MENTIONS, BuildFiles

LOGS = Path(__file__).parent / "logs"
CONFIG_LOG = (LOGS / "config.log").read_text()
CMAKE_ERROR = (LOGS / "CMakeError.log").read_text()
CMAKE_EVENTS = (LOGS / "CMakeConfigureLog.yaml").read_text()
MESON_LOG = (LOGS / "meson-log.txt").read_text()

CONFIGURE_AC = """\
AC_INIT([seed], [1.0])
dnl AC_CHECK_HEADERS([commented.h])
AC_CHECK_HEADERS([absent_x.h
                  sys/foo_y.h])
AC_CHECK_LIB([zzt], [deflate])
AM_PATH_SEEDLING([1.0])
"""
CMAKE_LISTS = """\
find_package(Foo QUIET)
find_program(GPERF gperff)
find_library(BZ
  NAMES bz2x bz2y)
file(GLOB DATA /usr/share/seedlings/*.txt)
"""
CMAKE_CACHE = """\
//The directory containing a CMake configuration file for Foo.
Foo_DIR:PATH=Foo_DIR-NOTFOUND
GPERF:FILEPATH=/usr/bin/gperff
"""


def files(**contents: str) -> BuildFiles:
    made = [build_file(name.encode(), text.encode()) for name, text in contents.items()]
    return BuildFiles([file for file in made if file])


def texts(built: BuildFiles, path: bytes) -> list[str]:
    return [f"{m.file.decode()}:{m.line} {m.text} = {m.result}" for m in built.tests_for(path)]


AUTOCONF = {"/b/config.log": CONFIG_LOG, "/b/configure.ac": CONFIGURE_AC}
OLD_CMAKE = {"/b/CMakeFiles/CMakeError.log": CMAKE_ERROR, "/b/CMakeCache.txt": CMAKE_CACHE,
             "/b/CMakeLists.txt": CMAKE_LISTS}  # fmt: skip
NEW_CMAKE = {"/b/CMakeFiles/CMakeConfigureLog.yaml": CMAKE_EVENTS}
MESON = {"/b/meson-logs/meson-log.txt": MESON_LOG}

TESTS = [
    ("a header", AUTOCONF, b"/usr/include/absent_x.h",
     ["/b/config.log:6 checking for absent_x.h = no", "/b/configure.ac:3 AC_CHECK_HEADERS([absent_x.h = "]),
    ("a header below a directory, in a call of several lines", AUTOCONF, b"/usr/include/sys/foo_y.h",
     ["/b/config.log:16 checking for sys/foo_y.h = no", "/b/configure.ac:4 sys/foo_y.h]) = "]),
    ("no header of that name alone", AUTOCONF, b"/usr/include/foo_y.h", []),
    ("a header with a multiarch directory", AUTOCONF, b"/usr/include/x86_64-linux-gnu/zlib.h",
     ["/b/config.log:2 checking for zlib.h = yes"]),
    ("no header whose name only begins alike", AUTOCONF, b"/usr/include/zlib.hpp", []),
    ("a comment", AUTOCONF, b"/usr/include/commented.h", []),
    ("a library", AUTOCONF, b"/usr/lib/x86_64-linux-gnu/libzzt.so.1",
     ["/b/config.log:25 checking for deflate in -lzzt = no",
      "/b/configure.ac:5 AC_CHECK_LIB([zzt], [deflate]) = "]),
    ("a library that a test tried on its way", AUTOCONF, b"/usr/lib/libncursest.a",
     ["/b/config.log:38 checking for library containing tgetent = no"]),
    ("no library of which the name is part", AUTOCONF, b"/usr/lib/libncurses.a", []),
    ("a program", AUTOCONF, b"/usr/bin/help2mann", ["/b/config.log:74 checking for help2mann = no"]),
    ("a program that has the name of a function", AUTOCONF, b"/usr/bin/time", []),
    ("a program whose name is a word of titles", AUTOCONF, b"/usr/bin/library", []),
    ("a package of pkg-config", AUTOCONF, b"/usr/share/pkgconfig/libabc.pc",
     ["/b/config.log:76 checking for libabc >= 1.2 = no"]),
    ("a Python module, which an error named", AUTOCONF, b"/usr/lib/python3/dist-packages/yamlx/__init__.py",
     ["/b/config.log:90 checking for python module yamlx = no"]),
    ("a Perl module", AUTOCONF, b"/usr/share/perl5/XML/Foo.pm",
     ["/b/config.log:95 checking for perl module XML::Foo = no"]),
    ("a file of data", AUTOCONF, b"/usr/share/foo/data.txt",
     ["/b/config.log:99 checking for /usr/share/foo/data.txt = no"]),
    ("a header that only a program of another test has", AUTOCONF, b"/usr/include/strings.h", []),
    ("nothing", AUTOCONF, b"/usr/include/unheard.h", []),
    ("CMake: a header", OLD_CMAKE, b"/usr/include/zlibx.h",
     ["/b/CMakeFiles/CMakeError.log:1 Determining if the include file zlibx.h exists = failed"]),
    ("CMake: a header that an error named", OLD_CMAKE, b"/usr/include/foo/bar.h",
     ["/b/CMakeFiles/CMakeError.log:15 Determining if the foo exist = failed"]),
    ("CMake: a library", OLD_CMAKE, b"/usr/lib/libzzt.so",
     ["/b/CMakeFiles/CMakeError.log:8 Determining if the function deflate exists in the zzt = failed"]),
    ("CMake: a package, by its source and the cache", OLD_CMAKE, b"/usr/lib/cmake/Foo/FooConfig.cmake",
     ["/b/CMakeLists.txt:1 find_package(Foo QUIET) = not found"]),
    ("CMake: a program that was found", OLD_CMAKE, b"/usr/bin/gperff",
     ["/b/CMakeLists.txt:2 find_program(GPERF gperff) = "]),
    ("CMake: a library, in a call of two lines", OLD_CMAKE, b"/usr/lib/libbz2y.so",
     ["/b/CMakeLists.txt:4 NAMES bz2x bz2y) = "]),
    ("new CMake: a header", NEW_CMAKE, b"/usr/include/zlibx.h",
     ["/b/CMakeFiles/CMakeConfigureLog.yaml:9 Looking for zlibx.h = failed"]),
    ("new CMake: a header that is there", NEW_CMAKE, b"/usr/include/zlib.h",
     ["/b/CMakeFiles/CMakeConfigureLog.yaml:32 Looking for zlib.h = passed"]),
    ("new CMake: a package", NEW_CMAKE, b"/usr/lib/cmake/Foo/FooConfig.cmake",
     ["/b/CMakeFiles/CMakeConfigureLog.yaml:51 find package Foo = not found"]),
    ("new CMake: the second name of a library", NEW_CMAKE, b"/usr/lib/libbz2y.so",
     ["/b/CMakeFiles/CMakeConfigureLog.yaml:109 find bz2x bz2y = not found"]),
    ("Meson: a header", MESON, b"/usr/include/zlibx.h",
     ['/b/meson-logs/meson-log.txt:17 Has header "zlibx.h" = NO']),
    ("Meson: a library", MESON, b"/usr/lib/libzzt.a", ["/b/meson-logs/meson-log.txt:38 Library zzt = NO"]),
    ("Meson: a package of pkg-config", MESON, b"/usr/lib/pkgconfig/libabc.pc",
     ["/b/meson-logs/meson-log.txt:61 Run-time dependency libabc = NO"]),
    ("Meson: a program", MESON, b"/usr/bin/gperff", ["/b/meson-logs/meson-log.txt:62 Program gperff = NO"]),
    ("Meson: a Python module", MESON, b"/usr/lib/python3/dist-packages/yamlx",
     ["/b/meson-logs/meson-log.txt:63 Program python3 (yamlx) = NO"]),
    ("Meson: another package with a longer name", {"/b/meson.build": "dependency('libabc-2.0')\n"},
     b"/usr/lib/pkgconfig/libabc.pc", []),
    ("Python: an import", {"/b/setup.py": "import os, yaml\n"},
     b"/usr/lib/python3/dist-packages/yaml/__init__.py",
     ["/b/setup.py:1 import os, yaml = "]),
    ("Python: a word that is no import", {"/b/setup.py": "yaml = 1\n"},
     b"/usr/lib/python3/dist-packages/yaml", []),
    ("C: a header of the system", {"/b/a.c": "#include <zlib.h>\n"}, b"/usr/include/zlib.h",
     ["/b/a.c:1 #include <zlib.h> = "]),
    ("C: a header beside the source", {"/b/a.c": '#include "util.h"\n'}, b"/usr/include/libfoo/util.h", []),
    ("make: a command", {"/b/Makefile": "x:\n\t@gperff -o x\n"}, b"/usr/bin/gperff",
     ["/b/Makefile:2 @gperff -o x = "]),
    ("make: a word of a name", {"/b/Makefile": "x: gperff-x\n"}, b"/usr/bin/gperff", []),
    ("bytes that are no UTF-8", {"/b/Makefile": "x:\n\t./\udcff \udcfe\n"}, b"/usr/bin/\xfe", []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("contents", "path", "expected"), [row[1:] for row in TESTS], ids=[row[0] for row in TESTS]
)
def test_a_path_has_the_tests_that_looked_for_it(
    contents: dict[str, str], path: bytes, expected: list[str]
) -> None:
    """Protects the reason that the report gives, and that it gives none that is not one."""
    made = [
        build_file(name.encode(), text.encode("utf-8", "surrogateescape")) for name, text in contents.items()
    ]
    assert texts(BuildFiles([file for file in made if file]), path) == expected


def macro(path: bytes) -> bytes:
    """The source's files: one with macros, and the configuration of two CMake packages."""
    contents = {
        b"/usr/share/aclocal/seedling.m4": b"AC_DEFUN([AM_PATH_SEEDLING],\n[:])\n",
        b"/usr/share/aclocal/other.m4": b"AC_DEFUN([OTHER_MACRO], [:])\nAC_DEFUN([AC_INIT_X], [:])\n",
        b"/usr/lib/cmake/Foo-1.2/FooConfig.cmake": b"",
        b"/usr/lib/cmake/Other/FooConfig.cmake": b"",
        b"/usr/share/foo/cmake/foo-config.cmake": b"",
        b"/usr/share/foot/README": b"",
    }
    if path not in contents:
        raise FileNotFoundError(path)
    return contents[path]


NAMING = [
    ("a macro", b"/usr/share/aclocal", [b"seedling.m4", b"other.m4", b"gone.m4"], [b"seedling.m4"]),
    ("a package of CMake by its directory", b"/usr/lib/cmake", [b"Foo-1.2", b"Food", b"Other"], [b"Foo-1.2"]),
    ("a package of CMake in /usr/share", b"/usr/share", [b"foo", b"foot", b"doc"], [b"foo"]),
    ("a library", b"/usr/lib/x86_64-linux-gnu", [b"libbz2x.so", b"libc.so", b"libbz.a"], [b"libbz2x.so"]),
    ("a header", b"/usr/local/include", [b"absent_x.h", b"other.h"], [b"absent_x.h"]),
    ("modules, and their records", b"/usr/lib/python3/dist-packages",
     [b"yaml", b"_yaml.cpython-311-x86_64-linux-gnu.so", b"six.py", b"wheel-0.38.dist-info", b"re"],
     [b"six.py", b"wheel-0.38.dist-info", b"yaml"]),
    ("all that a pattern names", b"/usr/share/seedlings", [b"a.txt", b"b.txt"], [b"a.txt", b"b.txt"]),
    ("nothing in a directory that is not named", b"/usr/share/other", [b"find_package", b"Foo"], []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("directory", "names", "expected"), [row[1:] for row in NAMING], ids=[row[0] for row in NAMING]
)
def test_names_that_a_listing_lacked(directory: bytes, names: list[bytes], expected: list[bytes]) -> None:
    """Protects what Python, CMake and aclocal look for without asking for it, and no other name."""
    built = files(**{
        "/b/configure.ac": CONFIGURE_AC,
        "/b/CMakeLists.txt": CMAKE_LISTS,
        "/b/setup.py": "import yaml\nfrom six import moves\n",
        "/b/pyproject.toml": '[build-system]\nrequires = ["setuptools", "wheel"]\n',
    })  # fmt: skip
    assert sorted(built.naming(directory, names, macro)) == expected


def test_what_names_a_name_is_said() -> None:
    """Protects that a name of a listing has the line that means it."""
    named = files(**{"/b/configure.ac": CONFIGURE_AC}).naming(b"/usr/share/aclocal", [b"seedling.m4"], macro)
    assert [(m.line, m.text) for m in named[b"seedling.m4"]] == [(6, "AM_PATH_SEEDLING([1.0])")]


def test_a_build_of_any_content_is_read_within_bounds(tmp_path: Path) -> None:
    """Protects memory, time and the host's other files from what a build leaves in place of a log."""
    build = tmp_path / "build"
    build.mkdir()
    (tmp_path / "secret.py").write_text("import yaml\n")
    (build / "setup.py").write_text("import yaml\n")
    (build / "linked.py").symlink_to(tmp_path / "secret.py")
    (build / "up").symlink_to("..")
    os.mkfifo(build / "config.log")
    with (build / "meson.build").open("wb") as sparse:
        sparse.truncate(LARGEST + 1)
    (build / "CMakeLists.txt").write_bytes(b"find_package(" * 100_000)
    (build / "acinclude.m4").write_bytes(bytes(range(256)) * 1000)
    names = [*os.listdir(build), "up/secret.py", "absent.py"]
    read = read_build_files([b"/src/" + name.encode() for name in names], {b"/src": os.fsencode(build)})
    assert [file.path for file in read] == [b"/src/acinclude.m4", b"/src/CMakeLists.txt", b"/src/setup.py"]
    assert max(len(line) for file in read for line in file.lines) == 1000
    assert len(BuildFiles(read).tests_for(b"/usr/lib/python3/dist-packages/yaml.py")) == 1


def test_mentions_of_a_path_are_few() -> None:
    """Protects the report from a path that every source names."""
    built = files(**{f"/b/{number}.c": "#include <zlib.h>\n" * 10 for number in range(10)})
    assert len(built.tests_for(b"/usr/include/zlib.h")) == MOST_MENTIONS
