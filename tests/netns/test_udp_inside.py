"""Tunnels and QUIC inside the tunnel: superpackets of what a VXLAN carries go through TUN whole,
and what arrives is what was sent, checksums of zero and wrong ones included.

      namespace a                     namespace b              namespace c
    +---------------------+         +---------------------+   +------------+
    | over0     daemon A  |   veth  |  daemon B     over0 |   |            |
    | 10.88.0.1   10.99.1 |=========|  10.99.2  10.88.0.2 |===| 10.77.0.2  |
    +---------------------+         +---------------------+   +------------+
                                     (c only where b forwards)
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tools.lab.lab import Lab, Side, Tunnel
from tools.lab.namespaces import Namespace, cable
from tools.lab.overlay import OVERLAY, make_overlay
from tools.lab.traffic import SOL_UDP, UDP_GRO, UDP_SEGMENT, exchange, payload, ping
from tools.lab.waiting import wait_until

BYTES = 4 << 20
VXLAN_PORT = 4789
ETH_P_ALL = 3
SO_NO_CHECK = 11
KINDS = ["vxlan", "geneve"]


@contextlib.contextmanager
def overlays(
    tunnel: Tunnel, kind: str, *, checksums: bool, outer: int = 4, mtu: int = 1350
) -> Iterator[None]:
    """At both ends, over the tunnel's addresses of one family; and gone again."""
    spaces = []
    for here, there, number in ((tunnel.a, tunnel.b, 1), (tunnel.b, tunnel.a, 2)):
        ends = (here.inner4, there.inner4) if outer == 4 else (here.inner6, there.inner6)
        addresses = (f"10.88.0.{number}/24", f"fd88::{number}/64")
        said = make_overlay(here.namespace, kind, ends, *addresses, checksums=checksums, mtu=mtu)
        if said is not None:
            pytest.skip(f"this kernel cannot make {kind} interfaces: {said}")
        spaces.append(here.namespace)
    try:
        ping(spaces[0], "10.88.0.2", 1)
        yield
    finally:
        for space in spaces:
            space.ip("link", "del", OVERLAY)


def has_superpackets(side: Side) -> bool:
    return side.daemon.report().get("offload_tun_tunnel") == "active"


def packet_size(namespace: Namespace, interface: str, way: str) -> float:
    """Bytes of each packet the kernel counted, superpackets as one."""
    link = namespace.link(interface)
    assert link is not None
    counted = link["stats64"][way]
    size: float = counted["bytes"] / max(1, counted["packets"])
    return size


def packets_received(namespace: Namespace, interface: str) -> int:
    link = namespace.link(interface)
    assert link is not None
    count: int = link["stats64"]["rx"]["packets"]
    return count


# ---- TCP in a tunnel


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
@pytest.mark.parametrize("checksums", [False, True], ids=["zero", "checksums"])
@pytest.mark.parametrize("no_offload", ["", "tun_tunnel"], ids=["on", "off"])
def test_what_a_tunnel_carries_arrives_unchanged(
    lab: Lab, kind: str, outer: int, checksums: bool, no_offload: str
) -> None:
    tunnel = lab.tunnel(no_offload=no_offload, log_level="error")
    tunnel.session()
    with overlays(tunnel, kind, checksums=checksums, outer=outer, mtu=1330):
        for address in ("10.88.0.2", "fd88::2"):
            exchange(tunnel.a.namespace, tunnel.b.namespace, address, BYTES, BYTES // 2)
        for side in (tunnel.a, tunnel.b):
            assert side.daemon.report()["tun_resent"] == "0"


@pytest.mark.pywgd_only
@pytest.mark.parametrize("checksums", [False, True], ids=["zero", "checksums"])
def test_superpackets_in_a_tunnel_stay_whole_both_ways(lab: Lab, checksums: bool) -> None:
    """Out: the kernel hands over few large packets. In: it gets few large ones."""
    tunnel = lab.tunnel(log_level="error")
    tunnel.session()
    if not has_superpackets(tunnel.a):
        pytest.skip("this kernel has no superpackets in UDP tunnels")
    with overlays(tunnel, "vxlan", checksums=checksums):

        def is_whole() -> bool:
            exchange(tunnel.a.namespace, tunnel.b.namespace, "10.88.0.2", 4 * BYTES, 0)
            sent = packet_size(tunnel.a.namespace, tunnel.a.daemon.name, "tx")
            # What B writes is counted as one packet by TUN and by the interface above it.
            arrived = packet_size(tunnel.b.namespace, OVERLAY, "rx")
            return sent > 3000 and arrived > 3000

        # On a busy machine packets may come one by one for a while.
        wait_until(is_whole, "superpackets go through")
        assert has_superpackets(tunnel.a)
        assert has_superpackets(tunnel.b)


# ---- packets of our own making


@dataclass
class Made:
    """Packets as TCP in VXLAN would make them, ready for a raw socket: one run that could be one
    superpacket."""

    source: str
    destination: str
    checksums: bool = False
    sizes: tuple[int, ...] = (1000,) * 30

    def packets(self, first_id: int = 100, sequence: int = 1) -> list[bytes]:
        made = []
        for number, size in enumerate(self.sizes):
            made.append(self.packet(first_id + number, sequence, payload(size, sequence)))
            sequence += size
        return made

    def packet(self, identification: int, sequence: int, data: bytes) -> bytes:
        tcp = struct.pack(">HHIIBBHHH", 1000, 2000, sequence, 1, 0x50, 0x10, 500, 0, 0)
        addresses = bytes([10, 88, 0, 1, 10, 88, 0, 2])
        check = checksum(addresses + struct.pack(">HH", 6, 20 + len(data)) + tcp + data)
        tcp = tcp[:16] + struct.pack(">H", check) + tcp[18:]
        inner = ipv4(6, identification + 500, addresses, tcp + data)
        frame = bytes.fromhex("020000000002 020000000001 0800") + inner
        carried = struct.pack(">II", 0x08000000, 7 << 8) + frame
        outer = socket.inet_aton(self.source) + socket.inet_aton(self.destination)
        length = 8 + len(carried)
        udp = struct.pack(">HHHH", 40000, VXLAN_PORT, length, 0)
        if self.checksums:
            check = checksum(outer + struct.pack(">HH", 17, length) + udp + carried) or 0xFFFF
            udp = udp[:6] + struct.pack(">H", check)
        return ipv4(17, identification, outer, udp + carried)


def ipv4(protocol: int, identification: int, addresses: bytes, body: bytes) -> bytes:
    start = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), identification, 0, 64, protocol, 0)
    check = checksum(start + addresses)
    return start[:10] + struct.pack(">H", check) + addresses + body


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@contextlib.contextmanager
def raw(namespace: Namespace) -> Iterator[socket.socket]:
    with namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        yield sender


