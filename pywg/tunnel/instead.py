"""What a host has broken is no reason to fail: the next tool in the place of one that refuses, or
what it costs to go without.

For the guard and for name servers. Whoever asks for a guard by name, as the kill switch, gets an
error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pywg.errors import PywgError
from pywg.host import dns, firewall
from pywg.plan.steps import RemoveFirewall, SetDns, SetFirewall, Step, UnsetDns


def others(step: Step, netns: str | None) -> list[Step] | None:
    """The same by each other tool that is here; None for a step that nothing can stand for."""
    if isinstance(step, SetFirewall):
        return [replace(step, tool=tool) for tool in firewall.tools() if tool != step.tool]
    if isinstance(step, SetDns):
        ways = [way for way in dns.ways(step.name, netns) if way.manager != step.manager]
        return [
            replace(step, manager=way.manager, target=way.target)
            for way in ways
            if way.manager != "none"
        ]
    return None


def without(step: Step, reasons: Sequence[PywgError]) -> str:
    """What it costs to go without, and how to mend it."""
    why = "; ".join(map(str, reasons))
    mend = f"(mend that, then: pywg reload {step.name})"
    if isinstance(step, SetFirewall):
        return (
            f"no IPv{step.version} guard for {step.name}: {why}: neighbours can reach the tunnel's "
            f"addresses beside it, and a strict rp_filter drops what peers answer {mend}"
        )
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
