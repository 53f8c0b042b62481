"""`pkgjail graph`: write the closure of a manifest as a graph."""

from __future__ import annotations

import argparse
import subprocess
from typing import TYPE_CHECKING

from pkgjail.cli.output import write_result
from pkgjail.cli.results import without_file
from pkgjail.core.errors import PkgjailError

if TYPE_CHECKING:
    from pkgjail.cli.parser import Verbs
    from pkgjail.review.graph import GraphView

_DESCRIPTION = """\
Write the closure of a manifest as a graph: what requires what, from the whitelists' lines to the last
package. Each node shows its cost: the bytes that would leave the jail with it, because nothing else
requires them (dominators).
"""
_EPILOG = """\
examples:
  pkgjail graph spack.manifest.jsonl --focus perl --depth 1 --format svg -o perl.svg
  pkgjail graph spack.manifest.jsonl --collapse --format mermaid

SVG needs graphviz's 'dot'.
"""
FORMATS = ("dot", "graphml", "mermaid", "svg", "json")


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "graph",
        help="write the closure of a manifest as a graph",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_manifest()
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=FORMATS, default="dot", metavar="FORMAT", help=", ".join(FORMATS))
    form.add_argument("--json", dest="format", action="store_const", const="json", help="--format json")
    parser.add_argument(
        "-o", "--output", default="-", metavar="FILE", help="write it here, not to standard output"
    )
    parser.add_argument(
        "--focus", default="", metavar="PKG", help="show only what leads to PKG and what PKG leads to"
    )
    parser.add_argument("--depth", type=_depth, metavar="N", help="show at most N edges around the focus")
    parser.add_argument(
        "--collapse", action="store_true", help="merge packages that require each other into one node"
    )
    parser.set_defaults(run=run, failure=0, result_is_output=without_file)


def _depth(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of edges")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Write the graph."""
    from pkgjail.cli.manifests import read_manifest
    from pkgjail.review.graph import graph_view
    from pkgjail.storage.atomic import replace_file

    manifest = read_manifest(arguments.manifest)
    graph = graph_view(manifest, focus=arguments.focus, depth=arguments.depth, collapse=arguments.collapse)
    data = _drawn(graph, arguments.format)
    if arguments.output == "-":
        write_result(data)
    else:
        replace_file(arguments.output, data)
    return 0


def _drawn(graph: GraphView, form: str) -> bytes:
    from pkgjail.review import graph_formats

    if form == "svg":
        return _svg(graph_formats.dot(graph))
    write = {
        "dot": graph_formats.dot,
        "graphml": graph_formats.as_graphml,
        "mermaid": graph_formats.mermaid,
        "json": graph_formats.as_json,
    }[form]
    return write(graph).encode()


def _svg(dot: str) -> bytes:
    """Draw `dot` with graphviz. Raises `PkgjailError` if it is not installed, or fails."""
    command = ["dot", "-Tsvg"]
    try:
        done = subprocess.run(command, input=dot.encode(), capture_output=True, check=False)
    except FileNotFoundError:
        raise PkgjailError(
            "cannot make SVG: there is no program 'dot'; install graphviz, or write another --format"
        ) from None
    if done.returncode:
        raise PkgjailError(f"cannot make SVG: dot: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
