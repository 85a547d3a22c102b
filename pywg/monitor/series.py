"""What an interface tells, as series for Prometheus: names, types and labels, and their values.

Pure: knows neither a socket nor the library that writes them out. The names without ``pywg_`` are
those of two exporters that are in wide use, with their types and labels, so that dashboards made
for them show pywg: https://github.com/MindFlavor/prometheus_wireguard_exporter (``interface``) and
https://github.com/mdlayher/wireguard_exporter (``device``).

Invariant: no private and no preshared key is in any label or value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from pywg.keys import PublicKey
from pywg.wireguard.addresses import endpoint_text, network_text
from pywg.wireguard.status import InterfaceStatus, PeerStatus, Report

Kind = Literal["counter", "gauge"]
#: Who serves an interface: this project, another program in user space, or the kernel.
Backend = Literal["pywg", "userspace", "kernel"]


@dataclass(frozen=True, slots=True)
class Series:
    """``name`` as it is exported; ``labels`` in the order in which samples have their values."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What one interface answered to one scrape; ``status`` is None if it did not answer.

    ``names``: what people call its peers. ``report``: what only pywg tells. ``states``: what is
    known of why a peer has no session, in a few words. ``healed``: things put back so far.
    """

    interface: str
    backend: Backend
    seconds: float
    status: InterfaceStatus | None = None
    names: Mapping[PublicKey, str] = field(default_factory=lambda: MappingProxyType({}))
    report: Report | None = None
    states: Mapping[PublicKey, str] = field(default_factory=lambda: MappingProxyType({}))
    healed: int = 0


@dataclass(frozen=True, slots=True)
class Exporter:
    """What an exporter tells of itself. ``errors``: (interface, reason) to how often so far."""

    version: str
    core: str = ""
    errors: Mapping[tuple[str, str], int] = field(default_factory=lambda: MappingProxyType({}))


#: Values of a series' labels, and the number.
Sample = tuple[tuple[str, ...], float]

_PEER = ("interface", "public_key", "allowed_ips", "friendly_name")
_DEVICE_PEER = ("device", "public_key")

SENT = Series("wireguard_sent_bytes_total", "counter", "Bytes sent to the peer.", _PEER)
RECEIVED = Series(
    "wireguard_received_bytes_total", "counter", "Bytes received from the peer.", _PEER
)
HANDSHAKE = Series(
    "wireguard_latest_handshake_seconds",
    "gauge",
    "Unix time of the latest handshake with the peer, 0 for none.",
    _PEER,
)
DELAY = Series(
    "wireguard_latest_handshake_delay_seconds",
    "gauge",
    "Seconds since the latest handshake with the peer; none for a peer without one.",
    _PEER,
)
PEERS = Series("wireguard_peers_total", "gauge", "Number of peers.", ("interface",))
DEVICE_INFO = Series(
    "wireguard_device_info", "gauge", "Metadata about a device.", ("device", "public_key")
)
PEER_INFO = Series(
    "wireguard_peer_info",
    "gauge",
    "Metadata about a peer.",
    (*_DEVICE_PEER, "allowed_ips", "endpoint", "name"),
)
PEER_ALLOWED_IPS = Series(
    "wireguard_peer_allowed_ips_info",
    "gauge",
    "One for each network of a peer.",
    (*_DEVICE_PEER, "allowed_ips"),
)
PEER_RECEIVED = Series(
    "wireguard_peer_receive_bytes_total", "counter", "Bytes received from a peer.", _DEVICE_PEER
)
PEER_SENT = Series(
    "wireguard_peer_transmit_bytes_total", "counter", "Bytes sent to a peer.", _DEVICE_PEER
)
PEER_HANDSHAKE = Series(
    "wireguard_peer_last_handshake_seconds",
    "gauge",
    "Unix time of the last handshake with a peer, 0 for none.",
    _DEVICE_PEER,
)
UP = Series(
    "pywg_interface_answered",
    "gauge",
    "Whether the interface answered this scrape.",
    ("interface",),
)
SCRAPE_SECONDS = Series(
    "pywg_scrape_duration_seconds",
    "gauge",
    "How long the interface took to answer.",
    ("interface",),
)
SCRAPE_ERRORS = Series(
    "pywg_scrape_errors_total",
    "counter",
    "Scrapes to which an interface did not answer.",
    ("interface", "reason"),
)
BUILD = Series("pywg_build_info", "gauge", "Versions of the exporter.", ("version", "core"))
INTERFACE_INFO = Series(
    "pywg_interface_info",
    "gauge",
    "Who serves an interface, and the path of its cipher.",
    ("interface", "backend", "cipher"),
)
LINK_UP = Series("pywg_link_up", "gauge", "Whether the link is up.", ("interface",))
THREADS = Series("pywg_threads", "gauge", "Threads that move packets.", ("interface",))
MTU = Series("pywg_mtu_bytes", "gauge", "Bytes of an inner packet.", ("interface",))
MEMORY = Series("pywg_memory_bytes", "gauge", "Memory of buffers and peers.", ("interface",))
MEMORY_LIMIT = Series("pywg_memory_limit_bytes", "gauge", "What they may take.", ("interface",))
LISTEN_ERROR = Series(
    "pywg_listen_error", "gauge", "The listen port cannot be had.", ("interface", "reason")
)
DROPPED = Series(
    "pywg_dropped_packets_total", "counter", "Packets dropped.", ("interface", "reason")
)
IO_ERRORS = Series(
    "pywg_io_errors_total", "counter", "What the kernel refused.", ("interface", "operation")
)
RESENT = Series(
    "pywg_resent_total",
    "counter",
    "Trains and superpackets that the kernel refused and that were sent again in pieces.",
    ("interface", "operation"),
)
OFFLOAD = Series(
    "pywg_offload_state",
    "gauge",
    "The state of an offload, and what the kernel refused it with.",
    ("interface", "offload", "state", "reason"),
)
GSO_REFUSED = Series(
    "pywg_gso_refused_endpoints", "gauge", "Endpoints that take no trains.", ("interface",)
)
GSO_LOST = Series(
    "pywg_gso_lost_endpoints", "gauge", "Endpoints that trains do not reach.", ("interface",)
)
HEALED = Series(
    "pywg_healed_total", "counter", "Things put back that others took away.", ("interface",)
)
FIGURE = Series(
    "pywg_figure",
    "gauge",
    "Any other number of the report, by its key there.",
    ("interface", "key"),
)
PEER_STATE = Series(
    "pywg_peer_state",
    "gauge",
    "Why a peer has no session, where the interface tells it.",
    ("interface", "public_key", "friendly_name", "state"),
)

#: In the order in which they are exported.
ALL: tuple[Series, ...] = (
    SENT, RECEIVED, HANDSHAKE, DELAY, PEERS,
    DEVICE_INFO, PEER_INFO, PEER_ALLOWED_IPS, PEER_RECEIVED, PEER_SENT, PEER_HANDSHAKE,
    UP, SCRAPE_SECONDS, SCRAPE_ERRORS, BUILD, INTERFACE_INFO, LINK_UP, THREADS, MTU, MEMORY,
    MEMORY_LIMIT, LISTEN_ERROR, DROPPED, IO_ERRORS, RESENT, OFFLOAD, GSO_REFUSED, GSO_LOST, HEALED,
    FIGURE, PEER_STATE,
)  # fmt: skip


def samples(
    seen: Iterable[Seen], exporter: Exporter, now_s: float
) -> list[tuple[Series, list[Sample]]]:
    """Every series, those without samples too; ``now_s`` is Unix time."""
    found: dict[str, list[Sample]] = {series.name: [] for series in ALL}
    for one in seen:
        for series, sample in _of_interface(one, now_s):
            found[series.name].append(sample)
    found[BUILD.name].append(((exporter.version, exporter.core), 1))
    found[SCRAPE_ERRORS.name] += [(key, count) for key, count in sorted(exporter.errors.items())]
    return [(series, found[series.name]) for series in ALL]


def _of_interface(seen: Seen, now_s: float) -> Iterator[tuple[Series, Sample]]:
    name = (seen.interface,)
    yield UP, (name, int(seen.status is not None))
    yield SCRAPE_SECONDS, (name, seen.seconds)
    if seen.status is None:
        return
    yield PEERS, (name, len(seen.status.peers))
    yield DEVICE_INFO, ((*name, str(seen.status.public_key or "")), 1)
    cipher = "" if seen.report is None else seen.report.cipher
    yield INTERFACE_INFO, ((*name, seen.backend, cipher), 1)
    yield HEALED, (name, seen.healed)
    if seen.report is not None:
        yield from _of_report(seen.interface, seen.report)
    for peer in seen.status.peers:
        yield from _of_peer(seen, peer, now_s)


def _of_peer(seen: Seen, peer: PeerStatus, now_s: float) -> Iterator[tuple[Series, Sample]]:
    interface, key = seen.interface, str(peer.public_key)
    name = seen.names.get(peer.public_key, "")
    networks = [network_text(network) for network in peer.allowed_ips]
    listed = ",".join(networks)
    labels = (interface, key, listed or "(none)", name)
    handshake = peer.last_handshake_ns // 1_000_000_000
    yield SENT, (labels, peer.tx_bytes)
    yield RECEIVED, (labels, peer.rx_bytes)
    yield HANDSHAKE, (labels, handshake)
    if handshake:
        yield DELAY, (labels, max(0, int(now_s) - handshake))
    device = (interface, key)
    endpoint = "" if peer.endpoint is None else endpoint_text(peer.endpoint)
    yield PEER_INFO, ((*device, listed, endpoint, name), 1)
    for network in networks:
        yield PEER_ALLOWED_IPS, ((*device, network), 1)
    yield PEER_RECEIVED, (device, peer.rx_bytes)
    yield PEER_SENT, (device, peer.tx_bytes)
    yield PEER_HANDSHAKE, (device, handshake)
    state = seen.states.get(peer.public_key)
    if state:
        yield PEER_STATE, ((interface, key, name, state), 1)


#: A number of the report -> its series, and the labels behind the interface.
_NUMBERS: dict[str, tuple[Series, tuple[str, ...]]] = {
    "threads": (THREADS, ()),
    "mtu": (MTU, ()),
    "memory_bytes": (MEMORY, ()),
    "memory_limit": (MEMORY_LIMIT, ()),
    "udp_receive_errors": (IO_ERRORS, ("udp_receive",)),
    "udp_source_refused": (IO_ERRORS, ("udp_source",)),
    "tun_read_errors": (IO_ERRORS, ("tun_read",)),
    "tun_write_failed": (IO_ERRORS, ("tun_write",)),
    "gso_resent": (RESENT, ("udp_gso",)),
    "tun_resent": (RESENT, ("tun_tso",)),
}


def _of_report(interface: str, report: Report) -> Iterator[tuple[Series, Sample]]:
    name = (interface,)
    for reason, count in report.dropped.items():
        yield DROPPED, ((interface, reason), count)
    for offload, text in report.offloads.items():
        state, _, refused = text.partition(" ")
        yield OFFLOAD, ((interface, offload, state, refused), 1)
    yield GSO_REFUSED, (name, len(report.gso_refused))
    yield GSO_LOST, (name, len(report.gso_lost))
    for key, text in report.other.items():
        if key == "up":
            yield LINK_UP, (name, int(text == "true"))
        elif key == "listen_error":
            yield LISTEN_ERROR, ((interface, text), 1)
        elif (number := _number(text)) is not None:
            series, labels = _NUMBERS.get(key, (FIGURE, (key,)))
            yield series, ((interface, *labels), number)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
