"""`check`: a closed set has no findings; each gap makes one, which names who is responsible."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import pytest

from pkgjail.backends import open_database
from pkgjail.core.model import Dropped
from pkgjail.manifest import dump_manifest
from pkgjail.review.check import check_manifest
from pkgjail.review.check.attribution import Attribution
from pkgjail.review.check.findings import Gap
from pkgjail.review.check.scripts import env_program
from tests.checked_trees import entries_below
from tests.manifest_cases import sample

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.review.check import Check
    from tests.conftest import Caller

_LIB = "/usr/lib/x86_64-linux-gnu"
_GCC = "/usr/lib/gcc/x86_64-linux-gnu/*"

# Patterns of one path each, on any release. Each path is dropped by a rule of its own, which a finding must
# name. `check --static` finds these:
STATIC = [
    f"{_LIB}/libz.so.1",
    f"{_LIB}/libmpfr.so.6",
    f"{_LIB}/libgmp.so.10.*",
    f"{_LIB}/libcurl.so.4",
    f"{_LIB}/libcurl-gnutls.so.4",
    f"{_LIB}/libmagic.so.1",
    f"{_LIB}/libreadline.so.8",
    f"{_LIB}/libsqlite3.so.0",
    f"{_LIB}/libbz2.so.1.0",
    f"{_LIB}/liblzma.so.5",
    f"{_LIB}/libisl.so.23",
    f"{_LIB}/libzstd.so.1",
    f"{_LIB}/libacl.so.1",
    f"{_LIB}/libpcre2-8.so.0",
    f"{_LIB}/libcrypto.so.3",
    f"{_LIB}/libnettle.so.8",
    f"{_LIB}/libopcodes-*.so",
    f"{_LIB}/gconv/libGB.so",
    "/usr/bin/mawk",
    "/usr/bin/bash",
    "/usr/bin/perl",
    "/usr/bin/xz",
    "/usr/bin/x86_64-linux-gnu-nm",
    "/etc/alternatives/awk",
]
# Only running the compilers, Python and Perl of the set finds these:
DYNAMIC = [
    f"{_LIB}/crt1.o",
    f"{_LIB}/Scrt1.o",
    f"{_LIB}/crti.o",
    f"{_GCC}/crtbegin.o",
    f"{_GCC}/crtbeginS.o",
    f"{_GCC}/crtendS.o",
    f"{_LIB}/crtn.o",
    f"{_GCC}/libgcc.a",
    f"{_LIB}/libc_nonshared.a",
    f"{_GCC}/finclude/ieee_arithmetic.mod",
    f"{_GCC}/include/stddef.h",
    "/usr/include/asm-generic/errno-base.h",
    "/usr/include/stdio.h",
    "/usr/include/x86_64-linux-gnu/bits/stdlib-float.h",
    "/usr/include/c++/*/vector",
    "/usr/include/c++/*/bits/stl_map.h",
    "/usr/bin/x86_64-linux-gnu-as",
    "/usr/lib/python3.*/json/scanner.py",
    "/usr/lib/python3.*/lib-dynload/_ctypes.cpython-3*-x86_64-linux-gnu.so",
    "/usr/lib/python3.*/decimal.py",
    "/usr/share/perl/5.*/Test/Builder.pm",
    f"{_LIB}/perl/5.*/Encode/Alias.pm",
]


def without(manifest: Manifest, paths: Sequence[str]) -> Manifest:
    """Return the manifest as if a blacklist had dropped each path, by a rule of its own."""
    gone = {os.fsencode(path): f"holes.ignore:{number}: {path}" for number, path in enumerate(paths, start=1)}
    assert gone.keys() <= {entry.path for entry in manifest.files}
    return replace(
        manifest,
        files=tuple(entry for entry in manifest.files if entry.path not in gone),
        dropped=tuple(
            sorted((*manifest.dropped, *(Dropped(path=p, rule=r) for p, r in gone.items())), key=_path)
        ),
    )


def _path(dropped: Dropped) -> bytes:
    return dropped.path


def described(check: Check) -> list[str]:
    return [f"{os.fsdecode(f.path)}: {f.kind} {os.fsdecode(f.wanted)}: {f.cause}" for f in check.findings]


@pytest.mark.gate
def test_the_shipped_whitelist_is_closed(spack_manifest: Manifest) -> None:
    """Protects from false alarms, and the whitelist from gaps."""
    check = check_manifest(spack_manifest, database=open_database())
    assert described(check) == []
    assert (check.objects > 800, check.scripts > 200, check.links > 700) == (True, True, True)


@pytest.mark.gate
@pytest.mark.parametrize("run", [pytest.param(False, id="static"), pytest.param(True, id="dynamic")])
def test_every_gap_is_found_and_its_rule_named(spack_manifest: Manifest, run: bool) -> None:  # noqa: FBT001
    """Protects the proof: what a blacklist drops and something needs is reported, with that rule."""
    gaps = DYNAMIC if run else STATIC
    paths = [os.fsdecode(entry.path) for entry in spack_manifest.files]
    expressions = [re.compile("[^/]*".join(map(re.escape, pattern.split("*")))) for pattern in gaps]
    meant = [list(filter(expression.fullmatch, paths)) for expression in expressions]
    assert [len(found) for found in meant] == [1] * len(gaps), meant
    holed = without(spack_manifest, [found[0] for found in meant])
    check = check_manifest(holed, run=run)
    named = {finding.responsible for finding in check.findings}
    assert [
        dropped.rule
        for dropped in holed.dropped
        if dropped.rule.startswith("holes") and dropped.rule not in named
    ] == []
    assert {finding.fix.startswith("take ") for finding in check.findings} == {True}


def compile_c(source: str, *options: str | Path) -> None:
    subprocess.run(["gcc", "-x", "c", "-", *options], input=source, text=True, check=True)


# name -> (the first line of a script, the program that it needs)
SCRIPTS = {
    "absolute": ("#!/opt/none/bin/tool", "/opt/none/bin/tool"),
    "blank": ("#! /opt/none/bin/tool -x", "/opt/none/bin/tool"),
    "env": ("#!/usr/bin/env none-such", "none-such"),
    "split": ("#!/usr/bin/env -S A=1 none-such -x", "none-such"),
    "relative": ("#!perl -w", "perl"),
    "directory": ("#!/usr/bin", "/usr/bin"),
    "plain": ("#!/etc/debian_version", "/etc/debian_version"),
}


@pytest.mark.gate
def test_gaps_of_unowned_files(base_manifest: Manifest, tmp_path: Path) -> None:
    """Protects files that no package lists: scripts of a site, programs with paths of their own, links."""
    for name, (line, _) in SCRIPTS.items():
        (tmp_path / name).write_text(line + "\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "read.sh").write_text("#!/opt/none/bin/tool\n")  # not executable: no gap
    compile_c("int f(void) { return 0; }", "-shared", "-o", tmp_path / "libhole.so")
    libraries = [f"-L{tmp_path}", "-lhole", "-Wl,-rpath,$ORIGIN"]
    compile_c("int f(void); int main(void) { return f(); }", "-o", tmp_path / "origin", *libraries)
    compile_c("int main(void) { return 0; }", "-Wl,--dynamic-linker=/lib/none.so", "-o", tmp_path / "start")
    (tmp_path / "out").symlink_to("/opt/none")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "null").symlink_to("/dev/null")  # the jail's own: no gap
    files = [
        entry
        for entry in entries_below(tmp_path, os.fsencode(tmp_path), parents=True)
        if not entry.path.endswith(b"/libhole.so")
    ]
    merged = {entry.path: entry for entry in base_manifest.files}
    merged.update((entry.path, entry) for entry in files)
    manifest = replace(base_manifest, files=tuple(merged[path] for path in sorted(merged)))
    check = check_manifest(manifest, database=open_database(), run=False)
    found = {
        (os.fsdecode(f.path), f.kind, os.fsdecode(f.wanted))
        for f in check.findings
        if f.path.startswith(os.fsencode(tmp_path))
    }
    assert found == {
        *((f"{tmp_path}/{name}", "interpreter", wanted) for name, (_, wanted) in SCRIPTS.items()),
        (f"{tmp_path}/origin", "library", "libhole.so"),
        (f"{tmp_path}/start", "interpreter", "/lib/none.so"),
        (f"{tmp_path}/out", "link", "/opt/none"),
        (f"{tmp_path}/round", "link", "round"),
    }


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        (b"python3", b"python3"),
        (b"python3 -x", b"python3 -x"),  # without -S the whole argument is the name
        (b"-S python3 -x", b"python3"),
        (b"-Spython3", b"python3"),
        (b"-S A=1 B= python3", b"python3"),
        (b"-vS python3", b"python3"),
        (b"", b""),
    ],
)
def test_env_programs(arguments: bytes, program: bytes) -> None:
    """Protects scripts whose interpreter env(1) finds by name."""
    assert env_program(arguments) == program


@pytest.mark.gate
def test_without_rules_the_package_is_named(spack_manifest: Manifest) -> None:
    """Protects the fix if a package is not in the set at all: the host's database names it."""
    gone = "libmpfr6:amd64"
    files = tuple(
        entry for entry in spack_manifest.files if gone not in entry.owners or entry.kind == "directory"
    )
    packages = tuple(package for package in spack_manifest.packages if package.key != gone)
    check = check_manifest(
        replace(spack_manifest, files=files, packages=packages), database=open_database(), run=False
    )
    assert {(f.kind, f.wanted, f.responsible, f.fix) for f in check.findings} == {
        ("library", b"libmpfr.so.6", gone, 'add "libmpfr6" to [packages] of a whitelist')
    }


