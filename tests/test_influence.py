"""Which packages change a build: real builds, again with one package more."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from pkgjail.api import resolve
from pkgjail.audit.influence import find_influence
from pkgjail.audit.model import Audit
from pkgjail.cli.main import main
from pkgjail.core.errors import PkgjailError, UsageError
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails.run import default_environment
from tests.real_roots import copy_of

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest

# What configure does, in a few lines: it looks for a header, a program and a file, and uses the first two.
BUILD = """\
set -e
mkdir -p out
exec 3>out/config.log
found() { echo "configure:1: checking for $1" >&3; if test -e $2; then r=yes; else r=no; fi;
          echo "configure:2: result: $r" >&3; test $r = yes; }
found zlib.h /usr/include/zlib.h && echo '#define HAVE_ZLIB_H 1' >out/config.h || echo >out/config.h
if command -v m4 >/dev/null; then m4 -P in >out/made; else cp in out/made; fi
test -e /usr/bin/bison && : || :
date >out/date
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A manifest of a shell and a few programs."""
    place = tmp_path_factory.mktemp("small")
    (place / "s.toml").write_text(
        '[packages]\ndebian = ["coreutils", "dash"]\n[options]\nessential = false\nblacklists = ["docs"]\n'
    )
    return resolve([str(place / "s.toml")], hashed=False)


@pytest.fixture
def options(tmp_path: Path) -> JailOptions:
    """Options that show a build of a few lines, and start in it."""
    (tmp_path / "build").write_text(BUILD)
    (tmp_path / "in").write_text("m4_define(`x', `y')x\n")
    here = os.fsencode(tmp_path)
    bind = UserBind(source=here, destination=here, writable=True)
    return JailOptions(binds=(bind,), cwd=here, environment=default_environment())


@pytest.mark.unmeasured  # coverage leaves files of its own in what is built
def test_influence(small: Manifest, options: JailOptions, tmp_path: Path) -> None:
    """A header and a program change the build, and how; a program that it only looks for does not."""
    found = find_influence(small, ["sh", "build"], options, os.fsencode(tmp_path / "out"), jobs=2)
    trials = {trial.package.partition(":")[0]: trial for trial in found.trials}
    assert {name: trial.verdict for name, trial in trials.items()} == {
        "zlib1g-dev": "changed",
        "m4": "changed",
        "bison": "same",
        "libc-bin": "same",
        "locales": "same",
        "tzdata": "same",
    }
    assert trials["bison"].through == "m4:amd64"  # which comes with it, and alone has the same effect
    zlib = trials["zlib1g-dev"].comparison.differences
    assert [(each.kind, each.name, each.new) for each in zlib[:2]] == [
        ("define", "HAVE_ZLIB_H", "#define HAVE_ZLIB_H 1"),
        ("test", "checking for zlib.h", "yes"),
    ]
    assert "zlib1g-dev:amd64" in trials["zlib1g-dev"].added
    assert b"out/date" not in {each.file for trial in found.trials for each in trial.comparison.differences}
    assert (found.status, found.left_out, found.runs) == (0, 0, 8)
    assert not (tmp_path / "out").exists()


@pytest.mark.unmeasured  # coverage leaves files of its own in what is built
def test_what_to_try(small: Manifest, options: JailOptions, tmp_path: Path) -> None:
    """The first ones, or packages by name, wanted or not; what cannot be tried says why."""
    names = ["m4", "flex:amd64", "no-such-package", "dash", "/no/such", "/usr/include/zlib.h"]
    output = os.fsencode(tmp_path / "out")
    found = find_influence(small, ["sh", "build"], options, output, packages=names, jobs=2)
    assert [(trial.package, trial.verdict) for trial in found.trials] == [
        ("m4:amd64", "changed"),
        ("flex:amd64", "same"),  # it brings m4
        ("no-such-package", "untried"),
        ("dash", "untried"),
        ("", "untried"),
        ("", "untried"),
    ]
    whys = [trial.why for trial in found.trials[2:]]
    assert "no-such-package" in whys[0]
    assert whys[1:] == [
        "the manifest has all of it",
        "the manifest has all of it",
        "the manifest has all of it",
    ]
    first = find_influence(small, ["sh", "build"], options, output, limit=1)
    assert (len(first.trials), first.left_out, first.runs) == (1, 5, 3)


LOCAL = """\
busybox mkdir -p out
test -e /usr/local/include/x.h && busybox cat /usr/local/include/x.h >out/header
test -d /opt/tool && busybox cat /opt/tool/share/deep >out/tool
busybox cat /usr/local/lib/libx.so >out/library 2>/dev/null
true
"""


def test_paths_of_no_package(options: JailOptions, tmp_path: Path) -> None:
    """Files of an administrator come in one by one: a file, a whole directory, a link with its end."""
    place = copy_of("deb", tmp_path / "host")
    for name in ("usr/local/include/x.h", "opt/tool/share/deep", "usr/local/lib/libx.so.1"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"{name}\n")
    (place / "usr/local/lib/libx.so").symlink_to("libx.so.1")
    (tmp_path / "build").write_text(LOCAL)
    (tmp_path / "w.toml").write_text('[packages]\ndebian = ["bash"]\n[options]\nessential = true\n')
    manifest = resolve([str(tmp_path / "w.toml")], root=os.fsencode(place))
    found = find_influence(
        manifest, ["busybox", "sh", "build"], options, os.fsencode(tmp_path / "out"), root=os.fsencode(place)
    )
    assert {trial.paths[0]: trial.verdict for trial in found.trials} == {
        b"/usr/local/include/x.h": "changed",
        b"/usr/local/lib/libx.so": "changed",
        b"/opt/tool": "changed",
    }
    whole = find_influence(
        manifest,
        ["busybox", "sh", "build"],
        options,
        os.fsencode(tmp_path / "out"),
        packages=["/opt/tool"],
        root=os.fsencode(place),
    )
    (trial,) = whole.trials
    assert [(each.file, each.kind) for each in trial.comparison.differences] == [(b"tool", "name")]


def test_an_audit_of_another_manifest(small: Manifest, options: JailOptions, tmp_path: Path) -> None:
    """An audit counts for its own manifest; a build that fails differently each time is refused."""
    audit = Audit(manifest="sha256:0", family="debian", architecture="amd64", command=(), status=0, events=0)
    with pytest.raises(UsageError, match="of another manifest"):
        find_influence(small, ["sh", "build"], options, os.fsencode(tmp_path / "out"), audit=audit)
    (tmp_path / "build").write_text("mkdir out; exit $(($(date +%s) % 120))")
    with pytest.raises(PkgjailError, match="two equal runs"):
        find_influence(small, ["sh", "build"], options, os.fsencode(tmp_path / "out"))


SOURCE = """\
#ifdef HAVE_LIBZ
#include <zlib.h>
int main(void) { return zlibVersion() == 0; }
#else
int main(void) { return 0; }
#endif
"""
AUTOCONF = """\
AC_INIT([demo], [1])
AC_CONFIG_HEADERS([config.h])
AC_PROG_CC
AC_CHECK_HEADERS([zlib.h])
AC_CHECK_LIB([z], [deflate])
AC_CONFIG_FILES([Makefile])
AC_OUTPUT
"""
CMAKE = """\
cmake_minimum_required(VERSION 3.10)
project(demo C)
find_package(ZLIB)
add_executable(demo demo.c)
if(ZLIB_FOUND)
  target_link_libraries(demo ZLIB::ZLIB)
  target_compile_definitions(demo PRIVATE HAVE_LIBZ)
