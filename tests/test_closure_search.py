"""The closure: its packages and reasons, whatever the order of a whitelist's lines."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.closure.graph import closure_graph
from pkgjail.closure.search import resolve_closure
from pkgjail.core.model import Closure, DependencyGroup, Policy, Relation, Requirement
from tests.memory import MemoryDatabase, parse_records

if TYPE_CHECKING:
    from random import Random

    from pkgjail.core.model import Package, PackageDatabase


def policy(
    database: PackageDatabase, *texts: str, essential: bool = False, recommends: bool = False
) -> Policy:
    """Return a policy of these requirements, a line each, in a whitelist `w.toml`."""
    packages = tuple(
        Requirement(text=text, origin=f"w.toml:{line}", groups=database.parse(text))
        for line, text in enumerate(texts, 1)
    )
    return Policy(
        whitelists=("w",), blacklists=(), packages=packages, essential=essential, recommends=recommends
    )


def edges(closure: Closure) -> str:
    """Return the dependencies and the unmet requirements as text, a line each."""
    lines = [f"{edge.source} -> {edge.target} [{edge.kind}] {edge.text}" for edge in closure.dependencies]
    lines += [f"{one.source} -> ? [{one.kind}] {one.text}: {one.reason}" for one in closure.unmet]
    return "\n".join(lines)


# Each row: what it protects, the installed packages, the whitelist's lines, the closure as text.
CASES = [
    (
        "requirements are followed to the end, and a cycle ends",
        """
        a 1 amd64
         Pre-Depends: b
        b 1 amd64
         Depends: c
        c 1 all
         Depends: a
        unrelated 1 amd64
        """,
        ["a"],
        """
        a:amd64 -> b:amd64 [Pre-Depends] b
        b:amd64 -> c:all [Depends] c
        c:all -> a:amd64 [Depends] a
        w.toml:1 -> a:amd64 [whitelist] a
        """,
    ),
    (
        "the first alternative that is installed in the version asked decides",
        """
        a 1 amd64
         Depends: absent | old (>= 2) | good | better
        old 1 amd64
        good 1 amd64
        better 1 amd64
        """,
        ["a"],
        """
        a:amd64 -> good:amd64 [Depends] absent | old (>= 2) | good | better
        w.toml:1 -> a:amd64 [whitelist] a
        """,
    ),
    (
        "the first alternative decides even where the second is in the closure",
        """
        a 1 amd64
         Depends: x | b
        b 1 amd64
        x 1 amd64
        """,
        ["a", "b"],
        """
        a:amd64 -> x:amd64 [Depends] x | b
        w.toml:1 -> a:amd64 [whitelist] a
        w.toml:2 -> b:amd64 [whitelist] b
        """,
    ),
    (
        "of several providers the first by name is taken",
        """
        mawk 1 amd64
         Provides: awk
        gawk-mpfr 1 amd64
         Provides: awk
        gawk 1 amd64
         Provides: awk
        """,
        ["awk"],
        """
        w.toml:1 -> gawk:amd64 [whitelist] awk
        """,
    ),
    (
        "a provider that is in the closure is taken, though it is reached later and through others",
        """
        mawk 1 amd64
         Provides: awk
        gawk 1 amd64
         Provides: awk
        z 1 amd64
         Depends: y
        y 1 amd64
         Depends: mawk
        """,
        ["awk", "z"],
        """
        w.toml:1 -> mawk:amd64 [whitelist] awk
        w.toml:2 -> z:amd64 [whitelist] z
        y:amd64 -> mawk:amd64 [Depends] mawk
        z:amd64 -> y:amd64 [Depends] y
        """,
    ),
    (
        "the real package is taken before its providers",
        """
        aaa 1 amd64
         Provides: awk
        awk 1 amd64
        """,
        ["awk"],
        """
        w.toml:1 -> awk:amd64 [whitelist] awk
        """,
    ),
    (
        "of two that are in the closure the real package is taken",
        """
        aaa 1 amd64
         Provides: awk
        awk 1 amd64
        """,
        ["awk", "aaa", "awk (= 1)"],
        """
        w.toml:1 -> awk:amd64 [whitelist] awk
        w.toml:2 -> aaa:amd64 [whitelist] aaa
        w.toml:3 -> awk:amd64 [whitelist] awk (= 1)
        """,
    ),
    (
        "what a deferred choice brings in answers the next one",
        """
        b 1 amd64
         Provides: v1
         Depends: z
        c 1 amd64
         Provides: v1
        y 1 amd64
         Provides: v2
        z 1 amd64
         Provides: v2
        """,
        ["v2", "v1"],
        """
        b:amd64 -> z:amd64 [Depends] z
        w.toml:1 -> z:amd64 [whitelist] v2
        w.toml:2 -> b:amd64 [whitelist] v1
        """,
    ),
    (
        "a package that satisfies its own requirement needs no other",
        """
        mailer 1 amd64
         Provides: mail-agent
         Depends: mail-agent
        another 1 amd64
         Provides: mail-agent
        """,
        ["mailer"],
        """
        w.toml:1 -> mailer:amd64 [whitelist] mailer
        """,
    ),
    (
        "both fields that ask for the same package are kept",
        """
        a 1 amd64
         Pre-Depends: libc6
         Depends: libc6 (>= 2)
        libc6 2 amd64
        """,
        ["a"],
        """
        a:amd64 -> libc6:amd64 [Depends] libc6 (>= 2)
        a:amd64 -> libc6:amd64 [Pre-Depends] libc6
        w.toml:1 -> a:amd64 [whitelist] a
        """,
    ),
    (
        "what nothing satisfies is listed with who asked, by the package and by the rule",
        """
        a 1 amd64
         Depends: libx (>= 3), nowhere | nobody
        libx 2 amd64
        """,
        ["a", "typo"],
        """
        w.toml:1 -> a:amd64 [whitelist] a
        a:amd64 -> ? [Depends] libx (>= 3): libx (>= 3) for amd64 is asked and libx:amd64 2 is installed
        a:amd64 -> ? [Depends] nowhere | nobody: nowhere is not installed; install it; \
