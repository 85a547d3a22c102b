"""Batch: slots that packets are read into, sealed or opened in, and sent from, again and again.

Its memoryviews are made once, so that a packet costs Python next to nothing. Knows no socket.
"""

# `strict` costs zip more than a packet here may cost.
# ruff: noqa: B905

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable, Sequence
from itertools import repeat

from pywg.native.addresses import TO_RAW, SocketAddress
from pywg.native.packets import (
    HEADROOM,
    OVERHEAD,
    VERDICTS,
    WORD,
    Clock,
    Numbers,
    Packet,
    PacketArray,
    Verdict,
    Why,
    drop_names,
    lengths_as_array,
)

# Of the first slots: lengths of inner packets, lengths, verdicts, peers; pointers to datagrams, and
# what these are before opening moves them.
Columns = tuple[memoryview, memoryview, memoryview, memoryview, memoryview, "array[int]"]

_SEALED, _DELIVER, _DROPPED = int(Verdict.SEALED), int(Verdict.DELIVER), int(Verdict.DROPPED)
SLOT_MIN = 148  # a handshake message
CUTS_MAX = 8


class Batch:
    """``count`` slots of ``size`` bytes. Slot ``i`` holds one packet in two shapes: a datagram,
    ``datagrams[i]``, and the inner packet in the middle of it, ``packets[i]``, with room before and
    behind. So a packet is sealed and opened where it lies.

    Out: read inner packets into ``packets[0]``, ``packets[1]``, ..., call ``Interface.seal_into``
    with their lengths, and send what ``sealed`` lists.
    In: receive datagrams into ``datagrams[0]``, ..., call ``Interface.open_into`` with lengths and
    sources, and write what ``opened`` lists.

    After a call ``lengths[i]`` is the length of what lies in a slot now, ``verdicts[i]`` what
    became of it, as the number of a ``Verdict``, and ``peers[i]`` the number of the peer, or 0.

    Used again for each call, by one thread at a time. ``memory``: a writable buffer of ``count *
    size`` bytes to work in, such as an ``mmap``; else it has its own.
    """

    def __init__(
        self, count: int = 64, size: int = 2048, *, memory: bytearray | memoryview | None = None
    ) -> None:
        """ValueError: no slot, one too small for a handshake message (148 bytes), or ``memory`` of
        another length, or that cannot be written."""
        if count < 1 or size < SLOT_MIN:
            raise ValueError(
                f"a batch has slots of {SLOT_MIN} bytes or more: not {count} of {size}"
            )
        given = bytearray(count * size) if memory is None else memory
        whole = memoryview(given).cast("B")
        if len(whole) != count * size or whole.readonly:
            raise ValueError(f"{count} slots of {size} bytes need a writable buffer of that length")
        self.count = count
        self.size = size
        slots = [whole[at : at + size] for at in range(0, count * size, size)]
        self.datagrams: tuple[memoryview, ...] = tuple(slots)
        self.packets: tuple[memoryview, ...] = tuple(
            slot[HEADROOM : size - OVERHEAD + HEADROOM] for slot in slots
        )
        self._inner, self._outer = PacketArray(count), PacketArray(count)
        self._numbers, self._written = Numbers(count), Numbers(1)
        self._clock, self._why = Clock(), Why()
        # Of the last call.
        self._used = 0
        self._sources: SocketAddress | Sequence[SocketAddress] | None = None
        self._is_one_source = False
        self._is_moved = False
        self.lengths: memoryview = self._outer.lengths
        self.verdicts: memoryview = self._outer.verdicts
        self.peers: memoryview = self._numbers.view
        # Also keeps the memory from being resized.
        self._memory = (ctypes.c_char * (count * size)).from_buffer(given)
        first = ctypes.addressof(self._memory)
        self._bases = array(WORD, range(first, first + count * size, size))
        self._outer.data[:] = self._bases
        self._inner.data[:] = array(WORD, map(HEADROOM.__add__, self._bases))
        self._outer.capacities[:] = array(WORD, [size]) * count
        self._columns: dict[int, Columns] = {}
        # Views of slots cut to a length, for slots of equal length.
        self._cut_datagrams: dict[int, tuple[memoryview, ...]] = {}
        self._cut_packets: dict[int, tuple[memoryview, ...]] = {}

    def sealed(self) -> list[tuple[memoryview, SocketAddress]]:
        """What the last ``seal_into`` or ``poll_into`` made, in the order of slots: the datagram,
        as a view that is good until the next call, and where to send it."""
        count = self._used
        if count == 1:
            if self.verdicts[0] != _SEALED:
                return []
            return [(self.datagrams[0][: self.lengths[0]], self._outer.address(0))]
        if not count:
            return []
        columns = self._columns.get(count) or self._columns_of(count)
        verdicts, lengths = columns[2].tolist(), columns[1].tolist()
        if verdicts.count(_SEALED) == count:
            views = _cut(self.datagrams, lengths, self._cut_datagrams)
            peers = columns[3].tolist()
            # What one call seals for one peer goes to one address.
            if peers.count(peers[0]) == count and peers[0]:
                return list(zip(views, repeat(self._outer.address(0))))
            return list(zip(views, self._outer.addresses(count)))
        places = zip(self.datagrams, lengths, self._outer.addresses(count), verdicts, strict=False)
        return [
            (view[:length], address)
            for view, length, address, verdict in places
            if verdict == _SEALED
        ]

    def opened(self) -> list[memoryview]:
        """The inner packets that came out of the last ``open_into``, in the order of slots: views
        that are good until the next call."""
        count = self._used
        if count == 1:
            if self.verdicts[0] != _DELIVER:
                return []
            return [self.packets[0][: self.lengths[0]]]
        if not count:
            return []
        columns = self._columns.get(count) or self._columns_of(count)
        verdicts, lengths = columns[2].tolist(), columns[1].tolist()
        if verdicts.count(_DELIVER) == count:
            return [*_cut(self.packets, lengths, self._cut_packets)]
        places = zip(self.packets, lengths, verdicts, strict=False)
        return [view[:length] for view, length, verdict in places if verdict == _DELIVER]

    def result(self, slot: int) -> Packet:
        """What became of one slot, as ``Interface.seal`` and ``receive`` tell it, with a copy of
        its bytes. IndexError: the last call was not about this slot."""
        if not 0 <= slot < self._used:
            raise IndexError(f"the last call was about {self._used} slots")
        outer = self._outer
        verdict = VERDICTS[outer.verdicts[slot]]
        drop, data = None, b""
        address: SocketAddress | None = None
        if verdict is Verdict.SEALED:
            data = self.datagrams[slot][: outer.lengths[slot]].tobytes()
        elif verdict is Verdict.DELIVER:
            data = self.packets[slot][: outer.lengths[slot]].tobytes()
        elif verdict is Verdict.DROPPED:
            drop = drop_names()[outer.drops[slot]]
        # What was not sealed has no address; what was received has the one that it came from.
        if verdict is Verdict.SEALED or self._sources is not None:
            address = outer.address(slot)
        return Packet(verdict, data, address, drop, self.peers[slot])

    def _columns_of(self, count: int) -> Columns:
        """Of the first slots; cut once."""
        found = self._columns.get(count)
        if found is None:
            found = self._columns[count] = (
                self._inner.lengths[:count],
                self.lengths[:count],
                self.verdicts[:count],
                self.peers[:count],
                self._outer.data[:count],
                self._bases[:count],
            )
        return found

    # ---- for Interface ----

    def _begin(self, count: int) -> None:
        """A call about the first ``count`` slots."""
        if count > self.count:
            raise ValueError(f"the batch has {self.count} slots, not {count}")
        if self._is_moved:
            # Opening moved the pointers to the inner packets.
            self._is_moved = False
            self._outer.data[:] = self._bases
        self._used = 0

    def _holds_packets(self, lengths: Sequence[int]) -> int:
        count = len(lengths)
        if self._is_moved or count > self.count:
            self._begin(count)
        self._used = 0
        self._sources = None
        if count == 1:
            self._inner.lengths[0] = lengths[0]
        else:
            columns = self._columns.get(count) or self._columns_of(count)
            columns[0][:] = lengths_as_array(lengths)
        return count

    def _holds_datagrams(
        self, lengths: Sequence[int], sources: SocketAddress | Sequence[SocketAddress]
    ) -> int:
        count = len(lengths)
        if sources != self._sources:
            self._come_from(sources)
        if not self._is_one_source and len(sources) != count:
            raise ValueError(f"{count} lengths and {len(sources)} sources")
        columns = self._columns.get(count) or self._columns_of(count)
        if self._is_moved and self._used == count:
            # The usual case: as many as in the last call.
            columns[4][:] = columns[5]
            self._used = 0
        else:
            self._begin(count)
        if count == 1:
            self.lengths[0] = lengths[0]
        else:
            columns[1][:] = lengths_as_array(lengths)
        # Opening moves them to the inner packets.
        self._is_moved = True
        return count

    def _come_from(self, sources: SocketAddress | Sequence[SocketAddress]) -> None:
        self._sources = None
        self._is_one_source = bool(sources) and isinstance(sources[0], str)
        if self._is_one_source:
            raw = TO_RAW[sources]  # type: ignore[index]
            for endpoint in self._outer.endpoints:
                endpoint[:] = raw
            self._sources = sources
            return
        for endpoint, address in zip(self._outer.endpoints, sources, strict=False):
            endpoint[:] = TO_RAW[address]  # type: ignore[index]
        self._sources = list(sources)  # type: ignore[arg-type]


def _cut(
    views: tuple[memoryview, ...], lengths: list[int], known: dict[int, tuple[memoryview, ...]]
) -> Iterable[memoryview]:
    """The views as long as their packets. Those of equal length are cut once."""
    count, length = len(lengths), lengths[0]
    if lengths.count(length) != count:
        return map(memoryview.__getitem__, views, map(slice, lengths))
    cut = known.get(length)
    if cut is not None and len(cut) == count:
        return cut
    if cut is None:
        if len(known) >= CUTS_MAX:
            known.clear()
        cut = known[length] = tuple([view[:length] for view in views])
    return cut if count == len(cut) else cut[:count]
