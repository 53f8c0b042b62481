"""A root with a real toolchain, copied from this host with its records, and the packages of the seeds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail import resolve
from tests import real_roots
from tests.audit import seeds
from tests.real_roots import AS_ROOT, kept, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import Manifest

_LIB = "/usr/lib/x86_64-linux-gnu"
_PYTHON = "/usr/lib/python3/dist-packages"
_HEADER = "#define SEED 1\n"
_PROGRAM = "#!/bin/sh\necho 1\n"
_PC = "Name: seed\nDescription: made for tests\nVersion: 1.0\nCflags: -DSEED=1\n"
_LIBRARY = "library"  # content that is compiled
_TERMINFO = "terminfo"
_LOCALE = "locale"
_AUTHORITIES = "authorities"


def _library(name: str) -> dict[str, str]:
    return {f"{_LIB}/lib{name}.so.1": _LIBRARY, f"{_LIB}/lib{name}.so": f"-> lib{name}.so.1"}


def _pc(name: str) -> dict[str, str]:
    return {f"{_LIB}/pkgconfig/{name}.pc": _PC}


PACKAGES: dict[str, dict[str, str]] = {
    "seed-header": {"/usr/include/seedheader.h": _HEADER},
    "seed-library": _library("seedlib"),
    "seed-both": {"/usr/include/seedboth.h": _HEADER, **_library("seedboth")},
    "seed-pc": _pc("seedpc"),
    "seed-pc-outer": {f"{_LIB}/pkgconfig/seedouter.pc": f"{_PC}Requires: seedinner\n"},
    "seed-pc-inner": {"/usr/share/pkgconfig/seedinner.pc": _PC},
    "seed-cmake": {f"{_LIB}/cmake/SeedCfg/SeedCfgConfig.cmake": "set(SEED 1)\n"},
    "seed-cmake-share": {"/usr/share/SeedShare-1.0/SeedShareConfig.cmake": "set(SEED 1)\n"},
    "seed-cmake-library": _library("seedcml"),
    "seed-cmake-header": {"/usr/include/seedcmh.h": _HEADER},
    "seed-cmake-program": {"/usr/bin/seedcmp": _PROGRAM},
    "seed-cmake-pc": _pc("seedcmpc"),
    "seed-program": {"/usr/bin/seedprog": _PROGRAM},
    "seed-absolute": {"/usr/bin/seedabs": _PROGRAM},
    "seed-interpreter": {"/usr/bin/seedinterpreter": "-> cat"},
    "seed-python": {f"{_PYTHON}/seedpy/__init__.py": "SEED = 1\n"},
    "seed-metadata": {f"{_PYTHON}/seedmeta-1.0.dist-info/METADATA": "Name: seedmeta\nVersion: 1.0\n"},
    "seed-perl": {"/usr/share/perl5/Seed/Mod.pm": "package Seed::Mod;\nour $SEED = 1;\n1;\n"},
    "seed-macro": {
        "/usr/share/aclocal/seed-macro.m4": "AC_DEFUN([SEED_ADD_MACRO], [AC_SUBST([SEED], [1])])\n"
    },
    "seed-autotools-header": {"/usr/include/seedach.h": _HEADER},
    "seed-autotools-library": _library("seedacl"),
    "seed-autotools-program": {"/usr/bin/seedacp": _PROGRAM},
    "seed-autotools-pc": _pc("seedacpc"),
    "seed-terminfo": {"/usr/share/terminfo/s/seedterm": _TERMINFO},
    "seed-locale": {"/usr/lib/locale/sd_SD.utf8": _LOCALE},
    "seed-catalog": {"/usr/share/locale/sd/LC_MESSAGES/seed.mo": "catalog"},
    "seed-authorities": {"/etc/ssl/certs/seed-authorities.crt": _AUTHORITIES},
    "seed-data": {"/usr/share/seeddata/table.txt": "one\ntwo\n"},
    "seed-pattern-common": {"/usr/share/seedglob/first.txt": "1\n"},
    "seed-pattern": {"/usr/share/seedglob/second.txt": "2\n"},
    "seed-plugin": {"/usr/lib/seedplugins/plug.so": _LIBRARY},
    "seed-dlopen": {f"{_LIB}/libseeddl.so.1": _LIBRARY},
    "seed-link": {"/usr/include/seedlink.h": "-> seedreal/real.h"},
    "seed-linked": {"/usr/include/seedreal/real.h": _HEADER},
    "seed-current": {"/usr/lib/seedcurrent": "-> seed-1.0"},
    "seed-version": {"/usr/lib/seed-1.0/seedver.h": _HEADER},
    "seed-relative-common": {"/usr/share/seedrelative/part/README": "common\n"},
    "seed-relative": {"/usr/share/seedrelative/data.txt": "1\n"},
    "seed-static": {"/usr/share/seedstatic/data.txt": "1\n"},
    "seed-meson-pc": _pc("seedmsd"),
    "seed-meson-library": _library("seedmsl"),
    "seed-meson-program": {"/usr/bin/seedmsp": _PROGRAM},
    "seed-meson-header": {"/usr/include/seedmsh.h": _HEADER},
    "seed-meson-python": {f"{_PYTHON}/seedmspy.py": "SEED = 1\n"},
    "seed-make": {"/usr/share/seedmake/rules.mk": "SEED = 1\n"},
    "seed-make-header": {"/usr/include/seedmk.h": _HEADER},
    "seed-extension": {"/usr/include/seedext.h": _HEADER},
    "seed-spack": {"/usr/include/seedspack.h": _HEADER},
    "seed-decoy-test": {"/usr/include/seeddecoy.h": _HEADER},
    "seed-decoy-program": {"/usr/bin/seeddecoyprog": _PROGRAM},
    "seed-decoy-python": {f"{_PYTHON}/seeddecoypy.py": "SEED = 1\n"},
    "seed-decoy-header": {"/usr/include/seeddecoyhas.h": _HEADER},
    "seed-decoy-directory": {"/usr/include/seeddecoydir/unused.h": _HEADER},
    "seed-decoy-pc": _pc("seeddecoypc"),
    "seed-decoy-dlopen": {f"{_LIB}/libseeddecoy.so.1": _LIBRARY},
}
"""The packages of the seeds: the files of each, with their content, or `-> target` for a link."""

UNOWNED = {
    "/usr/local/include/seedlocal.h": _HEADER,
    "/usr/local/bin/seedlocalprog": _PROGRAM,
    "/opt/seed/include/seedopt.h": _HEADER,
}
"""Files that no package has."""


DEBS = os.environ.get("PKGJAIL_SEED_DEBS", "")
"""A directory with packages that are installed in the root too: Meson and ninja, if this host lacks them."""


def seed_root() -> Path:
    """The root, made once. Meson is in it if this host or `DEBS` has it."""
    sources = [Path(module).read_text() for module in (__file__, seeds.__file__, real_roots.__file__)]
    return kept("seeds", partial(_make, tools=tools()), *sources, DEBS, " ".join(tools())) / "root"


def tools() -> tuple[str, ...]:
    """The packages of this host that are in the root."""
    return (*seeds.TOOLS, *(seeds.MESON if shutil.which("meson") or DEBS else ()))


def _make(place: Path, tools: Sequence[str]) -> None:
    root, packages = place / "root", place / "packages"
    root.mkdir()
    packages.mkdir()
    with tempfile.TemporaryDirectory() as work:
        whitelist = Path(work, "tools.toml")
        names = ", ".join(f'"{name}"' for name in (seeds.TOOLS if DEBS else tools))
        whitelist.write_text(f"[packages]\ndebian = [{names}]\n")
        _copy_host(resolve([str(whitelist)], hashed=False, baseline=False), root)
        for name, files in PACKAGES.items():
            _package(name, files, Path(work, name), packages)
    install = ("dpkg", "--root", root, "--force-all", "--no-triggers", "--log=/dev/null", "--unpack")
    more = sorted(Path(DEBS).glob("*.deb")) if DEBS else []
    run(*AS_ROOT, *install, *sorted(packages.iterdir()), *more)
    _mark_as_installed(root / "var/lib/dpkg/status")
    for path, content in UNOWNED.items():
        _write(root, path, content)


def _mark_as_installed(status: Path) -> None:
    """Say that all packages are configured, and wait for no triggers: their scripts would run in the root."""
    text = re.sub(r"^Triggers-.*\n", "", status.read_text(), flags=re.MULTILINE)
    status.write_text(re.sub(r"(?<=^Status: install ok )[\w-]+", "installed", text, flags=re.MULTILINE))


def _copy_host(manifest: Manifest, root: Path) -> None:
    """Copy the files of a manifest of this host, and dpkg's records of its packages."""
    for entry in manifest.files:
        target = os.fsencode(root) + entry.path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if entry.target is not None:
            os.symlink(entry.target, target)
        elif entry.kind == "directory":
            os.makedirs(target, exist_ok=True)
        elif os.path.exists(entry.path):
            shutil.copy(entry.path, target)
    records = root / "var/lib/dpkg"
    for name in ("info", "updates", "alternatives"):
        (records / name).mkdir(parents=True, exist_ok=True)
    keys = {package.key for package in manifest.packages} | {package.name for package in manifest.packages}
    stanzas = Path("/var/lib/dpkg/status").read_text().split("\n\n")
    chosen = [stanza for stanza in stanzas if stanza.partition("\n")[0].partition(" ")[2] in keys]
    (records / "status").write_text("\n\n".join(chosen) + "\n\n")
    (records / "available").touch()
    for name in ("arch", "diversions", "statoverride", "info/format"):
        if Path("/var/lib/dpkg", name).exists():
            shutil.copy(f"/var/lib/dpkg/{name}", records / name)
    for file in Path("/var/lib/dpkg/info").iterdir():
        if file.suffix in {".list", ".md5sums", ".conffiles"} and file.stem in keys:
            shutil.copy(file, records / "info" / file.name)
    for file in Path("/var/lib/dpkg/alternatives").iterdir():
        shutil.copy(file, records / "alternatives" / file.name)


