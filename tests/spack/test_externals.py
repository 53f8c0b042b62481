"""External packages in Spack's configuration: whole in the jail, or named with what is lacking."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.integrations.spack.instance.headers import headers_of
from tests.memory import MemoryDatabase, parse_records

if TYPE_CHECKING:
    from tests.spack.conftest import Spack

PACKAGES = """
python3.11-minimal 3.11-6 amd64
 Depends: libpython3.11-minimal (= 3.11-6)
 /usr/bin/python3.11
libpython3.11-minimal 3.11-6 amd64
 /usr/lib/python3.11/os.py
libpython3.11-dev 3.11-6 amd64
 Depends: libpython3.11-minimal (= 3.11-6), libexpat1-dev (>= 1)
 /usr/include/python3.11/Python.h
 /usr/include/python3.11/abstract.h
 /usr/share/doc/libpython3.11-dev/example.h
libexpat1-dev 2.5-1 amd64
 /usr/include/expat.h
unrelated-dev 3.11-6 amd64
 /usr/include/unrelated.h
loose-dev 3.11-6 amd64
 Depends: python3.11-minimal
 /usr/include/loose.h
curl 7.88-10 amd64
 /usr/bin/curl
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(
            b"/usr/bin/python3.11",
            {
                "libpython3.11-dev:amd64": [
                    b"/usr/include/python3.11/Python.h",
                    b"/usr/include/python3.11/abstract.h",
                ]
            },
            id="of the same version, through others; neither others' headers nor documentation",
        ),
        pytest.param(b"/usr/bin/curl", {}, id="none"),
        pytest.param(b"/opt/tool/bin/tool", {}, id="no package"),
    ],
)
def test_headers_come_from_the_same_source(path: bytes, expected: dict[str, list[bytes]]) -> None:
    """Packages with the same version, of which one requires exactly this version of the other."""
    assert headers_of([path], MemoryDatabase(parse_records(PACKAGES))) == expected


def test_an_external_package_without_its_headers_is_named(spack: Spack) -> None:
    """Otherwise a build may go on without a part of itself, end with 0, and have the same hash."""
    (library,) = Path("/usr/lib").glob("*/libz.so.1")
    listed = subprocess.run(["dpkg", "-L", "zlib1g-dev"], capture_output=True, text=True, check=True).stdout
    headers = sorted(line for line in listed.splitlines() if line.endswith(".h"))
    externals = [{"spec": "zlib@1", "prefix": str(library)}]
    spack.configure("packages", json.dumps({"packages": {"tools": {"externals": externals}}}))
    warning = (
        f"==> Warning: external zlib@1 is in the jail without {headers[0]}, which this host has: a build may "
        "go on without the parts that need it; add the package zlib1g-dev to the whitelist"
    )
    assert warnings(spack.build()) == [warning]
    assert warnings(spack("install", "--help")) == [warning]
    assert warnings(spack("install", "--help")) == [warning]
    assert warnings(spack("python", "-c", "")) == []
    assert spack("jail", "--status").stdout.splitlines()[2] == warning.partition("Warning: ")[2]
    binds = [word for header in headers for word in ("--ro-bind", header)]
    assert warnings(spack.build("--force", *binds)) == []


def warnings(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the warnings of external packages; a real Spack also says that it cannot clone its recipes."""
    return [line for line in done.stderr.splitlines() if line.startswith("==> Warning: external ")]


def test_a_local_git_repository_of_recipes_is_readable(spack: Spack) -> None:
    """Spack clones it and updates the clone in the jail; an address for ssh is no path."""
    origin, clone = spack.user.home / "origin", spack.user.home / "clone"
    spack.user.run(["mkdir", str(origin)])
    spack.user_writes(origin / "file", "of origin")
    repositories = {
        "mine": {"git": str(origin), "destination": str(clone)},
        "other": {"git": "git@example.org:recipes.git", "destination": str(clone)},
    }
    spack.configure("repos", json.dumps({"repos": repositories}))
    spack.build()
    code = f"print(open({str(origin / 'file')!r}).read()); _ = open({str(clone / 'made')!r}, 'w')"
    assert spack("python", "-c", code).stdout == "of origin\n"
    assert (clone / "made").exists()
    written = spack("python", "-c", f"open({str(origin / 'made')!r}, 'w')")
    assert "Read-only file system" in written.stderr


def test_a_library_outside_is_named_with_its_package(spack: Spack) -> None:
    """Debian 12 records `/lib/…` for what is in `/usr/lib/…`; no package of the list needs this one."""
    library = min(Path("/usr/lib").glob("*/libfuse3.so.[0-9]"))
    recorded = subprocess.run(["dpkg", "-S", library.name], capture_output=True, text=True, check=True).stdout
    externals = [{"spec": "fuse@3", "prefix": str(library)}]
    spack.configure("packages", json.dumps({"packages": {"tools": {"externals": externals}}}))
    package = recorded.partition(":")[0]
    warning = f"{library} belongs to the package {package}; add that to the whitelist"
    assert warning in spack.build().stderr
