"""Packets in slots and in lists: what comes out is what went in, whoever's it is; and whatever is
wrong with an argument is said and does nothing."""

from __future__ import annotations

import json
import mmap
import random
import subprocess
import threading
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from pywg.errors import DeviceError, Status
from pywg.keys import PrivateKey, PublicKey
from pywg.native.batch import Batch
from pywg.native.interface import Interface, Now, Packet, Verdict, now

ROOT = Path(__file__).parents[2]
PEERS = 3
LENGTHS = [28, 29, 31, 32, 64, 500, 1419, 1420]


def ipv4(source: str, destination: str, length: int) -> bytes:
    header = bytearray(20)
    header[0], header[8], header[9] = 0x45, 64, 17
    header[2:4] = length.to_bytes(2, "big")
    header[12:16] = IPv4Address(source).packed
    header[16:20] = IPv4Address(destination).packed
    return bytes(header) + random.Random(length).randbytes(length - 20)


class Star:
    """A hub with a session with each of its peers. Peer ``i`` is 10.0.0.(i + 1) inside, and at
    192.0.2.(i + 1) or 2001:db8::(i + 1); the hub is 10.0.0.100."""

    def __init__(self) -> None:
        own = PrivateKey.generate()
        keys = [PrivateKey.generate() for _ in range(PEERS)]
        self.keys = [key.public for key in keys]
        self.at: list[tuple[str, int] | tuple[str, int, int, int]] = [
            (f"2001:db8::{i + 1}", 1000 + i, 0, 0) if i == 1 else (f"192.0.2.{i + 1}", 1000 + i)
            for i in range(PEERS)
        ]
        self.home = ("192.0.2.100", 1)
        lines = [f"private_key={own.to_hex()}"]
        for i, key in enumerate(self.keys):
            host = f"[{self.at[i][0]}]" if i == 1 else self.at[i][0]
            lines += [f"public_key={key.to_hex()}", f"endpoint={host}:{1000 + i}"]
            lines += [f"allowed_ip=10.0.0.{i + 1}/32"]
        self.hub = Interface("\n".join(lines) + "\n")
        self.peers = [
            Interface(
                f"private_key={key.to_hex()}\npublic_key={own.public.to_hex()}\n"
                "endpoint=192.0.2.100:1\nallowed_ip=10.0.0.100/32\n"
            )
            for key in keys
        ]
        for i, peer in enumerate(self.peers):
            self.hub.seal([self.to(i, 28)])
            for sender, receiver, address in (
                (self.hub, peer, self.home),
                (peer, self.hub, self.at[i]),
                (self.hub, peer, self.home),
            ):
                receiver.receive([(sent.data, address) for sent in sender.poll()])

    def to(self, peer: int, length: int) -> bytes:
        return ipv4("10.0.0.100", f"10.0.0.{peer + 1}", length)

    def close(self) -> None:
        for interface in (self.hub, *self.peers):
            interface.close()


@pytest.fixture
def star() -> Star:
    return Star()


def fill(views: tuple[memoryview, ...], contents: list[bytes]) -> list[int]:
    for view, content in zip(views, contents, strict=False):
        view[: len(content)] = content
    return [len(content) for content in contents]


def test_packets_of_every_length_to_every_peer_come_out_of_slots_as_they_went_in(
    star: Star,
) -> None:
    batch, other = Batch(24), Batch(24)
    for turn in range(3):
        whose = [(i + turn) % PEERS for i in range(24)]
        packets = [star.to(peer, LENGTHS[i % 8]) for i, peer in enumerate(whose)]
        lengths = fill(batch.packets, packets)
        star.hub.seal_into(batch, lengths)
        sealed = batch.sealed()
        assert [address for _, address in sealed] == [star.at[peer] for peer in whose]
        assert [star.hub.peer_key(peer) for peer in batch.peers] == [star.keys[i] for i in whose]
        assert [len(view) for view, _ in sealed] == batch.lengths.tolist()
        for peer in range(PEERS):
            mine = [bytes(view) for (view, _), i in zip(sealed, whose, strict=True) if i == peer]
            star.peers[peer].open_into(other, fill(other.datagrams, mine), star.home)
            wanted = [packet for packet, i in zip(packets, whose, strict=True) if i == peer]
            assert [bytes(view) for view in other.opened()] == wanted
            assert other.verdicts[: len(mine)].tolist() == [Verdict.DELIVER] * len(mine)
            assert {star.peers[peer].peer_key(i) for i in other.peers[: len(mine)]} != set()
    star.close()


