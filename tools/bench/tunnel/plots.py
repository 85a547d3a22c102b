"""Bars as SVG, written by hand: one picture for each underlay, one panel for each measure."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from tools.bench.tunnel import figures
from tools.bench.tunnel.figures import Measure, Values
from tools.bench.tunnel.report import number

COLUMNS = 3
PANEL_WIDTH, GAP, MARGIN = 380, 24, 24
HEADING, LINE, TITLE = 20, 20, 26
LABEL_WIDTH, VALUE_WIDTH = 130, 60
BAR_HEIGHT = 14
COLOURS = ("#1b6ca8", "#7a7a7a", "#b0885a", "#8c6bb1", "#4d9078", "#c05a5a", "#c9a227", "#444444")
STYLE = (
    "text{font-family:sans-serif;font-size:12px;fill:#222}"
    ".title{font-weight:bold}.head{font-size:16px;font-weight:bold}.note{fill:#666}"
)


def picture(
    heading: str, notes: list[str], values: Values, underlay: str, contestants: list[str]
) -> str:
    """A whole SVG document."""
    panels = [
        (measure, bars)
        for measure in figures.present(values, underlay)
        if len(bars := _bars(values, underlay, contestants, measure)) > 0
    ]
    top = MARGIN + HEADING + LINE * len(notes) + GAP
    height = TITLE + LINE * len(contestants) + GAP
    rows = math.ceil(len(panels) / COLUMNS)
    width = 2 * MARGIN + COLUMNS * PANEL_WIDTH + (COLUMNS - 1) * GAP
    total = top + rows * height + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" '
        f'viewBox="0 0 {width} {total}"><style>{STYLE}</style>',
        f'<rect width="{width}" height="{total}" fill="white"/>',
        _text(MARGIN, MARGIN + 14, heading, "head"),
    ]
    for index, note in enumerate(notes):
        parts.append(_text(MARGIN, MARGIN + HEADING + LINE * (index + 1), note, "note"))
    for index, (measure, bars) in enumerate(panels):
        left = MARGIN + index % COLUMNS * (PANEL_WIDTH + GAP)
        parts += _panel(left, top + index // COLUMNS * height, measure, bars, contestants)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bars(
    values: Values, underlay: str, contestants: list[str], measure: Measure
) -> list[tuple[str, float]]:
    medians = ((who, figures.median(values, underlay, who, measure.key)) for who in contestants)
    return [(who, value) for who, value in medians if value is not None]


def _panel(
    left: int, top: int, measure: Measure, bars: list[tuple[str, float]], contestants: list[str]
) -> list[str]:
    better = "more is better" if measure.more_is_better else "less is better"
    parts = [
        _text(left, top + 12, measure.title, "title"),
        _text(left + PANEL_WIDTH, top + 12, f"{measure.unit}, {better}", "note", "end"),
    ]
    longest = max(value for _, value in bars) or 1.0
    space = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH
    for index, (who, value) in enumerate(bars):
        y = top + TITLE + LINE * index
        length = max(1.0, space * value / longest)
        colour = COLOURS[contestants.index(who) % len(COLOURS)]
        shown = number(value, measure.digits)
        parts += [
            _text(left, y + 11, who),
            f'<rect x="{left + LABEL_WIDTH}" y="{y}" width="{length:.1f}" height="{BAR_HEIGHT}" '
            f'fill="{colour}"/>',
            _text(left + LABEL_WIDTH + length + 5, y + 11, shown),
        ]
    return parts


def _text(x: float, y: float, what: str, kind: str = "", anchor: str = "") -> str:
    extra = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:g}" y="{y:g}"{extra}>{escape(what)}</text>'
