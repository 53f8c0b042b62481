"""Rules of a blacklist without effect: their author is warned, and told of a link that is the cause."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from pkgjail.backends import open_database
from pkgjail.closure.search import resolve_closure
from pkgjail.fileset import collect_files
from pkgjail.policy import load_policy
from tests.file_cases import Case, Remembering, collected
from tests.tree_text import parse_tree, tree

if TYPE_CHECKING:
    from pathlib import Path

_DISK = """
/bin -> usr/bin
/usr/bin/sh 0755
/usr/share/doc -> /data/doc
/data/doc/a
/b
"""
_PACKAGES = """
p 1 amd64
 /bin/sh
 /usr/share/doc
 /usr/share/doc/a
 /b
"""
_KEPT = """
/b regular package p:amd64
/bin symlink usr/bin parent
/data/doc/a regular package p:amd64
/usr/bin/sh regular 0755 package p:amd64
/usr/share/doc symlink /data/doc package p:amd64
"""

CASES = [
    Case(
        summary="a name that is nowhere",
        disk=_DISK,
        packages=_PACKAGES,
        drops=["zsh", "/gone", "/usr/gone/*.h"],
        expected=f"""{_KEPT}\
warns b.ignore:1: zsh matches nothing here
warns b.ignore:2: /gone matches nothing here
warns b.ignore:3: /usr/gone/*.h matches nothing here
""",
    ),
    Case(
        summary="a path through a merged directory",
        disk=_DISK,
        packages=_PACKAGES,
        drops=["/bin/sh", "bin/[r-t]h", "!/bin/sh", "/bin/"],
        expected=f"""{_KEPT}\
warns b.ignore:1: /bin/sh matches nothing here: /bin is a link to usr/bin; write /usr/bin/sh
warns b.ignore:2: bin/[r-t]h matches nothing here: /bin is a link to usr/bin; write /usr/bin/[r-t]h
warns b.ignore:3: !/bin/sh matches nothing here: /bin is a link to usr/bin; write !/usr/bin/sh
warns b.ignore:4: /bin/ matches nothing here: /bin is a link to usr/bin; write /usr/bin/
""",
    ),
    Case(
        summary="a path through a directory that the administrator moved",
        disk=_DISK,
        packages=_PACKAGES,
        drops=["/usr/share/doc/**/a"],
        expected=f"""{_KEPT}\
warns b.ignore:1: /usr/share/doc/**/a matches nothing here: /usr/share/doc is a link to /data/doc; \
write /data/doc/**/a
""",
    ),
    Case(
        summary="a rule that matched and was overruled did something",
        disk=_DISK,
        packages=_PACKAGES,
        drops=["/usr/**", "!/usr/bin/sh", "!doc"],
        expected=_KEPT,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.summary)
def test_rules_that_match_nothing(case: Case) -> None:
    """Protects from a misspelt rule that silently drops nothing."""
    with tree(parse_tree(case.disk)) as root:
        assert collected(case, root) == dedent(case.expected).strip()


def test_the_shipped_lists_are_for_every_host(tmp_path: Path) -> None:
    """Shipped rules give no warnings; a copy of a shipped list, named by path, is the user's own."""
    mine = tmp_path / "docs.ignore"
    mine.write_text("/usr/share/doc/\n/usr/share/no-such/\n")
    database = open_database()
    policy = load_policy(["base"], ["docs", "locales", str(mine)], database=database)
    reporter = Remembering()
    collect_files(database, resolve_closure(database, policy), policy, reporter=reporter)
    idle = [text for text in reporter.warnings if "matches nothing" in text]
    assert idle == ["docs.ignore:2: /usr/share/no-such/ matches nothing here"]
