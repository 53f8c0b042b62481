"""Conditions under which a verb's output is its result.

Then the verb has failed if the output cannot be written. Otherwise the result is a file or an exit status,
and the output only reports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def always(arguments: argparse.Namespace) -> bool:
    """The output is the result."""
    del arguments
    return True


def never(arguments: argparse.Namespace) -> bool:
    """The result is the work done, or a command's exit status."""
    del arguments
    return False


def without_file(arguments: argparse.Namespace) -> bool:
    """The output is the result unless `-o` names a file."""
    return bool(arguments.output == "-")


def as_json(arguments: argparse.Namespace) -> bool:
    """The exit status is the result; with `--json`, so is the output."""
    return bool(arguments.json)
