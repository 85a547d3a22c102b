"""Many gateways with one list of peers in etcd: what a change takes from the store to all of them.

    scripts/many_gateways [--peers N] [--gateways N] [--rate N] [--seconds N]

Prints the table of docs/peer-sources.md. A real etcd on loopback has the whole list, and each
gateway takes all of it:

    namespace "home"                                        namespaces g1, g2, ...
    +-------------------------------------------+         +----------------------+
    |  etcd  <--  this program, RATE changes/s  |         |  TUN of one gateway  |
    |    |                                      |         +----------------------+
    |    +-->  the follower of each gateway  -->  its device: UDP port here, TUN there
    +-------------------------------------------+

A change counts as applied when the follower has written it down (/var/lib/pywg), which it does
after the device took it: so figures are upper bounds. At the end the peers of each device are
compared with the list. Then etcd is killed and started again; then it forgets what happened while
the gateways did not look. Needs root; what it makes is removed again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from pywg.keys import PublicKey
from pywg.sources import cache, state
from pywg.sources.state import State
from pywg.tunnel.record import peers_of
from pywg.wireguard import socket as uapi_socket
from tools.lab import programs
from tools.lab.etcd import Etcd
from tools.lab.keys import new_key
from tools.lab.namespaces import Namespace, sweep, unique
from tools.lab.seclusion import seclude
from tools.lab.waiting import wait_until

PREFIX = "/wg/peers/"
LOAD_S, SETTLE_S = 600.0, 120.0
FIRST_PORT = 51000
TICKS = os.sysconf("SC_CLK_TCK")


class Book:
    """The list as it is to be: key in etcd -> its peer, an address of its own each."""

    def __init__(self, count: int) -> None:
        self._random = random.Random(20)
        self._next_address = int(IPv4Address("10.64.0.0"))
        self.entries: dict[str, dict[str, Any]] = {}
        self.serial = 0
        for _ in range(count):
            self.new()

    def new(self) -> str:
        key = str(PublicKey(self._random.randbytes(32)))
        name = f"p{len(self.entries) + self.serial:08}"
        self.entries[name] = {"publicKey": key, "allowedIPs": [self._address()]}
        return name

    def change(self) -> tuple[str, str | None]:
        """The next one: half give a peer another address, a quarter each adds and removes one. Of
        a text its ``name`` is the serial number, by which it is found again."""
        self.serial += 1
        match self.serial % 4:
            case 0:
                name = self.new()
            case 1:
                name = self._any()
                del self.entries[name]
                return name, None
            case _:
                name = self._any()
                self.entries[name]["allowedIPs"] = [self._address()]
        self.entries[name]["name"] = f"n{self.serial}"
        return name, json.dumps(self.entries[name])

    def texts(self) -> dict[str, str]:
        return {PREFIX + name: json.dumps(entry) for name, entry in self.entries.items()}

    def allowed_ips(self) -> set[str]:
        """As `wg show NAME allowed-ips` prints them."""
        return {f"{one['publicKey']}\t{one['allowedIPs'][0]}" for one in self.entries.values()}

    def _any(self) -> str:
        if not hasattr(self, "_names"):
            self._names = sorted(self.entries)
            self._random.shuffle(self._names)
        return self._names.pop()  # each is changed once

    def _address(self) -> str:
        self._next_address += 1
        return f"{IPv4Address(self._next_address)}/32"


@dataclass
class Gateway:
    """One tunnel; ``seen`` has when a change was found written down, by the monotonic clock."""

    number: int
    name: str
    space: Namespace
    file: Path
    seen: dict[str, float] = field(default_factory=dict)

    def state(self) -> State:
        return state.read(peers_of(self.name)) or State("")

    def pids(self) -> tuple[int, int]:
        """Who hosts the device, and who follows."""
        return uapi_socket.owner(self.name), self.state().pid

    def allowed_ips(self) -> set[str]:
        shown = subprocess.run(
            ["wg", "show", self.name, "allowed-ips"],
            capture_output=True, text=True, check=True, timeout=300,
        )  # fmt: skip
        return set(shown.stdout.splitlines())

    def tail(self, stop: threading.Event) -> None:
        """Reads what is written down as it comes."""
        with cache.path_of(self.name).open("rb") as file:
            file.seek(0, os.SEEK_END)
            unread = b""
            while not stop.is_set():
                data = file.read()
                if not data:
                    time.sleep(0.005)
                    continue
                now = time.monotonic()
                *lines, unread = (unread + data).split(b"\n")
                for line in map(json.loads, lines):
                    told = line["peers"][0].get("name", "") if line["peers"] else line["name"]
                    self.seen[told] = now


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far, and memory in MiB: resident, and of that what is nobody else's."""

    cpu_s: float
    rss_mib: float
    own_mib: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kib = {line.split()[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
        own = kib["Private_Dirty:"] + kib["Private_Clean:"]
        return cls((int(words[11]) + int(words[12])) / TICKS, kib["Rss:"] / 1024, own / 1024)


@contextlib.contextmanager
def gateways(home: Namespace, etcd: Etcd, count: int, directory: Path) -> Iterator[list[Gateway]]:
    made: list[Gateway] = []
    try:
        for number in range(1, count + 1):
            space, name = Namespace(f"g{number}"), unique("m")
            file = directory / f"{name}.conf"
            file.touch(0o600)
            file.write_text(
                f"[Interface]\nPrivateKey = {new_key().private}\nAddress = 10.0.0.{number}/8\n"
                f"ListenPort = {FIRST_PORT + number}\n"
            )
            made.append(Gateway(number, name, space, file))
        for one in made:
            source = f"etcd://127.0.0.1:{etcd.port}{PREFIX}"
            words = ("--peers", source, "--netns", one.space.name, "--threads", "1")
            answer = programs.pywg(home, "up", *words, str(one.file))
            assert answer.returncode == 0, answer.stderr
        yield made
    finally:
        for one in made:
            programs.pywg(home, "down", one.name)
            cache.path_of(one.name).unlink(missing_ok=True)
            one.space.close()


def loaded(found: list[Gateway], count: int, began: float) -> list[float]:
    """How long each took to have them all."""
    took: dict[int, float] = {}

    def all_there() -> bool:
        for one in found:
            if one.number not in took and one.state().peers == count:
                took[one.number] = time.monotonic() - began
        return len(took) == len(found)

    wait_until(all_there, "all gateways have all peers", seconds=LOAD_S, every=0.1)
    return [took[one.number] for one in found]


def drive(etcd: Etcd, book: Book, rate: float, seconds: float) -> dict[str, float]:
    """Writes at this rate; when each change was begun, by what it is found by."""
    begun: dict[str, float] = {}
    start = time.monotonic()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        name, text = book.change()
        begun[name if text is None else f"n{book.serial}"] = time.monotonic()
        if text is None:
            etcd.delete(PREFIX + name)
        else:
            etcd.put({PREFIX + name: text})
    return begun


def percentile(sorted_values: list[float], part: float) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(part * len(sorted_values)))]


