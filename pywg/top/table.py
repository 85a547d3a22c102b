"""Which peers are shown, and in which order. Pure.

A row is a peer with the name of its interface. Only what is on the screen becomes text.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pywg.top import words
from pywg.top.sampler import InterfaceView, PeerView
from pywg.wireguard.addresses import endpoint_text


class Sort(enum.Enum):
    """What rows are ordered by, in the order of the key that goes through them."""

    TRAFFIC = "traffic"
    IN = "in"
    OUT = "out"
    HANDSHAKE = "handshake"
    RECEIVED = "received"
    SENT = "sent"
    NAME = "name"

    def next(self) -> Sort:
        every = list(Sort)
        return every[(every.index(self) + 1) % len(every)]


@dataclass(frozen=True, slots=True)
class Row:
    """A peer of an interface."""

    interface: str
    peer: PeerView

    @property
    def identity(self) -> tuple[str, bytes]:
        """What it is the same by in the next view."""
        return self.interface, bytes(self.peer.status.public_key)

    @property
    def title(self) -> str:
        """Its name, or its key where it has none."""
        return self.peer.name or self.peer.status.public_key.to_base64()

    @property
    def endpoint(self) -> str:
        found = self.peer.status.endpoint
        return "" if found is None else endpoint_text(found)

    def matches(self, wanted: str) -> bool:
        """Whether all words are found in its name, key, endpoint or interface, in any case."""
        key = self.peer.status.public_key.to_base64()
        text = f"{self.interface} {self.peer.name} {key} {self.endpoint}".lower()
        return all(word in text for word in wanted.lower().split())


def rows(
    views: Mapping[str, InterfaceView], sort: Sort, *, reverse: bool = False, wanted: str = ""
) -> list[Row]:
    """The largest, newest or first in the alphabet on top; ``reverse`` turns that round."""
    found: Iterable[Row] = (Row(name, peer) for name, view in views.items() for peer in view.peers)
    if wanted.strip():
        found = (row for row in found if row.matches(wanted))
    return sorted(found, key=_ORDER[sort], reverse=reverse)


def _rate(value: float | None) -> float:
    return -1.0 if value is None else value


def _age(peer: PeerView) -> float:
    return float("inf") if peer.handshake_s is None else peer.handshake_s


def _traffic(row: Row) -> tuple[float, float]:
    rate = _rate(row.peer.received.rate) + _rate(row.peer.sent.rate)
    return -rate, _age(row.peer)  # of the silent ones, who was there last


_ORDER: Mapping[Sort, Callable[[Row], tuple[float | str, ...]]] = {
    Sort.TRAFFIC: _traffic,
    Sort.IN: lambda row: (-_rate(row.peer.received.rate),),
    Sort.OUT: lambda row: (-_rate(row.peer.sent.rate),),
    Sort.HANDSHAKE: lambda row: (_age(row.peer),),
    Sort.RECEIVED: lambda row: (-row.peer.received.total,),
    Sort.SENT: lambda row: (-row.peer.sent.total,),
    # Those with a name first: a key means nothing in an alphabet.
    Sort.NAME: lambda row: ("0" if row.peer.name else "1", row.title.lower()),
}


@dataclass(frozen=True, slots=True)
class Column:
    """``width`` in signs; ``right``: whether it ends at the right edge. ``sort``: what a small
    arrow at its title stands for. ``is_live``: whether there is something to see of a row now."""

    title: str
    width: int
    text: Callable[[Row], str]
    right: bool = False
    sort: Sort | None = None
    is_live: Callable[[Row], bool] = lambda row: True


# A session ends at three minutes (REJECT_AFTER_TIME, whitepaper section 6.1).
SESSION_S = 180
BARS = 12


def _receives(row: Row) -> bool:
    return bool(row.peer.received.rate)


def _sends(row: Row) -> bool:
    return bool(row.peer.sent.rate)


def _may_have_a_session(row: Row) -> bool:
    return 0 <= _age(row.peer) <= SESSION_S


_INTERFACE = Column("INTERFACE", 15, lambda row: row.interface)
_FIGURES = (
    Column("IN", 12, lambda row: words.rate(row.peer.received.rate), True, Sort.IN, _receives),
    Column("", BARS, lambda row: words.bars(row.peer.received.history, BARS)),
    Column("OUT", 12, lambda row: words.rate(row.peer.sent.rate), True, Sort.OUT, _sends),
    Column("", BARS, lambda row: words.bars(row.peer.sent.history, BARS)),
    Column(
        "HANDSHAKE",
        10,
        lambda row: words.age(row.peer.handshake_s),
        True,
        Sort.HANDSHAKE,
        _may_have_a_session,
    ),
    Column("ENDPOINT", 22, lambda row: row.endpoint),
    Column("RECEIVED", 9, lambda row: words.amount(row.peer.received.total), True, Sort.RECEIVED),
    Column("SENT", 9, lambda row: words.amount(row.peer.sent.total), True, Sort.SENT),
)


def columns(width: int, *, several: bool) -> list[Column]:
    """Those that fit into a width. What is told last goes first; the peer gets what is left."""
    found = [*([_INTERFACE] if several else []), *_FIGURES]
    least = 12
    while len(found) > 2 and sum(one.width + 1 for one in found) + least > width:
        found.pop()
    rest = width - sum(one.width + 1 for one in found)
    return [
        Column("PEER", max(least, min(rest, 44)), lambda row: row.title, sort=Sort.NAME),
        *found,
    ]


def cell(column: Column, row: Row) -> str:
    """Exactly as wide as its column."""
    return fitted(column.text(row), column)


def fitted(text: str, column: Column) -> str:
    if len(text) > column.width:
        text = text[: column.width - 1] + "…"
    return text.rjust(column.width) if column.right else text.ljust(column.width)


def title(column: Column, sort: Sort, *, reverse: bool) -> str:
    """With an arrow where the rows are ordered by it: down for the largest on top."""
    arrow = ("▲" if reverse else "▼") if column.sort is sort else ""
    return fitted(column.title + arrow, column)
