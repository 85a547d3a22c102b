"""When a tunnel leaves its source port, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field

from pywg.keys import PrivateKey
from pywg.service.source_port import PAUSE_FIRST_S, PAUSE_MAX_S, SourcePort
from pywg.wireguard.status import InterfaceStatus, PeerStatus

KEYS = [PrivateKey.generate().public for _ in range(2)]
ROUND_S = 5


@dataclass
class World:
    """A device with peers, seen every five seconds; a change gives it the next port."""

    now: float = 1000
    port: int = 40000
    changed: list[float] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.peers = [PeerStatus(key) for key in KEYS]
        self.source_port = SourcePort(self.change, self.log.append)

    def change(self) -> None:
        self.port += 1
        self.changed.append(self.now)

    def live(self, seconds: float, *, sends: int | None = 0, hears: int | None = None) -> None:
        """``sends`` and ``hears``: to which peer, from which."""
        for _ in range(int(seconds / ROUND_S)):
            self.now += ROUND_S
            if sends is not None:
                self.peers[sends].tx_bytes += 148
            if hears is not None:
                self.peers[hears].rx_bytes += 92
            peers = [_copy(peer) for peer in self.peers]
            self.source_port.check(InterfaceStatus(listen_port=self.port, peers=peers), self.now)


def _copy(peer: PeerStatus) -> PeerStatus:
    return PeerStatus(peer.public_key, rx_bytes=peer.rx_bytes, tx_bytes=peer.tx_bytes)


def test_a_peer_that_answers_keeps_the_port() -> None:
    world = World()
    world.live(3600, hears=0)
    assert world.changed == []


def test_three_lost_handshakes_lead_to_a_new_port_and_a_line() -> None:
    world = World()
    world.live(15)
    assert world.changed == []
    world.live(ROUND_S)
    assert len(world.changed) == 1
    assert world.log[0].startswith("nobody answers at port 40000, three handshakes are lost")


def test_a_session_that_goes_silent_has_half_a_minute() -> None:
    world = World()
    world.live(60, hears=0)
    world.live(30)
    assert world.changed == []
    world.live(ROUND_S)
    assert len(world.changed) == 1


def test_an_idle_tunnel_stays_where_it_is() -> None:
    world = World()
    world.live(60, hears=0)
    world.live(3600, sends=None)
    assert world.changed == []


def test_another_peer_that_answers_shows_that_the_port_is_good() -> None:
    world = World()
    world.live(3600, sends=0, hears=1)
    assert world.changed == []


def test_the_pauses_grow_and_an_answer_ends_the_search() -> None:
    world = World()
    world.live(3600)
    pauses = [b - a for a, b in zip(world.changed, world.changed[1:], strict=False)]
    assert pauses[:3] == [PAUSE_FIRST_S, 2 * PAUSE_FIRST_S, 4 * PAUSE_FIRST_S]
    assert pauses[-1] == PAUSE_MAX_S
    before = len(world.changed)
    world.live(600, hears=0)
    assert len(world.changed) == before
    world.live(60)
    assert len(world.changed) == before + 1, "with the first pause again"


def test_a_port_that_somebody_chose_is_his() -> None:
    world = World()
    world.live(10)
    world.port = 51820
    world.live(3600)
    assert world.changed == []


def test_a_peer_that_is_made_anew_counts_from_zero() -> None:
    world = World()
    world.live(15)
    world.peers[0] = PeerStatus(KEYS[0])
    world.live(15)
    assert world.changed == []