nobody is not installed; install it
        w.toml:2 -> ? [whitelist] typo: typo is not installed; install it
        """,
    ),
    (
        "a foreign package's requirements are for its own architecture",
        """
        wine 1 i386
         Depends: libc6
        libc6 2 amd64
        libc6 2 i386
        """,
        ["wine:i386"],
        """
        w.toml:1 -> wine:i386 [whitelist] wine:i386
        wine:i386 -> libc6:i386 [Depends] libc6
        """,
    ),
]


@pytest.mark.parametrize(("summary", "installed", "asked", "expected"), CASES, ids=[row[0] for row in CASES])
def test_closure(summary: str, installed: str, asked: list[str], expected: str) -> None:
    """Each row is one rule of the search."""
    database = MemoryDatabase.from_text(installed)
    closure = resolve_closure(database, policy(database, *asked))
    assert edges(closure) == dedent(expected).strip(), summary
    keys = {package.key for package in closure.packages}
    assert keys == {edge.target for edge in closure.dependencies}


RECOMMENDS = """
a 1 amd64
 Recommends: b, absent
b 1 amd64
"""


def test_recommends_are_followed_only_on_request_and_never_unmet() -> None:
    """Recommends are followed only on request, and an absent one is not reported."""
    database = MemoryDatabase.from_text(RECOMMENDS)
    assert edges(resolve_closure(database, policy(database, "a"))) == "w.toml:1 -> a:amd64 [whitelist] a"
    assert (
        edges(resolve_closure(database, policy(database, "a", recommends=True)))
        == "a:amd64 -> b:amd64 [Recommends] b\nw.toml:1 -> a:amd64 [whitelist] a"
    )


ESSENTIAL = """
bash 5 amd64 essential
 Depends: libc6
libc6 2 amd64
gcc 12 amd64
 Depends: cpp
cpp 12 amd64
 Depends: libc6
