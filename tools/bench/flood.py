"""What a flood of handshakes, or of junk, takes from a tunnel.

    scripts/bench_flood [--only PART] [--rounds N] [--seconds S] [--rates N ...]

Four parts, each in turns with what it is compared with; medians and ratios are printed:

throughput  one TCP stream through the tunnel: alone; beside initiations with a right MAC1 from
            16 384 addresses; beside initiations without one; and beside as many datagrams of the
            same size that go to a socket of nobody's concern, which shows what the sender and the
            kernel take by themselves.
ping        the first ping of a new session, into the side that is flooded: alone; beside each kind
            of junk; and beside initiations with a right MAC1.
cpu         the daemon's processor time for each datagram, of each kind.
share       what is left of the flooded core to an ordinary program (tools/bench/share.py).

Needs root and iperf3. PYWGD=/path/to/pywgd measures another build. All is on one machine, where a
datagram's receiver runs within the sender's system call: a cookie reply costs the daemon what
the flooder's kernel does with it, too.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AbstractContextManager
from pathlib import Path

from tools.bench import share
from tools.lab.flood import KINDS, TARGET, connect, flooding
from tools.lab.lab import PORT, Lab, Tunnel
from tools.lab.namespaces import Namespace, sweep
from tools.lab.stream import RUSHED
from tools.lab.traffic import iperf3, received_bits_per_second

PARTS = ("throughput", "ping", "cpu", "share")
JUNK = tuple(kind for kind in KINDS if kind != "valid")
DEFAULT_RATES = {
    "throughput": [1000, 10_000, 50_000, 100_000],
    "ping": [60, 1000, 10_000, 50_000],
    "cpu": [50_000],
    "share": [50_000, 300_000],
}
# Two attempts that wait for their retransmission.
PATIENCE = 30


class Scene:
    """One tunnel, of which side a is flooded, and a socket of nobody's concern beside it."""

    def __init__(self, lab: Lab) -> None:
        self.tunnel: Tunnel = lab.tunnel(log_level="error")
        self.flooder: Namespace = lab.namespace("f")
        connect(self.tunnel.a.namespace, self.flooder)
        self.tunnel.session()
        self.sink = self.tunnel.a.namespace.socket()
        self.sink.bind((TARGET, 0))

    def flood(self, kind: str, rate: int, seconds: float) -> AbstractContextManager[None]:
        port = self.sink.getsockname()[1] if kind == "elsewhere" else PORT
        real = "valid" if kind == "elsewhere" else kind
        key = self.tunnel.a.key.public
        flood: AbstractContextManager[None] = flooding(self.flooder, port, key, real, rate, seconds)
        return flood


# ---- throughput ----


def measure(tunnel: Tunnel, seconds: float) -> float:
    """Gbit/s into the side that is flooded; 0 when the stream ended before its time."""
    report = iperf3(tunnel.b.namespace, tunnel.a.namespace, tunnel.a.inner4, seconds)
    if "sum_received" not in report["end"]:
        return 0.0
    return received_bits_per_second(report) / 1e9


def throughput(scene: Scene, options: argparse.Namespace, rates: list[int]) -> None:
    kinds = ("valid", "junk", "elsewhere")
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        found["alone", 0].append(measure(scene.tunnel, options.seconds))
        for rate in rates:
            for kind in kinds:
                with scene.flood(kind, rate, options.seconds + 10):
                    found[kind, rate].append(measure(scene.tunnel, options.seconds))
    alone = statistics.median(found["alone", 0])
    print(f"throughput alone: {alone:.2f} Gbit/s")
    for rate in rates:
        base = statistics.median(found["elsewhere", rate])
        for kind in kinds:
            median = statistics.median(found[kind, rate])
            ratios = f"{median / alone:.2f} of alone, {median / base:.2f} of elsewhere"
            print(f"{rate:6} a second, {kind:14}: {median:.2f} Gbit/s, {ratios}")


# ---- the first ping of a new session ----


def first_ping(tunnel: Tunnel) -> float:
    """Milliseconds from the first packet to its answer, a handshake included. Side b has no session
    and no cookie."""
    tunnel.b.daemon.setconf(tunnel.configuration("b"))
    time.sleep(10 * RUSHED)  # an initiation on the heels of the last one would be refused
    words = ("ping", "-n", "-c", "1", "-W", str(PATIENCE), tunnel.a.inner4)
    answer = tunnel.b.namespace.attempt(*words, timeout=PATIENCE + 10)
    took = re.search(r"time=([0-9.]+) ms", answer.stdout)
    return float(took[1]) if took else PATIENCE * 1000.0


def ping(scene: Scene, options: argparse.Namespace, rates: list[int]) -> None:
    cases = [(kind, rate) for rate in rates for kind in (*JUNK, "valid")]
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    alone: list[float] = []
    for kind, rate in cases:
        for _ in range(options.rounds):
            alone.append(first_ping(scene.tunnel))
            with scene.flood(kind, rate, PATIENCE + 60):
                found[kind, rate].append(first_ping(scene.tunnel))
    base = statistics.median(alone)
    print(f"first ping alone: {base:.1f} ms, slowest {max(alone):.1f}")
    for kind, rate in cases:
        times = found[kind, rate]
        median = statistics.median(times)
        ratio = f"{median / base:.2f} of alone, slowest {max(times):.1f} ms"
        print(f"{rate:6} a second, {kind:14}: {median:.1f} ms, {ratio}")


# ---- processor time ----


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _dropped(tunnel: Tunnel) -> int:
    report = tunnel.a.daemon.report()
    return sum(int(value) for name, value in report.items() if name.startswith("dropped_"))


def cpu(scene: Scene, options: argparse.Namespace, rates: list[int]) -> None:
    daemon = scene.tunnel.a.daemon
    for rate in rates:
        for kind in KINDS:
            costs, shares = [], []
            for _ in range(options.rounds):
                with scene.flood(kind, rate, options.seconds + 10):
                    time.sleep(0.3)
                    began, used = time.monotonic(), _cpu_seconds(daemon.process.pid)
                    dropped = _dropped(scene.tunnel)
                    time.sleep(options.seconds)
                    used = _cpu_seconds(daemon.process.pid) - used
                    dropped = _dropped(scene.tunnel) - dropped
                    passed = time.monotonic() - began
                costs.append(used / max(1, dropped) * 1e6)
                shares.append(dropped / passed)
            cost, arrived = statistics.median(costs), statistics.median(shares)
            print(f"{rate:6} a second, {kind:14}: {cost:.2f} us each, {arrived:.0f}/s arrived")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench_flood",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rates", type=int, nargs="+")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces and TUN interfaces")
    sweep()
    with tempfile.TemporaryDirectory(prefix="pywg-flood-") as directory:
        lab = Lab(Path(directory))
        try:
            scene = Scene(lab)
            for part in (options.only,) if options.only else PARTS:
                rates = options.rates or DEFAULT_RATES[part]
                if part == "share":
                    share.report(rates, options.rounds, options.seconds)
                    continue
                {"throughput": throughput, "ping": ping, "cpu": cpu}[part](scene, options, rates)
            scene.sink.close()
        finally:
            lab.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
