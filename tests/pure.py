"""`make quick`, a plugin of pytest: run the pure tests, and skip each other test at its first impure step.

A test is pure if it starts no process and does not read the records of this host's package manager. No
test declares that: Python's audit events show it. Tests that are marked as slow, long or gates are left out.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROCESSES = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}
_RECORDS = tuple(f"/{place}/" for place in ("var/lib/apt", "var/lib/dpkg", "var/lib/pacman", "var/lib/rpm"))
_LEFT_OUT = ("gate", "long", "slow")
_EXAMPLES = 10  # of a rule for all inputs, unless its test says how many it needs

_is_testing = False


def pytest_sessionstart() -> None:
    """Use few examples: set before the tests are imported. Watch for jails, which are no audit event."""
    settings.register_profile("quick", settings(), max_examples=_EXAMPLES)
    settings.load_profile("quick")
    pytest.MonkeyPatch().setattr("pkgjail.sandbox.syscalls.clone", _refuse_clone)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Do not import a module of gates, to save the time."""
    is_test = collection_path.match("test_*.py")
    return True if is_test and "\npytestmark = pytest.mark.gate" in collection_path.read_text() else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked."""
    marked = [item for item in items if any(map(item.get_closest_marker, _LEFT_OUT))]
    config.hook.pytest_deselected(items=marked)
    items[:] = [item for item in items if item not in marked]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """Watch while a test runs, with what prepares it."""
    global _is_testing  # noqa: PLW0603 - an audit hook is for the whole process, and stays
    _is_testing = True
    yield
    _is_testing = False


def _refuse_impurity(event: str, arguments: tuple[Any, ...]) -> None:
    if _is_testing and (event in _PROCESSES or (event == "open" and _is_record(arguments[0]))):
        pytest.skip("impure")


def _refuse_clone(_flags: int) -> int:
    pytest.skip("impure")


def _is_record(path: object) -> bool:
    return isinstance(path, (str, bytes)) and os.fsdecode(path).startswith(_RECORDS)


sys.addaudithook(_refuse_impurity)
