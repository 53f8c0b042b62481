"""Rows for tests of file sets: a root's tree, its packages and a policy, and the expected file set."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pkgjail.core.model import AlternativeChoice, AlternativeGroup, Closure, Generated, Policy, Rule, record
from pkgjail.core.text import text_path
from pkgjail.fileset import collect_files
from tests.memory import MemoryDatabase, parse_records
from tests.tree_text import file_set_lines, meant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.core.model import FileSet
    from pkgjail.fileset.builder import Hasher


@record
class Case:
    """`packages` is text of tests/memory.py; those whose name begins with "outside" are not asked for.

    Paths are written as in tests/tree_text.py, but for those of `generated` and of the policy.
    """

    summary: str
    disk: str
    packages: str
    expected: str
    drops: Sequence[str] = ()
    includes: Sequence[str] = ()
    alternatives: Sequence[AlternativeGroup] = ()
    generated: Sequence[Generated] = ()
    scripts: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Remembering:
    """A reporter that records progress and warnings."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.warnings: list[str] = []

    def progress(self, task: str, done: int, total: int) -> None:
        """Record it."""
        self.steps.append((task, done, total))

    def warn(self, message: str) -> None:
        """Record it."""
        self.warnings.append(message)


def group(name: str, links: str, *choices: str) -> AlternativeGroup:
    """A group of alternatives: its links, then `PRIORITY TARGET…` of each candidate, `-` for none.

    The administrative links have the links' own names.
    """
    paths = [meant(link) for link in links.split()]
    return AlternativeGroup(
        name=name,
        links=tuple((path, b"/etc/alternatives/" + path.rpartition(b"/")[2]) for path in paths),
        choices=tuple(
            AlternativeChoice(
                priority=int(choice.split()[0]),
                targets=tuple(b"" if target == "-" else meant(target) for target in choice.split()[1:]),
            )
            for choice in choices
        ),
    )


def made(pattern: str, package: str = "", *, at_entry: bool = False) -> Generated:
    """Return a row of the allow-list of generated files."""
    return Generated(pattern=pattern, package=package, made_by="maker", at_entry=at_entry)


def collect(
    case: Case, root: bytes, hasher: Hasher | None = None, reporter: Remembering | None = None
) -> FileSet:
    """Return the case's file set."""
    records = {
        key: dataclasses.replace(each, owned=tuple(meant(text_path(path)) for path in each.owned))
        for key, each in parse_records(case.packages).items()
    }
    database = MemoryDatabase(
        records, alternatives=case.alternatives, generated=case.generated, scripts=case.scripts
    )
    packages = tuple(one for one in database.packages.values() if not one.name.startswith("outside"))
    policy = Policy(
        whitelists=(),
        blacklists=(),
        packages=(),
        includes=_rules("w.toml", case.includes),
        drops=_rules("b.ignore", case.drops),
    )
    closure = Closure(packages=packages, dependencies=(), reasons={})
    return collect_files(
        database, closure, policy, root=root, hasher=hasher, reporter=reporter or Remembering()
    )


def collected(case: Case, root: bytes) -> str:
    """Return the case's file set, and the warnings except those about missing paths, as text."""
    reporter = Remembering()
    lines = file_set_lines(collect(case, root, reporter=reporter))
    warnings = (f"warns {text}" for text in reporter.warnings if "listed paths" not in text)
    return "\n".join([*lines, *warnings])


def _rules(file: str, patterns: Sequence[str]) -> tuple[Rule, ...]:
    return tuple(Rule(pattern=text, origin=f"{file}:{line}") for line, text in enumerate(patterns, 1))
