"""The library's messages in the words of the command line, and the exit statuses of its errors."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from pkgjail.cli.exit_status import exit_status
from pkgjail.cli.flags import FLAGS, with_flags
from pkgjail.core import errors
from pkgjail.core.parameters import Parameter, parameter
from tests.test_layout import FILES


def test_every_parameter_has_a_flag() -> None:
    assert set(FLAGS) == set(get_args(Parameter))


def test_messages_name_flags_instead_of_parameters() -> None:
    message = f"cannot do it; use {parameter('at')}, or {parameter('allow_drift=True')}; `other` stays"
    assert with_flags(message) == "cannot do it; use --at, or '--allow-drift'; `other` stays"


# What is not pkgjail's command line: other programs' flags, and two texts for people who have nothing else.
_OTHERS = re.compile(
    r"systemd-run|dpkg|apt-get|pacman|rpmdb|podman|sqfs2tar|runc|engines|Written by pkgjail|"
    "pkgjail diff --all"
)


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith(("cli/", "integrations/"))])
def test_the_library_names_no_flag(name: str) -> None:
    """Protects callers of the library from advice that only the command line can follow."""
    flags = "|".join(re.escape(flag.strip("'")) for flag in FLAGS.values() if "--" in flag)
    lines = FILES[name].read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.search(rf"(?:{flags})\b", line) and not _OTHERS.search(line)] == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.PkgjailError(""), 1),
        (errors.ManifestError([]), 2),
        (errors.ClosureError([]), 1),
        (errors.UsageError(""), 2),
        (errors.OutputError(""), 1),
        (errors.QuestionError(""), 2),
        (errors.DatabaseError(""), 3),
        (errors.DriftError(()), 3),
        (errors.CommandError("", 126), 126),
        (errors.OutOfMemoryError(), 137),
        (OSError(), 1),
    ],
)
def test_exit_statuses(error: Exception, status: int) -> None:
    assert exit_status(error) == status
