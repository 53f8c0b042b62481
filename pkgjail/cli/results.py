"""Whether what a verb was asked for is what it prints, so that it has failed where that cannot be written.

Elsewhere the result is something else, a file or an exit status, and what is printed tells of it.
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
    """The result is what was done, or how a command ended."""
    del arguments
    return False


def without_file(arguments: argparse.Namespace) -> bool:
    """The output is the result, unless `-o` names a file for it."""
    return bool(arguments.output == "-")


def as_json(arguments: argparse.Namespace) -> bool:
    """The exit status is the result, and for a program that asks for JSON the output too."""
    return bool(arguments.json)
