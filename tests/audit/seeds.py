"""Host dependencies of many kinds, each in a tiny build below `seeds/`: what an audit must find.

Each build is run as `sh build.sh` and leaves its result in `out`. Its jail has `TOOLS` and what the seed
lists. What it wants is in the root of `seed_root`, and not in the jail.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

BUILDS = Path(__file__).parent / "seeds"
COMMAND = ("sh", "build.sh")

TOOLS = (
    "autoconf", "automake", "bash", "binutils", "cmake", "coreutils", "dash", "dpkg", "findutils", "gcc",
    "gettext-base", "grep", "libc6-dev", "libc-bin", "m4", "make", "mawk", "ncurses-bin", "perl",
    "pkg-config", "python3", "python3-dev", "python3-setuptools", "sed",
)  # fmt: skip
"""The host's packages that are in the root, with all that they depend on, and in each jail."""

MESON = ("meson", "ninja-build")
"""What the builds by Meson need besides."""


class Seed(NamedTuple):
    """A build: its name, and what it wants of the root: a path and its package, "" for none.

    `lists` are packages of the seeds that its jail has. If `influences`, the output differs if it is there.
    A build that wants a header and a library is two seeds.
    """

    name: str
    path: str
    package: str
    lists: tuple[str, ...] = ()
    influences: bool = True


_LIB = "/usr/lib/x86_64-linux-gnu"
_PYTHON = "/usr/lib/python3/dist-packages"

SEEDS = (
    Seed("header_only", "/usr/include/seedheader.h", "seed-header"),
    Seed("library_only", f"{_LIB}/libseedlib.so", "seed-library"),
    Seed("header_and_library", "/usr/include/seedboth.h", "seed-both"),
    Seed("header_and_library", f"{_LIB}/libseedboth.so", "seed-both"),
    Seed("pkg_config", f"{_LIB}/pkgconfig/seedpc.pc", "seed-pc"),
    Seed("pkg_config_requires", "/usr/share/pkgconfig/seedinner.pc", "seed-pc-inner", ("seed-pc-outer",)),
    Seed("cmake_config", f"{_LIB}/cmake/SeedCfg", "seed-cmake"),
    Seed("cmake_config_in_share", "/usr/share/SeedShare-1.0", "seed-cmake-share"),
    Seed("cmake_library", f"{_LIB}/libseedcml.so", "seed-cmake-library"),
    Seed("cmake_header", "/usr/include/seedcmh.h", "seed-cmake-header"),
    Seed("cmake_program", "/usr/bin/seedcmp", "seed-cmake-program"),
    Seed("cmake_pkg_config", f"{_LIB}/pkgconfig/seedcmpc.pc", "seed-cmake-pc"),
    Seed("program_by_path", "/usr/bin/seedprog", "seed-program"),
    Seed("program_absolute", "/usr/bin/seedabs", "seed-absolute"),
    Seed("program_by_shebang", "/usr/bin/seedinterpreter", "seed-interpreter"),
    Seed("python_module", f"{_PYTHON}/seedpy", "seed-python"),
    Seed("python_metadata", f"{_PYTHON}/seedmeta-1.0.dist-info", "seed-metadata"),
    Seed("perl_module", "/usr/share/perl5/Seed/Mod.pm", "seed-perl"),
    Seed("aclocal_macro", "/usr/share/aclocal/seed-macro.m4", "seed-macro"),
    Seed("autotools_header", "/usr/include/seedach.h", "seed-autotools-header"),
    Seed("autotools_library", f"{_LIB}/libseedacl.so", "seed-autotools-library"),
    Seed("autotools_program", "/usr/bin/seedacp", "seed-autotools-program"),
    Seed("autotools_pkg_config", f"{_LIB}/pkgconfig/seedacpc.pc", "seed-autotools-pc"),
    Seed("usr_local_header", "/usr/local/include/seedlocal.h", ""),
    Seed("usr_local_program", "/usr/local/bin/seedlocalprog", ""),
    Seed("opt_tree", "/opt/seed/include/seedopt.h", ""),
    Seed("terminfo", "/usr/share/terminfo/s/seedterm", "seed-terminfo"),
    Seed("locale", "/usr/lib/locale/sd_SD.utf8/LC_IDENTIFICATION", "seed-locale"),
    Seed("message_catalog", "/usr/share/locale/sd/LC_MESSAGES/seed.mo", "seed-catalog"),
    Seed("ca_bundle", "/etc/ssl/certs/seed-authorities.crt", "seed-authorities"),
    Seed("data_file", "/usr/share/seeddata/table.txt", "seed-data"),
    Seed("data_by_pattern", "/usr/share/seedglob/second.txt", "seed-pattern", ("seed-pattern-common",)),
    Seed("dlopen_by_path", "/usr/lib/seedplugins/plug.so", "seed-plugin"),
    Seed("dlopen_by_name", f"{_LIB}/libseeddl.so.1", "seed-dlopen"),
    Seed("through_a_link", "/usr/include/seedreal/real.h", "seed-linked", ("seed-link",)),
    Seed("through_a_directory_link", "/usr/lib/seed-1.0/seedver.h", "seed-version", ("seed-current",)),
    Seed(
        "relative_after_chdir", "/usr/share/seedrelative/data.txt", "seed-relative", ("seed-relative-common",)
    ),
    Seed("static_binary", "/usr/share/seedstatic/data.txt", "seed-static"),
    Seed("meson_dependency", f"{_LIB}/pkgconfig/seedmsd.pc", "seed-meson-pc"),
    Seed("meson_library", f"{_LIB}/libseedmsl.so", "seed-meson-library"),
    Seed("meson_program", "/usr/bin/seedmsp", "seed-meson-program"),
    Seed("meson_header", "/usr/include/seedmsh.h", "seed-meson-header"),
    Seed("meson_python", f"{_PYTHON}/seedmspy.py", "seed-meson-python"),
    Seed("make_include", "/usr/share/seedmake/rules.mk", "seed-make"),
    Seed("make_header", "/usr/include/seedmk.h", "seed-make-header"),
    Seed("python_extension", "/usr/include/seedext.h", "seed-extension"),
    Seed("spack_recipe", "/usr/include/seedspack.h", "seed-spack"),
    Seed("decoy_test", "/usr/include/seeddecoy.h", "seed-decoy-test", influences=False),
    Seed("decoy_program", "/usr/bin/seeddecoyprog", "seed-decoy-program", influences=False),
    Seed("decoy_python", f"{_PYTHON}/seeddecoypy.py", "seed-decoy-python", influences=False),
    Seed("decoy_header", "/usr/include/seeddecoyhas.h", "seed-decoy-header", influences=False),
    Seed("decoy_include_directory", "/usr/include/seeddecoydir", "seed-decoy-directory", influences=False),
    Seed("decoy_pkg_config", f"{_LIB}/pkgconfig/seeddecoypc.pc", "seed-decoy-pc", influences=False),
    Seed("decoy_dlopen", f"{_LIB}/libseeddecoy.so.1", "seed-decoy-dlopen", influences=False),
)
