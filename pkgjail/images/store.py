"""The store of images: a directory of the user's, or one that several users share.

    STORE/sha256-HEX/tree/         an image's files
    STORE/sha256-HEX/files.jsonl   the list of its names; its SHA-256 is HEX
    STORE/sha256-HEX/image.json    how it was imported, and what was left out
    STORE/names/NAME               a name: a file with the image's digest

Everything is made under another name and then renamed, so there is never half an image. Whoever uses an image
has a shared lock (flock(2)) on its directory, without which it may be removed. Whoever changes the store
locks `STORE/lock` for that moment. A user who may not write to a store can use its images.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.entries import MISSING, Mismatch, compare, failure
from pkgjail.core.errors import NoImageError, PkgjailError, UsageError
from pkgjail.core.given import path_text
from pkgjail.core.parameters import parameter
from pkgjail.core.sources import source_at
from pkgjail.core.text import printable
from pkgjail.core.untrusted import MIB, PARSE_INT, parsing, read_below
from pkgjail.images.listing import is_digest, listing_digest, parse_listing
from pkgjail.images.model import Image, LeftOut, disk_mode
from pkgjail.images.users import locked, users_of
from pkgjail.storage.atomic import write_own_file_in
from pkgjail.storage.digests import file_digests
from pkgjail.storage.locations import data_directory
from pkgjail.storage.locks import lock_shared
from pkgjail.storage.own_files import NEW_PREFIX, open_directory, open_own_file, open_subdirectory
from pkgjail.storage.removal import is_left_over, make_locked_directory, remove_tree, remove_unused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.errors import Change
    from pkgjail.core.given import AnyPath
    from pkgjail.core.reporter import Reporter
    from pkgjail.core.sources import Source
    from pkgjail.images.model import ImageEntry

TREE, LISTING, FACTS = "tree", "files.jsonl", "image.json"
"""The names in an image's directory."""
VARIABLE = "PKGJAIL_STORE"
"""The environment variable that names a store."""

_NAMES = "names"
_MOST_NAME = 100
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+-]{{0,{_MOST_NAME - 1}}}")
_DIGITS = 12  # of a digest that tells two images of one name apart
_READABLE = 0o644
_MOST_LISTING = 1024 * MIB
_MOST_FACTS = MIB
_AGAIN = "remove it with 'pkgjail image rm', and import it again"
_PER_REPORT = 256


class NewImage(NamedTuple):
    """An image that is being made: descriptors of its directory and of the tree in it, and its name."""

    directory: int
    tree: int
    name: str


def store_path(store: str = "") -> str:
    """Return the path of a store: as given, or that of PKGJAIL_STORE, or `images` in the data directory."""
    chosen = store or os.environ.get(VARIABLE, "")
    if chosen:
        return os.path.abspath(chosen)
    directory = data_directory()
    if not os.path.isabs(directory):
        raise UsageError(
            f"cannot find the store of images: you have no home directory; name a store with "
            f"{parameter('store')} or {VARIABLE}"
        )
    return f"{directory}/images"


def name_file(name: str, store: str = "") -> str:
    """Return the path of the file that says which image has a name; of the image's list, for a digest."""
    place = store_path(store)
    return f"{place}/{_directory_name(name)}/{LISTING}" if is_digest(name) else f"{place}/{_NAMES}/{name}"


