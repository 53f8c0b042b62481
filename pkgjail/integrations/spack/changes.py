"""Warn of files of a Spack's environment that changed on the host while a command ran."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.cli.console import ConsoleReporter
from pkgjail.core.errors import PkgjailError
from pkgjail.environments.enter import report_environment_changes

if TYPE_CHECKING:
    from pkgjail.integrations.spack.state import State


def warn_of_changes(state: State, status: int) -> None:
    """Warn of files of the environment that changed on the host while a command ran."""
    reporter = ConsoleReporter()
    try:
        report_environment_changes(os.fsencode(state.environment), status, strict=False, reporter=reporter)
    except (PkgjailError, OSError) as error:
        reporter.warn(f"cannot say whether the host changed while the command ran: {error}")
