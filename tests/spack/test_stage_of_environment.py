"""Spack's commands in another stage than the default: the environment's, as settings allow it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.forbidden import without_user_namespaces

if TYPE_CHECKING:
    from tests.spack.conftest import Spack

WHERE = "import os; print(os.uname().nodename)"


def test_the_strongest_stage(spack: Spack) -> None:
    """Where user namespaces work, "auto" is the jail, also for the audit; the status shows the stage."""
    spack.build("--stage", "auto")
    assert ", the stage auto, " in spack("jail", "--status").stdout
    for _ in (1, 2):
        assert spack("python", "-c", WHERE).stdout == "pkgjail\n"
    settings = spack.user.home / ".config/pkgjail.toml"
    settings.parent.mkdir()
    spack.user_writes(settings, '[stage]\nallow = ["vm"]\n')
    refused = spack("python", "-c", WHERE)
    assert refused.returncode != 0
    assert f"namespaces: {settings}:2 does not allow it" in refused.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="limits of a user namespace with all ids; CI is root")
def test_where_user_namespaces_are_off(spack: Spack) -> None:
    """The error has the reason, and leads to `pkgjail doctor`; nothing runs outside instead."""
    spack.build("--stage", "auto")
    command = without_user_namespaces([spack.script, "python", "-c", WHERE], spack.user.uid)
    options = spack.user.options(spack.variables())
    for name in ("user", "group", "extra_groups"):
        options.pop(name, None)
    done = subprocess.run(command, check=False, **options)
    assert (done.returncode, done.stdout) == (1, "")
    assert "user.max_user_namespaces is 0" in done.stderr
    assert "'pkgjail doctor'" in done.stderr
