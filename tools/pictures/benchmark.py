"""Bars of a run of scripts/bench. What they are drawn from is kept beside them, so that a test can
compare."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tools.bench.tunnel import plots
from tools.bench.tunnel.figures import Key

KEYS = ("tcp_1", "tcp_4", "cpu_tcp_1")
HEADER = ("date", "machine", "cores", "kernel", "rounds", "seconds", "contestants", "underlays")


def keep(results: Path, folder: Path) -> None:
    """The part of a results.json that the picture needs: its first underlay."""
    found = json.loads(results.read_text(encoding="utf-8"))
    first = next(iter(found["underlays"]))
    kept = {key: found[key] for key in HEADER}
    # Where somebody's programs and kernels came from is nobody's business.
    kept["kernel"] = ".".join(found["kernel"].split(".")[:2])
    kept["contestants"] = {
        label: re.sub(r" \(/.*\)$", "", version) for label, version in found["contestants"].items()
    }
    kept["underlays"] = {first: {"title": found["underlays"][first]["title"]}}
    kept["values"] = [
        {key: one[key] for key in ("round", "underlay", "contestant", *KEYS) if key in one}
        for one in found["values"]
        if one["underlay"] == first
    ]
    (folder / "benchmark.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def write(folder: Path) -> Path:
    """Draws what was kept."""
    path = folder / "benchmark.svg"
    kept = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
    path.write_text(draw(kept), encoding="utf-8")
    return path


def draw(kept: dict[str, Any]) -> str:
    """A whole SVG document."""
    values: dict[Key, dict[str, float]] = {
        (one["round"], one["underlay"], one["contestant"]): {
            key: one[key] for key in KEYS if key in one
        }
        for one in kept["values"]
    }
    underlay = next(iter(kept["underlays"]))
    notes = [
        f"{kept['cores']} cores of {kept['machine']}, Linux {kept['kernel']}, {kept['date']}",
        "both ends of the tunnel and of the traffic share these cores; "
        f"medians of {kept['rounds']} rounds of {kept['seconds']:g} s",
    ]
    return plots.picture(
        "pywg beside others, on one machine", notes, values, underlay, list(kept["contestants"])
    )
