"""Measures pywgd beside other WireGuard implementations on this machine.

Two network namespaces, a veth pair, a daemon at each end; everybody takes a turn in every round of
one run, because runs differ more than peers do: only ratios within a round count. Three underlays:
whole trains (veth as it is), single datagrams, trains rebuilt by GRO. Writes table.txt,
results.json and SVG pictures to a folder. Needs root; what it makes is removed again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.bench.interruption import be_interruptible
from tools.bench.tunnel import cases, contestants, plots, report
from tools.bench.tunnel.cases import GROUPS, ON_ONE_PAIR, Pace, Turn
from tools.bench.tunnel.contestants import Contestant
from tools.bench.tunnel.figures import BASE
from tools.bench.tunnel.machine import Watch, surroundings
from tools.bench.tunnel.progress import Progress
from tools.bench.tunnel.underlays import UNDERLAYS, Underlay, offloads, probe
from tools.lab.lab import Lab
from tools.lab.namespaces import sweep
from tools.lab.programs import CACHE, Missing

QUICK_SECONDS = 160
QUICK_GROUPS = ("tcp", "udp", "small", "latency", "handshake")
PEERS = (BASE, "tailscale", "debian", "boringtun", "gotatun", "kernel", "ceiling", "bare")
QUICK_PEERS = (BASE,)
# With these nothing differs between underlays, or they take long: measured on the first one only.
ONCE = ("handshake", "peers", "active")
NEEDS_TUNNEL = ("handshake", "peers", "active")


# ---- arguments -----------------------------------------------------------------------------------


def names(allowed: tuple[str, ...]) -> Any:
    """A list with commas, each of it allowed."""

    def parse(text: str) -> list[str]:
        found = [name.strip() for name in text.split(",") if name.strip()]
        wrong = [name for name in found if name not in allowed]
        if wrong or not found:
            raise argparse.ArgumentTypeError(
                f"{', '.join(wrong) or 'nothing'}: choose from {', '.join(allowed)}"
            )
        return found

    return parse


def positive(kind: type) -> Any:
    def parse(text: str) -> Any:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    parse.__name__ = kind.__name__
    return parse


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one round of one second; ends in three minutes")
    add("--rounds", type=positive(int), help="turns of each contestant (3)")
    add("--seconds", type=positive(float), help="length of a transfer (5)")
    add("--only", type=names(GROUPS), metavar="LIST", help=f"of {', '.join(GROUPS)}")
    add(
        "--underlay",
        type=names(tuple(UNDERLAYS)),
        metavar="LIST",
        help=f"of {', '.join(UNDERLAYS)}",
    )
    add("--peers", type=names(PEERS), metavar="LIST", help=f"beside pywgd: {', '.join(PEERS)}")
    add(
        "--base",
        choices=PEERS,
        default=BASE,
        metavar="PEER",
        help=f"what the ratios refer to ({BASE}; the strongest is tailscale)",
    )
    add("--subject", action="append", default=[], metavar="LABEL=PATH", help="builds, not pywgd")
    add("--ceiling", metavar="PATH", help="a build without a cipher: no VPN, the most there can be")
    add("--no-offload", default="", metavar="LIST", help="what pywgd is not to use, or `all`")
    add("--no-install", action="store_true", help="leave out peers that are not installed")
    add("--out", type=Path, metavar="FOLDER", help="(a new one in the user's cache)")
    return with_defaults(parser.parse_args(argv))


def with_defaults(options: argparse.Namespace) -> argparse.Namespace:
    quick = options.quick
    options.rounds = options.rounds or (1 if quick else 3)
    options.seconds = options.seconds or (1.0 if quick else 5.0)
    options.only = options.only or list(QUICK_GROUPS if quick else GROUPS)
    options.underlay = options.underlay or list(UNDERLAYS)
    options.wanted = options.peers or list(QUICK_PEERS if quick else PEERS)
    if options.ceiling and "ceiling" not in options.wanted:
        options.wanted.append("ceiling")
    if options.base not in options.wanted:
        options.wanted.insert(0, options.base)  # what the ratios refer to
    options.out = options.out or default_folder()
    return options


def default_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "pywg-bench" / time.strftime("%Y%m%d-%H%M%S")


def pace(options: argparse.Namespace) -> Pace:
    if options.quick:
        return Pace(options.seconds, 0.3, 7, 5, peers=(1, 10_000))
    return Pace(options.seconds, min(1.0, options.seconds / 2), 12, 15)


# ---- the run -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One contestant and one group of measures."""

    number: int
    underlay: Underlay
    contestant: Contestant
    group: str

    def __str__(self) -> str:
        return f"round {self.number}, {self.underlay.name}: {self.contestant.label}, {self.group}"


