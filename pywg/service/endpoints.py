"""Endpoint names while a tunnel runs: a peer that no longer answers is looked up again.

A thread of its own, beside those that move packets, asks the device every few seconds. It looks up
only what is worth it: a peer that was given by name, to whom something is sent, and who does not
answer. If the name has other addresses, the next one is set, IPv6 and IPv4 in turn.

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

from pywg.config import Config, Endpoint, Family
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

LookUp = Callable[[Endpoint, Family], Sequence[Endpoint]]


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

    def to_json(self) -> list[str | int]:
        """For the way to the background process."""
        return [str(self.public_key), self.endpoint.host, self.endpoint.port, self.family]

    @classmethod
    def from_json(cls, value: Sequence[str | int]) -> Name:
        key, host, port, wanted = value
        family = next(family for family in resolve.FAMILIES if family == wanted)
        return cls(PublicKey.from_base64(str(key)), Endpoint(str(host), int(port)), family)


def names_of(config: Config) -> tuple[Name, ...]:
    """What is to be watched of a configuration whose names are not resolved yet."""
    return tuple(
        Name(peer.public_key, peer.endpoint, resolve.family_of(peer))
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

    def is_due(self, now: float) -> bool:
        """Nobody needs the address of a peer to whom nothing is sent."""
        return self.next_s is not None and self.next_s <= now and self.is_spoken_to

    @property
    def is_spoken_to(self) -> bool:
        return self.tx_bytes > self.tx_bytes_then

    tried: set[tuple[IPv4Address | IPv6Address, int]] = field(default_factory=set)


class Watcher:
    """``check`` is one round; ``start`` makes a thread of rounds, until ``stop``.

    ``renewed`` answers, each round, the names as they are by now, or None while they are the same.
    """

    def __init__(
        self,
        device: Watched,
        names: Iterable[Name],
        *,
        renewed: Callable[[], Iterable[Name] | None] | None = None,
        look_up: LookUp = resolve.look_up,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        log: Callable[[str], None] = lambda line: None,
        stale_s: float = STALE_S,
        patience_s: float = PATIENCE_S,
        probe_s: float = PROBE_S,
    ) -> None:
        self._device = device
        self._renewed = renewed
        self._look_up = look_up
        self._clock = clock
        self._log = log
        self._stale_s = stale_s
        self._patience_s = patience_s
        self._probe_s = probe_s
        self._memories = {name.public_key: _Memory(name) for name in names}
        self._stopped = threading.Event()
        self._has_moved = threading.Event()

    def start(self) -> None:
        """Without a name to watch, now or later, there is no thread either."""
        if self._memories or self._renewed is not None:
            threading.Thread(target=self._run, name="pywg names", daemon=True).start()

    def moved(self) -> None:
        """The network around may be another: who does not answer is looked up at the next round."""
        self._has_moved.set()

    def stop(self) -> None:
        """Does not wait for the thread: a resolver may keep it for long, and it is harmless."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._probe_s):
            try:
                self.check()
            except PywgError as error:
                if isinstance(error, DeviceError) and error.status == Status.CLOSED:
                    return
                self._log(str(error))

    def check(self) -> None:
        """Looks at every peer, then looks up those that are due, the longest waiting first."""
        now = self._clock()
        self._renew()
        if not self._memories:
            return
        for peer in self._device.get().peers:
            memory = self._memories.get(peer.public_key)
            if memory is not None:
                self._note(memory, peer, now)
        if self._has_moved.is_set():
            self._has_moved.clear()
            for memory in self._memories.values():
                memory.next_s = memory.next_s and now
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
            found = self._look_up(name.endpoint, name.family)
        except socket.gaierror as error:
            self._log(f"{name.endpoint} does not answer, nor can it be resolved: {error.strerror}")
            return error.errno in resolve.FINAL  # else the other names would wait as long
        finally:
            memory.next_s = self._clock() + self._patience_s
        # It may have taken long: what does the peer do by now?
        peer = self._find(name.public_key)
        if peer is None or peer.last_handshake_ns != memory.handshake_ns:
            return True
        chosen = _choose(found, peer.endpoint, memory.tried)
        if chosen is not None:
            self._device.set(
                f"public_key={name.public_key.to_hex()}\nupdate_only=true\nendpoint={chosen}\n"
            )
            self._log(f"{name.endpoint} does not answer: trying {chosen}")
        return True

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
