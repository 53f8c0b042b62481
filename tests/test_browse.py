"""The browser of a manifest: its numbers, screens as text, keys, hostile names, and the command."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgjail import write_manifest
from pkgjail.browse.app import HELP, Browser
from pkgjail.browse.cells import fit, fit_end
from pkgjail.browse.contents import Contents
from pkgjail.browse.directories import DirectoryTree
from pkgjail.browse.listing import Listing
from pkgjail.cli.main import main
from pkgjail.closure.graph import closure_graph
from pkgjail.core.model import FileEntry
from tests.manifest_text import files_alone, manifest_of
from tests.terminals import SUSPEND, shell
from tests.test_graph_view import closures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pkgjail.core.model import Manifest

# app brings lib and data; base is needed by lib and tool, and stays without either.
MANIFEST = manifest_of(
    """
    app 1.0
    lib 2.0-1
    data 3
    base 4
    tool 5
    w.toml:1 -> app
    w.toml:2 -> tool
    app -> lib
    app -> data
    lib -> base
    tool -> base
    /usr/bin/app 3000 of app
    /usr/bin/tool 500 of tool
    /usr/lib/lib.so.1 20000 of lib
    /usr/lib/lib.so -> lib.so.1 of lib
    /usr/share/data/a 400000 of data
    /usr/share/data/b 100000 of data
    /usr/share/shared 1000000 of data,tool
    /etc/base 7 of base, conffile
    /etc/site 9, include: w.toml:9
    """
)


# --- numbers --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(closures())
def test_numbers_are_those_of_their_definitions(manifest: Manifest) -> None:
    """Protects sizes, costs and what is brought: compared with networkx and a walk over all files."""
    contents, graph = Contents(manifest), closure_graph(manifest)
    roots = {node for node in graph if graph.in_degree(node) == 0}
    for item in contents.packages:
        name = item.name
        closure = nx.descendants(graph, name) | {name}
        rest = graph.subgraph(set(graph) - {name})
        left = set().union(*(nx.descendants(rest, root) | {root} for root in roots - {name}))
        owned = [entry for entry in manifest.files if entry.owners]
        assert item.own == sum(e.size or 0 for e in owned if name in e.owners)
        assert item.closure == sum(e.size or 0 for e in owned if closure.intersection(e.owners))
        assert item.cost == sum(e.size or 0 for e in owned if not left.intersection(e.owners))
        assert item.names == len([e for e in owned if name in e.owners])
        assert {each.name for each in contents.brings(name)} == set(graph) - left - {name}
        assert {each.name for each in contents.requires(name)} == set(graph.successors(name))
        assert {each.name for each in contents.needed_by(name)} == set(graph.predecessors(name))
        chain = contents.chain(name)
        assert chain[0] in roots
        assert len(chain) - 1 == min(nx.shortest_path_length(graph, root, name) for root in roots
                                     if nx.has_path(graph, root, name))  # fmt: skip


_PATHS = st.lists(st.sampled_from([b"a", b"b", b"\xff"]), min_size=1, max_size=4).map(b"/".join)


@settings(deadline=None)
@given(st.dictionaries(_PATHS, st.integers(0, 100), min_size=1, max_size=12))
def test_directories_have_what_is_below_them(sizes: dict[bytes, int]) -> None:
    """Protects the sums of directories, also of those that are no names themselves."""
    tree = DirectoryTree(
        FileEntry(path=b"/" + path, kind="regular", mode=0o644, size=size) for path, size in sizes.items()
    )
    todo = [b"/"]
    for directory in todo:
        start = directory.rstrip(b"/") + b"/"
        below = {path: size for path, size in sizes.items() if (b"/" + path).startswith(start)}
        own = sizes.get(directory[1:], 0)
        assert tree.name(directory).size == sum(below.values()) + own
        assert tree.name(directory).names == len(below) + (directory[1:] in sizes)
        inside = [each.entry.path for each in tree.within(directory)]
        assert {path[len(start) :] for path in inside} == {
            path[len(start) - 1 :].split(b"/")[0] for path in below
        }
        todo += inside


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(fit("abc", 5), "abc  ", id="filled"),
        pytest.param(fit("abc", 5, right=True), "  abc", id="to the right"),
        pytest.param(fit("abcdef", 5), "abcd…", id="cut"),
        pytest.param(fit("漢字漢字", 5), "漢字…", id="characters of two cells"),
        pytest.param(fit("漢字漢字", 6), "漢字 …", id="half a character"),
        pytest.param(fit("abc", 0), "", id="no room"),
        pytest.param(fit_end("/usr/lib/x", 6), "…lib/x", id="the end of a path"),
        pytest.param(fit_end("/漢字漢字", 6), "…漢字 ", id="the end, of two cells each"),
        pytest.param(fit_end("/x", 4), "/x  ", id="a short path"),
    ],
)
def test_text_fits_its_cells(found: str, expected: str) -> None:
    """Protects the columns from names of any length and width."""
    assert found == expected


# --- screens --------------------------------------------------------------------------------------


def _explain(asked: str) -> list[str]:
    return [f"because of {asked}"]


def _screen(app: Browser) -> str:
    """Return the lines of the terminal, without blanks at the ends."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


