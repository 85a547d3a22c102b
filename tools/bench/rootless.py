"""What a program gets through a tunnel without root, beside the same tunnel by `pywg up`.

    scripts/bench_rootless [--rounds N] [--seconds S]

In each round, in turns: one TCP stream up and one down, by iperf3, through a tunnel of an ordinary
user's `pywg exec`, and through one of root's `pywg up` with the same file, with ordinary threads
and with realtime ones, which it has by default. The far end is one daemon throughout. Then how long
`pywg exec FILE -- true` takes. Needs root, for the namespaces, and iperf3.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tools.bench.interruption import be_interruptible
from tools.bench.tunnel import iperf
from tools.lab import ordinary, programs
from tools.lab.lab import Lab
from tools.lab.namespaces import sweep
from tools.lab.ordinary import Place, make_place
from tools.lab.seclusion import seclude

WAYS: dict[str, tuple[str, ...]] = {"up": (), "down": ("-R",)}
BASE = "pywg up, ordinary"


def argv(place: Place, seconds: float, flags: tuple[str, ...]) -> list[str]:
    return ["iperf3", "-J", "-c", place.far.inner4, "-t", str(math.ceil(seconds)), *flags]


def gbit(said: str) -> float:
    return iperf.carried(json.loads(said)).bits_per_second / 1e9


def by_exec(place: Place, seconds: float) -> dict[str, float]:
    words = [*ordinary.pywg("exec", "--wait", "30", str(place.file)), "--"]

    def transfer(*flags: str) -> str:
        command = [*words, *argv(place, seconds, flags)]
        return str(place.run(command, seconds=seconds + 60).stdout)

    return both_ways(place, transfer)


def by_up(priority: str) -> Callable[[Place, float], dict[str, float]]:
    def measure(place: Place, seconds: float) -> dict[str, float]:
        up = programs.pywg(place.host, "up", "--priority", priority, str(place.file))
        if up.returncode != 0:
            raise AssertionError(up.stderr)
        try:
            return both_ways(
                place,
                lambda *flags: place.host.run(*argv(place, seconds, flags), timeout=seconds + 30),
            )
        finally:
            programs.pywg(place.host, "down", str(place.file))

    return measure


def both_ways(place: Place, transfer: Callable[..., str]) -> dict[str, float]:
    found = {}
    for way, flags in WAYS.items():
        with iperf.server(place.far.namespace, place.far.inner4):
            found[way] = gbit(transfer(*flags))
    return found


CONTESTANTS: dict[str, Callable[[Place, float], dict[str, float]]] = {
    "pywg exec": by_exec,
    BASE: by_up("normal"),
    "pywg up, realtime": by_up("realtime"),
}


def begins(place: Place) -> float:
    """Seconds that the shortest command takes."""
    words = ordinary.pywg("exec", str(place.file))
    began = time.monotonic()
    place.run([*words, "--", "true"])
    nothing = time.monotonic()
    place.run([sys.executable, "-c", ""])
    return (nothing - began) - (time.monotonic() - nothing)


def rounds(place: Place, count: int, seconds: float) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    names = list(CONTESTANTS)
    for number in range(count):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            for way, value in CONTESTANTS[name](place, seconds).items():
                found.setdefault((name, way), []).append(value)
    return found


def report(found: dict[tuple[str, str], list[float]], starts: list[float]) -> str:
    lines = [f"{'Gbit/s (ratio to ' + BASE + ')':42} {'up':>15} {'down':>15}"]
    for name in CONTESTANTS:
        cells = []
        for way in WAYS:
            own, base = found[name, way], found[BASE, way]
            ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
            cells.append(f"{statistics.median(own):6.2f} ({ratio:.2f} x)")
        lines.append(f"{name:42} {cells[0]:>15} {cells[1]:>15}")
    lines.append(f"pywg exec FILE -- true: {1e3 * statistics.median(starts):.0f} ms")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench_rootless",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces and TUN interfaces")
    be_interruptible()
    sweep()
    seclude()
    with tempfile.TemporaryDirectory(prefix="pywg-rootless-") as directory:
        lab = Lab(Path(directory))
        try:
            with ordinary.folder() as folder:
                place = make_place(lab, folder, allowed="10.99.0.0/24", dns=False)
                found = rounds(place, options.rounds, options.seconds)
                starts = [begins(place) for _ in range(options.rounds)]
        finally:
            lab.close()
    print(report(found, starts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
