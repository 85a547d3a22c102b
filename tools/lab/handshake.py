"""A peer that can misbehave: the reference implementation with one handshake and one session, and
inner packets whose lengths may lie. Knows nothing of sockets or time; the caller sends the bytes.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from tools.reference import wireguard

RESPONSE, COOKIE_REPLY, DATA = 2, 3, 4
TAI64_EPOCH = 0x400000000000000A

public = wireguard.dh_pubkey


def tai64n(unix_ns: int) -> bytes:
    return struct.pack(">QI", TAI64_EPOCH + unix_ns // 10**9, unix_ns % 10**9)


def with_macs(message: bytes, responder: bytes) -> bytes:
    """The message, without MACs so far, with a right MAC1 for this responder and an empty MAC2."""
    return wireguard.add_macs(message + bytes(32), responder)


class Initiator:
    """One handshake: initiation() once, then finish() with the response gives the session."""

    def __init__(self, private: bytes, responder: bytes, psk: bytes = bytes(32)) -> None:
        self.handshake = wireguard.Handshake(private, responder, psk)
        self.index = struct.unpack("<I", os.urandom(4))[0]

    def initiation(self, unix_ns: int) -> bytes:
        message = self.handshake.create_initiation(self.index, os.urandom(32), tai64n(unix_ns))
        return wireguard.add_macs(message, self.handshake.remote_public)

    def finish(self, response: bytes) -> Session:
        assert wireguard.has_valid_mac1(response, self.handshake.public), "MAC1 of the response"
        self.handshake.consume_response(response)
        return Session(self.handshake.begin_session())


@dataclass
class Session:
    keys: wireguard.Keys
    counter: int = 0

    def seal(self, inner: bytes, counter: int | None = None) -> bytes:
        """A data message; the inner packet is padded to 16 bytes."""
        if counter is None:
            counter = self.counter
            self.counter += 1
        return wireguard.seal_transport(self.keys, counter, inner)

    def open(self, message: bytes) -> bytes:
        assert len(message) % 16 == 0, "the plaintext is not padded to 16 bytes"
        return wireguard.open_transport(self.keys, message)[1]


def checksum(data: bytes) -> int:
    words = struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ipv4(
    source: bytes,
    target: bytes,
    content: bytes,
    *,
    protocol: int = 1,
    total: int | None = None,
    version: int = 4,
) -> bytes:
    """An IPv4 packet; `total` and `version` may lie."""
    total = 20 + len(content) if total is None else total
    head = struct.pack(
        ">BBHHHBBH4s4s", version << 4 | 5, 0, total, 0, 0, 64, protocol, 0, source, target
    )
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return head + content


def ipv6(
    source: bytes,
    target: bytes,
    content: bytes,
    *,
    next_header: int = 59,
    length: int | None = None,
) -> bytes:
    """An IPv6 packet; `length` may lie."""
    length = len(content) if length is None else length
    return struct.pack(">IHBB16s16s", 6 << 28, length, next_header, 64, source, target) + content


def echo_request(sequence: int) -> bytes:
    message = struct.pack(">BBHHH", 8, 0, 0, 0x7077, sequence) + b"pywg"
    return message[:2] + struct.pack(">H", checksum(message)) + message[4:]
