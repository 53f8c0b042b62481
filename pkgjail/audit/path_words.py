"""The words by which a build's own files name a path: `-lz` and `libz` for `/usr/lib/libz.so`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pkgjail.core.model import record
from pkgjail.core.text import text_path

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHORT = 3  # shorter names are words of other meanings as well

_LIBRARY = re.compile(r"lib(.+?)(?:\.so(?:\.[\w.]+)?|\.a|\.la)")
_PYTHON = re.compile(
    r"/(?:site-packages|dist-packages|lib-dynload|python3(?:\.\d+)?)/(?!site-|dist-|lib-)(.+)"
)
_PERL = re.compile(r"/perl5?(?:-base)?/(?:(?:5\.[\d.]+|[a-z]+_perl|auto)/)*(.+)\.pm")
_HEADER = re.compile(r".*/include/(?:.*/)?[^/]+|.*\.(?:h|hh|hpp|hxx|H|mod)")
_PROGRAM = re.compile(r".*/s?bin/[^/]+|.*/libexec/.+")
_CONFIG = re.compile(r"(.+?)(?:Config|-config)\.cmake")
_FINDER = re.compile(r"Find(.+)\.cmake")
_CMAKE_FOLDER = re.compile(r".*/(?:cmake|CMake)/([^/]+?)(?:-[\d.]+)?")

_ASKS_PROGRAM = (
    r"find_program|AC_(?:CHECK|PATH)_(?:TARGET_)?(?:PROG|TOOL)|\bwhich\b|command -v|subprocess|"
    r"\bexec|system|popen|"
    r"Program |import_executable|custom_target|run_command|execute_process|COMMAND|\$\(shell|spawn"
)
_ASKS_HEADER = r"<|check|CHECK|has_header|find_path|fatal error"
_ASKS_LIBRARY = r"find_library|AC_(?:CHECK|SEARCH)_LIB|libraries|LIBS|check_library_exists|pkg_search"
_ASKS_PC = r"dependency|pkg[-_]?config|pkg_(?:check|search)_module|PKG_CHECK|PKG_CONFIG|pkgconf|requires"
_ASKS_PYTHON = (
    r"\bimport\b|\bfrom\b|\bmetadata\b|get_distribution|iter_entry_points|"
    r"\bmodules?\b|requires|import_module|PYTHON_MODULE|python3? +-m|find_installation"
)
# What stands before a name in the title of a test that looks for it.
_LOOKS_FOR = r"(?:\bfor|\b(?:[Pp]rogram|[Ll]ibrary|[Hh]eader|dependency|in|in the)|^find(?: \S+)*) [\"'<]?"
_LOOKS_FOR_MODULE = r"\bmodules?:? [\"'<]?|^Program python\S* \((?:[\w.]+, )*"
_LOOKS_FOR_PACKAGE = r"\b(?:package|dependency) "
_ASKS_PERL = r"\buse\b|\brequires?\b|-M|PERL_MODULE|\bmodules?\b"
_ASKS_CMAKE = r"(?i:find_package|find_dependency|dependency)"


@record
class Word:
    """A word that names a path, by itself or only beside a `context`, which may stand before it in its call.

    `pattern` finds the word, and `title` finds it in what a test says that it looks for. `token` is one of
    its runs of letters, for an index. `is_program` is set for the name of a program: a test that compiles
    looks for a function of that name.
    """

    token: str
    pattern: re.Pattern[str]
    title: re.Pattern[str]
    context: re.Pattern[str] | None = None
    is_program: bool = False


_LISTS = re.compile(r"\*|listdir|scandir|iterdir|opendir|readdir|glob|GLOB|\bls\b|\bfind\b")
_NEVER = re.compile(r"(?!)")
_TOKEN = re.compile(r"\w+")


def tokens(text: str) -> list[str]:
    """Return the runs of letters, digits and underscores of a text in lower case, for an index of words."""
    return _TOKEN.findall(text.lower())


def words_for(path: bytes) -> tuple[Word, ...]:
    """Return the words that name `path`; the most exact first, none if nothing can be told from its name."""
    text = text_path(path)
    found = [_word(text)]
    for names in (_header, _library, _pkg_config, _python, _perl, _cmake, _program):
        found += names(text)
    if len(found) == 1:
        found += _data(text)
    return tuple(word for word in found if word.token)


def words_for_package(name: str) -> tuple[Word, ...]:
    """Return the words that name a CMake package, which is found by the names of its directories."""
    return (_word(name, _ASKS_CMAKE, _LOOKS_FOR_PACKAGE, any_case=True),)


def words_for_module(name: str) -> tuple[Word, ...]:
    """Return the words that name a Python module or distribution."""
    return (_word(name, _ASKS_PYTHON, _LOOKS_FOR_MODULE), _word(f"import {name}"), _word(f"from {name}"))


def words_for_names(directory: bytes) -> tuple[Word, ...]:
    """Return the words that name everything in a directory, as a pattern or for a function that lists it."""
    text = text_path(directory)
    token = max(tokens(text), key=len, default="")
    pattern = re.compile(rf"(?<![\w+.-]){re.escape(text)}/?(?:\*|[\"')\]\s]|$)")
    return (Word(token=token, pattern=pattern, title=_NEVER, context=_LISTS),) if token else ()


def exact_word(name: str) -> Word:
    """Return the word `name` alone, as of a macro."""
    return _word(name)


def _word(
    literal: str, context: str = "", lead: str = "", *, any_case: bool = False, is_program: bool = False
) -> Word:
    """Make a word of `literal`, which is one in the title of a test if it stands directly behind a `lead`."""
    before = r"(?<![\w+.-])" if literal.startswith("/") else r"(?<![\w+/.-])"
    text = before + re.escape(literal) + r"(?![\w+-]|\.\w)"
    flags = re.IGNORECASE if any_case else 0
    return Word(
        token=max(tokens(literal), key=len, default=""),
        pattern=re.compile(text, flags),
        title=re.compile(f"(?:{lead}){text}", flags),
        context=re.compile(context) if context else None,
        is_program=is_program,
    )


def _header(text: str) -> Iterator[Word]:
    if _HEADER.fullmatch(text):
        parts = text.split("/")[1:]
        yield from (_word("/".join(parts[start:])) for start in range(1, len(parts) - 1))
        yield _word(parts[-1], _ASKS_HEADER)


def _library(text: str) -> Iterator[Word]:
    name = text.rpartition("/")[2]
    match = _LIBRARY.fullmatch(name)
    if match:
        short = match[1]
        yield from map(_word, (f"-l{short}", f"lib{short}.so", f"lib{short}.a", f"lib{short}", name))
        yield _word(short, _ASKS_LIBRARY, _LOOKS_FOR)


def _pkg_config(text: str) -> Iterator[Word]:
    name = text.rpartition("/")[2]
    if name.endswith(".pc"):
        yield _word(name)
        yield _word(name[:-3], _ASKS_PC, _LOOKS_FOR)


def _python(text: str) -> Iterator[Word]:
    match = _PYTHON.search(text)
    if match is None or not match[1].isprintable():
        return
    first, _, rest = match[1].partition("/")
    distribution = re.fullmatch(r"(.+?)(?:-[^-]+)*\.(?:dist|egg)-info", first)
    names = [distribution[1]] if distribution else [first.split(".")[0]]
    if rest and not distribution:
        names += [".".join([*first.split("/"), *rest.split(".")[0].removesuffix("/__init__").split("/")])]
    for name in names:
        yield from words_for_module(name)


def _perl(text: str) -> Iterator[Word]:
    match = _PERL.search(text)
    if match:
        name = match[1].replace("/", "::")
        yield _word(name, "" if "::" in name else _ASKS_PERL, "" if "::" in name else _LOOKS_FOR_MODULE)


def _cmake(text: str) -> Iterator[Word]:
    name = text.rpartition("/")[2]
    match = _CONFIG.fullmatch(name) or _FINDER.fullmatch(name)
    if match:
        yield _word(name)
    elif "." not in name:
        match = _CMAKE_FOLDER.fullmatch(text)
    if match:
        yield from words_for_package(match[1])


def _program(text: str) -> Iterator[Word]:
    name = text.rpartition("/")[2]
    if _PROGRAM.fullmatch(text):
        yield _word(name, _ASKS_PROGRAM, _LOOKS_FOR, is_program=True)
        if len(name) >= _SHORT:
            yield _command(name)


def _command(name: str) -> Word:
    """The name of a program as the first word of a command, or in quotes."""
    first = rf"^(?:\t[@-]*|\s*)(?:\S{{1,100}}=\S{{0,100}}\s+)?{re.escape(name)}(?:\s|$)"
    pattern = re.compile(rf"{first}|[\"'`|&;(]\s?{re.escape(name)}[\"'\s]")
    token = max(tokens(name), key=len, default="")
    return Word(token=token, pattern=pattern, title=_NEVER)


def _data(text: str) -> Iterator[Word]:
    parts = text.rsplit("/", 2)
    yield _word("/".join(parts[-2:]))
    if re.search(r"[._-]", parts[-1]) and len(parts[-1]) > _SHORT:
        yield _word(parts[-1])
