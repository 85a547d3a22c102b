"""The parts of scripts/bench_hub and scripts/bench_threads that need neither root nor a network:
arithmetic, order of turns, tables; and that the program which plays all peers compiles."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.bench.hub import command, figures, place, threads
from tools.bench.hub.figures import Case, Trial
from tools.bench.tunnel.contestants import Contestant
from tools.build import checks

ONE = Trial(sent=1000, through=800, seconds=2.0, hub_cpu=0.004, own_cpu=0.001)


def test_a_trial_tells_its_rate_its_cost_and_its_loss() -> None:
    assert ONE.packets_per_second == 400
    assert ONE.cpu_us == pytest.approx(5.0)
    assert ONE.loss == pytest.approx(0.2)
    assert ONE.cores == 0.002
    # 400 packets of 1 250 bytes a second are 4 Mbit/s.
    assert ONE.gigabits(1250) == pytest.approx(0.004)
    assert Trial(0, 1 << 20, 1.0, 3.0, 0.0).cpu_per_gib(1024) == 3.0


def many(cost: float, rate: float = 100.0) -> Trial:
    """A second long; `cost` microseconds a packet."""
    return Trial(int(rate), int(rate), 1.0, cost * rate / 1e6, 0.0)


ROUNDS = {
    1: {
        Case("in", (64,), 1, "pywgd"): many(2.0, 300),
        Case("in", (64,), 100, "pywgd"): many(3.0, 200),
        Case("in", (64,), 100, "wireguard-go"): many(9.0),
    },
    2: {
        Case("in", (64,), 1, "pywgd"): many(2.0, 300),
        Case("in", (64,), 100, "pywgd"): many(4.0, 200),
        Case("in", (64,), 100, "wireguard-go"): many(8.0),
    },
    3: {Case("in", (64,), 100, "pywgd"): many(30.0)},
}


def test_ratios_of_a_hub_are_taken_within_a_round() -> None:
    case = Case("in", (64,), 100, "pywgd")
    base = case.of("wireguard-go")
    # 3/9 and 4/8; the third round has no base.
    assert figures.ratio(ROUNDS, case, base, "cpu_us") == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert figures.ratio(ROUNDS, case, base, "packets_per_second") == 2.0
    assert figures.ratio(ROUNDS, case, case.with_peers(1), "cpu_us") == pytest.approx(1.75)
    assert figures.ratio(ROUNDS, base, base.with_peers(1), "cpu_us") is None
    assert figures.median(ROUNDS, case, "cpu_us") == pytest.approx(4.0)


def test_the_table_of_a_hub_has_a_row_for_each_case_and_those_compared_together() -> None:
    lines = figures.table(ROUNDS, "wireguard-go")
    assert lines[2:] == [
        "| in | 64 | 1 | pywgd | 0 | - | 2.00 | - | 1.00 | 0.0% |",
        "| in | 64 | 100 | pywgd | 0 | 2.00 | 4.00 | 0.42 | 1.75 | 0.0% |",
        "| in | 64 | 100 | wireguard-go | 0 | 1.00 | 8.50 | 1.00 | - | 0.0% |",
    ]


def test_each_hub_takes_a_turn_and_each_time_another_begins() -> None:
    three = [Contestant(name, None) for name in ("a", "b", "c")]
    planned = list(command.steps(2, three, [1, 100]))
    assert len(planned) == 12
    assert [step.contestant.label for step in planned[::3]] == ["b", "c", "c", "a"]
    assert [step.peers for step in planned[:6]] == [1, 1, 1, 100, 100, 100]


def test_quick_leaves_out_the_largest_hub() -> None:
    assert command.arguments([]).peers == [1, 100, 1_000, 10_000]
    assert command.arguments(["--quick"]).peers == [1, 100, 1_000]
    options = command.arguments(["--peers", "100,1", "--sizes", "mixed", "--ways", "in,relay"])
    assert command.arguments(["--others", "none"]).others == []
    assert (options.peers, options.sizes, options.ways) == ([1, 100], ["mixed"], ["in", "relay"])


def test_a_gain_is_the_median_of_the_ratios_within_a_round() -> None:
    few = [many(1, 100), many(1, 200), many(1, 100), None]
    more = [many(1, 150), many(1, 500), many(1, 180), many(1, 999)]
    assert threads.gain(few, more) == pytest.approx(1.8)
    assert threads.gain([None], [many(1)]) is None


def test_the_table_of_threads_tells_what_each_costs() -> None:
    trial = Trial(sent=1_000_000, through=1_000_000, seconds=1.0, hub_cpu=0.5, own_cpu=0.2)
    twice = Trial(sent=1_000_000, through=1_000_000, seconds=0.5, hub_cpu=0.75, own_cpu=0.2)
    rounds: threads.Rounds = {
        ("pywgd", 2, "in", 8): [twice],
        ("pywgd", 1, "in", 8): [trial],
    }
    rows = threads.table(rounds, 1372e6 * 2)[2:]
    assert rows == [
        "| pywgd | in | 8 | 1 | 10.98 | 1.00 | 0.391 | 1.00 | 0.50 | 0.20 | 0.0% |",
        "| pywgd | in | 8 | 2 | 21.95 | 2.00 | 0.587 | 1.50 | 1.50 | 0.40 | 0.0% |",
    ]
    assert "| - | 0.587" in threads.table({("pywgd", 2, "in", 8): [twice]}, None)[2]


def test_every_end_has_a_key_and_addresses_of_its_own() -> None:
    own, *theirs = place.keys(301)
    assert place.keys(300) == [own, *theirs][:300]
    text = place._configuration(own, theirs)
    assert text.count("[Peer]") == 300
    assert "AllowedIPs = 10.64.1.44/32\nEndpoint = 198.18.1.44:51820\n" in text


def test_the_ends_compile_and_say_what_they_want(tmp_path: Path) -> None:
    program = checks.build_ends(tmp_path, place.SOURCE)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "ends NETNS PID INTERFACE KEYS\n"
