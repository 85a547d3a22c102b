"""Medians, percentiles and ratios of what the rounds gave; and the list of measures.

Invariant: a ratio compares two values of one round and one underlay; what is reported is the median
of such ratios, never a ratio of figures from different rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# (round, underlay, contestant) -> measure -> value
Key = tuple[int, str, str]
Values = Mapping[Key, Mapping[str, float]]

BASE = "wireguard-go"
CEILING = "pywgd, no cipher"


@dataclass(frozen=True)
class Measure:
    """One row of the table."""

    key: str
    title: str
    unit: str
    more_is_better: bool = True
    digits: int = 2


MEASURES = (
    Measure("tcp_1", "TCP, 1 stream", "Gbit/s"),
    Measure("tcp_4", "TCP, 4 streams", "Gbit/s"),
    Measure("tcp_reverse", "TCP, reverse", "Gbit/s"),
    Measure("tcp_both", "TCP, both ways (sum)", "Gbit/s"),
    Measure("cpu_tcp_1", "CPU of both daemons, TCP 1", "s/GiB", False),
    Measure("cpu_tcp_both", "CPU of both daemons, both ways", "s/GiB", False),
    Measure("cycles_tcp_1", "cycles, each byte and end, TCP 1", "1/B", False),
    Measure("cycles_tcp_4", "cycles, each byte and end, TCP 4", "1/B", False),
    Measure("cycles_tcp_reverse", "cycles, each byte and end, reverse", "1/B", False),
    Measure("cycles_tcp_both", "cycles, each byte and end, both", "1/B", False),
    Measure("instructions_tcp_1", "instructions, each byte and end", "1/B", False),
    Measure("message_tcp_1", "received at once, TCP 1", "KiB", digits=1),
    Measure("vxlan_zero", "TCP in VXLAN, checksum 0", "Gbit/s"),
    Measure("vxlan_checksum", "TCP in VXLAN, checksums", "Gbit/s"),
    Measure("cpu_vxlan_zero", "CPU of both daemons, checksum 0", "s/GiB", False),
    Measure("cpu_vxlan_checksum", "CPU of both daemons, checksums", "s/GiB", False),
    Measure("geneve_zero", "TCP in Geneve, checksum 0", "Gbit/s"),
    Measure("geneve_checksum", "TCP in Geneve, checksums", "Gbit/s"),
    Measure("udp_1372", "UDP 1372 B, loss <= 0.1 %", "Mbit/s", digits=0),
    Measure("cpu_udp_1372", "CPU of both daemons, that UDP", "s/GiB", False),
    Measure("cycles_udp_1372", "cycles, each byte and end, UDP", "1/B", False),
    Measure("pps_64", "UDP 64 B, loss <= 0.1 %", "kpps", digits=1),
    Measure("pps_512", "UDP 512 B, loss <= 0.1 %", "kpps", digits=1),
    Measure("flood_64", "UDP 64 B, arriving of a flood", "kpps", digits=1),
    Measure("reordered", "UDP 64 B, out of order", "ppm", False, 0),
    Measure("ping_p50", "ping, idle, p50", "ms", False, 3),
    Measure("ping_p99", "ping, idle, p99", "ms", False, 3),
    Measure("loaded_p50", "ping under TCP, p50", "ms", False, 2),
    Measure("loaded_p99", "ping under TCP, p99", "ms", False, 2),
    Measure("handshake", "handshake and first ping", "ms", False, 2),
    Measure("rss", "peak RSS of a daemon", "MiB", False, 1),
    Measure("peers_1_tcp", "1 peer: TCP, 1 stream", "Gbit/s"),
    Measure("peers_100_tcp", "100 peers: TCP, 1 stream", "Gbit/s"),
    Measure("peers_10000_tcp", "10 000 peers: TCP, 1 stream", "Gbit/s"),
    Measure("peers_1_cpu", "1 peer: CPU", "s/GiB", False),
    Measure("peers_100_cpu", "100 peers: CPU", "s/GiB", False),
    Measure("peers_10000_cpu", "10 000 peers: CPU", "s/GiB", False),
    Measure("peers_1_flood", "1 peer: 64 B flood", "kpps", digits=1),
    Measure("peers_100_flood", "100 peers: 64 B flood", "kpps", digits=1),
    Measure("peers_10000_flood", "10 000 peers: 64 B flood", "kpps", digits=1),
    Measure("peers_1_rss", "1 peer: peak RSS", "MiB", False, 1),
    Measure("peers_100_rss", "100 peers: peak RSS", "MiB", False, 1),
    Measure("peers_10000_rss", "10 000 peers: peak RSS", "MiB", False, 1),
    Measure("peers_10000_kib", "each further idle peer", "KiB", False),
    Measure("peers_10000_setconf", "10 000 peers: wg setconf", "s", False),
    Measure("active_100", "100 active peers, mixed sizes", "kpps", digits=1),
    Measure("active_100_cpu", "CPU of their hub", "us/packet", False),
)
BY_KEY = {measure.key: measure for measure in MEASURES}


# Each byte that is carried is sealed at one end and opened at the other.
ENDS = 2


def cycles_per_byte(cpu_seconds: float, hertz: float, carried: float) -> float:
    """Of one end, for each byte that is carried; `cpu_seconds` are those of both."""
    return per_byte(cpu_seconds * hertz, carried)


def per_byte(total: float, carried: float) -> float:
    """What both ends have spent, for each byte that is carried and each end."""
    if carried <= 0:
        raise ValueError("nothing was carried")
    return total / carried / ENDS


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least this share of all samples does not exceed."""
    ordered = sorted(samples)
    if not ordered:
        raise ValueError("no samples")
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


def median_of(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None


def median(values: Values, underlay: str, contestant: str, measure: str) -> float | None:
    """Over all rounds that have it."""
    return median_of(
        found[measure]
        for (_, where, who), found in values.items()
        if where == underlay and who == contestant and measure in found
    )


def spread(values: Values, underlay: str, contestant: str, measure: str) -> tuple[float, float]:
    """The smallest and the largest."""
    known = [
        found[measure]
        for (_, where, who), found in values.items()
        if where == underlay and who == contestant and measure in found
    ]
    return min(known), max(known)


def ratio(
    values: Values, underlay: str, contestant: str, measure: str, base: str = BASE
) -> float | None:
    """Median of the ratios to `base`, each within one round."""
    ratios = []
    for (number, where, who), found in values.items():
        if where != underlay or who != contestant or measure not in found:
            continue
        reference = values.get((number, where, base), {}).get(measure)
        if reference:
            ratios.append(found[measure] / reference)
    return median_of(ratios)


def is_weak(measure: Measure, against: float | None, wanted: float = 2.0) -> bool:
    """Less than `wanted` times as good as the base."""
    if against is None:
        return False
    return against < wanted if measure.more_is_better else against > 1 / wanted


def present(values: Values, underlay: str) -> list[Measure]:
    """The measures anybody has on this underlay, in the order of the table."""
    keys = {key for (_, where, _), found in values.items() if where == underlay for key in found}
    return [measure for measure in MEASURES if measure.key in keys]
