"""How long to wait before a store is tried again: longer each time, and never together with others.

Pure: chance is an argument.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_S, MAX_S = 0.25, 30.0


class Backoff:
    """Doubles up to ``most_s``. Of each pause a random part of at least a half is waited, so that
    gateways that lost their store at once do not come back at once."""

    def __init__(self, chance: Callable[[], float], most_s: float = MAX_S) -> None:
        """``chance`` gives numbers from 0 to 1."""
        self._chance = chance
        self._most_s = most_s
        self._pause_s = FIRST_S

    def next_s(self) -> float:
        pause_s = min(self._pause_s, self._most_s)
        self._pause_s = 2 * pause_s
        return pause_s * (0.5 + 0.5 * self._chance())

    def succeeded(self) -> None:
        self._pause_s = FIRST_S
