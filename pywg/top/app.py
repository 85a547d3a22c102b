"""The live view. It only draws: what is shown comes from Observers, in what order from table.py.

Interfaces are asked in a thread of its own, so that the keys answer while ten thousand peers are
read. It rests twice as long as it took, whatever the interval is.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Footer, Input, Static

from pywg.errors import PywgError
from pywg.top import plain, table, words
from pywg.top.details import Details
from pywg.top.observe import Views
from pywg.top.peers import PeerTable
from pywg.top.sampler import InterfaceView
from pywg.top.table import Sort

HEADS_MAX = 6
HINT = "words of a name, key, endpoint or interface; Enter keeps the filter, Escape takes it away"
_BARS = 24


class Top(App[None]):
    """``look`` is called in a thread, one call at a time. ``interval_s``: between two of them."""

    TITLE = "pywg top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #heads { height: auto; padding: 0 0 1 0; }
    #state { height: 1; color: $text-muted; }
    #filter { display: none; height: 1; border: none; padding: 0; }
    PeerTable { height: 1fr; background: $background; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        # Before the table sees it, so that what is typed ahead is for the filter.
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
        Binding("s", "sort", "Sort"),
        Binding("r", "reverse", "Reverse"),
        Binding("p,space", "pause", "Pause", key_display="p"),
        Binding("q,ctrl+c", "quit", "Quit", key_display="q"),
        Binding("ctrl+z", "suspend_process", show=False),
        Binding("escape", "no_filter", show=False),
    ]

    class Looked(Message):
        """What was found, or why nothing was."""

        def __init__(self, views: Views | PywgError, took_s: float) -> None:
            super().__init__()
            self.views, self.took_s = views, took_s

    def __init__(
        self,
        look: Callable[[], Views],
        interval_s: float,
        sort: Sort = Sort.TRAFFIC,
        *,
        reverse: bool = False,
        wanted: str = "",
    ) -> None:
        super().__init__()
        self.look, self.interval_s, self.sort = look, interval_s, sort
        self.is_reversed, self.wanted = reverse, wanted
        self.is_paused = False
        self.views: Views = {}
        self.trouble = ""

    def compose(self) -> ComposeResult:
        yield Static(id="heads")
        yield PeerTable()
        yield Input(self.wanted, placeholder=HINT, id="filter")
        yield Static(id="state")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(PeerTable).focus()
        self.draw()
        self.ask()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):  # the terminal is to be left as it was
            with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(number, self.exit)

    # ---- looking

    def ask(self) -> None:
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        began = time.monotonic()
        found: Views | PywgError
        try:
            found = self.look()
        except PywgError as error:
            found = error
        self.post_message(self.Looked(found, time.monotonic() - began))

    def on_top_looked(self, message: Looked) -> None:
        self.set_timer(max(self.interval_s - message.took_s, 2 * message.took_s), self.ask)
        if self.is_paused:
            return
        if isinstance(message.views, PywgError):
            self.trouble = str(message.views)
        else:
            self.views, self.trouble = message.views, ""
        self.draw()

    # ---- drawing

    def draw(self) -> None:
        views = {name: view for name, view in self.views.items() if isinstance(view, InterfaceView)}
        rows = table.rows(views, self.sort, reverse=self.is_reversed, wanted=self.wanted)
        several = len(self.views) > 1
        # Of the screen below, where the details of a peer are above it.
        main = self.screen_stack[0]
        main.query_one(PeerTable).show(rows, self.sort, reverse=self.is_reversed, several=several)
        main.query_one("#heads", Static).update(self._heads())
        main.query_one("#state", Static).update(Text(self._state(len(rows), views)))
        if isinstance(self.screen, Details):
            same = (row for row in rows if row.identity == self.screen.row.identity)
            self.screen.show(next(same, None))

    def _heads(self) -> Text:
        lines: list[Text] = []
        for name, view in list(self.views.items())[:HEADS_MAX]:
            if isinstance(view, InterfaceView):
                lines += _head(name, view)
            else:
                lines.append(Text(str(view), "red"))
        if len(self.views) > HEADS_MAX:
            lines.append(Text(f"and {len(self.views) - HEADS_MAX} more interfaces", "dim"))
        if self.trouble:
            lines.append(Text(self.trouble, "red"))
        elif not self.views:
            lines.append(Text("no WireGuard interface at the moment", "dim"))
        return Text("\n").join(lines)

    def _state(self, shown: int, views: Mapping[str, InterfaceView]) -> str:
        every = sum(len(view.peers) for view in views.values())
        parts = [f"{shown} of {words.peers(every)}" if self.wanted else words.peers(every)]
        parts.append(f"by {self.sort.value}" + (", reversed" if self.is_reversed else ""))
        if self.wanted:
            parts.append(f"filter: {self.wanted}")
        if self.is_paused:
            parts.append("PAUSED")
        return "  ".join(parts)

    # ---- keys

    def on_peer_table_chosen(self, message: PeerTable.Chosen) -> None:
        self.push_screen(Details(message.row))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In the filter a slash is a sign like others, and above the table there is none."""
        return action != "filter" or isinstance(self.focused, PeerTable)

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = True
        self.screen.set_focus(field)  # at once: what is typed next is for it

    def action_no_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        self._close_filter()

    def on_input_changed(self, message: Input.Changed) -> None:
        self.wanted = message.value
        self.draw()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        self._close_filter()

    def _close_filter(self) -> None:
        self.screen.set_focus(self.query_one(PeerTable))
        self.query_one("#filter", Input).display = False

    def action_sort(self) -> None:
        self.sort = self.sort.next()
        self.draw()

    def action_reverse(self) -> None:
        self.is_reversed = not self.is_reversed
        self.draw()

    def action_pause(self) -> None:
        self.is_paused = not self.is_paused
        self.draw()


def _head(name: str, view: InterfaceView) -> list[Text]:
    first = Text.assemble(
        (name, "bold"),
        f"  {words.peers(len(view.peers))}  in ",
        (words.bars(view.received.history, _BARS), "green"),
        f" {words.rate(view.received.rate):>12}  out ",
        (words.bars(view.sent.history, _BARS), "cyan"),
        f" {words.rate(view.sent.rate):>12}  {words.cores(view.cpu)}",
    )
    return [first, *(Text(f"  {line}", "dim") for line in plain.more(view))]