endif()
"""
REAL: dict[str, tuple[dict[str, str], list[str], str, set[tuple[str, bytes, str]]]] = {
    "autotools": (
        {
            "configure.ac": AUTOCONF,
            "Makefile.in": "demo: demo.c\n\t@CC@ @DEFS@ -include config.h -o $@ $< @LIBS@\n",
        },
        ["gcc", "make", "libc6-dev", "sed", "grep", "mawk", "diffutils"],
        "./configure && make",
        {("define", b"config.h", "HAVE_ZLIB_H"), ("test", b"config.log", "checking for zlib.h")},
    ),
    "cmake": (
        {"CMakeLists.txt": CMAKE},
        ["gcc", "make", "libc6-dev", "cmake"],
        "cmake . && make",
        {("cmake", b"CMakeCache.txt", "ZLIB_INCLUDE_DIR")},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", REAL)
def test_real_builds(options: JailOptions, tmp_path: Path, kind: str) -> None:
    """Tests of configure and CMake that one package more changes are named, and the program's library."""
    files, packages, command, expected = REAL[kind]
    for name, text in {**files, "demo.c": SOURCE}.items():
        (tmp_path / name).write_text(text)
    if "configure.ac" in files:
        subprocess.run(["autoreconf", "-i"], cwd=tmp_path, check=True, capture_output=True)
    listed = ", ".join(f'"{name}"' for name in ("coreutils", "dash", *packages))
    (tmp_path / "b.toml").write_text(f"[packages]\ndebian = [{listed}]\n[options]\nessential = false\n")
    manifest = resolve([str(tmp_path / "b.toml")], hashed=False)
    found = find_influence(
        manifest, ["sh", "-c", command], options, os.fsencode(tmp_path), packages=["zlib1g-dev", "m4"], jobs=2
    )
    zlib, macros = found.trials
    differences = zlib.comparison.differences
    assert differences[0][:3] == ("needed", b"demo", "libz.so.1")
    assert expected <= {each[:3] for each in differences}
    assert (zlib.package, zlib.verdict, macros.verdict) == ("zlib1g-dev:amd64", "changed", "same")


