"""Parts of the reference that are made from the code: the command line and the public API.

A page says where with a mark on a line of its own:

    <!-- command line -->          every verb: usage, arguments, options
    <!-- functions: NAME ... -->   public functions, by their names in pkgjail
    <!-- types -->                 the types that public functions take and return
    <!-- errors -->                the errors that they raise

`filled` fails if a public function is on no page or on two.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
import textwrap
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pkgjail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_MARK = re.compile(r"^<!-- (command line|functions|types|errors)(?:: ([\w\s]+?))? -->$", re.MULTILINE)
_API_PAGE = Path(__file__).with_name("api.md")


def filled(page: str) -> str:
    """Return the Markdown of a page, its marks replaced."""
    return _MARK.sub(lambda mark: "\n".join(_PARTS[mark[1]]((mark[2] or "").split())), page)


# --- the command line -------------------------------------------------------------------------


def _parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each verb. This is the one place that knows where the command line is."""
    from pkgjail.cli.main import make_parsers

    return dict(make_parsers()[1])


def _command_line(_: list[str]) -> Iterator[str]:
    for verb, parser in _parsers().items():
        yield from (f"## {verb}", "", f"```{{program}} pkgjail {verb}", "```", "")
        yield from (*_prose(parser.description), "")
        usage = parser.format_usage().replace("usage: ", " " * len("usage: "), 1).rstrip()
        yield from ("```text", textwrap.dedent(usage), "```", "")
        for group in parser._action_groups:  # noqa: SLF001 - argparse has no public name for it
            yield from _group(group)
        yield from _prose(parser.epilog)
        yield ""


def _group(group: argparse._ArgumentGroup) -> Iterator[str]:
    """Write one group of arguments: its title, its description, and a definition for each argument."""
    actions = [action for action in group._group_actions if action.help is not argparse.SUPPRESS]  # noqa: SLF001
    actions = [action for action in actions if not isinstance(action, argparse._HelpAction)]  # noqa: SLF001
    if not actions:
        return
    yield from (f"**{str(group.title).capitalize()}**", "", *_prose(group.description), "")
    for action in actions:
        text = _inline(str(action.help) % {**vars(action), "prog": "pkgjail"})
        if action.option_strings:
            yield from (f"```{{option}} {_signature(action)}", "", text, "```", "")
        else:
            yield from (f"`{_metavar(action)}`", f": {text}", "")


def _signature(action: argparse.Action) -> str:
    """Write an option as usages do: `-o FILE, --output FILE`."""
    value = "" if action.nargs == 0 else f" {_metavar(action)}"
    if action.nargs == "?":
        value = f"[={_metavar(action)}]"
    return ", ".join(option + value for option in action.option_strings)


def _metavar(action: argparse.Action) -> str:
    if action.metavar is None and action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return str(action.metavar or action.dest.upper())


def _prose(text: str | None) -> Iterator[str]:
    """Write a help text: paragraphs as text, and those with indented lines as they are."""
    for paragraph in (text or "").strip("\n").split("\n\n"):
        if re.match(r"\w[^\n]*:\n ", paragraph):
            title, block = paragraph.split("\n", 1)
            yield from (f"**{title.rstrip(':').capitalize()}**", "")
            yield from ("```text", textwrap.dedent(block), "```", "")
        elif "\n " in paragraph:
            yield from ("```text", paragraph, "```", "")
        else:
            yield from (_inline(paragraph), "")


def _inline(text: str) -> str:
    """Escape what Markdown would read as markup; quoted words and options become code."""
    words = re.split(r"((?<![\w])'[^'\n]+'(?!\w)|(?<![\w-])--?[a-z][\w-]*(?:=\w+)?)", " ".join(text.split()))
    code = {index: f"`{word.strip(chr(39))}`" for index, word in enumerate(words) if index % 2}
    return "".join(
        code.get(index) or re.sub(r"([\\`*_<>\[\]|#])", r"\\\1", word) for index, word in enumerate(words)
    )


# --- the public API ---------------------------------------------------------------------------


def _functions(names: list[str]) -> Iterator[str]:
    _refuse_gaps()
    for name in names:
        yield from ("```{eval-rst}", f".. autofunction:: pkgjail.{name}", "```", "")


def _refuse_gaps() -> None:
    """Fail if the page of the API does not have each public function once."""
    marks = _MARK.findall(_API_PAGE.read_text(encoding="utf-8"))
    there = sorted(name for kind, names in marks if kind == "functions" for name in names.split())
    public = sorted(name for name in pkgjail.__all__ if not inspect.isclass(getattr(pkgjail, name)))
    if there != public:
        wrong = sorted({*there} ^ {*public}) or sorted({name for name in there if there.count(name) > 1})
        raise ValueError(f"{_API_PAGE.name} must have each public function once: {', '.join(wrong)}")


