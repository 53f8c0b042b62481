"""The parser of all verbs: argparse's, with a verb's own exit status for bad usage."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import TYPE_CHECKING

from pkgjail.cli.output import explain_loss, tell_error
from pkgjail.cli.streams import is_reader_gone, lost_output
from pkgjail.core.errors import OutputError, UsageError
from pkgjail.core.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterable
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

    In `run` and `shell` any status up to 124 may be that of the command in the jail. With `as_json` bad
    usage is told as an object of JSON.
    """

    def __init__(self, **texts: Any) -> None:
        super().__init__(**{"formatter_class": Formatter, **texts})
        self.as_json = False

    def add_manifest(self) -> None:
        """Add the argument MANIFEST, for a verb that takes no whitelist in its place."""
        self.add_argument("manifest", metavar="MANIFEST", help="a manifest that 'pkgjail resolve' made")

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong with the arguments, and exit."""
        status = self.get_default("failure") or UsageError.exit_status
        told = shown(message)
        if self.as_json:
            tell_error(UsageError(f"{self.prog}: {told}"), status, as_json=True)
            self.exit(status)
        self.print_usage(sys.stderr)
        self.exit(status, f"{self.prog}: error: {told}\n")

    def refuse_unknown(self, words: Iterable[str]) -> NoReturn:
        """Exit for words that mean nothing to this verb, with the option that each may be meant for."""
        told = [
            word + _near(word.partition("=")[0], self._option_string_actions if word[:1] == "-" else ())
            for word in words
        ]
        self.error(f"unrecognized arguments: {' '.join(told)}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit; with a failure's status where help was asked for and cannot be written."""
        lost = None if status else lost_output()
        if lost is not None and not is_reader_gone(lost):
            status = self.get_default("failure") or OutputError.exit_status
            tell_error(OutputError(explain_loss(lost)), status, as_json=self.as_json)
        super().exit(status, message)
        raise AssertionError  # for type checkers: it has exited

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is none of an action's choices; argparse's own, and what may be meant."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += _near(str(value), map(str, action.choices or ()))
            raise


def _near(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # for bad usage alone

    found = get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