@contextlib.contextmanager
def capture(namespace: Namespace, interface: str) -> Iterator[socket.socket]:
    """Whole IP packets as the interface sees them."""
    with namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        tap.bind((interface, ETH_P_ALL))
        tap.settimeout(10)
        yield tap


def captured(tap: socket.socket, count: int) -> list[bytes]:
    """That many packets to the port of VXLAN, without what the kernel says of its own accord
    through an overlay: ARP and IPv6."""
    found: list[bytes] = []
    while len(found) < count:
        data = tap.recv(65536)
        if data[9:10] != b"\x11" or data[22:24] != struct.pack(">H", VXLAN_PORT):
            continue
        is_frame = data[28:32] == bytes.fromhex("08000000")
        if not is_frame or data[48:50] == bytes.fromhex("0800"):
            found.append(data)
    return found


def test_a_program_on_the_port_of_a_tunnel_gets_every_datagram_by_itself(lab: Lab) -> None:
    """Where no interface of the kernel has the port, nothing may be joined: not before there was
    one, and not after."""
    tunnel = lab.tunnel(log_level="error")
    tunnel.session()
    made = Made(tunnel.a.inner4, tunnel.b.inner4).packets()

    def arrive_singly() -> None:
        with (
            raw(tunnel.a.namespace) as sender,
            tunnel.b.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        ):
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            receiver.bind((tunnel.b.inner4, VXLAN_PORT))
            receiver.settimeout(10)
            for packet in made:
                sender.sendto(packet, (tunnel.b.inner4, 0))
            assert [receiver.recv(65536) for _ in made] == [packet[28:] for packet in made]

    arrive_singly()
    with overlays(tunnel, "vxlan", checksums=False):
        exchange(tunnel.a.namespace, tunnel.b.namespace, "10.88.0.2", 1 << 20, 0)
    # The daemon is told; what it does after this ping it does knowing so.
    tunnel.ping(1)
    arrive_singly()


def test_wrong_checksums_arrive_wrong_and_zero_as_zero(lab: Lab) -> None:
    tunnel = lab.tunnel(log_level="error")
    tunnel.session()
    ends = (tunnel.a.inner4, tunnel.b.inner4)
    zero = Made(*ends, checksums=False).packets()
    right = Made(*ends, checksums=True).packets(first_id=300)
    broken: list[bytes] = []
    for number in range(10):
        of_outer, of_inner = bytearray(right[number]), bytearray(zero[number + 10])
        of_outer[27] ^= 1  # the tunnel's checksum
        of_inner[-1] ^= 1  # what the inner one covers
        broken += [bytes(of_outer), bytes(of_inner)]
    with (
        overlays(tunnel, "vxlan", checksums=False),
        capture(tunnel.b.namespace, tunnel.b.daemon.name) as tap,
        raw(tunnel.a.namespace) as sender,
    ):
        for packet in broken:
            sender.sendto(packet, (tunnel.b.inner4, 0))
        assert captured(tap, len(broken)) == broken
        # Joined or not: no checksum is made up where there was none.
        for packet in zero:
            sender.sendto(packet, (tunnel.b.inner4, 0))
        left = sum(len(packet) for packet in zero) - 98 * len(zero)
        while left > 0:
            (found,) = captured(tap, 1)
            assert found[26:28] == b"\0\0"
            left -= len(found) - 98


