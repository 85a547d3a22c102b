"""Superpackets and batches made up here, segmented and coalesced by the core, judged by
tests/reference/offload.py.

The program of core/check/fuzz/rooms.zig answers over a pipe; segments.zig beside it says how.
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tools.fuzz.target import Mismatch
from tools.reference import offload
from tools.reference.offload import ACK, CWR, ECE, FIN, PSH, RST, SYN, TCP, UDP, URG, Vnet

REFUSED = 0xFFFFFFFF
Flow = tuple[bytes, int, bytes]


class Fields(TypedDict, total=False):
    """What of a packet can be chosen, as make_packet() takes it."""

    flags: int
    extensions: bytes
    ports: bytes
    last: int
    sequence: int
    identification: int
    tos: int
    ttl: int
    df: int
    label: int
    options: bytes


class Core:
    """The other end of the pipe."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout

    @staticmethod
    @contextmanager
    def start(program: Path, fault: str = "none") -> Iterator[Core]:
        command = [str(program), "segments", "--seed", "0", "--file", "/dev/stdin"]
        command += ["--fault", fault]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            core = Core(process)
            try:
                yield core
            finally:
                core._in.close()

    def split(self, vnet: Vnet, packet: bytes) -> list[bytes] | None:
        answer = Reader(self._ask(b"S", vnet.pack() + packet))
        count = answer.number("I")
        return None if count == REFUSED else [answer.packet() for _ in range(count)]

    def coalesce(self, packets: list[bytes], tcp: bool = True, udp: bool = True) -> list[Frame]:
        body = bytes([tcp | udp << 1]) + struct.pack("<H", len(packets))
        body += b"".join(struct.pack("<I", len(packet)) + packet for packet in packets)
        answer = Reader(self._ask(b"C", body))
        return [answer.frame() for _ in range(answer.number("I"))]

    def _ask(self, kind: bytes, body: bytes) -> bytes:
        try:
            self._in.write(kind + struct.pack("<I", len(body)) + body)
            self._in.flush()
        except BrokenPipeError:
            raise Mismatch("the core ended") from None
        head = self._out.read(4)
        if len(head) < 4 or head in (b"pani", b"cras", b"mism"):
            raise Mismatch(f"the core ended: {(head + self._out.readline()).decode()}")
        return self._out.read(*struct.unpack("<I", head))


@dataclass(frozen=True)
class Frame:
    vnet: bytes
    packet: bytes
    indexes: list[int]


@dataclass
class Reader:
    data: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, kind: str) -> int:
        return int(struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)))[0])

    def packet(self) -> bytes:
        return self.take(self.number("I"))

    def frame(self) -> Frame:
        vnet, packet = self.take(10), self.packet()
        return Frame(vnet, packet, [self.number("H") for _ in range(self.number("H"))])


def iterate(core: Core, rng: random.Random) -> None:
    judge_superpacket(core, rng)
    judge_batch(core, make_batch(rng))


# ---- one superpacket -----------------------------------------------------------------------------


def judge_superpacket(core: Core, rng: random.Random) -> None:
    vnet, packet, start, plain = make_superpacket(rng)
    expected = offload.segment(vnet, packet, start)
    got = core.split(vnet, packet)
    if got is None:
        raise Mismatch(f"a good superpacket is refused: {vnet} {packet[:200].hex()}")
    for number, (one, other) in enumerate(zip(got, expected, strict=False)):
        if one != other:
            raise Mismatch(f"segment {number}: {one[:120].hex()}, not {other[:120].hex()}; {vnet}")
    if len(got) != len(expected):
        raise Mismatch(f"{len(got)} segments, not {len(expected)}; {vnet}")
    judge_batch(core, got)
    if plain:
        frames = core.coalesce(got)
        limit = 64 if vnet.gso_type == offload.UDP_L4 else 1022
        if 1 < len(got) <= limit and [len(frame.indexes) for frame in frames] != [len(got)]:
            raise Mismatch(f"segments do not come together again: {vnet} {packet[:120].hex()}")
        if len(got) in range(2, limit + 1) and frames[0].packet != packet:
            raise Mismatch(f"another superpacket: {vnet} {packet[:120].hex()}")


