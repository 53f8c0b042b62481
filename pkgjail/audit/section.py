"""The audit as a section of the review page: what was wanted, what was used, what was never touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.text import counted, text_path
from pkgjail.review.report.tables import listing, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.audit.advice import Advice
    from pkgjail.audit.model import Audit
    from pkgjail.audit.wanted import Used

_MOST_PATHS = 3
_MOST_ROWS = 200


def audit_section(audit: Audit, advice: Sequence[Advice], use: Used) -> str:
    """Return the section as HTML, for `pkgjail.review.report.report_page`.

    Args:
        audit: the audit.
        advice: what `pkgjail.audit.advice.advise` returns for it.
        use: what `pkgjail.audit.wanted.used` returns for it and the page's manifest.

    """
    packages = len(use.packages) + len(use.unused)
    figures = (
        ("command", " ".join(audit.command)),
        ("exit status", str(audit.status)),
        ("look-ups", f"{audit.events:,}"),
        ("packages used", f"{len(use.packages):,} of {packages:,}"),
        ("packages wanted", f"{sum(1 for each in advice if each.package):,}"),
    )
    columns = ("package", "asked for", "named by", "whitelist", "Spack")
    parts = [table("The run", ("what", "value"), figures)]
    if advice:
        parts.append(table("Wanted, and not in the jail", columns, _rows(advice[:_MOST_ROWS])))
    else:
        parts.append("<p>The command wanted nothing that the source has and the jail does not.</p>")
    if len(advice) > _MOST_ROWS:
        parts.append(f"<p>and {counted(len(advice) - _MOST_ROWS, 'more package')}.</p>")
    parts.append(listing(f"never touched: {counted(len(use.unused), 'package')}", use.unused))
    return "".join(parts)


def _rows(advice: Sequence[Advice]) -> Iterator[tuple[str, ...]]:
    for each in advice:
        paths = [text_path(look_up.path) for look_up in each.look_ups[:_MOST_PATHS]]
        more = len(each.look_ups) - len(paths)
        mentions = [mention for look_up in each.look_ups for mention in look_up.mentions]
        first = mentions[0] if mentions else None
        named = f"{text_path(first.file)}:{first.line}: {first.text} {first.result}".strip() if first else ""
        yield (
            each.package or "no package",
            ", ".join(paths) + (f" and {more:,} more" if more > 0 else ""),
            named,
            ", ".join(each.lines[:_MOST_PATHS]),
            each.spack.name,
        )
