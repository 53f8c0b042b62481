"""What a build says of itself in the files that it leaves: results of tests, macros, cached variables.

Formats: config.log and config.h of Autoconf ("Writing Autoconf Macros"), CMakeCache.txt (cmake(1)), meson's
`meson-info/intro-*.json` ("IDE integration"). A build can put anything into such files: nothing here fails on
them, and long values count by a digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Literal

from pkgjail.audit.build_files import build_file
from pkgjail.audit.log_tests import logged_tests
from pkgjail.core.untrusted import MIB, PARSE_INT, is_nested

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FactKind = Literal["needed", "runpath", "soname", "define", "test", "cmake", "meson", "variable"]
"""A kind of fact: libraries that an ELF file needs, directories where it looks for them, its own name; a
macro of config.h; the result of a test in a log; a variable of CMake, of meson, of configure."""

Facts = dict[tuple[FactKind, str], str]

LARGEST = 64 * MIB
"""The most bytes of a file that is read for facts."""

LOGS = re.compile(
    rb"(?:.*/)?(?:config\.log|CMake(?:Output|Error)\.log|CMakeConfigureLog\.yaml|meson-log\.txt|"
    rb"\.ninja_(?:log|deps))",
    re.DOTALL,
)
"""Files that a build writes about itself, of which only the facts count: they name temporary files."""

_MOST_FACTS = 50_000  # of one file
_LONGEST = 400  # characters of a name or a value
_MOST_LEVELS = 6  # of meson's objects and lists
_CONFIG_LOG = re.compile(rb"(?:.*/)?config\.log", re.DOTALL)
_CONFIG_HEADER = re.compile(rb"(?:.*/)?[^/]*conf(?:ig|defs)[^/]*\.h(?:pp|h)?", re.DOTALL | re.IGNORECASE)
_CMAKE_CACHE = re.compile(rb"(?:.*/)?CMakeCache\.txt", re.DOTALL)
_MESON = re.compile(rb"(?:.*/)?meson-info/intro-[a-z_-]+\.json", re.DOTALL)
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z_0-9]*)=(.*)")
_QUOTED = re.compile(r"'([^']*)'")  # some shells quote all values, and some only if they must
_DEFINE = re.compile(r"[ \t]*#[ \t]*define[ \t]+([A-Za-z_][A-Za-z_0-9]*)(?:\([^)]*\))?[ \t]*(.*)")
_UNDEFINED = re.compile(r"[ \t]*/\*[ \t]*#[ \t]*undef[ \t]+([A-Za-z_][A-Za-z_0-9]*)[ \t]*\*/")
_CACHED = re.compile(r"([^#/\s][^:=]*|\"[^\"]*\"):([A-Z]+)=(.*)")
# The titles of config.log's parts are in boxes of #, each in a line `## Cache variables. ##`.
_SECTION = re.compile(r"## ([^-].*) ##")
_VARIABLES = ("Cache variables.", "Output variables.")


def has_facts(path: bytes) -> bool:
    """Return whether a file of this name may have facts for `read_facts`."""
    return any(name.fullmatch(path) for name in (LOGS, _CONFIG_HEADER, _CMAKE_CACHE, _MESON))


def read_facts(path: bytes, content: bytes) -> Facts:
    """Return the facts of a file by kind and name; none if it has no such name, or makes no sense."""
    text = content.decode("utf-8", "surrogateescape")
    found: Iterable[tuple[FactKind, str, str]] = ()
    if LOGS.fullmatch(path):
        found = (*_tests(path, content), *(_variables(text) if _CONFIG_LOG.fullmatch(path) else ()))
    elif _CMAKE_CACHE.fullmatch(path):
        found = _cmake_cache(text)
    elif _MESON.fullmatch(path):
        found = _meson(text)
    elif _CONFIG_HEADER.fullmatch(path):
        found = _config_header(text)
    return _bounded(found)


def _bounded(found: Iterable[tuple[FactKind, str, str]]) -> Facts:
    """Return the first facts by kind and name; the second of one name is `NAME (2)`."""
    facts: Facts = {}
    times: dict[tuple[FactKind, str], int] = {}
    for kind, name, value in found:
        short = _short(name)
        count = times[kind, short] = times.get((kind, short), 0) + 1
        facts[kind, short if count == 1 else f"{short} ({count})"] = _short(value)
        if len(facts) >= _MOST_FACTS:
            break
    return facts


def _short(text: str) -> str:
    """Return a text, or the beginning of a long one and a digest of all of it."""
    if len(text) <= _LONGEST:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{text[: _LONGEST // 2]}… ({len(text)} characters, sha256:{digest})"


def _tests(path: bytes, content: bytes) -> Iterator[tuple[FactKind, str, str]]:
    """Yield the results of the tests that a log has."""
    file = build_file(path, content)
    for test in () if file is None else logged_tests(file):
        yield "test", test.title, test.result


def _variables(text: str) -> Iterator[tuple[FactKind, str, str]]:
    """Yield the variables that configure wrote at the end of config.log."""
    section = ""
    for line in text.split("\n"):
        if title := _SECTION.fullmatch(line):
            section = title[1]
        elif section in _VARIABLES and (found := _VARIABLE.fullmatch(line)):
            yield "variable", found[1], _QUOTED.sub(r"\1", found[2]).strip()


def _config_header(text: str) -> Iterator[tuple[FactKind, str, str]]:
    """Yield the macros of a header that configure, CMake or meson made, also those left undefined."""
    for line in text.split("\n"):
        if found := _DEFINE.fullmatch(line):
            yield "define", found[1], f"#define {found[1]} {found[2].strip()}".rstrip()
        elif found := _UNDEFINED.fullmatch(line):
            yield "define", found[1], f"#undef {found[1]}"


def _cmake_cache(text: str) -> Iterator[tuple[FactKind, str, str]]:
    for line in text.split("\n"):
        if found := _CACHED.fullmatch(line):
            yield "cmake", found[1].strip('"'), found[3]


def _meson(text: str) -> Iterator[tuple[FactKind, str, str]]:
    if is_nested(text):
        return
    try:
        found = list(_flat(json.loads(text, parse_int=PARSE_INT), ()))
    except (ValueError, RecursionError):
        return
    yield from found


def _flat(value: Any, names: tuple[str, ...]) -> Iterator[tuple[FactKind, str, str]]:
    """Yield each plain value by the names on the way to it; an object of a list is known by its own name."""
    if isinstance(value, dict) and len(names) < _MOST_LEVELS:
        for key in sorted(value):
            yield from _flat(value[key], (*names, key))
    elif isinstance(value, list) and len(names) < _MOST_LEVELS and any(isinstance(e, dict) for e in value):
        for index, each in enumerate(value):
            name = each.get("name") if isinstance(each, dict) else None
            yield from _flat(each, (*names, name if isinstance(name, str) else str(index)))
    else:
        yield "meson", ".".join(names), value if isinstance(value, str) else json.dumps(value, sort_keys=True)
