"""Draw the way from a whitelist to a jail, wide and narrow, light and dark.

pipeline.py            write the pictures beside this file
pipeline.py --check    fail if a picture is not what this script draws
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent

_SANS = "ui-sans-serif,system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif"
_MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


class Colours(NamedTuple):
    """One scheme."""

    box: str
    line: str
    text: str
    faint: str
    first: str
    second: str
    bad: str


SCHEMES = {
    "light": Colours("#ffffff", "#d0d7de", "#1f2328", "#59636e", "#0a5fb4", "#1a7f37", "#c1121f"),
    "dark": Colours("#161b22", "#3d444d", "#e6edf3", "#9198a1", "#6cb6ff", "#57ab5a", "#ff7b72"),
}

# Each stage: its name, lines of what it looks like, and what it is. A line that begins with '!' is refused.
STAGES = (
    ("whitelist", '[packages]|debian = [| "gcc", "make",| "git"]', "what you allow"),
    ("closure", "make|gcc → gcc-12|gcc-12 → cpp-12|git → perl …", "what that requires"),
    ("files", "/usr/bin/gcc|/usr/bin/make|/usr/lib/…/libc.so|/etc/passwd …", "exactly their files"),
    ("manifest", '{"kind":"file",| "path":"/usr/…",| "sha256":"9f86…",| "owners":["gcc"]}', "review it"),
    ("jail", "$ gcc hello.c|$ ./a.out|hello|!zlib.h: No such file", "build in it"),
)
_BOX = (172, 142)


def wide(colours: Colours) -> str:
    """All stages in a row, with the two commands below."""
    width, height = _BOX
    step = width + 25
    left = [6 + step * index for index in range(len(STAGES))]
    parts = [_stage(colours, index, x, 6) for index, x in enumerate(left)]
    parts += [_arrow(colours, (x - 22, 77), (x - 4, 77), last=x == left[-1]) for x in left[1:]]
    y = height + 26
    parts.append(_bracket(colours.first, left[0], left[3] + width / 2 - 8, y, "pkgjail resolve"))
    parts.append(_bracket(colours.second, left[3] + width / 2 + 8, left[4] + width, y, "pkgjail run"))
    return _picture(left[-1] + width + 6, y + 40, parts)


def narrow(colours: Colours) -> str:
    """All stages in a column, for phones."""
    width, height = _BOX
    step = height + 44
    top = [6 + step * index for index in range(len(STAGES))]
    parts = [_stage(colours, index, 74, y) for index, y in enumerate(top)]
    middle = 74 + width / 2
    parts += [_arrow(colours, (middle, y - 38), (middle, y - 5), last=y == top[-1]) for y in top[1:]]
    for y, command, colour in (
        (top[1], "pkgjail resolve", colours.first),
        (top[4], "pkgjail run", colours.second),
    ):
        parts.append(_text(middle + 16, y - 17, command, colour, font=_MONO, weight=600))
    return _picture(320, top[-1] + height + 6, parts)


def _stage(colours: Colours, index: int, x: float, y: float) -> str:
    width, height = _BOX
    name, lines, meaning = STAGES[index]
    accent = colours.second if index == len(STAGES) - 1 else colours.first
    border = accent if index in {0, len(STAGES) - 1} else colours.line
    paint = f'fill="{colours.box}" stroke="{border}" stroke-width="1.5"'
    parts = [
        f'<rect x="{x:g}" y="{y:g}" width="{width}" height="{height}" rx="8" {paint}/>',
        _text(x + 12, y + 25, name, accent, size=16, weight=700),
    ]
    for row, line in enumerate(lines.split("|")):
        refused = line.startswith("!")
        colour = colours.bad if refused else colours.text
        parts.append(_text(x + 12, y + 49 + 18 * row, line.removeprefix("!"), colour, size=12.5, font=_MONO))
    parts.append(_text(x + 12, y + height - 12, meaning, colours.faint, size=13))
    return "".join(parts)


def _arrow(colours: Colours, tail: tuple[float, float], tip: tuple[float, float], *, last: bool) -> str:
    colour = colours.second if last else colours.first
    (x1, y1), (x2, y2) = tail, tip
    ends = ((-5, -8), (5, -8)) if x1 == x2 else ((-8, -5), (-8, 5))
    head = " ".join(f"{x2 + dx:g},{y2 + dy:g}" for dx, dy in ends)
    return (
        f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{colour}" stroke-width="2"/>'
        f'<polygon points="{x2:g},{y2:g} {head}" fill="{colour}"/>'
    )


def _bracket(colour: str, x1: float, x2: float, y: float, command: str) -> str:
    """Mark what one command does."""
    path = f"M{x1:g} {y - 8:g}v8h{x2 - x1:g}v-8"
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>' + _text(
        (x1 + x2) / 2, y + 22, command, colour, font=_MONO, weight=600, anchor="middle"
    )


def _text(  # noqa: PLR0913 - what SVG's element has
    x: float,
    y: float,
    text: str,
    colour: str,
    *,
    size: float = 14,
    font: str = _SANS,
    weight: int = 400,
    anchor: str = "start",
) -> str:
    shown = escape(text, quote=False)
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-family="{font}" font-size="{size:g}"'
        f' font-weight="{weight}" text-anchor="{anchor}" xml:space="preserve">{shown}</text>'
    )


def _picture(width: float, height: float, parts: list[str]) -> str:
    label = "A whitelist leads to a closure, its files, a manifest and a jail"
    size = f'viewBox="0 0 {width:g} {height:g}"'
    begin = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">'
    return "\n".join([begin, *parts, "</svg>\n"])


def main() -> int:
    """Write or check the pictures."""
    wrong = []
    for scheme, colours in SCHEMES.items():
        for shape in (wide, narrow):
            path = HERE / f"pipeline-{shape.__name__}-{scheme}.svg"
            drawn = shape(colours)
            if "--check" not in sys.argv[1:]:
                path.write_text(drawn, encoding="utf-8")
            elif not path.exists() or path.read_text(encoding="utf-8") != drawn:
                wrong.append(path.name)
    if wrong:
        print(f"not as drawn, run {Path(__file__).name}: {', '.join(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
