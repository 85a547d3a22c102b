"""The clock of this machine's cores, measured: what the kernel or the CPU says is often the nominal
one. See clock.c, which needs zig to be compiled."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

from tools.build import core
from tools.lab.programs import CACHE

SOURCE = Path(__file__).with_name("clock.c")
SECONDS_MAX = 10


def hertz() -> float | None:
    """Cycles a second; None where it cannot be measured."""
    program, _ = _program()
    if program is None:
        return None
    done = subprocess.run(
        [program], capture_output=True, text=True, check=True, timeout=SECONDS_MAX
    )
    return float(done.stdout)


def missing() -> str:
    """Why there is no clock; empty if there is."""
    return _program()[1]


@functools.cache
def _program() -> tuple[Path | None, str]:
    folder = CACHE.parent / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    path, new = folder / "clock", folder / f"clock.{os.getpid()}"
    try:
        command = [*core.find_zig(), "cc", "-O2", "-Wall", "-o", str(new), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    except (SystemExit, OSError, subprocess.TimeoutExpired) as failure:  # SystemExit: no zig
        return None, f"the clock is not measured: {failure}"
    if done.returncode != 0:
        return None, f"clock.c does not compile: {done.stderr.strip()[-200:]}"
    new.replace(path)  # another run may have the old one open
    return path, ""
