"""The tier that always works: two Interfaces in one process, over loopback UDP, without TUN.

It shows handshake and sealed traffic. Its throughput is that of Python calling the core for small
batches, not that of a tunnel.
"""

from __future__ import annotations

import socket
import struct
import time
from ipaddress import ip_address, ip_network
from typing import Any

from pywg.config import AllowedIP, Config, Endpoint, InterfaceSection, PeerSection
from pywg.demo.reporter import Reporter
from pywg.errors import PywgError
from pywg.keys import PrivateKey
from pywg.native.interface import Interface, Packet, Verdict

MTU = 1420
BATCH = 32
GIB = 1 << 30
TIMEOUT_S = 2.0
PINGS = 5


class End:
    """An Interface and the socket it speaks through."""

    def __init__(self, inner: str) -> None:
        self.inner = inner
        self.key = PrivateKey.generate()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(TIMEOUT_S)
        self.interface = Interface(mtu=MTU)

    def configure(self, peer: End) -> None:
        host, port = peer.socket.getsockname()
        allowed = AllowedIP(ip_network(peer.inner))
        section = PeerSection(
            public_key=peer.key.public, endpoint=Endpoint(host, port), allowed_ips=(allowed,)
        )
        self.interface.set(Config(InterfaceSection(private_key=self.key), (section,)))

    def send(self, packets: list[bytes]) -> None:
        """Seals and sends; packets without a session are staged and a handshake begins."""
        sealed = self.interface.seal(packets)
        self._transmit(sealed)
        if any(packet.verdict is Verdict.STAGED for packet in sealed):
            self._transmit(self.interface.poll())

    def receive(self, count: int = 1) -> list[bytes]:
        """Takes that many datagrams; the inner packets in them. Answers handshakes."""
        try:
            datagrams = [self.socket.recvfrom(1 << 16) for _ in range(count)]
        except TimeoutError:
            raise PywgError("a datagram was lost on the loopback device") from None
        packets = self.interface.receive(datagrams)
        if any(packet.verdict is Verdict.HANDSHAKE for packet in packets):
            self._transmit(self.interface.poll())
        return [packet.data for packet in packets if packet.verdict is Verdict.DELIVER]

    def _transmit(self, packets: list[Packet]) -> None:
        for packet in packets:
            if packet.verdict is Verdict.SEALED and packet.address is not None:
                self.socket.sendto(packet.data, packet.address)

    def close(self) -> None:
        self.interface.close()
        self.socket.close()


def run(seconds: float, reporter: Reporter) -> dict[str, Any]:
    a, b = End("10.77.0.1"), End("10.77.0.2")
    try:
        a.configure(b)
        b.configure(a)
        return _measure(a, b, seconds, reporter)
    finally:
        a.close()
        b.close()


def _measure(a: End, b: End, seconds: float, reporter: Reporter) -> dict[str, Any]:
    packet = ip_packet(a.inner, b.inner, 84)
    began = time.perf_counter()
    a.send([packet])
    b.receive()  # the initiation
    a.receive()  # the response; the staged packet leaves
    handshake_ms = 1000 * (time.perf_counter() - began)
    if b.receive() != [packet]:
        raise PywgError("the first packet did not arrive")
    reporter.note(f"handshake: {handshake_ms:.2f} ms")
    times_ms = [_round_trip(a, b) for _ in range(PINGS)]
    reporter.note("ping: " + ", ".join(f"{value:.2f}" for value in times_ms) + " ms")
    transfers = []
    for direction, source, sink in (("a to b", a, b), ("b to a", b, a)):
        reporter.begin(f"sealing and opening, {direction}", seconds)
        measured = _transfer(direction, source, sink, seconds, reporter)
        transfers.append(measured)
        reporter.note(f"{direction}: {measured['mbit_per_s']:.0f} Mbit/s sealed and opened")
    return {
        "mtu": MTU,
        "handshake_ms": handshake_ms,
        "ping_ms": times_ms,
        "transfers": transfers,
        "offloads": {},
        "dropped": {
            name: {reason: count for reason, count in end.interface.dropped().items() if count}
            for name, end in (("a", a), ("b", b))
        },
    }


def _round_trip(a: End, b: End) -> float:
    there, back = ip_packet(a.inner, b.inner, 84), ip_packet(b.inner, a.inner, 84)
    began = time.perf_counter()
    a.send([there])
    b.receive()
    b.send([back])
    if a.receive() != [back]:
        raise PywgError("a packet did not come back")
    return 1000 * (time.perf_counter() - began)


def _transfer(
    direction: str, source: End, sink: End, seconds: float, reporter: Reporter
) -> dict[str, Any]:
    packets = [ip_packet(source.inner, sink.inner, MTU)] * BATCH
    began, cpu_began, count = time.monotonic(), time.process_time(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        reporter.wait()
        source.send(packets)
        count += sum(len(packet) for packet in sink.receive(BATCH))
    cpu_seconds = time.process_time() - cpu_began
    return {
        "direction": direction,
        "bytes": count,
        "seconds": elapsed,
        "mbit_per_s": count * 8 / elapsed / 1e6,
        "tool": "pywg.Interface",
        "cpu_seconds": cpu_seconds,
        "cpu_seconds_per_gib": cpu_seconds * GIB / max(count, 1),
    }


def ip_packet(source: str, destination: str, length: int) -> bytes:
    """An IPv4 packet of protocol 253 (for experiments, RFC 3692) with nothing in it."""
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        length,
        0,
        0,
        64,
        253,
        0,
        ip_address(source).packed,
        ip_address(destination).packed,
    )
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack("!H", checksum) + head[12:] + bytes(length - len(head))
