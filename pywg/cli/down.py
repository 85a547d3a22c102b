"""pywg down: undoes what `up` recorded; without a record, what can be seen of a tunnel.

The interface goes first of all that is left, and its process sees that and ends by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import click

from pywg.host import dns, netns, network, resolv_conf as resolv_file
from pywg import plan
from pywg.tunnel import record as state
from pywg.wireguard import socket as uapi_socket
from pywg.cli import complete
from pywg.cli.names import config_file
from pywg.config import Config
from pywg.errors import PywgError, system_call
from pywg.host.hooks import check_trust
from pywg.tunnel.apply import Performer, best_effort, echo, warn
from pywg.plan import Place, Step
from pywg.tunnel.leftovers import traces

TIMEOUT_S = 5.0
PROBE_S = 0.01


@click.command()
@click.argument("name", metavar="NAME|CONFIG", shell_complete=complete.tunnels)
def down(name: str) -> None:
    """Take a tunnel down: interface, addresses, routes, DNS and background process."""
    interface, path = config_file(name)
    take_down(interface, path)


def take_down(interface: str, path: Path | None = None) -> None:
    """By its record, else by the file at ``path``, if there is one, and by what can be seen."""
    record = without_what_is_gone(state.read(interface))
    place = Place() if record is None else record.place
    alive = is_alive(interface, place)
    if not alive and record is None:
        raise PywgError(f"{interface} is not a WireGuard interface (see: pywg show)")
    config = read_config(Path(record.config) if record else path)
    config_path = config.path if config else ""
    with Performer(place, config_path) as performer:
        if alive:
            before_down(interface, config, record, performer)
        is_here = network.exists(interface)
        steps = remains(interface, record, config)
        errors = best_effort(steps, performer.undo)
        hooks = plan.hooks(interface, config.interface.post_down) if config else []
        errors += best_effort(list(hooks), performer.perform)
        wait_for_end(interface, is_here)
    if errors:
        raise errors[0]  # and the record stays: `down` can be tried again
    state.remove(interface)


def without_what_is_gone(record: state.Record | None) -> state.Record | None:
    """With a network namespace all in it has gone; name servers may be left."""
    if record is None:
        return None
    try:
        netns.check(record.place.netns)
        netns.check(record.place.socket_netns)
    except PywgError as error:
        warn(str(error))
        names = tuple(step for step in record.steps if isinstance(step, plan.SetDns))
        return replace(record, place=Place(record.place.backend), steps=names)
    return record


def clean_up(left: state.Record) -> None:
    """What a tunnel left whose process was killed: nothing that others use is touched."""
    record = without_what_is_gone(left) or left
    warn(f"{record.name} was not taken down: removing what it left")
    with Performer(record.place, record.config) as performer:
        best_effort(in_order(state.undoing(record.steps)), performer.undo)
    state.remove(record.name)


def before_down(
    interface: str, config: Config | None, record: state.Record | None, performer: Performer
) -> None:
    """PreDown and SaveConfig: if one fails, the tunnel stays."""
    if config is None:
        return
    for hook in plan.hooks(interface, config.interface.pre_down):
        echo(hook)
        performer.perform(hook)
    if config.interface.save_config:
        from pywg.cli.save import save_running

        save_running(interface, Path(config.path), record)


def remains(interface: str, record: state.Record | None, config: Config | None) -> list[Step]:
    """All there is to undo."""
    steps: list[Step] = [plan.DeleteInterface(interface)]
    if record is not None:
        steps += state.undoing(record.steps)
    else:
        with network.Network() as kernel:
            steps += traces(interface, config, kernel)
        steps += [
            plan.UnsetDns(interface, "file", str(changed))
            for changed in resolv_file.changed_by(interface)
        ]
        found = dns.find(interface)
        if config and config.interface.dns_servers and found.manager == "resolvconf":
            steps.append(plan.UnsetDns(interface, found.manager, found.target))
    return in_order(steps)


_ORDER = (plan.DeleteRule, plan.DeleteInterface, plan.UnsetDns, plan.RemoveFirewall)


def in_order(steps: Sequence[Step]) -> list[Step]:
    """As wg-quick."""
    return sorted(steps, key=lambda step: _ORDER.index(type(step)))


def read_config(path: Path | None) -> Config | None:
    """For hooks and SaveConfig. Without the file, or with a broken one, all else is undone."""
    if path is None or not path.exists():
        return None
    try:
        config = Config.load(path)
        check_trust(config)
    except PywgError as error:
        warn(f"{error}: no hook is run")
        return None
    return config


def is_alive(interface: str, place: Place) -> bool:
    """Whether there is such a WireGuard interface. A namesake of another kind is left alone."""
    with netns.entered(place.netns):
        if network.exists(interface):
            with network.Network() as kernel:
                kind = kernel.kind(interface)
            if kind == "wireguard":
                return True
            if kind != "tun":
                raise PywgError(f"{interface} is no TUN device, so not a userspace WireGuard one")
    return uapi_socket.is_alive(interface)


def wait_for_end(interface: str, was_here: bool) -> None:
    """Of its process. One whose interface is where we cannot see it ends without its socket, and
    one that was killed has left it."""
    if not was_here or not uapi_socket.is_alive(interface):
        remove_socket(interface)
    if not wait_until(lambda: is_gone(interface)):
        raise PywgError(f"{interface}: its process still holds {uapi_socket.socket_path(interface)}")


def remove_socket(interface: str) -> None:
    try:
        uapi_socket.socket_path(interface).unlink(missing_ok=True)
    except OSError as error:
        raise system_call(error, str(uapi_socket.socket_path(interface))) from None


def is_gone(interface: str) -> bool:
    return not network.exists(interface) and not uapi_socket.socket_path(interface).exists()


def wait_until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> bool:
    limit = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(PROBE_S)
    return True
