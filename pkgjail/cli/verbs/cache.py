"""`pkgjail cache`: list or remove what pkgjail keeps between runs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from pkgjail.cli.console import human_size
from pkgjail.core.text import printable

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs
    from pkgjail.storage.cache import CacheItem

_DAY_SECONDS = 86400
_DESCRIPTION = """\
List (ls) or remove (prune) what pkgjail keeps between runs: in your cache directory
($XDG_CACHE_HOME/pkgjail or ~/.cache/pkgjail: baselines, ld.so caches, file digests), in your runtime
directory (/dev/shm/pkgjail-UID or $XDG_RUNTIME_DIR/pkgjail: overlay layers, prepared jails, what this
kernel can do), and the baselines that you published in /var/tmp/pkgjail-UID. All of it is made again when
needed. 'prune' also removes what killed processes left, of any age, but nothing that is in use.
'prune --days 0' removes everything that is not in use.
"""


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "cache", help="list or remove what is kept between runs", description=_DESCRIPTION
    )
    parser.add_argument("what", choices=("ls", "prune"), help="list it, or remove what was not used recently")
    parser.add_argument(
        "--days",
        type=float,
        default=30,
        metavar="N",
        help="prune what was last used N or more days ago (default 30; 0: everything that is not in use)",
    )
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=_lists)


def _lists(arguments: argparse.Namespace) -> bool:
    return bool(arguments.what == "ls")


def run(arguments: argparse.Namespace) -> int:
    """List what is kept, or what was removed."""
    from pkgjail.storage.cache import list_cache, prune_cache

    oldest = time.time() - arguments.days * _DAY_SECONDS
    found = list_cache() if arguments.what == "ls" else prune_cache(older_than=oldest)
    if arguments.json:
        print(json.dumps([{**each._asdict(), "path": printable(str(each.path))} for each in found], indent=2))
    else:
        for each in found:
            print(_line(each))
        done = "removed" if arguments.what == "prune" else "kept"
        left = sum(each.left_over for each in found)
        rest = f"; {left} left over from killed or running work" if left else ""
        print(f"{len(found)} {done}, {human_size(sum(each.bytes for each in found))}{rest}")
    return 0


def _line(each: CacheItem) -> str:
    used = time.strftime("%Y-%m-%d", time.localtime(each.used))
    noun = "name " if each.names == 1 else "names"
    return f"{used}  {each.names:7,} {noun}  {human_size(each.bytes):>9}  {printable(str(each.path))}"
