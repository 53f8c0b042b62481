"""`pkgjail plan`: how a jail would be put together here, and why so."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from pkgjail.commands.run import MANIFEST_HELP, add_jail_options, jail_options, load_manifest

if TYPE_CHECKING:
    import argparse

_DESCRIPTION = """\
Print how the jail of a manifest would be put together on this host: which directories are shown as
one overlay, which files by a bind mount each, and why. Needs no privilege and enters nothing.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser("plan", help="show how a jail would be put together", description=_DESCRIPTION)
    parser.add_argument("manifest", metavar="MANIFEST", help=MANIFEST_HELP)
    add_jail_options(parser)
    parser.add_argument("--steps", action="store_true", help="print every step, in order")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(run=run, failure=0)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    from pkgjail.jail import prepare, why_no_tree
    from pkgjail.model import Limits

    manifest = load_manifest(arguments)
    root = os.fsencode(os.path.realpath(arguments.root))
    options = jail_options(arguments)
    plan = prepare(manifest, options, root=root)
    counts = Counter(type(step).__name__ for step in plan.steps)
    facts: dict[str, Any] = {
        "directories": {os.fsdecode(top): why for top, why in why_no_tree(manifest, root).items()},
        "steps": dict(sorted(counts.items())),
        "network": plan.network,
    }
    if options.limits != Limits():
        from pkgjail.limiting import how_limited

        facts["limits"] = how_limited(options)
    if arguments.steps:
        facts["every_step"] = list(map(_line, plan.steps))
    print(json.dumps(facts, indent=2) if arguments.json else _text(facts))
    return 0


def _text(facts: dict[str, Any]) -> str:
    lines = []
    for top, why in facts["directories"].items():
        reason = (
            f"a bind mount a file, for an overlay cannot be had: {why}" if why else "an overlay can be had"
        )
        lines.append(f"{top}: {reason}")
    lines += [f"{count:7,} {kind}" for kind, count in facts["steps"].items()]
    lines.append("network: the host's" if facts["network"] else "network: a loopback of its own")
    lines += [f"{name}: {how}" for name, how in facts.get("limits", {}).items()]
    return "\n".join([*lines, *facts.get("every_step", ())])


def _line(step: tuple[Any, ...]) -> str:
    """One step: its kind, then its fields; paths as they are, the content of files by its length."""
    words = [type(step).__name__]
    for name, value in zip(getattr(step, "_fields", ()), step):
        if name == "content":
            words.append(f"({len(value)} bytes)")
        elif name == "mode":
            words.append(f"{value:04o}")
        else:
            words.append(os.fsdecode(value) if isinstance(value, bytes) else str(value))
    return " ".join(words)
