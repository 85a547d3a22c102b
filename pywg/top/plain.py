"""One table for a pipe or a file, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pywg.top import table, words
from pywg.top.sampler import Flow, InterfaceView, PeerView
from pywg.top.table import Sort
from pywg.wireguard.addresses import endpoint_text

WIDTH = 132


def text(views: Mapping[str, InterfaceView], sort: Sort, *, reverse: bool, wanted: str) -> str:
    """Heads of all interfaces, then the table of all peers."""
    rows = table.rows(views, sort, reverse=reverse, wanted=wanted)
    columns = table.columns(WIDTH, several=len(views) > 1)
    heads = [line for name, view in views.items() for line in head(name, view)]
    titles = " ".join(table.title(column, sort, reverse=reverse) for column in columns)
    lines = [" ".join(table.cell(column, row) for column in columns) for row in rows]
    return "\n".join(line.rstrip() for line in (*heads, "", titles, *lines))


def head(name: str, view: InterfaceView) -> Iterator[str]:
    """What is to say of an interface as a whole, and of drops and offloads where it tells them."""
    facts = [
        name,
        words.peers(len(view.peers)),
        f"in {words.rate(view.received.rate)}",
        f"out {words.rate(view.sent.rate)}",
        words.cores(view.cpu),
    ]
    yield "  ".join(fact for fact in facts if fact)
    yield from (f"  {line}" for line in more(view))


def more(view: InterfaceView) -> Iterator[str]:
    """Of offloads and drops, where it tells them."""
    if efficiency := words.efficiency(view.efficiency):
        yield efficiency
    if view.dropped:
        yield f"dropped: {words.dropped(view.dropped)}"


def to_json(views: Mapping[str, InterfaceView]) -> dict[str, Any]:
    """The names of `pywg show --json` for what it has, too. Rates are bytes a second; what is not
    known is left out."""
    return {name: _interface(view) for name, view in views.items()}


def _interface(view: InterfaceView) -> dict[str, Any]:
    shown: dict[str, Any] = {"seconds": round(view.seconds, 3), **_flows(view.received, view.sent)}
    if view.cpu is not None:
        shown["cpu"] = round(view.cpu, 3)
    if view.report is not None:
        shown["dropped"] = {
            one.reason: {"count": one.total, "perSecond": round(one.rate, 1)}
            for one in view.dropped
        }
    if view.efficiency is not None:
        measured = {
            "datagramsPerSend": view.efficiency.datagrams_a_send,
            "datagramsPerReceive": view.efficiency.datagrams_a_receive,
            "bytesPerRead": view.efficiency.bytes_a_read,
            "bytesPerWrite": view.efficiency.bytes_a_write,
        }
        shown["offloadEfficiency"] = {
            key: round(value, 1) for key, value in measured.items() if value is not None
        }
    shown["peers"] = {str(peer.status.public_key): _peer(peer) for peer in view.peers}
    return shown


def _peer(peer: PeerView) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": peer.name} if peer.name else {}
    if peer.status.endpoint is not None:
        shown["endpoint"] = endpoint_text(peer.status.endpoint)
    if peer.status.last_handshake_ns:
        shown["latestHandshake"] = peer.status.last_handshake_ns // 1_000_000_000
    return shown | _flows(peer.received, peer.sent)


def _flows(received: Flow, sent: Flow) -> dict[str, Any]:
    shown: dict[str, Any] = {"transferRx": received.total, "transferTx": sent.total}
    for key, flow in (("rxPerSecond", received), ("txPerSecond", sent)):
        if flow.rate is not None:
            shown[key] = round(flow.rate)
    return shown
