"""A list of lines on the screen, of which only those that are visible are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from pkgjail.browse.cells import fit

if TYPE_CHECKING:
    from textual.events import Click, Resize

    from pkgjail.browse.views import View

_MARK = 2  # cells before each line, where the mark of the selected one stands
_PLAIN, _SELECTED = Style(), Style(reverse=True)


class Listing(ScrollView, can_focus=True):
    """The rows of a view, with one selected: it is marked by reverse video and by a character."""

    DEFAULT_CSS = "Listing { overflow-x: hidden; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("home,g", "move(-1000000000)", show=False),
        Binding("end,G", "move(1000000000)", show=False),
    ]

    class Moved(Message):
        """Another row is selected, or another view is shown."""

    class Opened(Message):
        """The selected row was clicked again."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view
        self.row = 0

    def show(self, view: View, row: int = 0) -> None:
        """Show another view, with this row selected."""
        self.view = view
        self.virtual_size = Size(1, max(1, len(view)))
        self._select(row)

    @property
    def text_width(self) -> int:
        """Return how many cells a line of a view has."""
        return max(0, self.scrollable_content_region.width - _MARK)

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen; all of it is plain text, whatever a name has in it."""
        row = self.scroll_offset.y + y
        is_selected = row == self.row
        if row < len(self.view):
            text = ("> " if is_selected else "  ") + self.view.line(row, self.text_width)
        else:
            is_selected = False
            text = "  nothing" if row == 0 else ""
        style = _SELECTED if is_selected else _PLAIN
        width = self.scrollable_content_region.width
        return Strip([Segment(fit(text, width), style)], width)

    def action_move(self, by: int) -> None:
        """Select a row so many lines away."""
        self._select(self.row + by)

    def action_page(self, by: int) -> None:
        """Select a row so many screens away."""
        self._select(self.row + by * max(1, self.size.height - 1))

    def on_click(self, event: Click) -> None:
        """Select a row; open it if it is selected already."""
        row = self.scroll_offset.y + event.y
        if row == self.row:
            self.post_message(self.Opened())
        elif row < len(self.view):
            self._select(row)

    def on_resize(self, event: Resize) -> None:
        """Keep the selected row on the screen."""
        del event
        self.virtual_size = Size(1, max(1, len(self.view)))
        self._select(self.row)

    def _select(self, row: int) -> None:
        self.row = max(0, min(row, len(self.view) - 1))
        height, top = self.size.height, self.scroll_offset.y
        if height and not top <= self.row < top + height:
            first = self.row if self.row < top else self.row - height + 1
            self.scroll_to(y=first, animate=False, immediate=True)
        self.refresh()
        self.post_message(self.Moved())
