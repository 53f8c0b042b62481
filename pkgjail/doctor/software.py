"""The package database of this host, the Python that runs, and Spack if it is there."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from pkgjail.api import available
from pkgjail.doctor.model import Finding, SoftwareReport

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 20
_VERSION = re.compile(r"[0-9]+\.[0-9]+[^\s]*")


def examine_software() -> tuple[SoftwareReport, ...]:
    """Look at what jails are resolved with, and at what uses them."""
    return (_python(), _database(), *_spack())


def _python() -> SoftwareReport:
    return SoftwareReport(
        role="Python", found=f"{platform.python_version()}, {os.path.realpath(sys.executable)}"
    )


def _database() -> SoftwareReport:
    """Return which package database is read here."""
    statuses = available()
    usable = [status for status in statuses if status.usable]
    if usable:
        return SoftwareReport(role="package database", found=f"{usable[0].name}: {usable[0].reason}")
    rows = "; ".join(f"{status.name}: {status.reason}" for status in statuses)
    what = f"no package database can be read here, so whitelists cannot be resolved ({rows})"
    return SoftwareReport(role="package database", found="", findings=(Finding(what=what, serious=False),))


def _spack() -> Iterator[SoftwareReport]:
    """Yield the Spack of SPACK_ROOT, or else that in PATH, if there is one."""
    root = os.environ.get("SPACK_ROOT", "")
    own = os.path.join(root, "bin", "spack")
    program = own if root and os.path.isfile(own) else shutil.which("spack")
    if program is None:
        return
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
        version = _VERSION.search(done.stdout)
        if done.returncode == 0 and version:
            yield SoftwareReport(role="Spack", found=f"{version[0]}, {program}")
            return
    finding = Finding(what=f"{program} does not say its version: '{program} --version' fails", serious=False)
    yield SoftwareReport(role="Spack", found=program, findings=(finding,))
