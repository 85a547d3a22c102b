"""Arrays of pywg_packet as ctypes sees them, with a memoryview over each field: a field of all
packets is read or written by one call of Python's own C, not by one for each packet.

Knows no interface. Invariant: whoever may be in the middle of a call has its arrays for itself.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable, Sequence
from ctypes import addressof, c_size_t, c_uint32, c_void_p, sizeof
from enum import IntEnum
from functools import cache, partial
from itertools import accumulate, repeat
from operator import itemgetter
from struct import Struct
from time import CLOCK_BOOTTIME, clock_gettime_ns, time_ns
from typing import Any, Literal, NamedTuple, NoReturn

from pywg.errors import DeviceError
from pywg.native import abi, library
from pywg.native.addresses import FROM_RAW, TO_RAW, SocketAddress
from pywg.native.addresses import LENGTH as ENDPOINT_LENGTH

HEADROOM = 16  # the header before a sealed packet
OVERHEAD = 48  # header 16, tag 16 and up to 15 of padding

# What the core reads and writes as bytes.
Buffer = bytes | bytearray | memoryview

# Of arrays and views: a size_t, which is as long as a pointer.
WORD: Literal["Q", "I"] = "Q" if sizeof(c_size_t) == 8 else "I"
_SIZE = sizeof(abi.pywg_packet)
_WORDS, _HALVES = _SIZE // sizeof(c_size_t), _SIZE // 4
_VERDICT, _DROP = abi.pywg_packet.verdict.offset // 4, abi.pywg_packet.drop.offset // 4
_ENDPOINT = abi.pywg_packet.endpoint.offset
# Of each packet its endpoint alone.
_BEHIND = _SIZE - _ENDPOINT - ENDPOINT_LENGTH
_ENDPOINTS = Struct(f"={_ENDPOINT}x{ENDPOINT_LENGTH}s{_BEHIND}x")
_first = itemgetter(0)


class Verdict(IntEnum):
    """What became of a packet.

    ``DROPPED``: refused, ``Packet.drop`` says why. ``SEALED``: a datagram to send. ``STAGED``: kept
    until there is a session, so call ``poll``. ``DELIVER``: an inner packet that came out.
    ``HANDSHAKE``: a handshake message was accepted, so call ``poll``. ``KEEPALIVE``: authentic and
    empty.
    """

    DROPPED = abi.PYWG_VERDICT_DROPPED
    SEALED = abi.PYWG_VERDICT_SEALED
    STAGED = abi.PYWG_VERDICT_STAGED
    DELIVER = abi.PYWG_VERDICT_DELIVER
    HANDSHAKE = abi.PYWG_VERDICT_HANDSHAKE
    KEEPALIVE = abi.PYWG_VERDICT_KEEPALIVE


VERDICTS = tuple(Verdict)
_DROPPED, _SEALED, _DELIVER = int(Verdict.DROPPED), int(Verdict.SEALED), int(Verdict.DELIVER)


class Packet(NamedTuple):
    """A packet after the core looked at it.

    ``verdict``: what became of it. ``data``: the datagram (SEALED) or the inner packet (DELIVER),
    else empty. ``address``: where to send it, or where it came from. ``drop``: why it was DROPPED,
    such as ``"invalid_mac1"`` or ``"no_peer"``. ``peer``: the number of the peer that it is for or
    from, 0 where there is none; ``Interface.peer_key`` has the key to it.
    """

    verdict: Verdict
    data: bytes = b""
    address: SocketAddress | None = None
    drop: str | None = None
    peer: int = 0


@cache
def drop_names() -> tuple[str, ...]:
    """The reasons for which packets are dropped, in the order of their numbers."""
    names: list[str] = []
    while (name := library.load().pywg_drop_name(len(names))) is not None:
        names.append(str(name, "ascii"))
    return tuple(names)


class Columns(NamedTuple):
    """One field each of the first packets of an array."""

    lengths: memoryview
    verdicts: memoryview


class PacketArray:
    """``count`` packets of the C ABI, and views of their fields."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._array = (abi.pywg_packet * count)()
        self.pointer = c_void_p(addressof(self._array))
        self._bytes = memoryview(self._array).cast("B")
        words, halves = self._bytes.cast(WORD), self._bytes.cast("I")
        self.data = words[0::_WORDS]
        self.lengths = words[1::_WORDS]
        self.capacities = words[2::_WORDS]
        self.verdicts = halves[_VERDICT::_HALVES]
        self.drops = halves[_DROP::_HALVES]
        self.endpoints = tuple(
            self._bytes[at : at + ENDPOINT_LENGTH] for at in range(_ENDPOINT, count * _SIZE, _SIZE)
        )
        self._columns: dict[int, Columns] = {}

    def columns(self, count: int) -> Columns:
        """Cut once for each count."""
        found = self._columns.get(count)
        if found is None:
            found = Columns(self.lengths[:count], self.verdicts[:count])
            self._columns[count] = found
        return found

    def address(self, index: int) -> Any:
        """None where none was written."""
        return FROM_RAW[self.endpoints[index].tobytes()]

    def addresses(self, count: int) -> list[Any]:
        raw = map(_first, _ENDPOINTS.iter_unpack(self._bytes[: count * _SIZE]))
        return list(map(FROM_RAW.__getitem__, raw))


