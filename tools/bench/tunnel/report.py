"""The table for people and the JSON for programs. Invariant: both come from the same values."""

from __future__ import annotations

from typing import Any

from tools.bench.tunnel import figures
from tools.bench.tunnel.figures import BASE, CEILING, MEASURES, Measure, Values

TITLE_WIDTH, CELL_WIDTH = 44, 20


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def cell(values: Values, underlay: str, who: str, measure: Measure, base: str = BASE) -> str:
    """Median, and how many times the base it is."""
    value = figures.median(values, underlay, who, measure.key)
    against = None if who == base else figures.ratio(values, underlay, who, measure.key, base)
    times = "" if against is None else f" {against:6.2f}x"
    return f"{number(value, measure.digits)}{times or ' ' * 8}"


def table(values: Values, underlay: str, contestants: list[str], base: str = BASE) -> list[str]:
    lines = [
        f"{'':<{TITLE_WIDTH}}" + "".join(f"{who[:CELL_WIDTH]:>{CELL_WIDTH}}" for who in contestants)
    ]
    for measure in figures.present(values, underlay):
        cells = (cell(values, underlay, who, measure, base) for who in contestants)
        title = f"{measure.title} [{measure.unit}]"
        lines.append(f"{title:<{TITLE_WIDTH}}" + "".join(f"{one:>{CELL_WIDTH}}" for one in cells))
    return [line.rstrip() for line in lines]


def heading(header: dict[str, Any]) -> list[str]:
    lines = [
        f"{header['date']}  {header['machine']}, {header['cores']} cores, "
        f"{' '.join(header['cpu_features']) or 'no vector extensions'}, {header['memory_mib']} MiB",
        f"Linux {header['kernel']}, {header['iperf3']}, "
        + ", ".join(f"{name} {value}" for name, value in header["settings"].items()),
        f"load before the run {header['load_before']}; during its "
        f"{header.get('run_seconds', 0):.0f} s other programs and kernel threads used "
        f"{header.get('cores_used_by_others', 0):.2f} cores, other machines "
        f"{header.get('stolen_cores', 0):.2f}",
        f"both daemons and both ends of the traffic share these cores; MTU 1420 inside; "
        f"medians of {header['rounds']} rounds, {header['seconds']:g} s a transfer",
    ]
    if header.get("clock_ghz"):
        lines.append(
            f"clock measured {header['clock_ghz']:.2f} GHz; cycles are CPU time times the clock"
        )
    lines += [f"  {label}: {text}" for label, text in header["contestants"].items()]
    lines += [f"  {label}: {text}" for label, text in header["notes"].items()]
    lines += [f"  not measured: {text}" for text in header["absent"]]
    return lines


def text(header: dict[str, Any], values: Values, failures: list[str]) -> str:
    contestants = list(header["contestants"])
    base = header.get("base", BASE)
    lines = heading(header)
    for name, underlay in header["underlays"].items():
        if not figures.present(values, name):
            continue
        lines += ["", f"== {name}: {underlay['title']}", f"   {underlay['probe']}"]
        lines.append("   " + ", ".join(f"{key} {on}" for key, on in underlay["offloads"].items()))
        lines += ["", *table(values, name, contestants, base)]
    lines += [
        "",
        f"x: median of the ratios to {base} in the same round; "
        "of times, CPU and memory less than 1 is better.",
        "A ping that does not come back in two seconds counts as two seconds.",
    ]
    lines += weak_points(header, values)
    lines += below_ceiling(header, values)
    limited = header.get("limited_by_sender")
    if limited:
        lines.append(f"the UDP sender could do no more: {'; '.join(limited)}")
    lines += [f"failed: {failure}" for failure in failures]
    if header.get("incomplete"):
        lines.append(f"incomplete: {header['incomplete']}")
    return "\n".join(lines) + "\n"


def weak_points(header: dict[str, Any], values: Values, wanted: float = 2.0) -> list[str]:
    """Where the first contestant is less than twice as good as the base."""
    subject, base = next(iter(header["contestants"])), header.get("base", BASE)
    lines = []
    for name in header["underlays"]:
        for measure in figures.present(values, name):
            against = figures.ratio(values, name, subject, measure.key, base)
            if _is_about_speed(measure) and figures.is_weak(measure, against, wanted):
                lines.append(f"  {name:<8} {measure.title}: {against:.2f}x")
    return [f"{subject} is less than {wanted:g} times as good in:", *lines] if lines else []


def below_ceiling(header: dict[str, Any], values: Values) -> list[str]:
    """How much of the speed without a cipher the first contestant reaches."""
    subject = next(iter(header["contestants"]))
    lines = []
    for name in header["underlays"]:
        for measure in figures.present(values, name):
            share = figures.ratio(values, name, subject, measure.key, CEILING)
            if measure.more_is_better and _is_about_speed(measure) and share is not None:
                lines.append(f"  {name:<8} {measure.title}: {share:.0%}")
    return [f"{subject} beside {CEILING}:", *lines] if lines else []


def _is_about_speed(measure: Measure) -> bool:
    return not measure.key.startswith(("message", "reordered", "cycles"))


def as_json(header: dict[str, Any], values: Values, failures: list[str]) -> dict[str, Any]:
    medians: dict[str, Any] = {}
    for underlay in header["underlays"]:
        for who in header["contestants"]:
            found = {
                measure.key: _summary(values, underlay, who, measure.key, header.get("base", BASE))
                for measure in figures.present(values, underlay)
                if figures.median(values, underlay, who, measure.key) is not None
            }
            medians.setdefault(underlay, {})[who] = found
    return {
        **header,
        "measures": {one.key: {"title": one.title, "unit": one.unit} for one in MEASURES},
        "summary": medians,
        "values": [
            {"round": turn, "underlay": underlay, "contestant": who, **found}
            for (turn, underlay, who), found in values.items()
        ],
        "failures": failures,
    }


def _summary(
    values: Values, underlay: str, who: str, key: str, base: str
) -> dict[str, float | None]:
    low, high = figures.spread(values, underlay, who, key)
    return {
        "median": figures.median(values, underlay, who, key),
        "min": low,
        "max": high,
        "ratio": figures.ratio(values, underlay, who, key, base),
    }
