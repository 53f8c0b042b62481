"""`check` does not report what no program needs: plugins, documentation, modules of other systems."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from pkgjail.core.model import Dependency, FileEntry
from pkgjail.core.paths import Names
from pkgjail.core.programs import ProgramOutput
from pkgjail.core.reporter import SILENT
from pkgjail.review.check import dynamic, modules
from pkgjail.review.check.attribution import Attribution
from pkgjail.review.check.comparison import whole_host
from pkgjail.review.check.elf import Elf
from pkgjail.review.check.ld_search import LdSearch
from pkgjail.review.check.libraries import library_gaps
from pkgjail.review.check.links import link_gaps
from pkgjail.review.check.scripts import script_gaps
from tests.manifest_cases import sample

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.review.check.findings import Gap

_ABI = (64, "EM_X86_64")
_LD = b"/usr/lib/ld.so"
_JVM = b"/usr/lib/jvm/lib"
_JAVA = {b"/usr/lib/jvm/bin/java": "headless", _LD: "libc"}


def files(owners: Mapping[bytes, str]) -> list[FileEntry]:
    """Return entries for executable files and the directories above them."""
    above = {path[:at] for path in owners for at in range(1, len(path)) if path[at] == ord("/")}
    return [
        *(FileEntry(path=path, kind="directory", mode=0o755) for path in sorted(above)),
        *(
            FileEntry(path=path, kind="regular", mode=0o755, owners=(f"{owner}:amd64",))
            for path, owner in owners.items()
        ),
    ]


def library(*needed: bytes, soname: bytes = b"", abi: tuple[int, str] = _ABI) -> Elf:
    """Return an object that can only be loaded."""
    return Elf(abi=abi, program=False, needed=needed, soname=soname, runpath=(b"$ORIGIN",))


# What is lacking -> (the objects beside java and ld.so, their packages); "jre" requires "headless".
_NEEDS_JVM = library(b"libjvm.so")
_PLUGINS = {
    "of the same package": ("", {_JVM + b"/server/libjvm.so": library()}, "headless", "headless"),
    "by its SONAME": ("", {_JVM + b"/server/jvm": library(soname=b"libjvm.so")}, "headless", "headless"),
    "of a package that it requires": ("", {_JVM + b"/server/libjvm.so": library()}, "headless", "jre"),
    "of another package": ("optional", {_JVM + b"/server/libjvm.so": library()}, "other", "jre"),
    "for another machine": (
        "optional",
        {_JVM + b"/server/libjvm.so": library(abi=(32, "EM_386"))},
        "headless",
        "headless",
    ),
    "nowhere": ("optional", {}, "", "headless"),
}


def gaps_of(objects: Mapping[bytes, Elf], owners: Mapping[bytes, str]) -> list[tuple[bytes, bytes, str]]:
    """Return what `library_gaps` finds: the file, the library, and "optional" if it is only a note."""
    java = Elf(abi=_ABI, program=True, interpreter=_LD)
    everything = {**objects, b"/usr/lib/jvm/bin/java": java, _LD: Elf(abi=_ABI, program=False)}
    names = Names(files({**_JAVA, **owners}))
    requires = [Dependency(source="jre:amd64", target="headless:amd64", kind="Depends", text="headless")]
    found = library_gaps(names, everything, LdSearch(names, everything, lambda _: b""), requires)
    return [(gap.path, gap.wanted, "optional" if gap.optional_if_outside else "finding") for gap in found]


@pytest.mark.parametrize(("expected", "others", "owner", "own"), _PLUGINS.values(), ids=_PLUGINS)
def test_a_plugin_finds_what_is_loaded_before_it(
    expected: str, others: dict[bytes, Elf], owner: str, own: str
) -> None:
    """Protects OpenJDK: its libraries need libjvm.so, which java loaded from a directory of its own."""
    plugin = _JVM + b"/libnet.so"
    found = gaps_of({plugin: _NEEDS_JVM, **others}, {plugin: own, **dict.fromkeys(others, owner)})
    assert found == ([(plugin, b"libjvm.so", expected)] if expected else [])


def test_other_libraries_find_it_by_themselves() -> None:
    """Protects the proof: a program, what a program needs, and a library that others link are not plugins."""
    server = _JVM + b"/server/libjvm.so"
    program, needed, public = b"/usr/bin/jshell", _JVM + b"/libneeded.so", b"/usr/lib/libpublic.so"
    objects = {
        server: library(),
        program: Elf(abi=_ABI, program=True, interpreter=_LD, needed=(b"libneeded.so",), runpath=(_JVM,)),
        needed: _NEEDS_JVM,
        public: _NEEDS_JVM,
        b"/usr/bin/direct": Elf(abi=_ABI, program=True, interpreter=_LD, needed=(b"libjvm.so",)),
    }
    assert sorted(gaps_of(objects, dict.fromkeys(objects, "headless"))) == [
        (b"/usr/bin/direct", b"libjvm.so", "finding"),
        (needed, b"libjvm.so", "finding"),
        (public, b"libjvm.so", "finding"),
    ]


class _Owner:
    """A package database: `other` has everything in /usr/lib/other, and `mawk` in /usr/lib/mawk."""

    def owners(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """As `PackageDatabase.owners`."""
        return {
            path: f"{name}:amd64"
            for path in paths
            for name in ("other", "mawk")
            if (path + b"/").startswith(f"/usr/lib/{name}/".encode())
        }


def link(path: bytes, target: bytes, owner: str = "mawk") -> FileEntry:
    """Return a link of a package."""
    owners = (f"{owner}:amd64",) if owner else ()
    return FileEntry(path=path, kind="symlink", mode=0o777, target=target, owners=owners)


# A link of mawk, where it leads -> whether it is a note or a finding.
_LINKS = {
    "into documentation": (b"/usr/lib/x", b"/usr/share/doc/mawk", "note"),
    "in documentation": (b"/usr/share/doc/x", b"/usr/lib/mawk/x", "note"),
    "to a manual page": (b"/usr/lib/x", b"../share/man/man1/x.1.gz", "note"),
    "to nothing on the host": (b"/usr/lib/x", b"none/src.zip", "note"),
    "into a package that is not required": (b"/usr/lib/x", b"other/src.zip", "note"),
    "into a package of the set": (b"/usr/lib/x", b"mawk/src.zip", "finding"),
    "to what a rule dropped": (b"/usr/lib/x", b"/opt/dropped/x", "finding"),
    "to what the host lacks and lists": (b"/usr/lib/x", b"/usr/lib/lacks", "finding"),
    "in a circle": (b"/usr/lib/x", b"x", "finding"),
}


def judged(manifest: Manifest, gap: Gap) -> str:
    """Return whether the gap is a note or a finding."""
    attribution = Attribution(manifest, b"/nowhere", cast("PackageDatabase", _Owner()), [gap])
    return "note" if attribution.is_note(gap) else "finding"


def _with(*entries: FileEntry) -> Manifest:
    base = sample()
    (missing,), (dropped,) = base.missing, base.dropped
    return replace(
        base,
        files=tuple(
            {
                entry.path: entry for entry in (*base.files, *files({b"/usr/lib/bin": "mawk"}), *entries)
            }.values()
        ),
        dropped=(replace(dropped, path=b"/opt/dropped"),),
        missing=(replace(missing, path=b"/usr/lib/lacks"),),
    )


def test_a_link_to_a_link_that_leads_nowhere() -> None:
    """Protects rustc's `gcc-ld/ld`: a link in the set is not what is lacking, but what that leads to."""
    place = FileEntry(path=b"/usr/lib/mawk", kind="directory", mode=0o755)
    manifest = _with(place, link(b"/usr/lib/mawk/lld", b"/usr/bin/lld-14"), link(b"/usr/lib/ld", b"mawk/lld"))
    gaps = [
        gap for gap in link_gaps(Names(manifest.files)) if gap.path in (b"/usr/lib/ld", b"/usr/lib/mawk/lld")
    ]
    assert [judged(manifest, gap) for gap in gaps] == ["note", "note"]


