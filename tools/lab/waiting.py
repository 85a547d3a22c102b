"""Waiting for an event instead of sleeping for a guess."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def wait_until(
    question: Callable[[], Answer], what: str, seconds: float = 30.0, every: float = 0.005
) -> Answer:
    """Asks until the answer is true and returns it; after the deadline says what did not happen."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s still not: {what}")
        time.sleep(every)
