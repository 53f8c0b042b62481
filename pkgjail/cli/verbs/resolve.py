"""`pkgjail resolve`: from whitelists to a manifest."""

from __future__ import annotations

import gc
import json
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from pkgjail.cli.console import human_size
from pkgjail.cli.manifests import named_file
from pkgjail.cli.output import write_result
from pkgjail.cli.package_plan import add_plan_arguments, is_plan, run_plan
from pkgjail.cli.policy_options import add_policy_arguments, resolve_arguments, root_of
from pkgjail.cli.results import without_file
from pkgjail.cli.summary import summarize
from pkgjail.cli.verbosity import print_note
from pkgjail.core.errors import UsageError
from pkgjail.core.text import counted, printable, shell_quote

if TYPE_CHECKING:
    import argparse
    from typing import TextIO

    from pkgjail.cli.parser import Verbs
    from pkgjail.core.model import Manifest

_DESCRIPTION = """\
Resolve whitelists of packages against this host: the packages they name, all that those require,
and exactly their files, less the blacklists. The result is a manifest (JSON Lines) to review, to
keep in version control and to run builds in. The same packages give the same bytes.
"""
_EPILOG = """\
A list is a shipped one's name (see below) or a path (with a '/', or ending in .toml or .ignore).

examples:
  pkgjail resolve spack -o spack.manifest.jsonl
  pkgjail resolve spack ./site.toml --blacklist docs --blacklist ./my.ignore -o site.jsonl
  pkgjail resolve base --package zlib1g-dev --package gcc -o zlib.jsonl
  pkgjail resolve base | jq -r 'select(.kind == "file").path'
  pkgjail resolve spack --available rhel:/srv/mirror/BaseOS --available rhel:/srv/mirror/AppStream
"""


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "resolve",
        help="resolve whitelists to a manifest",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "whitelists",
        nargs="*",
        type=named_file,
        metavar="WHITELIST",
        help="a list by its name (such as build, spack or gpu-nvidia), or a path; - for standard input",
    )
    parser.add_argument(
        "-o", "--output", default="-", metavar="FILE", help="write the manifest here, not to standard output"
    )
    add_policy_arguments(parser)
    parser.add_argument("--no-hash", action="store_true", help="leave the files' SHA-256 out (quicker)")
    parser.add_argument(
        "--allow-unmet", action="store_true", help="record requirements that nothing installed satisfies"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    add_plan_arguments(parser)
    parser.set_defaults(run=run, failure=0, result_is_output=without_file)


def run(arguments: argparse.Namespace) -> int:
    """Resolve, write the manifest, print a summary; or plan."""
    if not arguments.whitelists and not arguments.packages:
        raise UsageError("there is nothing to resolve; name a whitelist, or a package with --package")
    if is_plan(arguments):
        return run_plan(arguments)
    # The process ends soon; looking through a growing manifest for garbage takes a twentieth of it.
    gc.disable()
    began = time.time_ns()
    from pkgjail.api import record_baseline
    from pkgjail.core.parallel import run_alongside

    manifest = resolve_arguments(
        arguments,
        arguments.whitelists,
        hashed=not arguments.no_hash,
        allow_unmet=arguments.allow_unmet,
        baseline=False,
    )
    gc.freeze()  # nor does Python look through it when it ends
    with run_alongside(partial(record_baseline, manifest.files, root_of(arguments), since=began)):
        digest, out = _write(manifest, arguments.output)
    summary = summarize(manifest, digest)
    if arguments.json:
        print(json.dumps(summary, indent=2), file=out)
    else:
        print_note(_text(summary, arguments.output), out)
    return 0


def _write(manifest: Manifest, output: str) -> tuple[str, TextIO]:
    """Write the manifest; its digest, and where there is room for what people read."""
    from pkgjail.api import dump_manifest, manifest_digest, write_manifest

    if output != "-":
        return write_manifest(manifest, output), sys.stdout
    data = dump_manifest(manifest)
    write_result(data)
    return manifest_digest(data), sys.stderr


def _text(summary: dict[str, Any], output: str) -> str:
    lines = [
        (
            f"{counted(summary['packages'], 'package')}, {counted(summary['names'], 'name')}, "
            f"{human_size(summary['bytes'])}; {summary['dropped']:,} dropped, {summary['missing']:,} missing"
        ),
        summary["digest"],
    ]
    if output != "-":
        lines.append(f"written to {printable(output)}; review it with: pkgjail show {shell_quote(output)}")
    return "\n".join(lines)