@pytest.mark.parametrize("checksums", [False, True], ids=["zero", "checksums"])
def test_what_is_joined_and_forwarded_comes_apart_as_it_was(lab: Lab, checksums: bool) -> None:
    """B has a VXLAN of its own, so packets for the one of C are joined as well; B's kernel takes
    them apart again, for a card that cannot."""
    tunnel = lab.tunnel(log_level="error")
    a, b = tunnel.a, tunnel.b
    c = lab.namespace("c")
    cable((b.namespace, "east", ["10.77.0.1/24"]), (c, "west", ["10.77.0.2/24"]))
    features = ("tx", "tso", "gso", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation")
    for feature in features:
        b.namespace.attempt("ethtool", "-K", "east", feature, "off")
    b.namespace.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    a.daemon.set("peer", b.key.public, "allowed-ips", f"{b.inner4}/32,{b.inner6}/128,10.77.0.0/24")
    a.namespace.ip("route", "add", "10.77.0.0/24", "dev", a.daemon.name)
    c.ip("route", "add", "10.99.0.0/24", "via", "10.77.0.1")
    tunnel.session()
    run = Made(a.inner4, "10.77.0.2", checksums=checksums).packets()
    with (
        overlays(tunnel, "vxlan", checksums=False),
        capture(c, "west") as tap,
        raw(a.namespace) as sender,
    ):
        ping(a.namespace, "10.77.0.2", 1)  # now B knows where C is

        def is_joined() -> bool:
            before = packets_received(b.namespace, b.daemon.name)
            for packet in run:
                sender.sendto(packet, ("10.77.0.2", 0))
            assert [hop(packet) for packet in captured(tap, len(run))] == run
            return packets_received(b.namespace, b.daemon.name) - before < len(run)

        # On a busy machine packets may come one by one for a while.
        if has_superpackets(b):
            wait_until(is_joined, "packets are joined on their way in")
        else:
            is_joined()


def hop(packet: bytes) -> bytes:
    """As it was before its time to live was counted down, which is checked by its checksum."""
    assert packet[8] == 63
    assert checksum(packet[:20]) == 0
    before = packet[:8] + b"\x40" + packet[9:10] + b"\0\0" + packet[12:20]
    return before[:10] + struct.pack(">H", checksum(before)) + packet[12:]


# ---- datagrams without a checksum, and QUIC


def test_datagrams_without_a_checksum_arrive_without_one(lab: Lab) -> None:
    tunnel = lab.tunnel(log_level="error")
    tunnel.session()
    with (
        capture(tunnel.b.namespace, tunnel.b.daemon.name) as tap,
        tunnel.a.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        sent = [payload(1000 + number % 2, number) for number in range(40)]
        for data in sent:
            sender.sendto(data, (tunnel.b.inner4, VXLAN_PORT))
        arrived = captured(tap, len(sent))
    assert [packet[28:] for packet in arrived] == sent
    assert {packet[26:28] for packet in arrived} == {b"\0\0"}


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_trains_of_quic_travel_both_ways_at_once(lab: Lab, family: int) -> None:
    """As QUIC sends and receives: UDP_SEGMENT there, UDP_GRO here, both ways by one pair of
    sockets."""
    tunnel = lab.tunnel(log_level="error")
    tunnel.session()
    sides = (tunnel.a, tunnel.b)
    size, count = 1200, 40
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with contextlib.ExitStack() as stack:
        ends = []
        for side in sides:
            end = stack.enter_context(side.namespace.socket(kind))
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            end.setsockopt(SOL_UDP, UDP_GRO, 1)
            end.bind((side.inner4 if family == 4 else side.inner6, 4433))
            end.settimeout(10)
            ends.append(end)
        for end, side in zip(ends, reversed(sides), strict=True):
            end.connect((side.inner4 if family == 4 else side.inner6, 4433))
            end.setsockopt(SOL_UDP, UDP_SEGMENT, size)
        largest = 0

        def whole() -> bool:
            nonlocal largest
            trains = [payload(size * count - 700, seed) for seed in (1, 2)]
            for end, train in zip(ends, trains, strict=True):
                end.send(train)
            for end, train in zip(ends, reversed(trains), strict=True):
                data, most = received_train(end, len(train), size)
                assert data == train
                largest = max(largest, most)
            return largest > 1 or not has_uso(tunnel)

        wait_until(whole, "whole trains arrive, and are received at once")


def has_uso(tunnel: Tunnel) -> bool:
    reports = [side.daemon.report() for side in (tunnel.a, tunnel.b)]
    return all(report.get("offload_tun_uso") == "active" for report in reports)


def received_train(end: socket.socket, length: int, size: int) -> tuple[bytes, int]:
    """That many bytes in datagrams of this size, and how many came at once at most."""
    data, most = b"", 0
    while len(data) < length:
        part, control, _, _ = end.recvmsg(65536, 64)
        for level, kind, value in control:
            if (level, kind) == (SOL_UDP, UDP_GRO):
                assert struct.unpack("i", value[:4])[0] == size
        most = max(most, -(-len(part) // size))
        data += part
    return data, most
