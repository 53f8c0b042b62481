"""The closure as a graph: what each node costs, which part is drawn, and that other programs can read it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import TYPE_CHECKING

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgjail import graph_view, write_manifest
from pkgjail.cli.main import main
from pkgjail.closure.graph import closure_graph, components
from pkgjail.core.errors import QuestionError
from pkgjail.review import graph_formats
from pkgjail.review.graph import Edge, GraphView, Node, costs
from pkgjail.review.report.columns import columns
from tests.manifest_text import manifest_of

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest

# app -> lib -> base; tool -> base; x and y ask for each other and are brought by app alone.
MANIFEST = manifest_of(
    """
    app 1
    lib 1
    base 1
    tool 1
    x 1
    y 1
    w.toml:1 -> app
    w.toml:2 -> tool
    app -> lib
    lib -> base
    tool -> base
    app -> x
    x -> y
    y -> x [Recommends] x
    /a 1000 of app
    /b 100 of lib
    /c 10 of base
    /d 7 of tool
    /e 5 of x
    /f 3 of y
    /g 20000 of app,tool
    /h 400000 of x,y
    /i 9, include: w.toml:9
    """
)


def _lines(shape: GraphView) -> list[str]:
    nodes = [f"{node.name} {node.bytes} {node.cost}" for node in shape.nodes]
    return nodes + [f"{edge.source} -> {edge.target}" for edge in shape.edges]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(
            {},
            "app:amd64 21000 401108; base:amd64 10 10; lib:amd64 100 100; tool:amd64 20007 7; "
            "w.toml:1 0 401108; w.toml:2 0 7; x:amd64 400005 400008; y:amd64 400003 3; "
            "app:amd64 -> lib:amd64; app:amd64 -> x:amd64; lib:amd64 -> base:amd64; "
            "tool:amd64 -> base:amd64; "
            "w.toml:1 -> app:amd64; w.toml:2 -> tool:amd64; x:amd64 -> y:amd64; y:amd64 -> x:amd64",
            id="the whole, each with what leaves with it",
        ),
        pytest.param(
            {"focus": "base", "depth": 1},
            "base:amd64 10 10; lib:amd64 100 100; tool:amd64 20007 7; lib:amd64 -> base:amd64; "
            "tool:amd64 -> base:amd64",
            id="one edge around a package",
        ),
        pytest.param(
            {"focus": "lib:amd64"},
            "app:amd64 21000 401108; base:amd64 10 10; lib:amd64 100 100; w.toml:1 0 401108; "
            "app:amd64 -> lib:amd64; lib:amd64 -> base:amd64; w.toml:1 -> app:amd64",
            id="all that leads to a package and that it leads to",
        ),
        pytest.param({"focus": "base", "depth": 0}, "base:amd64 10 10", id="nothing but the package"),
        pytest.param(
            {"focus": "y", "depth": 1, "collapse": True},
            "x:amd64 and 1 more 400008 400008",
            id="a component is one node, and goes at once",
        ),
    ],
)
def test_shapes(options: dict[str, object], expected: str) -> None:
    assert "; ".join(_lines(graph_view(MANIFEST, **options))) == expected  # type: ignore[arg-type]  # a row's


@pytest.mark.parametrize(
    ("options", "text"), [({"focus": "no"}, "no package"), ({"depth": 1}, "no focus")], ids=["name", "depth"]
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(QuestionError, match=text):
        graph_view(MANIFEST, **options)  # type: ignore[arg-type]  # a row's


@st.composite
def closures(draw: st.DrawFn) -> Manifest:
    """Up to seven packages, each led to by a rule's edges, with files that up to three of them list."""
    names = [f"p{number}" for number in range(draw(st.integers(1, 7)))]
    some = st.sampled_from(names)
    edges = {(f"w.toml:{draw(st.integers(1, 3))}", names[0])}
    for position, name in enumerate(names[1:], 1):
        edges.add((draw(st.sampled_from([*names[:position], "w.toml:9"])), name))
    edges |= draw(st.sets(st.tuples(some, some).filter(lambda pair: pair[0] != pair[1]), max_size=8))
    lines = [f"{name} 1" for name in names] + [f"{source} -> {target}" for source, target in sorted(edges)]
    for number, owners in enumerate(draw(st.lists(st.sets(some, min_size=1, max_size=3), max_size=6))):
        lines.append(f"/f{number} {2**number} of {','.join(sorted(owners))}")
    return manifest_of("\n".join(lines))


@settings(deadline=None)
@given(closures(), st.booleans())
def test_cost_is_what_leaves(manifest: Manifest, collapse: bool) -> None:  # noqa: FBT001 - Hypothesis gives it
    """By its definition: take the node away, walk from the rules again, see which files lost every owner."""
    graph = closure_graph(manifest)
    groups = components(graph) if collapse else tuple((node,) for node in sorted(graph))
    found = costs(manifest, graph, groups)
    roots = {node for node in graph if graph.in_degree(node) == 0}
    for group in groups:
        rest = graph.subgraph(set(graph) - set(group))
        reached = set().union(*(nx.descendants(rest, root) | {root} for root in roots - set(group)))
        gone = sum(e.size or 0 for e in manifest.files if e.owners and not reached.intersection(e.owners))
        assert found[group[0]] == gone, group


def test_packages_that_only_require_each_other() -> None:
    """Protects readers of a manifest that somebody wrote: no whitelist's line leads to x and y."""
    manifest = manifest_of(
        "a 1\nx 1\ny 1\nw.toml:1 -> a\nx -> y\ny -> x\n/f 3 of x,y\n/g 5 of x\n/h 7 of a,x"
    )
    found = {node.name: node.cost for node in graph_view(manifest).nodes}
    assert found == {"a:amd64": 0, "w.toml:1": 0, "x:amd64": 5, "y:amd64": 0}
    collapsed = {node.name: node.cost for node in graph_view(manifest, collapse=True).nodes}
    assert collapsed["x:amd64 and 1 more"] == 8
    assert [node[6] for node in columns(manifest, graph_view(manifest))["nodes"]] == [1, -1, -1, -1]


