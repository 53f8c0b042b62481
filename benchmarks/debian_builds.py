"""Build Debian's packages in jails of exactly their build dependencies, and outside for comparison.

    mmdebstrap --variant=buildd --include=python3,fakeroot \
        --customize-hook='chroot "$1" apt-get -y --no-install-recommends build-dep hello bc sed' \
        --customize-hook='mkdir "$1/src"; chroot "$1" sh -c "cd /src; apt-get -d source hello bc sed"' \
        --skip=cleanup/apt bookworm ROOT FILE-WITH-DEB-AND-DEB-SRC.sources
    sudo python3 benchmarks/debian_builds.py ROOT [PACKAGE …]

ROOT is the host of all jails: a system with the build dependencies of all packages and their sources in
/src. The program makes it the root of a mount namespace, becomes an ordinary user there, and for each package

- builds it outside of any jail: `dpkg-buildpackage -us -uc -b`, without the package's own tests;
- resolves a whitelist of build-essential, fakeroot and the package's build dependencies, and builds it in
  that jail;
- leaves out each build dependency in turn. If the jail then has fewer packages, `dpkg-checkbuilddeps` in it
  must report that dependency and no other; if it has the same, because another one brings them, it must
  report none.

It prints a line for each package, and ends with status 1 if a jail was not as the outside.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).resolve().parent.parent
USER = 1000
LIBRARY = "/opt/pkgjail"
BUILD = ["dpkg-buildpackage", "-us", "-uc", "-b"]
IMPORTED = ("networkx", "pathspec", "debian", "rich", "pygments", "markdown_it", "mdurl", "argcomplete")
# Dpkg's own parser: arguments in brackets and profiles are decided as dpkg-checkbuilddeps does.
DEPENDENCIES = r"""
use Dpkg::Control::Info; use Dpkg::Deps;
my $source = Dpkg::Control::Info->new("debian/control")->get_source();
for my $field ("Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep") {
    next unless defined $source->{$field};
    my $all = deps_parse($source->{$field}, reduce_restrictions => 1, build_dep => 1);
    print "$_\n" for grep { length } map { $_->output() } $all->get_deps();
}
"""
ENVIRONMENT = {
    "DEB_BUILD_OPTIONS": "nocheck parallel=2",
    "HOME": "/build",
    "LANG": "C.UTF-8",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONPATH": LIBRARY,
    "XDG_CACHE_HOME": "/build/cache",
    "XDG_RUNTIME_DIR": "/dev/shm/builder",  # noqa: S108 - in the root
}


class Result(NamedTuple):
    """What became of one package; times are in seconds."""

    outside: bool
    inside: bool
    seconds: tuple[float, float]
    packages: int
    left_out: int
    found: int
    brought_by_others: int
    faults: tuple[str, ...]


def install(root: Path) -> None:
    """Copy pkgjail and what it imports into the root."""
    library = root / LIBRARY[1:]
    shutil.rmtree(library, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TOP / "pkgjail", library / "pkgjail", ignore=ignore)
    for name in IMPORTED:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(f"cannot find {name}: run this with the development environment's Python")
        shutil.copytree(spec.submodule_search_locations[0], library / name, ignore=ignore)
    subprocess.run(["/bin/chmod", "-R", "a+rX", library], check=True)
    for stale in ("build/in", "build/out"):
        shutil.rmtree(root / stale, ignore_errors=True)
    (root / "build").mkdir(exist_ok=True)
    os.chown(root / "build", USER, USER)
    shutil.copy(__file__, root / "opt/debian_builds.py")


def enter(root: Path, packages: list[str]) -> None:
    """Become an ordinary user in a mount namespace whose root is `root`.

    In a chroot, user namespaces could not be made.
    """
    script = f"""
        set -e
        mount --rbind "$1" "$1"; cd "$1"
        mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev; mount -t tmpfs tmpfs tmp
        chmod 1777 tmp; mount -t tmpfs tmpfs dev/shm; chmod 1777 dev/shm; mkdir -p mnt
        pivot_root . mnt; umount -l /mnt; shift
        exec setpriv --reuid {USER} --regid {USER} --clear-groups \
            /usr/bin/python3 /opt/debian_builds.py --inside "$@"
    """
    arguments = ["sh", "-c", script, "sh", os.fspath(root), *packages]
    os.execve("/usr/bin/unshare", ["unshare", "--mount", "--pid", "--fork", *arguments], ENVIRONMENT)


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command and return its output, both streams together."""
    return subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, stdout=-1, stderr=-2, text=True, errors="replace", check=False
    )


