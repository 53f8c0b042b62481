"""The report of an audit as text for a terminal, as markdown for a comment, and as JSON."""

from __future__ import annotations

import html
import shlex
from typing import TYPE_CHECKING, Any

from pkgjail.cli.output import print_warning
from pkgjail.cli.project import place_of_line
from pkgjail.core.text import counted, printable, text_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pkgjail.audit.advice import Advice
    from pkgjail.audit.compare import AuditDifference
    from pkgjail.audit.model import Audit, Listing, LookUp, Mention, Program
    from pkgjail.audit.wanted import Used
    from pkgjail.core.model import Manifest

MOST_CHARACTERS = 65_536
"""The most characters of a review comment on GitHub."""

_FEW = 3
_NO_PACKAGE = "no package"
_CLUES = {
    "library": "a library of this name was asked for",
    "listed": "its directory was listed",
}
_VERBS = {
    "change": "changed",
    "exec": "executed",
    "link": "read as a link",
    "list": "listed",
    "look": "looked at",
}


class Names:
    """The programs of an audit in words."""

    def __init__(self, programs: Iterable[Program]) -> None:
        self._programs = {program.number: program for program in programs}

    def one(self, number: int) -> str:
        """Return a program's name: its file's, and its script's."""
        program = self._programs.get(number)
        if program is None or not program.path:
            return "other programs" if number else "pkgjail"
        name = text_path(program.path.rpartition(b"/")[2])
        return printable(f"{name} {text_path(program.script)}" if program.script else name)

    def chain(self, number: int) -> str:
        """Return a program with those that started it, itself first."""
        found = []
        while number and number in self._programs:
            found.append(self.one(number))
            number = self._programs[number].parent
        return " < ".join(found) or self.one(number)


def text(
    audit: Audit, advice: Sequence[Advice], use: Used | None, *, most: int | None, command: str
) -> Iterator[str]:
    """Return the report as lines. `most` limits each list; `use` is None if no manifest was given."""
    yield (
        f"{shlex.join(audit.command)}: exit status {audit.status}, {audit.events:,} look-ups by "
        f"{counted(len(audit.programs), 'program')}"
    )
    yield from _cautions(audit)
    if use is not None:
        yield (
            f"used: {len(use.packages):,} of {len(use.packages) + len(use.unused):,} packages, "
            f"{counted(use.files, 'file')}"
        )
        yield from _list("never touched", use.unused, most)
    names = Names(audit.programs)
    if not advice:
        yield "wanted: nothing that the source has and the jail does not"
    else:
        packages = sum(1 for each in advice if each.package)
        yield f"wanted, and not in the jail: {counted(packages, 'package')}"
    for each in advice[:most]:
        yield ""
        yield from _wanted(each, names, most)
    if most is not None and len(advice) > most:
        yield f"and {len(advice) - most:,} more (--all)"
    listings = _listings(audit.listings)
    if listings:
        yield ""
        yield "listed, without the names that these packages have there:"
        yield from (f"  {row}" for row in listings[:most])
        if most is not None and len(listings) > most:
            yield f"  and {len(listings) - most:,} more (--all)"
    if advice:
        yield ""
        yield f"what changes the build: {command}"


def _cautions(audit: Audit) -> Iterator[str]:
    if audit.unread:
        yield f"not read: the paths of {counted(audit.unread, 'call')}"
    if audit.rings:
        yield f"refused: {counted(audit.rings, 'call')} of io_uring_setup(2), whose work no audit sees"
    if audit.folded:
        yield "too many paths: names in binds were counted by directory, or programs no longer told apart"


def _list(title: str, rows: Sequence[str], most: int | None) -> Iterator[str]:
    if rows:
        listed = ", ".join(rows[:most])
        more = f", and {len(rows) - most:,} more (--all)" if most is not None and len(rows) > most else ""
        yield f"{title}: {listed}{more}"


def warn_of_other_manifest(audit: Audit, manifest: Manifest, *, as_json: bool) -> None:
    """Warn if an audit was made in the jail of another manifest than the one that it is shown with."""
    from pkgjail.manifest import dump_manifest, manifest_digest

    if manifest_digest(dump_manifest(manifest)) != audit.manifest:
        message = "the audit was made with another manifest, so what it wanted may be in this one by now"
        print_warning(message, as_json=as_json)


def _wanted(advice: Advice, names: Names, most: int | None) -> Iterator[str]:
    yield advice.package or _NO_PACKAGE
    few = None if most is None else _FEW
    for look_up in advice.look_ups[:few]:
        yield f"  {printable(text_path(look_up.path))}: {how(look_up, names)}"
        for mention in look_up.mentions[:few]:
            yield f"    {mention_text(mention)}"
        if look_up.rule:
            yield f"    dropped by {look_up.rule}"
    if few is not None and len(advice.look_ups) > few:
        yield f"  and {counted(len(advice.look_ups) - few, 'more path')} (--all)"
    for place, line in map(place_of_line, advice.lines[:few]):
        yield f"  {'whitelist' if place == 'a whitelist' else place}: {printable(line)}"
    if advice.spack.name:
        guess = "" if advice.spack.basis == "table" else "  (a guess)"
        yield f'  Spack: depends_on("{advice.spack.name}"){guess}'


def how(look_up: LookUp, names: Names) -> str:
    """Say how often a path was asked for, and by which program most."""
    kinds = ", ".join(f"{_VERBS.get(kind, 'opened')} {count:,}" for kind, count in look_up.calls.items())
    clue = _CLUES.get(look_up.clue, "")
    first = max(look_up.programs, key=lambda pair: pair[1], default=None)
    by = f" by {names.one(first[0])}" if first else ""
    return f"{clue or kinds}{by}"


