"""The line of every key and element is found where the document has it."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from typing import Any, Callable, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.policy.toml_lines import Key, locate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
Table = dict[str, Any]

_TEXT = st.text(alphabet="ab\"'\\#[]{}=., \né\t", max_size=7)
_SCALAR = st.one_of(
    _TEXT,
    st.sampled_from([True, 7, 1.5, dt.datetime(1979, 5, 27, 7, 32)]),  # noqa: DTZ001 - local in TOML
)
_VALUE = st.recursive(
    _SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=12,
)
_TABLES = st.dictionaries(_TEXT, _VALUE, max_size=4)


class _Writer:
    """Writes a table as TOML in ways that Hypothesis chooses, and notes the line of each place."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[Key, int] = {}

    def flip(self) -> bool:
        return bool(self.draw(st.booleans()))

    def put(self, text: str) -> None:
        self.text += text

    def note(self, place: Key) -> None:
        for length in range(1, len(place) + 1):
            self.lines.setdefault(place[:length], self.text.count("\n") + 1)

    def blank(self) -> None:
        """Return text for the end of a line, or for between an array's elements."""
        self.put(self.draw(st.sampled_from(["\n", " \n\n", ' # "[x = {\n', "\t# ''' \"\"\"\n"])))

    def string(self, text: str) -> str:
        basic = json.dumps(text, ensure_ascii=False)
        forms = [basic]
        if not re.search("['\n]", text):
            forms.append(f"'{text}'")
        if "'''" not in text:
            forms.append(f"'''\n{text}'''")
        escaped = text.replace("\\", "\\\\").replace('"""', '""\\"')
        forms += [f'"""\n{escaped}"""', f'"""\n{escaped}\\\n  """']
        return str(self.draw(st.sampled_from(forms)))

    def name(self, key: str) -> str:
        if re.fullmatch("[a-z]+", key) and self.flip():
            return key
        return f"'{key}'" if not re.search("['\n]", key) and self.flip() else json.dumps(key)

    def dotted(self, names: tuple[str, ...]) -> str:
        return " . ".join(map(self.name, names)) if self.flip() else ".".join(map(self.name, names))

    def value(self, place: Key, value: Any) -> None:
        if isinstance(value, str):
            self.put(self.string(value))
        elif isinstance(value, list):
            self.array(place, value)
        elif isinstance(value, dict):
            self.inline(place, value)
        else:
            self.put(str(value).lower())

    def array(self, place: Key, values: list[Any]) -> None:
        self.put("[")
        for index, value in enumerate(values):
            if self.flip():
                self.blank()
            self.note((*place, index))
            self.value((*place, index), value)
            if self.flip():
                self.blank()
            if index < len(values) - 1 or self.flip():
                self.put(",")
        if self.flip():
            self.blank()
        self.put("]")

    def inline(self, place: Key, table: Table) -> None:
        self.put("{")
        for index, (key, value) in enumerate(table.items()):
            self.put(", " if index else " ")
            self.note((*place, key))
            self.put(f"{self.name(key)} =")
            self.value((*place, key), value)
        self.put("}")

    def pair(self, table: Key, names: tuple[str, ...], value: Any) -> None:
        """`names = value`, or a line for each item of a table that is written with dotted keys."""
        if isinstance(value, dict) and value and self.flip():
            for key, item in value.items():
                self.pair(table, (*names, key), item)
            return
        self.note((*table, *names))
        self.put(f"{self.dotted(names)} = ")
        self.value((*table, *names), value)
        self.blank()

    def table(self, place: Key, header: tuple[str, ...], table: Table) -> None:
        later = {key for key, value in table.items() if _fits_header(value) and self.flip()}
        for key, value in table.items():
            if key not in later:
                self.pair(place, (key,), value)
        for key in table:
            if key in later:
                self.headed((*place, key), (*header, key), table[key])

    def headed(self, place: Key, header: tuple[str, ...], value: Any) -> None:
        if isinstance(value, dict):
            self.note(place)
            self.put(f"[{self.dotted(header)}]")
            self.blank()
            self.table(place, header, value)
            return
        for index, item in enumerate(value):
            self.note((*place, index))
            self.put(f"[[ {self.dotted(header)} ]]")
            self.blank()
            self.table((*place, index), header, item)


def _fits_header(value: Any) -> bool:
    items = value if isinstance(value, list) and value else [value]
    return all(isinstance(item, dict) for item in items)


@st.composite
def documents(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[Table, str, dict[Key, int]]:
    """Draw a table, its TOML text, and the line of each place."""
    table = draw(_TABLES)
    writer = _Writer(draw)
    writer.table((), (), table)
    text = writer.text.replace("\n", "\r\n") if draw(st.booleans()) else writer.text
    return table, text, writer.lines


@given(documents())
def test_every_place_is_found(document: tuple[Table, str, dict[Key, int]]) -> None:
    """Problems have the right line, in any style of TOML."""
    table, text, lines = document
    assert tomllib.loads(text) == table, "the writer of this test is wrong"
    assert locate(text) == lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", {}, id="nothing"),
        pytest.param("# x = 1", {}, id="a comment without a line's end"),
        pytest.param(
            "[a.b]\nc=1\n[a]\nd=2",
            {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 2, ("a", "d"): 4},
            id="a table counts from the header that first needs it",
        ),
        pytest.param(
            "[[a]]\nb=1\n[a.c]\nd=1\n[[a]]\n[a.c]",
            {
                ("a",): 1,
                ("a", 0): 1,
                ("a", 0, "b"): 2,
                ("a", 0, "c"): 3,
                ("a", 0, "c", "d"): 4,
                ("a", 1): 5,
                ("a", 1, "c"): 6,
            },
            id="a sub-table belongs to the array's last element",
        ),
        pytest.param('a=[""""""\n,"",]', {("a",): 1, ("a", 0): 1, ("a", 1): 2}, id="empty strings"),
        pytest.param(
            'a=["""""x""\n""""",1]', {("a",): 1, ("a", 0): 1, ("a", 1): 2}, id="quotes at both ends"
        ),
        pytest.param("a=['''''x'\n''''',1]", {("a",): 1, ("a", 0): 1, ("a", 1): 2}, id="the same, literal"),
    ],
)
def test_place_by_hand(text: str, expected: dict[Key, int]) -> None:
    """Check forms that the writer above never writes."""
    tomllib.loads(text)
    assert locate(text) == expected
