"""Runs Wycheproof's vectors for X25519, ChaCha20-Poly1305 and XChaCha20-Poly1305 through every
implementation of ours.

    scripts/wycheproof FOLDER

FOLDER is a copy of github.com/C2SP/wycheproof, or has the files of its folder testvectors_v1/; they
are not part of pywg. Each line says how many vectors an implementation passed. WireGuard has nonces
of one form, and packets no associated data: a vector that cannot be asked for is counted as left
out, with the reason. A vector of XChaCha20 becomes one for the kernels by HChaCha20, which leaves
a nonce of WireGuard's form. The exit code is 1 if a vector failed, and 2 if there was none.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import itertools
import json
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from pywg.native.interface import Interface, Now
from tools import kernels
from tools.build import checks, core
from tools.reference import wireguard

TAG = 16
NO_SECRET = bytes(32)
# Copies of a packet, so that the kernels' ways for many packets are taken, too; where it is in it.
BATCH, PLACE = 16, 7

Vector = dict[str, Any]


class LeftOut(Exception):
    """The implementation cannot be asked this; the text says why."""


@dataclass
class Tally:
    """What became of the vectors of one file, for one implementation."""

    name: str
    passed: int = 0
    failed: list[int] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def judge(self, vectors: Iterable[Vector], holds: Callable[[Vector], bool]) -> Tally:
        for vector in vectors:
            try:
                if holds(vector):
                    self.passed += 1
                else:
                    self.failed.append(vector["tcId"])
            except LeftOut as why:
                self.left_out[str(why)] += 1
        return self

    def __str__(self) -> str:
        parts = [f"{self.passed} passed"]
        if self.failed:
            parts.append(f"FAILED: {', '.join(map(str, self.failed))}")
        parts += [f"{count} left out ({why})" for why, count in sorted(self.left_out.items())]
        return f"  {self.name:34}{'; '.join(parts)}"


# ---- our implementations -------------------------------------------------------------------------


class Ours:
    """Everything of ours that computes what the vectors ask for, compiled as for an install."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / ".lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            builder = checks.Builder(directory)
            self.kernels = kernels.load(builder.shared_library("cipher_testing"))
            protocol = ctypes.CDLL(str(builder.shared_library("vectors")))
        self.agree = {"as installed": protocol.pywg_vectors_dh}
        self.agree["with checks"] = protocol.pywg_vectors_dh_with_checks
        self.aead = protocol.pywg_vectors_aead_seal, protocol.pywg_vectors_aead_open
        self.xaead = protocol.pywg_vectors_xaead_seal, protocol.pywg_vectors_xaead_open
        for function in (*self.agree.values(), self.aead[1], self.xaead[1]):
            function.restype = ctypes.c_bool

    def flavours(self) -> Iterator[str]:
        """Those kernels that this CPU runs."""
        for flavour in checks.find_flavours(core.find_arch()):
            if self.kernels.pywg_test_select(flavour.encode()):
                yield flavour

    def dh(self, name: str, private: bytes, public: bytes) -> bytes | None:
        secret = ctypes.create_string_buffer(32)
        return secret.raw if self.agree[name](secret, private, public) else None

    def seal(self, key: bytes, counter: int, plain: bytes) -> list[bytes]:
        """By the kernels that are selected: alone, and among others where the counter leaves room
        for them."""
        alone = self._seal(key, counter, [plain])
        if not PLACE <= counter < 2**64 - BATCH:
            return alone
        return [*alone, self._seal(key, counter - PLACE, [plain] * BATCH)[PLACE]]

    def _seal(self, key: bytes, counter: int, plains: list[bytes]) -> list[bytes]:
        out = [ctypes.create_string_buffer(len(plain) + TAG) for plain in plains]
        sources = [ctypes.create_string_buffer(plain, len(plain) + 1) for plain in plains]
        jobs = (kernels.Seal * len(plains))(
            *(
                kernels.Seal(ctypes.addressof(source), ctypes.addressof(target), len(plain))
                for source, target, plain in zip(sources, out, plains, strict=True)
            )
        )
        self.kernels.pywg_test_seal_batch(key, counter, jobs, len(jobs))
        return [target.raw for target in out]

    def open(self, key: bytes, counter: int, sealed: bytes) -> list[bytes | None]:
        """The same packet many times at once, then alone."""
        return [*self._open(key, counter, sealed, BATCH), *self._open(key, counter, sealed, 1)]

    def _open(self, key: bytes, counter: int, sealed: bytes, count: int) -> list[bytes | None]:
        data = [ctypes.create_string_buffer(sealed, len(sealed)) for _ in range(count)]
        length = len(sealed) - TAG
        jobs = (kernels.Open * count)(
            *(kernels.Open(ctypes.addressof(each), length, counter, False) for each in data)
        )
        self.kernels.pywg_test_open_batch(key, jobs, count)
        pairs = zip(jobs, data, strict=True)
        return [each.raw[:length] if job.authentic else None for job, each in pairs]

    def poly1305(self, limb_bits: int, key: bytes, blocks: bytes) -> bytes:
        tag = ctypes.create_string_buffer(TAG)
        self.kernels.pywg_test_poly1305(limb_bits, key, blocks, len(blocks) // 16, tag)
        return tag.raw


# ---- X25519 --------------------------------------------------------------------------------------


def agrees(ours: Ours, name: str, vector: Vector) -> bool:
    """RFC 7748's answer; none where it is all zeros, whatever a vector calls acceptable."""
    private, public, shared = (bytes.fromhex(vector[k]) for k in ("private", "public", "shared"))
    return ours.dh(name, private, public) == (None if shared == NO_SECRET else shared)


CORE_PRIVATE = wireguard.clamp(b"\x11" * 32)
OTHER_PRIVATE = wireguard.clamp(b"\x22" * 32)
CORE_PUBLIC = wireguard.dh_pubkey(CORE_PRIVATE)
OTHER_PUBLIC = wireguard.dh_pubkey(OTHER_PRIVATE)
ADDRESS = ("192.0.2.7", 4242)
START = Now(boot_ns=10**12, unix_ns=1_700_000_000 * 10**9)
PACKET = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20, 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")


def is_refused_in_a_handshake(vector: Vector) -> bool:
    """A key that gives zero: as the ephemeral of an initiation that is right in all else, and as
    the key of a peer, with whom no handshake begins."""
    if bytes.fromhex(vector["shared"]) != NO_SECRET:
        raise LeftOut("the secret is not zero")
    public = bytes.fromhex(vector["public"])
    good = initiation(wireguard.dh_pubkey(b"\x66" * 32), wireguard.dh(b"\x66" * 32, CORE_PUBLIC))
    with interface(OTHER_PUBLIC) as ours:
        if [answer.drop for answer in ours.receive([(good, ADDRESS)], START)] != [None]:
            return False
    with interface(OTHER_PUBLIC) as ours:
        answers = ours.receive([(initiation(public, NO_SECRET), ADDRESS)], START)
        if [answer.drop for answer in answers] != ["invalid_handshake"]:
            return False
    with interface(public) as ours:
        ours.seal([PACKET], START)
        return ours.poll(START) == []


def interface(peer: bytes) -> Interface:
    text = f"private_key={CORE_PRIVATE.hex()}\npublic_key={peer.hex()}\n"
    text += f"endpoint={ADDRESS[0]}:{ADDRESS[1]}\nallowed_ip=10.0.0.2/32\n"
    return Interface(text, now=START)


def initiation(ephemeral: bytes, es: bytes) -> bytes:
    """Section 5.4.2 with this ephemeral, and with this secret for what only its owner knows."""
    (chaining_key,) = wireguard.kdf(1, wireguard.blake2s(wireguard.CONSTRUCTION), ephemeral)
    hash_ = wireguard.blake2s(wireguard.blake2s(wireguard.CONSTRUCTION), wireguard.IDENTIFIER)
    hash_ = wireguard.blake2s(wireguard.blake2s(hash_, CORE_PUBLIC), ephemeral)
    chaining_key, key = wireguard.kdf(2, chaining_key, es)
    static = wireguard.aead(key, 0, OTHER_PUBLIC, hash_)
    hash_ = wireguard.blake2s(hash_, static)
    _, key = wireguard.kdf(2, chaining_key, wireguard.dh(OTHER_PRIVATE, CORE_PUBLIC))
    timestamp = wireguard.aead(key, 0, struct.pack(">QI", 0x400000006553F10A, 0), hash_)
    head = struct.pack("<II", 1, 77)
    return wireguard.add_macs(head + ephemeral + static + timestamp + bytes(32), CORE_PUBLIC)


# ---- both AEADs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sealed:
    """One vector; for XChaCha20 as the vector of ChaCha20 that HChaCha20 makes of it."""

    key: bytes
    nonce: bytes
    ad: bytes
    plain: bytes
    ciphertext: bytes
    tag: bytes
    is_valid: bool

    @classmethod
    def read(cls, vector: Vector) -> Sealed:
        words = (bytes.fromhex(vector[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag"))
        key, nonce, *rest = words
        if len(nonce) == 24:
            key, nonce = wireguard.hchacha20(key, nonce[:16]), bytes(4) + nonce[16:]
        if len(nonce) != 12:
            raise LeftOut("another length of nonce")
        ad, plain, ciphertext, tag = rest
        if len(tag) != TAG:
            raise LeftOut("another length of tag")
        return cls(key, nonce, ad, plain, ciphertext, tag, vector["result"] == "valid")

    @property
    def counter(self) -> int:
        if self.nonce[:4] != bytes(4):
            raise LeftOut("another form of nonce")
        return int.from_bytes(self.nonce[4:], "little")

    @property
    def sealed(self) -> bytes:
        return self.ciphertext + self.tag


def kernels_hold(ours: Ours, vector: Vector) -> bool:
    it = Sealed.read(vector)
    counter = it.counter
    if it.ad:
        raise LeftOut("associated data")
    made = [sealed == it.sealed for sealed in ours.seal(it.key, counter, it.plain)]
    opened = [plain == it.plain for plain in ours.open(it.key, counter, it.sealed)]
    return all(made + opened) if it.is_valid else not any(made + opened)


def kernels_encipher(ours: Ours, vector: Vector) -> bool:
    """The ciphertext alone, which associated data does not change."""
    it = Sealed.read(vector)
    counter = it.counter
    if not it.is_valid:
        raise LeftOut("a wrong tag")
    return all(sealed[:-TAG] == it.ciphertext for sealed in ours.seal(it.key, counter, it.plain))


def poly1305_holds(ours: Ours, limb_bits: int, vector: Vector) -> bool:
    """RFC 8439 section 2.8: the tag of associated data and ciphertext, padded, and their lengths.
    The key is the beginning of the key stream, which is not ours here."""
    it = Sealed.read(vector)
    stream = Cipher(algorithms.ChaCha20(it.key, bytes(4) + it.nonce), mode=None).encryptor()
    one_time = stream.update(bytes(32))
    padded = (part + bytes(-len(part) % 16) for part in (it.ad, it.ciphertext))
    blocks = b"".join(padded) + struct.pack("<QQ", len(it.ad), len(it.ciphertext))
    return (ours.poly1305(limb_bits, one_time, blocks) == it.tag) == it.is_valid


def protocol_holds(ours: Ours, vector: Vector) -> bool:
    """AEAD or XAEAD of section 5.4, by the length of the nonce."""
    it = Sealed.read(vector)
    nonce = bytes.fromhex(vector["iv"])
    extended = len(nonce) == 24
    seal, open_ = ours.xaead if extended else ours.aead
    key = bytes.fromhex(vector["key"])
    number = nonce if extended else ctypes.c_uint64(it.counter)
    length, ad = ctypes.c_size_t(len(it.plain)), (it.ad, ctypes.c_size_t(len(it.ad)))
    sealed = ctypes.create_string_buffer(len(it.plain) + TAG)
    seal(sealed, key, number, it.plain, length, *ad)
    plain = ctypes.create_string_buffer(len(it.plain) + 1)
    authentic = open_(plain, key, number, it.sealed, length, *ad)
    if not it.is_valid:
        return not authentic and sealed.raw != it.sealed
    return authentic and plain.raw[:-1] == it.plain and sealed.raw == it.sealed


# ---- the files -----------------------------------------------------------------------------------


def judge_agreement(ours: Ours, vectors: list[Vector]) -> Iterator[Tally]:
    yield Tally("X25519, as installed").judge(vectors, partial(agrees, ours, "as installed"))
    checked = partial(agrees, ours, "with checks")
    yield Tally("X25519 of std, with its checks").judge(vectors, checked)
    yield Tally("refused in handshakes").judge(vectors, is_refused_in_a_handshake)


def judge_sealing(ours: Ours, vectors: list[Vector]) -> Iterator[Tally]:
    for flavour in ours.flavours():
        yield Tally(f"kernels, {flavour}").judge(vectors, partial(kernels_hold, ours))
        enciphering = partial(kernels_encipher, ours)
        yield Tally(f"ciphertexts of kernels, {flavour}").judge(vectors, enciphering)
    for bits in (26, 64):
        holds = partial(poly1305_holds, ours, bits)
        yield Tally(f"Poly1305 with limbs of {bits} bits").judge(vectors, holds)
    yield Tally("of handshakes and cookies").judge(vectors, partial(protocol_holds, ours))


FILES = {
    "x25519_test.json": judge_agreement,
    "chacha20_poly1305_test.json": judge_sealing,
    "xchacha20_poly1305_test.json": judge_sealing,
}


def find(folder: Path) -> dict[str, Path]:
    places = (folder / "testvectors_v1", folder)
    candidates = itertools.product(FILES, places)
    return {name: place / name for name, place in candidates if (place / name).is_file()}


def read(path: Path) -> list[Vector]:
    groups = json.loads(path.read_text(encoding="utf-8"))["testGroups"]
    return [vector for group in groups for vector in group["tests"]]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="wycheproof",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="a copy of Wycheproof")
    options = parser.parse_args(words)
    found = find(options.folder)
    if not found:
        print(f"wycheproof: {options.folder} has none of {', '.join(FILES)}", file=sys.stderr)
        return 2
    try:
        ours = Ours(core.ROOT / ".zig-cache" / "wycheproof" / core.find_arch())
    except checks.Failed as failed:
        print(failed, file=sys.stderr)
        return 2
    failures = 0
    for name, judge in FILES.items():
        if name not in found:
            print(f"{name}: not there")
            continue
        vectors = read(found[name])
        print(f"{name}: {len(vectors)} vectors")
        for tally in judge(ours, vectors):
            print(tally, flush=True)
            failures += len(tally.failed)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