def _screens(
    manifest: Manifest,
    *steps: str,
    size: tuple[int, int] = (80, 24),
    explain: Callable[[str], Sequence[str]] = _explain,
) -> list[str]:
    """The first screen, and the one after the keys of each step."""

    async def walk() -> list[str]:
        app = Browser(manifest, explain)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            found = [_screen(app)]
            for step in steps:
                await pilot.press(*step.split())
                await pilot.pause()
                found.append(_screen(app))
            return found

    return asyncio.run(walk())


def _list(screen: str) -> list[str]:
    """The title of a screen of 24 lines, and the rows below its heading."""
    lines = screen.split("\n")
    return [lines[1], *filter(None, lines[3:17])]


FIRST = """\
pkgjail: w: 5 packages, 15 names, 1.5 MB
5 packages, by cost                                                          1/5
        cost      size   closure   names  package
>   523.0 kB    3.0 kB    1.5 MB       1  app:amd64
    500.0 kB    1.5 MB    1.5 MB       3  data:amd64
     20.0 kB   20.0 kB   20.0 kB       2  lib:amd64
   500 bytes    1.0 MB    1.0 MB       2  tool:amd64
     7 bytes   7 bytes   7 bytes       1  base:amd64










────────────────────────────────────────────────────────────────────────────────
app:amd64 1.0
why: w.toml:1 -> app:amd64
requires 2, needed by 1, closure 1.5 MB, 1 name
with it would leave: data:amd64, lib:amd64
? help  q quit  / search  w why  d requires  r needed by  b brings  f files"""


