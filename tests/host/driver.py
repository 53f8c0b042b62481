"""Run on a Debian of its own, as root: apply each change, and enter by each way as each user.

Prints a JSON object a line: the change's number, whether it was "done" or "undone", the user, the way, the
status and the message.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.host.changes import CHANGES
from tests.spack.interpreter import make_python
from tests.spack.standin import make_standin

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = "/usr/bin/python3"
_PACKAGE = (
    "Package: {0}\nVersion: {1}\nArchitecture: all\nMaintainer: Nobody <n@example.org>\nDescription: {0}\n"
)


def make_package(name: str, version: str, content: str, files: int = 0) -> None:
    """Build /root/NAME_VERSION.deb; all versions of one package have files of equal size and times."""
    top = Path("/root/build")
    shutil.rmtree(top, ignore_errors=True)
    for directory in ("DEBIAN", "usr/bin", f"usr/lib/{name}", "etc"):
        (top / directory).mkdir(parents=True)
    (top / "DEBIAN/control").write_text(_PACKAGE.format(name, version))
    (top / "DEBIAN/conffiles").write_text(f"/etc/{name}.conf\n")
    (top / f"usr/bin/{name}").write_text(f"#!/bin/sh\necho {content}\n")
    (top / f"usr/bin/{name}").chmod(0o755)
    (top / f"usr/lib/{name}/data").write_text("a" * 1000)
    (top / f"usr/lib/{name}/link").symlink_to("data")
    (top / f"etc/{name}.conf").write_text("on\n")
    for number in range(files):
        (top / f"usr/bin/{name}-{number}").write_text("")
    for path in (top, *top.rglob("*")):
        if not path.is_symlink():
            os.utime(path, (1_600_000_000, 1_600_000_000))
    shell(f"dpkg-deb --root-owner-group -b {top} /root/{name}_{version}.deb")


def shell(script: str) -> None:
    """Run a script of the host's; what it prints is shown if it fails."""
    done = subprocess.run(["/bin/sh", "-ec", script], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{script}: {done.stdout}{done.stderr}")


class Who:
    """A user of the host's, with a Spack and an environment of each kind."""

    def __init__(self, name: str, uid: int, library: str, entry_points: dict[str, list[str]]) -> None:
        self.name = name
        self.uid = uid
        self.home = Path("/root" if uid == 0 else f"/home/{name}")
        make_standin(self.home / "spack")
        self.python = make_python(self.home / "python", Path(library), entry_points)
        shell(f"chown -R {uid}:{uid} {self.home}")
        self.variables = {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": library,
            "SPACK_PYTHON": str(self.python),
            "SPACK_USER_CONFIG_PATH": f"{self.home}/config",
            "SPACK_USER_CACHE_PATH": f"{self.home}/cache",
            "XDG_RUNTIME_DIR": f"/run/user/{uid}",
        }
        Path(f"/run/user/{uid}").mkdir(mode=0o700, parents=True)
        os.chown(f"/run/user/{uid}", uid, uid)

    def do(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as this user."""
        return subprocess.run(
            command,
            user=self.uid,
            group=self.uid,
            extra_groups=[],
            env=self.variables,
            cwd=self.home,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
        )

    def set_up(self) -> None:
        """Build the environments."""
        spack = f"{self.home}/spack/bin/spack"
        for command in (
            [PYTHON, "-m", "pkgjail", "build", "/site/m.jsonl", f"{self.home}/env"],
            [spack, "jail", "--build-environment", f"{self.home}/spackenv", "--whitelist", "/site/site.toml"],
        ):
            done = self.do(*command)
            if done.returncode:
                sys.exit(f"{command}: {done.stdout}{done.stderr}")

    def ways(self) -> Iterator[tuple[str, list[str]]]:
        """Each way into a jail, by a command that does nothing."""
        pkgjail = [PYTHON, "-m", "pkgjail"]
        yield "manifest", [*pkgjail, "run", "/site/m.jsonl", "--", "true"]
        yield "environment", [*pkgjail, "enter", f"{self.home}/env", "--", "true"]
        yield "spack", [f"{self.home}/spack/bin/spack", "python", "-c", "pass"]


def enter_all(users: list[Who], number: int, state: str) -> None:
    """Enter by all ways as all users, and print what came of it."""
    for who in users:
        for way, command in who.ways():
            done = who.do(*command)
            row = {"number": number, "state": state, "user": who.name, "way": way}
            print(json.dumps({**row, "status": done.returncode, "message": done.stderr}), flush=True)


def main() -> None:
    """Make the packages, users and environments; then go through the changes."""
    library, entry_points = sys.argv[1], json.loads(sys.argv[2])
    for name, version, content, files in (
        ("listed", "1", "one", 0),
        ("listed", "2", "two", 0),
        ("plain", "1", "one", 0),
        ("plain", "2", "two", 0),
        ("extra", "1", "one", 0),
        ("many", "1", "one", 500),
    ):
        make_package(name, version, content, files)
    shell("dpkg -i /root/listed_1.deb /root/plain_1.deb; touch /etc/resolv.conf")
    shell("useradd -m -u 1000 alice; useradd -m -u 1001 bob")
    Path("/site").mkdir()
    Path("/site/site.toml").write_text('include = ["base"]\n[packages]\ndebian = ["listed", "python3"]\n')
    accounts = {"root": 0, "alice": 1000, "bob": 1001}
    users = [Who(name, uid, library, entry_points) for name, uid in accounts.items()]
    done = users[0].do(PYTHON, "-m", "pkgjail", "resolve", "/site/site.toml", "-o", "/site/m.jsonl")
    if done.returncode:
        sys.exit(done.stderr)
    for who in users:
        who.set_up()
    for _ in range(2):  # so that each way has a jail that is kept
        enter_all(users, -1, "undone")
    for number, change in enumerate(CHANGES):
        shell(change.do)
        enter_all(users, number, "done")
        shell(change.undo)
        enter_all(users, number, "undone")


if __name__ == "__main__":
    main()
