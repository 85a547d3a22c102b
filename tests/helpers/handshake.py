"""A WireGuard initiator of its own, straight from the whitepaper (section 5.4), that can also
misbehave.

It shares no code with pywg: `cryptography` and hashlib only. It knows nothing of sockets or time;
the caller sends the bytes and says what time it is.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1 = b"mac1----"
TAI64_EPOCH = 0x400000000000000A

INITIATION, RESPONSE, COOKIE_REPLY, DATA = 1, 2, 3, 4


def blake2s(data: bytes) -> bytes:
    return hashlib.blake2s(data).digest()


def mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def kdf(key: bytes, data: bytes, count: int) -> list[bytes]:
    secret = hmac.new(key, data, hashlib.blake2s).digest()
    outputs: list[bytes] = []
    for number in range(1, count + 1):
        previous = outputs[-1] if outputs else b""
        outputs.append(hmac.new(secret, previous + bytes([number]), hashlib.blake2s).digest())
    return outputs


def aead(key: bytes, counter: int, plaintext: bytes, data: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(struct.pack("<4xQ", counter), plaintext, data)


def open_aead(key: bytes, counter: int, ciphertext: bytes, data: bytes) -> bytes:
    return ChaCha20Poly1305(key).decrypt(struct.pack("<4xQ", counter), ciphertext, data)


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private: bytes, peer: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(peer)
    )


def tai64n(unix_ns: int) -> bytes:
    return struct.pack(">QI", TAI64_EPOCH + unix_ns // 10**9, unix_ns % 10**9)


def with_macs(message: bytes, responder: bytes) -> bytes:
    """The message with a right MAC1 for this responder and an empty MAC2."""
    return message + mac(blake2s(LABEL_MAC1 + responder), message) + bytes(16)


class Initiator:
    """One handshake: initiation() once, then finish() with the response gives the session."""

    def __init__(self, private: bytes, responder: bytes, psk: bytes = bytes(32)) -> None:
        self.private = private
        self.responder = responder
        self.psk = psk
        self.index = struct.unpack("<I", os.urandom(4))[0]
        self.ephemeral = os.urandom(32)

    def initiation(self, unix_ns: int) -> bytes:
        self.chain = blake2s(CONSTRUCTION)
        self.hash = blake2s(blake2s(self.chain + IDENTIFIER) + self.responder)
        ephemeral = public(self.ephemeral)
        self._mix(ephemeral)  # e
        self.hash = blake2s(self.hash + ephemeral)
        static = self._seal(dh(self.ephemeral, self.responder), public(self.private))  # es, s
        timestamp = self._seal(dh(self.private, self.responder), tai64n(unix_ns))  # ss, {t}
        message = struct.pack("<B3xI", INITIATION, self.index) + ephemeral + static + timestamp
        return with_macs(message, self.responder)

    def finish(self, response: bytes) -> Session:
        assert len(response) == 92, len(response)
        kind, sender, receiver = struct.unpack_from("<III", response)
        assert (kind, receiver) == (RESPONSE, self.index)
        ephemeral, empty = response[12:44], response[44:60]
        assert response[60:76] == mac(blake2s(LABEL_MAC1 + public(self.private)), response[:60]), (
            "MAC1 of the response"
        )
        self._mix(ephemeral)  # e
        self.hash = blake2s(self.hash + ephemeral)
        self._mix(dh(self.ephemeral, ephemeral))  # ee
        self._mix(dh(self.private, ephemeral))  # se
        self.chain, tau, key = kdf(self.chain, self.psk, 3)  # psk
        self.hash = blake2s(self.hash + tau)
        assert open_aead(key, 0, empty, self.hash) == b""
        sending, receiving = kdf(self.chain, b"", 2)
        return Session(sending, receiving, self.index, sender)

    def _mix(self, data: bytes) -> None:
        (self.chain,) = kdf(self.chain, data, 1)

    def _seal(self, secret: bytes, plaintext: bytes) -> bytes:
        self.chain, key = kdf(self.chain, secret, 2)
        sealed = aead(key, 0, plaintext, self.hash)
        self.hash = blake2s(self.hash + sealed)
        return sealed


@dataclass
class Session:
    sending: bytes
    receiving: bytes
    index: int
    remote_index: int
    counter: int = 0

    def seal(self, inner: bytes, counter: int | None = None) -> bytes:
        """A data message; the inner packet is padded to 16 bytes."""
        if counter is None:
            counter = self.counter
            self.counter += 1
        header = struct.pack("<IIQ", DATA, self.remote_index, counter)
        return header + aead(self.sending, counter, inner + bytes(-len(inner) % 16), b"")

    def open(self, message: bytes) -> bytes:
        kind, receiver, counter = struct.unpack_from("<IIQ", message)
        assert (kind, receiver) == (DATA, self.index)
        assert len(message) % 16 == 0, "the plaintext is not padded to 16 bytes"
        return open_aead(self.receiving, counter, message[16:], b"")


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