def _types(_: list[str]) -> Iterator[str]:
    for each in sorted(_public_types(), key=lambda each: each.__name__):
        if not issubclass(each, BaseException):
            members = [] if issubclass(each, tuple) else ["   :members:"]
            yield from ("```{eval-rst}", f".. autoclass:: {_full_name(each)}", *members, "```", "")


def _errors(_: list[str]) -> Iterator[str]:
    import_module("pkgjail.core.process_errors")
    for each in _subclasses(pkgjail.PkgjailError):
        if each.__module__.startswith("pkgjail.core."):
            name = _full_name(each)
            yield from ("```{eval-rst}", f".. autoexception:: {name}", "   :show-inheritance:", "```", "")


def _subclasses(base: type[Exception]) -> Iterator[type[Exception]]:
    yield base
    for each in base.__subclasses__():
        yield from _subclasses(each)


def as_rest(lines: list[str]) -> list[str]:
    """Return a docstring's lines as reStructuredText: code in single backticks, lists after a plain line."""
    rest: list[str] = []
    item: int | None = None  # how far the list is indented that the last line belongs to
    returns = False
    for line in lines:
        # As a field of reStructuredText: napoleon takes all that is before a colon for a type.
        if line == "Returns:":
            returns = True
            continue
        if returns and line:
            rest.append(f":returns: {_escaped(line.strip())}")
            returns = False
            continue
        indent = len(line) - len(line.lstrip())
        begins = line.lstrip().startswith("- ")
        in_list = item is not None and (indent > item or (begins and indent == item))
        if rest and rest[-1] and line and ((begins and not in_list) or (item is not None and not in_list)):
            rest.append("")
        if line:
            item = item if in_list else indent if begins else None
        rest.append(_escaped(line))
    return rest


def _escaped(line: str) -> str:
    parts = re.split(r"(`+)(.+?)\1", line)  # text, backticks, code, text, ...
    text = [re.sub(r"([*|\\]|_(?!\w))", r"\\\1", part) for part in parts[::3]]
    code = [f"``{part}``" for part in parts[2::3]]
    for index in range(1, len(text)):
        if re.match(r"\w", text[index]):
            text[index] = rf"\ {text[index]}"
    return "".join(x + y for x, y in zip(text, [*code, ""]))


def full_name(module: str, documented: str, short: str) -> str | None:
    """Return the full name of the class that `documented`, of a module, calls by its short name."""
    owner = getattr(import_module(module), documented.partition(".")[0])
    each = _named(short, sys.modules[owner.__module__])
    return _full_name(each) if each else None


def _full_name(each: type) -> str:
    return f"{each.__module__}.{each.__qualname__}"


@cache
def _public_types() -> frozenset[type]:
    """Return pkgjail's types in the signatures of public functions, and those in their fields."""
    found: set[type] = set()
    waiting: list[Any] = [getattr(pkgjail, name) for name in pkgjail.__all__]
    while waiting:
        one = waiting.pop()
        for each in _annotated(one):
            if each not in found:
                found.add(each)
                waiting.append(each)
    return frozenset(found)


def _annotated(one: Any) -> Iterator[type]:
    """Give pkgjail's classes in the annotations of a function, or of a class and its public methods."""
    methods = [method for name, method in vars(one).items() if name[0] != "_"] if inspect.isclass(one) else []
    for each in (one, *methods):
        function = each.fget if isinstance(each, property) else each
        for annotation in getattr(function, "__annotations__", {}).values():
            for name in re.findall(r"\b[A-Z]\w+", str(annotation)):
                found = _named(name, sys.modules[one.__module__])
                if found:
                    yield found


def _named(name: str, module: ModuleType) -> type | None:
    """Return the class of pkgjail's that a module calls `name`, perhaps for type checkers alone."""
    imported = _imports(module.__file__ or "")
    home = import_module(imported[name]) if name in imported else module
    each = getattr(home, name, None)
    return each if inspect.isclass(each) and each.__module__.startswith("pkgjail.") else None


@cache
def _imports(file: str) -> dict[str, str]:
    """Return the module that each name of a file is imported from, for type checkers alone too."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pkgjail")
        for alias in node.names
    }


_PARTS = {"command line": _command_line, "functions": _functions, "types": _types, "errors": _errors}
