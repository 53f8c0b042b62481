"""The command line's parser: argparse's, with a verb's own exit status for bad usage."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import TYPE_CHECKING

from pkgjail.cli.exit_status import BAD_USAGE, FAILURE
from pkgjail.cli.output import print_error, stream_fault
from pkgjail.cli.streams import is_reader_gone, output_fault
from pkgjail.cli.verbosity import add_verbosity_options
from pkgjail.core.errors import OutputError, UsageError
from pkgjail.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

    # What `add_subparsers` returns; each verb adds its own parser to it.
    Verbs = argparse._SubParsersAction["Parser"]  # noqa: SLF001 - there is no public name


WHOLE_IMAGE = "image:"
"""What stands in the place of a manifest for all of an image."""
PACKAGES_ALONE = "package:"
"""What stands in the place of a manifest for the packages of --package alone."""
PROJECT = "project:"
"""What stands in the place of a manifest for the project of the working directory."""


class Formatter(argparse.HelpFormatter):
    """Fit texts to the terminal's width, except paragraphs with indented lines: examples and tables."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = (self._fill_paragraph(paragraph, width) for paragraph in text.strip("\n").split("\n\n"))
        return textwrap.indent("\n\n".join(filled), indent)

    @staticmethod
    def _fill_paragraph(paragraph: str, width: int) -> str:
        as_it_is = "\n " in paragraph
        # A longer word, such as a path, stays in one piece and can be copied.
        return paragraph if as_it_is else textwrap.fill(paragraph, width, break_long_words=False)


class Parser(argparse.ArgumentParser):
    """A parser that exits with the verb's default `failure`, unless that is 0.

    For `run` and `shell`, any status up to 124 may be the status of the command in the jail. With
    `as_json`, bad usage is reported as a JSON object. `inner` has the parsers of a verb's own commands, by
    their names behind the verb's.
    """

    def __init__(self, **texts: Any) -> None:
        super().__init__(**{"formatter_class": Formatter, **texts})
        self.as_json = False
        self.inner: dict[str, Parser] = {}
        add_verbosity_options(self, argparse.SUPPRESS)

    def add_manifest(self) -> None:
        """Add the argument MANIFEST, for a verb that takes no whitelist in its place."""
        self.add_argument(
            "manifest",
            metavar="MANIFEST",
            help="a manifest that 'pkgjail resolve' made; - for standard input",
        )

    def has_positional(self, words: Iterable[str]) -> bool:
        """Return whether any of these words is neither an option nor the value of one."""
        value_follows = False
        for word in words:
            if value_follows or word[:1] != "-" or word == "-":
                if not value_follows:
                    return True
                value_follows = False
                continue
            name, equals, _ = word.partition("=")
            action = self._option_string_actions.get(name)
            value_follows = action is not None and action.nargs is None and not equals
        return False

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit."""
        status = self.get_default("failure") or BAD_USAGE
        text = printable(message)
        if self.as_json:
            print_error(UsageError(f"{self.prog}: {text}"), status, as_json=True)
            self.exit(status)
        self.print_usage(sys.stderr)
        self.exit(status, f"{self.prog}: error: {text}\n")

    def refuse_unknown(self, words: Iterable[str]) -> NoReturn:
        """Exit because of unknown arguments; suggest the option that each may stand for."""
        unknown = [
            word + near(word.partition("=")[0], self._option_string_actions if word[:1] == "-" else ())
            for word in words
        ]
        self.error(f"unrecognized arguments: {' '.join(unknown)}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit; with a failure status if help was requested and cannot be written."""
        fault = None if status else output_fault()
        if fault is not None and not is_reader_gone(fault):
            status = self.get_default("failure") or FAILURE
            print_error(OutputError(stream_fault(fault)), status, as_json=self.as_json)
        super().exit(status, message)
        raise AssertionError  # for type checkers: it has exited

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is not one of an action's choices: name the nearest, or all if none is near."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            suggestion = near(str(value), map(str, action.choices or ()))
            if suggestion:
                error.message = f"invalid choice: {value!r}{suggestion}"
            raise


def near(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the known word that is most like `word`, or ""."""
    from difflib import get_close_matches  # for bad usage alone

    found = get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
