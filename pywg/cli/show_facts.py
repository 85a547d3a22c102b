"""What `pywg show --json` tells of an interface beside what `wg` knows: how big its packets are,
which version serves it, since when, and what memory it takes. What nobody tells is left out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping

from pywg.errors import PywgError
from pywg.sources import state
from pywg.tunnel.record import peers_of
from pywg.wireguard.status import Report

# The name in JSON -> the name in a report.
_NUMBERS = {"mtu": "mtu", "memoryBytes": "memory_bytes"}


def facts(name: str, report: Report | None) -> dict[str, int | str]:
    """By the report of a device of pywg's; of another one, the MTU that the kernel knows."""
    told = {} if report is None else report.other
    found = of_report(told, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    if "mtu" not in found:
        with contextlib.suppress(PywgError, OSError):  # it is in another network namespace
            from pywg.host.network import Network

            with Network() as kernel:
                found["mtu"] = kernel.mtu(name)
    return found


def of_report(told: Mapping[str, str], clock: Callable[[], float]) -> dict[str, int | str]:
    """``uptime`` is in seconds, by the clock that also runs while the host sleeps."""
    found: dict[str, int | str] = {}
    for ours, theirs in _NUMBERS.items():
        if told.get(theirs, "").isdigit():
            found[ours] = int(told[theirs])
    if told.get("version"):
        found["version"] = told["version"]
    if told.get("opened", "").isdigit():
        found["uptime"] = max(int(clock()) - int(told["opened"]), 0)
    return found


def source_lines(name: str) -> list[str]:
    """How it stands with the store of its peers, for people; nothing where it follows none."""
    found = state.read(peers_of(name))
    return [] if found is None else state.words(found, time.time())


def source_facts(name: str) -> dict[str, object]:
    """The same for programs."""
    found = state.read(peers_of(name))
    return {} if found is None else {"peersFrom": state.to_json(found)}
