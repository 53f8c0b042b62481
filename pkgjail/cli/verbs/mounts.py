"""`pkgjail mounts`: show how a jail would be put together here, and why."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from pkgjail.cli.jail_options import MANIFEST_HELP, add_jail_options, jail_options, load_manifest
from pkgjail.cli.policy_options import root_of
from pkgjail.cli.results import always

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs
    from pkgjail.jails.strategy import Choice

_DESCRIPTION = """\
Print how the jail of a manifest would be put together on this host: how each top directory is shown,
which ways were tried, with what result, and why one was chosen. Then set the jail up as an entry does,
and say whether that works here (otherwise the exit status is 3). Needs no privilege, and runs no command.

  tree    a data overlay, over a tree of metadata; names that are added to the
          host later stay hidden
  mask    a whiteout overlay, which hides names; those added to the host while
          a jail runs are visible in it
  whole   a bind mount for each directory that has no other names; later names
          are visible likewise
  binds   one bind mount per file; later names stay hidden

--strategy auto takes the first of these that works here, and 'binds' for directories with few names.
"""
_MEANING = {
    "tree": "one data overlay, over a tree of metadata",
    "mask": "one whiteout overlay, open to names that are added to the host while a jail runs",
    "whole": "binds of directories that have no other names, open to names added while a jail runs",
    "binds": "one bind mount per file",
}


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "mounts",
        help="show how a jail would be put together",
        description=_DESCRIPTION,
    )
    parser.add_argument("manifest", metavar="MANIFEST", help=MANIFEST_HELP)
    add_jail_options(parser)
    parser.add_argument("--steps", action="store_true", help="print every step, in order")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=always)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    from pkgjail.cli.flags import with_flags
    from pkgjail.core.options import Limits
    from pkgjail.jails.run import prepare_and_try
    from pkgjail.jails.strategy import choose_strategies

    manifest, options = load_manifest(arguments), jail_options(arguments)
    root = root_of(arguments)
    plan, obstacle = prepare_and_try(manifest, options, root=root)
    counts = Counter(type(step).__name__ for step in plan.steps)
    facts: dict[str, Any] = {
        "directories": {
            os.fsdecode(choice.top): _facts(choice) for choice in choose_strategies(manifest, options, root)
        },
        "steps": dict(sorted(counts.items())),
        "network": plan.network,
        "hostname": plan.hostname,
        "share_ipc": plan.share_ipc,
        "entry": with_flags(str(obstacle)) if obstacle else None,
    }
    if options.limits != Limits():
        from pkgjail.jails.limits import describe_limits

        facts["limits"] = describe_limits(options)
    if arguments.steps:
        facts["every_step"] = list(map(_line, plan.steps))
    print(json.dumps(facts, indent=2) if arguments.json else _text(facts))
    if obstacle:
        raise obstacle
    return 0


def _facts(choice: Choice) -> dict[str, Any]:
    """Return a choice as JSON; `tried` maps each way to why it does not work here, or to null."""
    return {
        "way": choice.strategy,
        "why": choice.why,
        "tried": {way: why or None for way, why in choice.tried},
    }


def _text(facts: dict[str, Any]) -> str:
    lines = []
    for top, choice in facts["directories"].items():
        lines.append(f"{top}: {choice['way']}: {_MEANING[choice['way']]}")
        if choice["why"]:
            lines.append(f"    why: {choice['why']}")
        lines += [f"    {way}: {why or 'works here (tried)'}" for way, why in choice["tried"].items()]
    lines += [f"{count:7,} {kind}" for kind, count in facts["steps"].items()]
    lines.append("network: the host's" if facts["network"] else "network: a loopback of its own")
    lines.append(f"host name: {facts['hostname']}")
    if facts["share_ipc"]:
        lines.append("System V IPC and /dev/shm: the host's")
    lines += [f"{name}: {how}" for name, how in facts.get("limits", {}).items()]
    lines.append("entry: does not work here" if facts["entry"] else "entry: works here (tried)")
    return "\n".join([*lines, *facts.get("every_step", ())])


def _line(step: tuple[Any, ...]) -> str:
    """Format a step: its kind, then its fields; a file's content is shown by its length."""
    words = [type(step).__name__]
    for name, value in zip(getattr(step, "_fields", ()), step):
        if name == "content":
            words.append(f"({len(value)} bytes)")
        elif name == "mode":
            words.append(f"{value:04o}")
        elif name == "shown":
            words += [os.fsdecode(device[0]) for device in value]
        else:
            words.append(os.fsdecode(value) if isinstance(value, bytes) else str(value))
    return " ".join(words)