@pytest.mark.parametrize(("path", "target", "expected"), _LINKS.values(), ids=_LINKS)
def test_links_that_lead_nowhere(path: bytes, target: bytes, expected: str) -> None:
    """Protects from findings for documentation and for what packages only suggest, and the others."""
    manifest = _with(link(path, target))
    (gap,) = [gap for gap in link_gaps(Names(manifest.files)) if gap.path == path]
    assert judged(manifest, gap) == expected


def test_a_link_of_no_package_is_a_finding() -> None:
    """Protects what a whitelist names by path: no package's relations excuse it."""
    manifest = _with(link(b"/usr/lib/x", b"none", owner=""))
    (gap,) = [gap for gap in link_gaps(Names(manifest.files)) if gap.path == b"/usr/lib/x"]
    assert judged(manifest, gap) == "finding"


_SCRIPTS = {
    "an example": (b"/usr/share/doc/mawk/examples/rules", "/opt/none", "note"),
    "a test's input": (b"/usr/lib/llvm/tests/Inputs/cd", "/opt/none", "note"),
    "of a package that is not required": (b"/usr/lib/git-core/git-p4", "/usr/lib/other/python", "note"),
    "a command": (b"/usr/bin/p4", "/opt/none", "finding"),
    "a command of a package that is not required": (b"/usr/bin/p4", "/usr/lib/other/python", "finding"),
    "whose interpreter a rule dropped": (b"/usr/lib/git-core/git-p4", "/opt/dropped/sh", "finding"),
}


