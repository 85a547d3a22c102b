"""What a packet costs a program through `pywg.Interface`, beside the same calls from C.

In turns: C (interface.c), reusable slots (`seal_into`, `open_into`), lists (`seal`, `receive`), so
that all have the same machine. Microseconds for each packet, the least of all rounds, and what that
is to C's. Python's part is counted whole: lengths and sources are told, what came out is listed;
what a socket would do, to fill the slots, is not counted on either side.

Then what an Interface takes of memory: without a peer, with one and a session, with 10 000 peers.

    scripts/bench_interface [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from time import perf_counter_ns

from pywg.keys import PrivateKey
from pywg.native import library
from pywg.native.batch import Batch
from pywg.native.interface import Interface, Verdict
from tools.bench.interruption import be_interruptible
from tools.build import core

SOURCE = Path(__file__).with_name("interface.c")
HEADER = core.ROOT / "core" / "include"
COUNTS = (1, 8, 64)
# 0: each packet of another one than that before, as in interface.c
LENGTHS = (1420, 64, 0)
MIXED = (64, 1420, 576, 1200, 96, 1420, 300, 1000)
# In one round, which is short: the machine is somebody else's in between.
PACKETS = 256
ADDRESS = ("192.0.2.1", 1)
WAYS = ("C", "slots", "lists")
MANY_PEERS = 10_000

Cost = tuple[float, float]  # to seal, to receive, in microseconds


def compile_c(folder: Path) -> Path:
    built = library.find().parent
    program = folder / "interface"
    linked = [f"-L{built}", "-lpywg", f"-Wl,-rpath,{built}"]
    command = [*core.find_zig(), "cc", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{HEADER}"]
    subprocess.run([*command, str(SOURCE), *linked, "-o", str(program)], check=True)
    return program


def inner_packet(length: int) -> bytes:
    header = bytearray(20)
    header[0], header[8], header[9] = 0x45, 64, 17
    header[2:4] = length.to_bytes(2, "big")
    header[12:16], header[16:20] = ip_address("10.0.0.1").packed, ip_address("10.0.0.2").packed
    return bytes(header).ljust(length, b"\x5a")


def text(own: PrivateKey, peer: PrivateKey, inner: str) -> str:
    return (
        f"private_key={own.to_hex()}\npublic_key={peer.public.to_hex()}\n"
        f"endpoint=192.0.2.1:1\nallowed_ip={inner}/32\n"
    )


def pair() -> tuple[Interface, Interface]:
    """Two that have a session."""
    ours, theirs = PrivateKey.generate(), PrivateKey.generate()
    a, b = Interface(text(ours, theirs, "10.0.0.2")), Interface(text(theirs, ours, "10.0.0.1"))
    a.seal([inner_packet(64)])
    for sender, receiver in ((a, b), (b, a), (a, b)):
        receiver.receive([(datagram.data, ADDRESS) for datagram in sender.poll()])
    return a, b


def packets_of(count: int, length: int) -> list[bytes]:
    return [inner_packet(length or MIXED[i % len(MIXED)]) for i in range(count)]


class Slots:
    """`seal_into` and `open_into`, and what a program does with what they say."""

    def __init__(self, count: int, length: int) -> None:
        self.count, self.packets = count, packets_of(count, length)
        self.a, self.b = pair()
        self.batches = [Batch(count) for _ in range(PACKETS // count)]
        self.arriving = [Batch(count) for _ in self.batches]

    def round(self) -> Cost:
        count, own = self.count, [len(packet) for packet in self.packets]
        for batch in self.batches:
            for slot, packet in zip(batch.packets, self.packets, strict=True):
                slot[: len(packet)] = packet
        begin = perf_counter_ns()
        for batch in self.batches:
            lengths = [length for length in own]  # noqa: C416 - a loop, as around a socket
            self.a.seal_into(batch, lengths)
            sealed = batch.sealed()
        middle = perf_counter_ns()
        assert len(sealed) == count
        told = [batch.lengths.tolist() for batch in self.batches]
        for batch, other in zip(self.batches, self.arriving, strict=True):
            for slot, filled in zip(other.datagrams, batch.datagrams, strict=True):
                slot[:] = filled
        begin_open = perf_counter_ns()
        for batch, sizes in zip(self.arriving, told, strict=True):
            lengths, sources = [], []
            for size in sizes:
                lengths.append(size)
                sources.append(ADDRESS)
            self.b.open_into(batch, lengths, sources)
            opened = batch.opened()
        end = perf_counter_ns()
        assert len(opened) == count and bytes(opened[-1]) == self.packets[-1]
        packets = len(self.batches) * count * 1000
        return (middle - begin) / packets, (end - begin_open) / packets


class Lists:
    """`seal` and `receive`."""

    def __init__(self, count: int, length: int) -> None:
        self.count, self.packets = count, packets_of(count, length)
        self.a, self.b = pair()

    def round(self) -> Cost:
        calls = PACKETS // self.count
        packets = self.packets
        begin = perf_counter_ns()
        results = [self.a.seal(packets) for _ in range(calls)]
        middle = perf_counter_ns()
        datagrams = [[(sent.data, ADDRESS) for sent in result] for result in results]
        begin_open = perf_counter_ns()
        for batch in datagrams:
            received = self.b.receive(batch)
        end = perf_counter_ns()
        assert received[-1].verdict is Verdict.DELIVER and received[-1].data == packets[-1]
        number = calls * self.count * 1000
        return (middle - begin) / number, (end - begin_open) / number


def measure(program: Path, count: int, length: int, rounds: int) -> dict[str, Cost]:
    def c_round() -> Cost:
        command = [str(program), str(count), str(length), "40"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        seal, receive = map(float, said.split())
        return seal, receive

    slots, lists = Slots(count, length), Lists(count, length)
    ways: dict[str, tuple[Callable[[], Cost], int]] = {
        "C": (c_round, 1),
        "slots": (slots.round, 40),
        "lists": (lists.round, 40),
    }
    best: dict[str, Cost] = dict.fromkeys(WAYS, (float("inf"), float("inf")))
    for _ in range(rounds):
        for name, (run, times) in ways.items():
            for _ in range(times):
                seal, receive = run()
                best[name] = min(best[name][0], seal), min(best[name][1], receive)
    return best


# ---- memory --------------------------------------------------------------------------------------


def resident() -> int:
    """KiB of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def memory_of(make: Callable[[], object], number: int) -> float:
    """KiB for each of what is made, the first few apart, which also bring what all share."""
    kept = [make() for _ in range(3)]
    gc.collect()
    before = resident()
    kept += [make() for _ in range(number)]
    gc.collect()
    return (resident() - before) / number