_HOSTILE = 'a"]; b -> c \\n<i>&#;\\ \x01\udc80\n\u2028é'
_ODD = GraphView(
    nodes=(
        Node(name=_HOSTILE, kind="rule"),
        Node(name="p:amd64", kind="package", version="1~é", bytes=10**10, cost=10**10),
        Node(name="essential", kind="essential"),
    ),
    edges=(
        Edge(source=_HOSTILE, target="p:amd64", kind="whitelist", text=_HOSTILE),
        Edge(source="essential", target="p:amd64", kind="Recommends", text="x"),
    ),
)
SHAPES = [pytest.param(_ODD, id="hostile names"), pytest.param(graph_view(MANIFEST), id="plain")]


@pytest.mark.parametrize("shape", SHAPES)
def test_dot_is_graphviz_own(shape: GraphView) -> None:
    """Graphviz reads it without a warning and finds as many nodes and edges."""
    done = subprocess.run(
        ["dot", "-Tplain"], input=graph_formats.dot(shape).encode(), capture_output=True, check=True
    )
    kinds = [line.split()[0] for line in done.stdout.decode().splitlines() if line]
    assert done.stderr == b""
    assert (kinds.count("node"), kinds.count("edge")) == (len(shape.nodes), len(shape.edges))


@pytest.mark.parametrize("shape", SHAPES)
def test_graphml_is_read_back(shape: GraphView) -> None:
    read = nx.parse_graphml(graph_formats.as_graphml(shape))
    assert (len(read.nodes), len(read.edges)) == (len(shape.nodes), len(shape.edges))
    assert read.nodes["p:amd64" if shape is _ODD else "app:amd64"]["kind"] == "package"


@pytest.mark.parametrize("shape", SHAPES)
def test_mermaid_has_a_line_for_each(shape: GraphView) -> None:
    """In its own grammar's words: a quoted label with nothing of ours that it would read."""
    head, *lines = graph_formats.mermaid(shape).splitlines()
    label = r"\"(?:[\w .,:+~\-/()]|#\d+;|<br/>)+\""
    nodes = [line for line in lines if re.fullmatch(rf"  n\d+(\[|\[/|\{{\{{){label}(\]|/\]|\}}\}})", line)]
    edges = [line for line in lines if re.fullmatch(r"  n\d+ (-->|-\.->) n\d+", line)]
    assert head == "flowchart LR"
    assert (len(nodes), len(edges)) == (len(shape.nodes), len(shape.edges))
    assert len(lines) == len(nodes) + len(edges)


def test_sizes_as_people_read_them() -> None:
    sizes = [0, 999, 1000, 1_500_000, 2 * 10**9, 5 * 10**12]
    told = ["0 bytes", "999 bytes", "1.0 kB", "1.5 MB", "2.0 GB", "5,000.0 GB"]
    assert [graph_formats.size_text(size) for size in sizes] == told


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> str:
    path = tmp_path / "m.jsonl"
    write_manifest(MANIFEST, path)
    return str(path)


def test_the_command(written: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each format, on standard output or into a file."""
    assert main(["graph", written, "--focus", "base", "--depth", "1", "--json"]) == 0
    assert [node["name"] for node in json.loads(capfd.readouterr().out)["nodes"]] == [
        "base:amd64",
        "lib:amd64",
        "tool:amd64",
    ]
    for form, start in (("dot", "digraph"), ("graphml", "<graphml"), ("mermaid", "flowchart")):
        assert main(["graph", written, "--format", form]) == 0
        assert capfd.readouterr().out.startswith(start)
    assert main(["graph", written, "--format", "svg", "-o", str(tmp_path / "g.svg")]) == 0
    assert "app:amd64" in (tmp_path / "g.svg").read_text()
    assert main(["graph", written, "--focus", "no"]) == 2
    assert "no package of the manifest" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("script", "text"),
    [("", "install graphviz"), ("#!/bin/sh\necho broken >&2; exit 1\n", "dot: broken")],
    ids=["not installed", "fails"],
)
def test_without_graphviz_there_is_no_svg(  # noqa: PLR0913, PLR0917 - two of a row, four fixtures
    script: str,
    text: str,
    written: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Told, with what to do; nothing is written."""
    if script:
        (tmp_path / "dot").write_text(script)
        (tmp_path / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["graph", written, "--format", "svg", "-o", str(tmp_path / "g.svg")]) == 1
    assert text in capsys.readouterr().err
    assert not (tmp_path / "g.svg").exists()


def test_depth_is_a_number(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["graph", written, "--depth", "-1"])
    assert "is not a number of edges" in capsys.readouterr().err


@pytest.mark.slow
def test_a_chain_of_many_packages_takes_no_longer_than_others() -> None:
    """Protects from the square of its length in time, and in memory: a gigabyte for 20,000."""
    lines = [f"p{number} 1\np{number - 1} -> p{number}" for number in range(1, 20_000)]
    manifest = manifest_of(
        "\n".join(["p0 1", "w.toml:1 -> p0", *lines, "/f 7 of p0,p19999", "/g 5 of p19999"])
    )
    started = time.process_time()
    found = {node.name: node.cost for node in graph_view(manifest).nodes}
    assert (found["p0:amd64"], found["p1:amd64"], found["p19999:amd64"]) == (12, 5, 5)
    columns(manifest, graph_view(manifest))
    assert time.process_time() - started < 15
