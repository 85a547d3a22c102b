"""What a flood of handshake initiations takes from a session's throughput.

    scripts/bench_flood [--share] [--rounds N] [--seconds S] [--rates N ...]

One TCP stream through the tunnel, in turns: alone; beside a flood of initiations with a right MAC1
from 16 384 addresses; beside initiations without one; and beside as many datagrams of the same size
that go to a socket of nobody's concern, which shows what the sender and the kernel take by
themselves. Prints medians and ratios; needs root and iperf3. With --share instead: what is left of
the flooded core to an ordinary program (tools/bench/share.py).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from tools.bench import share
from tools.lab.flood import TARGET, connect, flooding
from tools.lab.lab import PORT, Lab, Tunnel
from tools.lab.namespaces import Namespace, sweep
from tools.lab.traffic import iperf3, received_bits_per_second

KINDS = ("valid", "junk", "elsewhere")


def measure(tunnel: Tunnel, seconds: float) -> float:
    """Gbit/s into the side that is flooded."""
    report = iperf3(tunnel.b.namespace, tunnel.a.namespace, tunnel.a.inner4, seconds)
    return received_bits_per_second(report) / 1e9


def one_round(
    tunnel: Tunnel, flooder: Namespace, elsewhere: int, rates: list[int], seconds: float
) -> dict[tuple[str, int], float]:
    found = {("alone", 0): measure(tunnel, seconds)}
    for rate in rates:
        for kind in KINDS:
            port = elsewhere if kind == "elsewhere" else PORT
            key = tunnel.a.key.public
            with flooding(flooder, port, key, kind, rate, seconds + 10):
                found[kind, rate] = measure(tunnel, seconds)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench_flood",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rates", type=int, nargs="+", default=[1000, 10_000, 50_000])
    parser.add_argument("--share", action="store_true")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces and TUN interfaces")
    sweep()
    if options.share:
        share.report(options.rates, options.rounds, options.seconds)
        return 0
    with tempfile.TemporaryDirectory(prefix="pywg-flood-") as directory:
        lab = Lab(Path(directory))
        try:
            tunnel, flooder = lab.tunnel(log_level="error"), lab.namespace("f")
            connect(tunnel.a.namespace, flooder)
            tunnel.session()
            with tunnel.a.namespace.socket() as sink:
                sink.bind((TARGET, 0))
                port = sink.getsockname()[1]
                rounds = [
                    one_round(tunnel, flooder, port, options.rates, options.seconds)
                    for _ in range(options.rounds)
                ]
        finally:
            lab.close()
    alone = statistics.median(found["alone", 0] for found in rounds)
    print(f"alone: {alone:.2f} Gbit/s")
    for rate in options.rates:
        base = statistics.median(found["elsewhere", rate] for found in rounds)
        for kind in KINDS:
            median = statistics.median(found[kind, rate] for found in rounds)
            ratios = f"{median / alone:.2f} of alone, {median / base:.2f} of elsewhere"
            print(f"{rate:6} a second, {kind:9}: {median:.2f} Gbit/s, {ratios}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
