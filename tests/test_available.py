"""Plans from repositories' metadata: `pkgjail resolve --available`.

What would be installed is held against the closures of roots where the same packages are installed, by
the table that all backends share, and against what apt, rpm and pacman would install.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pkgjail.api import plan_packages
from pkgjail.errors import ClosureError, PolicyError
from tests.repositories import SOURCES, source
from tests.test_real_roots import CASES, Case

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from pkgjail.model import PackagePlan

# python3-solv is the distribution's own Python's, and what is checked are rules.
pytestmark = pytest.mark.gate

FAMILIES = sorted(SOURCES)
every_family = pytest.mark.parametrize("family", FAMILIES)
BACKENDS = {"deb": "dpkg", "rpm": "rpm", "pacman": "pacman"}
WHITELISTS, BATCH = 200, 20


def plan(  # noqa: PLR0913 - the first two say what
    family: str,
    entries: Collection[str],
    tmp_path: Path,
    *,
    place: Path | None = None,
    essential: bool = False,
    recommends: bool = False,
    contents: bool = False,
) -> PackagePlan:
    """The plan of a whitelist of `entries`."""
    whitelist = tmp_path / "case.toml"
    whitelist.write_text(f"[packages]\n{SOURCES[family]} = {list(entries)}\n")
    return plan_packages(
        [str(whitelist)],
        sources=[source(family, place)],
        architecture="x86_64",
        essential=essential,
        recommends=recommends,
        contents=contents,
    )


def names(planned: PackagePlan) -> str:
    """The names of a plan's packages."""
    return " ".join(sorted(one.package.name for one in planned.packages))


# What metadata cannot tell (where links lead to), and where libsolv is not pacman: docs/backends.md says so.
OTHERWISE = {"a path through a link": "!", "a tilde only separates": "!"}


def rows() -> list[object]:
    """Each case of the shared table with each family that it is for."""
    return [
        pytest.param(
            family,
            case._replace(expected=OTHERWISE.get(case.summary, case.expected)),
            id=f"{family}: {case.summary}: {case.entries}",
        )
        for case in CASES
        for family, backend in BACKENDS.items()
        if backend in case.only.split()
    ]


@pytest.mark.parametrize(("family", "case"), rows())
def test_the_plan_is_the_closure(family: str, case: Case, tmp_path: Path) -> None:
    """Protects that a plan is what the closure will be, by the table that holds for installed packages."""
    entries = [one.strip() for one in case.entries.split(",")]
    if not case.expected.startswith("!"):
        planned = plan(family, entries, tmp_path)
        assert names(planned) == case.expected
        assert set(planned.reasons) == {one.package.key for one in planned.packages}
        return
    with pytest.raises((PolicyError, ClosureError)) as caught:
        plan(family, entries, tmp_path)
    assert all(problem.origin == "case.toml:2" for problem in caught.value.problems)
