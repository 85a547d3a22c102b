"""WireGuard's handshake, cookies and transport messages, as plainly as the whitepaper puts them.

Section numbers are those of the whitepaper. Built on `cryptography`, `hashlib` and `hmac`; it
shares no line with the core, so that a mistake has to be made twice to stay hidden. It keeps no
state beyond one handshake, checks nothing that the mathematics does not force it to, and is in no
way fast or constant in time.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1 = b"mac1----"
LABEL_COOKIE = b"cookie--"
NO_PRESHARED_KEY = bytes(32)
INITIATION_LENGTH, RESPONSE_LENGTH, COOKIE_REPLY_LENGTH = 148, 92, 64


class Refused(Exception):
    """A message is not authentic, or names a key that it must not."""


# Section 5.4: the functions.


def clamp(private: bytes) -> bytes:
    """The form in which `wg genkey` prints a private key."""
    return bytes([private[0] & 248]) + private[1:31] + bytes([private[31] & 127 | 64])


def dh_pubkey(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private: bytes, public: bytes) -> bytes:
    try:
        other = X25519PublicKey.from_public_bytes(public)
        return X25519PrivateKey.from_private_bytes(private).exchange(other)
    except ValueError as error:
        raise Refused("the public key has a small order") from error


def aead(key: bytes, counter: int, plaintext: bytes, ad: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(struct.pack("<IQ", 0, counter), plaintext, ad)


def aead_open(key: bytes, counter: int, sealed: bytes, ad: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(struct.pack("<IQ", 0, counter), sealed, ad)
    except InvalidTag as error:
        raise Refused("the tag is wrong") from error


def _rotate(value: int, count: int) -> int:
    return (value << count | value >> (32 - count)) & 0xFFFFFFFF


def _quarter_round(x: list[int], a: int, b: int, c: int, d: int) -> None:
    for target, other, rotated, count in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        x[target] = (x[target] + x[other]) & 0xFFFFFFFF
        x[rotated] = _rotate(x[rotated] ^ x[target], count)


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """draft-irtf-cfrg-xchacha section 2.2."""
    x = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))
    for _ in range(10):
        for column in range(4):
            _quarter_round(x, column, 4 + column, 8 + column, 12 + column)
        for diagonal in range(4):
            corners = (4 + (diagonal + 1) % 4, 8 + (diagonal + 2) % 4, 12 + (diagonal + 3) % 4)
            _quarter_round(x, diagonal, *corners)
    return struct.pack("<8I", *x[:4], *x[12:])


def xaead(key: bytes, nonce: bytes, plaintext: bytes, ad: bytes) -> bytes:
    subkey = hchacha20(key, nonce[:16])
    return ChaCha20Poly1305(subkey).encrypt(bytes(4) + nonce[16:], plaintext, ad)


def xaead_open(key: bytes, nonce: bytes, sealed: bytes, ad: bytes) -> bytes:
    subkey = hchacha20(key, nonce[:16])
    try:
        return ChaCha20Poly1305(subkey).decrypt(bytes(4) + nonce[16:], sealed, ad)
    except InvalidTag as error:
        raise Refused("the tag is wrong") from error


def blake2s(*parts: bytes) -> bytes:
    """HASH."""
    return hashlib.blake2s(b"".join(parts)).digest()


def mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def kdf(count: int, key: bytes, data: bytes) -> list[bytes]:
    """KDF1, KDF2 and KDF3."""
    extracted = hmac.digest(key, data, hashlib.blake2s)
    outputs = [b""]
    for number in range(1, count + 1):
        outputs.append(hmac.digest(extracted, outputs[-1] + bytes([number]), hashlib.blake2s))
    return outputs[1:]


# Sections 5.4.2, 5.4.3 and 5.4.5: the handshake.


@dataclass
class Keys:
    """What a completed handshake leaves behind."""

    sending: bytes
    receiving: bytes
    local_index: int
    remote_index: int


@dataclass
class Handshake:
    """One side of one handshake. A responder may learn the other's public key from it."""

    private: bytes
    remote_public: bytes = b""
    preshared_key: bytes = NO_PRESHARED_KEY
    chaining_key: bytes = b""
    hash: bytes = b""
    ephemeral: bytes = b""
    remote_ephemeral: bytes = b""
    local_index: int = 0
    remote_index: int = 0
    is_initiator: bool = False
    timestamp: bytes = field(default=b"", repr=False)

    @property
    def public(self) -> bytes:
        return dh_pubkey(self.private)

    def _begin(self, responder_public: bytes) -> None:
        self.chaining_key = blake2s(CONSTRUCTION)
        self.hash = blake2s(blake2s(self.chaining_key, IDENTIFIER), responder_public)

    def _mix_hash(self, data: bytes) -> None:
        self.hash = blake2s(self.hash, data)

    def _mix_ephemeral(self, public: bytes) -> None:
        self._mix_hash(public)
        (self.chaining_key,) = kdf(1, self.chaining_key, public)

    def _mix_key(self, secret: bytes) -> bytes:
        self.chaining_key, key = kdf(2, self.chaining_key, secret)
        return key

    def _mix_preshared_key(self) -> bytes:
        self.chaining_key, tau, key = kdf(3, self.chaining_key, self.preshared_key)
        self._mix_hash(tau)
        return key

    def _seal(self, key: bytes, plaintext: bytes) -> bytes:
        sealed = aead(key, 0, plaintext, self.hash)
        self._mix_hash(sealed)
        return sealed

    def _open(self, key: bytes, sealed: bytes) -> bytes:
        plaintext = aead_open(key, 0, sealed, self.hash)
        self._mix_hash(sealed)
        return plaintext

    def create_initiation(self, local_index: int, ephemeral: bytes, timestamp: bytes) -> bytes:
        """The first message, with both MACs zero."""
        self.is_initiator, self.local_index, self.ephemeral = True, local_index, ephemeral
        self._begin(self.remote_public)
        public = dh_pubkey(ephemeral)
        self._mix_ephemeral(public)  # e
        key = self._mix_key(dh(ephemeral, self.remote_public))  # es
        sealed_static = self._seal(key, self.public)  # s
        key = self._mix_key(dh(self.private, self.remote_public))  # ss
        sealed_timestamp = self._seal(key, timestamp)  # {t}
        head = struct.pack("<II", 1, local_index)
        return head + public + sealed_static + sealed_timestamp + bytes(32)

    def consume_initiation(self, message: bytes) -> None:
        """Learns `remote_public` and `timestamp`."""
        kind, self.remote_index = struct.unpack_from("<II", message)
        if kind != 1 or len(message) != INITIATION_LENGTH:
            raise Refused("not an initiation")
        self._begin(self.public)
        self.remote_ephemeral = message[8:40]
        self._mix_ephemeral(self.remote_ephemeral)  # e
        key = self._mix_key(dh(self.private, self.remote_ephemeral))  # es
        self.remote_public = self._open(key, message[40:88])  # s
        key = self._mix_key(dh(self.private, self.remote_public))  # ss
        self.timestamp = self._open(key, message[88:116])  # {t}

    def create_response(self, local_index: int, ephemeral: bytes) -> bytes:
        """The second message, with both MACs zero."""
        self.local_index, self.ephemeral = local_index, ephemeral
        public = dh_pubkey(ephemeral)
        self._mix_ephemeral(public)  # e
        self._mix_key(dh(ephemeral, self.remote_ephemeral))  # ee
        self._mix_key(dh(ephemeral, self.remote_public))  # se
        key = self._mix_preshared_key()  # psk
        sealed_nothing = self._seal(key, b"")  # {}
        head = struct.pack("<III", 2, local_index, self.remote_index)
        return head + public + sealed_nothing + bytes(32)

    def consume_response(self, message: bytes) -> None:
        kind, self.remote_index, receiver = struct.unpack_from("<III", message)
        if kind != 2 or len(message) != RESPONSE_LENGTH or receiver != self.local_index:
            raise Refused("not a response to this handshake")
        self.remote_ephemeral = message[12:44]
        self._mix_ephemeral(self.remote_ephemeral)  # e
        self._mix_key(dh(self.ephemeral, self.remote_ephemeral))  # ee
        self._mix_key(dh(self.private, self.remote_ephemeral))  # se
        key = self._mix_preshared_key()  # psk
        self._open(key, message[44:60])  # {}

    def begin_session(self) -> Keys:
        first, second = kdf(2, self.chaining_key, b"")
        if not self.is_initiator:
            first, second = second, first
        return Keys(first, second, self.local_index, self.remote_index)


