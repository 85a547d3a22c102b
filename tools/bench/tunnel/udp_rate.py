"""The highest rate that arrives without loss: a search bounded in trials.

It doubles or halves until it has a rate that passes and one that does not, then halves the distance
between them (of their logarithms). A loss of a few per cent is tried once more at the same rate,
because a neighbour on the machine can cause it; more than that stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

LOSS_MAX = 0.001
LOSS_WORTH_A_SECOND_LOOK = 0.05
NEAR_ENOUGH = 1.12
# Less sent than this share of the offered rate, and hardly more than at half of it: the sender can
# do no more.
SENDER_SHARE_MIN, SENDER_GROWTH_MIN = 0.85, 1.1


@dataclass(frozen=True)
class Trial:
    """What one run at one rate gave; rates are in packets per second."""

    offered: float
    sent: int
    received: int
    seconds: float
    reordered: int = 0

    @property
    def loss(self) -> float:
        return max(0.0, 1 - self.received / self.sent) if self.sent else 1.0

    @property
    def sent_rate(self) -> float:
        return self.sent / self.seconds if self.seconds else 0.0

    @property
    def received_rate(self) -> float:
        return self.received / self.seconds if self.seconds else 0.0

    @property
    def passes(self) -> bool:
        return self.loss <= LOSS_MAX


@dataclass
class Found:
    """`best` is the passing trial with the highest rate that arrived, if any passed."""

    best: Trial | None = None
    trials: int = 0
    limited_by_sender: bool = False


def search(run: Callable[[float], Trial], start: float, trials_max: int, floor: float) -> Found:
    """`run` makes one trial at a rate. No rate below `floor` is tried."""
    found = Found()
    passing, failing, rate = 0.0, math.inf, start
    while found.trials < trials_max:
        trial = _twice_if_close(run, rate, found, trials_max)
        if trial.passes:
            before = found.best.received_rate if found.best else 0.0
            if trial.received_rate > before:
                found.best = trial
            if before and _sender_is_slow(trial, before):
                found.limited_by_sender = True
                break
            passing = max(passing, rate)
        else:
            failing = min(failing, rate)
        if failing / NEAR_ENOUGH <= max(passing, floor):
            break
        rate = _next(passing, failing, floor)
    return found


def _twice_if_close(
    run: Callable[[float], Trial], rate: float, found: Found, trials_max: int
) -> Trial:
    trial = run(rate)
    found.trials += 1
    if LOSS_MAX < trial.loss <= LOSS_WORTH_A_SECOND_LOOK and found.trials < trials_max:
        trial = run(rate)
        found.trials += 1
    return trial


def _sender_is_slow(trial: Trial, before: float) -> bool:
    return (
        trial.sent_rate < trial.offered * SENDER_SHARE_MIN
        and trial.received_rate < before * SENDER_GROWTH_MIN
    )


def _next(passing: float, failing: float, floor: float) -> float:
    if math.isinf(failing):
        return passing * 2
    if passing == 0:
        return max(failing / 2, floor)
    return math.sqrt(passing * failing)
