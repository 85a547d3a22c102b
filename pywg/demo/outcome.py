"""The outcome of a demo as text."""

from __future__ import annotations

from statistics import median
from typing import Any


def describe(outcome: dict[str, Any]) -> str:
    """A short table: what was measured, and how."""
    rows = [
        ("pywg", f"{outcome['version']}, cipher {outcome['cipher']}, tier {outcome['tier']}"),
        ("handshake", f"{outcome['handshake_ms']:.2f} ms"),
        ("ping", f"{median(outcome['ping_ms'][1:]):.2f} ms (median after the first)"),
    ]
    for measured in outcome["transfers"]:
        text = (
            f"{measured['mbit_per_s']:.0f} Mbit/s, "
            f"{measured['cpu_seconds_per_gib']:.2f} CPU seconds per GiB"
        )
        if "retransmits" in measured:
            text += f", {measured['retransmits']} retransmits"
        rows.append((measured["direction"], f"{text} ({measured['tool']})"))
    for name, offloads in outcome["offloads"].items():
        text = ", ".join(f"{offload} {state}" for offload, state in offloads.items())
        rows.append((f"offloads {name}", text.replace("_", " ") or "none"))
    for name, dropped in outcome["dropped"].items():
        if dropped:
            text = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
            rows.append((f"dropped {name}", text.replace("_", " ")))
    width = max(len(name) for name, _ in rows)
    lines = ["", *(f"{name:<{width}}  {text}" for name, text in rows)]
    if "unlock" in outcome:
        lines += ["", outcome["unlock"]]
    return "\n".join(lines)
