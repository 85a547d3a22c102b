"""The line on standard error: what is running, how much is done, how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

BAR = 20


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


class Progress:
    """`expected` are the seconds each step was thought to take; what is left is scaled by how wrong
    that has been so far."""

    def __init__(
        self, expected: list[float], out: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.expected = expected
        self.out = out
        self.clock = clock
        self.started = clock()
        self.done = 0

    def left(self) -> float:
        past, ahead = sum(self.expected[: self.done]), sum(self.expected[self.done :])
        elapsed = self.clock() - self.started
        return ahead * (elapsed / past if past else 1.0)

    def line(self, what: str) -> str:
        total = len(self.expected)
        filled = BAR * self.done // total if total else BAR
        bar = "#" * filled + "." * (BAR - filled)
        return f"[{bar}] {self.done}/{total}  {duration(self.left())} left  {what}"

    def begin(self, what: str) -> None:
        self._show(self.line(what))

    def finish(self) -> None:
        self.done += 1

    def say(self, text: str) -> None:
        """A line that stays."""
        clear = "\r\033[K" if self.out.isatty() else ""
        self.out.write(f"{clear}{text}\n")
        self.out.flush()

    def _show(self, line: str) -> None:
        if self.out.isatty():
            self.out.write(f"\r\033[K{line[:110]}")
        else:
            self.out.write(f"{line}\n")
        self.out.flush()

    def close(self) -> None:
        if self.out.isatty():
            self.out.write("\r\033[K")
            self.out.flush()