def many_peers() -> Interface:
    own = f"private_key={PrivateKey.generate().to_hex()}\n"
    interface = Interface(own)
    # In portions: the text is not what is measured.
    for first in range(0, MANY_PEERS, 500):
        interface.set(
            "".join(
                f"public_key={os.urandom(32).hex()}\nendpoint=192.0.2.1:1\n"
                f"allowed_ip=10.{number >> 8}.{number & 255}.1/32\n"
                for number in range(first, first + 500)
            )
        )
    return interface


def memory() -> dict[str, float]:
    return {
        "KiB an interface without a peer": memory_of(Interface, 50),
        "KiB an interface with a session": memory_of(pair, 25) / 2,
        "KiB a peer of 10 000": memory_of(many_peers, 1) / MANY_PEERS,
    }


def main() -> None:
    be_interruptible()
    parser = argparse.ArgumentParser(
        prog="bench_interface",
        description="What a packet costs through pywg.Interface, beside C, and its memory.",
    )
    parser.add_argument("--rounds", type=int, default=10, help="of all in turns (default 10)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    found: dict[str, dict[str, Cost]] = {}
    used = memory()
    with tempfile.TemporaryDirectory() as folder:
        program = compile_c(Path(folder))
        for length in LENGTHS:
            # A call has one length, if it has one packet.
            for count in COUNTS[length == 0 :]:
                best = measure(program, count, length, options.rounds)
                found[f"{length or 'mixed'} bytes, {count} a call"] = best
                if not options.json:
                    show(length, count, best)
    if options.json:
        json.dump({"us": found, "memory": used}, sys.stdout, indent=1)
        print()
        return
    for what, kib in used.items():
        print(f"{kib:8.1f} {what}")


def show(length: int, count: int, best: dict[str, Cost]) -> None:
    words = [f"{length or 'mixed':>5} bytes, {count:3} a call:"]
    for name, costs in best.items():
        pairs = " / ".join(f"{cost:.2f}" for cost in costs)
        ratios = " / ".join(f"{cost / c:.2f}" for cost, c in zip(costs, best["C"], strict=True))
        words.append(f"{name} {pairs} us" + ("" if name == "C" else f" ({ratios} x)"))
    print("  ".join(words), flush=True)


if __name__ == "__main__":
    main()
