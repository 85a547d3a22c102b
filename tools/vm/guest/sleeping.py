"""Suspend: the machine sleeps (ACPI S3, suspend to memory) until the host wakes it."""

from __future__ import annotations

import time
from pathlib import Path

from tools.vm import results
from tools.vm.guest import place
from tools.vm.guest.place import Skipped

STATE, MEMORY = Path("/sys/power/state"), Path("/sys/power/mem_sleep")
SECONDS = 8


def suspend() -> str:
    place.settle(0)
    if "deep" not in MEMORY.read_text():
        raise Skipped(f"the guest cannot be suspended to memory: {MEMORY.read_text().strip()}")
    MEMORY.write_text("deep")
    slept = -asleep()
    print(results.asleep(SECONDS), flush=True)
    STATE.write_text("mem")  # returns when the guest is awake
    slept += asleep()
    assert slept > SECONDS / 2, f"the guest slept {slept:.1f} s only"
    place.check_traffic(0)
    return f"{slept:.0f} s suspended to memory, traffic after it"


def asleep() -> float:
    """Seconds of all sleep since the boot: CLOCK_MONOTONIC stands still meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
