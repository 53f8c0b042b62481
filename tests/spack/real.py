"""Real Spacks, by PKGJAIL_SPACK_ROOT and PKGJAIL_SPACK_PACKAGES. This module needs only the standard library.

PKGJAIL_SPACK_ROOT names one or more Spacks, separated by `:`. They are copied, never changed. Their own
configuration (`etc/spack`) applies, which may name a mirror of sources. PKGJAIL_SPACK_PACKAGES names a clone
of the recipes, which Spack 1.0 and newer do not include.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple

from tests.spack.interpreter import SYSTEM_PYTHON, TOP, declared_project, make_python

ROOTS = tuple(map(Path, filter(None, os.environ.get("PKGJAIL_SPACK_ROOT", "").split(":"))))
PACKAGES = os.environ.get("PKGJAIL_SPACK_PACKAGES", "")

# A configure script that uses zlib if the compiler finds it.
CONFIGURE = """\
#!/bin/sh
for argument; do case $argument in --prefix=*) prefix=${argument#--prefix=};; esac; done
printf '#include <zlib.h>\\nint main(void) { return zlibVersion() == 0; }\\n' > conftest.c
flags=
${CC:-cc} conftest.c -lz -o conftest 2> config.log && flags="-DHAVE_ZLIB -lz"
cat > Makefile <<END
all: hello-z
hello-z: hello-z.c
\t${CC:-cc} -o hello-z hello-z.c $flags
check: hello-z
\t./hello-z
install: hello-z
\tmkdir -p $prefix/bin && cp hello-z $prefix/bin
END
"""
PROGRAM = """\
#include <stdio.h>
#ifdef HAVE_ZLIB
#include <zlib.h>
#else
#define zlibVersion() "none"
#endif
int main(void) { printf("zlib: %s\\n", zlibVersion()); return 0; }
"""
RECIPE = '''\
IMPORTSfrom spack.package import *


class HelloZ(AutotoolsPackage):
    """A program whose configure script looks for zlib; the recipe does not say so."""

    homepage = "https://example.org/hello-z"
    url = "file://SOURCES/hello-z-1.0.tar.gz"

    version("1.1", sha256="SHA-1.1")
    version("1.0", sha256="SHA-1.0", preferred=True)

    variant("extra", default=False, description="Nothing")

    depends_on("c", type="build")

    def test_hello(self):
        """Run the program."""
        Executable(self.prefix.bin.join("hello-z"))()
'''
MANIFEST = {"configure": (CONFIGURE, 0o755), "hello-z.c": (PROGRAM, 0o644)}
MPI_PROGRAM = """\
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    printf("rank %d\\n", rank);
    return MPI_Finalize();
}
"""
MPI_RECIPE = '''\
IMPORTSfrom spack.package import *


class HelloMpi(Package):
    """A program of MPI."""

    homepage = "https://example.org/hello-mpi"
    url = "file://SOURCES/hello-mpi-1.0.tar.gz"

    version("1.0", sha256="SHA-1.0")

    depends_on("c", type="build")
    depends_on("mpi")

    def install(self, spec, prefix):
        mkdirp(prefix.bin)
        Executable(spec["mpi"].mpicc)("hello-mpi.c", "-o", join_path(prefix.bin, "hello-mpi"))
'''


class Version(NamedTuple):
    """The version of a Spack."""

    text: str
    numbers: tuple[int, int]

    @property
    def has_recipes(self) -> bool:
        """Whether Spack includes the recipes."""
        return self.numbers < (1, 0)


def version_of(root: Path) -> Version:
    """Return the version of the Spack in `root`."""
    text = (root / "lib" / "spack" / "spack" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "((\d+)\.(\d+)[^"]*)"', text, re.MULTILINE)
    assert found, f"{root} is not a Spack"
    return Version(found[1], (int(found[2]), int(found[3])))


def copy_spack(source: Path, root: Path) -> Version:
    """Copy a Spack, and name the recipes in its configuration if it does not include them."""
    shutil.copytree(source, root, symlinks=True)
    shutil.rmtree(root / "opt", ignore_errors=True)
    version = version_of(root)
    if not version.has_recipes and PACKAGES:
        write_repositories(root, version, [])
    return version


def write_repositories(root: Path, version: Version, more: list[Path]) -> None:
    """Write `repos.yaml`: these repositories, and that of all recipes."""
    if version.has_recipes:
        lines = [*(f"- {path}" for path in more), "- $spack/var/spack/repos/builtin"]
    else:
        builtin = Path(PACKAGES) / "repos" / "spack_repo" / "builtin"
        lines = [*(f"{path.name}: {path}" for path in more), f"builtin: {builtin}"]
    text = "repos::\n" + "".join(f"  {line}\n" for line in lines)
    (root / "etc" / "spack" / "repos.yaml").write_text(text, encoding="utf-8")


def make_hello_z(directory: Path, version: Version) -> Path:
    """Write the sources and the recipe of hello-z; return the repository."""
    digests = {
        number: _write_sources(
            directory,
            f"hello-z-{number}",
            {
                name: (f"{text}/* {number} */\n" if name.endswith(".c") else text, mode)
                for name, (text, mode) in MANIFEST.items()
            },
        )
        for number in ("1.0", "1.1")
    }
    return _write_recipe(directory, version, "hello-z", RECIPE, digests)


def make_hello_mpi(directory: Path, version: Version) -> Path:
    """Write the source and the recipe of hello-mpi; return the repository, which hello-z may be in too."""
    digest = _write_sources(directory, "hello-mpi-1.0", {"hello-mpi.c": (MPI_PROGRAM, 0o644)})
    return _write_recipe(directory, version, "hello-mpi", MPI_RECIPE, {"1.0": digest})


def _write_recipe(directory: Path, version: Version, name: str, recipe: str, digests: dict[str, str]) -> Path:
    """Write a recipe into the repository `local`; return the repository."""
    new = not version.has_recipes
    repository = directory / "repo" / "spack_repo" / "local" if new else directory / "repo"
    package = repository / "packages" / (name.replace("-", "_") if new else name)
    package.mkdir(parents=True)
    more = "  api: v2.0\n" if new else ""
    (repository / "repo.yaml").write_text(f"repo:\n  namespace: local\n{more}", encoding="utf-8")
    base = "AutotoolsPackage" if "(AutotoolsPackage)" in recipe else "Package"
    system = {"AutotoolsPackage": "autotools", "Package": "generic"}[base]
    imports = f"from spack_repo.builtin.build_systems.{system} import {base}\n\n" if new else ""
    text = recipe.replace("IMPORTS", imports).replace("SOURCES", str(directory))
    for number, digest in digests.items():
        text = text.replace(f"SHA-{number}", digest)
    (package / "package.py").write_text(text, encoding="utf-8")
    return repository


def _write_sources(directory: Path, name: str, files: dict[str, tuple[str, int]]) -> str:
    """Write an archive of files with these texts and modes, the same bytes each time; return its SHA-256."""
    content = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=content, mode="wb", mtime=0, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for file, (text, mode) in files.items():
            member = tarfile.TarInfo(f"{name}/{file}")
            member.size, member.mode = len(text.encode()), mode
            archive.addfile(member, io.BytesIO(text.encode()))
    (directory / f"{name}.tar.gz").write_bytes(content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


def make_pythons(directory: Path) -> tuple[Path, Path]:
    """Make two interpreters with clingo, from the package index: one with pkgjail, and one without."""
    pkgjail, plain = (directory / name / "bin" / "python" for name in ("python", "plain"))
    if pkgjail.exists() and plain.exists():
        return pkgjail, plain
    make_python(directory / "python", TOP)
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", directory / "plain"], check=True)
    for python, packages in (
        (pkgjail, ("clingo", *declared_project()["dependencies"])),
        (plain, ("clingo",)),
    ):
        subprocess.run([python, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return pkgjail, plain
