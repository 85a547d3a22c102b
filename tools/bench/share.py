"""What a flood leaves of a core to an ordinary program: `scripts/bench_flood --share`.

The daemon's thread and a program that computes all the time are held to one core, the flood comes
from another. Beside datagrams that go to a socket of nobody's concern the program loses what the
sender and the kernel take by themselves.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.lab.flood import TARGET, connect, flooding
from tools.lab.lab import PORT, Lab, Tunnel
from tools.lab.namespaces import Namespace

KINDS = ("valid", "junk", "elsewhere")
_PROGRAM = """
import sys, time
seconds, began, computed = float(sys.argv[1]), time.monotonic(), time.process_time()
while time.monotonic() - began < seconds:
    pass
print((time.process_time() - computed) / (time.monotonic() - began))
"""


def ordinary_program(core: int, seconds: float) -> float:
    """The share of the core, 0 to 1, that a program gets that computes all the time."""
    argv = ["taskset", "-c", str(core), sys.executable, "-c", _PROGRAM, str(seconds)]
    return float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def received(namespace: Namespace) -> int:
    """Datagrams that sockets of this namespace have been given (InDatagrams)."""
    lines = namespace.run("cat", "/proc/net/snmp").splitlines()
    return int([line.split() for line in lines if line.startswith("Udp:")][1][1])


def one_round(
    tunnel: Tunnel, flooder: Namespace, elsewhere: int, rates: list[int], seconds: float
) -> dict[tuple[str, int], tuple[float, float]]:
    """Share, and datagrams a second that were taken, by kind and rate."""
    core = max(os.sched_getaffinity(0))
    for thread in Path(f"/proc/{tunnel.a.daemon.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
    found = {("alone", 0): (ordinary_program(core, seconds), 0.0)}
    for rate in rates:
        for kind in KINDS:
            port = elsewhere if kind == "elsewhere" else PORT
            with flooding(flooder, port, tunnel.a.key.public, kind, rate, seconds + 10):
                before, began = received(tunnel.a.namespace), time.monotonic()
                share = ordinary_program(core, seconds)
                took = time.monotonic() - began
                found[kind, rate] = share, (received(tunnel.a.namespace) - before) / took
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
            with tunnel.a.namespace.socket() as sink:
                sink.bind((TARGET, 0))
                port = sink.getsockname()[1]
                measured = [one_round(tunnel, flooder, port, rates, seconds) for _ in range(rounds)]
        finally:
            lab.close()
    alone = statistics.median(found["alone", 0][0] for found in measured)
    print(f"an ordinary program alone: {alone:.0%} of the core")
    for rate in rates:
        for kind in KINDS:
            share = statistics.median(found[kind, rate][0] for found in measured)
            taken = statistics.median(found[kind, rate][1] for found in measured)
            read = "" if kind == "elsewhere" else f", {taken:.0f} a second taken"
            print(f"{rate:6} a second, {kind:9}: {share:.0%}{read}")
