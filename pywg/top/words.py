"""Figures as short texts of a fixed width at most, and histories as small bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pywg.top.sampler import Dropped, Efficiency, InterfaceView

BARS = "▁▂▃▄▅▆▇█"
# Less than this a second is a keepalive or a handshake, and no bar to look at.
QUIET_BYTES = 1000.0
_TENTHS_BELOW = 99.95
_SPANS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def peers(count: int) -> str:
    """``1 peer``, ``2 peers``."""
    return f"{count} peer" + "s" * (count != 1)


def rate(value: float | None) -> str:
    """Bytes a second as bits a second: ``3.2 Gbit/s``; ``-`` while it is not known."""
    if value is None:
        return "-"
    return f"{_scaled(8 * value, 1000, ('', 'k', 'M', 'G', 'T'))}bit/s"


def amount(value: float) -> str:
    """Bytes: ``1.2 GiB``."""
    unit = _scaled(value, 1024, ("", "Ki", "Mi", "Gi", "Ti"))
    return f"{unit}B"


def _scaled(value: float, step: int, prefixes: Sequence[str]) -> str:
    """With a tenth below a hundred, where the unit has a prefix."""
    power = 0
    while value >= step * 0.9995 and power < len(prefixes) - 1:
        value /= step
        power += 1
    digits = 1 if power and value < _TENTHS_BELOW else 0
    return f"{value:.{digits}f} {prefixes[power]}"


def age(seconds: float | None) -> str:
    """Of a handshake: ``12s``, ``3m``, ``2h``; the two largest units."""
    if seconds is None:
        return "never"
    if seconds < 0:
        return "clock?"
    rest = int(seconds)
    parts: list[str] = []
    for unit, size in _SPANS:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    return " ".join(parts) or "0s"


def bars(history: Sequence[float], width: int) -> str:
    """The last of it, one sign for each, the newest at the right. The highest of them fills a
    line."""
    shown = history[-width:] if width else ()
    top = max((QUIET_BYTES, *shown))
    signs = (BARS[min(len(BARS) - 1, int(value / top * len(BARS)))] for value in shown)
    return "".join(signs).rjust(width)


def cores(value: float | None) -> str:
    """``cpu 62%`` of one core."""
    return "" if value is None else f"cpu {100 * value:.0f}%"


def dropped(found: Sequence[Dropped]) -> str:
    """``no peer 2, replayed 17 (3/s)``; empty for none."""
    return ", ".join(
        f"{one.reason.replace('_', ' ')} {one.total}"
        + (f" ({one.rate:.0f}/s)" if one.rate >= 0.5 else "")
        for one in found
    )


def efficiency(value: Efficiency | None) -> str:
    """``datagrams a call: 39 out, 41 in; superpackets: 58 KiB out, 60 KiB in``."""
    if value is None:
        return ""
    calls = _pair(value.datagrams_a_send, value.datagrams_a_receive, lambda one: f"{one:.1f}")
    large = _pair(value.bytes_a_read, value.bytes_a_write, amount)
    parts = [
        f"{what} {pair}"
        for what, pair in (("datagrams a call:", calls), ("superpackets:", large))
        if pair
    ]
    return "; ".join(parts)


def _pair(out: float | None, into: float | None, text: Callable[[float], str]) -> str:
    ways = ((out, "out"), (into, "in"))
    return ", ".join(f"{text(value)} {way}" for value, way in ways if value is not None)


def offloads(view: InterfaceView) -> str:
    """Those that are active; and after them those that are not, with their state."""
    if view.report is None:
        return ""
    found = view.report.offloads
    active = [name for name, state in found.items() if state == "active"]
    others = [f"{name} {state}" for name, state in found.items() if state != "active"]
    return ", ".join(one.replace("_", " ") for one in (*active, *others))
