"""The names that a jail has so far, while its plan is being written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.entries import NOUNS
from pkgjail.core.errors import JailError
from pkgjail.core.paths import follow
from pkgjail.core.text import text_path
from pkgjail.sandbox.steps import Directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.model import FileKind, Manifest


class Layout:
    """The names of a jail and the kind of each: those of the manifest, then those that steps add."""

    def __init__(self, manifest: Manifest) -> None:
        self._kinds: dict[bytes, FileKind] = {entry.path: entry.kind for entry in manifest.files}
        self._targets = {e.path: e.target or b"" for e in manifest.files if e.kind == "symlink"}
        self._kinds.setdefault(b"/", "directory")
        self._parents = {path.rpartition(b"/")[0] or b"/" for path in self._kinds if path != b"/"}

    def kind(self, path: bytes) -> FileKind | None:
        """Return the kind of the name, or None if there is none."""
        return self._kinds.get(path)

    def is_empty_directory(self, path: bytes) -> bool:
        """Check whether the path is a directory without names in it."""
        return self._kinds.get(path) == "directory" and path not in self._parents

    def count_below(self, path: bytes) -> int:
        """Return the number of names below a directory, at any depth."""
        prefix = path.rstrip(b"/") + b"/"
        return sum(1 for other in self._kinds if other.startswith(prefix) and other != path)

    def make_directories(self, path: bytes) -> Iterator[Directory]:
        """Add `path` and its parents as directories, and yield a step for each that was missing.

        Raises:
            JailError: a file or link is in the way.

        """
        missing = []
        while path not in self._kinds:
            missing.append(path)
            path = path.rpartition(b"/")[0] or b"/"
        if self._kinds[path] != "directory":
            raise JailError(
                f"cannot make {text_path(missing[-1] if missing else path)} in the jail: "
                f"{text_path(path)} is a {NOUNS[self._kinds[path]]} there; choose another path"
            )
        for directory in reversed(missing):
            self.add(directory, "directory")
            yield Directory(directory, 0o755)

    def admits(self, path: bytes) -> bool:
        """Check whether there can be a name: no file or link is on the way to it."""
        while path not in self._kinds:
            path = path.rpartition(b"/")[0] or b"/"
        return self._kinds[path] == "directory"

    def target(self, path: bytes) -> bytes | None:
        """Return the text of the symbolic link at the path, or None if there is none."""
        return self._targets.get(path)

    def add_link(self, path: bytes, target: bytes) -> None:
        """Add a symbolic link."""
        self.add(path, "symlink")
        self._targets[path] = target

    def add(self, path: bytes, kind: FileKind) -> None:
        """Add a name."""
        self._kinds[path] = kind
        self._parents.add(path.rpartition(b"/")[0] or b"/")

    def resolve(self, path: bytes) -> bytes:
        """Follow the manifest's own symbolic links and return the path that `path` leads to in the jail.

        Raises:
            JailError: there are too many links.

        """
        try:
            return follow(path, self._targets.get)
        except OSError as error:
            raise JailError(
                f"cannot resolve {text_path(path)} in the jail: too many symbolic links"
            ) from error
