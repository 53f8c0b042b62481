"""Blacklist patterns: which rule, if any, drops a path.

The syntax and its meaning are gitignore(5)'s as pathspec's `GitIgnoreSpec` understands them, over
absolute paths of the host; the root takes the repository's place. Each path is judged alone: the
last rule that matches it decides, except that a rule which names the path itself outweighs one
which only names a directory above it. That a kept path keeps its directories is not decided here.

pathspec tries one pattern after the other on each path. Here that is done once for each directory,
and one joined regular expression tells which files a pattern names by themselves: those few are tried
one by one too, and all others share the fate of their directory.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pkgjail.model import text_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pkgjail.model import Rule

# pathspec marks with this group that a pattern matched a directory (with what is below it).
_DIRECTORY = "ps_d"
_DIRECTORY_GROUP = f"(?P<{_DIRECTORY}>/)"
_ANYWHERE = "^(?:.+/)?"


def rule_text(line: str) -> str:
    """A line of a blacklist without the white space that means nothing; "" for a comment.

    White space at the end counts only where the last of it is a space behind a backslash.
    """
    text = line if line.endswith("\\ ") else line.rstrip()
    return "" if text.startswith("#") else text


def check_pattern(text: str) -> str:
    """What is wrong with a pattern, for a message; "" where it is sound. Comments are not sound."""
    if "\0" in text:
        return "it holds a NUL byte, which no path does"
    try:
        regex, _ = _translate(text)
        re.compile(regex or "")
    except (ValueError, re.error):
        return "it is no gitignore pattern; write a backslash as '\\\\', a name after '!', ranges upwards"
    return "" if regex else "it matches nothing"


class Matcher:
    """Judges paths by the `drops` of a policy. It remembers what it judged."""

    def __init__(self, drops: Sequence[Rule]) -> None:
        """Compile the rules. Raises `ValueError` for a pattern that `check_pattern` refuses."""
        for rule in drops:
            if fault := check_pattern(rule.pattern):
                raise ValueError(f"{rule.origin}: {rule.pattern!r}: {fault}")
        translated = [(rule, *_translate(rule.pattern)) for rule in drops]
        self._rules = tuple((rule, re.compile(regex or "(?!)"), drop) for rule, regex, drop in translated)
        self._names_itself = _join(regex.pattern for _, regex, _ in self._rules).match
        self._verdicts: dict[str, Rule | None] = {"": None}
        self._met: set[Rule] = set()

    def __call__(self, path: bytes, *, is_directory: bool = False) -> Rule | None:
        """Return the rule that drops `path` (absolute and normal), or None where it is kept."""
        subject = _subject(path, is_directory=is_directory)
        if not is_directory and not self._names_itself(subject):
            # What matches does so at a slash before the name, so it matches the directory as well.
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
        """Return the rules that matched none of the paths asked about so far, in their order.

        A rule that matched and was overruled is not among them.
        """
        return tuple(
            rule
            for rule, regex, _ in self._rules
            if rule not in self._met and not any(map(regex.search, self._verdicts))
        )

    def _judge(self, subject: str) -> Rule | None:
        """Try the rules from the last to the first; the first that names the path itself ends it."""
        last: tuple[Rule, bool | None] | None = None
        for rule, regex, drop in reversed(self._rules):
            match = regex.search(subject)
            if match is None:
                continue
            self._met.add(rule)
            by_name = match.groupdict().get(_DIRECTORY) is None
            if last is None or by_name:
                last = (rule, drop)
            if by_name:
                break
        return last[0] if last and last[1] else None


def matcher(drops: Sequence[Rule]) -> Matcher:
    """Make the function that gives, for a path and whether it is a directory, the rule that drops it.

    Raises `ValueError` for a pattern that `check_pattern` refuses.
    """
    return Matcher(drops)


def _translate(text: str) -> tuple[str | None, bool | None]:
    """Give a pattern's regular expression and whether it drops what matches (or re-includes it)."""
    # Here and not above, as entering a jail must not pay for it.
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    translated: tuple[str | None, bool | None] = GitIgnoreSpecPattern.pattern_to_regex(text)
    return translated


def _subject(path: bytes, *, is_directory: bool) -> str:
    """Give the path as pathspec wants it: relative to the root, a slash behind a directory.

    pathspec's `.` matches no newline. A path has no NUL byte, so NUL can stand for the newline.
    """
    text = text_path(path)[1:].replace("\n", "\0")
    return f"{text}/" if is_directory and text else text


def _join(regexes: Iterable[str]) -> re.Pattern[str]:
    """One expression that matches where any of `regexes` does other than by a directory's slash.

    A pattern of a bare name may stand at any depth, so its expression begins with `_ANYWHERE`. The
    search for the place costs most of the time and is done once for all of them.
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
    return re.compile("|".join(rooted) or "(?!)")