def steady(found: list[Gateway], etcd: Etcd, book: Book, options: argparse.Namespace) -> None:
    stop = threading.Event()
    tails = [threading.Thread(target=one.tail, args=(stop,)) for one in found]
    for tail in tails:
        tail.start()
    pids = {f"gateway {one.number}": one.pids() for one in found}
    before = {pid: Usage.of(pid) for pair in pids.values() for pid in pair}
    before[etcd.pid] = Usage.of(etcd.pid)
    began = time.monotonic()
    begun = drive(etcd, book, options.rate, options.seconds)
    took = time.monotonic() - began
    with contextlib.suppress(AssertionError):
        wait_until(
            lambda: all(begun.keys() <= one.seen.keys() for one in found),
            "all changes are applied", seconds=SETTLE_S, every=0.05,
        )  # fmt: skip
    stop.set()
    for tail in tails:
        tail.join()
    print(f"\n{len(begun)} changes in {took:.1f} s ({len(begun) / took:.0f} a second)")
    print("| gateway | applied | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|")
    for one in found:
        values = sorted(one.seen[key] - at for key, at in begun.items() if key in one.seen)
        row = [f"{1000 * value:.0f}" for value in (
            percentile(values, 0.5), percentile(values, 0.99), values[-1]
        )]  # fmt: skip
        print(f"| {one.number} | {len(values)} | {' | '.join(row)} |")
    print("\n| process | CPU % of a core | RSS MiB | own MiB |\n|---|---|---|---|")
    named = {f"{name}, {what}": pid for name, pair in pids.items()
             for what, pid in zip(("device", "follower"), pair, strict=True)}  # fmt: skip
    for name, pid in (named | {"etcd": etcd.pid}).items():
        after = Usage.of(pid)
        part = 100 * (after.cpu_s - before[pid].cpu_s) / took
        print(f"| {name} | {part:.1f} | {after.rss_mib:.0f} | {after.own_mib:.0f} |")


