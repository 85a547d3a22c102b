"""Batch: slots that packets are read into, sealed or opened in, and sent from, again and again.

Its memoryviews are made once, so that a packet costs Python next to nothing. Knows no socket.
"""

from __future__ import annotations

import ctypes
from array import array

from pywg.native.addresses import TO_RAW, SocketAddress
from pywg.native.packets import (
    HEADROOM,
    OVERHEAD,
    VERDICTS,
    Clock,
    Numbers,
    Packet,
    PacketArray,
    Verdict,
    Why,
    drop_names,
)

_SEALED, _DELIVER, _DROPPED = int(Verdict.SEALED), int(Verdict.DELIVER), int(Verdict.DROPPED)


class Batch:
    """``count`` slots of ``size`` bytes. Slot ``i`` holds one packet in two shapes: a datagram,
    ``datagrams[i]``, and the inner packet in the middle of it, ``packets[i]``, with room before and
    behind. So a packet is sealed and opened where it lies.

    Out: read an inner packet into ``packets[i]``, write its length to ``packet_lengths[i]``, call
    ``Interface.seal_into``, and send what ``sealed`` lists.
    In: receive a datagram into ``datagrams[i]``, tell length and source by ``received``, call
    ``Interface.open_into``, and write what ``opened`` lists.

    Used again after each call, by one thread at a time. ``memory``: a writable buffer of ``count *
    size`` bytes to work in, such as an ``mmap``; else it has its own.
    """

    def __init__(
        self, count: int = 64, size: int = 2048, *, memory: bytearray | memoryview | None = None
    ) -> None:
        """ValueError: no slot, one too small for a handshake message (148 bytes), or ``memory`` of
        another length."""
        if count < 1 or size < 148:
            raise ValueError(f"a batch has slots, of 148 bytes at least: not {count} of {size}")
        given = bytearray(count * size) if memory is None else memory
        whole = memoryview(given).cast("B")
        if len(whole) != count * size or whole.readonly:
            raise ValueError(f"{count} slots of {size} bytes need a writable buffer of that length")
        self.count = count
        """How many slots there are."""
        self.size = size
        """Bytes of a slot: an inner packet may have 48 fewer."""
        slots = [whole[at : at + size] for at in range(0, count * size, size)]
        self.datagrams: tuple[memoryview, ...] = tuple(slots)
        """For each slot where its datagram is received, and where a sealed one lies."""
        self.packets: tuple[memoryview, ...] = tuple(
            slot[HEADROOM : size - OVERHEAD + HEADROOM] for slot in slots
        )
        """For each slot where its inner packet is read into, and where an opened one lies."""
        self._inner, self._outer = PacketArray(count), PacketArray(count)
        self._numbers = Numbers(count)
        self._written = Numbers(1)
        self._clock, self._why = Clock(), Why()
        self.packet_lengths: memoryview = self._inner.lengths
        """For each slot the length of its inner packet: written before ``seal_into``, and by
        ``open_into``."""
        self.datagram_lengths: memoryview = self._outer.lengths
        """For each slot the length of its datagram: written by ``seal_into``, and before
        ``open_into``."""
        self.verdicts: memoryview = self._outer.verdicts
        """For each slot what became of it, as the number of a ``Verdict``."""
        self.peers: memoryview = self._numbers.view
        """For each slot the number of the peer, or 0: ``Interface.peer_key``."""
        # Also keeps the memory from being resized.
        self._memory = (ctypes.c_char * (count * size)).from_buffer(given)
        first = ctypes.addressof(self._memory)
        self._bases = array("Q", range(first, first + count * size, size))
        self._outer.data[:] = self._bases
        self._inner.data[:] = array("Q", map(HEADROOM.__add__, self._bases))
        self._outer.capacities[:] = self._inner.capacities[:] = array("Q", [size] * count)
        self._delivers = False  # whether the outer array points at inner packets

    def received(self, slot: int, length: int, address: SocketAddress) -> None:
        """A datagram of ``length`` bytes from ``address`` is in ``datagrams[slot]``.

        ValueError or TypeError: ``address`` is none.
        """
        self._outer.endpoints[slot][:] = TO_RAW[address]
        self._outer.lengths[slot] = length

    def sealed(self, count: int | None = None) -> list[tuple[memoryview, SocketAddress]]:
        """The datagrams to send, after ``seal_into`` or ``poll_into``, of the first ``count``
        slots: a view, good until the slot is used again, and where to."""
        number = self.count if count is None else count
        lengths = self._outer.lengths[:number].tolist()
        addresses = self._outer.addresses(number)
        verdicts = self._outer.verdicts[:number].tolist()
        places = zip(self.datagrams, lengths, addresses, verdicts, strict=False)
        # What is sealed has an address; the comparison is for the type.
        return [
            (view[:length], address)
            for view, length, address, verdict in places
            if verdict == _SEALED and address is not None
        ]

    def opened(self, count: int | None = None) -> list[memoryview]:
        """The inner packets that came out of ``open_into``, of the first ``count`` slots: views,
        good until the slot is used again."""
        number = self.count if count is None else count
        lengths = self._inner.lengths[:number].tolist()
        verdicts = self._outer.verdicts[:number].tolist()
        return [
            view[:length]
            for view, length, verdict in zip(self.packets, lengths, verdicts, strict=False)
            if verdict == _DELIVER
        ]

    def result(self, slot: int) -> Packet:
        """What became of one slot, as ``Interface.seal`` and ``receive`` tell it, with a copy of
        its bytes."""
        verdict = VERDICTS[self._outer.verdicts[slot]]
        data = b""
        if verdict is Verdict.SEALED:
            data = bytes(self.datagrams[slot][: self._outer.lengths[slot]])
        elif verdict is Verdict.DELIVER:
            data = bytes(self.packets[slot][: self._inner.lengths[slot]])
        drop = drop_names()[self._outer.drops[slot]] if verdict is Verdict.DROPPED else None
        address = self._outer.addresses(self.count)[slot]
        return Packet(verdict, data, address, drop, self.peers[slot])

    def _begin(self, count: int | None) -> int:
        """How many slots a call is about; the outer array points at datagrams again."""
        number = self.count if count is None else count
        if not 0 <= number <= self.count:
            raise ValueError(f"the batch has {self.count} slots, not {number}")
        if self._delivers:
            self._delivers = False
            self._outer.data[:] = self._bases
        return number

    def _opened(self, number: int) -> None:
        self._delivers = True
        self._inner.lengths[:number] = self._outer.lengths[:number]
