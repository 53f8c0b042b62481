"""The ld.so search of `check` agrees with ld.so itself, run with LD_TRACE_LOADED_OBJECTS in the jail."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.model import FileEntry
from pkgjail.core.paths import Names
from pkgjail.manifest import write_manifest
from pkgjail.review.check import open_ld_search
from pkgjail.review.check.elf import read_elf
from pkgjail.review.check.ld_search import LdSearch
from tests.checked_trees import entries_below

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

_SCRIPT = """\
while IFS= read -r program; do
    echo "= $program"
    LD_TRACE_LOADED_OBJECTS=1 "$program" < /dev/null 2>&1
done
"""
_LINE = re.compile(r"\t(?:(?P<name>\S+) => )?(?P<path>\S+|not found)(?: \(0x[0-9a-f]+\))?")


def traced(output: str) -> dict[str, dict[str, str]]:
    """Parse what ld.so printed: program -> name -> path, or "not found".

    The objects that the kernel maps are left out: the vdso, which has no file, and ld.so itself.
    """
    programs: dict[str, dict[str, str]] = {}
    for line in output.splitlines():
        if line.startswith("= "):
            programs[line[2:]] = {}
            continue
        match = _LINE.fullmatch(line)
        assert match is not None, line
        if not match["path"].startswith(("linux-vdso", "/lib64/ld-linux")):
            *_, current = programs.values()
            current[match["name"] or match["path"]] = match["path"]
    return programs


def found_by_search(ld_search: LdSearch, path: bytes) -> dict[str, str]:
    """Return the same from `check`'s own search."""
    trace = ld_search.trace(path)
    return {
        **{name.decode(): found.decode() for name, found in trace.found.items()},
        **{name.decode(): "not found" for name in trace.missing},
    }


def is_elf(entry: FileEntry) -> bool:
    """Return whether it is a file, no link, that begins as an ELF file does."""
    path = Path(os.fsdecode(entry.path))
    return not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF"


@pytest.mark.gate
def test_the_search_agrees_with_ld_so(caller: Caller, spack_manifest: Manifest, tmp_path: Path) -> None:
    """Protects the proof for libraries: each name that a program of `spack` needs, and the file it gets."""
    ld_search = open_ld_search(spack_manifest)
    entries = {entry.path: entry for entry in spack_manifest.files}
    programs = [p for p, elf in ld_search.objects.items() if elf.interpreter and entries[p].mode & 0o111]
    write_manifest(spack_manifest, tmp_path / "m.jsonl")
    names = b"".join(path + b"\n" for path in programs).decode()
    ran = caller.pkgjail("run", tmp_path / "m.jsonl", "--", "sh", "-c", _SCRIPT, input=names)
    assert ran.returncode == 0, ran.stderr
    in_bin = {path for path, entry in entries.items() if path.startswith(b"/usr/bin/") and is_elf(entry)}
    assert b"/usr/bin/git" in in_bin
    assert in_bin <= set(programs)
    assert traced(ran.stdout) == {path.decode(): found_by_search(ld_search, path) for path in programs}


# Each line: the file to compile, the functions of its source, the linker's arguments.
_BUILD = """\
d1/libb.so      b                   -shared -Wl,-soname,libb.so
d3/libb.so      b                   -shared -Wl,-soname,libb.so
d1/liba.so      a:b                 -shared -Ld1 -lb
d4/liba.so      a:b                 -shared -Ld1 -lb -Wl,-rpath,$ORIGIN/../d1
d2/libc1.so     c                   -shared -Wl,-soname,libc1.so
d2/glibc-hwcaps/x86-64-v2/libc1.so c -shared -Wl,-soname,libc1.so
d2/glibc-hwcaps/x86-64-v9/libc1.so c -shared -Wl,-soname,libc1.so
d2/libn.so      n                   -shared
bin/rpath       main:a              -Ld1 -la -Wl,--disable-new-dtags,-rpath,/opt/t/d1
bin/runpath     main:a              -Ld1 -la -Wl,--enable-new-dtags,-rpath,/opt/t/d1
bin/origin      main:a:b            -Ld1 -la -lb -Wl,-rpath,$ORIGIN/../d1
bin/braces      main:a:b            -Ld1 -la -lb -Wl,-rpath,${ORIGIN}/../d1
bin/own         main:a              -Ld4 -la -Wl,--disable-new-dtags,-rpath,/opt/t/d4:/opt/t/d3
bin/first       main:a:b            -Ld1 -la -lb -Wl,-rpath,/opt/t/d3:/opt/t/d1
bin/levels      main:c              -Ld2 -lc1 -Wl,-rpath,/opt/t/d2
bin/slash       main:n              ./d2/libn.so
bin/lib         main:b              -Ld1 -lb -Wl,-rpath,/opt/t/$LIB
bin/nodefault   main                -z nodefaultlib
lib/x86_64-linux-gnu/libb.so b      -shared -Wl,-soname,libb.so
"""


def build_tree(place: Path) -> None:
    """Compile the lines of `_BUILD`; `main:a:b` is a main that calls a and b."""
    for line in _BUILD.splitlines():
        name, functions, *options = line.split()
        head, *called = functions.split(":")
        body = "".join(f"int {one}(void);" for one in called)
        source = f"{body} int {head}(void) {{ return 0{''.join(f' + {one}()' for one in called)}; }}"
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        command = ["gcc", "-fPIC", "-x", "c", "-", "-x", "none", "-Wl,--allow-shlib-undefined", "-o", name]
        subprocess.run([*command, *options], cwd=place, input=source, text=True, check=True)
    (place / "linked").symlink_to("bin/origin")


@pytest.mark.gate
def test_rules_of_the_search(caller: Caller, base_manifest: Manifest, tmp_path: Path) -> None:
    """Protects each rule of ld.so(8) separately, with a program made for it."""
    place = tmp_path / "t"
    place.mkdir()
    build_tree(place)
    made = entries_below(place, b"/opt/t")
    objects = dict(open_ld_search(base_manifest).objects)
    for entry in made:
        if entry.kind == "regular":
            with open(os.fsencode(place) + entry.path[len(b"/opt/t") :], "rb") as file:
                elf = read_elf(file)
            assert elf is not None
            objects[entry.path] = elf
    opt = FileEntry(path=b"/opt", kind="directory", mode=0o755)
    host = Path("/etc/ld.so.conf.d/x86_64-linux-gnu.conf").read_bytes()
    ld_search = LdSearch(Names([*base_manifest.files, opt, *made]), objects, lambda _: host)
    write_manifest(base_manifest, tmp_path / "m.jsonl")
    programs = sorted(path for path in objects if path.startswith(b"/opt/t/bin/"))
    names = b"".join(path + b"\n" for path in programs).decode()
    bind = ["--ro-bind", f"{place}:/opt/t"]
    ran = caller.pkgjail("run", *bind, tmp_path / "m.jsonl", "--", "sh", "-c", _SCRIPT, input=names)
    assert ran.returncode == 0, ran.stderr
    assert traced(ran.stdout) == {path.decode(): found_by_search(ld_search, path) for path in programs}
