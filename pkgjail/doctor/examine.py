"""Examine a host: what it offers for jails, found by trying, and what to do about what it does not."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.core.errors import SettingsError, UsageError
from pkgjail.core.families import known_family
from pkgjail.core.reporter import SILENT
from pkgjail.doctor.directories import examine_directories
from pkgjail.doctor.kernel import examine_kernel
from pkgjail.doctor.model import DefaultReport, HostReport
from pkgjail.doctor.remedies import Surroundings
from pkgjail.doctor.software import examine_software
from pkgjail.doctor.stages import default_of, examine_stages
from pkgjail.settings.model import Settings
from pkgjail.settings.read import read_settings

if TYPE_CHECKING:
    from pkgjail.core.reporter import Reporter

_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")


def examine_host(reporter: Reporter = SILENT) -> HostReport:
    """Return what this host offers the calling user for jails.

    Each stage is tried with a command that does nothing, in processes that end with it. To each directory
    that pkgjail writes to, a file is written and removed. Nothing else changes. It takes a few seconds, of
    which `reporter` receives the progress.
    """
    kernel = examine_kernel()
    words = _os_release()
    family = next(
        filter(None, map(known_family, (words.get("ID", ""), *words.get("ID_LIKE", "").split()))), ""
    )
    settings, fault = Settings(), ""
    try:
        settings = read_settings()
    except (SettingsError, UsageError) as error:
        fault = str(error)
    stages = examine_stages(settings, Surroundings(container=kernel.container, family=family), reporter)
    default = (
        DefaultReport(stage="", origin="", taken="", fault=fault) if fault else default_of(settings, stages)
    )
    return HostReport(
        system=words.get("PRETTY_NAME", "") or words.get("ID", "") or "an unknown system",
        user=_user(),
        default=default,
        stages=stages,
        kernel=kernel,
        directories=examine_directories(),
        software=examine_software(),
    )


def _os_release() -> dict[str, str]:
    """Return the words of os-release(5); none without that file."""
    for path in _OS_RELEASE:
        with suppress(OSError):
            lines = Path(path).read_text("utf-8", "replace").splitlines()
            pairs = (line.partition("=") for line in lines if "=" in line)
            return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}
    return {}


def _user() -> str:
    number = os.geteuid()
    with suppress(KeyError):
        return f"{pwd.getpwuid(number).pw_name} ({number})"
    return str(number)