def test_the_first_screen() -> None:
    """Protects what a user of 80 by 24 sees first."""
    assert _screens(MANIFEST) == [FIRST]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param("enter", "app:amd64 requires 2, by cost|data:amd64|lib:amd64", id="what it requires"),
        pytest.param("down down d", "lib:amd64 requires 1, by cost|base:amd64", id="the same by d"),
        pytest.param("end r", "base:amd64 is needed by 2, by cost|lib:amd64|tool:amd64", id="what needs it"),
        pytest.param("r", "app:amd64 is needed by 1, by cost|w.toml:1", id="a whitelist's line needs it"),
        pytest.param("b", "with app:amd64 would leave 2, by cost|data:amd64|lib:amd64", id="what it brings"),
        pytest.param("enter down enter left left", "5 packages, by cost|*5", id="back to the first list"),
        pytest.param("left backspace escape", "5 packages, by cost|*5", id="nothing before the first"),
        pytest.param("w", "why app:amd64|because of app:amd64", id="why"),
        pytest.param("w w enter s", "why app:amd64|because of app:amd64", id="a line leads nowhere"),
        pytest.param("r w d", "w.toml:1 requires 1, by cost|app:amd64", id="a rule has no answer of why"),
        pytest.param(
            "s", "5 packages, by size|data:amd64|tool:amd64|lib:amd64|app:amd64|base:amd64", id="by size"
        ),
        pytest.param(
            "s s",
            "5 packages, by size, reversed|base:amd64|app:amd64|lib:amd64|tool:amd64|data:amd64",
            id="the smallest first",
        ),
        pytest.param(
            "t",
            "5 packages, by closure|app:amd64|data:amd64|tool:amd64|lib:amd64|base:amd64",
            id="by closure",
        ),
        pytest.param(
            "m", "5 packages, by names|data:amd64|lib:amd64|tool:amd64|app:amd64|base:amd64", id="by names"
        ),
        pytest.param(
            "n", "5 packages, by name|app:amd64|base:amd64|data:amd64|lib:amd64|tool:amd64", id="by name"
        ),
        pytest.param("f", "/usr/bin of app:amd64: 3.0 kB, by size|app", id="the files of a package"),
        pytest.param("F", "/: 1.5 MB, by size|usr/|etc/", id="all files"),
        pytest.param("F right down", "/usr: 1.5 MB, by size|share/|lib/|bin/", id="into a directory"),
        pytest.param("F right right n", "/usr/share: 1.5 MB, by name|data/|shared", id="files by name"),
        pytest.param(
            "F right down right", "/usr/lib: 20.0 kB, by size|lib.so.1|lib.so -> lib.so.1", id="a link"
        ),
        pytest.param("F down enter w", "why /etc/site|because of /etc/site", id="why a file"),
        pytest.param(
            "slash l i b",
            "/lib: 1 package, 3 names|lib:amd64 2.0-1|/usr/lib/|/usr/lib/lib.so|/usr/lib/lib.so.1",
            id="search",
        ),
        pytest.param(
            "slash L I B enter right", "lib:amd64 requires 1, by cost|base:amd64", id="found and opened"
        ),
        pytest.param("slash l i b escape", "5 packages, by cost|*5", id="a search given up"),
        pytest.param(
            "enter slash escape", "app:amd64 requires 2, by cost|data:amd64|lib:amd64", id="nothing typed"
        ),
        pytest.param("slash x x x", "/xxx: 0 packages, 0 names|nothing", id="nothing found"),
        pytest.param(
            "slash x x x enter right w r f s", "/xxx: 0 packages, 0 names|nothing", id="nothing selected"
        ),
        pytest.param("slash q backspace backspace", "5 packages, by cost|*5", id="typed and taken back"),
        pytest.param(
            "slash s h a r e d enter r",
            "/usr/share/shared is listed by 2, by cost|data:amd64|tool:amd64",
            id="who lists a file",
        ),
        pytest.param(
            "slash s h a r e slash d enter right",
            "/usr/share/data: 500.0 kB, by size|a|b",
            id="a directory found",
        ),
    ],
)
def test_keys_lead_there(keys: str, expected: str) -> None:
    """Protects each key: the title, and the last word of each row, of the list that it leads to."""
    title, *rows = _list(_screens(MANIFEST, keys)[-1])
    wanted, *names = expected.split("|")
    assert title.rpartition("  ")[0].strip() == wanted
    if names[0].startswith("*"):
        assert len(rows) == int(names[0][1:])
    else:
        assert [row[-len(name) :] for row, name in zip(rows, names)] == names
        assert len(rows) == len(names)


def test_the_heading_fits_the_rows_when_the_scroll_bar_goes() -> None:
    """Protects the columns' names: only without a scroll bar is there room for the bars of sizes."""
    many = "".join(f"p{each} 1\nw.toml:1 -> p{each}\n/usr/p{each} 9 of p{each}\n" for each in range(50))
    first, files, back = _screens(manifest_of(many), "f", "left", size=(62, 24))
    heading, row = files.split("\n")[2:4]
    assert "[##########]" in row
    assert heading.index("name", heading.index("names") + 5) == row.rindex("p0")
    assert back == first


