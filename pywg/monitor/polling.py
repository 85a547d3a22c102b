"""What happened to an interface that tells nothing by itself, from two looks at it.

Pure. What happens between two looks and is undone by the second is not seen, and a peer that does
not answer is one to whom something was sent for as long as a session lasts without a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pywg.keys import PublicKey
from pywg.native.events import (
    EndpointChanged,
    Event,
    HandshakeDone,
    PeerGone,
    PeerStale,
)
from pywg.wireguard.status import InterfaceStatus, PeerStatus

#: No session is older (REJECT_AFTER_TIME).
STALE_S = 180.0


@dataclass(slots=True)
class _Known:
    """Of one peer, at the last look. ``silent_since_s``: something is sent to it, and there is no
    new handshake."""

    peer: PeerStatus
    silent_since_s: float | None = None
    is_stale: bool = False


@dataclass(slots=True)
class Looks:
    """At one interface. The first tells nothing."""

    _known: dict[PublicKey, _Known] | None = field(default=None)

    def events(self, status: InterfaceStatus, now_s: float) -> list[Event]:
        """What happened since the last look; ``now_s`` is any clock that only goes forward."""
        before = self._known
        present = {peer.public_key: peer for peer in status.peers}
        if before is None:
            self._known = {key: _Known(peer) for key, peer in present.items()}
            return []
        found: list[Event] = [PeerGone(key) for key in before if key not in present]
        self._known = {}
        for key, peer in present.items():
            known = before.get(key, _Known(PeerStatus(key)))
            found += _changes(known, peer, now_s)
            self._known[key] = known
        return found


def _changes(known: _Known, peer: PeerStatus, now_s: float) -> Iterator[Event]:
    key, before = peer.public_key, known.peer
    known.peer = peer
    if peer.last_handshake_ns > before.last_handshake_ns:
        known.silent_since_s, known.is_stale = None, False
        yield HandshakeDone(key)
    elif peer.rx_bytes > before.rx_bytes:
        known.silent_since_s = None
    elif peer.tx_bytes > before.tx_bytes and known.silent_since_s is None:
        known.silent_since_s = now_s
    if peer.endpoint is not None and before.endpoint not in (None, peer.endpoint):
        yield EndpointChanged(key, peer.endpoint)
    silent = known.silent_since_s
    if silent is not None and now_s - silent >= STALE_S and not known.is_stale:
        known.is_stale = True
        yield PeerStale(key)
