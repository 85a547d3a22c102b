"""The AEAD of core/cipher/ against OpenSSL's, for every compilation of its kernels we can run here.

Packets lie in one buffer at odd addresses with a margin of 0x5a around each; whole buffers are
compared, so a byte written out of place fails too. A failure prints its seed; PYWG_TEST_SEED=...
repeats it.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.poly1305 import Poly1305

from tools import kernels as kernels_library
from tools.build.checks import Builder
from tools.kernels import Open, Seal

TAG = 16
MARGIN = 0x5A
COUNTER_MAX = 2**64 - 1


# ---- both implementations ------------------------------------------------------------------------


def nonce(counter: int) -> bytes:
    """WireGuard's: four zero bytes, then the counter."""
    return bytes(4) + counter.to_bytes(8, "little")


def openssl_seal(key: bytes, counter: int, plain: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(nonce(counter), plain, None)


def openssl_opens(key: bytes, counter: int, sealed: bytes) -> bytes | None:
    try:
        return ChaCha20Poly1305(key).decrypt(nonce(counter), sealed, None)
    except InvalidTag:
        return None


class Buffer:
    """Packets of given sizes, each at some odd distance behind the one before, or all at addresses
    with the same remainder modulo 64."""

    def __init__(
        self, rng: random.Random, sizes: Sequence[int], alignment: int | None = None
    ) -> None:
        gaps = [16 + rng.randrange(64) for _ in sizes]
        self.bytes = bytearray([MARGIN]) * (sum(sizes) + sum(gaps) + 64 * (len(sizes) + 1))
        self._mapped = (ctypes.c_char * len(self.bytes)).from_buffer(self.bytes)
        self.offsets: list[int] = []
        end = 0
        for size, gap in zip(sizes, gaps, strict=True):
            end += gap
            if alignment is not None:
                end += (alignment - ctypes.addressof(self._mapped) - end) % 64
            self.offsets.append(end)
            end += size

    def address(self, index: int) -> int:
        return ctypes.addressof(self._mapped) + self.offsets[index]

    def put(self, index: int, content: bytes) -> None:
        offset = self.offsets[index]
        self.bytes[offset : offset + len(content)] = content

    def take(self, index: int, size: int) -> bytes:
        return bytes(self.bytes[self.offsets[index] :][:size])

    def expected(self, contents: Sequence[bytes]) -> bytes:
        """The whole buffer, if the packets are these and nothing else was touched."""
        whole = bytearray([MARGIN]) * len(self.bytes)
        for offset, content in zip(self.offsets, contents, strict=True):
            whole[offset : offset + len(content)] = content
        return bytes(whole)


@dataclass(frozen=True)
class Ours:
    """One compilation of the kernels."""

    library: ctypes.CDLL

    def seal(
        self,
        rng: random.Random,
        key: bytes,
        counter: int,
        plains: Sequence[bytes],
        *,
        in_place: bool = False,
        alignments: tuple[int | None, int | None] = (None, None),
    ) -> list[bytes]:
        """`alignments` are those of the destinations and of the sources."""
        sizes = [len(plain) + TAG for plain in plains]
        target = Buffer(rng, sizes, alignments[0])
        source = target
        if not in_place:
            source = Buffer(rng, [len(plain) for plain in plains], alignments[1])
        for i, plain in enumerate(plains):
            source.put(i, plain)
        untouched = bytes(source.bytes)
        jobs = (Seal * len(plains))(
            *(
                Seal(source.address(i), target.address(i), len(plain))
                for i, plain in enumerate(plains)
            )
        )
        self.library.pywg_test_seal_batch(key, counter, jobs, len(plains))
        sealed = [target.take(i, size) for i, size in enumerate(sizes)]
        assert bytes(target.bytes) == target.expected(sealed), "written outside of a packet"
        assert in_place or bytes(source.bytes) == untouched, "the plaintext was written to"
        return sealed

    def open(
        self,
        rng: random.Random,
        key: bytes,
        packets: Sequence[tuple[int, bytes]],
        alignment: int | None = None,
    ) -> list[bytes | None]:
        """Opens (counter, sealed) each: the plaintext, or None if refused and zeroed."""
        buffer = Buffer(rng, [len(sealed) for _, sealed in packets], alignment)
        jobs = (Open * len(packets))()
        for i, (counter, sealed) in enumerate(packets):
            buffer.put(i, sealed)
            # The verdict of before must not count.
            jobs[i] = Open(buffer.address(i), len(sealed) - TAG, counter, bool(i % 2))
        self.library.pywg_test_open_batch(key, jobs, len(packets))
        contents, results = [], []
        for i, (_, sealed) in enumerate(packets):
            plain = buffer.take(i, len(sealed) - TAG)
            if not jobs[i].authentic:
                assert not any(plain), "something is left of a forged packet"
            results.append(plain if jobs[i].authentic else None)
            contents.append(plain + sealed[-TAG:])
        assert bytes(buffer.bytes) == buffer.expected(contents), "written outside of a packet"
        return results

    def agrees(self, rng: random.Random, key: bytes, counter: int, plains: Sequence[bytes]) -> None:
        """Seals as OpenSSL does, apart and in place, and opens what OpenSSL sealed."""
        expected = [openssl_seal(key, counter + i, plain) for i, plain in enumerate(plains)]
        for in_place in (False, True):
            sealed = self.seal(rng, key, counter, plains, in_place=in_place)
            wrong = [i for i, packet in enumerate(sealed) if packet != expected[i]]
            lengths = [len(plain) for plain in plains]
            assert not wrong, f"packets {wrong} of {lengths}, {in_place=}, {counter=}"
        order = rng.sample(range(len(plains)), len(plains))
        opened = self.open(rng, key, [(counter + i, expected[i]) for i in order])
        wrong = [i for i, plain in zip(order, opened, strict=True) if plain != plains[i]]
        assert not wrong, f"packets {wrong} of {order}, {counter=}"


@pytest.fixture(scope="module")
def library(installed: Builder) -> ctypes.CDLL:
    return kernels_library.load(installed.shared_library("cipher_testing"))


@pytest.fixture
def ours(library: ctypes.CDLL, kernels: str) -> Ours:
    if not library.pywg_test_select(kernels.encode()):
        pytest.skip(f"this CPU cannot run {kernels}")
    return Ours(library)


@pytest.fixture
def rng(seed: str) -> random.Random:
    return random.Random(seed)


# ---- published values ----------------------------------------------------------------------------

SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
    b"future, sunscreen would be it."
)