def check_name(name: str) -> None:
    """Raise `UsageError` if an image may not have this name."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"cannot name an image {printable(name)!r}: a name has up to 100 letters, digits, dots, hyphens, "
            "underscores and plus signs, and begins with a letter or a digit"
        )


# --- reading ------------------------------------------------------------------------------------


def list_images(store: AnyPath = "") -> tuple[Image, ...]:
    """Return the images of a store by name, and those without a name last; one with two names is there twice.

    Args:
        store: the directory; "" for PKGJAIL_STORE, or the user's own.

    Raises:
        OSError: it cannot be read.
        PkgjailError: it is damaged.

    """
    store = path_text(store, "store")
    place = store_path(store)
    names = _names(place)
    unnamed = _digests(place) - set(names.values())
    rows = [*sorted(names.items()), *(("", digest) for digest in sorted(unnamed))]
    found = []
    for name, digest in rows:
        with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
            found.append(_read_image(place, digest, name))
    return tuple(found)


def find_image(name: str, store: AnyPath = "") -> Image:
    """Return the image with a name, or with a digest (`sha256:HEX`).

    Raises:
        NoImageError: there is none.
        OSError: the store cannot be read.
        PkgjailError: the image's records are damaged.

    """
    store = path_text(store, "store")
    place = store_path(store)
    names = _names(place)
    digest = name if is_digest(name) else names.get(name, "")
    if digest:
        with contextlib.suppress(FileNotFoundError):
            label = next((each for each, its in sorted(names.items()) if its == digest), "")
            return _read_image(place, digest, label if is_digest(name) else name)
    known = ", ".join(sorted(names)) or "none"
    raise NoImageError(
        f"cannot find the image {printable(name)} in {printable(place)}: it has {known}; import it with "
        "'pkgjail image import'"
    )


def find_source(text: str, store: AnyPath = "") -> Source:
    """Return the source with a text: `host`, `dir:PATH`, or `image:` and the name or digest of an image.

    Raises:
        NoImageError: there is no such image.
        UsageError: the text has another form.
        OSError: the store cannot be read.

    """
    store = path_text(store, "store")
    kind, colon, rest = text.partition(":")
    if text == "host":
        return source_at(b"/")
    if kind == "dir" and rest:
        return source_at(os.fsencode(rest))
    if kind == "image" and rest:
        return source_at(find_image(rest, store).root)
    raise UsageError(
        f"cannot use the source {printable(text)!r}: write host, dir:PATH or image:NAME"
        f"{'' if colon else '; did you mean dir:' + printable(text) + '?'}"
    )


def lock_source(source: Source) -> list[int]:
    """Keep others from removing an image while the returned descriptors are open; none for other sources.

    Raises:
        OSError: it is gone.

    """
    return lock_shared([os.path.dirname(source.root)]) if source.kind == "image" else []


@contextlib.contextmanager
def used_image(name: str, store: AnyPath = "") -> Iterator[Image]:
    """Find an image as `find_image` does, and keep others from removing it meanwhile."""
    store = path_text(store, "store")
    image = find_image(name, store)
    locks = lock_shared([os.path.dirname(image.root)])
    try:
        yield image
    finally:
        for descriptor in locks:
            os.close(descriptor)


def verify_image(image: Image, reporter: Reporter) -> tuple[Change, ...]:
    """Compare an image's files with the list of its names; returns each difference, by path.

    Raises:
        OSError: a directory of the image cannot be read.
        PkgjailError: the list itself is damaged.

    """
    entries = read_listing(image)
    changes: list[Change] = []
    for number, (path, entry) in enumerate(entries.items(), 1):
        if number % _PER_REPORT == 0 or number == len(entries):
            reporter.progress("verifying", number, len(entries))
        place = image.root + b"/" + path if path else image.root
        try:
            found = os.lstat(place)
        except OSError:
            changes.append((b"/" + path, MISSING))
            continue
        mode = None if entry.kind == "symlink" else disk_mode(entry)
        different = compare(entry, place, found, mode=mode)
        if not different and entry.sha256 is not None:
            different = _compare_content(place, entry.sha256)
        changes += [(b"/" + path, each) for each in different]
    changes += [(b"/" + path, Mismatch("extra")) for path in _extras(image.root, entries)]
    return tuple(sorted(changes))


def _compare_content(place: bytes, expected: str) -> tuple[Mismatch, ...]:
    try:
        found = file_digests(place, "sha256")[0]
    except OSError as error:
        return (failure("unreadable", error),)
    return () if found == expected else (Mismatch("content", expected, found),)


def _extras(root: bytes, entries: dict[bytes, ImageEntry]) -> Iterator[bytes]:
    for path, entry in entries.items():
        if entry.kind == "directory":
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                names = os.listdir(root + b"/" + path)
                inside = (path + b"/" + name if path else name for name in names)
                yield from (each for each in inside if each not in entries)


def _names(place: str) -> dict[str, str]:
    """Return the digest of each name in a store. There is none if there is no store."""
    directory, names = os.path.join(place, _NAMES), {}
    try:
        listed = sorted(os.listdir(directory))
    except FileNotFoundError:
        return {}
    for name in filter(_NAME.fullmatch, listed):
        with contextlib.suppress(FileNotFoundError):
            path = os.fsencode(os.path.join(directory, name))
            digest = read_below(b"/", path, _MOST_FACTS).decode("ascii", "replace").strip()
            if not is_digest(digest):
                raise PkgjailError(f"cannot read the image {name}: {printable(path)} has no digest; {_AGAIN}")
            names[name] = digest
    return names


def _digests(place: str) -> set[str]:
    try:
        listed = os.listdir(place)
    except FileNotFoundError:
        return set()
    return {digest for digest in (each.replace("-", ":", 1) for each in listed) if is_digest(digest)}


def _directory_name(digest: str) -> str:
    return digest.replace(":", "-")


def _read_image(place: str, digest: str, name: str) -> Image:
    directory = os.fsencode(os.path.join(place, _directory_name(digest)))

    def damaged(why: str) -> PkgjailError:
        return PkgjailError(
            f"cannot read the image {name or digest}: {printable(directory)}/{FACTS} is damaged ({why}); "
            f"{_AGAIN}"
        )

    data = read_below(b"/", os.path.join(directory, os.fsencode(FACTS)), _MOST_FACTS)
    with parsing(damaged):
        facts = json.loads(data, parse_int=PARSE_INT)
        return Image(
            digest=digest,
            name=name,
            root=os.path.join(directory, os.fsencode(TREE)),
            format=str(facts["format"]),
            names=int(facts["names"]),
            bytes=int(facts["bytes"]),
            left_out=LeftOut(**{key: int(facts["left_out"][key]) for key in LeftOut._fields}),
        )


def read_listing(image: Image) -> dict[bytes, ImageEntry]:
    """Return an image's names by their paths relative to its root. Raises `PkgjailError` if it is damaged."""
    path = os.path.join(os.path.dirname(image.root), os.fsencode(LISTING))

    def damaged(why: str) -> PkgjailError:
        return PkgjailError(f"cannot read the image: {printable(path)} is damaged ({why}); {_AGAIN}")

    data = read_below(b"/", path, _MOST_LISTING)
    if listing_digest(data) != image.digest:
        raise damaged("its digest is not the image's")
    with parsing(damaged):
        return parse_listing(data)


