"""The whole way on this very host: what the project promises its users, run as they would run it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import TOP, Caller

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.gate

# A walk of everything that can be seen, by Python itself, inside the jail.
_WALK = """
import os, sys
skip = {b"/proc", b"/sys", b"/dev", b"/tmp", *map(os.fsencode, sys.argv[1:])}
todo, seen = [b"/"], []
while todo:
    directory = todo.pop()
    seen.append(directory)
    if directory in skip or not os.access(directory, os.R_OK | os.X_OK):
        continue
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            todo.append(entry.path)
        else:
            seen.append(entry.path)
sys.stdout.buffer.write(b"\\0".join(sorted(seen)))
"""


@pytest.fixture
def manifest(anyone: Caller) -> Path:
    """`spack` less `docs`, resolved by whoever runs the test."""
    path = anyone.home / "spack.manifest.jsonl"
    made = anyone.pkgjail("resolve", "spack", "--blacklist", "docs", "-o", path, "--no-hash")
    assert made.returncode == 0, made.stderr
    return path


def names_of(manifest: Path) -> set[str]:
    records = map(json.loads, manifest.read_text().splitlines())
    return {record["path"] for record in records if record["kind"] == "file"}


@pytest.mark.parametrize("plan", ["binds", "whole", "mask", "tree"])
def test_the_names_in_the_jail_are_the_manifests(anyone: Caller, manifest: Path, plan: str) -> None:
    """Exactness: 0 too many, 0 missing."""
    walked = anyone.pkgjail("run", "--strategy", plan, manifest, "--", "python3", "-c", _WALK)
    assert walked.returncode == 0, walked.stderr
    seen, listed = set(walked.stdout.split("\0")), names_of(manifest)
    assert seen - listed - {"/proc", "/sys", "/dev", "/tmp"} == set()
    assert listed - seen == set()


@pytest.mark.parametrize(
    "script",
    [
        "cc --version",
        "c++ --version",
        "gfortran --version",
        "awk 'BEGIN { exit 0 }'",
        "make --version",
        "perl -MPOSIX -e 'exit 0'",
        "python3 -c \"import ssl; assert ssl.create_default_context().cert_store_stats()['x509_ca']\"",
        "git --version",
        "curl --version",
        "tar --version && gzip --version && bzip2 --help && xz --version && zstd --version && unzip -v",
        "file /usr/bin/file && lsb_release -a && gpg --version && patch --version",
        "which cc && test $(whoami) = $(id -un)",
        "ldconfig -p | grep -q libc.so.6",
    ],
)
def test_the_tools_of_the_whitelist_run(user: Caller, script: str) -> None:
    ran = user.pkgjail("run", "spack", "--", "sh", "-ec", script)
    assert ran.returncode == 0, ran.stderr


def test_what_is_not_in_the_manifest_is_not_found(anyone: Caller, manifest: Path) -> None:
    """Not EACCES, on which a build that found the name would break."""
    hidden = [
        path for path in ("/etc/shadow", "/usr/bin/bwrap", "/usr/include/zlib.h") if os.path.exists(path)
    ]
    assert hidden
    assert not names_of(manifest) & set(hidden)
    for path in hidden:
        script = f"import os\ntry: os.stat({path!r})\nexcept FileNotFoundError: raise SystemExit(42)"
        ran = anyone.pkgjail("run", manifest, "--", "python3", "-c", script)
        assert ran.returncode == 42, (path, ran.stderr)


_CONFIGURE = """\
echo '#include <zlib.h>
int main(void) { return zlibVersion() == 0; }' > conftest.c
if cc conftest.c -lz -o conftest 2>/dev/null && ./conftest; then echo zlib: yes; else echo zlib: no; fi
"""


@pytest.mark.parametrize(("extra", "answer"), [("", "no"), ('"zlib1g-dev"', "yes")])
def test_configure_finds_what_is_whitelisted(user: Caller, extra: str, answer: str) -> None:
    """The paper's problem: the host has zlib.h, and only a whitelist that names it may show it."""
    (user.home / "site.toml").write_text(f'include = ["spack"]\n[packages]\ndebian = [{extra}]\n')
    (user.home / "work").mkdir()
    (user.home / "work").chmod(0o777)
    (user.home / "work" / "configure").write_text(_CONFIGURE)
    ran = user.pkgjail("run", "--cwd", "../site.toml", "--", "sh", "configure", cwd=user.home / "work")
    assert (ran.returncode, ran.stdout) == (0, f"zlib: {answer}\n"), ran.stderr