def test_one_batch_serves_both_directions_in_turns(star: Star) -> None:
    batch, peer = Batch(4), star.peers[0]
    for count in (4, 1, 3, 1, 4):
        out = [star.to(0, 100 + i) for i in range(count)]
        star.hub.seal_into(batch, fill(batch.packets, out))
        sealed = [(bytes(view), address) for view, address in batch.sealed()]
        assert len(sealed) == count
        peer.open_into(
            batch, fill(batch.datagrams, [data for data, _ in sealed]), [star.home] * count
        )
        assert [bytes(view) for view in batch.opened()] == out
        back = [ipv4("10.0.0.1", "10.0.0.100", 60 + i) for i in range(count)]
        peer.seal_into(batch, fill(batch.packets, back))
        home = [bytes(view) for view, _ in batch.sealed()]
        star.hub.open_into(batch, fill(batch.datagrams, home), star.at[0])
        assert [bytes(view) for view in batch.opened()] == back
    star.close()


def test_what_is_not_sealed_or_opened_is_left_out_and_told(star: Star) -> None:
    batch = Batch(4)
    packets = [star.to(0, 40), ipv4("10.0.0.100", "10.9.9.9", 40), b"\x10" * 30, star.to(1, 40)]
    star.hub.seal_into(batch, fill(batch.packets, packets))
    sealed = [(bytes(view), address) for view, address in batch.sealed()]
    assert [address for _, address in sealed] == [star.at[0], star.at[1]]
    told = [batch.result(slot) for slot in range(4)]
    assert [result.drop for result in told] == [None, "no_peer", "malformed_outgoing", None]
    assert told[1] == Packet(Verdict.DROPPED, drop="no_peer")
    assert [bool(result.peer) for result in told] == [True, False, False, True]
    changed = bytearray(sealed[0][0])
    changed[-1] ^= 1
    star.peers[0].open_into(
        batch, fill(batch.datagrams, [bytes(changed), sealed[0][0], sealed[0][0]]), star.home
    )
    assert [bytes(view) for view in batch.opened()] == [packets[0]]
    told = [batch.result(slot) for slot in range(3)]
    assert [result.drop for result in told] == ["not_authentic", None, "replayed"]
    assert [bool(result.peer) for result in told] == [False, True, True]
    assert [result.address for result in told] == [star.home] * 3
    with pytest.raises(IndexError):
        batch.result(3)
    star.close()


@pytest.mark.parametrize("count", [1, 2, 7, 64, 65, 200])
def test_lists_of_any_length_come_out_as_they_went_in(star: Star, count: int) -> None:
    for kind in (bytes, bytearray, memoryview):
        packets = [star.to(i % 2, LENGTHS[i % 8]) for i in range(count)]
        sealed = star.hub.seal([kind(packet) for packet in packets])
        assert [packet.verdict for packet in sealed] == [Verdict.SEALED] * count
        assert [packet.address for packet in sealed] == [star.at[i % 2] for i in range(count)]
        assert [star.hub.peer_key(p.peer) for p in sealed] == [
            star.keys[i % 2] for i in range(count)
        ]
        for peer in range(min(2, count)):
            datagrams = [(kind(packet.data), star.home) for packet in sealed[peer::2]]
            opened = star.peers[peer].receive(datagrams)
            assert [packet.data for packet in opened] == packets[peer::2]
            assert {packet.address for packet in opened} == {star.home}
    star.close()


def test_the_largest_packets_pass(star: Star) -> None:
    ours, theirs = PrivateKey.generate(), PrivateKey.generate()
    texts = [
        f"private_key={own.to_hex()}\npublic_key={peer.public.to_hex()}\n"
        f"endpoint=192.0.2.1:1\nallowed_ip=0.0.0.0/0\n"
        for own, peer in ((ours, theirs), (theirs, ours))
    ]
    a, b = (Interface(text, mtu=65535) for text in texts)
    packets = [ipv4("10.0.0.1", "10.0.0.2", length) for length in (65535, 28, 65000)]
    assert [p.verdict for p in a.seal(packets)] == [Verdict.STAGED] * 3
    for sender, receiver in ((a, b), (b, a), (a, b)):
        opened = receiver.receive([(sent.data, ("192.0.2.1", 1)) for sent in sender.poll()])
    assert [packet.data for packet in opened if packet.data] == packets
    (one,) = b.receive([(a.seal(packets[:1])[0].data, ("192.0.2.1", 1))])
    assert one.data == packets[0]
    star.close()


