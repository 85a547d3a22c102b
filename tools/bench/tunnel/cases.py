"""One function for each group of measures: it takes a pair that carries pings and gives values by
the keys of figures.MEASURES. Traffic is bounded in time; nothing is left running."""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tools.bench import clock, counters
from tools.bench.tunnel import iperf
from tools.bench.tunnel.active import active_peers
from tools.bench.tunnel.contestants import Contestant
from tools.bench.tunnel.datagrams import FLOOD, trials
from tools.bench.tunnel.figures import cycles_per_byte, per_byte, percentile
from tools.bench.tunnel.place import Pair, forget, open_pair, reaches
from tools.bench.tunnel.udp_rate import Trial, search
from tools.bench.tunnel.underlays import Underlay
from tools.lab.lab import Lab
from tools.lab.overlay import OVERLAY, make_overlay
from tools.lab.waiting import wait_until

GIB = 1 << 30
SIZE_LARGE = 1372  # the largest payload that fits an MTU of 1420 and is a multiple of four
PING_INTERVAL = 0.005
PING_DEADLINE = 2.0
OVERLAY_MTU = 1370  # of the tunnel's 1420: IPv4, UDP, VXLAN or Geneve, Ethernet
HEAD_START = 0.3  # until TCP is up to speed
PACKETS_MIN = 2_000.0  # a second; below this nobody looks
Values = dict[str, float]


@dataclass
class Pace:
    """How long things last."""

    seconds: float
    trial_seconds: float
    trials: int
    handshakes: int
    # (underlay, contestant, payload) -> packets per second found in an earlier round
    known: dict[tuple[str, str, int], float] = field(default_factory=dict)
    peers: tuple[int, ...] = (1, 100, 10_000)
    # Cycles a second of this moment, or None where nobody can tell.
    clock: Callable[[], float | None] = clock.hertz
    # Searches that ended at what the sender can do, not at what the tunnel can.
    at_sender: set[str] = field(default_factory=set)


@dataclass
class Turn:
    """One contestant on one underlay in one round."""

    contestant: Contestant
    underlay: Underlay
    pace: Pace
    no_offload: str
    client: Contestant  # pywgd, for the far ends of many active peers

    def pair(self, lab: Lab, peers: int = 1) -> Pair:
        return open_pair(lab, self.contestant, self.underlay, self.no_offload, peers)


def in_lab(turn: Turn, work: Callable[[Pair], Values], peers: int = 1) -> Values:
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        try:
            return work(turn.pair(lab, peers))
        finally:
            lab.close()


# ---- TCP -----------------------------------------------------------------------------------------

TCP_CASES = (
    ("tcp_1", ()),
    ("tcp_4", ("-P", "4")),
    ("tcp_reverse", ("-R",)),
    ("tcp_both", ("--bidir",)),
)


def tcp(turn: Turn, pair: Pair) -> Values:
    values: Values = {}
    hertz = turn.pace.clock()
    for key, flags in TCP_CASES:
        values |= tcp_case(pair, key, turn.pace.seconds, flags, hertz)
    values |= _known("rss", pair.peak_rss_mib())
    return values


def tcp_case(
    pair: Pair,
    key: str,
    seconds: float,
    flags: tuple[str, ...] = (),
    hertz: float | None = None,
) -> Values:
    cpu_before, messages_before = pair.cpu_seconds(), pair.received_messages()
    with counters.instructions(daemon.pid for daemon in pair.daemons()) as counted:
        done = iperf.transfer(pair.a, pair.b, pair.address, seconds, *flags)
    cpu, messages = pair.cpu_seconds(), pair.received_messages()
    values = {key: done.bits_per_second / 1e9, f"retransmits_{key}": float(done.retransmits)}
    if cpu_before is not None and cpu is not None and done.received_bytes:
        spent = cpu - cpu_before
        values[f"cpu_{key}"] = spent / (done.received_bytes / GIB)
        if hertz is not None:
            values[f"cycles_{key}"] = cycles_per_byte(spent, hertz, done.received_bytes)
        if counted:
            values[f"instructions_{key}"] = per_byte(counted[0], done.received_bytes)
    if messages_before is not None and messages is not None:
        bytes_read, count = (
            now - before for before, now in zip(messages_before, messages, strict=True)
        )
        values[f"message_{key}"] = bytes_read / max(1, count) / 1024
    return values


