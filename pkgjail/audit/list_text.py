"""Whitelists as text: that of a manifest, or of some of its roots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.families import family_of
from pkgjail.policy import shipped_blacklists
from pkgjail.review.why import file_pattern, toml_string

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pkgjail.core.model import Manifest
    from pkgjail.manifest.subset import Root


def list_text(manifest: Manifest, roots: Iterable[Root]) -> str:
    """Return a whitelist (TOML) with entries of a manifest's whitelists, and with all else that it has.

    That is the base set, files that whitelists included, devices, and the shipped blacklists. A blacklist of
    the user's is named in a comment: its place is not in the manifest.
    """
    header = manifest.header
    texts = sorted({root.text for root in roots})
    packages = [text for text in texts if not text.startswith("/")]
    owners = [text for text in texts if text.startswith("/")]
    others = [name for name in header.blacklists if name not in shipped_blacklists()]
    known = [name for name in header.blacklists if name in shipped_blacklists()]
    files = [pattern for pattern in map(file_pattern, _included(manifest)) if pattern]
    lines = [f"# It also had the blacklist {toml_string(name)}: name its path below." for name in others]
    lines += ["[packages]", *_array(family_of(header.distribution), packages)]
    if files or owners:
        lines += ["", "[files]", *_array("include", files), *_array("owners", owners)]
    if manifest.devices:
        lines += ["", "[devices]", *_array("include", [device.pattern for device in manifest.devices])]
    lines += ["", "[options]", f"essential = {_flag(header.essential)}"]
    lines += [f"recommends = {_flag(header.recommends)}", *_array("blacklists", known)]
    return "\n".join([*lines, ""])


def _included(manifest: Manifest) -> Iterator[bytes]:
    """Yield the paths that whitelists included, without those below another one."""
    above = b"\0"
    for entry in manifest.files:
        if entry.origin == "include" and not entry.path.startswith(above):
            yield entry.path
            above = entry.path + b"/" if entry.kind == "directory" else above


def _array(name: str, texts: Iterable[str]) -> list[str]:
    rows = [f"    {toml_string(text)}," for text in texts]
    return [f"{name} = [", *rows, "]"] if rows else []


def _flag(value: bool) -> str:  # noqa: FBT001 - it is what is written
    return "true" if value else "false"
