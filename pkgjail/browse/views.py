"""Lists to walk through, as lines of text of a given width: packages, names in a directory, answers.

A view is frozen: sorted in another way, it is another view. It knows neither colours nor keys.
"""

from __future__ import annotations

import textwrap
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

from rich.cells import cell_len

from pkgjail.browse.cells import bar, fit, fit_end
from pkgjail.browse.contents import Contents, Item
from pkgjail.browse.directories import ROOT, DirectoryTree, Name
from pkgjail.core.model import FileEntry, record
from pkgjail.core.text import counted, first_of, printable
from pkgjail.review.graph_formats import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SORTS: Mapping[str, str] = {
    "c": "cost",
    "s": "size",
    "t": "closure",
    "m": "names",
    "n": "name",
}
"""What lists are sorted by, with the key for each."""

DETAIL_LINES = 4
"""The most lines of details that a view has for a row."""

_SIZE, _NAMES, _BAR, _VERSION = 10, 8, 12, 26
# The least widths with these columns; a package has more numbers than a name.
_WITH_BAR, _WITH_NAMES_BAR, _WITH_VERSION = 98, 60, 118
_FEW = 6


class View(Protocol):
    """A list with a title. Rows are numbered from 0, and all lines are printable."""

    @property
    def title(self) -> str:
        """Return the title, with how the list is sorted."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def heading(self, width: int) -> str:
        """Return the titles of the columns."""
        ...

    def line(self, row: int, width: int) -> str:
        """Return a row in exactly `width` cells."""
        ...

    def details(self, row: int, width: int) -> tuple[str, ...]:
        """Return at most `DETAIL_LINES` lines about a row."""
        ...

    def subject(self, row: int) -> Item | FileEntry | None:
        """Return the package or the name that a row is about."""
        ...

    def opened(self, row: int) -> View | None:
        """Return what is in a row; None if nothing is."""
        ...

    def sorted_by(self, key: str) -> View:
        """Return the same rows sorted by one of `SORTS`: in reverse if they already are sorted so."""
        ...


# --- packages -----------------------------------------------------------------------------------

_OF_ITEM: Mapping[str, Callable[[Item], int]] = {
    "cost": attrgetter("cost"),
    "size": attrgetter("own"),
    "closure": attrgetter("closure"),
    "names": attrgetter("names"),
}
_BY_DEFAULT = _OF_ITEM["cost"]


@record
class Packages:
    """A list of packages, and of lines of whitelists, with their sizes; a view."""

    contents: Contents
    label: str
    items: tuple[Item, ...]
    sort: str = ""
    is_reversed: bool = False
    largest: int = 0  # of what the list is sorted by

    @property
    def title(self) -> str:
        """Return what is listed, and how it is sorted."""
        return f"{self.label}{_order(self.sort, is_reversed=self.is_reversed)}"

    def __len__(self) -> int:
        return len(self.items)

    def heading(self, width: int) -> str:
        """Return the titles of the columns."""
        sizes = ("cost", "size", "closure")
        return _package_line((*sizes, "names"), " " * _BAR, ("package", "version"), width)

    def line(self, row: int, width: int) -> str:
        """Return the sizes of a package, a bar for what the list is sorted by, and the name."""
        item = self.items[row]
        drawn = bar(_OF_ITEM.get(self.sort, _BY_DEFAULT)(item), self.largest, _BAR)
        numbers = (*map(size_text, (item.cost, item.own, item.closure)), f"{item.names:,}")
        return _package_line(numbers, drawn, (printable(item.name), printable(item.version)), width)

    def details(self, row: int, width: int) -> tuple[str, ...]:
        """Return why a package is there, its neighbours, and what it brings."""
        return tuple(fit(line, width) for line in _about_item(self.contents, self.items[row]))

    def subject(self, row: int) -> Item:
        """Return the package."""
        return self.items[row]

    def opened(self, row: int) -> View | None:
        """Return what the package requires."""
        return requires_view(self.contents, self.items[row])

    def sorted_by(self, key: str) -> Packages:
        """Return the same packages sorted by one of `SORTS`, the largest first."""
        is_reversed = key == self.sort and not self.is_reversed
        value = _OF_ITEM.get(key, _nothing)
        items = sorted(self.items, key=lambda item: (-value(item), item.name), reverse=is_reversed)
        largest = max(map(_OF_ITEM.get(key, _BY_DEFAULT), items), default=0)
        return replace(self, items=tuple(items), sort=key, is_reversed=is_reversed, largest=largest)


def packages_view(contents: Contents) -> Packages:
    """Return all packages, by cost."""
    return _packages(contents, counted(len(contents.packages), "package"), contents.packages)


def requires_view(contents: Contents, item: Item) -> Packages | None:
    """Return what an item requires directly; None if it requires nothing."""
    found = contents.requires(item.name)
    return _packages(contents, f"{printable(item.name)} requires {len(found):,}", found) if found else None


def needed_by_view(contents: Contents, item: Item) -> Packages | None:
    """Return what requires an item directly; None if nothing does."""
    found = contents.needed_by(item.name)
    label = f"{printable(item.name)} is needed by {len(found):,}"
    return _packages(contents, label, found) if found else None


def brings_view(contents: Contents, item: Item) -> Packages | None:
    """Return the packages that would leave with an item; None if none would."""
    found = contents.brings(item.name)
    label = f"with {printable(item.name)} would leave {len(found):,}"
    return _packages(contents, label, found) if found else None


def owners_view(contents: Contents, entry: FileEntry) -> Packages | None:
    """Return the packages that list a name; None if none does."""
    found = contents.owners(entry)
    label = f"{printable(entry.path)} is listed by {len(found):,}"
    return _packages(contents, label, found) if found else None


def _packages(contents: Contents, label: str, items: tuple[Item, ...]) -> Packages:
    return Packages(contents=contents, label=label, items=items).sorted_by("cost")


def _package_line(numbers: tuple[str, ...], drawn: str, words: tuple[str, str], width: int) -> str:
    """Return the cells of a row. The bar and the version are left out if the width does not suffice."""
    *sizes, names = numbers
    left = "".join(fit(size, _SIZE, right=True) for size in sizes) + fit(names, _NAMES, right=True)
    if width >= _WITH_BAR:
        left += f"  {drawn}"
    version = _VERSION if width >= _WITH_VERSION else 0
    name = fit(words[0], max(0, width - len(left) - 2 - version))
    return fit(f"{left}  {name}{fit(words[1], version)}", width)


def _about_item(contents: Contents, item: Item) -> tuple[str, ...]:
    name, chain = item.name, contents.chain(item.name)
    brought = [printable(each.name) for each in contents.brings(name)]
    edges = f"requires {len(contents.requires(name)):,}, needed by {len(contents.needed_by(name)):,}"
    return (
        printable(f"{name} {item.version}".strip()),
        f"why: {' -> '.join(map(printable, chain))}" if chain else "why: nothing requires it",
        f"{edges}, closure {size_text(item.closure)}, {counted(item.names, 'name')}",
        f"with it would leave: {', '.join(first_of(brought, _FEW))}" if brought else "it brings nothing else",
    )


# --- names --------------------------------------------------------------------------------------

_OF_NAME: Mapping[str, Callable[[Name], int]] = {"size": attrgetter("size"), "names": attrgetter("names")}
_KINDS = {"regular": "file", "directory": "directory", "symlink": "link"}


@record
class Directory:
    """The names in a directory, with the sizes of everything below them; a view."""

    tree: DirectoryTree
    owner: str
    path: bytes
    names: tuple[Name, ...]
    sort: str = ""
    is_reversed: bool = False
    largest: int = 0  # size

    @property
    def title(self) -> str:
        """Return the directory's path, whose files they are, and how they are sorted."""
        of = f" of {printable(self.owner)}" if self.owner else ""
        size = size_text(self.tree.name(self.path).size)
        order = _order(self.sort, is_reversed=self.is_reversed)
        return f"{printable(self.path)}{of}: {size}{order}"

    def __len__(self) -> int:
        return len(self.names)

    def heading(self, width: int) -> str:
        """Return the titles of the columns."""
        return fit(f"{_name_cells('size', 'names', ' ' * _BAR, width)}name", width)

    def line(self, row: int, width: int) -> str:
        """Return the size of a name, a bar, and the name: with a slash if it is a directory."""
        each = self.names[row]
        drawn = bar(each.size, self.largest, _BAR)
        left = _name_cells(size_text(each.size), f"{each.names:,}", drawn, width)
        return fit(f"{left}{_shown_name(each.entry)}", width)

    def details(self, row: int, width: int) -> tuple[str, ...]:
        """Return the properties of a name."""
        return _about_entry(self.names[row].entry, width)

    def subject(self, row: int) -> FileEntry:
        """Return the name."""
        return self.names[row].entry

    def opened(self, row: int) -> View | None:
        """Return the names in a directory; None for a file or a link."""
        path = self.names[row].entry.path
        found = self.tree.within(path)
        return _directory(self.tree, self.owner, path, found, self.sort) if found else None

    def sorted_by(self, key: str) -> Directory:
        """Return the same names sorted by one of `SORTS`; by size for cost and closure."""
        key = "size" if key in {"cost", "closure"} else key
        is_reversed = key == self.sort and not self.is_reversed
        value = _OF_NAME.get(key, _nothing)
        names = sorted(self.names, key=lambda name: (-value(name), name.entry.path), reverse=is_reversed)
        largest = max(name.size for name in names)
        return replace(self, names=tuple(names), sort=key, is_reversed=is_reversed, largest=largest)


