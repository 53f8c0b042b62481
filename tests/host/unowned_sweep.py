# ruff: noqa: E501 - tables
"""Find the files that no package lists and that maintainer scripts made, and whether pkgjail takes them.

Run it as root in a Debian of its own, which it fills with packages (`unshare -m`, `pivot_root`, /proc and /dev
mounted), with this repository in PYTHONPATH:

    python3 -m tests.host.unowned_sweep install FOUND.jsonl PACKAGE...   # or: --most-used 150
    python3 -m tests.host.unowned_sweep report FOUND.jsonl

`install` installs one package after another, each with what it requires and nothing that it recommends, and
writes for each the unowned files that were not there before. An argument may name several packages.
`--most-used` reads apt's lists of sources (deb-src).

`report` resolves a whitelist of all packages that the root has, and prints how many of the unowned files are
in the set, and by which source; how many are left out, and why; and each file that is neither, with status 1.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TOPS = ("/etc", "/opt", "/usr", "/var")
_INFO = Path("/var/lib/dpkg/info")
_FIELD = re.compile(r"^Build-Depends(?:-Indep|-Arch)?: (.*(?:\n .*)*)", re.MULTILINE)
_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]+")

# What is left out -> why. docs/backends.md has the same table in words.
LEFT_OUT = {
    r"/etc/(?:passwd|shadow|group|gshadow|subuid|subgid)-?": "accounts of the system: the jail has its own",
    r"/etc/(?:machine-id|mtab|hostname|hosts|resolv\.conf|adjtime|\.pwd\.lock|ld\.so\.cache)": "state of the system",
    r"/var/lib/(?:dbus/machine-id|systemd/.*|ucf/.*|dictionaries-common/.*)": "state of the system, or of programs that install",
    r"/etc/(?:rc[0-9S]\.d|systemd/(?:system|user))/.*": "which services start: a jail has none",
    r"/etc/(?:pam\.d/common-.*|environment|default/.*|apt/.*|shells|inputrc|nanorc)": "settings of log-ins and services",
    r"/etc/\.java/.*": "the system's preferences of Java: empty, with a lock",
    r"/var/(?:log|spool|mail|backups|run)/.*|.*\.log(?:\.gz)?|.*/Install\.log\.gz": "logs",
    r".*(?:\.(?:old|bak|lock)|\.dpkg-[a-z]+|\.ucf-[a-z]+|~)": "backups and locks",
    r"/var/cache/.*": "caches, which programs do without",
    r".*/icon-theme\.cache|/usr/share/icons/.*\.cache": "caches of icons, which name those of the whole host",
    r"/etc/(?:apparmor\.d/local|lighttpd/conf-enabled)/.*": "settings of services",
    r"/var/lib/man-db/.*|.*/elpa/[^/]+/(?:dir|[^/]+\.info)": "indexes of documentation",
    r"/usr/share/emacs/site-lisp/dictionaries-common/(?:\.nosearch|done)": "marks of what was compiled",
    r"/usr/share/(?:info/dir|man/.*|doc/.*|doc-base/.*)|/var/lib/doc-base/.*": "indexes of documentation",
    r"/usr/share/mime/[a-z-]+/.*\.xml": "descriptions of types; what programs look up is in mime.cache",
    r"/var/lib/(?:php/modules|libxml-sax-perl|xml-core|emacsen-common|xfonts|binfmts|aspell|ispell|polkit-1)/.*": (
        "records of what is to be generated; what was is in"
    ),
    r"/usr/share/binfmts/.*": "the kernel's table of interpreters",
    r"/usr/share/fonts/X11/.*": "lists of fonts for X servers",
    r"/usr/lib/mono/aot-cache/.*": "compiled forms of Mono's programs, for speed",
    r".*/__pycache__/.*": "byte code of modules that the set lacks, or of another Python",
}


def most_used(count: int) -> list[str]:
    """Return the packages that most sources of apt's lists build-depend on; of a group, the first."""
    found: Counter[str] = Counter()
    for path in sorted(Path("/var/lib/apt/lists").glob("*_Sources")):
        for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
            groups = ",".join(field[1] for field in _FIELD.finditer(paragraph)).replace("\n", "").split(",")
            found.update({match[0] for group in groups if (match := _NAME.match(group.strip()))})
    return [name for name, _ in found.most_common(count)]