# Section 5.4.4: MAC1 and MAC2. Section 5.4.7: the cookie reply.


def add_macs(message: bytes, receiver_public: bytes, cookie: bytes | None = None) -> bytes:
    """Fills the last 32 bytes of a handshake message."""
    body = message[:-32]
    body += mac(blake2s(LABEL_MAC1, receiver_public), body)
    return body + (mac(cookie, body) if cookie else bytes(16))


def has_valid_mac1(message: bytes, receiver_public: bytes) -> bool:
    return message[-32:-16] == mac(blake2s(LABEL_MAC1, receiver_public), message[:-32])


def has_valid_mac2(message: bytes, cookie: bytes) -> bool:
    return message[-16:] == mac(cookie, message[:-16])


def make_cookie(secret: bytes, address: str, port: int) -> bytes:
    """MAC over the bytes of the address and the port in network order, as the kernel does it."""
    return mac(secret, ipaddress.ip_address(address).packed + struct.pack(">H", port))


def create_cookie_reply(message: bytes, public: bytes, cookie: bytes, nonce: bytes) -> bytes:
    """Answers `message`, a handshake message sent to the owner of `public`."""
    sealed = xaead(blake2s(LABEL_COOKIE, public), nonce, cookie, message[-32:-16])
    return struct.pack("<I", 3) + message[4:8] + nonce + sealed


def consume_cookie_reply(reply: bytes, sender_public: bytes, last_mac1: bytes) -> bytes:
    if len(reply) != COOKIE_REPLY_LENGTH or reply[:4] != struct.pack("<I", 3):
        raise Refused("not a cookie reply")
    return xaead_open(blake2s(LABEL_COOKIE, sender_public), reply[8:32], reply[32:], last_mac1)


# Section 5.4.6: transport data.


def seal_transport(keys: Keys, counter: int, packet: bytes) -> bytes:
    padded = packet + bytes(-len(packet) % 16)
    head = struct.pack("<IIQ", 4, keys.remote_index, counter)
    return head + aead(keys.sending, counter, padded, b"")


def open_transport(keys: Keys, message: bytes) -> tuple[int, bytes]:
    """The counter and the padded packet; knows no replay window."""
    kind, receiver, counter = struct.unpack_from("<IIQ", message)
    if kind != 4 or receiver != keys.local_index:
        raise Refused("not a transport message of this session")
    return counter, aead_open(keys.receiving, counter, message[16:], b"")
