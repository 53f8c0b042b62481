"""Find the lines of a build's own files that have to do with a path: tests that looked for it, sources.

A jail sees which path was asked for, and not why. The build's logs and sources say why: configure was at
`checking for zlib.h`. They also say what was meant when a directory was only listed, as Python and CMake do:
they never ask for a name that the listing lacks.
"""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING

from pkgjail.audit.build_files import read_build_files
from pkgjail.audit.log_tests import LoggedTest, logged_tests
from pkgjail.audit.model import Mention
from pkgjail.audit.path_words import (
    exact_word,
    tokens,
    words_for,
    words_for_module,
    words_for_names,
    words_for_package,
)
from pkgjail.core.text import text_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from pkgjail.audit.build_files import BuildFile, Form
    from pkgjail.audit.path_words import Word

MOST_MENTIONS = 5
"""The most mentions of one path."""

_MOST_TEXT = 300  # characters of a mention
_MOST_PLACES = 2000  # lines of one word
_MOST_NAMES = 20_000  # of one directory
_MOST_CALL = 50  # lines

_LOGS: frozenset[Form] = frozenset({"autoconf log", "cmake log", "cmake events", "meson log"})
_CALLS: frozenset[Form] = frozenset({"autoconf", "cmake", "meson", "python", "settings"})
_PYTHON_PLACE = re.compile(rb"/(?:site-packages|dist-packages|lib-dynload|python3(?:\.\d+)?)$")
_MACRO_PLACE = re.compile(rb"/aclocal(?:-[\d.]+)?$")
_PACKAGE_PLACE = re.compile(rb"/(?:cmake|CMake|share|lib|lib64|lib/[\w-]+-linux-gnu\w*)$|^/opt$|^/usr/local$")
_PACKAGE = re.compile(r"(?i:find_package|find_dependency|dependency) *\(\s*'?([\w.+-]{2,100})")
_MACRO = re.compile(
    r"\b(?:AC_DEFUN|AC_DEFUN_ONCE|AU_DEFUN|AU_ALIAS|m4_defun|m4_define|define)\(\[?([A-Za-z_]\w{2,100})\]?"
)
# Files that a build names by themselves, and a tool looks for in the directories that it knows.
_NAMED_ALONE = re.compile(rb"\.(?:cmake|pc|so|a|pm|h|hh|hpp|hxx)$|\.so\.")
_DISTRIBUTION = re.compile(r"(.+?)(?:-[^-]+)*\.(?:dist|egg)-info")
_NOT_FOUND = re.compile(r"(\w+):\w+=\1-NOTFOUND")
_VARIABLE = re.compile(r"(?i:find_\w+) *\(\s*(\w+)")


