"""Everything that is known of one peer, on a screen above the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from pywg.top import words
from pywg.top.sampler import HISTORY_LENGTH, Flow
from pywg.top.table import Row
from pywg.wireguard.addresses import network_text

_LABEL = 12
_WIDTH = 88


class Details(ModalScreen[None]):
    """Of the peer of a row; the app gives it newer rows."""

    CSS = """
    Details { align: center middle; }
    Details > VerticalScroll {
        width: 92; max-width: 100%; height: auto; max-height: 90%;
        border: round $accent; padding: 0 1; background: $surface;
    }
    Details Static { width: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "dismiss", "Back")]

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(id="peer")
        yield Footer()

    def on_mount(self) -> None:
        self.show(self.row)

    def show(self, row: Row | None) -> None:
        """None: the peer is gone; what was known stays, and that is said."""
        gone = row is None
        self.row = self.row if row is None else row
        lines = [f"{label:<{_LABEL}} {text}" for label, text in told(self.row)]
        if gone:
            lines.append("This peer is gone.")
        self.query_one("#peer", Static).update(Text("\n".join(lines)))


def told(row: Row) -> Iterator[tuple[str, str]]:
    """Label and text of each line."""
    peer, status = row.peer, row.peer.status
    yield "interface", row.interface
    if peer.name:
        yield "name", peer.name
    yield "public key", str(status.public_key)
    yield "endpoint", row.endpoint or "not known yet"
    yield "status", peer.condition.text
    yield "handshake", _handshake(peer.handshake_s)
    yield "keepalive", _keepalive(status.persistent_keepalive)
    yield "preshared", "yes" if status.preshared_key is not None else "no"
    for number, network in enumerate(status.allowed_ips):
        yield "" if number else "allowed ips", network_text(network)
    if not status.allowed_ips:
        yield "allowed ips", "none: no packet goes to it"
    yield from _flow("in", peer.received)
    yield from _flow("out", peer.sent)


def _handshake(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    if seconds < 0:
        return "in the future: the clock of this host was set back"
    return f"{words.age(seconds)} ago"


def _keepalive(seconds: int) -> str:
    return f"every {seconds} s" if seconds else "off"


def _flow(label: str, flow: Flow) -> Iterator[tuple[str, str]]:
    peak = max(flow.history, default=0.0)
    yield (
        label,
        f"{words.rate(flow.rate)}, {words.amount(flow.total)} so far, peak {words.rate(peak)}",
    )
    yield "", words.bars(flow.history, min(HISTORY_LENGTH, _WIDTH - _LABEL - 2))
