"""What a packet costs a hub with many active peers, beside other implementations.

One daemon is the hub. One program plays all its peers, seals ahead of time, and sends no faster
than the hub reads. So the CPU time of the hub's process is that of the hub alone. Three ways:

    in     peers -> hub -> its kernel, where the packets end
    relay  peers -> hub -> its kernel, which routes them back -> hub -> other peers
    out    a socket of the hub's host -> hub -> peers

Every packet is of another flow than the one before it and, where there are several, for or from
another peer. So none can be merged with its neighbour; but what goes to one peer may leave the hub
in trains. `--no-offload udp_gso` takes these from pywgd: what is left between one peer and many is
what the peers themselves cost. Everybody takes a turn in every round: only ratios within a round
count.

Takes about {minutes} minutes as it is, --quick two. Needs root; what it makes is removed again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tools.bench.hub import figures, place
from tools.bench.hub.figures import Case, Trial
from tools.bench.interruption import be_interruptible
from tools.bench.tunnel import contestants
from tools.bench.tunnel.command import names, positive
from tools.bench.tunnel.contestants import Contestant
from tools.bench.tunnel.figures import BASE
from tools.bench.tunnel.machine import Watch, surroundings
from tools.bench.tunnel.underlays import UNDERLAYS
from tools.build import checks
from tools.lab.namespaces import sweep
from tools.lab.programs import Missing

MINUTES = 12
PEERS = (1, 100, 1_000, 10_000)
SIZES = {"64": (64,), "mixed": (64, 300, 1372)}
OTHERS = (BASE, "tailscale", "debian", "boringtun", "gotatun", "ceiling")
NOBODY = "none"
WARM_UP_PACKETS = 20_000
FAILURES = (AssertionError, OSError, ValueError, subprocess.SubprocessError, checks.Failed)


@dataclass(frozen=True)
class Step:
    number: int
    contestant: Contestant
    peers: int


def steps(rounds: int, everybody: list[Contestant], peers: list[int]) -> Iterator[Step]:
    """Those compared follow each other, and each time another begins."""
    for number in range(1, rounds + 1):
        for place_of, count in enumerate(peers):
            first = (number + place_of) % len(everybody)
            for contestant in everybody[first:] + everybody[:first]:
                yield Step(number, contestant, count)


def measure(step: Step, options: argparse.Namespace) -> Iterator[tuple[Case, Trial]]:
    underlay = UNDERLAYS[options.underlay]
    environment = {"PYWG_NO_OFFLOAD": options.no_offload} if options.no_offload else {}
    with place.hub(step.contestant, step.peers, underlay, environment) as ends:
        for way in options.ways:
            for word in options.sizes:
                sizes = SIZES[word]
                ends.trial(way, sizes, min(WARM_UP_PACKETS, options.packets))
                trial = ends.trial(way, sizes, options.packets)
                if not trial.through:
                    raise place.Failed(f"{way}, {word}: nothing came through")
                yield Case(way, sizes, step.peers, step.contestant.label), trial


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench_hub",
        description=(__doc__ or "").format(minutes=MINUTES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one round of 1, 100 and 1000 peers")
    add("--rounds", type=positive(int), help="turns of each (3)")
    add("--packets", type=positive(int), default=200_000, help="in a trial (200000)")
    add("--peers", type=names(tuple(map(str, PEERS))), metavar="LIST", help=f"of {PEERS}")
    add("--ways", type=names(tuple(place.WINDOWS)), metavar="LIST", default=list(place.WINDOWS))
    add("--sizes", type=names(tuple(SIZES)), metavar="LIST", default=list(SIZES))
    add("--underlay", choices=UNDERLAYS, default="trains")
    add("--others", type=names((*OTHERS, NOBODY)), metavar="LIST", default=[BASE, "tailscale"])
    add("--base", choices=OTHERS, default=BASE, metavar="PEER", help=f"of the ratios ({BASE})")
    add("--no-offload", default="", metavar="LIST", help="what pywgd is not to use")
    add("--subject", action="append", default=[], metavar="LABEL=PATH", help="builds, not pywgd")
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (1 if options.quick else 3)
    known = options.peers or [str(count) for count in (PEERS[:3] if options.quick else PEERS)]
    options.peers = sorted(map(int, known))
    options.others = [name for name in options.others if name != NOBODY]
    return options


def main() -> int:
    options = arguments()
    if os.geteuid() != 0:
        print("bench_hub: needs root, to make network namespaces", file=sys.stderr)
        return 1
    be_interruptible()
    sweep()
    try:
        everybody, absent = contestants.choose(options.others, options.subject, None)
        place.program()
        header = surroundings(everybody, absent)
    except (Missing, checks.Failed, KeyboardInterrupt) as reason:
        print(f"bench_hub: {str(reason) or 'interrupted'}", file=sys.stderr)
        return 1
    rounds: dict[int, dict[Case, Trial]] = {}
    failures: list[str] = []
    watch = Watch()
    code = 0
    try:
        for step in steps(options.rounds, everybody, options.peers):
            take_turn(step, options, rounds, failures)
    except KeyboardInterrupt:
        failures.append("interrupted: what is missing was not measured")
        code = 130
    base = contestants.SHORT.get(options.base, options.base)
    say(header | watch.seen(), options, base)
    print("\n".join([*figures.table(rounds, base), "", *failures]))
    return code or (1 if failures else 0)


def take_turn(
    step: Step,
    options: argparse.Namespace,
    rounds: dict[int, dict[Case, Trial]],
    failures: list[str],
) -> None:
    """What fails is written down; the others go on."""
    what = f"round {step.number}, {step.peers} peers, {step.contestant.label}"
    began = time.monotonic()
    try:
        for case, trial in measure(step, options):
            rounds.setdefault(step.number, {})[case] = trial
    except FAILURES as failure:
        said = str(failure).strip().splitlines() or [type(failure).__name__]
        failures.append(f"failed: {what}: {said[0][:200]}")
        print(failures[-1], file=sys.stderr)
    else:
        print(f"{what}: {time.monotonic() - began:.1f} s", file=sys.stderr)


def one_line(header: Mapping[str, object]) -> str:
    return (
        f"{header['date']}  {header['machine']}, {header['cores']} cores, Linux "
        f"{header['kernel']}; in {header['run_seconds']} s others used "
        f"{header['cores_used_by_others']} cores, other machines {header['stolen_cores']}"
    )


def say(header: dict[str, object], options: argparse.Namespace, base: str) -> None:
    print(
        f"{one_line(header)}\n"
        f"medians of {options.rounds} rounds, {options.packets} packets a trial, underlay "
        f"{options.underlay}; base: {base}"
    )
    listed = header["contestants"]
    assert isinstance(listed, dict)
    for label, version in listed.items():
        print(f"  {label}: {version}")
    print()


if __name__ == "__main__":
    sys.exit(main())
