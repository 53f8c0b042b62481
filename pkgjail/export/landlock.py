"""Rules for the Landlock sandbox of Spack 1.2 and newer, `config:sandbox`, as YAML.

Landlock denies access but does not hide names, and its rules only add: everything below an allowed
directory is allowed. So a directory is listed only if the manifest has everything that the host has in it;
otherwise each file is listed. Spack resolves links before it makes a rule.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from pkgjail.core.entries import kind_of, kind_of_item, lstat
from pkgjail.export.common import is_within, on_host, own_entries, refuse, scratch_directories
from pkgjail.jails.host_mismatch import absent_paths, explain_absence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pkgjail.core.model import FileEntry, FileKind, Manifest

_HEAD = """\
# Written by pkgjail, for Spack 1.2 or newer: the files of the host that a build may read and execute.
# Spack reads this only under the name config.yaml, in a directory that is a scope of its configuration.
# Landlock denies (EACCES) and does not hide: a configure script that looks for another file finds it,
# and may fail when it cannot be opened. Directories without a rule of their own cannot be listed.
# Rules only add. A directory is listed if all that this host had in it was the manifest's; what comes
# into it later is allowed too. Files that a jail makes at entry are the host's own here.
"""
_PARTIAL = """\
# Spack's own directories and Python, /proc, /sys and /dev are left to you: without them every build
# fails. 'spack jail --landlock' writes rules for these too.
"""
# Characters that must be escaped: those not printable in YAML 1.2 (section 5.1), and those that YAML 1.1
# reads as line ends or as a byte order mark.
_UNPRINTABLE = re.compile("[^ -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def write(manifest: Manifest, root: bytes, at: bytes | None) -> bytes:
    """Return the rules for the files as they are below `root` now.

    Raises:
        InputError: names that are not UTF-8, which YAML cannot express; files that are missing or
            of another type.

    """
    del at
    return _HEAD.encode() + _PARTIAL.encode() + _settings({"allow_read": read_rules(manifest, root)})


def write_with(manifest: Manifest, read: Iterable[bytes], written: Iterable[bytes]) -> bytes:
    """Return the rules for the files of this host, and for more paths that may be read or written.

    Raises:
        InputError: as `write`.

    """
    allowed = {"allow_read": [*read_rules(manifest, b"/"), *read], "allow_write": [*written]}
    return _HEAD.encode() + _settings(allowed)


def _settings(allowed: Mapping[str, list[bytes]]) -> bytes:
    paths = [path for listed in allowed.values() for path in listed]
    refuse("landlock", [path for path in paths if not _is_utf8(path)], "YAML can only express UTF-8")
    lines = ["config:\n", "  sandbox:\n", "    enable: true\n"]
    for name, listed in allowed.items():
        lines.append(f"    {name}:\n" if listed else f"    {name}: []\n")
        lines += [f"    - {_quoted(path.decode())}\n" for path in listed]
    return "".join(lines).encode()


def read_rules(manifest: Manifest, root: bytes) -> list[bytes]:
    """Return the paths below `root` that a rule for reading needs.

    Raises:
        InputError: files that are missing or of another type.

    """
    scratch = scratch_directories(manifest)
    entries = [entry for entry in own_entries(manifest) if not is_within(entry.path, scratch)]
    listed = [(entry, on_host(root, entry.path) or b"/") for entry in _topmost(entries, root)]
    changed = [entry.path for entry, path in listed if entry.origin != "entry" and not _matches(entry, path)]
    if changed:
        absent = absent_paths(entries, root)
        cause = explain_absence(manifest, root, len(absent), len(entries))
        why = "missing or of another type; make a new manifest with 'pkgjail resolve'"
        refuse("landlock", changed, why, cause)
    return [path for entry, path in listed if entry.origin != "entry" or os.path.exists(path)]


def _topmost(entries: list[FileEntry], root: bytes) -> Iterable[FileEntry]:
    """Yield the complete directories, none below another, and the regular files outside them.

    A directory without files is left out: an empty /home or /mnt would allow everything that is put
    into it later.
    """
    complete = _complete_directories(entries, root)
    filled: set[bytes] = set()
    for entry in entries:
        parent = entry.path
        while entry.kind == "regular" and parent not in filled:
            filled.add(parent)
            parent = _parent(parent)
    covered: set[bytes] = set()
    for entry in entries:
        inside = entry.path != b"/" and _parent(entry.path) in covered
        is_rule = entry.path in filled and (entry.kind == "regular" or entry.path in complete)
        if inside or (is_rule and entry.kind == "directory"):
            covered.add(entry.path)
        if is_rule and not inside:
            yield entry


def _complete_directories(entries: list[FileEntry], root: bytes) -> set[bytes]:
    """Return the directories whose names on the host are all in `entries`, at any depth."""
    kinds: dict[bytes, FileKind] = {entry.path: entry.kind for entry in entries}
    complete: set[bytes] = set()
    # Entries are sorted by path: in reverse, the contents of a directory come before it.
    for entry in reversed(entries):
        if entry.kind == "directory" and _is_complete(entry.path, root, kinds, complete):
            complete.add(entry.path)
    return complete


def _is_complete(path: bytes, root: bytes, kinds: dict[bytes, FileKind], complete: set[bytes]) -> bool:
    try:
        with os.scandir(on_host(root, path) or b"/") as items:
            for item in items:
                place = path.rstrip(b"/") + b"/" + item.name
                kind = kind_of_item(item)
                if (
                    kind is None
                    or kinds.get(place) != kind
                    or (kind == "directory" and place not in complete)
                ):
                    return False
    except OSError:
        return False  # a directory that cannot be read may have other names
    return True


def _matches(entry: FileEntry, path: bytes) -> bool:
    """Return whether `path` is of the entry's kind and reached without a link."""
    found = lstat(path)
    return found is not None and kind_of(found.st_mode) == entry.kind and os.path.realpath(path) == path


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or b"/"


def _is_utf8(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


def _quoted(text: str) -> str:
    """Return a JSON string, which is also YAML, with YAML's forbidden characters escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)