# --- changing -----------------------------------------------------------------------------------


@contextlib.contextmanager
def new_image(store: str) -> Iterator[tuple[int, NewImage]]:
    """Make the directory of a new image, and remove it at the end unless `publish` has renamed it.

    Yields a descriptor of the store, and the new directory. What killed processes left is removed first.

    Raises:
        OSError: the store cannot be made, or this user may not write to it.

    """
    with _opened_store(store) as place:
        _remove_left_over(place)
        name, directory = _make_new(place)
        try:
            os.fchmod(directory, 0o755)
            os.mkdir(TREE, 0o700, dir_fd=directory)
            os.chmod(TREE, 0o700, dir_fd=directory)
            tree = os.open(
                TREE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory
            )
            try:
                yield place, NewImage(directory, tree, name)
            finally:
                os.close(tree)
        finally:
            with contextlib.suppress(FileNotFoundError):  # it was published
                remove_tree(place, name)
            os.close(directory)


def _make_new(place: int) -> tuple[str, int]:
    """Make a locked directory; another process may take it for a left-over one before it is locked."""
    while True:
        name = f"{NEW_PREFIX}{os.urandom(8).hex()}"
        with contextlib.suppress(FileNotFoundError):
            return name, make_locked_directory(place, name)


def publish(  # noqa: PLR0913 - where, what, and by name how
    place: int,
    new: NewImage,
    name: str,
    listing: bytes,
    facts: dict[str, Any],
    *,
    replace: bool = False,
    rename: bool = False,
) -> str:
    """Give a complete image its digest's name, and `name`; returns the name, which `rename` may change.

    If the store has the image, only the name is new.

    Raises:
        PkgjailError: another image has the name, and neither `replace` nor `rename` is true.
        OSError: it cannot be written.

    """
    digest = listing_digest(listing)
    write_own_file_in(new.directory, LISTING, listing, _READABLE)
    write_own_file_in(new.directory, FACTS, json.dumps(facts, indent=1).encode() + b"\n", _READABLE)
    with locked(place):
        names = _opened_names(place)
        try:
            name = _free_name(names, name, digest, replace=replace, rename=rename)
            _remove_left_over(names)
            if _directory_name(digest) not in os.listdir(place):
                os.rename(new.name, _directory_name(digest), src_dir_fd=place, dst_dir_fd=place)
            write_own_file_in(names, name, f"{digest}\n".encode(), _READABLE)
        finally:
            os.close(names)
    return name


def refuse_taken_name(name: str, store: str = "") -> None:
    """Raise `PkgjailError` if an image has the name: before an image is made, which takes time."""
    found = _names(store_path(store)).get(name, "")
    if found:
        raise _taken(name, found)


