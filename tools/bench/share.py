"""What a flood leaves of a core to an ordinary program: `scripts/bench_flood --share`.

The daemon's thread, realtime, and a program that computes all the time are held to one core; the
flood comes in trains, so that its sender leaves the core to these two. What else the machine does
takes from both: so the program's part is told of what the two have had together.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tools.lab.flood import connect, flooding
from tools.lab.lab import PORT, Lab, Tunnel
from tools.lab.namespaces import Namespace

KINDS = ("valid", "junk")
_TICKS = os.sysconf("SC_CLK_TCK")
_PROGRAM = """
import sys, time
seconds, began, computed = float(sys.argv[1]), time.monotonic(), time.process_time()
while time.monotonic() - began < seconds:
    pass
print((time.process_time() - computed) / (time.monotonic() - began))
"""


class Shares(NamedTuple):
    """Parts of the core, 0 to 1; messages a second that the daemon has judged."""

    program: float
    daemon: float
    judged: float

    @property
    def of_both(self) -> float:
        return self.program / max(self.program + self.daemon, 1e-9)


def measure(tunnel: Tunnel, core: int, seconds: float) -> Shares:
    before, began = _spent(tunnel), time.monotonic()
    argv = ["taskset", "-c", str(core), sys.executable, "-c", _PROGRAM, str(seconds)]
    program = float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    took, after = time.monotonic() - began, _spent(tunnel)
    return Shares(program, (after[0] - before[0]) / took, (after[1] - before[1]) / took)


def _spent(tunnel: Tunnel) -> tuple[float, int]:
    """Seconds of CPU, and messages refused."""
    stat = Path(f"/proc/{tunnel.a.daemon.pid}/stat").read_text().rpartition(")")[2].split()
    report = tunnel.a.daemon.report()
    refused = sum(int(value) for key, value in report.items() if key.startswith("dropped_"))
    return (int(stat[11]) + int(stat[12])) / _TICKS, refused


def one_round(
    tunnel: Tunnel, flooder: Namespace, rates: list[int], seconds: float
) -> dict[tuple[str, int], Shares]:
    core = max(os.sched_getaffinity(0))
    for thread in Path(f"/proc/{tunnel.a.daemon.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
    found = {("alone", 0): measure(tunnel, core, seconds)}
    for rate in rates:
        for kind in KINDS:
            key = tunnel.a.key.public
            with flooding(flooder, PORT, key, f"{kind}-trains", rate, seconds + 10):
                found[kind, rate] = measure(tunnel, core, seconds)
    return found


def report(rates: list[int], rounds: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="pywg-share-") as directory:
        lab = Lab(Path(directory))
        try:
            environment = {"PYWG_PRIORITY": "realtime", "PYWG_THREADS": "1"}
            tunnel = lab.tunnel(log_level="error", environment=environment)
            flooder = lab.namespace("f")
            connect(tunnel.a.namespace, flooder)
            tunnel.session()
            measured = [one_round(tunnel, flooder, rates, seconds) for _ in range(rounds)]
        finally:
            lab.close()
    alone = statistics.median(found["alone", 0].program for found in measured)
    print(f"an ordinary program alone: {alone:.0%} of the core")
    for rate in rates:
        for kind in KINDS:
            shares = [found[kind, rate] for found in measured]
            program, daemon, judged = (
                statistics.median(column) for column in zip(*shares, strict=True)
            )
            of_both = statistics.median(one.of_both for one in shares)
            print(
                f"{rate:6} a second, {kind:5}: program {program:.0%}, daemon {daemon:.0%}, "
                f"{judged:.0f} a second judged; of both the program has {of_both:.0%}"
            )
