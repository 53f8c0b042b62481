"""The browser: one list at a time, details of the selected row, and a line of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Input, Static

from pkgjail.browse.cells import fit
from pkgjail.browse.contents import Contents, Item
from pkgjail.browse.listing import Listing
from pkgjail.browse.views import (
    DETAIL_LINES,
    SORTS,
    Found,
    View,
    brings_view,
    files_view,
    found_view,
    lines_view,
    needed_by_view,
    owners_view,
    packages_view,
    requires_view,
)
from pkgjail.core.model import FileEntry
from pkgjail.core.text import counted, printable, text_path
from pkgjail.review.graph_formats import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual.events import Resize

    from pkgjail.core.model import Manifest

HELP = """\
Up, Down, k, j       select a row; Page Up, Page Down, Home and End too
Enter, Right         open: what a package requires, the names in a directory
Left, Backspace      go back to the list before
/                    search the names of packages and of files
w                    why it is in the manifest: the chain from a whitelist's line
d                    what the package requires
r                    what needs the package; which packages list the file
b                    what the package brings: what would leave with it
f, F                 the files of the package; those of all packages
c, s, t, m, n        sort by cost, size, closure, number of names, name; again: reverse
?                    this text
q                    quit

size      the bytes of the regular files that a package lists
cost      the bytes that would leave the jail with the package: its files, and those of
          the packages that are there only because of it; files that others list stay
