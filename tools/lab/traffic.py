"""Traffic whose content is checked at the other end: ping, TCP, UDP; and iperf3 for speed."""

from __future__ import annotations

import hashlib
import json
import random
import re
import selectors
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.lab.namespaces import Namespace
from tools.lab.waiting import wait_until

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def ping(
    namespace: Namespace,
    address: str,
    count: int = 3,
    *,
    seconds: float = 20,
    size: int = 56,
    options: tuple[str, ...] = (),
    once: bool = False,
) -> None:
    """`count` echoes come back in time; `once` as in `ping_attempt`."""
    answer = ping_attempt(
        namespace, address, count, seconds=seconds, size=size, options=options, once=once
    )
    assert answer.returncode == 0, (
        f"ping {address} from {namespace}: {answer.stdout}{answer.stderr}"
    )


def ping_attempt(
    namespace: Namespace,
    address: str,
    count: int = 1,
    *,
    seconds: float = 1,
    size: int = 56,
    options: tuple[str, ...] = (),
    once: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Asks again each 10 ms until `count` answers are there: on a busy machine that is more often
    than `count` times. `once` for tests that count packets: all of them at the start, then none."""
    pace = ("-l", str(count), "-i", f"{seconds + 1:g}") if once else ("-i", "0.01")
    return namespace.attempt(
        "ping",
        "-n",
        *pace,
        "-c",
        str(count),
        "-w",
        f"{seconds:g}",
        "-s",
        str(size),
        *options,
        address,
    )


def payload(length: int, seed: int) -> bytes:
    """Content that a shifted, swapped or repeated segment cannot imitate."""
    return random.Random(seed).randbytes(length)


def exchange(
    client: Namespace,
    server: Namespace,
    server_address: str,
    forward: int,
    backward: int,
    *,
    seconds: float = 30,
    midway: Callable[[], None] | None = None,
    seed: int = 1,
) -> float:
    """Sends `forward` bytes one way and `backward` the other in one TCP connection, at the same
    time, and compares SHA-256 sums. `midway` is called when half of everything has arrived. Returns
    the seconds it took."""
    family = family_of(server_address)
    started = time.monotonic()
    with (
        server.socket(family, socket.SOCK_STREAM) as listener,
        client.socket(family, socket.SOCK_STREAM) as left,
        selectors.DefaultSelector() as selector,
    ):
        listener.bind((server_address, 0))
        listener.listen()
        listener.settimeout(seconds)
        left.settimeout(seconds)
        left.connect((server_address, listener.getsockname()[1]))
        right, _ = listener.accept()
        with right:
            ends = [
                _End(left, payload(forward, seed), backward),
                _End(right, payload(backward, seed + 1), forward),
            ]
            for end in ends:
                end.socket.setblocking(False)
                end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # Closed without farewell: a FIN sent again later would begin handshakes of its own.
                end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                selector.register(end.socket, end.interest(), end)
            while not all(end.done() for end in ends):
                remaining = started + seconds - time.monotonic()
                assert remaining > 0, f"TCP stands still after {seconds:g} s: {ends}"
                for key, events in selector.select(remaining):
                    end = key.data
                    end.serve(events)
                    if end.interest():
                        selector.modify(end.socket, end.interest(), end)
                    else:
                        selector.unregister(end.socket)
                if midway and sum(end.received for end in ends) * 2 >= forward + backward:
                    midway()
                    midway = None
            assert ends[0].digest() == hashlib.sha256(ends[1].data).digest(), (
                "what came back is not what was sent"
            )
            assert ends[1].digest() == hashlib.sha256(ends[0].data).digest(), (
                "what arrived is not what was sent"
            )
    return time.monotonic() - started


class _End:
    """One end of a TCP connection in exchange()."""

    def __init__(self, connection: socket.socket, data: bytes, expected: int) -> None:
        self.socket = connection
        self.data = data
        self.sent = 0
        self.expected = expected
        self.received = 0
        self.sum = hashlib.sha256()

    def __repr__(self) -> str:
        return f"sent {self.sent} of {len(self.data)}, received {self.received} of {self.expected}"

    def interest(self) -> int:
        reading = selectors.EVENT_READ if self.received < self.expected else 0
        return reading | (selectors.EVENT_WRITE if self.sent < len(self.data) else 0)

    def done(self) -> bool:
        return self.sent == len(self.data) and self.received == self.expected

    def serve(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self.sent += self.socket.send(memoryview(self.data)[self.sent : self.sent + (1 << 18)])
        if events & selectors.EVENT_READ:
            piece = self.socket.recv(1 << 18)
            assert piece, f"the connection ended early: {self}"
            self.received += len(piece)
            self.sum.update(piece)

    def digest(self) -> bytes:
        return self.sum.digest()


class Datagrams:
    """Two UDP sockets inside the tunnel, one sending to the other."""

    def __init__(self, sender: Namespace, receiver: Namespace, address: str) -> None:
        family = family_of(address)
        self.receiver = receiver.socket(family)
        self.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.receiver.bind((address, 0))
        self.receiver.settimeout(30)
        self.sender = sender.socket(family)
        self.sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.sender.connect((address, self.receiver.getsockname()[1]))

    def __enter__(self) -> Datagrams:
        return self

    def __exit__(self, *_: object) -> None:
        self.sender.close()
        self.receiver.close()

    def send(self, data: bytes) -> None:
        self.sender.send(data)

    def receive(self) -> bytes:
        return self.receiver.recv(65536)

    def passes(self, data: bytes) -> None:
        self.send(data)
        try:
            arrived = self.receive()
        except TimeoutError:
            raise AssertionError(f"a datagram of {len(data)} bytes did not arrive") from None
        assert arrived == data, f"a datagram of {len(data)} bytes changed on its way"

    def send_train(self, datagrams: list[bytes]) -> None:
        """Equal-sized datagrams in one call: through TUN they travel as one superpacket where the
        kernel can."""
        self.sender.setsockopt(SOL_UDP, UDP_SEGMENT, len(datagrams[0]))
        self.sender.send(b"".join(datagrams))
        self.sender.setsockopt(SOL_UDP, UDP_SEGMENT, 0)


def iperf3(
    client: Namespace,
    server: Namespace,
    address: str,
    seconds: float,
    *options: str,
    reverse: bool = False,
) -> dict[str, Any]:
    """One iperf3 run; its JSON report, as seen by the client."""
    listener = server.popen(
        ["iperf3", "-s", "-1", "-B", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        table = Path(f"/proc/{listener.pid}/net/{'tcp6' if ':' in address else 'tcp'}")
        # Of port 5201, and listening: connections of a run before may still be in the table.
        wait_until(lambda: re.search(r":1451 0+:0000 0A ", table.read_text()), "iperf3 listens")
        answer = client.attempt(
            "iperf3",
            "-J",
            "-c",
            address,
            "-t",
            f"{seconds:g}",
            *options,
            *(["-R"] if reverse else []),
            timeout=seconds + 30,
        )
        report: dict[str, Any] = json.loads(answer.stdout or "{}")
        assert answer.returncode == 0, report.get("error", answer.stderr)
        return report
    finally:
        listener.kill()
        listener.wait()


def received_bits_per_second(report: dict[str, Any]) -> float:
    return float(report["end"]["sum_received"]["bits_per_second"])
