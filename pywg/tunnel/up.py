"""Brings a tunnel up: a configuration to a plan, and the plan carried out, all or nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pywg.config import Config, check_name
from pywg.errors import PywgError
from pywg.host import hooks, lock, netns, network, outside, owners, resolver
from pywg.host.patience import told_when_late
from pywg.plan.build import check_owners, making, mark_of, setting, switching
from pywg.plan.build import hooks as hook_steps
from pywg.plan.change import lasting
from pywg.plan.facts import Facts, Location
from pywg.plan.steps import SetKillSwitch
from pywg.service import endpoints
from pywg.service.manner import Manner, build
from pywg.service.supervisor import Hosting, Supervisor, Tuning
from pywg.tunnel import gather, lookup, peer_hooks, peers_from, record
from pywg.tunnel.apply import Applier
from pywg.tunnel.configure import Configurer
from pywg.tunnel.down import clean_up
from pywg.tunnel.effects import in_effect
from pywg.tunnel.heal import companion
from pywg.tunnel.location import locate
from pywg.tunnel.record import Record
from pywg.tunnel.running import name_in_use
from pywg.tunnel.trace import Logged, Reporter, tell
from pywg.wireguard import socket as uapi_socket


def up(
    config: Config,
    name: str | None = None,
    *,
    location: Location | None = None,
    tuning: Tuning | None = None,
    reporter: Reporter | None = None,
    heals: bool = True,
) -> None:
    """Makes interface, addresses, routes, rules, DNS and firewall, and runs the hooks.

    ``name`` is that of the file unless given, ``location`` what the file says, and ``reporter``
    Python's log. A process of its own hosts the device, and goes on when this one ends; if it
    ``heals``, it puts back what other programs take away. Raises PywgError; then nothing is left.
    """
    with hosted(config, name, location=location, tuning=tuning, reporter=reporter, heals=heals):
        pass


@contextlib.contextmanager
def hosted(
    config: Config,
    name: str | None = None,
    *,
    location: Location | None = None,
    tuning: Tuning | None = None,
    reporter: Reporter | None = None,
    heals: bool = True,
    foreground: bool = False,
    metrics: str = "",
) -> Iterator[Supervisor | None]:
    """As ``up``, for a caller that watches the hosting process; None where the kernel hosts.

    ``foreground`` and ``metrics``, the place where they are served, are only written down: for
    ``upgrade``.
    """
    name = check_name(Path(config.path).stem if name is None else name)
    location = locate(config) if location is None else location
    reporter = Logged() if reporter is None else reporter
    hooks.check_trust(config)
    peers_from.check(config, location)
    if location.backend == "kernel":
        if peer_hooks.listener(name, config, location) is not None:
            reporter.warn(
                "OnPeerUp, OnPeerDown and OnEndpointChange are not run with the kernel's driver, "
                "since no process stays that hears of peers"
            )
        bring_up(name, config, location, reporter)
        yield None
        return
    tuning = tuned(Tuning() if tuning is None else tuning, config)
    names = endpoints.names_to_json(config)
    beside = outside.present(name, config.interface.dns_servers)
    is_free = config.interface.listen_port is None
    hosting = Hosting(
        name,
        tuning,
        names=names,
        netns=location.socket_netns,
        outside=beside,
        port_is_free=is_free,
        events=str(record.events_of(name)),
    )
    log = (tuning.log_fd,) if tuning.log_fd >= 0 else ()
    cgroups = owners.cgroups(config)
    listener = peer_hooks.listener(name, config, location)
    manner = Manner(
        hosting,
        heals,
        hears=listener is not None,
        files=tuple(map(str, cgroups)),
        foreground=foreground,
        metrics=metrics,
        build=build(),
    )
    with contextlib.ExitStack() as stack:
        home = netns.here()
        stack.callback(os.close, home)
        start = peers_from.Start()
        stack.callback(start.close)
        supervisor = stack.enter_context(
            Supervisor(
                (*log, home, start.reading),
                renewed=record.renewed_names(name, names),
                companion=companion(name, location, home, cgroups) if heals else None,
                listener=listener,
                follower=peers_from.follower(name, config, start),
            )
        )
        bring_up(
            name,
            config,
            location,
            reporter,
            create=lambda: supervisor.start(hosting),
            stop=supervisor.close,
            manner=manner,
            is_set=start.give,
        )
        yield supervisor


def tuned(tuning: Tuning, config: Config) -> Tuning:
    """With what the file says where the caller says nothing."""
    limit = tuning.memory_limit or (config.interface.memory_limit or 0) << 20
    return replace(tuning, memory_limit=limit)


def check(name: str, config: Config, location: Location) -> None:
    """Raises for what would fail half-way, or take what is another's."""
    check_owners(config)
    for space in {location.netns, location.socket_netns}:
        with netns.entered(space):
            if network.exists(name):
                raise PywgError(f"{name} already exists (take it down first: pywg down {name})")
    if uapi_socket.is_alive(name):
        raise name_in_use(name)
    port = config.interface.listen_port
    with netns.entered(location.socket_netns):
        if port and not network.port_is_free(port):
            taken = f"ListenPort {port} is taken; choose another, or find its owner: ss -ulpn"
            raise PywgError(f"{name}: {taken}")


