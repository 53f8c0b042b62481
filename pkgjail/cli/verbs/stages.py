"""`pkgjail stages`: list the ways to run a command, whether each works here, and what it promises."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from pkgjail.cli.flags import with_flags
from pkgjail.cli.results import always

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from pkgjail.cli.parser import Verbs
    from pkgjail.stages.model import Property, Stage

_DESCRIPTION = """\
List the stages: the ways in which 'pkgjail run --stage' can run a command among the files of a
manifest. Each is tried, with a command that does nothing. The table says what each promises the user
who asks; a number is that of a note.
"""
_EPILOG = """\
The exit status is 0 if the default stage (of the settings, or namespaces) works here, and 3
otherwise. 'pkgjail doctor' says what to do about a stage that does not work.
"""


_WIDTH = 13


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "stages",
        help="show how commands can be run here, and what each way promises",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=always)


def run(arguments: argparse.Namespace) -> int:
    """Print the table; return 3 if the default stage does not work."""
    from pkgjail.doctor.remedies import Surroundings
    from pkgjail.doctor.stages import default_of, examine_stages
    from pkgjail.settings.read import read_settings
    from pkgjail.stages import STAGES

    settings = read_settings()
    reports = examine_stages(settings, Surroundings())
    obstacles = {each.name: with_flags(each.why_not) for each in reports}
    if arguments.json:
        json.dump([_record(stage, obstacles[name]) for name, stage in STAGES.items()], sys.stdout, indent=2)
        print()
    else:
        _print(STAGES, obstacles)
    return 0 if default_of(settings, reports).taken else 3


def _record(stage: Stage, obstacle: str) -> dict[str, object]:
    promises = {key: {"kept": kept, "note": note} for key, (kept, note) in stage.promises().items()}
    return {
        "name": stage.name,
        "summary": stage.summary,
        "works": not obstacle,
        "obstacle": obstacle,
        "promises": promises,
    }


def _print(stages: Mapping[str, Stage], obstacles: Mapping[str, str]) -> None:
    from pkgjail.stages.model import PROPERTIES

    for name, stage in stages.items():
        print(f"{name:11} {'works' if not obstacles[name] else 'no':6} {obstacles[name] or stage.summary}")
    notes: list[str] = []
    for some in _blocks(tuple(stages.values())):
        print("\n" + " " * _WIDTH + "".join(f"{stage.name:{_WIDTH}}" for stage in some).rstrip())
        for each in PROPERTIES:
            cells = (f"{_cell(stage, each, notes):{_WIDTH}}" for stage in some)
            print(f"{each:{_WIDTH}}{''.join(cells)}".rstrip())
    print()
    for each, words in PROPERTIES.items():
        print(f"{each:{_WIDTH}}{words}")
    print()
    for number, note in enumerate(notes, 1):
        print(f"{number:3} {note}")


def _blocks(stages: Sequence[Stage]) -> Iterator[Sequence[Stage]]:
    """Yield the stages that fit side by side: all of them, unless standard output is a narrower terminal."""
    from pkgjail.cli.tables import terminal_width

    width = terminal_width()
    room = len(stages) if width is None else max((width - _WIDTH) // _WIDTH, 1)
    for first in range(0, len(stages), room):
        yield stages[first : first + room]


def _cell(stage: Stage, each: Property, notes: list[str]) -> str:
    """Return "yes" or "no", with the number of the note, which is added to `notes` if it is new."""
    kept, note = stage.promises()[each]
    if note and note not in notes:
        notes.append(note)
    return f"{'yes' if kept else 'no'} {notes.index(note) + 1 if note else ''}".rstrip()