def _free_name(names: int, name: str, digest: str, *, replace: bool, rename: bool) -> str:
    """Return the name that an image gets; `names` is the descriptor of the directory of all.

    Raises `PkgjailError` if another image has it.
    """
    try:
        descriptor = open_own_file(names, name, os.O_RDONLY)
    except FileNotFoundError:
        return name
    with open(descriptor, "rb") as file:
        found = file.read(_MOST_FACTS).decode("ascii", "replace").strip()
    if found == digest or replace:
        return name
    if rename:
        digits = digest.partition(":")[2][:_DIGITS]
        other = f"{name[: _MOST_NAME - len(digits) - 1]}-{digits}"
        return _free_name(names, other, digest, replace=False, rename=False)
    raise _taken(name, found)


def _taken(name: str, digest: str) -> PkgjailError:
    return PkgjailError(
        f"cannot name the image {name}: another one has the name {name} ({digest}); choose another name, or "
        f"take this one from it with {parameter('replace=True')}"
    )


def remove_image(name: str, store: AnyPath = "") -> Image:
    """Remove a name, and its image if that has no other name; with a digest, the image and all its names.

    Returns:
        The image.

    Raises:
        NoImageError: there is none.
        PkgjailError: a process uses it, or an environment shows it; nothing was removed.
        OSError: it cannot be removed.

    """
    store = path_text(store, "store")
    with _opened_store(store) as place, locked(place):
        image = find_image(name, store)
        names = _names(store_path(store))
        same = {each for each, digest in names.items() if digest == image.digest}
        removed = same if is_digest(name) else {name}
        is_last = same == removed
        if is_last:
            _refuse_used(place, image)
        directory = _opened_names(place)
        try:
            for each in removed:
                os.unlink(each, dir_fd=directory)
        finally:
            os.close(directory)
        if is_last:  # last, so that a name never leads to half an image
            remove_unused(place, _directory_name(image.digest))
    return image


def _refuse_used(place: int, image: Image) -> None:
    """Raise `PkgjailError` if a process has locked an image, or an environment shows it."""
    if users := users_of(place, _directory_name(image.digest)):
        raise PkgjailError(
            f"cannot remove the image {image.name or image.digest}: the environment {printable(users[0])} "
            f"{f'and {len(users) - 1} others show' if users[1:] else 'shows'} its files; remove that first, "
            "with 'pkgjail remove' or 'spack jail --remove-environment'"
        )
    descriptor = os.open(os.path.dirname(image.root), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PkgjailError(
            f"cannot remove the image {image.name or image.digest}: a process uses it; try again when it has "
            "ended, or see which with 'lslocks'"
        ) from error
    finally:
        os.close(descriptor)


def prune_images(store: AnyPath = "") -> tuple[Image, ...]:
    """Remove images without a name that nobody uses, and what killed processes left; returns those removed.

    Those that an environment shows stay.

    Raises:
        OSError: the store cannot be changed.

    """
    store = path_text(store, "store")
    with _opened_store(store) as place, locked(place):
        _remove_left_over(place)
        names = _opened_names(place)
        try:
            _remove_left_over(names)
        finally:
            os.close(names)
        unnamed = {_directory_name(each.digest): each for each in list_images(store) if not each.name}
        unused = [name for name in unnamed if not users_of(place, name)]
        removed = [unnamed[name] for name in unused if remove_unused(place, name)]
    return tuple(removed)


@contextlib.contextmanager
def _opened_store(store: str) -> Iterator[int]:
    """Open a store to change it; it is made if it is missing, a shared one readable for all.

    Raises:
        PkgjailError: another user has it.
        OSError: it cannot be made.

    """
    path = store_path(store)
    is_named = bool(store or os.environ.get(VARIABLE, ""))
    is_new = not os.path.lexists(path)
    try:
        place = open_directory(os.path.realpath(path), make=True)
    except PermissionError as error:
        raise PkgjailError(
            f"cannot change the store {printable(path)}: it does not belong to this user alone; name another "
            f"one with {parameter('store')} or {VARIABLE}"
        ) from error
    try:
        if is_new and is_named:
            os.fchmod(place, 0o755)
        yield place
    finally:
        os.close(place)


def _opened_names(place: int) -> int:
    descriptor = open_subdirectory(place, _NAMES, make=True)
    os.fchmod(descriptor, 0o755)
    return descriptor


def _remove_left_over(place: int) -> None:
    for name in filter(is_left_over, os.listdir(place)):
        with contextlib.suppress(FileNotFoundError):
            remove_unused(place, name)