@dataclass(frozen=True)
class _OwnerOf:
    """A package database with one path, which `another:amd64` lists."""

    path: bytes

    def owners(self, paths: Collection[bytes]) -> dict[bytes, str]:
        return {path: "another:amd64" for path in paths if path == self.path}


@pytest.mark.parametrize(
    ("listed", "responsible"), [(b"/etc/none/Gone.pm", "another:amd64"), (b"/etc/none", "")]
)
def test_owner_of_a_directory_alone_is_not_responsible(listed: bytes, responsible: str) -> None:
    """Protects from a fix that does not help: a package with the directory, but not with the file in it."""
    gap = Gap(
        path=b"/usr/bin/perl",
        kind="module",
        wanted=b"Gone.pm",
        cause="",
        candidates=(b"/etc/none/Gone.pm",),
        only_if_attributed=True,
    )
    database = cast("PackageDatabase", _OwnerOf(listed))
    attribution = Attribution(sample(), b"/", database, [gap])
    assert attribution.finding(gap).responsible == responsible
    assert attribution.is_reported(gap) == bool(responsible)


_NOTE = """
__asm__(".pushsection .note.dlopen, \\"a\\", %note\\n .balign 4\\n .long 4, 2f-1f, 0x407c0c0a\\n"
        ".asciz \\"FDO\\"\\n 1: .asciz \\"{json}\\"\\n 2: .balign 4\\n .popsection");
int main(void) {{ return 0; }}
"""


