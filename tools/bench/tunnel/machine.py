"""What stands above the figures: machine, kernel, versions, settings."""

from __future__ import annotations

import datetime
import os
import platform
import time
from pathlib import Path
from typing import Any

from tools.bench import clock, counters
from tools.bench.tunnel.contestants import Contestant, first_line, version

TICKS = os.sysconf("SC_CLK_TCK")
SYSCTLS = ("net/core/rmem_max", "net/core/wmem_max", "net/ipv4/tcp_congestion_control")


def surroundings(contestants: list[Contestant], absent: list[str]) -> dict[str, Any]:
    hertz = clock.hertz()
    absent = absent + [
        f"{what} for each byte: {why}"
        for what, why in (("cycles", clock.missing()), ("instructions", counters.missing()))
        if why
    ]
    return {
        "clock_ghz": None if hertz is None else round(hertz / 1e9, 3),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_features": cpu_features(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "kernel": platform.release(),
        "iperf3": first_line("iperf3", "--version"),
        "settings": {name.replace("/", "."): setting(name) for name in SYSCTLS},
        "load_before": round(os.getloadavg()[0], 2),
        "contestants": {one.label: version(one) for one in contestants},
        "notes": {one.label: one.note for one in contestants if one.note},
        "absent": absent,
        "underlays": {},
    }


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def cpu_features() -> list[str]:
    """Those that decide the speed of the cipher."""
    text = Path("/proc/cpuinfo").read_text().split()
    return [name for name in ("avx2", "avx512f", "avx512_ifma", "asimd") if name in text]


def setting(name: str) -> str:
    place = Path("/proc/sys") / name
    return place.read_text().strip() if place.exists() else "unknown"


class Watch:
    """What others did to the machine meanwhile; everything we start is our child."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.ours = own_seconds()
        self.busy, self.stolen = machine_seconds()

    def seen(self) -> dict[str, float]:
        elapsed = max(0.01, time.monotonic() - self.started)
        busy, stolen = machine_seconds()
        others = busy - self.busy - (own_seconds() - self.ours)
        return {
            "run_seconds": round(elapsed, 1),
            "stolen_cores": round((stolen - self.stolen) / elapsed, 2),
            "cores_used_by_others": round(max(0.0, others) / elapsed, 2),
        }


def own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def machine_seconds() -> tuple[float, float]:
    """CPU time of all programs, and what the host gave to other machines."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    # What interrupts take is charged to the program they meet, too.
    return (user + nice + system + irq + softirq) / TICKS, steal / TICKS
