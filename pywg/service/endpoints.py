"""Endpoint names while a tunnel runs: a peer that no longer answers is looked up again.

A thread of its own, beside those that move packets, asks the device every few seconds. It looks up
only what is worth it: a peer that was given by name, to whom something is sent, and who does not
answer; and a peer that has no endpoint yet, because its name had no address. If the name has other
addresses, the next one is set, IPv6 and IPv4 in turn.

Knows no file and no netlink. Clock, resolver and device are arguments. Invariant: a session that
lives is never touched, and nothing but an endpoint is ever changed.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import zip_longest
from typing import Protocol

from pywg.config import Config, Endpoint, EndpointDns, Family
from pywg.errors import DeviceError, PywgError, Status
from pywg.host import resolver as resolve
from pywg.keys import PublicKey
from pywg.wireguard.status import InterfaceStatus, PeerStatus

# A session is renewed when it is 120 s old (REKEY_AFTER_TIME), and an initiation that is lost is
# sent again after 5 s (REKEY_TIMEOUT). So a handshake older than this stands for three lost ones.
STALE_S = 135.0
# Three initiations: what an address gets before another is tried.
PATIENCE_S = 15.0
# How often the device is asked.
PROBE_S = 5.0
# Of the tries for a name without address, so many are told one by one, then those of 2, 4, 8 ...
TOLD_TRIES = 5


class Watched(Protocol):
    """What a Watcher needs of a Device."""

    def get(self) -> InterfaceStatus: ...

    def set(self, config: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Name:
    """A peer whose endpoint was given by name."""

    public_key: PublicKey
    endpoint: Endpoint
    family: Family = "auto"
    dns: EndpointDns = "outside"

    def to_json(self) -> list[str | int]:
        """For the way to the background process."""
        endpoint = self.endpoint
        return [str(self.public_key), endpoint.host, endpoint.port, self.family, self.dns]

    @classmethod
    def from_json(cls, value: Sequence[str | int]) -> Name:
        key, host, port, wanted, dns = value
        family = next(family for family in resolve.FAMILIES if family == wanted)
        where: EndpointDns = "tunnel" if dns == "tunnel" else "outside"
        return cls(PublicKey.from_base64(str(key)), Endpoint(str(host), int(port)), family, where)


def names_of(config: Config) -> tuple[Name, ...]:
    """What is to be watched of a configuration whose names are not resolved yet."""
    return tuple(
        Name(peer.public_key, peer.endpoint, resolve.family_of(peer), peer.endpoint_dns)
        for peer in config.peers
        if peer.endpoint is not None and resolve.is_name(peer.endpoint)
    )


def names_to_json(config: Config) -> tuple[list[str | int], ...]:
    return tuple(name.to_json() for name in names_of(config))


def names_from_json(names: Iterable[Sequence[str | int]]) -> list[Name]:
    return [Name.from_json(name) for name in names]


@dataclass(slots=True)
class _Memory:
    """What was seen of one peer."""

    name: Name
    handshake_ns: int = 0
    handshake_seen_s: float = 0.0  # by our clock: the wall clock may be set meanwhile
    tx_bytes: int = 0  # now
    tx_bytes_then: int = 0  # when it last answered, or was looked up
    next_s: float | None = None  # not to be looked up before; None while it answers
    lacks_endpoint: bool = False
    tries: int = 0  # in a row that gave no address, while it lacks one
    delay_s: float = resolve.DELAY_FIRST_S

    def is_due(self, now: float) -> bool:
        """Nobody needs another address of a peer to whom nothing is sent."""
        is_time = self.next_s is not None and self.next_s <= now
        return is_time and (self.lacks_endpoint or self.is_spoken_to)

    def be_due(self, now: float) -> None:
        """At once, where it does not answer."""
        if self.next_s is not None:
            self.next_s, self.delay_s, self.tx_bytes_then = now, resolve.DELAY_FIRST_S, -1

    @property
    def is_spoken_to(self) -> bool:
        return self.tx_bytes > self.tx_bytes_then

    tried: set[tuple[IPv4Address | IPv6Address, int]] = field(default_factory=set)


class Watcher:
    """``check`` is one round; ``start`` makes a thread of rounds, until ``stop``.

    ``renewed`` answers, each round, the names as they are by now, or None while they are the same.
    ``also`` is given what the device said in a round, and the time. ``log`` hears of each endpoint
    that is tried, ``tell`` of names that have no address.
    """

    def __init__(
        self,
        device: Watched,
        names: Iterable[Name],
        *,
        renewed: Callable[[], Iterable[Name] | None] | None = None,
        look_up: resolve.LookUp = resolve.look_up,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        log: Callable[[str], None] = lambda line: None,
        tell: Callable[[str], None] = lambda line: None,
        also: Callable[[InterfaceStatus, float], None] | None = None,
        stale_s: float = STALE_S,
        patience_s: float = PATIENCE_S,
        probe_s: float = PROBE_S,
    ) -> None:
        self._device = device
        self._renewed = renewed
        self._look_up = look_up
        self._clock = clock
        self._log = log
        self._tell = tell
        self._also = also
        self._stale_s = stale_s
        self._patience_s = patience_s
        self._probe_s = probe_s
        self._memories = {name.public_key: _Memory(name) for name in names}
        self._stopped = threading.Event()
        self._has_moved = threading.Event()
        self._awake = threading.Event()

    def start(self) -> None:
        """Without anything to watch, now or later, there is no thread either."""
        if self._memories or self._renewed is not None or self._also is not None:
            threading.Thread(target=self._run, name="pywg names", daemon=True).start()

    def stop(self) -> None:
        """Does not wait for the thread: a resolver may keep it for long, and it is harmless."""
        self._stopped.set()
        self._awake.set()

    def moved(self) -> None:
        """The network is another one by now: peers that do not answer are looked up at once, in
        the thread of the rounds. For any thread."""
        self._has_moved.set()
        self._awake.set()

    def _run(self) -> None:
        while True:
            self._awake.wait(self._pause())
            if self._stopped.is_set():
                return
            self._awake.clear()
            try:
                self.check()
            except PywgError as error:
                if isinstance(error, DeviceError) and error.status == Status.CLOSED:
                    return
                self._log(str(error))

    def _pause(self) -> float:
        """Until the next round; a name without address may be due before."""
        waiting = [memory.next_s for memory in self._memories.values() if memory.lacks_endpoint]
        soonest = min((next_s for next_s in waiting if next_s is not None), default=None)
        if soonest is None:
            return self._probe_s
        return min(max(soonest - self._clock(), 0), self._probe_s)

    def check(self) -> None:
        """Looks at every peer, then looks up those that are due, the longest waiting first."""
        now = self._clock()
        self._renew()
        if not self._memories and self._also is None:
            return
        status = self._device.get()
        peers = {peer.public_key: peer for peer in status.peers}
        for public_key, memory in self._memories.items():
            if public_key in peers:
                self._note(memory, peers[public_key], now)
            else:
                memory.next_s, memory.lacks_endpoint = None, False
        if self._has_moved.is_set():
            self._has_moved.clear()
            for memory in self._memories.values():
                memory.be_due(now)
        if self._also is not None:
            self._also(status, now)
        due = [memory for memory in self._memories.values() if memory.is_due(now)]
        for memory in sorted(due, key=lambda memory: memory.next_s or 0):
            if self._stopped.is_set() or not self._follow(memory):
                break

    def _renew(self) -> None:
        names = self._renewed() if self._renewed is not None else None
        if names is None:
            return
        old = self._memories
        self._memories = {}
        for name in names:
            memory = old.get(name.public_key)
            same = memory is not None and memory.name == name
            self._memories[name.public_key] = memory if memory and same else _Memory(name)

    def _note(self, memory: _Memory, peer: PeerStatus, now: float) -> None:
        if peer.last_handshake_ns != memory.handshake_ns:
            memory.handshake_ns = peer.last_handshake_ns
            memory.handshake_seen_s = now
        if peer.tx_bytes < memory.tx_bytes:
            memory.tx_bytes_then = 0  # it was removed and made anew
        memory.tx_bytes = peer.tx_bytes
        if memory.lacks_endpoint != (peer.endpoint is None):
            memory.lacks_endpoint = peer.endpoint is None
            memory.next_s = now if memory.lacks_endpoint else None
        if memory.lacks_endpoint:
            return
        memory.tries, memory.delay_s = 0, resolve.DELAY_FIRST_S
        never = memory.handshake_ns == 0
        if not never and now - memory.handshake_seen_s <= self._stale_s:
            memory.tx_bytes_then = peer.tx_bytes
            memory.next_s = None
            memory.tried.clear()
        elif memory.next_s is None and memory.is_spoken_to:
            # Where a handshake went stale, three initiations have been lost already.
            memory.next_s = now + self._patience_s if never else now

    def _follow(self, memory: _Memory) -> bool:
        """Looks one name up and sets what it says. False when no name can be had now."""
        name = memory.name
        memory.tx_bytes_then = memory.tx_bytes
        try:
            look_up = resolve.look_up if name.dns == "tunnel" else self._look_up
            found = look_up(name.endpoint, name.family)
        except socket.gaierror as error:
            self._say_unknown(memory, error)
            return error.errno in resolve.FINAL  # else the other names would wait as long
        finally:
            pause_s = memory.delay_s if memory.lacks_endpoint else self._patience_s
            memory.next_s = self._clock() + pause_s
            memory.delay_s = resolve.longer(memory.delay_s)
        # It may have taken long: what does the peer do by now?
        peer = self._find(name.public_key)
        if peer is None or peer.last_handshake_ns != memory.handshake_ns:
            return True
        chosen = _choose(found, peer.endpoint, memory.tried)
        if chosen is not None:
            self._device.set(
                f"public_key={name.public_key.to_hex()}\nupdate_only=true\nendpoint={chosen}\n"
            )
            self._say_chosen(memory, chosen)
        return True

    def _say_unknown(self, memory: _Memory, error: socket.gaierror) -> None:
        name = memory.name
        if not memory.lacks_endpoint:
            why = f"nor can it be resolved: {error.strerror}"
            self._log(f"{name.endpoint} does not answer, {why}")
            return
        memory.tries += 1
        if memory.tries <= TOLD_TRIES or memory.tries.bit_count() == 1:
            self._tell(
                f"peer {name.public_key.short}: {name.endpoint.host} does not resolve "
                f"({error.strerror}), try {memory.tries}: asked again in {memory.delay_s:.3g} s"
            )

    def _say_chosen(self, memory: _Memory, chosen: Endpoint) -> None:
        name = memory.name
        if memory.lacks_endpoint:
            key, host = name.public_key.short, name.endpoint.host
            self._tell(f"peer {key}: {host} resolves by now: its endpoint is {chosen}")
        else:
            self._log(f"{name.endpoint} does not answer: trying {chosen}")

    def _find(self, public_key: PublicKey) -> PeerStatus | None:
        peers = self._device.get().peers
        return next((peer for peer in peers if peer.public_key == public_key), None)


def _choose(
    found: Sequence[Endpoint],
    current: Endpoint | None,
    tried: set[tuple[IPv4Address | IPv6Address, int]],
) -> Endpoint | None:
    """The next address to try, or None to stay; ``tried`` begins anew when all have had a turn."""
    here = None if current is None else _address(current)
    if here is not None:
        tried.add(here)
    order = alternate(found)
    fresh = [endpoint for endpoint in order if _address(endpoint) not in tried]
    if not fresh:
        tried.clear()
        fresh = [endpoint for endpoint in order if _address(endpoint) != here]
    return fresh[0] if fresh else None


def alternate(found: Sequence[Endpoint]) -> list[Endpoint]:
    """The families in turn, beginning with that of the first, each in the resolver's order."""
    first = [endpoint for endpoint in found if _version(endpoint) == _version(found[0])]
    second = [endpoint for endpoint in found if _version(endpoint) != _version(found[0])]
    pairs = zip_longest(first, second)
    return [endpoint for pair in pairs for endpoint in pair if endpoint is not None]


def _version(endpoint: Endpoint) -> int:
    return _address(endpoint)[0].version


def _address(endpoint: Endpoint) -> tuple[IPv4Address | IPv6Address, int]:
    """For comparing: a zone is written as a name or as a number."""
    return ip_address(endpoint.host.partition("%")[0]), endpoint.port
