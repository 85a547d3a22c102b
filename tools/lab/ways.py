"""Which way datagrams take: a sender that never rests, and sniffers that know its datagrams by
their numbers. Each is a process of its own and writes what it knows into memory that it shares with
us.

    python -m tools.lab.ways send MEMORY PER_SECOND
    python -m tools.lab.ways sniff MEMORY DIRECTION

The sender sends in rounds: one datagram to each of TARGETS, all with the number of the round. It
asks the kernel for a way each time, so the numbers say without any clock when each was sent, also
of what leaves later, as from the queue of a neighbour. What the kernel refuses to send is counted
and is no leak. What the kernel sends by itself is not among what the sniffers know.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self

from tools.lab.namespaces import Namespace
from tools.lab.programs import REPOSITORY
from tools.lab.traffic import family_of

PER_SECOND = 20_000
PORT = 51_777
UPLINK = "veth"
_MAGIC = 0x6C65616B
_PAYLOAD = struct.Struct("!III")  # _MAGIC, target, number of the round
_PAYLOAD_AT = {4: 28, 6: 48}  # without IPv4 options or IPv6 extensions


@dataclass(frozen=True)
class Target:
    """``kind`` is "far", for the tunnel; "connected", the same from a socket that was connected
    before, so that it keeps its source and the kernel may keep its way; "near", a neighbour on the
    local network; or "bound", far from a socket that is bound to the uplink."""

    address: str
    kind: str

    @property
    def version(self) -> int:
        return 6 if ":" in self.address else 4


TARGETS = (
    Target("198.51.100.10", "far"),
    Target("2001:db8:100::10", "far"),
    Target("198.51.100.20", "connected"),
    Target("2001:db8:100::20", "connected"),
    Target("192.0.2.2", "near"),
    Target("2001:db8::2", "near"),
    Target("198.51.100.30", "bound"),
    Target("2001:db8:100::30", "bound"),
)
# What became of a datagram: on a device of Ethernet's kind, on one of the kind of a tunnel, or on
# none, because the kernel refused it.
CLEAR, TUNNEL, REFUSED = 1, 2, 3
# More than six minutes of rounds; memory is only taken as it fills.
_ROUNDS = 1 << 20


class _Worker:
    """A process, ready inside the with block; what it wrote can still be read afterwards."""

    def __init__(self, namespace: Namespace, *words: str) -> None:
        self._namespace = namespace
        self._words = words

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            descriptor = os.memfd_create("fates")
            stack.callback(os.close, descriptor)
            os.ftruncate(descriptor, _HEADER.size + len(TARGETS) * _ROUNDS)
            self._memory = _Memory(descriptor)
            word, *more = self._words
            self._process = self._namespace.popen(
                [sys.executable, "-m", "tools.lab.ways", word, str(descriptor), *more],
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[descriptor],
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )
            assert self._process.stdout is not None
            stack.callback(self._process.stdout.close)
            stack.callback(self._process.wait)
            stack.callback(self._process.kill)
            assert self._process.stdout.readline() == "ready\n"
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            self._memory.stop()
            code = self._process.wait(30)
        assert error is not None or code == 0, f"{self._words} ended with {code}"

    def count(self, target: int, begin: int, end: int, fate: int) -> int:
        """How many of those that were sent to this target in the rounds from ``begin`` to ``end``
        ended so."""
        return self._memory.fates(target, begin, end).count(fate)

    def ways(self, target: int, begin: int = 0) -> list[int]:
        """What became of those from ``begin`` on, in the order in which they were sent, without
        repetitions and without what is unknown."""
        fates = self._memory.fates(target, begin, _ROUNDS)
        return [fate for fate, _ in itertools.groupby(fates.translate(None, b"\0"))]


_HEADER = struct.Struct("QQ")  # whether to stop; a number: see each process


class _Memory:
    """What one process writes and we read: a number, and what became of each datagram."""

    def __init__(self, descriptor: int) -> None:
        self._bytes = mmap.mmap(descriptor, 0)
        self._header = memoryview(self._bytes).cast("Q")

    def stop(self) -> None:
        self._header[0] = 1

    def is_stopped(self) -> bool:
        return bool(self._header[0])

    @property
    def number(self) -> int:
        return self._header[1]

    @number.setter
    def number(self, value: int) -> None:
        self._header[1] = value

    def write(self, target: int, number: int, fate: int) -> None:
        self._bytes[_HEADER.size + target * _ROUNDS + number] = fate

    def fates(self, target: int, begin: int, end: int) -> bytes:
        first = _HEADER.size + target * _ROUNDS
        return self._bytes[first + begin : first + end]


# ---- the sender; its number is that of the next round


class Sender(_Worker):
    """Sends to TARGETS from inside a namespace until the block ends."""

    def __init__(self, namespace: Namespace, per_second: int = PER_SECOND) -> None:
        super().__init__(namespace, "send", str(per_second))

    def now(self) -> int:
        """A round that has not begun: all that was sent before this call is of an earlier one."""
        return self._memory.number + 1


def send(memory: _Memory, per_second: int) -> None:
    ways = [_way(target) for target in TARGETS]
    message = bytearray(_PAYLOAD.size)
    pack, clock = _PAYLOAD.pack_into, time.monotonic
    began, number, rounds_per_second = clock(), 0, per_second / len(TARGETS)
    print("ready", flush=True)
    while not memory.is_stopped():
        due = int((clock() - began) * rounds_per_second)
        while number < due:
            for index, way in enumerate(ways):
                pack(message, 0, _MAGIC, index, number)
                try:
                    way(message)
                except OSError:  # forbidden, no route, a queue is full
                    memory.write(index, number, REFUSED)
            number += 1
            memory.number = number
        time.sleep(0.0005)


def _way(target: Target) -> Callable[[bytearray], int]:
    way = socket.socket(family_of(target.address), socket.SOCK_DGRAM)
    way.setblocking(False)
    if target.kind == "bound":
        way.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, UPLINK.encode())
    if target.kind == "connected":
        way.connect((target.address, PORT))
        return way.send
    return lambda message: way.sendto(message, (target.address, PORT))


# ---- sniffers; their number is what they missed

_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_ETH_P_ALL = 3
_ARPHRD_ETHER = 1
ARRIVING, LEAVING = 0, 4  # PACKET_HOST, PACKET_OUTGOING
_HELD_BYTES = 64 << 20  # seconds of all datagrams, for a machine that is busy elsewhere


class Sniffer(_Worker):
    """Sees what arrives at, or what leaves by, any device of a namespace, whichever come and go,
    until the block ends."""

    def __init__(self, namespace: Namespace, direction: int) -> None:
        super().__init__(namespace, "sniff", str(direction))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        missed = self._memory.number
        assert error is not None or missed == 0, f"a sniffer missed {missed} datagrams"


def sniff(memory: _Memory, direction: int) -> None:
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    program = ctypes.create_string_buffer(_of_our_lengths())
    wanted = struct.pack("HP", len(program) // 8, ctypes.addressof(program))
    sniffer.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, wanted)
    sniffer.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _HELD_BYTES)
    sniffer.setblocking(False)
    print("ready", flush=True)
    while not memory.is_stopped():
        # Many at a time: to be woken for each would take the processor from what is watched.
        time.sleep(0.01)
        _drain(sniffer, memory, direction)
    _drain(sniffer, memory, direction)
    counted = sniffer.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
    memory.number = struct.unpack("II", counted)[1]


def _of_our_lengths() -> bytes:
    """Classic BPF: only packets as long as ours come up to us. A tunnel's datagrams are longer."""
    load, equal, answer = 0x80, 0x15, 0x06  # BPF_LD | BPF_LEN, BPF_JMP | BPF_JEQ, BPF_RET
    four, six = (at + _PAYLOAD.size for at in _PAYLOAD_AT.values())
    lines = (
        (load, 0, 0, 0),
        (equal, 1, 0, four),
        (equal, 0, 1, six),
        (answer, 0, 0, six),
        (answer, 0, 0, 0),
    )
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _drain(sniffer: socket.socket, memory: _Memory, direction: int) -> None:
    buffer = bytearray(_PAYLOAD_AT[6] + _PAYLOAD.size)
    with contextlib.suppress(BlockingIOError):
        while True:
            _, (_, _, where, hardware, _) = sniffer.recvfrom_into(buffer)
            magic, target, number = _PAYLOAD.unpack_from(buffer, _PAYLOAD_AT.get(buffer[0] >> 4, 0))
            if magic == _MAGIC and where == direction:
                memory.write(target, number, CLEAR if hardware == _ARPHRD_ETHER else TUNNEL)


def main() -> NoReturn:
    word, descriptor, number = sys.argv[1:]
    (send if word == "send" else sniff)(_Memory(int(descriptor)), int(number))
    sys.exit(0)


if __name__ == "__main__":
    main()