@pytest.mark.gate
def test_an_optional_library_makes_a_note(base_manifest: Manifest, tmp_path: Path) -> None:
    """Protects from false findings: a note of dlopen(3) names libraries that a program does not require."""
    note = r"[{{\\\"soname\\\":[\\\"{}\\\"],\\\"feature\\\":\\\"x\\\",\\\"priority\\\":\\\"suggested\\\"}}]"
    for name, library in (("without", "libnone.so.1"), ("with", "libc.so.6")):
        compile_c(_NOTE.format(json=note.format(library)), "-o", tmp_path / name)
    merged = {entry.path: entry for entry in base_manifest.files}
    merged.update((e.path, e) for e in entries_below(tmp_path, os.fsencode(tmp_path), parents=True))
    manifest = replace(base_manifest, files=tuple(merged[path] for path in sorted(merged)))
    check = check_manifest(manifest, run=False)
    assert described(check) == []
    notes = [found for found in check.notes if found.path.startswith(os.fsencode(tmp_path))]
    assert [(found.path, found.wanted, found.cause) for found in notes] == [
        (
            os.fsencode(tmp_path / "without"),
            b"libnone.so.1",
            "its note says that it loads it for x (suggested)",
        )
    ]


@pytest.mark.gate
def test_anyone_checks_and_verifies(anyone: Caller, base_manifest: Manifest) -> None:
    """Protects that an ordinary user can check and verify without privileges."""
    (anyone.home / "m.jsonl").write_bytes(dump_manifest(base_manifest))
    checked = anyone.pkgjail("check", "m.jsonl")
    assert (checked.returncode, checked.stderr) == (0, "")
    verified = anyone.pkgjail("verify", "--quick", "m.jsonl")
    assert (verified.returncode, verified.stderr) == (0, "")