def _package(name: str, files: dict[str, str], payload: Path, output: Path) -> None:
    for path, content in files.items():
        _write(payload, path, content)
    (payload / "DEBIAN").mkdir(mode=0o755)
    (payload / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1.0\nArchitecture: amd64\n"
        "Maintainer: tests\nDescription: Made for tests\n"
    )
    run("dpkg-deb", "--root-owner-group", "-Znone", "-b", payload, output / f"{name}.deb")


def _write(root: Path, path: str, content: str) -> None:
    place = root / path[1:]
    place.parent.mkdir(parents=True, exist_ok=True)
    if content.startswith("-> "):
        place.symlink_to(content[3:])
    elif content == _LIBRARY:
        soname = f"-Wl,-soname,{place.name}"
        function = place.name.split(".")[0].removeprefix("lib")
        source = f"int {function}(void) {{ return 1; }}\n"
        command = ("gcc", "-shared", "-fPIC", soname, "-x", "c", "-o", place, "-")
        subprocess.run(command, input=source, text=True, check=True)
    elif content == _TERMINFO:
        entry = "seedterm|made for tests,\n\tcols#77, lines#24,\n"
        subprocess.run(("tic", "-x", "-o", place.parent.parent, "-"), input=entry, text=True, check=True)
    elif content == _LOCALE:
        shutil.copytree("/usr/lib/locale/C.utf8", place)
    elif content == _AUTHORITIES:
        shutil.copy("/etc/ssl/certs/ISRG_Root_X1.pem", place)
    elif content == "catalog":
        text = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\nmsgid "hello"\nmsgstr "seed"\n'
        subprocess.run(("msgfmt", "-o", place, "-"), input=text, text=True, check=True)
    else:
        place.write_text(content)
        place.chmod(0o755 if "/bin/" in path else 0o644)
