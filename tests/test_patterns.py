"""A blacklist means the same as for pathspec and git, for any file name."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

from pkgjail.core.model import Rule
from pkgjail.core.text import text_path
from pkgjail.policy.patterns import Matcher, check_pattern, matcher, rule_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PART = st.text(alphabet="ab.*?é\udcff", min_size=1, max_size=3) | st.sampled_from(
    ["**", "*", "[ab]", "[!a]", "[a-b]*", "\\*", "\\!a", "a b", "*a*b*", "*?*?", "**?a*?*[ab]*", "?*a?*"]
)
_PATTERNS = st.lists(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "!"]),
        st.sampled_from(["", "/"]),
        st.lists(_PART, min_size=1, max_size=6).map("/".join),
        st.sampled_from(["", "/", "/**"]),
    ).filter(lambda text: not check_pattern(text)),
    max_size=6,
)
_NAME = st.text(alphabet="ab.*! é\udcff", min_size=1, max_size=5).filter(lambda name: name not in {".", ".."})
_PATHS = st.lists(
    st.tuples(st.lists(_NAME, min_size=1, max_size=6).map("/".join), st.booleans()), min_size=1, max_size=8
)


def rules(patterns: Sequence[str]) -> tuple[Rule, ...]:
    """Return rules with numbered lines as origins."""
    return tuple(Rule(pattern=text, origin=f"list:{line}") for line, text in enumerate(patterns, start=1))


@given(_PATTERNS, _PATHS)
def test_same_answer_as_pathspec(patterns: list[str], paths: list[tuple[str, bool]]) -> None:
    """Optimizations change neither the result nor the rule that is named for it."""
    judge = matcher(rules(patterns))
    spec = GitIgnoreSpec.from_lines(patterns, backend="simple")
    for text, is_directory in paths:
        rule = judge(b"/" + text.encode("utf-8", "surrogateescape"), is_directory=is_directory)
        answer = spec.check_file(f"{text}/" if is_directory else text)
        expected = f"list:{answer.index + 1}" if answer.include and answer.index is not None else None
        assert (rule and rule.origin) == expected


@given(_PATTERNS, _PATHS)
def test_unmatched_rules(patterns: list[str], paths: list[tuple[str, bool]]) -> None:
    """A rule is reported as unmatched exactly if it would match none of the paths by itself."""
    judge = matcher(rules(patterns))
    for text, is_directory in paths:
        judge(b"/" + text.encode("utf-8", "surrogateescape"), is_directory=is_directory)
    asked = [f"{text}/" if is_directory else text for text, is_directory in paths]
    idle = [
        f"list:{line}"
        for line, pattern in enumerate(patterns, start=1)
        if all(
            GitIgnoreSpec.from_lines([pattern], backend="simple").check_file(each).include is None
            for each in asked
        )
    ]
    assert [rule.origin for rule in judge.unmatched()] == idle


GIT = shutil.which("git") or "git"
_GIT_NAMES = ["a", "b", "*", "?", "a*", "*b", "[ab]", "[!a]"]
# `**` stands in no last place, since pathspec and git differ on `a/**/`.
_GIT_PARTS = st.tuples(
    st.lists(st.sampled_from([*_GIT_NAMES, "**"]), max_size=2), st.sampled_from(_GIT_NAMES)
).map(lambda parts: "/".join([*parts[0], parts[1]]))
_GIT_PATTERNS = st.lists(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "/"]),
        _GIT_PARTS,
        st.sampled_from(["", "/"]),
    ),
    min_size=1,
    max_size=3,
).filter(lambda patterns: all(not check_pattern(text) for text in patterns))
_GIT_PATHS = st.lists(
    st.lists(st.text(alphabet="ab\n", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join),
    min_size=1,
    max_size=20,
    unique=True,
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty git repository."""
    path = tmp_path_factory.mktemp("repository")
    subprocess.run([GIT, "init", "--quiet", str(path)], check=True)
    return path


@given(patterns=_GIT_PATTERNS, paths=_GIT_PATHS)
def test_same_answer_as_git(repository: Path, patterns: list[str], paths: list[str]) -> None:
    """Patterns without `!` drop what git ignores, including names with newlines."""
    (repository / ".git/info/exclude").write_text("\n".join(patterns), encoding="utf-8")
    answer = subprocess.run(
        [GIT, "-C", str(repository), "check-ignore", "--no-index", "-z", "--stdin"],
        input="\0".join(paths).encode(),
        stdout=subprocess.PIPE,
        check=False,  # 1 says that none is ignored
    )
    judge = matcher(rules(patterns))
    dropped = [path for path in paths if judge(b"/" + path.encode())]
    assert dropped == [path for path in answer.stdout.decode().split("\0") if path]


