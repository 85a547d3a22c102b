"""Suspend: the whole guest is frozen (suspend to idle), and its clock wakes it."""

from __future__ import annotations

import time
from pathlib import Path

from tools.lab.namespaces import run
from tools.vm.guest import place
from tools.vm.guest.place import Skipped

STATES = Path("/sys/power/state")
SECONDS = 10


def suspend() -> str:
    place.settle(0)
    if "freeze" not in STATES.read_text().split():
        raise Skipped(f"the guest's kernel knows no suspend to idle: {STATES.read_text().strip()}")
    slept = -asleep()
    run("rtcwake", "--mode", "freeze", "--seconds", str(SECONDS), timeout=3 * place.PATIENCE)
    slept += asleep()
    if slept < SECONDS / 2:
        raise Skipped(f"the guest did not sleep: its clocks differ by {slept:.1f} s only")
    place.check_traffic(0)
    return f"slept for {slept:.0f} s (suspend to idle), traffic after it"


def asleep() -> float:
    """Seconds of all sleep since the boot: CLOCK_MONOTONIC stands still meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
