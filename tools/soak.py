"""Keeps a tunnel busy and disturbed for a long time, and looks whether anything grows or gets lost.

    scripts/soak [MINUTES] [--threads N]

Two daemons in namespaces of their own with a checked stream both ways, at a few hundred Mbit/s.
Every few seconds something happens: a peer comes or goes, a port or mark changes, the same
configuration comes again, the cable or the interface goes down and up. Every half minute the
stream must flow, and memory, descriptors and refused packets are written down. Ends with 1 if a
daemon ended, resident memory or descriptors grew after the first fifth, a session was not renewed,
or anything arrived changed, twice or from elsewhere. Needs root. The seed is printed; --seed
repeats what happens, not the packets.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.lab.keys import new_key
from tools.lab.lab import Lab, Side, Tunnel, handshake_seconds
from tools.lab.namespaces import sweep
from tools.lab.stream import Stream

MINUTES = 15.0
# Of whatever is sampled. A page is 4 KiB; a buffer that is touched for the first time is no leak.
GROWTH_MAX_KIB = 1024
FLOW_SECONDS = 20.0


@dataclass(frozen=True)
class Sample:
    seconds: float
    resident_kib: tuple[int, int]
    descriptors: tuple[int, int]
    memory_bytes: tuple[int, int]
    arrived: int
    handshake: int


def resident_kib(side: Side) -> int:
    pages = int(Path(f"/proc/{side.daemon.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def descriptors(side: Side) -> int:
    return len(list(Path(f"/proc/{side.daemon.pid}/fd").iterdir()))


class Trouble:
    """What happens to the tunnel, one thing at a time, put right before the next."""

    def __init__(self, tunnel: Tunnel, seed: int) -> None:
        self.tunnel = tunnel
        self.chance = random.Random(seed)
        self.kinds: list[Callable[[Side, Side], None]] = [
            self.strangers,
            self.port,
            self.mark,
            self.same_again,
            self.cable,
            self.interface,
            self.keepalive,
        ]

    def strike(self) -> str:
        sides = [self.tunnel.a, self.tunnel.b]
        self.chance.shuffle(sides)
        kind = self.chance.choice(self.kinds)
        kind(*sides)
        return kind.__name__

    def strangers(self, side: Side, _: Side) -> None:
        keys = [new_key().public for _ in range(self.chance.randrange(1, 200))]
        for what in (["allowed-ips", "10.77.0.0/16"], ["remove"]):
            side.daemon.set(*(word for key in keys for word in ("peer", key, *what)))

    def port(self, side: Side, other: Side) -> None:
        port = self.chance.randrange(20000, 30000)
        side.daemon.set("listen-port", str(port))
        other.daemon.set("peer", side.key.public, "endpoint", f"{side.outer4}:{port}")

    def mark(self, side: Side, _: Side) -> None:
        side.daemon.set("fwmark", str(self.chance.randrange(3)))

    def same_again(self, side: Side, other: Side) -> None:
        allowed = f"{other.inner4}/32,{other.inner6}/128"
        side.daemon.set("peer", other.key.public, "allowed-ips", allowed)

    def cable(self, side: Side, _: Side) -> None:
        side.namespace.ip("link", "set", "veth", "down")
        side.namespace.ip("link", "set", "veth", "up")

    def interface(self, side: Side, _: Side) -> None:
        side.namespace.ip("link", "set", side.daemon.name, "down")
        side.namespace.ip("link", "set", side.daemon.name, "up")

    def keepalive(self, side: Side, other: Side) -> None:
        seconds = str(self.chance.randrange(20))
        side.daemon.set("peer", other.key.public, "persistent-keepalive", seconds)


def soak(tunnel: Tunnel, seconds: float, trouble: Trouble) -> list[Sample]:
    samples: list[Sample] = []
    began = time.monotonic()
    every = max(2.0, min(30.0, seconds / 10))
    a, b = tunnel.a, tunnel.b
    there = Stream(a.namespace, b.namespace, b.inner4, source=a.inner4)
    back = Stream(b.namespace, a.namespace, a.inner6, source=b.inner6)
    with there, back:
        while (now := time.monotonic() - began) < seconds:
            next_look = now + every
            told = []
            while time.monotonic() - began < next_look:
                told.append(trouble.strike())
                for stream in (there, back):
                    expect_flow(stream, told[-1])
                time.sleep(trouble.chance.uniform(0.2, every / 4))
            samples.append(sample(tunnel, time.monotonic() - began, there.arrived + back.arrived))
            print(line(samples[-1], told), flush=True)
    return samples


def expect_flow(stream: Stream, after: str) -> None:
    try:
        stream.flows(FLOW_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error} (after {after})") from None


def sample(tunnel: Tunnel, seconds: float, arrived: int) -> Sample:
    sides = (tunnel.a, tunnel.b)
    return Sample(
        seconds,
        (resident_kib(sides[0]), resident_kib(sides[1])),
        (descriptors(sides[0]), descriptors(sides[1])),
        tuple(int(side.daemon.report()["memory_bytes"]) for side in sides),  # type: ignore[arg-type]
        arrived,
        handshake_seconds(tunnel.a, tunnel.b),
    )


def line(found: Sample, told: list[str]) -> str:
    kib = "/".join(map(str, found.resident_kib))
    fds = "/".join(map(str, found.descriptors))
    return (
        f"{found.seconds:6.0f} s  {kib} KiB  {fds} fds  {found.arrived} packets  {' '.join(told)}"
    )


def judge(samples: list[Sample], seconds: float) -> list[str]:
    """What is wrong. Growth is looked for between the first fifth and the last."""
    fifth = max(1, len(samples) // 5)
    first, last = samples[:fifth], samples[-fifth:]
    wrong = []
    for side, name in enumerate("ab"):
        grown = min(s.resident_kib[side] for s in last) - max(s.resident_kib[side] for s in first)
        if grown > GROWTH_MAX_KIB:
            wrong.append(f"{name} grew by {grown} KiB")
        more = min(s.descriptors[side] for s in last) - max(s.descriptors[side] for s in first)
        if more > 0:
            wrong.append(f"{name} has {more} descriptors more")
    if seconds > 300 and last[-1].handshake == first[0].handshake:
        wrong.append("the session was not renewed")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("minutes", nargs="?", type=float, default=MINUTES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces and TUN interfaces")
    sweep()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="pywg-soak-") as directory:
        lab = Lab(Path(directory))
        try:
            tunnel = lab.tunnel(
                environment={"PYWG_THREADS": str(options.threads)}, log_level="error"
            )
            for side in (tunnel.a, tunnel.b):  # IPv6 addresses would go with a link that goes down
                path = "/proc/sys/net/ipv6/conf/all/keep_addr_on_down"
                side.namespace.run("sh", "-c", f"echo 1 >{path}")
            tunnel.session()
            seconds = options.minutes * 60
            samples = soak(tunnel, seconds, Trouble(tunnel, options.seed))
            wrong = judge(samples, seconds)
        except AssertionError as error:
            wrong = [str(error)]
        finally:
            lab.close()
    for what in wrong:
        print(f"wrong: {what}")
    print("nothing grew, nothing was lost for good" if not wrong else f"seed {options.seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
