"""The table of peers on a terminal: only the lines that can be seen are drawn, however many rows
there are."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from pywg.top import table
from pywg.top.table import Column, Row, Sort

_TITLE, _CURSOR = Style(bold=True, dim=True), Style(bgcolor="grey30")
_PLAIN, _QUIET = Style(), Style(dim=True)
_STYLES = {
    Sort.IN: Style(color="green"),
    Sort.OUT: Style(color="cyan"),
    Sort.HANDSHAKE: Style(color="green"),
}


class PeerTable(ScrollView, can_focus=True):
    """Titles, which stay, and rows, one of which is under the cursor. The cursor follows its peer
    when the order changes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "edge(False)", show=False),
        Binding("end", "edge(True)", show=False),
        Binding("enter", "choose", "Details"),
    ]

    class Chosen(Message):
        """Enter was pressed on a row."""

        def __init__(self, row: Row) -> None:
            super().__init__()
            self.row = row

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.several = False
        self.sort, self.is_reversed = Sort.TRAFFIC, False
        self.cursor = 0

    def show(self, rows: list[Row], sort: Sort, *, reverse: bool, several: bool) -> None:
        under = self.under_cursor
        self.rows, self.sort, self.is_reversed, self.several = rows, sort, reverse, several
        if under is not None and self.cursor:  # on top it stays there: on whoever comes first
            wanted = under.identity
            self.cursor = next(
                (i for i, row in enumerate(rows) if row.identity == wanted), self.cursor
            )
        self.cursor = max(0, min(self.cursor, len(rows) - 1))
        self.virtual_size = Size(self.size.width, len(rows) + 1)
        self.refresh()

    @property
    def under_cursor(self) -> Row | None:
        return self.rows[self.cursor] if self.rows else None

    def render_line(self, y: int) -> Strip:
        line = y + self.scroll_offset.y - 1
        under = line == self.cursor and y > 0 and bool(self.rows)
        style = self.rich_style + _CURSOR if under else self.rich_style
        return self._line(y, line).adjust_cell_length(self.size.width).apply_style(style)

    def _line(self, y: int, number: int) -> Strip:
        columns = table.columns(self.size.width, several=self.several)
        if y == 0:
            titles = (
                table.title(column, self.sort, reverse=self.is_reversed) for column in columns
            )
            return Strip([Segment(" ".join(titles), _TITLE)])
        return _drawn(columns, self.rows[number]) if number < len(self.rows) else Strip([])

    def action_move(self, by: int) -> None:
        self._to(self.cursor + by)

    def action_page(self, by: int) -> None:
        self._to(self.cursor + by * max(1, self.size.height - 2))

    def action_edge(self, last: bool) -> None:
        self._to(len(self.rows) - 1 if last else 0)

    def action_choose(self) -> None:
        if (row := self.under_cursor) is not None:
            self.post_message(self.Chosen(row))

    def _to(self, number: int) -> None:
        self.cursor = max(0, min(number, len(self.rows) - 1))
        visible = max(1, self.size.height - 1)
        top = min(max(self.scroll_offset.y, self.cursor - visible + 1), self.cursor)
        self.scroll_to(y=top, animate=False)
        self.refresh()


def _drawn(columns: list[Column], row: Row) -> Strip:
    segments = []
    style = _PLAIN
    for column in columns:
        if column.title:  # bars have the style of the rate that they belong to
            style = _style(column, row)
        segments.append(Segment(table.cell(column, row), style))
        segments.append(Segment(" "))
    return Strip(segments)


def _style(column: Column, row: Row) -> Style:
    if not column.is_live(row):
        return _QUIET
    return _PLAIN if column.sort is None else _STYLES.get(column.sort, _PLAIN)