def bring_up(
    name: str,
    config: Config,
    location: Location,
    reporter: Reporter,
    *,
    create: Callable[[], None] | None = None,
    stop: Callable[[], None] = lambda: None,
    manner: Manner | None = None,
    is_set: Callable[[], None] = lambda: None,
) -> None:
    """``create`` starts the process that hosts the device in this ``manner``, ``stop`` tells it not
    to; ``is_set`` is told when it has its keys, peers and routes."""
    names = endpoints.names_to_json(config)
    path = str(Path(config.path).absolute())
    told = None if manner is None else manner.to_values()
    source = config.interface.peers_from
    followed = "" if source is None else source.text
    claim = Record(
        name,
        path,
        location,
        (),
        names,
        netns.identity(),
        manner=told,
        peers_from=followed,
    )
    with (
        Applier(location, path, reporter, create=create, stop=stop) as applier,
        applier.all_or_nothing() as afterwards,
    ):
        with lock.held(reporter.warn):
            with applier.at_home():
                check(name, config, location)
            claim = claimed(claim, config, applier, afterwards, reporter)
            applier.apply_all(making(name, location))
        applier.apply_all(hook_steps(name, config.interface.pre_up))
        with applier.at_home(), netns.entered(location.socket_netns):
            if location.backend == "kernel":  # nobody stays to ask
                config = resolver.resolve(config, tell=reporter.warn)
            else:
                config = lookup.numeric(config, reporter.warn, ask=asking(claim))
        config = owners.numeric(config)
        applier.configure = Configurer(config)
        with lock.held(reporter.warn):
            with applier.at_home(), told_when_late(reporter.warn, gather.LATE):
                facts = gather.facts(name, config, location)
            steps = setting(name, config, with_mark_of(claim, facts))
            done = replace(claim, steps=(*claim.steps, *lasting(steps)))
            record.write(done)
            applier.noting = lambda other: record.write(replace(done, steps=(*done.steps, other)))
            applier.apply_all(steps)
            if (steps_done := applier.as_done(done.steps)) != done.steps:
                done = replace(done, steps=steps_done)
                record.write(done)
        if source is not None:
            reporter.doing(f"follow the peers of {source}")
        is_set()
        applier.apply_all(hook_steps(name, config.interface.post_up))
        if config.interface.post_up:  # what a hook took back is the user's will
            kept = set(in_effect(name, done.steps, applier.kernel))
            done = replace(done, left_out=tuple(step for step in done.steps if step not in kept))
        record.write(replace(done, is_up=True))


def claimed(
    claim: Record,
    config: Config,
    applier: Applier,
    afterwards: contextlib.ExitStack,
    reporter: Reporter,
) -> Record:
    """Writes the record, and throws the kill switch, if there is to be one. One that a dead process
    has left stays meanwhile, and stays if we fail."""
    name = claim.name
    with applier.at_home():
        left = record.read(name)
        mark = mark_for_switch(name, config, claim.location)
    switch = tuple(lasting(switching(name, config, mark)))
    stood = left is not None and any(isinstance(step, SetKillSwitch) for step in left.steps)
    if stood:
        for step in switch:
            tell(reporter, step)
            applier.apply(step)
    if left is not None:
        with applier.at_home():
            clean_up(left, reporter, keeps_switch=bool(switch))
    known = replace(claim, steps=switch)
    if stood and switch:
        afterwards.callback(record.write, known)
    else:
        afterwards.callback(record.remove, name)
    record.write(known)
    if switch and not stood:
        applier.apply_all(switch)
    return known


def mark_for_switch(name: str, config: Config, location: Location) -> int | None:
    if config.interface.kill_switch in (None, "off"):
        return None
    return mark_of(config, Facts(used_tables=gather.used_tables(name, location)))


def asking(claim: Record) -> resolver.LookUp:
    """Behind a kill switch names are asked for with the mark that it lets through."""
    marks = [step.mark for step in claim.steps if isinstance(step, SetKillSwitch)]
    return outside.Outside(claim.name).asking(marks[0]) if marks else resolver.look_up


def with_mark_of(claim: Record, facts: Facts) -> Facts:
    """The mark that the kill switch lets through is chosen."""
    marks = [step.mark for step in claim.steps if isinstance(step, SetKillSwitch)]
    return replace(facts, fwmark=marks[0]) if marks else facts
