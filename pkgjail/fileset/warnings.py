"""Warnings about a file set: paths that could not come in, and rules without effect."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from pkgjail.core.reporter import warn_each
from pkgjail.core.text import printable, raw_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pkgjail.core.model import FileSet, Rule
    from pkgjail.core.reporter import Reporter
    from pkgjail.fileset.rootfs import Tree

_GLOB = re.compile(r"[*?[\\]")


def warn_missing(file_set: FileSet, reporter: Reporter) -> None:
    """Warn once for each reason why listed paths are missing from the set."""
    reasons = {
        "absent": "are not on the disk",
        "private": "are below directories that others may not search",
        "special": "are neither files nor directories nor links",
    }
    for reason, count in sorted(Counter(missing.reason for missing in file_set.missing).items()):
        example = next(m.path for m in file_set.missing if m.reason == reason)
        reporter.warn(f"{count} listed paths {reasons[reason]}, {printable(example)} among them")


def warn_unmatched(rules: Iterable[Rule], tree: Tree, reporter: Reporter) -> None:
    """Warn of `rules` that matched no path, except shipped ones, which are for any host."""
    warnings = [
        f"{rule.origin}: {rule.pattern} matches nothing here{_remedy(rule.pattern, tree)}"
        for rule in rules
        if not rule.shipped
    ]
    warn_each(reporter, warnings, "rules that match nothing here")


def _remedy(pattern: str, tree: Tree) -> str:
    """Return how to write a pattern that goes through a link, as patterns match real paths; otherwise ""."""
    sign = "!" if pattern.startswith("!") else ""
    text = pattern[len(sign) :]
    if "/" not in text.rstrip("/"):
        return ""  # a name at any depth
    absolute = "/" + text.lstrip("/")
    wildcard = _GLOB.search(absolute)
    end = absolute.rindex("/", 0, wildcard.start() if wildcard else None) + 1
    directory, rest = raw_path(absolute[:end]), absolute[end:]
    links = tree.links_above(directory)
    if not links:
        return ""
    better = f"{sign}{printable(tree.real(directory))}{rest}"
    return f": {printable(links[0])} is a link to {printable(tree.readlink(links[0]))}; write {better}"
