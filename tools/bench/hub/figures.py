"""What a trial says of a hub, and the ratios. Knows nothing of the kernel.

Invariant: a ratio compares two trials of one round; what is reported is the median of such ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Trial:
    """Packets, seconds; CPU seconds of the hub and of the program that plays all others."""

    sent: int
    through: int
    seconds: float
    hub_cpu: float
    own_cpu: float

    @property
    def packets_per_second(self) -> float:
        return self.through / self.seconds

    @property
    def cpu_us(self) -> float:
        """Of the hub, for each packet that came through."""
        return self.hub_cpu / self.through * 1e6

    @property
    def loss(self) -> float:
        return 1 - self.through / self.sent

    @property
    def cores(self) -> float:
        return self.hub_cpu / self.seconds

    def gigabits(self, size: int) -> float:
        return self.packets_per_second * size * 8 / 1e9

    def cpu_per_gib(self, size: int) -> float:
        return self.hub_cpu / (self.through * size / GIB)


@dataclass(frozen=True)
class Case:
    """One row of the table, in one round."""

    way: str
    sizes: tuple[int, ...]
    peers: int
    who: str

    def of(self, who: str) -> Case:
        return Case(self.way, self.sizes, self.peers, who)

    def with_peers(self, peers: int) -> Case:
        return Case(self.way, self.sizes, peers, self.who)


Rounds = Mapping[int, Mapping[Case, Trial]]


def median(rounds: Rounds, case: Case, what: str) -> float | None:
    return _median(getattr(found[case], what) for found in rounds.values() if case in found)


def ratio(rounds: Rounds, case: Case, other: Case, what: str) -> float | None:
    """The median of the ratios within a round."""
    return _median(
        getattr(found[case], what) / getattr(found[other], what)
        for found in rounds.values()
        if case in found and other in found
    )


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None


def cases(rounds: Rounds) -> list[Case]:
    """All that were measured, in the order of the first round that has them."""
    return list(dict.fromkeys(case for found in rounds.values() for case in found))


HEAD = (
    *("way", "bytes", "peers", "", "1000 packets/s", "x base"),
    *("CPU us/packet", "x base", "x one peer", "lost"),
)


def table(rounds: Rounds, base: str) -> list[str]:
    """Markdown, sorted so that those compared stand together."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    order = cases(rounds)
    names = list(dict.fromkeys(case.who for case in order))
    order.sort(key=lambda one: (one.way, len(one.sizes), one.peers, names.index(one.who)))
    lines.extend(f"| {' | '.join(_cells(rounds, case, base))} |" for case in order)
    return lines


def _cells(rounds: Rounds, case: Case, base: str) -> list[str]:
    rate, cost, lost = (
        median(rounds, case, what) for what in ("packets_per_second", "cpu_us", "loss")
    )
    assert rate is not None
    assert cost is not None
    assert lost is not None
    against = case.of(base)
    return [
        case.way,
        "/".join(map(str, case.sizes)),
        str(case.peers),
        case.who,
        f"{rate / 1e3:.0f}",
        _times(ratio(rounds, case, against, "packets_per_second")),
        f"{cost:.2f}",
        _times(ratio(rounds, case, against, "cpu_us")),
        _times(ratio(rounds, case, case.with_peers(1), "cpu_us")),
        f"{lost:.1%}",
    ]


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