closure   the bytes of the package and of everything that it requires
names     how many files, directories and links it lists\
"""
# The most useful first: a narrow terminal shows fewer.
_KEYS = (
    "? help", "q quit", "/ search", "w why", "d requires", "r needed by", "b brings", "f files",
    "c s t m n sort", "Enter open", "Left back", "F all files",
)  # fmt: skip
_SEARCH_KEYS = ("Enter to the list", "Escape back")


class Browser(App[None]):
    """The application. Its colours are those of the terminal, so it suits a light one and a dark one."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    Static { background: ansi_default; color: ansi_default; height: 1; }
    Listing {
        background: ansi_default; color: ansi_default; height: 1fr; scrollbar-size-vertical: 1;
        scrollbar-background: ansi_default; scrollbar-background-hover: ansi_default;
        scrollbar-background-active: ansi_default; scrollbar-color: ansi_bright_black;
        scrollbar-color-hover: ansi_bright_black; scrollbar-color-active: ansi_bright_black;
    }
    #title { text-style: bold; }
    #heading { text-style: bold underline; }
    #searching { background: ansi_default; height: 1; display: none; }
    #searching.is-open { display: block; }
    #slash { width: 1; }
    #search {
        background: ansi_default; color: ansi_default; height: 1; border: none; padding: 0; width: 1fr;
    }
    #search:focus { background: ansi_default; border: none; }
    #search > .input--cursor { background: ansi_default; color: ansi_default; text-style: reverse; }
    #search > .input--placeholder { background: ansi_default; color: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,right,l", "open", show=False),
        Binding("left,backspace,h,escape", "leave", show=False),
        Binding("slash", "search", show=False),
        Binding("w", "why", show=False),
        Binding("d", "list('requires')", show=False),
        Binding("r", "list('needed_by')", show=False),
        Binding("b", "list('brings')", show=False),
        Binding("f", "list('files')", show=False),
        Binding("F", "all_files", show=False),
        *(Binding(key, f"sort('{name}')", show=False) for key, name in SORTS.items()),
        Binding("question_mark", "help", show=False),
        Binding("q,ctrl+c,ctrl+q", "quit", show=False),
        Binding("ctrl+z", "suspend_process", show=False),
    ]

    def __init__(self, manifest: Manifest, explain: Callable[[str], Sequence[str]]) -> None:
        """Index the manifest; `explain` is that of `pkgjail.browse.browse`."""
        super().__init__(ansi_color=True)
        self._contents = Contents(manifest)
        self._explain = explain
        self._places: list[tuple[View, int]] = []  # the lists before this one, each with its row
        self._notice = ""
        lists = ", ".join(map(printable, manifest.header.whitelists)) or "manifest"
        size = size_text(sum(entry.size or 0 for entry in manifest.files))
        packages, names = counted(len(manifest.packages), "package"), counted(len(manifest.files), "name")
        self._summary = f"pkgjail: {lists}: {packages}, {names}, {size}"

    def compose(self) -> ComposeResult:
        """Make the lines of the screen, from the top."""
        yield Static(id="summary", markup=False)
        yield Static(id="title", markup=False)
        yield Static(id="heading", markup=False)
        yield Listing(packages_view(self._contents))
        yield Static(id="rule", markup=False)
        for number in range(DETAIL_LINES):
            yield Static(id=f"detail{number}", markup=False)
        with Horizontal(id="searching"):
            yield Static("/", id="slash", markup=False)
            yield Input(id="search", placeholder="the name of a package or a file, or a part of it")
        yield Static(id="keys", markup=False)

    def on_mount(self) -> None:
        """Begin with all packages."""
        self._listing.focus()
        self._listing.show(self._listing.view)

    def on_resize(self, event: Resize) -> None:
        """Fit the lines to the new size."""
        del event
        self.call_after_refresh(self._draw)

    def on_listing_moved(self) -> None:
        """Show the details of the selected row."""
        self._draw()
        # A scroll bar that comes or goes changes the width of the rows, as soon as they are laid out.
        self.call_after_refresh(self._draw_heading)

    def on_listing_opened(self) -> None:
        """Open the row that was clicked."""
        self.action_open()

    # --- the keys -----------------------------------------------------------------------------

    def action_open(self) -> None:
        """Open the selected row."""
        self._push(self._listing.view.opened(self._listing.row) if self._subject else None, "nothing to open")

    def action_leave(self) -> None:
        """Go back to the list before; close a search in which nothing was typed."""
        is_empty = self._is_searching and not self._search.value
        self._close_search()
        if self._places and not is_empty:
            self._listing.show(*self._places.pop())

    def action_list(self, what: str) -> None:
        """Show a list about the selected row."""
        subject = self._subject
        if isinstance(subject, Item):
            views: dict[str, Callable[[], View | None]] = {
                "requires": lambda: requires_view(self._contents, subject),
                "needed_by": lambda: needed_by_view(self._contents, subject),
                "brings": lambda: brings_view(self._contents, subject),
                "files": lambda: files_view(self._contents, subject.name) if subject.names else None,
            }
            notices = {
                "requires": "it requires nothing",
                "needed_by": "nothing requires it",
                "brings": "nothing else would leave with it",
                "files": "it lists no names",
            }
            self._push(views[what](), notices[what])
        elif isinstance(subject, FileEntry) and what == "needed_by":
            self._push(owners_view(self._contents, subject), "no package lists it")
        else:
            self._push(None, "select a package for this")

    def action_all_files(self) -> None:
        """Show the directories of all names."""
        self._push(files_view(self._contents), "the manifest has no names")

    def action_why(self) -> None:
        """Show why the selected package or name is in the manifest."""
        subject = self._subject
        if subject is None:
            self._push(None, "select a package or a file for this")
            return
        asked = subject.name if isinstance(subject, Item) else text_path(subject.path)
        if isinstance(subject, Item) and subject.kind != "package":
            self._push(None, "it is where chains begin")
            return
        self._push(lines_view(f"why {asked}", self._explain(asked)))

    def action_help(self) -> None:
        """Show the keys and the columns."""
        self._push(lines_view("Help", HELP.split("\n")))

    def action_sort(self, key: str) -> None:
        """Sort the list; the selected row stays selected."""
        before = self._subject
        view = self._listing.view.sorted_by(key)
        row = next((row for row in range(len(view)) if view.subject(row) is before), 0) if before else 0
        self._listing.show(view, row)

    def action_search(self) -> None:
        """Ask for a text; what has it in its name is listed while it is typed."""
        self._search.value = ""
        self.query_one("#searching").add_class("is-open")
        self._search.focus()
        self._draw()

    def on_input_changed(self, event: Input.Changed) -> None:
        """List what is found."""
        if not self._is_searching:
            return
        is_shown = isinstance(self._listing.view, Found)
        if event.value and is_shown:
            self._listing.show(found_view(self._contents, event.value))
        elif event.value:
            self._push(found_view(self._contents, event.value))
        elif is_shown and self._places:
            self._listing.show(*self._places.pop())

    def on_input_submitted(self) -> None:
        """Leave the field, to walk through what is found."""
        self._close_search()

    # --- the screen -----------------------------------------------------------------------------

    @property
    def _listing(self) -> Listing:
        return self.query_one(Listing)

    @property
    def _search(self) -> Input:
        return self.query_one("#search", Input)

    @property
    def _is_searching(self) -> bool:
        return self.query_one("#searching").has_class("is-open")

    @property
    def _subject(self) -> Any:
        """Return the package or the name that is selected; None if nothing is."""
        listing = self._listing
        return listing.view.subject(listing.row) if len(listing.view) else None

    def _close_search(self) -> None:
        self.query_one("#searching").remove_class("is-open")
        self._listing.focus()
        self._draw()

    def _push(self, view: View | None, notice: str = "") -> None:
        """Show a list in front of this one; without one, say why not."""
        if view is None:
            self._notice = notice
            self._draw()
            return
        self._places.append((self._listing.view, self._listing.row))
        self._listing.show(view)

    def _draw(self) -> None:
        """Write the lines around the list."""
        listing, width = self._listing, self.size.width
        view = listing.view
        place = f" {listing.row + 1 if len(view) else 0:,}/{len(view):,}"
        self._write("summary", fit(self._summary, width))
        self._write("title", fit(view.title, max(0, width - cell_len(place))) + place)
        self._draw_heading()
        self._write("rule", "─" * width)
        details = view.details(listing.row, max(0, width)) if len(view) else ()
        if self._notice:
            details, self._notice = (self._notice,), ""
        for number in range(DETAIL_LINES):
            self._write(f"detail{number}", details[number] if number < len(details) else "")
        self._write("keys", _fitting(_SEARCH_KEYS if self._is_searching else _KEYS, width))

    def _draw_heading(self) -> None:
        """Write the names of the columns, for rows as wide as they are now."""
        self._write("heading", "  " + self._listing.view.heading(self._listing.text_width))

    def _write(self, line: str, text: str) -> None:
        self.query_one(f"#{line}", Static).update(text)


def _fitting(keys: Sequence[str], width: int) -> str:
    """Return as many of the keys as fit."""
    shown = ""
    for key in keys:
        longer = f"{shown}  {key}" if shown else key
        if cell_len(longer) > width:
            break
        shown = longer
    return shown