def test_an_empty_manifest() -> None:
    """Protects lists without a row, in which no key has an effect."""
    screens = _screens(files_alone(()), "enter d r b w s down", "f", "F", "slash a enter w")
    assert [_list(screen)[1] for screen in screens] == ["  nothing"] * 5
    assert "the manifest has no names" in screens[3]


@pytest.mark.parametrize("size", [(200, 60), (110, 30), (40, 12), (8, 3), (1, 1)], ids=str)
def test_any_size(size: tuple[int, int]) -> None:
    """Protects terminals of any size: no line is longer than the screen, and a wide one shows more."""
    screens = _screens(MANIFEST, "F enter", "slash a enter", "question_mark", size=size)
    for screen in screens:
        lines = screen.split("\n")
        assert len(lines) == size[1]
        assert max(map(len, lines)) <= size[0]
    assert ("2.0-1" in screens[0], "[####" in screens[0]) == (size[0] >= 120, size[0] >= 100)


def test_the_selected_row_stays_on_the_screen() -> None:
    """Protects lists that are longer than the screen: by rows, by pages, to the ends, after a resize."""
    manifest = manifest_of("\n".join(f"p{n:03} 1\nw.toml:{n} -> p{n:03}" for n in range(1, 101)))
    keys = ("down", "j", "k", "pagedown", "end", "pageup", "home", "G", "up", "n")
    seen = []

    async def walk() -> None:
        app = Browser(manifest, _explain)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            for key in keys:
                await pilot.press(key)
                await pilot.pause()
                seen.append(_selected(app))
            await pilot.resize_terminal(80, 14)
            await pilot.pause()
            seen.append(_selected(app))

    asyncio.run(walk())
    assert seen == [2, 3, 2, 16, 100, 86, 1, 100, 99, 99, 99]


def _selected(app: Browser) -> int:
    """The number of the package that is marked on the screen."""
    (number,) = re.findall(r"^>.* p(\d+):amd64", _screen(app), re.MULTILINE)
    return int(number)


def test_the_mouse() -> None:
    """Protects a click, which selects a row, and a second one, which opens it."""

    async def walk() -> tuple[str, str]:
        app = Browser(MANIFEST, _explain)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.click(Listing, offset=(5, 2))
            await pilot.pause()
            before = _screen(app)
            await pilot.click(Listing, offset=(5, 2))
            await pilot.click(Listing, offset=(5, 12))
            await pilot.pause()
            return before, _screen(app)

    before, after = asyncio.run(walk())
    assert "> " in before.split("\n")[5]
    assert _list(after)[0].startswith("lib:amd64 requires 1")


def test_help_has_every_key() -> None:
    """Protects the text of help from a key that it does not name."""
    keys = {key for binding in Browser.BINDINGS for key in binding.key.split(",")}  # type: ignore[union-attr]  # none is a tuple
    names = {"enter": "Enter", "right": "Right", "left": "Left", "backspace": "Backspace", "slash": "/",
             "question_mark": "?"}  # fmt: skip
    left_out = {"l", "h", "escape", "ctrl+c", "ctrl+q", "ctrl+z"}  # for fingers that know them
    words = {word.strip(",") for line in HELP.split("\n")[:14] for word in line[:21].split()}
    assert {names.get(key, key) for key in keys - left_out} <= words
    assert "cost      the bytes" in _screens(MANIFEST, "question_mark", size=(100, 40))[-1]


# --- names that are hostile -----------------------------------------------------------------------

_HOSTILE = b"/usr/[red]x[/]\x1b[31m\n\xff\xe2\x80\xae\xe6\xbc\xa2{}$(id)"
_SHOWN = r"[red]x[/]\x1b[31m\n\xff\u202e漢{}$(id)"


