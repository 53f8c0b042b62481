"""Build an environment: a directory with a manifest, a record, and, if wanted, a tree of the files.

Each name is announced in a journal before it is made, so that whatever ends a build, `remove` knows
what is pkgjail's. A regular file gets its name when it is whole. The record appears last, at one
stroke; the environment is there when the journal is gone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.drift import refuse_drift
from pkgjail.environments import pieces
from pkgjail.environments.copied import drops_bits
from pkgjail.environments.copying import sync_filesystem, write_all
from pkgjail.environments.directory import lock, opened, split
from pkgjail.environments.record import (
    FORMS,
    JOURNAL,
    MANIFEST,
    RECORD,
    REMOVING,
    SCRATCH,
    TREE,
    Head,
    Made,
    Record,
    head_line,
    made_line,
    record_bytes,
)
from pkgjail.environments.remove import clear
from pkgjail.environments.sources import Sources, refuse_unreadable
from pkgjail.errors import BuildDriftError, DriftError, InputError, PkgjailError, Problem
from pkgjail.export.skeleton import content_at_entry
from pkgjail.manifest import dump_manifest, manifest_digest
from pkgjail.model import JailOptions, text_path
from pkgjail.reporter import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from pkgjail.environments.directory import Place
    from pkgjail.export.skeleton import Piece
    from pkgjail.model import Manifest, UserBind
    from pkgjail.reporter import Reporter

    # Gets a descriptor of an empty file, and returns the SHA-256 of what it put there; None to leave
    # the file out.
    _Fill = Callable[[int], "str | None"]

# The manifest's own facts were just compared; names that came to the host besides do not matter.
_AS_IT_IS = JailOptions(plan="binds", allow_drift=True)
_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Built(NamedTuple):
    """What was built: the number of names below the directory, and bytes of their content."""

    names: int
    bytes: int


def build_environment(  # noqa: PLR0913 - two say what; the rest have defaults
    manifest: Manifest,
    directory: bytes,
    *,
    form: str = "host",
    root: bytes = b"/",
    binds: tuple[UserBind, ...] = (),
    network: bool = True,
    variables: Mapping[str, str] | None = None,
    reporter: Reporter = SILENT,
) -> Built:
    """Make `directory` an environment of `manifest`, to be entered again and again.

    Args:
        manifest: what the environment holds.
        directory: it must not be there, or be an empty directory of the caller's.
        form: "host" shows the host's files at each entry; "copy" has a copy of them in
            `directory`/root; "fstab" has there what the lines of `export_manifest(…, "fstab")` mount
            on.
        root: where the files are that the manifest was resolved from.
        binds: what each entry shows besides.
        network: whether each entry shares the host's network.
        variables: what each entry's environment has besides `default_environment`.
        reporter: hears of progress ("copying"), and of mode bits that a copy does not have.

    Raises:
        InputError: the directory cannot be used.
        DriftError: files are not as the manifest says; all of them are told.
        PkgjailError: there is no room, or files that are to be copied may not be read. As with every
            other failure, nothing is left of the environment.
        OSError: something cannot be read or written.

    """
    if form not in FORMS:
        raise InputError(
            [Problem("", f"cannot build an environment {form!r}: the forms are {', '.join(FORMS)}")]
        )
    root = os.path.realpath(root)
    changes = _changes(manifest, root)
    if changes and form != "copy":
        raise BuildDriftError(changes)
    if form == "copy":
        refuse_unreadable(manifest, root)
    content = {} if changes or form == "host" else content_at_entry(manifest, root, _AS_IT_IS)
    data = dump_manifest(manifest)
    head = Head(
        form=form,
        inode=0,
        manifest=manifest_digest(data),
        root=root,
        binds=binds,
        network=network,
        variables=dict(variables or {}),
    )
    with _started(directory, head) as builder:
        builder.regular(MANIFEST, 0o644, _holding(data))
        if form == "copy":
            _copy(builder, manifest, content, Sources(root, dict(changes), reporter))
        elif form == "fstab":
            builder.tree(0o755, pieces.pieces_of_fstab(manifest, content))
        built = builder.finish()
    _tell_dropped_bits(manifest, form, reporter)
    return built


def _changes(manifest: Manifest, root: bytes) -> tuple[tuple[bytes, str], ...]:
    try:
        refuse_drift(manifest.files, root)
    except DriftError as drift:
        return drift.changes
    return ()


def _copy(builder: _Builder, manifest: Manifest, content: Mapping[bytes, bytes], sources: Sources) -> None:
    """Fill the tree with copies, and hold each against the manifest.

    Raises:
        DriftError: with all that differ, not the first only.

    """
    with sources:
        files = sources.filling(pieces.copied_files(manifest))
        builder.tree(pieces.mode_of_root(manifest), pieces.pieces_of_copy(manifest, content), files)
    if sources.changes:
        raise BuildDriftError(tuple(sorted(sources.changes.items())))
    sync_filesystem(builder.place.directory)


def _tell_dropped_bits(manifest: Manifest, form: str, reporter: Reporter) -> None:
    dropped = [text_path(entry.path) for entry in manifest.files if drops_bits(entry)]
    if form == "copy" and dropped:
        reporter.warn(
            f"{len(dropped)} names are copied without their set-user-ID and set-group-ID bits: "
            f"{', '.join(dropped)}"
        )


@contextlib.contextmanager
def _started(directory: bytes, head: Head) -> Iterator[_Builder]:
    """A builder in `directory`; if the block raises, all is as it was before."""
    parent, name = split(directory)
    path = parent.rstrip(b"/") + b"/" + name
    try:
        os.mkdir(path, 0o755)
        new = True
    except FileExistsError:
        new = False
    try:
        with opened(directory, "build") as place:
            lock(place, "build", alone=True)
            _refuse_occupied(place)
            builder = _Builder(place, replace(head, inode=os.fstat(place.directory).st_ino))
            try:
                with builder:
                    yield builder
            except BaseException as failure:
                left = _cleaned_up(builder, new=new)
                if isinstance(failure, OSError) and failure.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise _no_room(place, failure, left=left) from failure
                raise
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                os.rmdir(path)
        raise


def _refuse_occupied(place: Place) -> None:
    names = set(map(os.fsencode, os.listdir(place.directory)))
    why = None
    if RECORD in names and JOURNAL not in names:
        why = "it is an environment already; enter it, or remove it with 'pkgjail remove'"
    elif {JOURNAL, REMOVING} & names:
        why = "what is left of an interrupted 'pkgjail' is there; take it away with 'pkgjail remove'"
    elif names:
        why = "it is not empty; name another"
    elif os.fstat(place.directory).st_uid != os.geteuid():
        why = "it belongs to another user; name another"
    if why is not None:
        raise InputError([Problem("", f"cannot build {text_path(place.path)}: {why}")])


def _cleaned_up(builder: _Builder, *, new: bool) -> bool:
    """Take away what was made, and the directory where it is `new`; whether anything is left."""
    try:
        clear(builder.place, tuple(builder.made), JOURNAL, keep=not new)
    except (OSError, PkgjailError):
        return True
    return False


def _no_room(place: Place, failure: OSError, *, left: bool) -> PkgjailError:
    rest = (
        f"take away what is left with 'pkgjail remove {text_path(place.path)}'"
        if left
        else "nothing of it is left"
    )
    return PkgjailError(
        f"cannot build {text_path(place.path)}: {failure.strerror}; {rest}; make room, or name a directory "
        "on another filesystem"
    )


class _Builder:
    """Makes names in an environment's directory, each announced in the journal first."""

    def __init__(self, place: Place, head: Head) -> None:
        self.place = place
        self.made: list[Made] = []
        self._head = head
        self._modes: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        self._journal = os.open(JOURNAL, os.O_WRONLY | _NEW, 0o644, dir_fd=self.place.directory)
        write_all(self._journal, head_line(self._head))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._journal)

    def tree(
        self,
        mode: int,
        pieces_of_tree: Iterator[Piece],
        files: Mapping[bytes, _Fill] | None = None,
    ) -> None:
        """Make the tree; `files` fill those that they name."""
        self._directory(TREE, mode)
        for piece in pieces_of_tree:
            path = TREE + piece.path
            if piece.kind == "directory":
                self._directory(path, piece.mode)
            elif piece.kind == "symlink":
                self._announce(Made(path, "symlink", target=piece.target))
                os.symlink(piece.target, path, dir_fd=self.place.directory)
            elif files and piece.path in files:
                self.regular(path, piece.mode, files[piece.path])
            else:
                self.regular(path, piece.mode, _holding(piece.content))

    def regular(self, path: bytes, mode: int, fill: _Fill) -> None:
        """Make a file of what `fill` puts into it."""
        directory = self.place.directory
        descriptor = os.open(SCRATCH, os.O_RDWR | _NEW, 0o600, dir_fd=directory)
        try:
            digest = fill(descriptor)
            os.fchmod(descriptor, mode)
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if digest is not None:
            self._announce(
                Made(path, "regular", found.st_ino, found.st_size, found.st_mtime_ns, sha256=digest)
            )
            # A link and not a rename, which would replace what stands there.
            os.link(SCRATCH, path, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        os.unlink(SCRATCH, dir_fd=directory)

    def finish(self) -> Built:
        """Give directories their modes, write the record, and end the journal."""
        whole = Record(head=self._head, made=tuple(self._settled()))
        self.regular(RECORD, 0o644, _holding(record_bytes(whole), sync=True))
        os.unlink(JOURNAL, dir_fd=self.place.directory)
        os.fsync(self.place.directory)
        return Built(len(whole.made), sum(one.size for one in whole.made))

    def _directory(self, path: bytes, mode: int) -> None:
        self._announce(Made(path, "directory"))
        os.mkdir(path, 0o700, dir_fd=self.place.directory)
        self._modes[path] = mode

    def _settled(self) -> Iterator[Made]:
        """All that was made, with what identifies it from now on.

        Directories get their modes on the way, the inner ones first: some may not be searched then.
        """
        for one in reversed(self.made):
            if one.kind == "directory":
                descriptor = self.place.open_directory(one.path)
                try:
                    os.fchmod(descriptor, self._modes[one.path])
                    found = os.fstat(descriptor)
                finally:
                    os.close(descriptor)
                yield one._replace(inode=found.st_ino, ctime=found.st_ctime_ns)
            else:
                found = os.stat(one.path, dir_fd=self.place.directory, follow_symlinks=False)
                ctime = found.st_ctime_ns if one.kind == "regular" else 0
                yield one._replace(inode=found.st_ino, ctime=ctime)

    def _announce(self, made: Made) -> None:
        write_all(self._journal, made_line(made))
        self.made.append(made)


def _holding(data: bytes, *, sync: bool = False) -> _Fill:
    """What fills a file with `data`, and if wanted has it on the disk."""

    def fill(descriptor: int) -> str:
        write_all(descriptor, data)
        if sync:
            os.fsync(descriptor)
        return hashlib.sha256(data).hexdigest()

    return fill