def pkgjail(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run pkgjail."""
    return run([sys.executable, "-m", "pkgjail", *arguments], cwd)


def unpack(package: str, place: str) -> Path:
    """Unpack the source of a package and return its directory."""
    above = Path("/build") / place / package
    above.mkdir(parents=True, exist_ok=True)
    (source,) = [path for path in Path("/src").glob("*.dsc") if path.name.startswith(f"{package}_")]
    made = run(["dpkg-source", "--no-check", "-x", os.fspath(source), os.fspath(above / "source")], above)
    if made.returncode:
        raise SystemExit(f"{package}: {made.stdout}")
    return above / "source"


def resolve(directory: Path, requirements: list[str]) -> tuple[Path, frozenset[str]]:
    """Resolve a whitelist of these requirements; return the manifest and the keys of its packages."""
    whitelist = directory / "w.toml"
    names = ["build-essential", "fakeroot", *requirements]
    whitelist.write_text(f"[packages]\ndebian = {json.dumps(names)}\n", encoding="utf-8")
    manifest = directory / "w.jsonl"
    made = pkgjail("resolve", os.fspath(whitelist), "-o", os.fspath(manifest), "--no-hash", cwd=directory)
    if made.returncode:
        raise SystemExit(f"{requirements}: {made.stdout}")
    records = map(json.loads, manifest.read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    return manifest, frozenset(record["key"] for record in records if record["kind"] == "package")


def in_jail(manifest: Path, source: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command among the sources in the jail; what it builds is left beside these."""
    options = ["--no-network", "--bind", os.fspath(source.parent), "--cwd", "--env", "DEB_BUILD_OPTIONS"]
    return pkgjail("run", *options, os.fspath(manifest), "--", *command, cwd=source)


def try_package(package: str) -> Result:
    """Build a package outside and inside, and leave out each of its build dependencies."""
    source = unpack(package, "out")
    began = time.monotonic()
    outside = run(BUILD, source)
    between = time.monotonic()
    source = unpack(package, "in")
    lists = Path("/build/lists") / package
    lists.mkdir(parents=True, exist_ok=True)
    requirements = run(["perl", "-e", DEPENDENCIES], source).stdout.splitlines()
    manifest, packages = resolve(lists, requirements)
    resolved = time.monotonic()
    inside = in_jail(manifest, source, BUILD)
    seconds = (between - began, time.monotonic() - resolved)
    for name, ran in (("outside", outside), ("inside", inside)):
        (lists / f"{name}.log").write_text(ran.stdout, encoding="utf-8")
    left_out = found = by_others = 0
    faults: list[str] = []
    for each in requirements:
        others = [one for one in requirements if one != each]
        lacking, fewer = resolve(lists, others)
        checked = in_jail(lacking, source, ["dpkg-checkbuilddeps"])
        if fewer == packages:
            by_others += 1
            right = checked.returncode == 0
        else:
            left_out += 1
            message = f"dpkg-checkbuilddeps: error: Unmet build dependencies: {each}\n"
            right = (checked.returncode, checked.stdout) == (1, message)
            found += right
        if not right:
            faults.append(f"without {each}: {checked.returncode}: {checked.stdout.strip()}")
    return Result(
        outside.returncode == 0,
        inside.returncode == 0,
        seconds,
        len(packages),
        left_out,
        found,
        by_others,
        tuple(faults),
    )


def try_all(packages: list[str]) -> int:
    """Try each package and print what became of it; return 1 if a jail was not as the outside."""
    Path(ENVIRONMENT["XDG_RUNTIME_DIR"]).mkdir(mode=0o700)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    chosen = packages or sorted(path.name.partition("_")[0] for path in Path("/src").glob("*.dsc"))
    results = {}
    for package in chosen:
        one = results[package] = try_package(package)
        words = [
            f"{package}: outside {'yes' if one.outside else 'NO'} in {one.seconds[0]:.0f} s",
            f"inside {'yes' if one.inside else 'NO'} in {one.seconds[1]:.0f} s",
            f"{one.packages} packages",
            f"{one.found} of {one.left_out} left out were found, {one.brought_by_others} come by others",
        ]
        print("; ".join(words), *one.faults, sep="\n    ", flush=True)
    passed = [one for one in results.values() if one.outside]
    print(f"{sum(one.inside for one in passed)} of {len(passed)} packages that build outside build inside")
    found, left_out = (
        sum(map(field, results.values())) for field in (lambda r: r.found, lambda r: r.left_out)
    )
    print(f"{found} of {left_out} build dependencies that were left out were found")
    return int(any(one.outside != one.inside or one.faults for one in results.values()))


def main() -> None:
    """Prepare the root and enter it, or try the packages in it."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--inside"]:
        sys.exit(try_all(arguments[1:]))
    if not arguments or arguments[0].startswith("-"):
        sys.exit(__doc__)
    root = Path(arguments[0]).resolve()
    install(root)
    enter(root, arguments[1:])


if __name__ == "__main__":
    main()