@dataclass
class Run:
    options: argparse.Namespace
    everybody: list[Contestant]
    header: dict[str, Any]
    pace: Pace
    values: dict[tuple[int, str, str], dict[str, float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    deadline: float = float("inf")


def steps(options: argparse.Namespace, everybody: list[Contestant]) -> list[Step]:
    """Contestants follow each other group by group, so that what a neighbour does to the machine
    hits all of them; and each time another begins, so that none always runs first."""
    planned: list[Step] = []
    for number in range(1, options.rounds + 1):
        for place, name in enumerate(options.underlay):
            groups = [group for group in options.only if place == 0 or group not in ONCE]
            for turn, group in enumerate(groups, number + place):
                first = turn % len(everybody)
                planned += [
                    Step(number, UNDERLAYS[name], contestant, group)
                    for contestant in everybody[first:] + everybody[:first]
                    if contestant.has_tunnel or group not in NEEDS_TUNNEL
                ]
    return planned


def carry_out(run: Run, progress: Progress, planned: list[Step]) -> None:
    for step in planned:
        left = run.deadline - time.monotonic()
        if left < expected(step, run.pace):
            run.header["incomplete"] = "the time was over before the last turns"
            progress.say(f"no time left for {step}")
            break
        progress.begin(str(step))
        with attempt(run, progress, str(step)):
            take_turn(run, step)
        progress.finish()


@contextlib.contextmanager
def attempt(run: Run, progress: Progress, what: str) -> Iterator[None]:
    """What fails is written down; the others go on."""
    try:
        yield
    except cases.FAILURES as failure:
        said = str(failure).strip().splitlines() or [type(failure).__name__]
        run.failures.append(f"{what}: {said[0][:200]}")
        progress.say(f"failed: {run.failures[-1]}")


def take_turn(run: Run, step: Step) -> None:
    turn = Turn(step.contestant, step.underlay, run.pace, run.options.no_offload, run.everybody[0])
    values = (
        cases.in_lab(turn, lambda pair: ON_ONE_PAIR[step.group](turn, pair))
        if step.group in ON_ONE_PAIR
        else cases.ON_THEIR_OWN[step.group](turn)
    )
    key = (step.number, step.underlay.name, step.contestant.label)
    run.values.setdefault(key, {}).update(values)


def expected(step: Step, pace: Pace) -> float:
    return 0.7 + cases.seconds_expected(step.group, pace)


def look_at_underlays(run: Run) -> None:
    """What each does with trains, before anybody measures on it."""
    for name in run.options.underlay:
        underlay = UNDERLAYS[name]
        with tempfile.TemporaryDirectory() as folder:
            lab = Lab(Path(folder))
            try:
                spaces = lab.cabled()
                underlay.apply(spaces)
                run.header["underlays"][name] = {
                    "title": underlay.title,
                    "probe": probe(*spaces, "192.0.2.2"),
                    "offloads": offloads(spaces[0]),
                }
            finally:
                lab.close()


def write(run: Run) -> str:
    """Table, JSON and pictures; the table is returned, too."""
    folder: Path = run.options.out
    folder.mkdir(parents=True, exist_ok=True)
    table = report.text(run.header, run.values, run.failures)
    (folder / "table.txt").write_text(table)
    document = report.as_json(run.header, run.values, run.failures)
    (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    for name, underlay in run.header["underlays"].items():
        svg = plots.picture(
            f"{name}: {underlay['title']}",
            [*report.heading(run.header)[:2], underlay["probe"]],
            run.values,
            name,
            list(run.header["contestants"]),
        )
        (folder / f"{name}.svg").write_text(svg)
    return table


def prepare(options: argparse.Namespace) -> Run:
    everybody, absent = contestants.choose(options.wanted, options.subject, options.ceiling)
    installable = any("run scripts/peers" in reason for reason in absent)
    if installable and not (options.no_install or options.quick):
        contestants.install()
        everybody, absent = contestants.choose(options.wanted, options.subject, options.ceiling)
    header = surroundings(everybody, absent)
    header |= {"rounds": options.rounds, "seconds": options.seconds, "only": options.only}
    header["no_offload"] = options.no_offload
    header["base"] = contestants.SHORT.get(options.base, options.base)
    run = Run(options, everybody, header, pace(options))
    look_at_underlays(run)
    return run


def measure(run: Run) -> None:
    planned = steps(run.options, run.everybody)
    progress = Progress([expected(step, run.pace) for step in planned], sys.stderr)
    watch = Watch()
    try:
        carry_out(run, progress, planned)
    except KeyboardInterrupt:
        run.header["incomplete"] = "interrupted"
    finally:
        run.header["limited_by_sender"] = sorted(run.pace.at_sender)
        run.header |= watch.seen()
        progress.close()


def main() -> int:
    options = arguments()
    deadline = time.monotonic() + QUICK_SECONDS if options.quick else float("inf")
    if os.geteuid() != 0:
        print("bench: needs root, to make network namespaces: sudo scripts/bench", file=sys.stderr)
        return 1
    if CACHE.parent.resolve() == options.out.resolve():
        print("bench: --out is the folder of the peers", file=sys.stderr)
        return 1
    be_interruptible()
    sweep()
    try:
        run = prepare(options)
    except (Missing, KeyboardInterrupt) as reason:
        print(f"bench: {str(reason) or 'interrupted'}", file=sys.stderr)
        return 1
    run.deadline = deadline
    measure(run)
    print(write(run), end="")
    print(f"\n{options.out}: table.txt, results.json, pictures")
    if run.header.get("incomplete") == "interrupted":
        return 130
    return 1 if any(run.everybody[0].label in failure for failure in run.failures) else 0


if __name__ == "__main__":
    sys.exit(main())