def test_a_list_of_nothing_is_nothing(star: Star) -> None:
    assert star.hub.seal([]) == [] == star.hub.receive([])
    batch = Batch(2)
    star.hub.seal_into(batch, [])
    assert batch.sealed() == []
    star.hub.open_into(batch, [], [])
    assert batch.opened() == []
    star.close()
    with pytest.raises(DeviceError) as caught:
        star.hub.seal([])
    assert caught.value.status == Status.CLOSED


def test_staged_packets_and_handshakes_come_into_slots() -> None:
    ours, theirs = PrivateKey.generate(), PrivateKey.generate()
    texts = [
        f"private_key={own.to_hex()}\npublic_key={peer.public.to_hex()}\n"
        f"endpoint=192.0.2.{port}:{port}\nallowed_ip=10.0.0.0/24\n"
        for own, peer, port in ((ours, theirs, 2), (theirs, ours, 1))
    ]
    a, b = Interface(texts[0]), Interface(texts[1])
    batch = Batch(2)
    packets = [ipv4("10.0.0.1", "10.0.0.2", 28 + i) for i in range(3)]
    a.seal_into(batch, fill(batch.packets, packets[:2]))
    assert batch.verdicts.tolist() == [Verdict.STAGED] * 2 and batch.sealed() == []
    assert all(batch.peers)
    a.seal(packets[2:])
    assert a.poll_into(batch) == 1
    for receiver, port in ((b, 1), (a, 2)):
        told = [bytes(view) for view, _ in batch.sealed()]
        receiver.open_into(batch, fill(batch.datagrams, told), (f"192.0.2.{port}", port))
        assert batch.verdicts[0] == Verdict.HANDSHAKE and batch.opened() == []
        number = receiver.poll_into(batch)
    assert number == 2  # as many as there is room for: there may be more
    came = [bytes(view) for view, _ in batch.sealed()]
    assert a.poll_into(batch) == 1
    came += [bytes(view) for view, _ in batch.sealed()]
    assert [
        packet.data for packet in b.receive([(data, ("192.0.2.1", 1)) for data in came])
    ] == packets


@pytest.mark.parametrize("make", [bytearray, lambda size: mmap.mmap(-1, size)])
def test_a_batch_works_in_memory_of_the_callers(star: Star, make: type[bytearray]) -> None:
    memory = make(4 * 256)
    batch = Batch(4, 256, memory=memory)
    packet = star.to(0, 100)
    memory[256 + 16 : 256 + 116] = packet
    star.hub.seal_into(batch, [28, 100])
    view, _ = batch.sealed()[-1]
    assert bytes(memory[256 : 256 + len(view)]) == bytes(view)
    assert star.peers[0].receive([(bytes(view), star.home)])[0].data == packet
    star.close()


def refused(star: Star) -> dict[str, object]:
    batch = Batch(2, 200)
    whole = Batch(2)
    long, short = [star.to(0, 40)], [len(star.to(0, 40))]
    home = star.home
    return {
        "more than slots": lambda: star.hub.seal_into(batch, [1, 2, 3]),
        "a negative length": lambda: star.hub.seal_into(batch, [-1]),
        "negative lengths": lambda: star.hub.seal_into(batch, [1, -1]),
        "a length that is none": lambda: star.hub.seal_into(batch, ["1", 1]),  # type: ignore[list-item]
        "one source too many": lambda: star.hub.open_into(batch, [32], [home] * 2),
        "a port": lambda: star.hub.receive([(bytes(32), ("192.0.2.1", 70000))]),
        "a port in a slot": lambda: star.hub.open_into(batch, [32], [("192.0.2.1", 70000)]),
        "a negative port": lambda: star.hub.receive([(bytes(32), ("192.0.2.1", -1))] * 2),
        "a name": lambda: star.hub.receive([(bytes(32), ("example.com", 1))]),
        "a zone": lambda: star.hub.receive([(bytes(32), ("fe80::1%eth0", 1))]),
        "no address": lambda: star.hub.receive([(bytes(32), "192.0.2.1")]),  # type: ignore[list-item]
        "now": lambda: star.hub.seal(long, Now(-1, 0)),
        "now that is too late": lambda: star.hub.expire(Now(1 << 64, 0)),
        "now that is none": lambda: star.hub.poll(-1),  # type: ignore[arg-type]
        "now in slots": lambda: star.hub.seal_into(whole, short, Now(0, -1)),
        "a str": lambda: star.hub.seal(["x"]),  # type: ignore[list-item]
        "a str among others": lambda: star.hub.seal(["x", b""]),  # type: ignore[list-item]
        "words": lambda: star.hub.seal([memoryview(bytes(64)).cast("I")] * 2),
        "words alone": lambda: star.hub.seal([memoryview(bytes(64)).cast("I")]),
        "an mtu": lambda: Interface(mtu=(1 << 32) + 1420),
        "a negative mtu": lambda: Interface(mtu=-1),
        "no slot": lambda: Batch(0),
        "too small": lambda: Batch(1, 147),
        "memory": lambda: Batch(2, 200, memory=bytearray(399)),
        "memory that cannot be written": lambda: Batch(2, 200, memory=memoryview(bytes(400))),
        "a peer": lambda: star.hub.peer_key(-1),
    }


