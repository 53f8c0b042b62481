"""Enter the environment of a Spack: its own directories and variables come along."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pkgjail.environments.again import enter_again
from pkgjail.environments.directory import read_head
from pkgjail.environments.isolation import VARIABLE
from pkgjail.model import JailOptions
from pkgjail.spack.instance import binds_of, make_directories, shows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.spack.instance import Instance
    from pkgjail.spack.state import State

# What Spack reads besides its own: where the home is that `~` in its configuration means, where temporary
# files lie, and how the network is reached.
_PASSED = (
    "HOME", "TMPDIR", "COLORTERM", "NO_COLOR", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE",
    "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY",
)  # fmt: skip


def enter(state: State, instance: Instance, argv: Sequence[str]) -> int:
    """Run `argv` in the environment, with what `instance` needs; its exit status.

    Where the command has a terminal on all three of its descriptors it gets one of its own inside.

    Raises:
        PkgjailError, OSError: as `enter_again`.

    """
    make_directories(instance)
    binds = binds_of(instance, [state.place])
    directory = os.fsencode(state.environment)
    here = os.getcwdb()
    shown = shows((*read_head(directory).binds, *binds), here)
    options = JailOptions(
        binds=binds,
        cwd=here if shown else b"/",
        environment=variables_inside(os.environ, state, instance),
    )
    terminal = all(os.isatty(number) for number in (0, 1, 2))
    sys.stdout.flush()
    sys.stderr.flush()
    return enter_again(directory, argv, options, terminal=terminal)


def variables_inside(variables: Mapping[str, str], state: State, instance: Instance) -> dict[str, str]:
    """What of the caller's variables is seen inside: Spack's own, and a few that it reads."""
    passed = {
        name: value for name, value in variables.items() if name.startswith("SPACK_") or name in _PASSED
    }
    return {**passed, "SPACK_PYTHON": instance.python, VARIABLE: state.environment}