def test_rfc_8439_section_2_6_2(rng: random.Random, ours: Ours) -> None:
    """Its nonce has WireGuard's form; its one-time key is the MAC key of an empty packet."""
    key = bytes(range(0x80, 0xA0))
    one_time = bytes.fromhex("8ad5a08b905f81cc815040274ab29471a833b637e3fd0da508dbb8e2fdd1a646")
    tag = poly1305(one_time, [bytes(16)])
    assert ours.seal(rng, key, 0x0706050403020100, [b""]) == [tag]


def test_rfc_8439_appendix_a_1_vectors_2_and_3(rng: random.Random, ours: Ours) -> None:
    """Key streams of block 1 with nonce 0, as ciphertexts of zeros."""
    zero, one = bytes(32), bytes(31) + b"\x01"
    vectors = [
        (
            zero,
            "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
            "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
        ),
        (
            one,
            "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
            "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
        ),
    ]
    for key, stream in vectors:
        (sealed,) = ours.seal(rng, key, 0, [bytes(64)])
        assert sealed[:64].hex() == stream


def test_rfc_8439_section_2_8_2_without_its_associated_data(rng: random.Random, ours: Ours) -> None:
    key = bytes(range(0x80, 0xA0))
    ours.agrees(rng, key, int.from_bytes(bytes(range(0x40, 0x48)), "little"), [SUNSCREEN])


# ---- lengths and batches -------------------------------------------------------------------------


def test_every_length_from_0_to_2100_in_mixed_batches(rng: random.Random, ours: Ours) -> None:
    lengths = rng.sample(range(2101), 2101)
    while lengths:
        count = rng.choice([1, 2, 3, 7, 16, 63, 64, 65, 100, 129])
        batch, lengths = lengths[:count], lengths[count:]
        plains = [rng.randbytes(length) for length in batch]
        ours.agrees(rng, rng.randbytes(32), rng.getrandbits(63), plains)


def test_one_packet_alone_of_every_length_from_0_to_300(rng: random.Random, ours: Ours) -> None:
    key = rng.randbytes(32)
    for length in range(301):
        ours.agrees(rng, key, length, [rng.randbytes(length)])