def files_view(contents: Contents, owner: str = "") -> Directory | None:
    """Return the top directory of all names, or of those that a package lists; None if there are none."""
    tree = contents.tree(owner)
    path, found = ROOT, tree.within(ROOT)
    while len(found) == 1 and (inner := tree.within(found[0].entry.path)):
        path, found = found[0].entry.path, inner
    return _directory(tree, owner, path, found, "size") if found else None


def _directory(tree: DirectoryTree, owner: str, path: bytes, names: tuple[Name, ...], sort: str) -> Directory:
    return Directory(tree=tree, owner=owner, path=path, names=names).sorted_by(sort)


def _name_cells(size: str, names: str, drawn: str, width: int) -> str:
    bars = f"  {drawn}" if width >= _WITH_NAMES_BAR else ""
    return f"{fit(size, _SIZE, right=True)}{fit(names, _NAMES, right=True)}{bars}  "


def _shown_name(entry: FileEntry) -> str:
    name = printable(entry.path.rpartition(b"/")[2] or ROOT)
    if entry.target is not None:
        return f"{name} -> {printable(entry.target)}"
    return f"{name}/" if entry.kind == "directory" and entry.path != ROOT else name


def _about_entry(entry: FileEntry, width: int) -> tuple[str, ...]:
    target = f" -> {printable(entry.target)}" if entry.target is not None else ""
    owners = ", ".join(first_of([printable(owner) for owner in entry.owners], _FEW))
    size = f", {entry.size:,} bytes" if entry.size is not None else ""
    lines = (
        f"{_KINDS[entry.kind]}, mode {entry.mode:04o}{size}",
        f"listed by {owners}" if owners else f"origin: {entry.origin} {printable(entry.detail)}".rstrip(),
        f"sha256:{entry.sha256}" if entry.sha256 else "",
    )
    return (fit_end(f"{printable(entry.path)}{target}", width), *(fit(line, width) for line in lines))