@pytest.mark.unmeasured  # coverage leaves files of its own in what is built
def test_the_command(
    options: JailOptions, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command prints what each package changed, as text and as JSON, and ends as --fail-on says."""
    del options
    (tmp_path / "s.toml").write_text(
        '[packages]\ndebian = ["coreutils", "dash"]\n[options]\nessential = false\n'
    )
    monkeypatch.chdir(tmp_path)
    words = ["audit", "influence", "--cwd", "--output", "out", "./s.toml", "--limit", "2"]
    assert main([*words, "--fail-on", "changed", "--", "sh", "build"]) == 1
    assert capfd.readouterr().out.splitlines() == [
        "the build ends with status 0; 4 runs",
        "zlib1g-dev:amd64: changed the build",
        "    asked for: /usr/include/zlib.h",
        "    config.h: nothing -> #define HAVE_ZLIB_H 1",
        "    config.log: checking for zlib.h: no -> yes",
        "    config.h: content: 1 bytes, 01ba4719c80b6fe9 -> 22 bytes, 968d460f353729c0",
        "m4:amd64: changed the build",
        "    asked for: /usr/bin/m4",
        "    made: content: 21 bytes, 213c0928308df57b -> 2 bytes, 3bb2abb69ebb27fb",
        "not tried, beyond --limit: 4",
    ]
    words = [*words[:-2], "--try", "bison", "--try", "none", "--json", "--fail-on", "changed"]
    assert main([*words, "--", "sh", "build"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert [(one["package"], one["verdict"]) for one in found["packages"]] == [
        ("bison:amd64", "changed"),
        ("none", "untried"),
    ]
    assert found["packages"][0]["differences"][0]["file"] == "made"
    assert main([*words[:4], "/no/such", "./s.toml", "--", "true"]) == 2
    assert main([*words[:3], "./s.toml", "--", "true"]) == 2
    assert "name their directory with --output" in capfd.readouterr().err
