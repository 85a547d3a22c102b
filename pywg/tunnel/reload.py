"""Makes a tunnel that is up what its file says now, without dropping sessions."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pywg import wireguard
from pywg.config import Config
from pywg.config.model import KillSwitch
from pywg.errors import PywgError
from pywg.host import hooks, lock, netns, outside, owners, resolver
from pywg.host.patience import told_when_late
from pywg.plan.build import plan
from pywg.plan.change import change
from pywg.plan.facts import Facts, Location
from pywg.plan.steps import (
    AddAddress,
    AddRoute,
    AddRule,
    BlockRoute,
    EnableIpv6,
    Ensure,
    SetDns,
    SetKillSwitch,
    SetValidMark,
    Step,
)
from pywg.service import endpoints
from pywg.tunnel import gather, lookup, record
from pywg.tunnel.apply import Applier
from pywg.tunnel.configure import Configurer
from pywg.tunnel.effects import in_effect
from pywg.tunnel.location import locate
from pywg.tunnel.record import Record
from pywg.tunnel.running import recorded
from pywg.tunnel.trace import Logged, Reporter


def reload(name: str, config: Config, *, reporter: Reporter | None = None) -> None:
    """Peers, keys, addresses, MTU, routes and DNS become those of ``config``; no hook is run.

    Sessions of peers that stay are kept. All or nothing: if a step fails, the tunnel is what it
    was.
    """
    found = recorded(name)
    reporter = Logged() if reporter is None else reporter
    hooks.check_trust(config)
    location = found.location
    check_location(config, location, name)
    check_source(config, found)
    names = endpoints.names_to_json(config)
    config = owners.numeric(with_addresses(config, found, reporter))
    path = str(Path(config.path).absolute())
    configurer = Configurer(config, shared=bool(found.peers_from))
    with (
        lock.held(reporter.warn),
        Applier(location, path, reporter, configure=configurer) as applier,
    ):
        with told_when_late(reporter.warn, gather.LATE):
            found = with_what_is_there(recorded(name), applier)
        config = with_switch_of(found, config)
        with applier.at_home(), told_when_late(reporter.warn, gather.LATE):
            facts = gather.facts(name, config, location, mark_of(found))
        wanted = plan(name, config, without_own(facts, found.steps), location)
        steps, done = change(found.steps, wanted)
        carry_out(
            steps, found, replace(found, config=path, steps=tuple(done), names=names), applier
        )


def with_switch_of(found: Record, config: Config) -> Config:
    """A kill switch that `up` was asked for on its command line stays if the file is silent."""
    said = config.interface.kill_switch
    thrown = next((step for step in found.steps if isinstance(step, SetKillSwitch)), None)
    if said is not None or thrown is None:
        return config
    chosen: KillSwitch = "lan" if thrown.allows_lan else "on"
    return replace(config, interface=replace(config.interface, kill_switch=chosen))


def with_addresses(config: Config, found: Record, reporter: Reporter) -> Config:
    """Names are asked for beside the tunnel, which may be dead."""
    own = [server for step in found.steps if isinstance(step, SetDns) for server in step.servers]
    ask = outside.Outside(found.name, own=tuple(own)).asking(mark_of(found))
    with netns.entered(found.location.socket_netns):
        if found.location.backend == "kernel":
            return resolver.resolve(config, tell=reporter.warn, ask=ask)
        return lookup.numeric(config, reporter.warn, ask=ask, meanwhile=lookup.AS_BEFORE)


def with_what_is_there(found: Record, applier: Applier) -> Record:
    """The record without what others have taken away, which is then done again. What a hook of the
    tunnel took back stays so."""
    present = in_effect(found.name, found.steps, applier.kernel)
    known = {*present, *found.left_out}
    return replace(found, steps=tuple(step for step in found.steps if step in known))


def carry_out(steps: Sequence[Step], found: Record, changed: Record, applier: Applier) -> None:
    """From what is recorded to what is to be recorded then."""
    # Until all is done, `down` has to undo both.
    both = tuple(dict.fromkeys((*found.steps, *changed.steps)))
    with applier.all_or_nothing() as afterwards:
        afterwards.callback(record.write, found)
        afterwards.callback(ensure, found.steps, applier)
        record.write(replace(found, steps=both))
        applier.noting = lambda other: record.write(replace(found, steps=(*both, other)))
        applier.apply_all(steps)
    record.write(replace(changed, steps=applier.as_done(changed.steps, found.steps)))


def ensure(steps: Sequence[Step], applier: Applier) -> None:
    """The kernel may have taken more than was undone; see plan.steps.Ensure."""
    for step in steps:
        if isinstance(step, (AddAddress, AddRoute)):
            with contextlib.suppress(PywgError):
                applier.apply(Ensure(step.name, step))


def mark_of(found: Record) -> int | None:
    with netns.entered(found.location.netns):
        return wireguard.fwmark(found.name)


def check_location(config: Config, location: Location, name: str) -> None:
    """Raises for what only a new interface can have. What the file leaves open stays."""
    said = config.interface
    wanted = locate(config, location.backend if said.backend is None else None)
    for was, now, given, key in (
        (location.backend, wanted.backend, said.backend, "Backend"),
        (location.netns, wanted.netns, said.netns, "Netns"),
        (location.socket_netns, wanted.socket_netns, said.socket_netns, "SocketNetns"),
    ):
        if given is not None and was != now:
            raise PywgError(f"{name}: {key} changes only with `pywg down` and `pywg up`")


def check_source(config: Config, found: Record) -> None:
    """Raises for another store of peers. One that `up` was asked for on its command line stays if
    the file is silent."""
    said = config.interface.peers_from
    if said is not None and said.text != found.peers_from:
        raise PywgError(f"{found.name}: Peers changes only with `pywg down` and `pywg up`")


def without_own(facts: Facts, steps: Sequence[Step]) -> Facts:
    """As the host would be without this tunnel: its table is free for it."""
    own = {step.table for step in steps if isinstance(step, AddRoute | BlockRoute)}
    valid = facts.valid_mark and not any(isinstance(step, SetValidMark) for step in steps)
    is_led = any(isinstance(step, AddRule) for step in steps)  # its place among others is settled
    is_given = any(isinstance(step, EnableIpv6) for step in steps) and facts.ipv6 == "on"
    return replace(
        facts,
        used_tables=facts.used_tables - own,
        carriers=() if is_led else facts.carriers,
        others=(),
        switched=(),
        valid_mark=valid,
        fwmark=None,
        ipv6="off" if is_given else facts.ipv6,
    )
