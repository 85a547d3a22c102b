"""The steps of `reload`: from what was done to what the file asks for now. Pure.

What is new comes before what goes, so that nothing leaves outside the tunnel in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import replace

from pywg.config import IPNetwork
from pywg.plan.steps import (
    AddAddress,
    AddRoute,
    AddRule,
    Configure,
    EnableIpv6,
    Ensure,
    Lasting,
    LinkUp,
    Note,
    Reconfigure,
    Replace,
    SetDns,
    SetFirewall,
    SetKillSwitch,
    SetOwners,
    SetValidMark,
    Step,
    TakeBack,
)


def lasting(steps: Sequence[Step]) -> list[Lasting]:
    """Those whose effect stays, and which a later reload can change."""
    return [step for step in steps if isinstance(step, Lasting)]


def change(done: Sequence[Step], wanted: Sequence[Step]) -> tuple[list[Step], list[Lasting]]:
    """The steps that lead from ``done`` to the plan ``wanted``; and what will then be done."""
    wanted = _with_priorities_of(done, wanted)
    replaced = {
        old: new
        for old in _replaceable(done)
        for new in _replaceable(wanted)
        if old != new and _replaces(new, old)
    }
    late = _to_come_later(done, wanted)
    staying = {*wanted, *replaced} - late
    gone = [
        step
        for step in done
        if step not in staying
        if not isinstance(step, (EnableIpv6, SetValidMark))  # they stay as long as the interface
    ]
    steps = [
        *_additions(set(done), wanted, {new: old for old, new in replaced.items()}),
        *(TakeBack(step.name, step) for step in reversed(gone)),
    ]
    if any(isinstance(step, AddAddress) and step.address.version == 4 for step in gone):
        steps += [
            Ensure(step.name, step)
            for step in wanted
            if isinstance(step, (AddAddress, AddRoute)) and _version(step) == 4
        ]
    return steps, lasting(wanted)


def _additions(
    done: Set[Step], wanted: Sequence[Step], replaces: dict[Step, Step]
) -> Iterator[Step]:
    for step in wanted:
        if isinstance(step, Configure):
            yield Reconfigure(step.name, step.mark)
        elif step in replaces:
            yield Replace(step.name, replaces[step], step)
        elif isinstance(step, Note) or (isinstance(step, Lasting) and step not in done):
            yield step


def _replaceable(steps: Sequence[Step]) -> list[Step]:
    """Without those of which there may be thousands: nothing comes in their place."""
    return [step for step in steps if not isinstance(step, (AddAddress, AddRoute, Note))]


def _replaces(new: Step, old: Step) -> bool:
    if isinstance(new, SetDns) and isinstance(old, SetDns):
        return (new.manager, new.target) == (old.manager, old.target)
    if isinstance(new, SetFirewall) and isinstance(old, SetFirewall):
        return (new.tool, new.version) == (old.tool, old.version)
    for kind in (SetKillSwitch, SetOwners):
        if isinstance(new, kind) and isinstance(old, kind):
            return True
    return isinstance(new, LinkUp) and isinstance(old, LinkUp)


def _with_priorities_of(done: Sequence[Step], wanted: Sequence[Step]) -> list[Step]:
    """A rule takes the place of the one it had, or of the one it comes instead of: the two rules
    of a family only work in their order."""
    places = {
        (step.version, step.mark is None): step.priority
        for step in done
        if isinstance(step, AddRule)
    }
    return [
        replace(step, priority=places.get((step.version, step.mark is None), step.priority))
        if isinstance(step, AddRule)
        else step
        for step in wanted
    ]


def _to_come_later(done: Sequence[Step], wanted: Sequence[Step]) -> set[Step]:
    """IPv4 addresses that stay, but after one that came later or comes now. The first of a network
    is the one that is sent from, so they are removed, and made again in their place."""
    places = {step: place for place, step in enumerate(done)}
    latest: dict[IPNetwork, int] = {}
    late: set[Step] = set()
    for step in wanted:
        if not isinstance(step, AddAddress) or step.address.version != 4:
            continue
        place = places.get(step, len(done))
        if place < latest.get(step.address.network, 0):
            late.add(step)
        latest[step.address.network] = max(place, latest.get(step.address.network, 0))
    return late


def _version(step: AddAddress | AddRoute) -> int:
    return step.address.version if isinstance(step, AddAddress) else step.network.version
