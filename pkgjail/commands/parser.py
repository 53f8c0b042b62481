"""The parser of all verbs: argparse's, with a verb's own exit status for bad usage."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, NoReturn

    # What `add_subparsers` gives: each verb adds its own parser to it.
    Verbs = argparse._SubParsersAction["Parser"]  # noqa: SLF001 - there is no public name


class Formatter(argparse.HelpFormatter):
    """Fits texts to the terminal's width, but for paragraphs with indented lines: examples, tables."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = (self._fill_paragraph(paragraph, width) for paragraph in text.strip("\n").split("\n\n"))
        return textwrap.indent("\n\n".join(filled), indent)

    @staticmethod
    def _fill_paragraph(paragraph: str, width: int) -> str:
        as_it_is = "\n " in paragraph
        # A word that is wider, as a path, can be copied whole.
        return paragraph if as_it_is else textwrap.fill(paragraph, width, break_long_words=False)


class Parser(argparse.ArgumentParser):
    """Ends with a verb's default `failure` where that is not 0.

    In `run` and `shell` any status up to 124 may be that of the command in the jail.
    """

    def __init__(self, **texts: Any) -> None:
        super().__init__(**{"formatter_class": Formatter, **texts})

    def add_manifest(self) -> None:
        """Add the argument MANIFEST, for a verb that takes no whitelist in its place."""
        self.add_argument("manifest", metavar="MANIFEST", help="a manifest that 'pkgjail resolve' made")

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong with the arguments, and exit."""
        self.print_usage(sys.stderr)
        self.exit(self.get_default("failure") or 2, f"{self.prog}: error: {message}\n")