@pytest.mark.parametrize(("path", "interpreter", "expected"), _SCRIPTS.values(), ids=_SCRIPTS)
def test_scripts_that_no_program_starts(path: bytes, interpreter: str, expected: str) -> None:
    """Protects from findings for examples and inputs of tests; a command is a finding."""
    manifest = _with(*files({path: "mawk"}))
    (gap,) = script_gaps(Names(manifest.files), {path: interpreter.encode()})
    assert judged(manifest, gap) == expected


_MODULES = {
    "turtle": "try:\n    import tkinter_none\nexcept ImportError as error:\n"
    "    raise ImportError(str(error) + ', please install it')\n",
    "plain": "import tkinter_none\n",
    "ios": "raise ImportError('no ObjC')\n",
    "broken": "try:\n    import tkinter_none\nexcept ImportError:\n    open('/none/none')\n",
    "sound": "try:\n    import tkinter_none\nexcept ImportError:\n    pass\n",
}


def test_the_module_that_is_lacking_is_named(tmp_path: Path) -> None:
    """Protects turtle, which raises an error of its own if tkinter is lacking; and other faults."""
    for name, text in _MODULES.items():
        (tmp_path / f"mod_{name}.py").write_text(text)
    names = [f"mod_{name}" for name in _MODULES]
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.stdlib_module_names = {names!r}\n"
    ran = subprocess.run(
        [sys.executable, "-I", "-c", start + modules._PYTHON_CODE],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [line.split("\t")[:3] for line in ran.stdout.splitlines()[2:]]
    assert lines == [
        ["fail", "mod_broken", ""],
        ["fail", "mod_ios", ""],
        ["none", "mod_plain", "tkinter_none"],
        ["none", "mod_turtle", "tkinter_none"],
    ]


class _Python:
    """A jail's Python, which cannot import `ios`, nor `data` if the set lacks /usr/lib/data."""

    def __init__(self, manifest: Manifest, root: bytes) -> None:
        del root
        self._has_data = any(entry.path == b"/usr/lib/data" for entry in manifest.files)
        self.last_program = b"/usr/bin/python3"

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> ProgramOutput:
        """As `check.runner.Runner`."""
        del argv, stdin
        lines = b"suffixes\t.py\npath\t/usr/lib\nfail\tios\t\tno ObjC\n"
        return ProgramOutput(0, lines + (b"" if self._has_data else b"fail\tdata\t\tno data\n"), b"")

    def read(self, place: bytes) -> bytes:
        """As `check.runner.Runner`."""
        del place
        return b""


def _host(tmp_path: Path) -> bytes:
    for name in (
        "etc/secret",
        "usr/lib/data",
        "usr/bin/python3",
        "home/me",
        "var/lib/ghc/a",
        "var/lib/docker/b",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "usr/lib/link").symlink_to("data")
    return str(tmp_path).encode()


def test_what_fails_with_all_files_too_is_no_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects Python's modules for other systems, and the finding if the host has what is lacking."""
    monkeypatch.setattr(dynamic, "JailRunner", _Python)
    manifest = _with(*files({b"/usr/bin/python3": "mawk"}))
    names, host = Names(manifest.files), _host(tmp_path)
    gaps = dynamic.dynamic_gaps(manifest, names, host, SILENT)
    assert [(gap.wanted, gap.optional, gap.cause) for gap in gaps] == [
        (b"ios", True, "importing the standard module ios fails: no ObjC, with all files of the host too"),
        (b"data", False, "importing the standard module data fails: no data"),
    ]
    # Nothing is excused if the host cannot be compared with.
    monkeypatch.setattr(dynamic, "whole_host", _unreadable)
    gaps = dynamic.dynamic_gaps(manifest, names, host, SILENT)
    assert [(gap.wanted, gap.optional) for gap in gaps] == [(b"ios", False), (b"data", False)]


def _unreadable(manifest: Manifest, root: bytes) -> Manifest:
    del manifest, root
    raise FileNotFoundError


def test_the_whole_host(tmp_path: Path) -> None:
    """Protects the comparison: the manifest's entries as they are, and others in its system directories."""
    manifest = _with(FileEntry(path=b"/var/lib/ghc", kind="directory", mode=0o755))
    kept = {entry.path: entry for entry in manifest.files}
    whole = {entry.path: entry for entry in whole_host(manifest, _host(tmp_path)).files}
    assert {path: whole[path] for path in kept} == kept
    assert {path: entry.kind for path, entry in whole.items() if path not in kept} == {
        b"/etc/secret": "regular",
        b"/usr/bin/python3": "regular",
        b"/usr/lib/data": "regular",
        b"/usr/lib/link": "symlink",
        b"/var/lib/ghc/a": "regular",
    }
