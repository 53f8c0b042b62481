"""Limits enforced by control groups, in a virtual machine that delegates them as each case needs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import limits_in_guest
from tests.guest import run_in_guest

if TYPE_CHECKING:
    from collections.abc import Sequence


def expected(user: int, *more: str) -> Sequence[str]:
    return [f"{user} {name}" for name in (*limits_in_guest.CASES, *more)]


@pytest.mark.long
def test_control_groups_enforce_the_limits(tmp_path: Path, library: Path) -> None:
    """Protects the host from fork bombs, the limits from the jail, and control groups from remains."""
    said = run_in_guest(tmp_path, Path(limits_in_guest.__file__), library, timeout=500)
    cases = dict(re.findall(r"^case (\d+ \w+): (.*?)\nend$", said, re.MULTILINE | re.DOTALL))
    names = [
        *expected(0, "a_killed_caller", "a_missing_controller", "the_root_group"),
        *expected(limits_in_guest.ORDINARY, "a_killed_caller", "a_missing_controller", "a_foreign_group"),
    ]
    assert cases == dict.fromkeys(names, "ok"), said