apt 2 amd64 protected
"""


def test_essential_packages_come_when_asked() -> None:
    """Essential packages come with their requirements; protected ones are not essential."""
    database = MemoryDatabase.from_text(ESSENTIAL)
    assert resolve_closure(database, policy(database)).packages == ()
    closure = resolve_closure(database, policy(database, essential=True))
    assert edges(closure) == (
        "bash:amd64 -> libc6:amd64 [Depends] libc6\nessential -> bash:amd64 [essential] Essential: yes"
    )


# Each row: what it protects, the whitelist's lines, the package, its chain of reasons.
CHAINS = [
    ("a rule's own package has the rule as its reason", ["gcc"], "gcc:amd64", "w.toml:1 gcc:amd64"),
    ("the chain is the shortest", ["gcc"], "libc6:amd64", "essential bash:amd64 libc6:amd64"),
    (
        "of two equally long chains the whitelist's is reported",
        ["cpp"],
        "libc6:amd64",
        "w.toml:1 cpp:amd64 libc6:amd64",
    ),
    ("a rule comes before essential", ["bash"], "bash:amd64", "w.toml:1 bash:amd64"),
    ("of two rules the first is reported", ["cpp", "cpp (>= 1)"], "cpp:amd64", "w.toml:1 cpp:amd64"),
]


@pytest.mark.parametrize(("summary", "asked", "key", "expected"), CHAINS, ids=[row[0] for row in CHAINS])
def test_why(summary: str, asked: list[str], key: str, expected: str) -> None:
    """`why` returns the shortest chain, and always the same one."""
    database = MemoryDatabase.from_text(ESSENTIAL)
    closure = resolve_closure(database, policy(database, *asked, essential=True))
    chain = closure.why(key)
    assert " ".join([chain[0].source, *(edge.target for edge in chain)]) == expected, summary


NAMES = st.sampled_from([f"p{number}" for number in range(8)] + ["v1", "v2", "v3"])
ALTERNATIVES = st.lists(NAMES, min_size=1, max_size=3).map(" | ".join)


@st.composite
def databases(draw: st.DrawFn) -> str:
    """Draw the text of a database of a few packages with random requirements and provisions."""
    blocks = []
    for number in range(draw(st.integers(1, 8))):
        depends = draw(st.lists(ALTERNATIVES, max_size=3))
        provides = draw(st.lists(NAMES, max_size=2, unique=True))
        essential = draw(st.sampled_from(["", "", "", " essential"]))
        lines = [f"p{number} 1 amd64{essential}"]
        lines += [f" Depends: {', '.join(depends)}"] if depends else []
        lines += [f" Provides: {', '.join(provides)}"] if provides else []
        blocks += lines
    return "\n".join(blocks)


@given(databases(), st.lists(ALTERNATIVES, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_rules_changes_nothing(text: str, asked: list[str], random: Random) -> None:
    """Shuffled rules give an equal closure, and moved lines equal packages."""
    database = MemoryDatabase.from_text(text)
    rules = policy(database, *asked, essential=True)
    shuffled = list(rules.packages)
    random.shuffle(shuffled)
    same_lines = Policy(whitelists=("w",), blacklists=(), packages=tuple(shuffled))
    closure = resolve_closure(database, rules)
    assert resolve_closure(database, same_lines) == closure
    moved = resolve_closure(database, policy(database, *(rule.text for rule in shuffled), essential=True))
    assert moved.packages == closure.packages


@given(databases(), st.lists(ALTERNATIVES, max_size=4))
def test_the_closure_is_closed_and_minimal(text: str, asked: list[str]) -> None:
    """Every requirement is satisfied inside or unmet, and every package is required."""
    database = MemoryDatabase.from_text(text)
    closure = resolve_closure(database, policy(database, *asked, essential=True))
    keys = {package.key for package in closure.packages}
    unmet = {(one.source, one.text) for one in closure.unmet}
    for package in closure.packages:
        for group in database.requirements(package, recommends=False):
            answers = {
                candidate.key
                for relation in group.alternatives
                for candidate in database.candidates(relation, package.architecture)
            }
            assert (answers & keys) if answers else ((package.key, group.text) in unmet)
    assert {edge.target for edge in closure.dependencies} == keys
    assert all(edge.source != edge.target for edge in closure.dependencies)


@given(databases(), st.lists(ALTERNATIVES, max_size=4))
def test_reasons_are_as_short_as_networkx_finds(text: str, asked: list[str]) -> None:
    """An independent search finds no shorter chain; each chain starts at a root."""
    database = MemoryDatabase.from_text(text)
    closure = resolve_closure(database, policy(database, *asked, essential=True))
    graph = closure_graph(closure)
    roots = [node for node in graph if graph.nodes[node]["kind"] != "package"]
    lengths = nx.multi_source_dijkstra_path_length(graph, roots, weight=None) if roots else {}
    assert {key: len(closure.why(key)) for key in closure.reasons} == {
        node: length for node, length in lengths.items() if node not in roots
    }
    assert all(closure.why(key)[0].source in roots for key in closure.reasons)


def test_graph_has_kinds_and_texts() -> None:
    """Nodes have kinds, and an edge has the first of several requirements."""
    database = MemoryDatabase.from_text("a 1 amd64\n Depends: b, b (>= 1)\nb 1 amd64 essential")
    graph = closure_graph(resolve_closure(database, policy(database, "a", essential=True)))
    assert {node: graph.nodes[node]["kind"] for node in graph} == {
        "a:amd64": "package",
        "b:amd64": "package",
        "essential": "essential",
        "w.toml:1": "rule",
    }
    assert sorted(graph.edges(data="text")) == [
        ("a:amd64", "b:amd64", "b"),
        ("essential", "b:amd64", "Essential: yes"),
        ("w.toml:1", "a:amd64", "a"),
    ]


class Conditional(MemoryDatabase):
    """A database in which `asker` asks for `wanted` where `one` and `other` are in (rpm's `(a if b)`)."""

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Return the conditional requirements too."""
        own = super().requirements(package, recommends=recommends)
        if package.name != "asker":
            return own
        conditions = (Relation(name="one"), Relation(name="other"))
        wanted = (Relation(name="wanted"),)
        text = "(wanted if (one and other))"
        return (*own, DependencyGroup(kind="Requires", alternatives=wanted, text=text, conditions=conditions))


@pytest.mark.parametrize(
    ("names", "is_in"),
    [("asker", False), ("asker one", False), ("asker one other", True), ("other one asker", True),
     ("asker one choice", True), ("one other", False)],
)  # fmt: skip
def test_a_requirement_with_conditions(names: str, *, is_in: bool) -> None:
    """Protects that a requirement applies exactly once all its conditions are met."""
    text = """
        asker 1 amd64
        choice 1 amd64
         Depends: virtual
        one 1 amd64
        other 1 amd64
         Provides: virtual
        wanted 1 amd64
        zzz 1 amd64
         Provides: virtual
    """
    database = Conditional(parse_records(text))
    closure = resolve_closure(database, policy(database, *names.split()))
    assert ("wanted:amd64" in {package.key for package in closure.packages}) == is_in
    assert closure.unmet == ()
