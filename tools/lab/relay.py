"""A UDP relay between two daemons that loses and reorders their data messages, or does to trains
what it is told.

It takes whole trains (UDP_GRO), draws for every single datagram in them, and sends what is left as
trains again (UDP_SEGMENT), so that loss and reordering strike inside trains and the receiver still
meets trains. Handshake messages pass untouched: losing one would only test the five seconds until
the next attempt.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

from tools.lab.namespaces import Namespace
from tools.lab.traffic import SOL_UDP, UDP_GRO, UDP_SEGMENT

TRAIN_SEGMENTS_MAX = 40
TRAIN_BYTES_MAX = 65_000
HELD_SECONDS_MAX = 0.004


class Relay:
    """Two sockets: what comes in at one leaves at the other, for the daemon behind it."""

    def __init__(
        self,
        namespace: Namespace,
        *,
        left: tuple[str, int],
        left_daemon: tuple[str, int],
        right: tuple[str, int],
        right_daemon: tuple[str, int],
        loss: float = 0,
        reorder: float = 0,
        seed: int = 1,
        on_train: Callable[[list[bytes]], list[bytes]] | None = None,
    ) -> None:
        self.on_train = on_train
        self.trains = 0
        self.dead_until = 0.0
        """In the time of time.monotonic(): nothing passes before."""
        self.random = random.Random(seed)
        self.loss = loss
        self.reorder = reorder
        self.lost = 0
        self.held_back = 0
        self.directions = {}
        sockets = [_socket(namespace, left), _socket(namespace, right)]
        self.directions[sockets[0].fileno()] = _Direction(
            self, sockets[0], sockets[1], right_daemon
        )
        self.directions[sockets[1].fileno()] = _Direction(self, sockets[1], sockets[0], left_daemon)
        self.wake_reader, self.wake_writer = socket.socketpair()
        self.thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        poll = select.poll()
        for descriptor in (*self.directions, self.wake_reader.fileno()):
            poll.register(descriptor, select.POLLIN)
        while True:
            holding = any(direction.held for direction in self.directions.values())
            ready = poll.poll(HELD_SECONDS_MAX * 1000 if holding else None)
            if not ready:
                for direction in self.directions.values():
                    direction.release_all()
            for descriptor, _ in ready:
                if descriptor == self.wake_reader.fileno():
                    return
                self.directions[descriptor].forward()

    def close(self) -> None:
        self.wake_writer.send(b"x")
        self.thread.join(5)
        for direction in self.directions.values():
            direction.source.close()
        self.wake_reader.close()
        self.wake_writer.close()


class _Direction:
    def __init__(
        self, relay: Relay, source: socket.socket, target: socket.socket, daemon: tuple[str, int]
    ) -> None:
        self.relay = relay
        self.source = source
        self.target = target
        self.daemon = daemon
        self.held: list[tuple[int, bytes]] = []
        self.passed = 0

    def forward(self) -> None:
        try:
            train, ancillary, _, _ = self.source.recvmsg(65536, socket.CMSG_SPACE(4))
        except ConnectionRefusedError:
            return
        if time.monotonic() < self.relay.dead_until:
            return
        size = len(train) or 1
        for level, kind, data in ancillary:
            if level == SOL_UDP and kind == UDP_GRO:
                (size,) = struct.unpack_from("i", data)
        datagrams = [train[start : start + size] for start in range(0, len(train), size)]
        if len(datagrams) > 1:
            self.relay.trains += 1
            if self.relay.on_train:
                datagrams = self.relay.on_train(datagrams)
        going: list[bytes] = []
        for datagram in datagrams:
            self._draw(datagram, going)
        self._send(going)

    def _draw(self, datagram: bytes, going: list[bytes]) -> None:
        relay = self.relay
        self.passed += 1
        fate = relay.random.random() if datagram[:1] == b"\4" else 1.0
        if fate < relay.loss:
            relay.lost += 1
        elif fate < relay.loss + relay.reorder:
            relay.held_back += 1
            self.held.append((self.passed + relay.random.randint(1, 30), datagram))
        else:
            going.append(datagram)
        due = [held for held in self.held if held[0] <= self.passed]
        if due:
            self.held = [held for held in self.held if held[0] > self.passed]
            going.extend(held for _, held in due)

    def release_all(self) -> None:
        late, self.held = self.held, []
        self._send([datagram for _, datagram in late])

    def _send(self, datagrams: list[bytes]) -> None:
        """In this order, as few calls as the rules of UDP_SEGMENT allow: equal sizes, the last may
        be shorter."""
        start = 0
        while start < len(datagrams):
            size = len(datagrams[start])
            end, total = start + 1, size
            while (
                end < len(datagrams)
                and end - start < TRAIN_SEGMENTS_MAX
                and len(datagrams[end - 1]) == size
                and len(datagrams[end]) <= size
                and total + len(datagrams[end]) <= TRAIN_BYTES_MAX
            ):
                total += len(datagrams[end])
                end += 1
            ancillary = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", size))] if end - start > 1 else []
            # Refused while the daemon behind it is being restarted.
            with contextlib.suppress(ConnectionRefusedError):
                self.target.sendmsg([b"".join(datagrams[start:end])], ancillary, 0, self.daemon)
            start = end


def _socket(namespace: Namespace, address: tuple[str, int]) -> socket.socket:
    made = namespace.socket()
    made.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    made.setsockopt(SOL_UDP, UDP_GRO, 1)
    made.bind(address)
    return made