def lengths_as_array(lengths: Sequence[int]) -> array[int]:
    try:
        return array(WORD, lengths)
    except OverflowError:
        raise ValueError("a length is 0 or more, and a size_t") from None


_pack_clocks = Struct("=QQ").pack_into


class Clock:
    """A pywg_now, and the pointer to it."""

    def __init__(self) -> None:
        self._now = abi.pywg_now()
        self.pointer = c_void_p(addressof(self._now))
        self._view = memoryview(self._now).cast("B").cast("Q")
        self._bytes = memoryview(self._now).cast("B")

    def reference(self) -> object:
        """For a function whose types ctypes knows."""
        return ctypes.byref(self._now)

    def read(self) -> None:
        """The present."""
        _pack_clocks(self._bytes, 0, clock_gettime_ns(CLOCK_BOOTTIME), time_ns())

    def set(self, boot_ns: int, unix_ns: int) -> None:
        """ValueError for what is no 64 bits."""
        try:
            self._view[0], self._view[1] = boot_ns, unix_ns
        except (TypeError, ValueError):
            raise ValueError(
                "a clock is nanoseconds, an int from 0 to 2**64 - 1: "
                f"not {boot_ns!r} and {unix_ns!r}"
            ) from None


class Why:
    """A pywg_diagnostic, and the pointer to it."""

    def __init__(self) -> None:
        self._diagnostic = abi.pywg_diagnostic(size=sizeof(abi.pywg_diagnostic))
        self.pointer = c_void_p(addressof(self._diagnostic))

    def complain(self, status: int) -> NoReturn:
        text = self._diagnostic.text.decode("utf-8", errors="replace")
        raise DeviceError.explain(status, self._diagnostic.os_errno, text)


class Numbers:
    """An array of uint64_t, and the pointer to it."""

    def __init__(self, count: int) -> None:
        self._array = (ctypes.c_uint64 * count)()
        self.pointer = c_void_p(addressof(self._array))
        self.view = memoryview(self._array).cast("B").cast("Q")


# ctypes passes an int in 32 bits unless it is told the type with each call; so these are made once.
class _Sizes(dict[int, c_size_t]):
    def __missing__(self, count: int) -> c_size_t:
        if len(self) >= REMEMBERED_MAX:
            self.clear()
        made = self[count] = c_size_t(count)
        return made


#: ``SIZES[count]``.
SIZES = _Sizes()
FLAGS = (c_uint32(0), c_uint32(1))
REMEMBERED_MAX = 1024


