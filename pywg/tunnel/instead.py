"""What a host has broken is no reason to fail: the next tool in the place of one that refuses, or
what it costs to go without.

For the guard and for name servers. Whoever asks for a guard by name, as the kill switch, gets an
error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pywg.config import split_dns
from pywg.errors import PywgError
from pywg.host import dns, firewall
from pywg.plan.build import UNGUARDED, unsplit
from pywg.plan.steps import RemoveFirewall, SetDns, SetFirewall, Step, UnsetDns


def others(step: Step, netns: str | None) -> list[Step] | None:
    """The same by each other tool that is here; None for a step that nothing can stand for."""
    if isinstance(step, SetFirewall):
        return [replace(step, tool=tool) for tool in firewall.tools() if tool != step.tool]
    if isinstance(step, SetDns):
        found = dns.ways(step.name, netns, wants_split=split_dns.is_split(step.search))
        return [_by(step, way) for way in found if way.manager not in ("none", step.manager)]
    return None


def _by(step: SetDns, way: dns.Found) -> SetDns:
    assert way.manager != "none"  # noqa: S101 - see above
    is_lost = split_dns.is_split(step.search) and not dns.splits(way)
    search = split_dns.searched(step.search) if is_lost else step.search
    return replace(step, manager=way.manager, target=way.target, search=search)


def done(step: Step, other: Step, reason: PywgError) -> str:
    """That ``other`` was done in the place of ``step``, and what that costs."""
    text = f"{reason}: this is done instead: {other}"
    if isinstance(step, SetDns) and isinstance(other, SetDns) and step.search != other.search:
        return f"{text}; {unsplit(step.servers, step.search)}"
    return text


def without(step: Step, reasons: Sequence[PywgError]) -> str:
    """What it costs to go without, and how to mend it."""
    why = "; ".join(map(str, reasons))
    mend = f"(mend that, then: pywg reload {step.name})"
    if isinstance(step, SetFirewall):
        return f"no IPv{step.version} guard for {step.name}: {why}: {UNGUARDED} {mend}"
    return f"DNS is not set: {why}: names are asked for as before, beside the tunnel {mend}"


def staying(step: Step, reason: PywgError) -> str | None:
    """What it costs that the effect which ``step`` was to undo stays; None where it is an error."""
    mend = f"(mend that, then again: pywg down {step.name})"
    if isinstance(step, RemoveFirewall):
        what = f"the IPv{step.version} guard of {step.name} stays: {reason}"
        return f"{what}: what comes for the addresses it had is dropped {mend}"
    if isinstance(step, UnsetDns):
        what = f"the name servers of {step.name} stay: {reason}"
        return f"{what}: names may be asked for where nobody answers {mend}"
    return None
