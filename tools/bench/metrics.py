"""What a scrape takes, of an interface with many peers, and what it takes from the tunnel.

    scripts/bench_metrics [--peers N] [--rounds N]

`pywg exporter` is asked over HTTP for an interface with N peers that never had a session; beside it
an echo request goes through the tunnel each millisecond. Told are medians over the rounds: the
scrape, what the interface took to answer, the size, and the longest answer to an echo request
without and with scrapes. Needs root, and prometheus-client.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tools.lab.lab import Lab
from tools.lab.namespaces import sweep
from tools.lab.prober import probing
from tools.lab.programs import REPOSITORY
from tools.lab.silent import request, silent_peers


def exporter(name: str) -> tuple[subprocess.Popen[str], str]:
    """`pywg exporter` on a port that the kernel chooses, and its address."""
    options = ("--listen", "127.0.0.1:0", "--timeout", "30")
    process = subprocess.Popen(
        [sys.executable, "-m", "pywg", "exporter", *options, name],
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stderr is not None
    found = re.search(r"http://\S+", process.stderr.readline())
    assert found is not None
    return process, found[0]


def scrape(address: str) -> tuple[float, str]:
    """Seconds, and the text."""
    began = time.monotonic()
    with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - of our own
        text = answer.read().decode()
    return time.monotonic() - began, text


def measure(count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="pywg-metrics-") as directory:
        lab = Lab(Path(directory))
        try:
            tunnel = lab.tunnel(log_level="error")
            tunnel.session()
            name = tunnel.a.daemon.name
            request(tunnel.a.daemon, "set=1\n" + silent_peers(count, "192.0.2.99", keepalive=0))
            process, address = exporter(name)
            try:
                with probing(tunnel.b.namespace, tunnel.a.inner4) as found:
                    began = time.monotonic()
                    time.sleep(2)
                    quiet = (began, time.monotonic())
                    began = time.monotonic()
                    cpu_s = -cpu_seconds(process.pid)
                    scrapes = [scrape(address) for _ in range(rounds)]
                    cpu_s += cpu_seconds(process.pid)
                    scraped = (began, time.monotonic())
                tell(count, scrapes, cpu_s / rounds)
                for words, (since, until) in (("without", quiet), ("with", scraped)):
                    worst, lost = found.worst(since, until) * 1e3, found.lost(since, until)
                    print(f"longest answer {words} scrapes {worst:.1f} ms, {lost} lost")
            finally:
                process.kill()
                process.wait()
        finally:
            lab.close()


def cpu_seconds(pid: int) -> float:
    """What a process has taken so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def tell(count: int, scrapes: list[tuple[float, str]], cpu_s: float) -> None:
    seconds = statistics.median(taken for taken, _ in scrapes)
    text = scrapes[-1][1]
    asked = re.search(r"^pywg_scrape_duration_seconds\{.*\} (\S+)", text, re.M)
    lines = sum(not line.startswith("#") for line in text.splitlines())
    print(
        f"{count} peers: a scrape {seconds:.2f} s, of which the interface and reading its answer "
        f"{float(asked[1]) if asked else 0:.2f} s; {cpu_s:.2f} CPU-s; "
        f"{lines} lines, {len(text) / 1e6:.1f} MB; medians of {len(scrapes)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench_metrics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces and TUN interfaces")
    sweep()
    measure(options.peers, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
