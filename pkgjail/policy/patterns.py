"""Blacklist patterns: find the rule, if any, that drops a path.

Syntax and meaning are those of gitignore(5), as pathspec's `GitIgnoreSpec` understands them, over
absolute paths of the host, with `/` as the root of the repository. Each path is judged alone: the last
rule that matches it decides, except that a rule that names the path itself outweighs one that names only
a directory above it. A kept path also keeps its directories, but that is not decided here.

pathspec tries one pattern after another on each path. Here this is done once for each directory. One
joined regular expression finds the files that a pattern names themselves; only these are also tried one
by one, and every other file shares the result of its directory.

The cost of a pattern is bounded. Between two wildcards, the first position that fits is as good as any
later one, so `bounded` makes the expression try no other. Otherwise `*a*a*a*a*` takes minutes.
"""

from __future__ import annotations

import re
import warnings
from itertools import count
from typing import TYPE_CHECKING

from pkgjail.core.text import text_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pkgjail.core.model import Rule

# pathspec marks with this group that a pattern matched a directory (with what is below it).
_DIRECTORY = "ps_d"
_DIRECTORY_GROUP = f"(?P<{_DIRECTORY}>/)"
_ANYWHERE = "^(?:.+/)?"
MAX_CHARACTERS = 4096
"""The length limit of a pattern: that of a path."""
# The pieces that pathspec translates a pattern to; `**` is `_ANYWHERE` in front, otherwise `_BETWEEN`.
_BETWEEN = "(?:/.+)?"
_PIECES = re.compile(
    rf"""{re.escape(_ANYWHERE)} | {re.escape(_BETWEEN)}
    | \(\?:{re.escape(_DIRECTORY_GROUP)}\|\$\) | {re.escape(_DIRECTORY_GROUP)}
    | \[\^/\][*+]? | \[\^?\]?[^]]*\] | \\. | .""",
    re.VERBOSE | re.DOTALL,
)
# A class of fnmatch(3) within brackets, which pathspec takes literally.
_CLASS = re.compile(r"\[[^\]]*\[:[a-z]+:\]")
_ANY, _STAR, _SOME = "[^/]", "[^/]*", "[^/]+"
_WILD = (_ANY, _STAR, _SOME)
_MAX_UNBOUNDED = 3  # `**` and `*`, with the implied `**` before a bare name
_numbers = count()


def rule_text(line: str) -> str:
    """Return a line of a blacklist without insignificant white space; "" for a comment.

    White space at the end is significant only if its last character is a space after a backslash.
    """
    text = line if line.endswith("\\ ") else line.rstrip()
    return "" if text.startswith("#") else text


def check_pattern(text: str) -> str:
    """Say what is wrong with a pattern, for a message; "" if nothing is. A comment is not a pattern."""
    if "\0" in text:
        return "it has a NUL byte, which no path has"
    if len(text) > MAX_CHARACTERS:
        return f"it has more than {MAX_CHARACTERS} characters"
    if _CLASS.search(text):
        return "classes such as [:alpha:] are not supported; list the characters, as in a-z"
    try:
        regex, _ = _translate(text)
        _compile(regex or "")
    except _TooWildError:
        return (
            "it has too many '*' beside a '[...]' that matches a '/', as '[!a]' does; list what the brackets "
            "match, or leave out wildcards"
        )
    except (ValueError, re.error, OverflowError):
        return "it is not a gitignore pattern; write a backslash as '\\\\', a name after '!', ranges upwards"
    return "" if regex else "it matches nothing"


class Matcher:
    """Matches paths with the `drops` of a policy, and remembers the results."""

    def __init__(self, drops: Sequence[Rule]) -> None:
        """Compile the rules. Raises `ValueError` for a pattern that `check_pattern` refuses."""
        for rule in drops:
            if fault := check_pattern(rule.pattern):
                raise ValueError(f"{rule.origin}: {rule.pattern!r}: {fault}")
        translated = [(rule, *_translate(rule.pattern)) for rule in drops]
        self._rules = tuple((rule, _compile(regex or "(?!)"), drop) for rule, regex, drop in translated)
        self._names_itself = _join(regex.pattern for _, regex, _ in self._rules).match
        self._verdicts: dict[str, Rule | None] = {"": None}
        self._matched: set[Rule] = set()

    def __call__(self, path: bytes, *, is_directory: bool = False) -> Rule | None:
        """Return the rule that drops `path` (absolute and normal), or None if it is kept."""
        subject = _subject(path, is_directory=is_directory)
        if not is_directory and not self._names_itself(subject):
            # A match ends at a slash before the name, so the directory matches as well.
            subject = subject[: subject.rfind("/") + 1]
        if subject in self._verdicts:
            return self._verdicts[subject]
        verdict = self._verdicts[subject] = self._judge(subject)
        return verdict

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, in their order."""
        return tuple(rule for rule, _, _ in self._rules)

    def unmatched(self) -> tuple[Rule, ...]:
        """Return the rules that have matched no path so far, in their order.

        A rule that matched and was overruled is not among them.
        """
        return tuple(
            rule
            for rule, regex, _ in self._rules
            if rule not in self._matched and not any(map(regex.search, self._verdicts))
        )

    def _judge(self, subject: str) -> Rule | None:
        """Try the rules from the last to the first, up to one that names the path itself."""
        last: tuple[Rule, bool | None] | None = None
        for rule, regex, drop in reversed(self._rules):
            match = regex.search(subject)
            if match is None:
                continue
            self._matched.add(rule)
            by_name = match.groupdict().get(_DIRECTORY) is None
            if last is None or by_name:
                last = (rule, drop)
            if by_name:
                break
        return last[0] if last and last[1] else None


def matcher(drops: Sequence[Rule]) -> Matcher:
    """Return a `Matcher` of these rules. Raises `ValueError` for a pattern that `check_pattern` refuses."""
    return Matcher(drops)


def _translate(text: str) -> tuple[str | None, bool | None]:
    """Return a pattern's regular expression, and whether it drops matching paths (or re-includes them)."""
    # Imported here, because entering a jail must not pay for it.
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    translated: tuple[str | None, bool | None] = GitIgnoreSpecPattern.pattern_to_regex(text)
    regex, drop = translated
    return (bounded(regex) if regex else regex), drop


