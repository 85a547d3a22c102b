"""What a running interface tells of itself, whoever serves it: plain values.

Knows neither UAPI nor netlink. Invariant: no repr shows a private or preshared key.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pywg.config import Endpoint, IPAddress, IPNetwork
from pywg.keys import PresharedKey, PrivateKey, PublicKey


@dataclass(slots=True)
class PeerStatus:
    """A peer as a running device sees it.

    ``public_key`` and ``preshared_key`` (None for none) as configured. ``endpoint``: where it was
    last heard, or is to be found; None while nobody knows. ``allowed_ips``: its networks.
    ``last_handshake_ns``: Unix time in nanoseconds, 0 for never. ``rx_bytes``, ``tx_bytes``:
    datagrams with their headers, as the kernel counts. ``persistent_keepalive``: seconds, 0 for
    off.
    """

    public_key: PublicKey
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    allowed_ips: list[IPNetwork] = field(default_factory=list)
    last_handshake_ns: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    persistent_keepalive: int = 0


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """What has become of a peer so far. No secrets.

    ``last_handshake_ns`` is Unix time, 0 for never. ``rx_bytes`` and ``tx_bytes`` are those of
    datagrams that were accepted or sent, with WireGuard's own headers.
    """

    public_key: PublicKey
    endpoint: Endpoint | None
    last_handshake_ns: int
    rx_bytes: int
    tx_bytes: int


@dataclass(slots=True)
class InterfaceStatus:
    """A running device.

    ``private_key``: None for none. ``listen_port``: 0 where the kernel chooses or has not chosen
    yet. ``fwmark``: 0 for none. ``peers``: in the order in which they came. ``bind_device``,
    ``bind_addresses``: what its sockets are held to.

    What its sockets are bound to is known only where it was asked for: `wg` must not meet keys
    that it does not know, so UAPI `get` does not tell it.
    """

    private_key: PrivateKey | None = None
    listen_port: int = 0
    fwmark: int = 0
    peers: list[PeerStatus] = field(default_factory=list)
    bind_device: str | None = None
    bind_addresses: tuple[IPAddress, ...] = ()

    @property
    def public_key(self) -> PublicKey | None:
        """Of the private key; None without one. CoreLoadError: there is no core to load."""
        return self.private_key.public if self.private_key else None


@dataclass(frozen=True, slots=True)
class PeerTrace:
    """What was tried with a peer lately, and what came back. No secrets.

    ``asked``: handshakes that it was sent and has not answered; ``answered``: its own that were
    answered and that it never confirmed; both since the last session. ``asked_for_ms``: since the
    first of those asked. ``refused``: what came in the place of an answer, a word of
    ``core/protocol/notices.zig``. ``heard_ms_ago``: since something authentic came, None for never.
    ``unanswered_ms``: for how long data that was sent has no answer, which is due within 10 s;
    ``is_silent``: it had none for 15 s, and so the peer is asked.
    ``dropped``: reason to packets.
    """

    has_endpoint: bool = False
    has_session: bool = False
    asked: int = 0
    answered: int = 0
    asked_for_ms: int = 0
    refused: str = ""
    heard_ms_ago: int | None = None
    unanswered_ms: int = 0
    is_silent: bool = False
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Notice:
    """Somebody was refused, or refused us: ``kind`` is a word of ``core/protocol/notices.zig``.

    ``key``: the peer's, or the one that a stranger claims. ``remote``: where it came from, or was
    to go. ``address``: who said so by ICMP, or an address inside the tunnel. ``mtu``: bytes, 0
    where it is not about that. ``count``: how often since ``first_ms_ago``.
    """

    kind: str
    count: int
    first_ms_ago: int
    last_ms_ago: int
    key: PublicKey | None = None
    remote: str = ""
    address: str = ""
    mtu: int = 0


@dataclass(slots=True)
class Report:
    """Offloads and counters, as `pywg_get=1` and pywg_device_report tell them.

    ``offloads``: name to state, such as ``"stepped_down EIO"``. ``gso_refused``, ``gso_lost``:
    endpoints that take no GSO, and that trains do not reach. ``dropped``: reason to packets.
    ``cipher``: the AEAD path. ``healed``: what was put back, as commands. ``other``: the rest,
    key to value, such as ``listen_error`` while the link is up and its port cannot be had.
    ``peers``: what was tried, of those with which something was; ``notices``: who was refused.
    """

    offloads: dict[str, str] = field(default_factory=dict)
    gso_refused: list[str] = field(default_factory=list)
    gso_lost: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    cipher: str = ""
    healed: list[str] = field(default_factory=list)
    peers: dict[PublicKey, PeerTrace] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    other: dict[str, str] = field(default_factory=dict)