def mention_text(mention: Mention) -> str:
    """Return a line of the build's own files, as compilers write places."""
    result = f" {mention.result}" if mention.result else ""
    return printable(f"{text_path(mention.file)}:{mention.line}: {mention.text}{result}")


def _listings(listings: Iterable[Listing]) -> list[str]:
    return [
        f"{printable(text_path(each.path))}: "
        + ", ".join(f"{key or _NO_PACKAGE} {count:,}" for key, count in list(each.hidden.items())[:_FEW])
        + (f" and {counted(len(each.hidden) - _FEW, 'more package')}" if len(each.hidden) > _FEW else "")
        for each in listings
    ]


def markdown(audit: Audit, advice: Sequence[Advice]) -> str:
    """Return the report as markdown, at most `MOST_CHARACTERS` long; it says what was left out."""
    names = Names(audit.programs)
    packages = sum(1 for each in advice if each.package)
    lines = [
        f"### The build wanted {counted(packages, 'package')} that its jail does not have",
        "",
        f"`{_cell(shlex.join(audit.command))}`, exit status {audit.status}.",
        "",
    ]
    if advice:
        lines += ["| package | asked for | by | whitelist | Spack |", "|---|---|---|---|---|"]
    size = sum(len(line.encode()) + 1 for line in lines)
    for number, each in enumerate(advice):
        row = _row(each, names)
        size += len(row.encode()) + 1
        if size > MOST_CHARACTERS - 100:
            lines.append(f"\nand {len(advice) - number:,} more.")
            break
        lines.append(row)
    return "\n".join([*lines, ""])


def _row(advice: Advice, names: Names) -> str:
    first = advice.look_ups[0]
    mention = f"<br>{_cell(mention_text(first.mentions[0]))}" if first.mentions else ""
    more = f" and {len(advice.look_ups) - 1:,} more" if len(advice.look_ups) > 1 else ""
    cells = (
        _cell(advice.package or _NO_PACKAGE),
        f"{_cell(text_path(first.path))}{more}{mention}",
        _cell(how(first, names)),
        "<br>".join(map(_cell, advice.lines[:_FEW])),
        advice.spack.name,
    )
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    escaped = html.escape(printable(text), quote=False)
    return (
        escaped.replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("`", "\\`")
        .replace("*", "\\*")
        .replace("_", "\\_")
    )


def difference_text(difference: AuditDifference) -> Iterator[str]:
    """Return a difference as lines."""
    if difference.status[0] != difference.status[1]:
        yield f"exit status: {difference.status[0]} before, {difference.status[1]} now"
    for sign, look_ups in (("-", difference.wanted_removed), ("+", difference.wanted_added)):
        for look_up in look_ups:
            owner = "".join(look_up.owners) or _NO_PACKAGE
            yield f"{sign} wanted {printable(text_path(look_up.path))} ({owner})"
    for sign, packages in (("-", difference.used_removed), ("+", difference.used_added)):
        yield from (f"{sign} used {package}" for package in packages)


# --- JSON ------------------------------------------------------------------------------------------


def facts(audit: Audit, advice: Sequence[Advice], use: Used | None) -> dict[str, Any]:
    """Return the report as JSON, with paths as `text_path` writes them."""
    found: dict[str, Any] = {
        "command": list(audit.command),
        "status": audit.status,
        "manifest": audit.manifest,
        "events": audit.events,
        "unread": audit.unread,
        "rings": audit.rings,
        "folded": audit.folded,
        "wanted": [advice_facts(each, Names(audit.programs)) for each in advice],
        "listed": [{"path": text_path(each.path), "hidden": dict(each.hidden)} for each in audit.listings],
    }
    if use is not None:
        found["used"] = {"packages": list(use.packages), "unused": list(use.unused), "files": use.files}
    return found


def advice_facts(advice: Advice, names: Names) -> dict[str, Any]:
    """Return a wanted package as JSON."""
    return {
        "package": advice.package,
        "paths": [look_up_facts(each, names) for each in advice.look_ups],
        "whitelist": list(advice.lines),
        "spack": {"name": advice.spack.name, "basis": advice.spack.basis} if advice.spack.name else None,
    }


def look_up_facts(look_up: LookUp, names: Names) -> dict[str, Any]:
    """Return a look-up as JSON."""
    return {
        "path": text_path(look_up.path),
        "inside": look_up.inside,
        "area": look_up.area,
        "source": look_up.source,
        "clue": look_up.clue,
        "owners": list(look_up.owners),
        "rule": look_up.rule,
        "calls": _plain(look_up.calls),
        "programs": [{"chain": names.chain(number), "calls": count} for number, count in look_up.programs],
        "mentions": [
            {"file": text_path(m.file), "line": m.line, "text": m.text, "result": m.result}
            for m in look_up.mentions
        ],
    }


def difference_facts(difference: AuditDifference) -> dict[str, Any]:
    """Return a difference as JSON."""
    return {
        "same": difference.same,
        "status": list(difference.status),
        "wanted": {
            "removed": [_path_facts(each) for each in difference.wanted_removed],
            "added": [_path_facts(each) for each in difference.wanted_added],
        },
        "used": {"removed": list(difference.used_removed), "added": list(difference.used_added)},
    }


def _path_facts(look_up: LookUp) -> dict[str, Any]:
    return {"path": text_path(look_up.path), "owners": list(look_up.owners)}


def _plain(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(counts)
