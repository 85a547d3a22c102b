"""What `up` would do, told and not done: no interface is made, no hook is run, no name asked for.

The same steps as those of up.py, from the same questions. What only the interface, a hook or a name
server could tell is said to be open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pywg.config import Config, check_name
from pywg.errors import ConfigError
from pywg.host import hooks, netns, owners, resolver
from pywg.plan.build import hooks as hook_steps
from pywg.plan.build import making, mark_of, setting, switching
from pywg.plan.facts import Location
from pywg.plan.steps import Note, Step
from pywg.tunnel import gather, peers_from, record
from pywg.tunnel.location import locate
from pywg.tunnel.trace import Logged, Reporter, tell
from pywg.tunnel.up import check


def dry_run(
    config: Config,
    name: str | None = None,
    *,
    location: Location | None = None,
    reporter: Reporter | None = None,
) -> None:
    """Tells the steps of ``up`` in their order, and changes nothing. Raises PywgError where ``up``
    would refuse. Needs root only to enter another network namespace, and tells what could not be
    looked at without."""
    name = check_name(Path(config.path).stem if name is None else name)
    location = locate(config) if location is None else location
    reporter = Logged() if reporter is None else reporter
    hooks.check_trust(config)
    peers_from.check(config, location)
    check(name, config, location)
    for step in foreseen(name, config, location):
        tell(reporter, step)
    if config.interface.peers_from is not None:
        reporter.doing(f"follow the peers of {config.interface.peers_from}")


def foreseen(name: str, config: Config, location: Location) -> Iterator[Step]:
    """The steps, and notes on what cannot be known before they are done."""
    if os.geteuid() != 0:
        yield Note(
            name,
            f"not run as root: what only root may read or write ({record.DIRECTORY}, resolv.conf, "
            "/proc/sys) looks closed, and root's plan may be another one (run it with sudo)",
        )
    yield from _left(name)
    facts = gather.facts(name, _with_addresses(config), location, is_there=False)
    yield from switching(name, config, mark_of(config, facts))
    yield from making(name, location)
    yield from hook_steps(name, config.interface.pre_up)
    yield from _open_questions(name, config)
    try:
        config = owners.numeric(config)
    except ConfigError as error:
        if not config.interface.pre_up:
            raise
        yield Note(name, f"{error}: up fails, unless PreUp mends that")
    yield from setting(name, config, facts)
    yield from hook_steps(name, config.interface.post_up)


def _left(name: str) -> Iterator[Step]:
    """What a tunnel has left whose process was killed goes first."""
    if not os.access(record.DIRECTORY, os.X_OK):
        return
    left = record.read(name)
    if left is not None and left.home in (0, netns.identity()):
        yield Note(name, f"{name} was not taken down: what it left goes first")
        yield from record.undoing(left.steps)


def _with_addresses(config: Config) -> Config:
    """Without the endpoints that are names."""
    named = _names(config)
    return replace(
        config,
        peers=tuple(
            replace(peer, endpoint=None) if str(peer.endpoint) in named else peer
            for peer in config.peers
        ),
    )


def _names(config: Config) -> list[str]:
    endpoints = [peer.endpoint for peer in config.peers if peer.endpoint is not None]
    return [str(endpoint) for endpoint in endpoints if resolver.is_name(endpoint)]


def _open_questions(name: str, config: Config) -> Iterator[Note]:
    if config.interface.pre_up:
        yield Note(name, "PreUp is not run now: what it changes may change what follows")
    if names := _names(config):
        so = "" if config.interface.mtu else ", and the MTU may be another by where it leads"
        yield Note(name, f"up asks for {', '.join(names)} here: it is not asked for now{so}")