def make_superpacket(rng: random.Random) -> tuple[Vnet, bytes, int, bool]:
    """``plain`` when the segments can be joined again: no options of IP, no flags that say more."""
    protocol = rng.choice((TCP, UDP))
    size = rng.choice((1, 2, 3, 7, 100, 536, 1372, 1400, 1448, rng.randint(1, 9000)))
    count = rng.choice((1, 2, 3, rng.randint(1, 64)))
    tail = rng.choice((0, 1, size // 2, size - 1, size))
    length = min(size * (count - 1) + max(1, tail), 65000)
    flags = ACK | rng.choice((0, PSH))
    special = rng.random() < 0.3
    if special:
        flags |= rng.choice((FIN, CWR, ECE, URG, SYN, CWR | FIN | PSH))
    v6 = rng.random() < 0.5
    extensions = b""
    if rng.random() < 0.2:
        extensions = make_extensions(rng) if v6 else rng.choice((b"\1" * 4, b"\x44\x04\5\0" * 3))
    packet, start = make_packet(
        rng, protocol, rng.randbytes(length), v6=v6, flags=flags, extensions=extensions
    )
    whole = bytearray(packet)
    offload.put_seed(whole, protocol, start)
    kind = offload.UDP_L4 if protocol == UDP else offload.TCPV6 if v6 else offload.TCPV4
    head = rng.choice((start, start + 20, 0, 14))
    offset = 6 if protocol == UDP else 16
    vnet = Vnet(offload.NEEDS_CSUM, kind, head, size, start, offset)
    plain = not extensions and not (special and protocol == TCP)
    return vnet, bytes(whole), start, plain


def make_extensions(rng: random.Random) -> bytes:
    """Hop-by-hop or destination options; the next header is put in later."""
    return bytes([0, 0, 1, 4, 0, 0, 0, 0]) * rng.randint(1, 3)


def make_packet(
    rng: random.Random,
    protocol: int,
    payload: bytes,
    *,
    v6: bool,
    flags: int = ACK,
    extensions: bytes = b"",
    ports: bytes = b"\x12\x34\0\x50",
    last: int = 1,
    sequence: int | None = None,
    identification: int | None = None,
    tos: int = 0,
    ttl: int = 64,
    df: int = 0x40,
    label: int = 0x12345,
    options: bytes = b"",
) -> tuple[bytes, int]:
    """A whole packet, checksums included, and where its transport header begins."""
    if protocol == UDP:
        transport = ports + struct.pack("!HH", 8 + len(payload), 0)
    else:
        number = rng.getrandbits(32) if sequence is None else sequence
        offset = (20 + len(options)) // 4 << 4
        transport = ports + struct.pack("!IIBBHHH", number, 77, offset, flags, 500, 0, 0) + options
    if v6:
        head = struct.pack("!IHBB", 6 << 28 | tos << 20 | label, 0, protocol, ttl)
        head += bytes(15) + b"\7" + bytes(15) + bytes([last])
        if extensions:
            head = head[:6] + b"\x3c" + head[7:]
            parts = [bytearray(extensions[at : at + 8]) for at in range(0, len(extensions), 8)]
            for number, part in enumerate(parts):
                part[0] = protocol if number + 1 == len(parts) else 60
            head += b"".join(map(bytes, parts))
    else:
        number = rng.getrandbits(16) if identification is None else identification
        header = 0x45 + len(extensions) // 4
        head = struct.pack("!BBHHBBBBH", header, tos, 0, number, df, 0, ttl, protocol, 0)
        head += bytes([10, 0, 0, 7, 10, 0, 0, last]) + extensions
    packet = bytearray(head + transport + payload)
    offload.put_lengths(packet)
    offload.put_checksum(packet, protocol, len(head))
    return bytes(packet), len(head)


# ---- a batch -------------------------------------------------------------------------------------


def judge_batch(core: Core, packets: list[bytes]) -> None:
    packets = packets[:1000]
    frames = core.coalesce(packets)
    indexes = [index for frame in frames for index in frame.indexes]
    if sorted(indexes) != list(range(len(packets))):
        raise Mismatch("a packet is lost or there twice")
    for frame in frames:
        judge_frame(frame, [packets[index] for index in frame.indexes])
    judge_order(packets, indexes)


def judge_frame(frame: Frame, members: list[bytes]) -> None:
    if len(members) == 1:
        if frame.packet != members[0] or any(frame.vnet):
            raise Mismatch(f"a single packet is changed: {members[0][:120].hex()}")
        return
    vnet = Vnet(*offload.HEADER.unpack(frame.vnet))
    if (vnet, frame.packet) != offload.join(members):
        raise Mismatch(f"another superpacket: {vnet} {frame.packet[:120].hex()}")
    again = offload.segment(vnet, frame.packet)
    if [unnumbered(packet, members) for packet in again] != members:
        raise Mismatch(f"segments are not what was joined: {vnet} {frame.packet[:120].hex()}")


def unnumbered(packet: bytes, members: list[bytes]) -> bytes:
    """Numbers that count up from what were all zeros with DF are the one thing that is lost."""
    is_fixed = members[0][0] >> 4 == 4 and members[0][6] & 0x40
    if not is_fixed or any(member[4:6] != b"\0\0" for member in members):
        return packet
    changed = bytearray(packet)
    changed[4:6] = b"\0\0"
    offload.put_lengths(changed)
    return bytes(changed)


def judge_order(packets: list[bytes], indexes: list[int]) -> None:
    """Inside each flow, and between it and what may belong to it."""
    latest: dict[Flow, int] = {}
    hidden: dict[bytes, int] = {}
    between: dict[bytes, int] = {}
    for index in indexes:
        flow = flow_of(packets[index])
        if flow is None:
            continue
        pair = flow[0]
        before = between.get(pair, -1) if not flow[2] else hidden.get(pair, -1)
        before = max(before, latest.get(flow, -1))
        if index < before:
            raise Mismatch(f"packet {index} is overtaken by {before}: {packets[index][:80].hex()}")
        latest[flow] = index
        if not flow[2]:
            hidden[pair] = index
        between[pair] = max(index, between.get(pair, -1))


def flow_of(packet: bytes) -> Flow | None:
    """Addresses, protocol and ports; without ports where they cannot be seen."""
    if packet[0] >> 4 == 4:
        protocol, start, pair = packet[9], (packet[0] & 15) * 4, packet[12:20]
        is_hidden = start != 20 or int.from_bytes(packet[6:8]) & 0x3FFF != 0
    else:
        protocol, start, pair = packet[6], 40, packet[8:40]
        is_hidden = protocol in (0, 43, 44, 60)
    if is_hidden:
        return pair, 0, b""
    return (pair, protocol, packet[start : start + 4]) if protocol in (TCP, UDP) else None


def make_batch(rng: random.Random) -> list[bytes]:
    """A few flows, interleaved, each going on as it should but for now and then."""
    flows = [make_flow(rng, number) for number in range(rng.randint(1, 6))]
    batch: list[bytes] = []
    while any(flows) and len(batch) < 400:
        flow = rng.choice([flow for flow in flows if flow])
        run = rng.choice((1, 1, 2, len(flow)))
        batch += flow[:run]
        del flow[:run]
    if rng.random() < 0.3:
        at = rng.randrange(len(batch))
        batch.insert(at, batch[rng.randrange(len(batch))])
    return batch


def make_flow(rng: random.Random, number: int) -> list[bytes]:
    protocol, v6 = rng.choice((TCP, UDP)), rng.random() < 0.5
    size = rng.choice((1, 2, 5, 100, 1372, 1400, rng.randint(1, 2000)))
    sequence = rng.choice((0, 0xFFFFFFF0, rng.getrandbits(32)))
    identification = rng.choice((0, 0xFFFE, rng.getrandbits(16)))
    step = rng.choice((0, 1, 1, 1))
    usual: Fields = {
        "ports": struct.pack("!HH", 1000 + number % 3, 80),
        "last": 1 + number % 2,
        "df": rng.choice((0x40, 0x40, 0)),
        "options": rng.choice((b"", b"\1\1\x08\x0a" + bytes(8))),
    }
    made = []
    for _ in range(rng.randint(1, 30)):
        length = size if rng.random() < 0.9 else rng.choice((0, 1, size - 1, size + 1))
        no_change: tuple[Fields, str] = ({}, "")
        odd, spoiled = no_change if rng.random() < 0.8 else make_odd(rng, v6)
        fields: Fields = {
            **usual,
            "sequence": sequence & 0xFFFFFFFF,
            "identification": identification & 0xFFFF,
            **odd,
        }
        packet, start = make_packet(rng, protocol, rng.randbytes(length), v6=v6, **fields)
        made.append(spoil(rng, packet, start, protocol, spoiled))
        sequence += length
        identification += step
    return made


def make_odd(rng: random.Random, v6: bool) -> tuple[Fields, str]:
    """One thing that is different about a packet, or how it is spoiled."""
    odd: list[tuple[Fields, str]] = [
        (
            {
                "flags": rng.choice(
                    (ACK | PSH, ACK | FIN, SYN, RST, ACK | URG, ACK | ECE, ACK | CWR)
                )
            },
            "",
        ),
        ({"tos": rng.choice((1, 2, 3, 0xB8))}, ""),
        ({"ttl": rng.choice((1, 63, 255))}, ""),
        ({"label": rng.getrandbits(20)}, ""),
        ({"df": rng.choice((0, 0x40, 0x80, 0x20))}, ""),
        ({"options": b"\1" * rng.choice((4, 8, 40))}, ""),
        ({"extensions": bytes([0, 0, 1, 4, 0, 0, 0, 0]) if v6 else b"\1\1\1\0"}, ""),
        ({"sequence": rng.getrandbits(32)}, ""),
        ({"identification": rng.getrandbits(16)}, ""),
        ({"identification": 0}, ""),
        ({}, "checksum"),
        ({}, "network"),
        ({}, "zero"),
        ({}, "ones"),
    ]
    return rng.choice(odd)


def spoil(rng: random.Random, packet: bytes, start: int, protocol: int, how: str) -> bytes:
    changed = bytearray(packet)
    at = start + (16 if protocol == TCP else 6)
    if how == "checksum":
        changed[rng.randrange(start + 4, len(changed))] ^= 1 << rng.randrange(8)
        if protocol == UDP:
            changed[start + 4 : start + 6] = packet[start + 4 : start + 6]
    elif how == "network" and packet[0] >> 4 == 4:
        changed[10] ^= 0x40
    elif how == "zero":
        changed[at : at + 2] = b"\0\0"
    elif how == "ones":
        changed[at : at + 2] = b"\xff\xff"
    return bytes(changed)