def test_random_lengths_up_to_65535(rng: random.Random, ours: Ours) -> None:
    for _ in range(12):
        lengths = [rng.randrange(65536) for _ in range(rng.randrange(1, 7))]
        plains = [rng.randbytes(length) for length in [65535, *lengths]]
        ours.agrees(rng, rng.randbytes(32), rng.getrandbits(62), plains)


def test_every_alignment_of_source_and_destination(rng: random.Random, ours: Ours) -> None:
    """Modulo 64, the widest vector: each destination with each source."""
    key = rng.randbytes(32)
    plains = [rng.randbytes(length) for length in (0, 1, 15, 63, 64, 65, 150, 577)]
    sealed = [openssl_seal(key, i, plain) for i, plain in enumerate(plains)]
    for destination in range(64):
        for source in range(64):
            alignments = (destination, source)
            assert ours.seal(rng, key, 0, plains, alignments=alignments) == sealed, alignments
        in_place = ours.seal(rng, key, 0, plains, in_place=True, alignments=(destination, None))
        assert in_place == sealed, destination
        opened = ours.open(rng, key, list(enumerate(sealed)), destination)
        assert opened == plains, destination


@pytest.mark.parametrize("most", [0, 1, 16, 64, 200, 1452])
def test_batches_of_small_equal_and_empty_packets(
    rng: random.Random, ours: Ours, most: int
) -> None:
    for count in (1, 4, 8, 15, 64, 65, 140):
        for lengths in ([most] * count, [rng.choice([0, most]) for _ in range(count)]):
            plains = [rng.randbytes(length) for length in lengths]
            ours.agrees(rng, rng.randbytes(32), rng.getrandbits(48), plains)


def test_an_empty_batch_is_nothing(ours: Ours) -> None:
    ours.library.pywg_test_seal_batch(bytes(32), COUNTER_MAX, None, 0)
    ours.library.pywg_test_open_batch(bytes(32), None, 0)


@pytest.mark.parametrize(
    "counter", [0, 2**31 - 40, 2**32 - 40, 2**32, 2**33 - 1, 2**63 - 40, COUNTER_MAX - 79]
)
def test_counters_around_the_limits_of_their_words(
    rng: random.Random, ours: Ours, counter: int
) -> None:
    """Eighty packets, so the carry falls into the middle, and the last counter of all is used."""
    plains = [rng.randbytes(rng.randrange(150)) for _ in range(80)]
    ours.agrees(rng, rng.randbytes(32), counter, plains)


def test_openssl_opens_what_we_seal(rng: random.Random, ours: Ours) -> None:
    key, counter = rng.randbytes(32), rng.getrandbits(60)
    plains = [rng.randbytes(rng.randrange(1500)) for _ in range(100)]
    for i, packet in enumerate(ours.seal(rng, key, counter, plains)):
        assert openssl_opens(key, counter + i, packet) == plains[i]
        assert openssl_opens(key, counter + i + 1, packet) is None