@pytest.mark.parametrize("what", [*refused(Star())])
def test_what_cannot_be_meant_is_a_value_error_or_a_type_error(star: Star, what: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        refused(star)[what]()  # type: ignore[operator]
    assert str(caught.value)
    assert star.hub.seal([star.to(0, 28)])[0].verdict is Verdict.SEALED
    star.close()


def test_a_length_beyond_a_slot_is_refused_and_nothing_is_done(star: Star) -> None:
    batch = Batch(2, 200)
    with pytest.raises(DeviceError, match=r"out\[1\].capacity is less than") as caught:
        star.hub.seal_into(batch, [100, 153])
    assert caught.value.status == Status.BUFFER_TOO_SMALL
    with pytest.raises(DeviceError, match=r"packets\[1\].length is more than"):
        star.hub.open_into(batch, [100, 201], star.home)
    assert batch.sealed() == [] == batch.opened()
    with pytest.raises(DeviceError, match=r"packets\[0\].capacity is less than MTU"):
        star.hub.poll_into(batch)
    star.close()


def test_a_peer_has_its_number_until_it_is_removed(star: Star) -> None:
    hub = star.hub
    numbers = [hub.peer_number(key) for key in star.keys]
    assert len(set(numbers)) == PEERS and 0 not in numbers
    text = f"public_key={star.keys[1].to_hex()}\nremove=true\n"
    hub.set(text)
    for call in (lambda: hub.peer_key(numbers[1]), lambda: hub.peer_number(star.keys[1])):
        with pytest.raises(DeviceError) as caught:
            call()
        assert caught.value.status == Status.NOT_FOUND
    hub.set(f"public_key={star.keys[1].to_hex()}\n")
    again = hub.peer_number(star.keys[1])
    assert again not in numbers
    assert hub.peer_key(again) == star.keys[1]
    assert [hub.peer_number(star.keys[i]) for i in (0, 2)] == [numbers[0], numbers[2]]
    assert isinstance(hub.peer_key(numbers[0]), PublicKey)
    star.close()


def test_an_interface_that_is_used_while_another_seals_disturbs_nothing(star: Star) -> None:
    """Calls of all threads and interfaces share the memory that lists are sealed in."""
    wrong: list[str] = []

    def body(peer: int) -> None:
        for turn in range(100):
            packets = [star.to(peer, 28 + (turn + i) % 200) for i in range(1 + turn % 5)]
            datagrams = [(sent.data, star.home) for sent in star.hub.seal(packets)]
            if [packet.data for packet in star.peers[peer].receive(datagrams)] != packets:
                wrong.append(f"peer {peer}, turn {turn}")

    threads = [threading.Thread(target=body, args=(peer,)) for peer in range(PEERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    star.close()


def test_both_clocks_are_read() -> None:
    first, second = now(), now()
    assert first.boot_ns <= second.boot_ns and first.unix_ns > 1_600_000_000 * 10**9


def test_the_bench_says_what_a_packet_costs_and_what_an_interface_takes() -> None:
    pytest.importorskip("ziglang")
    command = [str(ROOT / "scripts" / "bench_interface"), "--rounds", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    rows = {(length, count) for length in (64, 1420, "mixed") for count in (1, 8, 64)}
    rows.remove(("mixed", 1))
    assert set(found["us"]) == {f"{length} bytes, {count} a call" for length, count in rows}
    for ways in found["us"].values():
        assert set(ways) == {"C", "slots", "lists"}
        assert all(0 < cost < 1000 for costs in ways.values() for cost in costs)
    # Of memory it may say more, for it does not depend on what else runs.
    used = found["memory"]
    assert used["KiB an interface without a peer"] < 40
    assert used["KiB an interface with a session"] < 100
    assert used["KiB a peer of 10 000"] < 1.5