# --- what a search found ------------------------------------------------------------------------


@record
class Found:
    """Packages and names that have a text in them; a view."""

    contents: Contents
    text: str
    rows: tuple[Item | FileEntry, ...]
    packages: int

    @property
    def title(self) -> str:
        """Return the text and what was found."""
        names = counted(len(self.rows) - self.packages, "name")
        return f"/{printable(self.text)}: {counted(self.packages, 'package')}, {names}"

    def __len__(self) -> int:
        return len(self.rows)

    def heading(self, width: int) -> str:
        """Return the titles of the columns."""
        return fit(f"{fit('size', _SIZE, right=True)}  package or path", width)

    def line(self, row: int, width: int) -> str:
        """Return the size, and a package with its version or a path; of a long path, the end."""
        each = self.rows[row]
        if isinstance(each, Item):
            size, text = size_text(each.own), printable(f"{each.name} {each.version}")
            return f"{fit(size, _SIZE, right=True)}  {fit(text, max(0, width - _SIZE - 2))}"
        size = "" if each.size is None else size_text(each.size)
        text = printable(each.path) + ("/" if each.kind == "directory" and each.path != ROOT else "")
        return f"{fit(size, _SIZE, right=True)}  {fit_end(text, max(0, width - _SIZE - 2))}"

    def details(self, row: int, width: int) -> tuple[str, ...]:
        """Return the details of a package or of a name."""
        each = self.rows[row]
        if isinstance(each, Item):
            return tuple(fit(line, width) for line in _about_item(self.contents, each))
        return _about_entry(each, width)

    def subject(self, row: int) -> Item | FileEntry:
        """Return the package or the name."""
        return self.rows[row]

    def opened(self, row: int) -> View | None:
        """Return what a package requires, or the names in a directory."""
        each = self.rows[row]
        if isinstance(each, Item):
            return requires_view(self.contents, each)
        tree = self.contents.tree()
        names = tree.within(each.path)
        return _directory(tree, "", each.path, names, "size") if names else None

    def sorted_by(self, key: str) -> Found:
        """Return the view itself: packages come before names, each in their own order."""
        del key
        return self


def found_view(contents: Contents, text: str) -> Found:
    """Return what has `text` in its name, the cheapest way to a package or a file."""
    items, entries = contents.search(text)
    return Found(contents=contents, text=text, rows=(*items, *entries), packages=len(items))


# --- text ---------------------------------------------------------------------------------------


@record
class Lines:
    """Lines of text; a view. What is longer than a line is whole in the details."""

    title: str
    lines: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lines)

    def heading(self, width: int) -> str:
        """Return an empty line."""
        return " " * width

    def line(self, row: int, width: int) -> str:
        """Return a line."""
        return fit(self.lines[row], width)

    def details(self, row: int, width: int) -> tuple[str, ...]:
        """Return the whole line if it is too long for one."""
        text = self.lines[row]
        if cell_len(text) <= width:
            return ()
        return tuple(textwrap.wrap(text, max(1, width), max_lines=DETAIL_LINES, placeholder="…"))

    def subject(self, row: int) -> None:
        """Return None: a line is about nothing."""

    def opened(self, row: int) -> None:
        """Return None: a line leads nowhere."""

    def sorted_by(self, key: str) -> Lines:
        """Return the view itself."""
        del key
        return self


def lines_view(title: str, lines: Sequence[str]) -> Lines:
    """Return a view of lines, which may have any characters in them."""
    return Lines(title=printable(title), lines=tuple(printable(line.rstrip()) for line in lines))


def _nothing(_: object) -> int:
    """Return 0: what is sorted by name alone."""
    return 0


def _order(sort: str, *, is_reversed: bool) -> str:
    return f", by {sort}{', reversed' if is_reversed else ''}"