def _hostile() -> Manifest:
    plain = manifest_of("a 1\nw[red].toml\x1b:1 -> a\n/usr/", whitelists=["[bold]w\x1b[0m"])
    entries = (
        FileEntry(path=_HOSTILE, kind="regular", mode=0o644, size=1, owners=("a:amd64",)),
        FileEntry(path=b"/usr/y", kind="symlink", mode=0o777, target=_HOSTILE, owners=("a:amd64",)),
    )
    return type(plain)(
        header=plain.header,
        packages=plain.packages,
        dependencies=plain.dependencies,
        files=(*plain.files, *sorted(entries)),
    )


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param("", id="packages"),
        pytest.param("r", id="rules"),
        pytest.param("f", id="names"),
        pytest.param("f down", id="targets"),
        pytest.param("f right w", id="why"),
        pytest.param("slash left_square_bracket r e d right_square_bracket", id="search"),
    ],
)
def test_names_are_shown_and_not_interpreted(keys: str) -> None:
    """Protects the terminal from markup and control characters in names of any bytes."""
    screen = _screens(_hostile(), keys, size=(120, 30), explain=lambda asked: [f"\x1b[31m{asked}"])[-1]
    assert all(line.isprintable() for line in screen.split("\n"))
    assert r"[bold]w\x1b[0m" in screen
    if keys:
        assert (r"w[red].toml\x1b:1" if keys == "r" else _SHOWN) in screen


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> str:
    path = tmp_path / "m.jsonl"
    write_manifest(MANIFEST, path)
    return str(path)


def test_without_textual(
    written: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects hosts without the optional library: the command says how to install it."""
    for name in ("pkgjail.browse.app", "pkgjail.browse.listing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "textual"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("pkgjail.cli.verbs.browse._need_terminal", lambda _: None)
    assert main(["browse", written]) == 1
    assert f"install it with: {sys.executable} -m pip install textual\n" in capsys.readouterr().err


def test_without_a_terminal(written: str) -> None:
    """Protects pipes: the command says what to use instead, and writes nothing to standard output."""
    command = [sys.executable, "-m", "pkgjail", "browse", written]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, start_new_session=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"print it with 'pkgjail show {written}' or 'pkgjail why {written} NAME'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "environment"),
    [
        pytest.param("{python} -m pkgjail browse {manifest}", {}, id="a file"),
        pytest.param("cat {manifest} | {python} -m pkgjail browse -", {}, id="standard input"),
        pytest.param("{python} -m pkgjail browse {manifest}", {"NO_COLOR": "1"}, id="no colours"),
    ],
)
def test_in_a_terminal(line: str, environment: dict[str, str], written: str) -> None:
    """Protects the real command on a real terminal: keys, the terminal as it was, and the exit status."""
    with shell({**os.environ, **environment}) as keyboard:
        keyboard.resize(24, 80)
        keyboard.type(f"{line.format(python=sys.executable, manifest=written)}\n".encode())
        screen = keyboard.wait_for(r"\A(?P<screen>.*)q quit")["screen"]
        assert b"app:amd64" in screen
        assert re.search(rb"\x1b\[7[;m]", screen)  # the selected row
        assert b"\x1b[38;" not in screen  # no colour but the terminal's own
        assert b"\x1b[48;" not in screen
        keyboard.type(b"w")
        keyboard.wait_for("w.toml:1")
        keyboard.type(b"q")
        assert b"\x1b[?1049l" in keyboard.wait_for_prompt()
        assert keyboard.status() == 0


@pytest.mark.slow
def test_stopped_and_continued(written: str) -> None:
    """Protects Ctrl-Z: the shell has the terminal, and the browser is there again with `fg`."""
    with shell(os.environ) as keyboard:
        keyboard.resize(24, 80)
        keyboard.type(f"{sys.executable} -m pkgjail browse {written}\n".encode())
        keyboard.wait_for("q quit")
        keyboard.type(SUSPEND)
        assert b"Stopped" in keyboard.wait_for_prompt()
        keyboard.type(b"fg\n")
        keyboard.wait_for("q quit")
        keyboard.type(b"q")
        keyboard.wait_for_prompt()
        assert keyboard.status() == 0