def test_a_compiled_program_is_left_in_the_bound_directory(anyone: Caller, manifest: Path) -> None:
    shutil.copy(TOP / "examples" / "hello.c", anyone.home)
    built = anyone.pkgjail("run", "--cwd", manifest, "--", "gcc", "-o", "hello", "hello.c")
    assert built.returncode == 0, built.stderr
    assert (anyone.home / "hello").stat().st_uid == anyone.uid
    ran = anyone.run([anyone.home / "hello"])
    assert ran.stdout == "C: hello from the jail\n"


def test_the_same_packages_give_the_same_bytes(caller: Caller, user: Caller) -> None:
    """Whatever directory, user, locale, umask, time zone and backend."""
    variants = [
        (caller, "apt", {"LC_ALL": "C", "TZ": "UTC"}, 0o022),
        (caller, "dpkg", {"LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"}, 0o077),
        (user, "apt", {"LC_ALL": "tr_TR.UTF-8", "TZ": "America/St_Johns"}, 0o077),
        (user, "dpkg", {"LC_ALL": "C", "LANG": "", "PYTHONHASHSEED": "1"}, 0o022),
    ]
    results = []
    for number, (who, backend, environment, umask) in enumerate(variants):
        place = who.home / f"directory {number}"
        place.mkdir()
        place.chmod(0o777)
        made = who.pkgjail(
            *("resolve", "spack", "--blacklist", "docs", "-o", "out.jsonl", "--backend", backend),
            environment=environment,
            cwd=place,
            umask=umask,
        )
        assert made.returncode == 0, made.stderr
        results.append((place / "out.jsonl").read_bytes())
    assert results[1:] == results[:1] * 3


def _installed_closure(*names: str) -> list[str]:
    """Return the packages and what they depend on, as dpkg says: of each or-group the first."""
    found: list[str] = []
    wanted = list(names)
    while wanted:
        name = wanted.pop()
        command = ["dpkg-query", "-W", "-f", "${Pre-Depends},${Depends}", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(name)
        groups = re.findall(r"(?:^|,)\s*([a-z0-9][a-z0-9+.-]*)", done.stdout)
        wanted += [each for each in groups if each not in found and each not in wanted]
    return sorted(found)


def make_root(root: Path) -> None:
    """A small root of real packages: their files, their dpkg records, nothing else."""
    packages = ["base-files", "dash", *_installed_closure("coreutils")]
    listed = subprocess.run(["dpkg", "-L", *packages], capture_output=True, text=True, check=True).stdout
    for link in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / link).mkdir(parents=True)
        (root / link).symlink_to(f"usr/{link}")
    for name in sorted({line for line in listed.splitlines() if line.startswith("/")}):
        place = root / name.lstrip("/")
        if os.path.isdir(name):
            place.mkdir(parents=True, exist_ok=True)
        elif not os.path.lexists(place) and os.path.lexists(name):
            shutil.copy2(name, place, follow_symlinks=False)
    records = root / "var/lib/dpkg"
    (records / "info").mkdir(parents=True)
    status = subprocess.run(["dpkg", "-s", *packages], capture_output=True, check=True).stdout
    (records / "status").write_bytes(status.rstrip(b"\n") + b"\n\n")
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    )
    (records / "arch").write_text(architecture.stdout)
    suffixes = (".list", f":{architecture.stdout.strip()}.list")
    for name in ("format", *(name + suffix for name in packages for suffix in suffixes)):
        if os.path.exists(f"/var/lib/dpkg/info/{name}"):
            shutil.copy(f"/var/lib/dpkg/info/{name}", records / "info")


def test_another_root_is_resolved_and_entered(user: Caller) -> None:
    """`--root` reads that root's database and files, and `run` shows them, not the host's."""
    root = user.home / "root"
    make_root(root)
    (user.home / "list.toml").write_text('[packages]\ndebian = ["dash", "coreutils"]\n')
    subprocess.run(["chmod", "-R", "a+rX", user.home], check=True)
    options = ("--root", root, "--allow-unmet", "--no-essential")
    made = user.pkgjail("resolve", "./list.toml", *options, "-o", user.home / "other.jsonl")
    assert made.returncode == 0, made.stderr
    ran = user.pkgjail("run", "--root", root, "other.jsonl", "--", "sh", "-c", "ls /etc; ls /")
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.split()) >= {"passwd", "usr", "bin"}
    assert "/etc/os-release" in names_of(user.home / "other.jsonl") or "base-files" not in made.stderr
