"""The parts of scripts/bench that need neither root nor a network: figures, search, arguments,
order of turns, table, JSON, pictures, progress; and the UDP generator over loopback."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tools.bench import counters
from tools.bench.tunnel import (
    cases,
    command,
    contestants,
    figures,
    generator,
    iperf,
    place,
    plots,
    report,
)
from tools.bench.tunnel import underlays as under
from tools.bench.tunnel.contestants import Contestant
from tools.bench.tunnel.figures import BASE, BY_KEY, CEILING
from tools.bench.tunnel.progress import Progress
from tools.bench.tunnel.udp_rate import Found, Trial, search
from tools.lab.programs import Missing

ROOT = Path(__file__).resolve().parents[2]
VALUES = {
    (1, "trains", "pywgd"): {"tcp_1": 4.0, "ping_p50": 0.1, "rss": 7.0},
    (2, "trains", "pywgd"): {"tcp_1": 9.0, "ping_p50": 0.3},
    (3, "trains", "pywgd"): {"tcp_1": 5.0},
    (1, "trains", BASE): {"tcp_1": 1.0, "ping_p50": 0.4, "rss": 70.0},
    (2, "trains", BASE): {"tcp_1": 4.5},
    (3, "trains", BASE): {"tcp_1": 2.0},
    (1, "singles", "pywgd"): {"tcp_1": 1.5},
    (1, "singles", BASE): {"tcp_1": 1.0},
}
HEADER: dict[str, Any] = {
    "date": "2026-01-01 00:00 UTC",
    "machine": "A <CPU> & more",
    "cores": 2,
    "cpu_features": ["avx2"],
    "memory_mib": 1024,
    "kernel": "6.18",
    "iperf3": "iperf 3.12",
    "settings": {"net.core.rmem_max": "212992"},
    "load_before": 0.1,
    "rounds": 3,
    "seconds": 5.0,
    "contestants": {"pywgd": "1", BASE: "2"},
    "notes": {},
    "absent": ["gotatun: gotatun is not installed"],
    "underlays": {
        name: {"title": name, "probe": "8 x 40", "offloads": {"gso": "on"}}
        for name in ("trains", "singles")
    },
}


# ---- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100), (0.001, 1)]
)
def test_a_percentile_is_the_sample_that_this_share_does_not_exceed(
    share: float, expected: float
) -> None:
    assert figures.percentile([float(number) for number in range(100, 0, -1)], share) == expected


def test_a_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        figures.percentile([], 0.5)


def test_ratios_are_taken_within_a_round_and_then_their_median() -> None:
    # 4/1, 9/4.5, 5/2; the ratio of the medians would be 5/2, too, without round 1.
    assert figures.ratio(VALUES, "trains", "pywgd", "tcp_1") == 2.5
    assert figures.median(VALUES, "trains", "pywgd", "tcp_1") == 5.0
    assert figures.spread(VALUES, "trains", "pywgd", "tcp_1") == (4.0, 9.0)


def test_a_round_without_the_base_gives_no_ratio() -> None:
    assert figures.ratio(VALUES, "trains", "pywgd", "ping_p50") == pytest.approx(0.25)
    assert figures.ratio(VALUES, "trains", "pywgd", "udp_1372") is None
    assert figures.median(VALUES, "trains", "gotatun", "tcp_1") is None


def test_weak_is_less_than_twice_as_good_in_either_direction() -> None:
    assert figures.is_weak(BY_KEY["tcp_1"], 1.99)
    assert not figures.is_weak(BY_KEY["tcp_1"], 2.0)
    assert figures.is_weak(BY_KEY["ping_p99"], 0.51)
    assert not figures.is_weak(BY_KEY["ping_p99"], 0.5)
    assert not figures.is_weak(BY_KEY["tcp_1"], None)


def test_rows_are_the_measures_somebody_has_in_the_order_of_the_table() -> None:
    assert [one.key for one in figures.present(VALUES, "trains")] == ["tcp_1", "ping_p50", "rss"]
    assert [one.key for one in figures.present(VALUES, "singles")] == ["tcp_1"]


def test_cycles_are_those_of_one_end_for_each_byte_that_is_carried() -> None:
    # Both ends worked for 3 s at 4 GHz, and 2 GB came through: 6 GHz-seconds each.
    assert figures.cycles_per_byte(3.0, 4e9, 2e9) == 3.0
    assert figures.per_byte(10_000, 1_000) == 5.0
    with pytest.raises(ValueError, match="nothing was carried"):
        figures.cycles_per_byte(3.0, 4e9, 0)


def test_what_perf_counted_is_read_and_what_it_could_not_count_is_none() -> None:
    line = "123456,,instructions,5000,100.00,1.2,insn per cycle\n"
    assert counters.counted(f"# started\n{line}") == 123456
    assert counters.counted("42,,instructions:u,5000,100.00,,\n") == 42
    assert counters.counted("<not supported>,,instructions,0,100.00,,\n") is None
    assert counters.counted("") is None


# ---- the search for a rate -----------------------------------------------------------------------


def link(capacity: float, sender: float = 1e9) -> Any:
    """A tunnel that carries `capacity` packets a second and drops the rest."""

    def run(rate: float) -> Trial:
        sent = min(rate, sender)
        return Trial(rate, int(sent), int(min(sent, capacity)), 1.0)

    return run


@pytest.mark.parametrize("capacity", [3_000, 26_000, 100_000, 1_000_000])
def test_the_search_comes_near_the_highest_rate_without_loss(capacity: float) -> None:
    found = search(link(capacity), 25_000, 20, 2_000)
    assert found.best is not None
    assert capacity * 0.85 <= found.best.received_rate <= capacity


def test_the_search_is_bounded_in_trials() -> None:
    calls: list[float] = []

    def endless(rate: float) -> Trial:
        calls.append(rate)
        return Trial(rate, int(rate), int(rate), 1.0)

    assert search(endless, 1_000, 6, 100).trials == len(calls) == 6


def test_a_rate_that_never_passes_ends_at_the_floor() -> None:
    found = search(link(10), 25_000, 20, 2_000)
    assert found.best is None
    assert found.trials < 20


def test_a_small_loss_is_looked_at_twice_and_a_large_one_is_not() -> None:
    lossy = iter([0.01, 0.0, 0.5, 0.5])
    tried: list[float] = []

    def run(rate: float) -> Trial:
        tried.append(rate)
        return Trial(rate, 10_000, int(10_000 * (1 - next(lossy, 0.5))), 1.0)

    search(run, 8_000, 4, 100)
    assert tried[:3] == [8_000, 8_000, 16_000]
    assert tried[3] < 16_000


def test_a_sender_that_can_do_no_more_ends_the_search() -> None:
    found = search(link(1e6, sender=60_000), 25_000, 20, 2_000)
    assert found == Found(Trial(100_000, 60_000, 60_000, 1.0), 4, True)


def test_a_sender_held_up_once_does_not_end_the_search() -> None:
    shares = iter([0.7])

    def run(rate: float) -> Trial:
        sent = int(rate * next(shares, 1.0))
        return Trial(rate, sent, min(sent, 90_000), 1.0)

    found = search(run, 25_000, 20, 2_000)
    assert found.best is not None
    assert found.best.received_rate > 75_000


# ---- the generator -------------------------------------------------------------------------------


def test_the_counter_knows_loss_order_and_what_comes_late() -> None:
    counter = generator.Counter("127.0.0.1", 0)
    counter._count([0, 1, 2])
    counter._count([5, 3, 4])
    assert (counter.received, counter.reordered) == (6, 2)
    assert counter.finish(sent=6) == {"received": 6, "reordered": 2}
    counter._count([4, 6, 7])  # 4 belongs to the run before
    assert counter.finish(sent=2) == {"received": 2, "reordered": 0}
    counter.socket.close()


def test_sizes_and_targets_alternate_and_every_target_meets_every_size() -> None:
    sender = generator.Sender(["127.0.0.1", "127.0.0.2"], 9, [64, 300, 1372])
    messages = sender.ring.messages
    met = {
        (index % 2, 8 + sender.ring.vectors[2 * index + 1].length) for index in range(len(messages))
    }
    assert met == {(target, size) for target in (0, 1) for size in (64, 300, 1372)}
    assert len(messages) >= generator.BATCH
    sender.socket.close()


def test_the_generator_loses_nothing_at_a_low_rate_over_loopback() -> None:
    def worker(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                generator.__file__,
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"ready": True}
        return process

    def ask(process: subprocess.Popen[str], **question: float) -> dict[str, float]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        answer: dict[str, float] = json.loads(process.stdout.readline())
        return answer

    # An address that no other run has, and a port that the kernel gives to nobody.
    place = str(ipaddress.IPv4Address("127.64.0.0") + os.getpid())
    with (
        worker("count", place, "7242") as counter,
        worker("send", place, "7242", "64,1372") as sender,
    ):
        for _ in range(2):
            sent = ask(sender, rate=2_000, seconds=0.2)
            got = ask(counter, sent=sent["sent"])
            assert 0 < sent["sent"] <= 400  # on a busy machine it is held up
            assert got == {"received": sent["sent"], "reordered": 0}
        for process in (sender, counter):
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(5) == 0


# ---- reading what programs say -------------------------------------------------------------------


def test_ping_answers_and_losses_are_read() -> None:
    text = (
        "64 bytes from 10.99.0.2: icmp_seq=1 ttl=64 time=0.275 ms\n"
        "64 bytes from 10.99.0.2: icmp_seq=3 ttl=64 time=12 ms\n"
        "3 packets transmitted, 2 received, 33.3% packet loss, time 20ms\n"
    )
    assert cases.ping_times(text) == ([0.275, 12.0], 3)


def test_both_directions_of_iperf3_are_added() -> None:
    end = {
        "sum_sent": {"bits_per_second": 9, "bytes": 9, "retransmits": 1},
        "sum_received": {"bits_per_second": 2.5, "bytes": 100},
        "sum_sent_bidir_reverse": {"bits_per_second": 9, "bytes": 9, "retransmits": 2},
        "sum_received_bidir_reverse": {"bits_per_second": 1.5, "bytes": 50},
    }
    assert iperf.carried({"end": end}) == iperf.Carried(4.0, 150, 3)


def test_what_arrives_of_a_train_is_described_with_what_is_lost() -> None:
    assert under.describe(Counter({40: 8})) == "8 trains of 40 datagrams arrive as 8 x 40"
    assert under.describe(Counter({1: 319})).endswith("arrive as 319 x 1, 1 lost")


def test_idle_peers_have_keys_and_addresses_of_their_own() -> None:
    text = place.idle_peers(300)
    assert text.count("[Peer]") == 299
    assert "AllowedIPs = 10.128.1.43/32" in text
    assert len(set(text.split("PublicKey = ")[1:])) == 299
    assert place.idle_peers(1) == ""


# ---- arguments and order -------------------------------------------------------------------------


def test_the_defaults_measure_everything_three_times() -> None:
    options = command.arguments([])
    assert (options.rounds, options.seconds) == (3, 5.0)
    assert options.only == list(cases.GROUPS)
    assert options.underlay == ["trains", "singles", "rebuilt"]
    assert options.wanted[0] == BASE
    assert ROOT not in options.out.parents


def test_quick_is_one_round_of_the_core_beside_wireguard_go() -> None:
    options = command.arguments(["--quick"])
    assert (options.rounds, options.seconds, options.wanted) == (1, 1.0, [BASE])
    assert "peers" not in options.only
    planned = command.steps(options, [Contestant("pywgd", None), Contestant(BASE, None)])
    expected = sum(command.expected(step, command.pace(options)) for step in planned)
    assert expected <= command.QUICK_SECONDS


def test_options_choose_and_the_base_is_always_there() -> None:
    options = command.arguments(
        [
            "--only",
            "udp,tcp",
            "--underlay",
            "singles",
            "--peers",
            "gotatun",
            "--rounds",
            "2",
            "--ceiling",
            "/bin/true",
        ]
    )
    assert options.only == ["udp", "tcp"]
    assert options.underlay == ["singles"]
    assert options.wanted == [BASE, "gotatun", "ceiling"]


@pytest.mark.parametrize(
    "wrong",
    ["--only tcpp", "--underlay veth", "--peers openvpn", "--rounds 0", "--seconds -1", "--only ,"],
)
def test_wrong_options_are_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.arguments(wrong.split())
    assert caught.value.code == 2
    assert wrong.split(maxsplit=1)[0] in capsys.readouterr().err


def test_everybody_takes_turns_and_each_underlay_begins_with_another() -> None:
    options = command.arguments(
        ["--only", "tcp,handshake,peers", "--rounds", "2", "--underlay", "trains,singles"]
    )
    three = [Contestant(name, None) for name in ("pywgd", BASE, contestants.BARE)]
    planned = command.steps(options, three)
    assert sorted({(step.number, step.underlay.name) for step in planned}) == [
        (1, "singles"),
        (1, "trains"),
        (2, "singles"),
        (2, "trains"),
    ]
    begins = [step.contestant.label for step in planned if step.group == "tcp"][::3]
    assert len(set(begins)) > 1
    first = [(step.contestant.label, step.group) for step in planned[:3]]
    assert sorted(label for label, _ in first) == sorted(one.label for one in three)
    assert {group for _, group in first} == {"tcp"}
    singles = [step for step in planned if step.underlay.name == "singles"]
    assert {step.group for step in singles} == {"tcp"}
    bare = {step.group for step in planned if step.contestant.label == contestants.BARE}
    assert bare == {"tcp"}


def test_a_stand_in_may_not_pose_as_the_base() -> None:
    assert contestants._subject(f"{BASE}=/bin/true").label == BASE.upper()
    with pytest.raises(Missing, match="LABEL=PATH"):
        contestants._subject("nothing")


# ---- what is written -----------------------------------------------------------------------------


def test_the_table_has_medians_ratios_and_what_is_absent() -> None:
    text = report.text(HEADER, VALUES, ["round 1: it broke"])
    row = next(line for line in text.splitlines() if line.startswith("TCP, 1 stream"))
    assert row.split()[-3:] == ["5.00", "2.50x", "2.00"]
    assert "not measured: gotatun" in text
    assert "failed: round 1: it broke" in text
    assert "== singles" in text


def test_ratios_refer_to_the_base_that_was_chosen() -> None:
    values = {**VALUES, (1, "trains", "tailscale"): {"tcp_1": 2.0, "cycles_tcp_1": 5.0}}
    header = {**HEADER, "contestants": {"pywgd": "1", BASE: "2", "tailscale": "3"}}
    text = report.text({**header, "base": "tailscale", "clock_ghz": 4.25}, values, [])
    row = next(line for line in text.splitlines() if line.startswith("TCP, 1 stream"))
    assert row.split()[-5:] == ["5.00", "2.00x", "2.00", "0.50x", "2.00"]
    assert "ratios to tailscale" in text
    assert "clock measured 4.25 GHz" in text
    assert "cycles, each byte and end, TCP 1 [1/B]" in text
    assert command.arguments(["--base", "tailscale"]).base == "tailscale"


def test_the_table_names_where_less_than_twice_is_reached() -> None:
    text = report.text(HEADER, VALUES, [])
    weak = text.split("less than 2 times")[1]
    assert "singles  TCP, 1 stream: 1.50x" in weak
    assert "trains" not in weak


def test_the_share_of_the_ceiling_is_named_when_it_was_measured() -> None:
    assert "beside" not in report.text(HEADER, VALUES, [])
    values = {**VALUES, (1, "trains", CEILING): {"tcp_1": 5.0}}
    assert "trains   TCP, 1 stream: 80%" in report.text(HEADER, values, [])


def test_the_json_holds_every_round_and_the_summary() -> None:
    document = json.loads(json.dumps(report.as_json(HEADER, VALUES, [])))
    assert len(document["values"]) == len(VALUES)
    assert document["summary"]["trains"]["pywgd"]["tcp_1"] == {
        "median": 5.0,
        "min": 4.0,
        "max": 9.0,
        "ratio": 2.5,
    }
    assert document["measures"]["tcp_1"]["unit"] == "Gbit/s"


def test_a_picture_is_xml_with_a_bar_for_each_value() -> None:
    svg = plots.picture("A & B", ["<note>"], VALUES, "trains", ["pywgd", BASE])
    root = ET.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    bars = [rect for rect in root.iter(f"{space}rect") if rect.get("height") == "14"]
    assert len(bars) == 6
    widths = [float(rect.get("width", "0")) for rect in bars[:2]]
    assert widths[0] / widths[1] == pytest.approx(2.5, rel=0.01)
    shown = [element.text for element in root.iter(f"{space}text")]
    assert {"A & B", "<note>", "5.00", "pywgd", "Gbit/s, more is better"} <= set(shown)


def test_a_picture_of_nothing_is_still_a_picture() -> None:
    ET.fromstring(plots.picture("nothing", [], {}, "trains", ["pywgd"]))


def test_progress_says_how_much_is_done_and_how_long_it_takes() -> None:
    now = [0.0]
    out = io.StringIO()
    progress = Progress([10.0, 10.0, 20.0], out, lambda: now[0])
    progress.begin("first")
    now[0] = 20.0  # twice as long as thought
    progress.finish()
    progress.begin("second")
    lines = out.getvalue().splitlines()
    assert lines[0].endswith("0/3  0:40 left  first")
    assert lines[1].endswith("1/3  1:00 left  second")