def vxlan(turn: Turn, pair: Pair) -> Values:
    return inside(turn, pair, "vxlan")


def geneve(turn: Turn, pair: Pair) -> Values:
    return inside(turn, pair, "geneve")


def inside(turn: Turn, pair: Pair, kind: str) -> Values:
    """One TCP stream in a UDP tunnel above this one, without and with checksums of its datagrams;
    a kernel that cannot make such interfaces is said to be one."""
    values: Values = {}
    near = pair.ends[0].inner4 if pair.ends else "192.0.2.1"
    for key, checksums in ((f"{kind}_zero", False), (f"{kind}_checksum", True)):
        for number, space, ends in (
            (1, pair.a, (near, pair.address)),
            (2, pair.b, (pair.address, near)),
        ):
            inner = f"10.88.0.{number}/24"
            said = make_overlay(space, kind, ends, inner, checksums=checksums, mtu=OVERLAY_MTU)
            assert said is None, f"{kind} interfaces cannot be made on this kernel: {said}"
        over = replace(pair, address="10.88.0.2")
        wait_until(partial(reaches, over), f"{kind} carries a ping")
        values |= tcp_case(over, key, turn.pace.seconds)
        for space in (pair.a, pair.b):
            space.ip("link", "del", OVERLAY)
    return values


def _known(key: str, value: float | None) -> Values:
    return {} if value is None else {key: value}


# ---- UDP -----------------------------------------------------------------------------------------


def udp(turn: Turn, pair: Pair) -> Values:
    best, cpu = _rate(turn, pair, SIZE_LARGE)
    if best is None:
        return {"udp_1372": 0.0}
    values = {"udp_1372": best.received_rate * SIZE_LARGE * 8 / 1e6}
    if cpu is not None and best.received:
        carried = best.received * SIZE_LARGE
        values["cpu_udp_1372"] = cpu / (carried / GIB)
        hertz = turn.pace.clock()
        if hertz is not None:
            values["cycles_udp_1372"] = cycles_per_byte(cpu, hertz, carried)
    return values


def small(turn: Turn, pair: Pair) -> Values:
    values: Values = {}
    for size in (64, 512):
        best, _ = _rate(turn, pair, size)
        values[f"pps_{size}"] = best.received_rate / 1e3 if best else 0.0
        if size == 64 and best:
            values["reordered"] = best.reordered / max(1, best.received) * 1e6
    values["flood_64"] = flood(turn, pair)
    return values


def flood(turn: Turn, pair: Pair) -> float:
    """Thousands of datagrams of 64 bytes that arrive each second when more are sent than can."""
    with trials(pair.a, pair.b, [pair.address], [64], pair.address) as trial:
        return trial(FLOOD, turn.pace.seconds).received_rate / 1e3


def _rate(turn: Turn, pair: Pair, size: int) -> tuple[Trial | None, float | None]:
    """The best trial, and the CPU seconds of both daemons in it."""
    costs: dict[Trial, float] = {}
    key = (turn.underlay.name, turn.contestant.label, size)
    with trials(pair.a, pair.b, [pair.address], [size], pair.address) as trial:

        def run(rate: float) -> Trial:
            before = pair.cpu_seconds()
            done = trial(rate, turn.pace.trial_seconds)
            after = pair.cpu_seconds()
            if before is not None and after is not None:
                costs[done] = after - before
            return done

        start = turn.pace.known.get(key, 25_000.0)
        found = search(run, start, turn.pace.trials, PACKETS_MIN)
    if found.best is None:
        return None, None
    if found.limited_by_sender:
        turn.pace.at_sender.add(f"{turn.underlay.name}, {turn.contestant.label}, {size} bytes")
    turn.pace.known[key] = found.best.received_rate
    return found.best, costs.get(found.best)


# ---- latency -------------------------------------------------------------------------------------


def latency(turn: Turn, pair: Pair) -> Values:
    seconds = turn.pace.seconds
    idle = pings(pair, seconds / 2)
    with iperf.server(pair.b, pair.address):
        load = iperf.start(pair.a, pair.address, seconds + HEAD_START + 2 * PING_DEADLINE)
        try:
            pings(pair, HEAD_START)
            loaded = pings(pair, seconds)
            if load.poll() is not None:
                raise AssertionError("iperf3 ended before the pings under load")
        finally:
            iperf.end(load)
    return {
        "ping_p50": percentile(idle, 0.5),
        "ping_p99": percentile(idle, 0.99),
        "loaded_p50": percentile(loaded, 0.5),
        "loaded_p99": percentile(loaded, 0.99),
    }