class _TooWildError(ValueError):
    """A pattern whose cost cannot be bounded."""


def bounded(regex: str) -> str:
    """Return an expression that matches the same as pathspec's `regex`, without trying all ways to match.

    With too few wildcards to matter, it is the same expression. Raises `_TooWildError`.
    """
    pieces = _PIECES.findall(regex)
    takes_slash = any(
        piece[0] == "[" and piece not in _WILD and _compile(piece).match("/") for piece in pieces
    )
    gaps = [index for index, piece in enumerate(pieces) if piece in {_ANYWHERE, _BETWEEN}]
    if takes_slash:
        # A '[...]' that matches a slash may end in any name, so no position is known to be the best.
        if len(gaps) + _stars(pieces) > _MAX_UNBOUNDED:
            raise _TooWildError
        return regex
    if len(gaps) <= 1:
        return _with_bounded_names(pieces)
    # The part before the first `**`, and each `**` with what follows it; the last one stays as it is.
    cuts = [*gaps, len(pieces)]
    parts = [pieces[start:end] for start, end in zip(cuts, cuts[1:])]
    first = "".join(map(_first_place, parts[:-1]))
    return _with_bounded_names(pieces[: gaps[0]]) + first + _with_bounded_names(parts[-1])


def _first_place(pieces: list[str]) -> str:
    """`**` and the names after it, up to the next `**`: only the first position that has them."""
    gap, *names = pieces
    if gap == _ANYWHERE:
        return "^" + _only(f"(?:.+?/)??{_with_bounded_names(names)}(?=/)")
    return _only(f"(?:/.+?)??{_with_bounded_names(names)}(?=/)")


def _only(regex: str) -> str:
    """Return `regex` as an atomic group, which Python has since 3.11."""
    name = f"only{next(_numbers)}"
    return f"(?=(?P<{name}>{regex}))(?P={name})"


def _with_bounded_names(pieces: list[str]) -> str:
    return "/".join(map(_bounded_name, _names(pieces)))


def _names(pieces: list[str]) -> list[list[str]]:
    """Split `pieces` at the slashes between names."""
    found: list[list[str]] = [[]]
    for piece in pieces:
        if piece == "/":
            found.append([])
        else:
            found[-1].append(piece)
    return found


def _stars(pieces: list[str]) -> int:
    return sum(piece in {_STAR, _SOME} for piece in pieces)


def _bounded_name(name: list[str]) -> str:
    """Join the pieces of one name, so that text between stars matches only at its first position.

    Adjacent wildcards are put in one order: `*?*?` means `??*`.
    """
    if _stars(name) <= 1:
        return "".join(name)
    between: list[list[str]] = [[]]
    in_a_row = False
    for piece in name:
        in_a_row = in_a_row and piece in _WILD
        if piece in {_ANY, _SOME}:
            between[-2 if in_a_row else -1].append(_ANY)
        elif piece not in _WILD:
            between[-1].append(piece)
        if piece in {_STAR, _SOME} and not in_a_row:
            between.append([])
            in_a_row = True
    first, *middle, last = ["".join(each) for each in between]
    return first + "".join(_only(f"{_STAR}?{each}") for each in middle) + _STAR + last


def _subject(path: bytes, *, is_directory: bool) -> str:
    """Return the path in pathspec's form: relative to the root, with a slash after a directory.

    pathspec's `.` matches no newline. A path has no NUL byte, so NUL can stand for the newline.
    """
    text = text_path(path)[1:].replace("\n", "\0")
    return f"{text}/" if is_directory and text else text


def _join(regexes: Iterable[str]) -> re.Pattern[str]:
    """Return one expression that matches if any of `regexes` matches other than by a directory's slash.

    A pattern of a bare name matches at any depth, so its expression begins with `_ANYWHERE`. The search
    for the position takes most of the time, and is done once for all of them.
    """
    rooted, anywhere = [], []
    for regex in regexes:
        source = regex.replace(_DIRECTORY_GROUP, "(?!)")
        if source.startswith(_ANYWHERE):
            anywhere.append(f"(?:{source[len(_ANYWHERE) :]})")
        else:
            rooted.append(source if source.startswith("^") else f"[^\n]*?(?:{source})")
    if anywhere:
        rooted.append(f"{_ANYWHERE}(?:{'|'.join(anywhere)})")
    return _compile("|".join(rooted) or "(?!)")


def _compile(regex: str) -> re.Pattern[str]:
    """Compile `regex` without Python's warning of possible future operators, as in `[[a]` or `[+--z]`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(regex)
