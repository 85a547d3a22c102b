"""pywg up: file to plan, plan to deeds; all or nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import click

from pywg.host import hooks, netns, network, resolver as resolve
from pywg import plan
from pywg.tunnel import record as state, gather as survey
from pywg.wireguard import socket as uapi_socket
from pywg.service import endpoints as watch
from pywg.cli import complete
from pywg.cli.down import clean_up
from pywg.tunnel.foreground import stay
from pywg.cli.names import (
    config_file,
    log_settings,
    warn_if_world_accessible,
)
from pywg.cli.place import place_options
from pywg.cli.tuning import Tuning, tuning_options
from pywg.config import Config
from pywg.tunnel.configure import Configurer
from pywg.errors import PywgError
from pywg.tunnel.apply import Performer, echo
from pywg.plan import Place
from pywg.service.supervisor import Hosting, Supervisor


@click.command()
@click.argument("config", metavar="CONFIG|NAME", shell_complete=complete.configs)
@click.option(
    "--foreground", is_flag=True, help="Stay, and take the tunnel down at SIGTERM (for systemd)."
)
@place_options
@tuning_options
def up(config: str, foreground: bool, place_of: Callable[[Config], Place], tuning: Tuning) -> None:
    """Bring a tunnel up. NAME means /etc/wireguard/NAME.conf."""
    name, path = config_file(config)
    parsed = load(path)
    place = place_of(parsed)
    check(name, parsed, place)
    level, keep_log = log_settings()
    limit = tuning.memory_limit or (parsed.interface.memory_limit or 0) << 20
    hosting = Hosting(
        name,
        **asdict(replace(tuning, memory_limit=limit)),
        log_level=level,
        log_fd=2 if keep_log or foreground else -1,
        names=watch.names_to_json(parsed),
        netns=place.socket_netns,
    )
    if place.backend == "kernel":
        if foreground:
            raise PywgError("--foreground is for a userspace interface: the kernel needs nobody")
        bring_up(name, parsed, place)
        return
    with Supervisor((hosting.log_fd,) if hosting.log_fd >= 0 else ()) as supervisor:
        bring_up(name, parsed, place, lambda: supervisor.start(hosting), supervisor.close)
        if foreground:
            click.get_current_context().exit(stay(name, supervisor))


def load(path: Path) -> Config:
    """A file that may be carried out; its warnings are told."""
    warn_if_world_accessible(path)
    config = Config.load(path)
    for warning in config.warnings:
        print(warning, file=sys.stderr)
    hooks.check_trust(config)
    return config


def check(name: str, config: Config, place: Place) -> None:
    """What would fail half-way, or take what is another's."""
    for space in {place.netns, place.socket_netns}:
        with netns.entered(space):
            if network.exists(name):
                raise PywgError(f"{name} already exists (take it down first: pywg down {name})")
    if uapi_socket.is_alive(name):
        raise PywgError(f"{name} already exists (take it down first: pywg down {name})")
    left = state.read(name)
    if left is not None:
        clean_up(left)
    port = config.interface.listen_port
    with netns.entered(place.socket_netns):
        if port and not network.port_is_free(port):
            taken = f"ListenPort {port} is taken; choose another, or find its owner: ss -ulpn"
            raise PywgError(f"{name}: {taken}")


def bring_up(
    name: str,
    config: Config,
    place: Place,
    create: Callable[[], None] | None = None,
    stop: Callable[[], None] = lambda: None,
) -> None:
    names = watch.names_to_json(config)
    with netns.entered(place.socket_netns):
        config = resolve.resolve(config)
    steps = plan.plan(name, config, survey.facts(name, config, place), place)
    path = str(Path(config.path).absolute())
    configure = Configurer(config)
    with Performer(place, path, create=create, stop=stop, configure=configure) as performer:
        state.write(state.Record(name, path, place, tuple(plan.lasting(steps)), names))
        try:
            plan.execute(steps, performer.perform, echo)
        except BaseException:
            with contextlib.suppress(OSError):
                state.remove(name)
            raise
