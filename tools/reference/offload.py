"""Segmenting by RFC 791, 8200, 9293 and 768 and the kernel's rules. Shares nothing with core/io/.

Judges what the core makes of superpackets. Slow and obvious. Invariant: raises nothing but
``Malformed`` for a packet that cannot be segmented.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEADER = struct.Struct("=BBHHHH")  # struct virtio_net_hdr
NEEDS_CSUM = 1
NONE, TCPV4, TCPV6, UDP_L4 = 0, 1, 4, 5
TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))


class Malformed(Exception):
    """What is no superpacket."""


@dataclass(frozen=True)
class Vnet:
    flags: int = 0
    gso_type: int = NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def pack(self) -> bytes:
        return HEADER.pack(
            self.flags,
            self.gso_type,
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
        )


def total(data: bytes) -> int:
    """The ones' complement sum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    value: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def checksum(data: bytes) -> int:
    return ~total(data) & 0xFFFF


def network_length(packet: bytes | bytearray) -> int:
    return (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40


def pseudo(packet: bytes | bytearray, protocol: int, length: int) -> bytes:
    """For packets without a routing header."""
    if packet[0] >> 4 == 4:
        return bytes(packet[12:20]) + struct.pack("!BBH", 0, protocol, length)
    return bytes(packet[8:40]) + struct.pack("!II", length, protocol)


def put_lengths(packet: bytearray) -> None:
    """The IP header's length, and IPv4's checksum, anew."""
    if packet[0] >> 4 == 4:
        packet[2:4] = len(packet).to_bytes(2, "big")
        packet[10:12] = b"\0\0"
        packet[10:12] = checksum(bytes(packet[: network_length(packet)])).to_bytes(2, "big")
    else:
        packet[4:6] = (len(packet) - 40).to_bytes(2, "big")


def put_checksum(packet: bytearray, protocol: int, start: int) -> None:
    """The transport's, anew; UDP writes no zero, which would mean none."""
    at = start + (16 if protocol == TCP else 6)
    packet[at : at + 2] = b"\0\0"
    value = checksum(pseudo(packet, protocol, len(packet) - start) + bytes(packet[start:]))
    if protocol == UDP and value == 0:
        value = 0xFFFF
    packet[at : at + 2] = value.to_bytes(2, "big")


def put_seed(packet: bytearray, protocol: int, start: int) -> None:
    """What a sender that leaves the checksum to the device writes: the pseudo-header's sum."""
    at = start + (16 if protocol == TCP else 6)
    packet[at : at + 2] = total(pseudo(packet, protocol, len(packet) - start)).to_bytes(2, "big")


def segment(vnet: Vnet, packet: bytes, start: int | None = None) -> list[bytes]:
    """What a superpacket stands for; ``start`` is where its transport header begins."""
    if vnet.gso_type == NONE:
        return [packet]
    start = network_length(packet) if start is None else start
    protocol = UDP if vnet.gso_type == UDP_L4 else TCP
    transport = 8 if protocol == UDP else (packet[start + 12] >> 4) * 4
    head, payload = packet[: start + transport], packet[start + transport :]
    if vnet.gso_size == 0:
        raise Malformed
    parts = [payload[at : at + vnet.gso_size] for at in range(0, len(payload), vnet.gso_size)]
    made = []
    for number, part in enumerate(parts or [b""]):
        one = bytearray(head + part)
        if one[0] >> 4 == 4:
            one[4:6] = ((int.from_bytes(head[4:6]) + number) & 0xFFFF).to_bytes(2, "big")
        put_lengths(one)
        if protocol == UDP:
            one[start + 4 : start + 6] = (len(one) - start).to_bytes(2, "big")
        else:
            sequence = int.from_bytes(head[start + 4 : start + 8]) + number * vnet.gso_size
            one[start + 4 : start + 8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
            if number:
                one[start + 13] &= ~CWR & 0xFF
            if number + 1 < len(parts):
                one[start + 13] &= ~(FIN | PSH) & 0xFF
        put_checksum(one, protocol, start)
        made.append(bytes(one))
    return made


def join(packets: list[bytes]) -> tuple[Vnet, bytes]:
    """The superpacket of segments that belong together."""
    first = bytearray(packets[0])
    start = network_length(first)
    protocol = first[9] if first[0] >> 4 == 4 else first[6]
    head = start + (8 if protocol == UDP else (first[start + 12] >> 4) * 4)
    whole = bytearray(b"".join([bytes(first), *(packet[head:] for packet in packets[1:])]))
    put_lengths(whole)
    if protocol == UDP:
        whole[start + 4 : start + 6] = (len(whole) - start).to_bytes(2, "big")
    else:
        whole[start + 13] |= packets[-1][start + 13] & PSH
    put_seed(whole, protocol, start)
    kind = UDP_L4 if protocol == UDP else TCPV4 if first[0] >> 4 == 4 else TCPV6
    offset = 6 if protocol == UDP else 16
    return Vnet(NEEDS_CSUM, kind, head, len(first) - head, start, offset), bytes(whole)