class Scratch:
    """The memory that a call with a list of packets works in."""

    def __init__(self, count: int, capacity: int) -> None:
        self.count, self.capacity = count, capacity
        self._memory = ctypes.create_string_buffer(capacity)
        self._address = addressof(self._memory)
        self._bytes = memoryview(self._memory).cast("B")
        self.inner, self.outer = PacketArray(count), PacketArray(count)
        self.peers = Numbers(count)
        self.clock, self.why = Clock(), Why()
        self._forget()

    def _forget(self) -> None:
        self._layout: tuple[int, int] | None = None
        self._lengths: list[int] = []
        self._sources: list[SocketAddress] = []

    def lay_out(self, contents: Sequence[Buffer], before: int, gap: int) -> None:
        """Copies the packets one behind the other, ``gap`` bytes between two of them and
        ``before`` in front of each. What the arrays say of that is kept while lengths repeat."""
        joined = _GAPS[gap].join(contents)
        lengths = list(map(len, contents))
        if self._layout != (before, gap) or lengths != self._lengths:
            self._describe(lengths, before, gap)
        if len(joined) != self._joined_length:
            raise TypeError("a packet is bytes, a bytearray or a memoryview of bytes")
        self._bytes[before : before + len(joined)] = joined

    def _describe(self, lengths: list[int], before: int, gap: int) -> None:
        self._forget()
        count = len(lengths)
        starts = list(accumulate(map(gap.__add__, lengths), initial=0))
        self._joined_length = starts.pop() - gap
        base = self._address
        self._sizes = array(WORD, lengths)
        self._bases = array(WORD, map(base.__add__, starts))
        self.inner.data[:count] = array(WORD, map((base + before).__add__, starts))
        self.inner.lengths[:count] = self._sizes
        self.outer.data[:count] = self._bases
        self.outer.capacities[:count] = array(WORD, map(gap.__add__, lengths))
        # What comes out begins here.
        self._starts = starts if before else [HEADROOM + start for start in starts]
        self._used = self._joined_length + before + gap
        self._layout, self._lengths = (before, gap), lengths

    def come_from(self, addresses: list[SocketAddress]) -> None:
        """Where each datagram is from. Opening moves data and length: they are set anew."""
        outer, count = self.outer, len(addresses)
        outer.data[:count] = self._bases
        outer.lengths[:count] = self._sizes
        if addresses == self._sources:
            return
        self._sources = []
        for endpoint, address in zip(outer.endpoints, addresses, strict=False):
            endpoint[:] = TO_RAW[address]
        self._sources = addresses

    def sealed(self, count: int) -> list[Packet]:
        verdicts = self.outer.columns(count).verdicts.tolist()
        peers = self.peers.view[:count].tolist()
        if verdicts.count(_SEALED) == count:
            # What one call seals for one peer goes to one address.
            if peers.count(peers[0]) == count:
                return self._all(Verdict.SEALED, repeat(self.outer.address(0)), peers)
            return self._all(Verdict.SEALED, self.outer.addresses(count), peers)
        addresses = self.outer.addresses(count)
        for number, verdict in enumerate(verdicts):
            if verdict != _SEALED:
                addresses[number] = None  # it was not written
        return self._mixed(Verdict.SEALED, verdicts, addresses, peers)

    def opened(self, addresses: list[SocketAddress]) -> list[Packet]:
        count = len(addresses)
        verdicts = self.outer.columns(count).verdicts.tolist()
        peers = self.peers.view[:count].tolist()
        if verdicts.count(_DELIVER) == count:
            return self._all(Verdict.DELIVER, addresses, peers)
        return self._mixed(Verdict.DELIVER, verdicts, addresses, peers)

    def _all(
        self, good: Verdict, addresses: Iterable[SocketAddress | None], peers: list[int]
    ) -> list[Packet]:
        """All of them have this verdict, which is the common case."""
        memory = self._bytes[: self._used].tobytes()
        lengths = self.outer.columns(len(peers)).lengths.tolist()
        data = [memory[at : at + length] for at, length in zip(self._starts, lengths, strict=True)]
        return list(map(_make, zip(repeat(good), data, addresses, repeat(None), peers)))

    def _mixed(
        self,
        good: Verdict,
        verdicts: list[int],
        addresses: Sequence[SocketAddress | None],
        peers: list[int],
    ) -> list[Packet]:
        memory = self._bytes[: self._used].tobytes()
        count, names = len(verdicts), drop_names()
        lengths, drops = self.outer.lengths[:count].tolist(), self.outer.drops[:count].tolist()
        columns = (verdicts, self._starts, lengths, addresses, drops, peers)
        return [
            Packet(
                VERDICTS[verdict],
                memory[at : at + length] if verdict == good else b"",
                address,
                names[drop] if verdict == _DROPPED else None,
                peer,
            )
            for verdict, at, length, address, drop, peer in zip(*columns, strict=True)
        ]


# Packet._make without a frame of Python for each of them.
_make = partial(tuple.__new__, Packet)
_GAPS = {0: b"", HEADROOM + OVERHEAD: bytes(HEADROOM + OVERHEAD)}
_SCRATCH_COUNT, _SCRATCH_CAPACITY = 64, 1 << 17
_KEPT_MAX = 4
# Of all interfaces; each is in the hands of one call at a time.
kept_for_sealing: list[Scratch] = []
kept_for_opening: list[Scratch] = []


def take(kept: list[Scratch], count: int, capacity: int) -> Scratch:
    try:
        scratch = kept.pop()
    except IndexError:
        scratch = Scratch(_SCRATCH_COUNT, _SCRATCH_CAPACITY)
    if scratch.count < count or scratch.capacity < capacity:
        kept.append(scratch)
        return Scratch(count, capacity)
    return scratch


def give(kept: list[Scratch], scratch: Scratch) -> None:
    if scratch.capacity == _SCRATCH_CAPACITY and len(kept) < _KEPT_MAX:
        kept.append(scratch)
