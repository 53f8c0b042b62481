"""What a file is by its content, for files that are given in each other's place."""

from __future__ import annotations

import codecs
import re

MANIFEST_FILE, PLAN, AUDIT, LIST_FILE = "manifest", "package plan", "record of an audit", "whitelist"
WHAT_TO_DO = {
    MANIFEST_FILE: "'pkgjail show' shows it, and 'pkgjail run' runs commands in it",
    PLAN: "nothing of it need be installed here; resolve the whitelists on the system that it is for",
    AUDIT: "'pkgjail audit show' shows it",
    LIST_FILE: "'pkgjail resolve' makes a manifest of it",
}
"""What each kind of file is for."""

_FIRST_LINE = re.compile(rb'\A\{[^\n]{0,100000}"kind":\s*"(header|plan|audit)"')
_KINDS = {b"header": MANIFEST_FILE, b"plan": PLAN, b"audit": AUDIT}
_OF_LISTS = re.compile(
    rb"^\s*(?:\[(?:packages|files|devices|options)\]\s*(?:#.*)?\r?$|include\s*=\s*\[)", re.MULTILINE
)
_MOST = 1 << 20


def kind_of(data: bytes) -> str:
    """Return one of the kinds of `WHAT_TO_DO` that a file's content is, or ""."""
    start = data[:_MOST].removeprefix(codecs.BOM_UTF8).lstrip()
    found = _FIRST_LINE.match(start)
    if found:
        return _KINDS[found[1]]
    return LIST_FILE if start[:1] != b"{" and _OF_LISTS.search(start) else ""


def mistaken_for(data: bytes, wanted: str) -> str:
    """Return why a file is not what is wanted, and what to do with it; "" if it may be."""
    kind = kind_of(data)
    return f"this is a {kind}, not a {wanted}: {WHAT_TO_DO[kind]}" if kind and kind != wanted else ""