class BuildFiles:
    """A build's own logs and sources, indexed by their words."""

    def __init__(self, files: Iterable[BuildFile]) -> None:
        """Index `files`, the most telling first."""
        self._titles: list[LoggedTest] = []
        self._bodies: list[tuple[str, int]] = []  # a line, and the number of its test
        self._lines: list[tuple[BuildFile, int, int]] = []  # a file, a line, and where its call begins
        self._missed: set[str] = set()
        self._packages: dict[str, None] = {}
        title_index, body_index, line_index = _Index(), _Index(), _Index()
        for file in files:
            if file.form in _LOGS:
                for test in logged_tests(file):
                    title_index.add(test.title, len(self._titles))
                    for line in dict.fromkeys(test.body):
                        body_index.add(line, len(self._bodies))
                        self._bodies.append((line, len(self._titles)))
                    self._titles.append(test)
            elif file.form == "cmake cache":
                self._missed.update(match[1] for line in file.lines if (match := _NOT_FOUND.fullmatch(line)))
            else:
                for number, start in enumerate(_call_starts(file)):
                    line_index.add(file.lines[number], len(self._lines))
                    self._lines.append((file, number, start))
                    self._packages.update(dict.fromkeys(_PACKAGE.findall(file.lines[number])))
        self._in_titles, self._in_bodies, self._in_lines = title_index, body_index, line_index

    @classmethod
    def read(cls, paths: Iterable[bytes], binds: Mapping[bytes, bytes]) -> BuildFiles:
        """Read and index the build's files among `paths`, as `read_build_files` does."""
        return cls(read_build_files(paths, binds))

    def tests_for(self, path: bytes) -> tuple[Mention, ...]:
        """Return the lines that have to do with a path that the build asked for, the most telling first.

        Those are tests of configure, CMake and Meson that name it, then tests that named it on the way, as a
        command or an error, then lines of sources. At most `MOST_MENTIONS`.
        """
        return self._find(words_for(path))

    def naming(
        self, directory: bytes, names: Collection[bytes], read: Callable[[bytes], bytes]
    ) -> Mapping[bytes, tuple[Mention, ...]]:
        """Return which names of a directory, of which a build saw a listing, its own files name.

        Args:
            directory: the directory that was listed.
            names: those of its names that the listing lacked; of more than 20,000, the first.
            read: returns the content of a file by its path, as the listing would have offered it; raises
                `OSError` if it is none. Only files that define macros or packages are read.

        Returns:
            The mentions of each name that has any.

        """
        found: dict[bytes, tuple[Mention, ...]] = {}
        for name in sorted(names)[:_MOST_NAMES]:
            words = tuple(self._words_in(directory, name, read))
            mentions = self._find(words) if words else ()
            if mentions:
                found[name] = mentions
        return found

    def _words_in(self, directory: bytes, name: bytes, read: Callable[[bytes], bytes]) -> Iterator[Word]:
        """Yield the words by which a build means `name` if it lists `directory`."""
        text = text_path(name)
        if _PYTHON_PLACE.search(directory):
            distribution = _DISTRIBUTION.fullmatch(text)
            yield from words_for_module(distribution[1] if distribution else text.split(".")[0])
        elif _MACRO_PLACE.search(directory):
            if name.endswith(b".m4") and self._in_lines:
                yield from map(exact_word, _macros(directory + b"/" + name, read))
        elif _NAMED_ALONE.search(name):
            yield from words_for(directory + b"/" + name)[1:]
        else:
            yield from words_for_names(directory)
            for package in self._packages if _PACKAGE_PLACE.search(directory) else ():
                is_so_named = text.lower().startswith(package.lower())
                if is_so_named and _is_package(directory + b"/" + name, package, read):
                    yield from words_for_package(package)

    def _find(self, words: tuple[Word, ...]) -> tuple[Mention, ...]:
        found: dict[tuple[bytes, int], Mention] = {}
        for mention in (*self._tests(words), *self._named_in_tests(words), *self._named_in_lines(words)):
            found.setdefault((mention.file, mention.line), mention)
        return tuple(found.values())[:MOST_MENTIONS]

    def _tests(self, words: Iterable[Word]) -> Iterator[Mention]:
        for word in words:
            for number in self._in_titles.places(word.token):
                test = self._titles[number]
                if word.title.search(test.title) and not (word.is_program and _compiles(test)):
                    yield _mention_of(test)

    def _named_in_tests(self, words: Iterable[Word]) -> Iterator[Mention]:
        for word in words:
            for number in self._in_bodies.places(word.token):
                line, test = self._bodies[number]
                if word.pattern.search(line) and (word.context is None or word.context.search(line)):
                    yield _mention_of(self._titles[test])

    def _named_in_lines(self, words: Iterable[Word]) -> Iterator[Mention]:
        for word in words:
            for place in self._in_lines.places(word.token):
                file, number, start = self._lines[place]
                line = file.lines[number]
                if not word.pattern.search(line) or _is_comment(file.form, line):
                    continue
                call = line if start == number else file.lines[start]
                if word.context is None or word.context.search(line) or word.context.search(call):
                    yield Mention(
                        file=file.path,
                        line=number + 1,
                        text=line.strip()[:_MOST_TEXT],
                        result=self._outcome(call),
                    )

    def _outcome(self, call: str) -> str:
        """Return what CMake's cache says of a call: "not found", or "" if it does not say."""
        match = _VARIABLE.search(call)
        names = {match[1], f"{match[1]}_DIR"} if match else set[str]()
        return "" if self._missed.isdisjoint(names) else "not found"


class _Index:
    """The places of words."""

    def __init__(self) -> None:
        self._places: dict[str, array[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._places)

    def add(self, text: str, place: int) -> None:
        """Add the words of a text that stands at `place`."""
        for token in set(tokens(text)):
            places = self._places.setdefault(token, array("I"))
            if len(places) < _MOST_PLACES:
                places.append(place)

    def places(self, token: str) -> Iterable[int]:
        """Return the places of a word, in the order in which they were added: at most `_MOST_PLACES`."""
        return self._places.get(token, ())


def _call_starts(file: BuildFile) -> Iterator[int]:
    """Yield for each line the number of the line where its call begins, or its own."""
    start = depth = 0
    for number, line in enumerate(file.lines):
        if depth <= 0 or number - start > _MOST_CALL:
            start, depth = number, 0
        yield start
        if file.form in _CALLS:
            depth += line.count("(") + line.count("[") - line.count(")") - line.count("]")


def _is_comment(form: Form, line: str) -> bool:
    starts = ("//", "/*", "*") if form == "c" else ("#", "dnl ")
    return line.lstrip().startswith(starts)


def _compiles(test: LoggedTest) -> bool:
    return any("conftest." in line for line in test.body)


def _mention_of(test: LoggedTest) -> Mention:
    return Mention(
        file=test.file, line=test.line, text=test.title[:_MOST_TEXT], result=test.result[:_MOST_TEXT]
    )


def _macros(path: bytes, read: Callable[[bytes], bytes]) -> Iterator[str]:
    """Yield the names of the macros that a file of aclocal's defines."""
    try:
        text = read(path).decode("utf-8", "replace")
    except OSError:
        return
    yield from dict.fromkeys(match[1] for match in _MACRO.finditer(text))


def _is_package(path: bytes, name: str, read: Callable[[bytes], bytes]) -> bool:
    """Return whether CMake would find the package `name` in the directory `path`."""
    for folder in (b"", b"/cmake", b"/CMake"):
        for file in (f"{name}Config.cmake", f"{name.lower()}-config.cmake"):
            try:
                read(path + folder + b"/" + file.encode())
            except OSError:
                continue
            return True
    return False
