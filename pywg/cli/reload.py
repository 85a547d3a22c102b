"""pywg reload: makes a tunnel that is up what its file says now, without dropping sessions."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import click

from pywg.host import netns, resolver as resolve
from pywg import plan, wireguard
from pywg.tunnel import record as state, gather as survey
from pywg.service import endpoints as watch
from pywg.cli import complete
from pywg.cli.names import config_file
from pywg.cli.place import choose
from pywg.cli.up import load
from pywg.config import Config
from pywg.tunnel.configure import Configurer
from pywg.errors import PywgError
from pywg.tunnel.apply import Performer, echo
from pywg.plan import AddAddress, AddRoute, Facts, Place, SetValidMark, Step


@click.command()
@click.argument("name", metavar="NAME|CONFIG", shell_complete=complete.tunnels)
def reload(name: str) -> None:
    """Change a running tunnel to what its file says now: peers and keys, and also addresses, MTU,
    routes and DNS. Sessions of peers that stay are kept, and no hook is run.

    NAME means the file that `pywg up` was given.
    """
    interface, path = config_file(name)
    record = state.read(interface)
    if record is None:
        raise PywgError(f"{interface} is not up by `pywg up` (see: pywg show, pywg syncconf)")
    is_name = "/" not in name and not name.endswith(".conf")
    reload_from(Path(record.config) if is_name else path, record)


def reload_from(path: Path, record: state.Record) -> None:
    config = load(path)
    place = record.place
    check_place(config, place, record.name)
    names = watch.names_to_json(config)
    with netns.entered(place.socket_netns):
        config = resolve.resolve(config)
    facts = survey.facts(record.name, config, place, mark_of(record))
    facts = without_own(facts, record.steps)
    steps, done = plan.change(record.steps, plan.plan(record.name, config, facts, place))
    changed = replace(record, config=str(path.absolute()), steps=tuple(done), names=names)
    with Performer(place, str(path), configure=Configurer(config)) as performer:
        # Until all is done, `down` has to undo both.
        both = (*record.steps, *(step for step in done if step not in record.steps))
        state.write(replace(record, steps=both))
        try:
            plan.execute(steps, performer.perform, echo)
        except BaseException:
            ensure(record.steps, performer)
            state.write(record)
            raise
        state.write(changed)


def ensure(steps: tuple[Step, ...], performer: Performer) -> None:
    """The kernel may have taken more than was undone; see plan.Ensure."""
    for step in steps:
        if isinstance(step, (AddAddress, AddRoute)):
            with contextlib.suppress(PywgError):
                performer.perform(plan.Ensure(step.name, step))


def mark_of(record: state.Record) -> int | None:
    with netns.entered(record.place.netns):
        return wireguard.get(record.name).fwmark or None


def check_place(config: Config, place: Place, name: str) -> None:
    """What only a new interface can have. What the file leaves open stays."""
    wanted = choose(config, place.backend if config.interface.backend is None else None)
    for was, now, said, key in (
        (place.backend, wanted.backend, config.interface.backend, "Backend"),
        (place.netns, wanted.netns, config.interface.netns, "Netns"),
        (place.socket_netns, wanted.socket_netns, config.interface.socket_netns, "SocketNetns"),
    ):
        if said is not None and was != now:
            raise PywgError(f"{name}: {key} changes only with `pywg down` and `pywg up`")


def without_own(facts: Facts, steps: tuple[Step, ...]) -> Facts:
    """The table this tunnel has is free for it."""
    own = {step.table for step in steps if isinstance(step, AddRoute) and step.table is not None}
    valid = facts.valid_mark and SetValidMark not in map(type, steps)
    return replace(facts, used_tables=facts.used_tables - own, valid_mark=valid)
