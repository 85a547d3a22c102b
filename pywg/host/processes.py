"""What /proc tells of another process."""

from __future__ import annotations

import os
from pathlib import Path

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def cpu_ns(process: int) -> int | None:
    """What it has used so far, with all its threads, in nanoseconds; None where that cannot be
    told: of 0, which stands for the kernel or for a process outside our process namespace."""
    if not process:
        return None
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name before it is the program's to choose, and may hold anything: proc(5).
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_NS