@pytest.mark.parametrize(
    ("patterns", "path", "is_directory", "expected"),
    [
        pytest.param("*.a !libgcc.a", b"/usr/lib/libgcc.a", False, None, id="! keeps"),
        pytest.param("!libgcc.a *.a", b"/usr/lib/libgcc.a", False, "list:2", id="the last wins"),
        pytest.param("/doc/ !/doc/a/", b"/doc/a/x", False, None, id="a directory kept below a dropped one"),
        pytest.param("!/doc/a /doc/", b"/doc/a", False, None, id="a name outweighs its directory"),
        pytest.param("doc/", b"/usr/doc", False, None, id="a file is no directory"),
        pytest.param("doc/", b"/usr/doc", True, "list:1", id="a directory is one"),
        pytest.param("/usr/lib", b"/opt/usr/lib", False, None, id="a slash in front ties to the root"),
        pytest.param("b*", b"/a\nb/c", False, None, id="a newline begins no name"),
        pytest.param("*b/", b"/a\nb/c\n", False, "list:1", id="a newline is a character like others"),
        pytest.param("x", b"/x\n", False, None, id="a newline at the end is part of the name"),
        pytest.param("x?", b"/x\n", False, "list:1", id="one character"),
        pytest.param("x?", b"/x\xff", False, "list:1", id="a byte that is no UTF-8 is one character"),
        pytest.param("\udcff*", b"/usr/\xff\xfe", False, "list:1", id="bytes that are no UTF-8 in the rule"),
        pytest.param("*", b"/", True, None, id="the root is never dropped"),
    ],
)
def test_verdict(patterns: str, path: bytes, is_directory: bool, expected: str | None) -> None:  # noqa: FBT001
    """Check the cases that docs/policy.md promises."""
    rule = matcher(rules(patterns.split()))(path, is_directory=is_directory)
    assert (rule and rule.origin) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ""),
        ("   ", ""),
        ("# a", ""),
        ("\\# a", "\\# a"),
        ("a  ", "a"),
        ("a\\ ", "a\\ "),
        (" a\r", " a"),
        ("!a", "!a"),
    ],
)
def test_rule_text(line: str, expected: str) -> None:
    """Comments and blank lines are not rules, and trailing white space is not part of one."""
    assert rule_text(line) == expected


@pytest.mark.parametrize("pattern", ["!", "a\\", "[b-a]", "/", "a\0"])
def test_bad_pattern(pattern: str) -> None:
    """A pattern that can match nothing is reported, and is no crash if it was not checked."""
    assert check_pattern(pattern)
    with pytest.raises(ValueError, match=r"^list:1: "):
        Matcher(rules([pattern]))


@pytest.mark.parametrize(
    ("pattern", "name"), [("[[a]", b"["), ("[+--b]", b","), ("[a&&b]", b"&"), ("[|~~]", b"~")]
)
def test_brackets_that_python_warns_of(pattern: str, name: bytes) -> None:
    """Protects the terminal from Python's warnings about possible future operators."""
    judge = matcher(rules([pattern]))
    assert judge(b"/" + name)


def test_text_of_any_path_fits_one_rule() -> None:
    """A path's escaped text drops that path, and no other of its length."""
    path = bytes(range(1, 0x2F)) + bytes(range(0x30, 0x100))
    text = "".join(f"\\{each}" if each in "\\[]*?!# " else each for each in text_path(path)).replace(
        "\n", "?"
    )
    judge = matcher(rules([f"/{text}"]))
    assert judge(b"/" + path)
    assert judge(b"/" + path[:-1] + b"x") is None


@pytest.mark.parametrize(
    "pattern",
    ["*?" * 16, "a*" * 16 + "b", "**/a/" * 16 + "b", "*[ab]" * 9 + "c", "a/**/*a*a*a*a*b/**/" + "c" * 9],
)
def test_no_pattern_takes_long(pattern: str) -> None:
    """Protects from a pattern that takes minutes for names made for it."""
    judge = matcher(rules([pattern]))
    started = time.process_time()
    for path in (b"/" + b"a" * 255, b"/a" * 2000, (b"/" + b"a" * 255) * 16, b"/ab" * 1300):
        judge(path)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        pytest.param("a" * 4097, "more than 4096 characters", id="long"),
        pytest.param("*[!a]" * 4, "too many '*' beside a '[...]'", id="brackets that take a slash"),
        pytest.param("**/[+-9]/**/*a/**/b", "too many '*' beside a '[...]'", id="a range that takes a slash"),
        pytest.param("[[:alpha:]]x", "classes such as [:alpha:] are not supported", id="a class"),
    ],
)
def test_patterns_that_could_take_long_are_refused(pattern: str, said: str) -> None:
    """Protects from unbounded cost and from a meaning other than git's; the message says what to change."""
    assert said in check_pattern(pattern)
