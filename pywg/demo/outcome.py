"""The outcome of a demo as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, median
from typing import Any

from pywg.demo.next_steps import NextStep

BAR_WIDTH = 36
_EIGHTHS = " ▏▎▍▌▋▊▉"


def describe(outcome: dict[str, Any], *, unicode: bool = True) -> str:
    """A chart, a short table, and what to type next."""
    rows = list(_rows(outcome))
    width = max(len(name) for name, _ in rows)
    lines = [
        "",
        *chart(speeds(outcome), outcome.get("beside_notes", {}), unicode=unicode),
        "",
        *(f"{name:<{width}}  {text}" for name, text in rows),
        *_next(outcome.get("next", [])),
    ]
    return "\n".join(line.rstrip() for line in lines)


def speeds(outcome: dict[str, Any]) -> dict[str, float]:
    """Mbit/s by name, the mean of both directions, the fastest first."""
    transfers = {"pywg": outcome["transfers"], **outcome.get("beside", {})}
    means = {name: mean(one["mbit_per_s"] for one in each) for name, each in transfers.items()}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def chart(
    speeds: dict[str, float], notes: Mapping[str, str], *, unicode: bool = True
) -> Iterator[str]:
    """A bar for each; the longest fills the line."""
    width = max(len(name) for name in speeds)
    longest = max((*speeds.values(), 1.0))
    yield "TCP, one stream, mean of both directions:"
    for name, value in speeds.items():
        bar = _bar(value / longest, unicode=unicode)
        remark = f"  ({notes[name]})" if name in notes else ""
        yield f"  {name:<{width}}  {bar:<{BAR_WIDTH}}  {_speed(value)}{remark}"


def _bar(share: float, *, unicode: bool) -> str:
    if not unicode:
        return "#" * max(1, round(share * BAR_WIDTH))
    eighths = max(1, round(share * BAR_WIDTH * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _speed(mbit_per_s: float) -> str:
    return f"{mbit_per_s / 1000:.2f} Gbit/s" if mbit_per_s >= 1000 else f"{mbit_per_s:.0f} Mbit/s"


def _rows(outcome: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "pywg", f"{outcome['version']}, tier {outcome['tier']}"
    yield "handshake", f"{outcome['handshake_ms']:.2f} ms"
    yield "ping", f"{median(outcome['ping_ms'][1:]):.2f} ms (median after the first)"
    for measured in outcome["transfers"]:
        text = (
            f"{measured['mbit_per_s']:.0f} Mbit/s, "
            f"{measured['cpu_seconds_per_gib']:.2f} CPU seconds per GiB"
        )
        if "retransmits" in measured:
            text += f", {measured['retransmits']} retransmits"
        yield measured["direction"], f"{text} ({measured['tool']})"
    yield "active", ", ".join(_active(outcome))
    if idle := _not_active(outcome["offloads"]):
        yield "not active", ", ".join(idle)
    for name, dropped in outcome["dropped"].items():
        # What has no peer is the kernel's own, when a link comes up: nobody sent it.
        found = {reason: count for reason, count in dropped.items() if reason != "no_peer"}
        if found:
            text = ", ".join(f"{reason} {count}" for reason, count in found.items())
            yield f"dropped {name}", text.replace("_", " ")


def _active(outcome: dict[str, Any]) -> Iterator[str]:
    """Of both ends, which are alike."""
    yield f"cipher {outcome['cipher']}"
    if threads := outcome.get("threads"):
        yield f"{threads} thread" + "s" * (threads > 1) + " for each end"
    if outcome["offloads"]:
        first = next(iter(outcome["offloads"].values()))
        active = [name.replace("_", " ") for name, state in first.items() if state == "active"]
        yield "offloads " + (", ".join(active) or "none")


def _not_active(offloads: dict[str, dict[str, str]]) -> list[str]:
    """Each once, though both ends say it."""
    found = (
        f"{name} ({state})"
        for each in offloads.values()
        for name, state in each.items()
        if state != "active"
    )
    return [one.replace("_", " ") for one in dict.fromkeys(found)]


def _next(steps: Sequence[dict[str, str]]) -> Iterator[str]:
    if steps:
        yield ""
        yield "Next:"
    width = max((len(step["command"]) for step in steps), default=0)
    for step in steps:
        yield f"  {step['command']:<{width}}   # {step['what']}"


def as_json(steps: Sequence[NextStep]) -> list[dict[str, str]]:
    """As an outcome has them, under ``next``."""
    return [{"command": step.command, "what": step.what} for step in steps]
