"""What the targets in Python have in common: seeds, time, what is said."""

from __future__ import annotations

import random
import time
from collections.abc import Callable


class Mismatch(Exception):
    """A finding."""


def run(
    name: str,
    iterate: Callable[[random.Random], None],
    *,
    seed: int,
    seconds: float | None = None,
    iterations: int | None = None,
    first: int = 0,
    command: str = "",
) -> int:
    """Says what it did as the programs of core/ do. Seed and number decide an iteration."""
    print(f"{name}: seed {seed}", flush=True)
    start, done = time.monotonic(), 0
    while iterations is None or done < iterations:
        if seconds is not None and time.monotonic() - start >= seconds:
            break
        number = first + done
        try:
            iterate(random.Random(f"{seed}/{number}"))
        except Mismatch as mismatch:
            print(f"mismatch: {mismatch}")
            print(f"replay: {command} --seed {seed} --iteration {number}", flush=True)
            return 1
        done += 1
    spent = time.monotonic() - start
    print(f"{name}: {done} iterations in {spent:.0f} s, no mismatch", flush=True)
    return 0
