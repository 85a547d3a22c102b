"""Instructions that processes execute, by `perf stat`, on machines whose CPU counts them for us. In
most virtual machines nothing is counted."""

from __future__ import annotations

import contextlib
import functools
import signal
import subprocess
from collections.abc import Iterable, Iterator

EVENT = "instructions"
SECONDS_MAX = 10


@functools.cache
def missing() -> str:
    """Why nothing can be counted; empty if it can."""
    try:
        done = subprocess.run(
            ["perf", "stat", "-x", ",", "-e", EVENT, "true"],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS_MAX,
        )
    except FileNotFoundError:
        return "perf is not installed"
    except (OSError, subprocess.TimeoutExpired) as failure:
        return f"perf: {failure}"
    if counted(done.stderr) is None:
        return "this CPU shows no counter of them to perf stat"
    return ""


def counted(report: str) -> int | None:
    """The number in what `perf stat -x ,` says; None for `<not supported>` and the like."""
    for line in report.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[2].startswith(EVENT):
            return int(fields[0]) if fields[0].isdigit() else None
    return None


@contextlib.contextmanager
def instructions(pids: Iterable[int]) -> Iterator[list[int]]:
    """The list holds one number at the end, of all threads in user mode and kernel; or none."""
    found: list[int] = []
    wanted = ",".join(map(str, pids))
    if not wanted or missing():
        yield found
        return
    process = subprocess.Popen(
        ["perf", "stat", "-x", ",", "-e", EVENT, "-p", wanted],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
        number = counted(said)
        found += [] if number is None else [number]