def converged(found: list[Gateway], book: Book, what: str, began: float) -> None:
    """Until each device has just the peers of the list; a position alone is no proof."""
    wait_until(
        lambda: all(one.state().peers == len(book.entries) for one in found),
        what, seconds=LOAD_S, every=0.05,
    )  # fmt: skip
    took = time.monotonic() - began
    wait_until(
        lambda: all(one.allowed_ips() == book.allowed_ips() for one in found),
        f"{what}: the very peers of the list", seconds=SETTLE_S, every=1,
    )  # fmt: skip
    print(f"{what}: {took:.1f} s; all {len(found)} devices have exactly the list")


def disturbed(found: list[Gateway], etcd: Etcd, book: Book) -> None:
    etcd.stop()
    wait_until(lambda: all(one.state().error for one in found), "they notice", every=0.05)
    kept = [one.state().peers for one in found]
    assert kept == [len(book.entries)] * len(found), kept
    print(f"\netcd killed: {kept} peers stay")
    etcd.start()
    began = time.monotonic()
    etcd.put({PREFIX + book.new(): json.dumps(list(book.entries.values())[-1])})
    converged(found, book, "etcd is back, until a new peer is everywhere", began)
    etcd.stop()
    wait_until(lambda: all(one.state().error for one in found), "they notice", every=0.05)
    followers = [one.state().pid for one in found]
    for pid in followers:
        os.kill(pid, signal.SIGSTOP)
    try:
        etcd.start()
        drive(etcd, book, 1000, 0.2)
        etcd.put({PREFIX + book.new(): json.dumps(list(book.entries.values())[-1])})
        etcd.compact(etcd.revision())
    finally:
        for pid in followers:
            os.kill(pid, signal.SIGCONT)
    began = time.monotonic()
    converged(found, book, "201 changes missed and compacted, until all is read anew", began)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="many_gateways",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--peers", type=int, default=100_000, help="in the list (100000)")
    add("--gateways", type=int, default=4, help="each takes the whole list (4)")
    add("--rate", type=float, default=100, help="changes a second (100)")
    add("--seconds", type=float, default=30, help="of changes (30)")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if os.geteuid() != 0:
        print("many_gateways: needs root, to make network namespaces", file=sys.stderr)
        return 1
    sweep()
    seclude()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        directory = Path(folder)
        home = Namespace("home")
        stack.callback(home.close)
        etcd = Etcd(directory, home)
        stack.callback(etcd.close)
        book = Book(options.peers)
        began = time.monotonic()
        etcd.put(book.texts())
        print(f"{options.peers} peers written in {time.monotonic() - began:.1f} s")
        began = time.monotonic()
        with gateways(home, etcd, options.gateways, directory) as found:
            took = loaded(found, options.peers, began)
            print(f"all given after {', '.join(f'{one:.1f}' for one in took)} s")
            steady(found, etcd, book, options)
            converged(found, book, "afterwards", time.monotonic())
            disturbed(found, etcd, book)
    load = os.getloadavg()[0]
    print(f"\n{os.cpu_count()} cores; load of the machine at the end {load:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