def listed() -> set[str]:
    """Return the real paths of everything that dpkg has in its lists, and of diverted files."""
    links = {os.path.join("/", name): os.path.realpath("/" + name) for name in os.listdir("/")}
    moved = {old: new for old, new in links.items() if old != new and os.path.islink(old)}
    paths: set[str] = set()
    for file in _INFO.glob("*.list"):
        for line in os.fsdecode(file.read_bytes()).split("\n"):
            top = "/" + line[1:].partition("/")[0]
            paths.add(moved.get(top, top) + line[len(top) :])
    diversions = Path("/var/lib/dpkg/diversions")
    if diversions.exists():
        paths.update(os.fsdecode(diversions.read_bytes()).split("\n"))
    # A link above a file: dpkg lists it by the link's name.
    parents = {path: os.path.realpath(path) for path in {path.rpartition("/")[0] for path in paths}}
    paths.update(parents[path.rpartition("/")[0]] + "/" + path.rpartition("/")[2] for path in set(paths))
    return paths


def unowned(skipped: Sequence[str] = ("/var/lib/dpkg", "/var/cache/apt", "/var/lib/apt")) -> set[str]:
    """Return all files and links below the top directories that no package lists."""
    owned = listed()
    return {
        path
        for top in _TOPS
        for path in _walk(top)
        if path not in owned and not path.startswith(tuple(skipped))
    }


def _walk(top: str) -> Iterator[str]:
    for directory, directories, names in os.walk(top):
        yield from (f"{directory}/{name}" for name in names)
        yield from (f"{directory}/{name}" for name in directories if os.path.islink(f"{directory}/{name}"))


def installed() -> set[str]:
    """Return the names of all packages that are installed."""
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\\n"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {line.split()[1] for line in shown.stdout.splitlines() if line.startswith("installed ")}


def install(out: Path, packages: Sequence[str]) -> None:
    """Install each package, and write what it left that no package lists."""
    command = ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=600", "--no-install-recommends"]
    command += ["-o", "Dpkg::Options::=--force-unsafe-io"]
    packages_before, files_before = installed(), unowned()
    with out.open("a", encoding="utf-8") as file:
        for package in packages:
            ran = subprocess.run(
                [*command, "install", *package.split()],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            subprocess.run(["apt-get", "clean"], check=True)
            packages_after, files_after = installed(), unowned()
            row: dict[str, object] = {
                "package": package,
                "status": ran.returncode,
                "installed": sorted(packages_after - packages_before),
                "unowned": sorted(map(ascii, files_after - files_before)),
            }
            if ran.returncode:
                row["error"] = ran.stdout[-500:].decode(errors="replace")
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(package, ran.returncode, len(files_after - files_before), flush=True)  # noqa: T201
            packages_before, files_before = packages_after, files_after


def report(out: Path) -> int:
    """Print which of the unowned files that `install` found are in the set of all packages; 1 if any is open."""
    found = {
        ast.literal_eval(path)
        for line in out.read_text().splitlines()
        for path in json.loads(line)["unowned"]
    }
    Path("/root/all.toml").write_text(
        f"[packages]\ndebian = {json.dumps(sorted(installed()))}\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "pkgjail", "resolve", "--no-hash", "/root/all.toml"]
    manifest = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()
    files = {row["path"]: row for row in map(json.loads, manifest) if row["kind"] == "file"}
    there = {path for path in found if os.path.lexists(path)} & unowned()
    sources: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    unexplained = []
    for path in sorted(there):
        row = files.get(path)
        reason = next(
            (why for pattern, why in LEFT_OUT.items() if re.fullmatch(pattern, path, re.DOTALL)), ""
        )
        if row is not None:
            detail = row.get("detail", "") if row["origin"] == "generated" else ""
            sources[f"{row['origin']} {detail}"] += 1
        elif reason:
            reasons[reason] += 1
        else:
            unexplained.append(path)
    for title, counts in (("in the set", sources), ("left out", reasons)):
        print(f"{sum(counts.values())} {title}")  # noqa: T201
        for name, count in counts.most_common():
            print(f"    {count:5} {name}")  # noqa: T201
    print(f"{len(unexplained)} neither", *map(ascii, unexplained), sep="\n    ")  # noqa: T201
    return bool(unexplained)


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say, and return the exit status."""
    verb, out, *packages = arguments
    if packages[:1] == ["--most-used"]:
        packages = most_used(int(packages[1])) + packages[2:]
    if verb == "report":
        return report(Path(out))
    install(Path(out), packages)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
