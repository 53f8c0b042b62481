"""Options that limit the resources of a jail."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pkgjail.core.options import Limits

_SIZE = re.compile(r"([0-9]+)([KMGT]?)", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Add `--memory`, `--cpus` and `--pids`."""
    group = parser.add_argument_group(
        "limits", "enforced by a control group that is delegated to you (--pids also without one), or refused"
    )
    group.add_argument(
        "--memory",
        type=size,
        metavar="SIZE",
        help="limit memory to SIZE, such as 512M or 4G (powers of 1024)",
    )
    group.add_argument(
        "--cpus", type=_processors, metavar="N", help="limit processor time to N processors, such as 2 or 0.5"
    )
    group.add_argument(
        "--pids", type=_processes, metavar="N", help="limit processes and threads to N at once"
    )


def limits_of(arguments: argparse.Namespace) -> Limits:
    """Return the options of `add_limit_options` as the library takes them."""
    from pkgjail.core.options import Limits

    return Limits(memory=arguments.memory, cpus=arguments.cpus, pids=arguments.pids)


def has_limits(arguments: argparse.Namespace) -> bool:
    """Return whether any limit is given."""
    return (arguments.memory, arguments.cpus, arguments.pids) != (None, None, None)


def size(text: str) -> int:
    """Parse a size such as `512M`; return bytes. Raises `ArgumentTypeError`."""
    found = _SIZE.fullmatch(text)
    number = int(found[1]) * _UNITS[found[2].upper()] if found else 0
    if not 0 < number < 1 << 63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write it as 512M or 4G")
    return number


def _processors(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?|\.[0-9]+", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processors; write it as 2 or 0.5")
    return float(text)


def _processes(text: str) -> int:
    return count(text, "processes")


def count(text: str, things: str = "things") -> int:
    """Parse a number of `things`, at least 1. Raises `ArgumentTypeError`."""
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {things}")
    return int(text)
