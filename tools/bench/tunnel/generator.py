"""Sends or counts UDP datagrams; a process of its own, spoken to by lines of JSON.

    generator.py send ADDRESS[,ADDRESS...] PORT SIZE[,SIZE...]   reads {"rate": pps, "seconds": s}
    generator.py count ADDRESS PORT                              reads {"sent": n}

iperf3 sends and receives a datagram per system call and takes the core that the tunnel needs; here
64 datagrams share one, the receive buffer holds tens of milliseconds, and every datagram carries a
number, so loss and order are known. Datagrams are sent singly, not as trains: what small
applications do. Standard library only; ends when its standard input does.
"""

from __future__ import annotations

import ctypes
import json
import socket
import sys
import time
from typing import Any

BATCH = 64
HEADER = 8
SIZE_MAX = 9000
RECEIVE_BUFFER = 32 << 20
SEND_BUFFER = 4 << 20
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
TICK_SECONDS = 0.001
# A sender that was held up sends no more than this at once to catch up: a TUN queues 500 packets.
CATCH_UP_PACKETS, CATCH_UP_SECONDS = 256, 0.002
# Nothing more has arrived for this long: the rest is lost.
QUIET_SECONDS = 0.06
QUIET_SECONDS_MAX = 0.8


class IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(IoVec)),
        ("vectors_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class MMsgHdr(ctypes.Structure):
    _fields_ = (("header", MsgHdr), ("length", ctypes.c_uint))


class Address4(ctypes.Structure):
    _fields_ = (
        ("family", ctypes.c_uint16),
        ("port", ctypes.c_uint16),
        ("address", ctypes.c_uint8 * 4),
        ("zero", ctypes.c_uint8 * 8),
    )


libc = ctypes.CDLL(None, use_errno=True)


class Ring:
    """Messages whose first 8 bytes are a number and whose rest is scratch."""

    def __init__(self, sizes: list[int]) -> None:
        count = len(sizes)
        self.numbers = (ctypes.c_uint64 * count)()
        self.rest = ctypes.create_string_buffer(SIZE_MAX)
        self.vectors = (IoVec * (2 * count))()
        self.messages = (MMsgHdr * count)()
        first = ctypes.addressof(self.numbers)
        for index, size in enumerate(sizes):
            self.vectors[2 * index] = IoVec(first + HEADER * index, HEADER)
            self.vectors[2 * index + 1] = IoVec(ctypes.addressof(self.rest), size - HEADER)
            header = self.messages[index].header
            at = ctypes.addressof(self.vectors) + 2 * index * ctypes.sizeof(IoVec)
            header.vectors = ctypes.cast(at, ctypes.POINTER(IoVec))
            header.vectors_count = 2

    def address(self, targets: list[Address4]) -> None:
        self.targets = targets
        for index in range(len(self.messages)):
            target = targets[index % len(targets)]
            header = self.messages[index].header
            header.name = ctypes.addressof(target)
            header.name_length = ctypes.sizeof(target)

    def at(self, index: int) -> Any:
        return ctypes.byref(self.messages, index * ctypes.sizeof(MMsgHdr))


def enlarge(of: socket.socket, forced: int, asked: int, size: int) -> None:
    """Without CAP_NET_ADMIN it becomes as large as the system allows."""
    try:
        of.setsockopt(socket.SOL_SOCKET, forced, size)
    except PermissionError:
        of.setsockopt(socket.SOL_SOCKET, asked, size)


def target(address: str, port: int) -> Address4:
    packed = socket.inet_aton(address)
    return Address4(socket.AF_INET, socket.htons(port), (ctypes.c_uint8 * 4)(*packed))


class Sender:
    def __init__(self, addresses: list[str], port: int, sizes: list[int]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        enlarge(self.socket, SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER)
        # Each target meets each size, and one call fills at least a batch.
        rounds = -(-BATCH // (len(addresses) * len(sizes)))
        length = rounds * len(addresses) * len(sizes)
        self.ring = Ring([sizes[index // len(addresses) % len(sizes)] for index in range(length)])
        self.ring.address([target(address, port) for address in addresses])
        self.position = 0
        self.number = 0

    def run(self, rate: float, seconds: float) -> dict[str, float]:
        """Sends at the rate; 0 is as fast as it can."""
        started = time.perf_counter()
        sent, skipped = 0, 0
        while True:
            elapsed = time.perf_counter() - started
            if elapsed >= seconds:
                return {"sent": sent, "seconds": elapsed}
            if not rate:
                sent += self._send(BATCH)
                continue
            due = int(elapsed * rate) - sent - skipped
            burst = max(CATCH_UP_PACKETS, int(rate * CATCH_UP_SECONDS))
            if due > burst:
                skipped += due - burst
                due = burst
            while due > 0:
                some = self._send(min(due, BATCH))
                sent += some
                due -= some
            time.sleep(TICK_SECONDS)

    def _send(self, count: int) -> int:
        count = min(count, len(self.ring.messages) - self.position)
        numbers = range(self.number, self.number + count)
        self.ring.numbers[self.position : self.position + count] = list(numbers)
        done: int = libc.sendmmsg(self.socket.fileno(), self.ring.at(self.position), count, 0)
        if done < 0:
            raise OSError(ctypes.get_errno(), "sendmmsg")
        self.number += done
        self.position = (self.position + done) % len(self.ring.messages)
        return done


class Counter:
    def __init__(self, address: str, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        enlarge(self.socket, SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.bind((address, port))
        self.socket.setblocking(False)
        self.ring = Ring([SIZE_MAX] * BATCH)
        self.received = 0
        self.reordered = 0
        self.highest = -1
        self.first = 0  # the first number of this run; what comes late from the last one is older

    def drain(self) -> bool:
        """Whether anything was there."""
        before = self.received
        while True:
            count = libc.recvmmsg(
                self.socket.fileno(), self.ring.at(0), BATCH, socket.MSG_DONTWAIT, None
            )
            if count <= 0:
                return self.received > before
            self._count(self.ring.numbers[:count])

    def _count(self, numbers: list[int]) -> None:
        if numbers[0] < self.first:
            numbers = [number for number in numbers if number >= self.first]
        if not numbers:
            return
        self.received += len(numbers)
        if numbers[0] > self.highest and all(map(int.__lt__, numbers, numbers[1:])):
            self.highest = numbers[-1]
            return
        for number in numbers:
            self.reordered += number < self.highest
            self.highest = max(self.highest, number)

    def finish(self, sent: int) -> dict[str, int]:
        """What arrived of the datagrams sent since the last time, once no more comes."""
        last = started = time.perf_counter()
        while self.received < sent:
            if self.drain():
                last = time.perf_counter()
            now = time.perf_counter()
            if now - last > QUIET_SECONDS or now - started > QUIET_SECONDS_MAX:
                break
            time.sleep(TICK_SECONDS)
        answer = {"received": self.received, "reordered": self.reordered}
        self.received = self.reordered = 0
        self.first += sent
        return answer


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def send(addresses: str, port: str, sizes: str) -> None:
    sender = Sender(addresses.split(","), int(port), [int(size) for size in sizes.split(",")])
    say({"ready": True})
    for line in sys.stdin:
        say(sender.run(**json.loads(line)))


def count(address: str, port: str) -> None:
    import selectors

    counter = Counter(address, int(port))
    say({"ready": True})
    # Read in steps, not at each arrival: a receiver that wakes for every datagram takes a core.
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            if selector.select(TICK_SECONDS):
                line = sys.stdin.readline()
                if not line:
                    return
                say(counter.finish(**json.loads(line)))
            counter.drain()


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(*sys.argv[2:])
    else:
        count(*sys.argv[2:])
