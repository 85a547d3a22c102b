"""What a second thread adds to one daemon, with a generator and a sink that cost little.

One daemon with one peer. The program that plays the peer sends and takes whole trains of 44 packets
of 1 372 bytes (UDP_SEGMENT, UDP_GRO), seals ahead of time, and looks only at heads. Two ways:

    in    trains -> daemon -> TUN -> its kernel, where the packets end
    out   a socket of the daemon's host -> TUN, superpackets -> daemon -> trains

Flows take turns, train by train. One and two threads take turns, too; a gain is the ratio of the
speeds in one round, and what is told is the median. The machine needs an idle core for each thread,
and a third of one for the rest (the column "generator"). The daemon's priority is ordinary in all
turns, because with a thread for each core it would be so in any case (--priority).

Takes about two minutes. Needs root; what it makes is removed again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence

from tools.bench import clock
from tools.bench.hub import place
from tools.bench.hub.command import FAILURES, one_line
from tools.bench.hub.figures import Trial
from tools.bench.interruption import be_interruptible
from tools.bench.tunnel import contestants
from tools.bench.tunnel.command import names, positive
from tools.bench.tunnel.contestants import Contestant
from tools.bench.tunnel.machine import Watch, surroundings
from tools.bench.tunnel.underlays import UNDERLAYS
from tools.build import checks
from tools.lab.namespaces import sweep
from tools.lab.programs import Missing

SIZE, TRAIN = 1372, 44
WAYS = ("in", "out")
# (contestant, threads, way, flows)
Case = tuple[str, int, str, int]
Rounds = dict[Case, list[Trial | None]]


def one_turn(
    contestant: Contestant, threads: int, options: argparse.Namespace
) -> dict[Case, Trial]:
    environment = {"PYWG_THREADS": str(threads), "PYWG_PRIORITY": options.priority}
    found: dict[Case, Trial] = {}
    with place.hub(contestant, 1, UNDERLAYS[options.underlay], environment) as ends:
        for way in options.ways:
            for flows in options.flows:
                for packets in (options.packets // 10, options.packets):  # the first warms up
                    trial = ends.trial(way, [SIZE], packets, flows=flows, train=TRAIN)
                if not trial.through:
                    raise place.Failed(f"{way}, {flows} flows: nothing came through")
                found[contestant.label, threads, way, flows] = trial
    return found


def gain(few: Sequence[Trial | None], many: Sequence[Trial | None]) -> float | None:
    """How many times as fast; the median over rounds that have both."""
    ratios = [
        other.packets_per_second / one.packets_per_second
        for one, other in zip(few, many, strict=True)
        if one is not None and other is not None
    ]
    return statistics.median(ratios) if ratios else None


HEAD = (
    *("", "way", "flows", "threads", "Gbit/s", "x one thread", "CPU-s/GiB", "cycles/B"),
    *("cores", "generator", "lost"),
)


def table(rounds: Rounds, hertz: float | None) -> list[str]:
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for case in sorted(rounds, key=lambda case: (case[0], case[2], case[3], case[1])):
        known = [trial for trial in rounds[case] if trial is not None]
        if known:
            lines.append(f"| {' | '.join(_cells(rounds, case, known, hertz))} |")
    return lines


def _cells(rounds: Rounds, case: Case, known: list[Trial], hertz: float | None) -> list[str]:
    who, threads, way, flows = case
    one = rounds.get((who, 1, way, flows), [])
    times = gain(one, rounds[case]) if len(one) == len(rounds[case]) else None
    cost = statistics.median(trial.hub_cpu / (trial.through * SIZE) for trial in known)
    return [
        who,
        way,
        str(flows),
        str(threads),
        f"{statistics.median(trial.gigabits(SIZE) for trial in known):.2f}",
        "-" if times is None else f"{times:.2f}",
        f"{statistics.median(trial.cpu_per_gib(SIZE) for trial in known):.3f}",
        "-" if hertz is None else f"{cost * hertz:.2f}",
        f"{statistics.median(trial.cores for trial in known):.2f}",
        f"{statistics.median(trial.own_cpu / trial.seconds for trial in known):.2f}",
        f"{statistics.median(trial.loss for trial in known):.1%}",
    ]


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench_threads",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=positive(int), default=5, help="turns of each (5)")
    add("--packets", type=positive(int), default=1_000_000, help="in a trial (1000000)")
    add("--threads", type=positive(int), nargs="+", default=[1, 2], metavar="N", help="(1 2)")
    add("--flows", type=positive(int), nargs="+", default=[1, 8], metavar="N", help="(1 8)")
    add("--ways", type=names(WAYS), metavar="LIST", default=list(WAYS), help=f"of {WAYS}")
    add("--priority", choices=("normal", "auto", "realtime"), default="normal")
    add("--underlay", choices=UNDERLAYS, default="trains")
    add("--subject", action="append", default=[], metavar="LABEL=PATH", help="builds, not pywgd")
    return parser.parse_args(argv)


def main() -> int:
    options = arguments()
    if os.geteuid() != 0:
        print("bench_threads: needs root, to make network namespaces", file=sys.stderr)
        return 1
    be_interruptible()
    sweep()
    try:
        everybody, absent = contestants.choose([], options.subject, None)
        place.program()
        header = surroundings(everybody, absent)
    except (Missing, checks.Failed, KeyboardInterrupt) as reason:
        print(f"bench_threads: {str(reason) or 'interrupted'}", file=sys.stderr)
        return 1
    watch = Watch()
    failures: list[str] = []
    rounds: Rounds = {}
    code = 0
    try:
        for number in range(options.rounds):
            one_round(number, everybody, options, rounds, failures)
    except KeyboardInterrupt:
        failures.append("interrupted: what is missing was not measured")
        code = 130
    print(
        f"{one_line(header | watch.seen())}\n"
        f"medians of {options.rounds} rounds, {options.packets} packets of {SIZE} bytes a trial, "
        f"in trains of {TRAIN}; underlay {options.underlay}\n"
    )
    print("\n".join([*table(rounds, clock.hertz()), "", *failures]))
    return code or (1 if failures else 0)


def one_round(
    number: int,
    everybody: list[Contestant],
    options: argparse.Namespace,
    rounds: Rounds,
    failures: list[str],
) -> None:
    """Every other round begins with the most threads; what fails is written down."""
    turns = [(contestant, threads) for contestant in everybody for threads in options.threads]
    for contestant, threads in turns if number % 2 == 0 else reversed(turns):
        found: dict[Case, Trial] = {}
        try:
            found = one_turn(contestant, threads, options)
        except FAILURES as failure:
            said = str(failure).strip().splitlines() or [type(failure).__name__]
            failures.append(f"failed: round {number + 1}, {threads} threads: {said[0][:200]}")
        for way in options.ways:
            for flows in options.flows:
                case = (contestant.label, threads, way, flows)
                rounds.setdefault(case, []).append(found.get(case))


if __name__ == "__main__":
    sys.exit(main())
