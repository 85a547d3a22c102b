"""Successive answers of one interface become rates, ages and histories.

Pure: time is in the observations. Rates are over boot time, which no step of the wall clock
changes and which goes on through suspend; only the age of a handshake needs the wall clock.
A counter that has become smaller was begun anew: what it says now is what has been added since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pywg.keys import PublicKey
from pywg.wireguard.condition import Condition, of_peer
from pywg.wireguard.status import PeerStatus, Report

HISTORY_LENGTH = 120
_S = 1_000_000_000
History = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """What one question to an interface found out.

    ``taken_ns``: boot time; ``unix_ns``: wall time. ``report``: None where another implementation,
    or the kernel, has none. ``cpu_ns``: what the hosting process has used so far, None where that
    cannot be told.
    """

    taken_ns: int
    unix_ns: int
    peers: Sequence[PeerStatus]
    names: Mapping[PublicKey, str] = field(default_factory=dict)
    report: Report | None = None
    cpu_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction: ``rate`` in bytes a second, None while it is not known; ``total`` in bytes;
    ``history``: rates, the newest last, empty where all of them are zero."""

    total: int
    rate: float | None = None
    history: History = ()


@dataclass(frozen=True, slots=True)
class PeerView:
    """``status``: as it was told. ``handshake_s``: its age in seconds; None for never. Below zero:
    the wall clock was set back since. ``report`` and ``unix_s``: what else was told, and when."""

    status: PeerStatus
    name: str
    received: Flow
    sent: Flow
    handshake_s: float | None
    report: Report | None = None
    unix_s: int = 0

    @property
    def condition(self) -> Condition:
        """Decided when it is asked for: of ten thousand peers one is looked at."""
        return of_peer(self.status, self.report, self.unix_s)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Packets of one reason: so far, and a second."""

    reason: str
    total: int
    rate: float


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What the offloads come to. Datagrams for each system call on UDP sockets, bytes for each
    packet or superpacket at TUN; None where there was none meanwhile."""

    datagrams_a_send: float | None
    datagrams_a_receive: float | None
    bytes_a_read: float | None
    bytes_a_write: float | None


@dataclass(frozen=True, slots=True)
class InterfaceView:
    """An interface at one moment. ``seconds``: what rates are over, 0 for the first observation.
    ``cpu``: cores in use by the process that hosts it."""

    peers: list[PeerView]
    received: Flow
    sent: Flow
    seconds: float = 0.0
    cpu: float | None = None
    dropped: tuple[Dropped, ...] = ()
    efficiency: Efficiency | None = None
    report: Report | None = None


class Sampler:
    """Remembers the last observation of one interface, and histories."""

    def __init__(self) -> None:
        self._last: Observation | None = None
        self._peers: dict[PublicKey, tuple[Flow, Flow]] = {}
        self._whole: tuple[History, History] = ((), ())

    def take(self, seen: Observation) -> InterfaceView:
        last = self._last
        seconds = 0.0 if last is None else (seen.taken_ns - last.taken_ns) / _S
        if seconds <= 0.0:
            self._peers, self._whole = {}, ((), ())
            seconds = 0.0
        peers = [self._peer(seen, peer, seconds) for peer in seen.peers]
        view = InterfaceView(
            peers,
            self._sum(0, [peer.received for peer in peers], seconds),
            self._sum(1, [peer.sent for peer in peers], seconds),
            seconds,
            _cpu(last, seen, seconds),
            _dropped(last.report if last else None, seen.report, seconds),
            _efficiency(last.report if last else None, seen.report),
            seen.report,
        )
        self._whole = (view.received.history, view.sent.history)
        self._peers = {peer.status.public_key: (peer.received, peer.sent) for peer in peers}
        self._last = seen
        return view

    def _peer(self, seen: Observation, now: PeerStatus, seconds: float) -> PeerView:
        before = self._peers.get(now.public_key)
        if before is None:
            received, sent = Flow(now.rx_bytes), Flow(now.tx_bytes)
        else:
            received = _flow(before[0], now.rx_bytes, seconds)
            sent = _flow(before[1], now.tx_bytes, seconds)
        shaken_ns = now.last_handshake_ns
        return PeerView(
            now,
            seen.names.get(now.public_key, ""),
            received,
            sent,
            (seen.unix_ns - shaken_ns) / _S if shaken_ns else None,
            seen.report,
            int(seen.unix_ns / _S),
        )

    def _sum(self, way: int, flows: list[Flow], seconds: float) -> Flow:
        total = sum(flow.total for flow in flows)
        if not seconds:
            return Flow(total)
        rate = sum(flow.rate or 0.0 for flow in flows)
        return Flow(total, rate, _longer(self._whole[way], rate))


def _cpu(last: Observation | None, seen: Observation, seconds: float) -> float | None:
    if last is None or last.cpu_ns is None or seen.cpu_ns is None or not seconds:
        return None
    return _grown(last.cpu_ns, seen.cpu_ns) / _S / seconds


def _grown(before: int, now: int) -> int:
    return now - before if now >= before else now


def _flow(before: Flow, now: int, seconds: float) -> Flow:
    rate = _grown(before.total, now) / seconds
    return Flow(now, rate, _longer(before.history, rate))


def _longer(history: History, rate: float) -> History:
    """Nothing but zeros is kept as nothing: of ten thousand peers most are silent."""
    if not history and not rate:
        return ()
    longer = (*history[-HISTORY_LENGTH + 1 :], rate)
    return longer if rate or any(longer) else ()


def _dropped(before: Report | None, now: Report | None, seconds: float) -> tuple[Dropped, ...]:
    """Reasons that have happened, those that do so now first."""
    if now is None:
        return ()
    then = before.dropped if before is not None else now.dropped
    found = [
        Dropped(reason, total, _grown(then.get(reason, 0), total) / seconds if seconds else 0.0)
        for reason, total in now.dropped.items()
        if total
    ]
    return tuple(sorted(found, key=lambda one: (-one.rate, -one.total, one.reason)))


def _efficiency(before: Report | None, now: Report | None) -> Efficiency | None:
    """Of what happened in between. None of a device that does not count it."""
    if before is None or now is None or "udp_send_calls" not in now.other:
        return None

    def ratio(of: str, by: str) -> float | None:
        amount, count = (
            _grown(int(before.other.get(key, 0)), int(now.other.get(key, 0))) for key in (of, by)
        )
        return amount / count if count else None

    return Efficiency(
        ratio("udp_sent", "udp_send_calls"),
        ratio("udp_received", "udp_receive_calls"),
        ratio("tun_read_bytes", "tun_reads"),
        ratio("tun_written_bytes", "tun_writes"),
    )
