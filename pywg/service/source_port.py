"""A new source port where the old one leads nowhere: a NAT on the way may have forgotten a flow in
such a way that it drops what still comes by it, for as long as it comes.

Only for a tunnel that was given no ListenPort, while something is sent to a peer who does not
answer and no other peer does. Knows no clock and no device. Invariant: who answers at the old port
keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pywg.keys import PublicKey
from pywg.wireguard.status import InterfaceStatus, PeerStatus

# An initiation that is lost is sent again after 5 s (REKEY_TIMEOUT): three are lost. With a session
# the first is sent when nothing has come for 15 s (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT).
THREE_LOST_S = 15.0
SESSION_FIRST_S = 15.0
# No session is older (REJECT_AFTER_TIME).
SESSION_S = 180.0
# Between two changes: doubled each time, until somebody answers.
PAUSE_FIRST_S = 30.0
PAUSE_MAX_S = 600.0


@dataclass(slots=True)
class _Seen:
    """Of one peer."""

    rx_bytes: int = 0
    tx_bytes: int = 0
    handshake_ns: int = 0
    answered_s: float | None = None
    #: Since when something is sent to it and nothing comes.
    silent_since_s: float | None = None

    def note(self, peer: PeerStatus, now: float) -> None:
        is_new = peer.rx_bytes < self.rx_bytes or peer.tx_bytes < self.tx_bytes
        if peer.rx_bytes > self.rx_bytes or peer.last_handshake_ns != self.handshake_ns:
            self.answered_s, self.silent_since_s = now, None
        elif is_new:  # it was removed and made anew
            self.answered_s, self.silent_since_s = None, None
        elif peer.tx_bytes > self.tx_bytes and self.silent_since_s is None:
            self.silent_since_s = now
        self.rx_bytes, self.tx_bytes = peer.rx_bytes, peer.tx_bytes
        self.handshake_ns = peer.last_handshake_ns

    def has_session(self, now: float) -> bool:
        return self.answered_s is not None and now - self.answered_s < SESSION_S

    def has_lost_three(self, now: float) -> bool:
        if self.silent_since_s is None:
            return False
        patience = THREE_LOST_S + (SESSION_FIRST_S if self.has_session(now) else 0)
        return now - self.silent_since_s >= patience


@dataclass(slots=True)
class SourcePort:
    """``check`` is one look at the device, by one clock; ``change`` asks it for another port."""

    change: Callable[[], None]
    log: Callable[[str], None] = lambda line: None
    _peers: dict[PublicKey, _Seen] = field(default_factory=dict)
    _port: int = 0
    _is_ours: bool = True  # nobody has chosen one meanwhile
    _pause_s: float = PAUSE_FIRST_S
    _not_before_s: float = 0.0

    def check(self, status: InterfaceStatus, now: float) -> None:
        if self._port not in (0, status.listen_port):
            self._is_ours = False
        if not self._is_ours:
            return
        self._port = status.listen_port
        old, self._peers = self._peers, {}
        for peer in status.peers:
            seen = self._peers[peer.public_key] = old.get(peer.public_key, _Seen())
            seen.note(peer, now)
        lost = [seen for seen in self._peers.values() if seen.has_lost_three(now)]
        if any(seen.has_session(now) for seen in self._peers.values() if seen not in lost):
            self._pause_s = PAUSE_FIRST_S
        elif lost and now >= self._not_before_s:
            self._leave(now)

    def _leave(self, now: float) -> None:
        self.log(
            f"nobody answers at port {self._port}, three handshakes are lost: leaving it for a new "
            f"one; if that does not help, the next in {self._pause_s:g} s at the earliest"
        )
        self.change()
        self._port = 0  # whichever it is
        self._not_before_s = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
        for seen in self._peers.values():
            seen.silent_since_s = None