def pings(pair: Pair, seconds: float) -> list[float]:
    """Milliseconds of each that came back; one that did not counts as the deadline."""
    count = max(2, int(seconds / PING_INTERVAL))
    answer = pair.a.attempt(
        *("ping", "-n", "-i", f"{PING_INTERVAL:g}", "-c", str(count)),
        *("-W", f"{PING_DEADLINE:g}", "-w", str(math.ceil(seconds + PING_DEADLINE)), pair.address),
        timeout=seconds + 10,
    )
    times, sent = ping_times(answer.stdout)
    if not sent:
        raise AssertionError(f"ping: {answer.stderr.strip() or answer.stdout.strip()}")
    return times + [PING_DEADLINE * 1e3] * (sent - len(times))


def ping_times(text: str) -> tuple[list[float], int]:
    """Round trips in milliseconds, and how many were sent."""
    sent = re.search(r"(\d+) packets transmitted", text)
    times = [float(found) for found in re.findall(r"time=([\d.]+) ms", text)]
    return times, int(sent[1]) if sent else len(times)


def handshake(turn: Turn, pair: Pair) -> Values:
    """The first ping without a session waits for the handshake."""
    if pair.ends is None:
        return {}
    times = []
    for _ in range(turn.pace.handshakes):
        forget(pair)
        answer = pair.a.attempt("ping", "-n", "-c", "1", "-W", "3", pair.address)
        times += ping_times(answer.stdout)[0]
    return {"handshake": percentile(times, 0.5)} if times else {}


# ---- many peers ----------------------------------------------------------------------------------


def peers(turn: Turn) -> Values:
    """TCP, a flood of small packets and memory with many peers that are configured but silent."""
    values: Values = {}
    for count in turn.pace.peers:
        values |= in_lab(turn, partial(_with_peers, turn, count), count)
    few, many = (values.pop(f"configured_{count}", None) for count in (1, 10_000))
    if few is not None and many is not None:
        values["peers_10000_kib"] = (many - few) * 1024 / 9_999
    return values


def _with_peers(turn: Turn, count: int, pair: Pair) -> Values:
    label = f"peers_{count}"
    configured = _known(f"configured_{count}", pair.peak_rss_mib())
    measured = tcp_case(pair, "tcp", turn.pace.seconds)
    values = configured | {f"{label}_tcp": measured["tcp"], f"{label}_flood": flood(turn, pair)}
    values |= _known(f"{label}_cpu", measured.get("cpu_tcp"))
    values |= _known(f"{label}_rss", pair.peak_rss_mib())
    return values | {f"{label}_setconf": pair.setconf_seconds}


def active(turn: Turn) -> Values:
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        try:
            return active_peers(
                lab,
                turn.contestant,
                turn.client,
                turn.underlay,
                search=lambda run: search(run, 20_000.0, turn.pace.trials, PACKETS_MIN),
                seconds=turn.pace.trial_seconds,
            )
        finally:
            lab.close()


# ---- groups --------------------------------------------------------------------------------------

ON_ONE_PAIR: dict[str, Callable[[Turn, Pair], Values]] = {
    "tcp": tcp,
    "vxlan": vxlan,
    "geneve": geneve,
    "udp": udp,
    "small": small,
    "latency": latency,
    "handshake": handshake,
}
ON_THEIR_OWN: dict[str, Callable[[Turn], Values]] = {"peers": peers, "active": active}
GROUPS = (*ON_ONE_PAIR, *ON_THEIR_OWN)
# What a contestant may fail with, without ending the run.
FAILURES = (AssertionError, OSError, ValueError, KeyError, subprocess.SubprocessError)


def seconds_expected(group: str, pace: Pace) -> float:
    """For the progress line; only proportions matter once a few turns are over."""
    searching = pace.trials * (pace.trial_seconds + 0.15)
    return {
        "tcp": 4 * (pace.seconds + 0.4),
        "vxlan": 2 * (pace.seconds + 1),
        "geneve": 2 * (pace.seconds + 1),
        "udp": searching,
        "small": 2 * searching + pace.seconds,
        "latency": 1.5 * pace.seconds + 2,
        "handshake": pace.handshakes * 0.05,
        "peers": len(pace.peers) * (2 * pace.seconds + 4),
        "active": searching + 10,
    }[group]