# ---- forgeries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 64, 65, 150, 577, 1420])
def test_every_bit_of_a_packet_and_its_tag_counts(
    rng: random.Random, ours: Ours, length: int
) -> None:
    key, counter, plain = rng.randbytes(32), rng.getrandbits(60), rng.randbytes(length)
    sealed = openssl_seal(key, counter, plain)
    forged = []
    for bit in range(len(sealed) * 8):
        packet = bytearray(sealed)
        packet[bit // 8] ^= 1 << bit % 8
        forged.append((counter, bytes(packet)))
    for start in range(0, len(forged), 100):
        batch = forged[start : start + 100]
        place = rng.randrange(len(batch) + 1)
        batch.insert(place, (counter, sealed))
        opened = ours.open(rng, key, batch)
        assert [i for i, result in enumerate(opened) if result is not None] == [place]
        assert opened[place] == plain


def test_every_bit_of_key_and_counter_counts(rng: random.Random, ours: Ours) -> None:
    key, counter, plain = rng.randbytes(32), rng.getrandbits(64), rng.randbytes(77)
    sealed = openssl_seal(key, counter, plain)
    batch = [(counter ^ 1 << bit, sealed) for bit in range(64)]
    assert ours.open(rng, key, [*batch, (counter, sealed)]) == [None] * 64 + [plain]
    for bit in range(256):
        other = bytearray(key)
        other[bit // 8] ^= 1 << bit % 8
        assert ours.open(rng, bytes(other), [(counter, sealed)]) == [None]


def test_shortened_lengthened_and_exchanged_packets_are_refused(
    rng: random.Random, ours: Ours
) -> None:
    key, plains = rng.randbytes(32), [rng.randbytes(n) for n in (40, 40, 96)]
    sealed = [openssl_seal(key, i, plain) for i, plain in enumerate(plains)]
    batch = [(0, sealed[1]), (1, sealed[0])]
    batch += [(i, packet[:size]) for i, packet in enumerate(sealed) for size in (16, 17, 32, 55)]
    batch += [(i, packet + bytes(more)) for i, packet in enumerate(sealed) for more in (1, 16, 64)]
    # Body and tag of different packets of one key.
    batch += [(0, sealed[0][:-TAG] + sealed[1][-TAG:])]
    assert ours.open(rng, key, batch) == [None] * len(batch)


def test_in_a_mixed_batch_every_packet_gets_its_own_verdict(rng: random.Random, ours: Ours) -> None:
    for _ in range(60):
        key, most = rng.randbytes(32), rng.choice([0, 20, 200, 1500])
        batch, expected = [], []
        for _ in range(rng.randrange(1, 150)):
            counter, plain = rng.getrandbits(64), rng.randbytes(rng.randint(0, most))
            packet = bytearray(openssl_seal(key, counter, plain))
            is_forged = rng.random() < 0.3
            if is_forged:
                packet[rng.randrange(len(packet))] ^= 1 << rng.randrange(8)
            batch.append((counter, bytes(packet)))
            expected.append(None if is_forged else plain)
        assert ours.open(rng, key, batch) == expected


# ---- Poly1305 at its edges -----------------------------------------------------------------------

P = 2**130 - 5


def key_stream(key: bytes, counter: int, length: int) -> bytes:
    """From block 0, whose first half is the one-time key of Poly1305."""
    cipher = Cipher(algorithms.ChaCha20(key, bytes(8) + nonce(counter)[4:]), mode=None)
    return cipher.encryptor().update(bytes(length))


def clamped(one_time: bytes) -> int:
    return int.from_bytes(one_time[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF


def poly1305(one_time: bytes, blocks: Sequence[bytes]) -> bytes:
    """RFC 8439 section 2.5 over whole blocks, in numbers without limbs."""
    r, accumulator = clamped(one_time), 0
    for block in blocks:
        accumulator = (accumulator + int.from_bytes(block, "little") + 2**128) * r % P
    s = int.from_bytes(one_time[16:32], "little")
    return ((accumulator + s) % 2**128).to_bytes(16, "little")


def expect_ciphertext(
    rng: random.Random, ours: Ours, key: bytes, counter: int, ciphertext: bytes
) -> None:
    """Seals what gives this ciphertext."""
    stream = key_stream(key, counter, 64 + len(ciphertext))[64:]
    plain = bytes(a ^ b for a, b in zip(ciphertext, stream, strict=True))
    assert openssl_seal(key, counter, plain)[:-TAG] == ciphertext
    ours.agrees(rng, key, counter, [plain])


@pytest.mark.parametrize("fill", [0xFF, 0xFE, 0x00, 0x80, 0x7F, 0x01])
def test_ciphertexts_of_equal_bytes(rng: random.Random, ours: Ours, fill: int) -> None:
    for length in (1, 15, 16, 17, 32, 48, 64, 100, 160, 640):
        key, counter = rng.randbytes(32), rng.getrandbits(64)
        expect_ciphertext(rng, ours, key, counter, bytes([fill]) * length)


# What the accumulator may be before the last reduction: both sides of p, of 2^128 and of the limbs.
ACCUMULATORS = [
    *range(6),
    *(P - i for i in range(1, 7)),
    *(2**bits + i for bits in (26, 52, 64, 78, 104, 128, 129) for i in (-1, 0, 1)),
]


def test_accumulators_at_the_edges_of_the_field(rng: random.Random, ours: Ours) -> None:
    """Ciphertexts are chosen so that the accumulator ends, or passes, exactly there."""
    for target in ACCUMULATORS:
        for trailing in (0, 2):
            key, counter = rng.randbytes(32), rng.getrandbits(64)
            ciphertext = steer(rng, clamped(key_stream(key, counter, 32)), target, trailing)
            expect_ciphertext(rng, ours, key, counter, ciphertext)


def steer(rng: random.Random, r: int, target: int, trailing: int) -> bytes:
    """Two blocks after which the accumulator is `target`: with the block of lengths, or before
    `trailing` blocks of ones."""
    if trailing == 0:
        target = target * pow(r, -1, P) - (32 << 64) - 2**128
    return reach(rng, r, target, 2) + b"\xff" * 16 * trailing


def reach(rng: random.Random, r: int, target: int, count: int) -> bytes:
    """So many blocks after which the accumulator is `target`."""
    while True:
        blocks = [rng.getrandbits(128) for _ in range(count - 1)]
        accumulator = 0
        for block in blocks:
            accumulator = (accumulator + block + 2**128) * r % P
        last = (target * pow(r, -1, P) - accumulator - 2**128) % P
        if last < 2**128:  # about one in four
            return b"".join(block.to_bytes(16, "little") for block in [*blocks, last])


# ---- Poly1305 by itself --------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """Poly1305 with limbs of so many bits."""

    library: ctypes.CDLL
    limb_bits: int

    def tag(self, key: bytes, blocks: bytes) -> bytes:
        assert len(key) == 32
        assert len(blocks) % 16 == 0
        tag = ctypes.create_string_buffer(16)
        self.library.pywg_test_poly1305(self.limb_bits, key, blocks, len(blocks) // 16, tag)
        return tag.raw

    def agrees(self, key: bytes, blocks: bytes) -> None:
        expected = Poly1305.generate_tag(key, blocks)
        assert self.tag(key, blocks) == expected, f"{key.hex()=}, {blocks.hex()=}"


@pytest.fixture(params=[26, 64])
def form(library: ctypes.CDLL, request: pytest.FixtureRequest) -> Form:
    return Form(library, request.param)


ONES = b"\xff" * 16


def little(value: int) -> bytes:
    return value.to_bytes(16, "little")


@pytest.mark.parametrize(
    ("r", "s", "blocks", "tag"),
    [
        (0, bytes(16), bytes(64), 0),
        (2, bytes(16), ONES, 3),
        (2, ONES, little(2), 3),
        (1, bytes(16), ONES + b"\xf0" + b"\xff" * 15 + little(0x11), 5),
        (1, bytes(16), ONES + b"\xfb" + b"\xfe" * 15 + b"\x01" * 16, 0),
        (2, bytes(16), b"\xfd" + b"\xff" * 15, 2**128 - 6),
    ],
    ids=["1", "7", "8", "9", "10", "11"],
)
def test_rfc_8439_appendix_a_3(form: Form, r: int, s: bytes, blocks: bytes, tag: int) -> None:
    """The vectors of whole blocks: sums around 2^128 and 2^130 - 5."""
    assert form.tag(little(r) + s, blocks) == little(tag)


def test_poly1305_with_r_at_the_limits_of_the_clamp(form: Form) -> None:
    """Beside blocks that fill every limb, up to twenty of them."""
    limits = [bytes(16), ONES, little(1), little(0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF), little(4)]
    limits += [little(1 << bit) for bit in range(128)]
    limits += [little((1 << 128) - 1 - (1 << bit)) for bit in range(128)]
    for r in limits:
        for s in (bytes(16), ONES):
            for fill in (0xFF, 0xFE, 0x80, 0x7F, 0x01, 0x00):
                for count in (0, 1, 2, 3, 4, 5, 20):
                    form.agrees(r + s, bytes([fill]) * 16 * count)


def test_poly1305_with_accumulators_at_the_edges_of_the_field(
    rng: random.Random, form: Form
) -> None:
    """At the end, and before further blocks. Small r reduce nothing; they need more blocks to get
    around p."""
    for target in ACCUMULATORS:
        for r in (rng.randbytes(16), ONES, little(1), little(2), little(5)):
            steered = reach(rng, clamped(r), target, 8)
            for s in (bytes(16), ONES, rng.randbytes(16)):
                for more in (0, 1, 2):
                    form.agrees(r + s, steered + ONES * more)


def test_poly1305_of_random_messages(rng: random.Random, form: Form) -> None:
    for _ in range(3000):
        form.agrees(rng.randbytes(32), rng.randbytes(16 * rng.randrange(100)))
