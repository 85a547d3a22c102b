"""Takes a tunnel down: undoes what `up` recorded; without a record, what can be seen of a tunnel.

The interface goes first of all that is left but the rules that lead into it, and its process sees
that and ends by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pywg.config import Config
from pywg.errors import PywgError, system_call
from pywg.host import dns, hooks, kill_switch, lock, netns, network, resolv_conf
from pywg.host.patience import told_when_late
from pywg.plan.build import hooks as hook_steps
from pywg.plan.facts import Location
from pywg.plan.steps import (
    DeleteInterface,
    RemoveKillSwitch,
    SetDns,
    SetKillSwitch,
    Step,
    UnsetDns,
)
from pywg.tunnel import record
from pywg.tunnel.apply import Applier
from pywg.tunnel.leftovers import leftovers
from pywg.tunnel.record import Record
from pywg.tunnel.running import check_here, check_home, is_alive, is_foreign
from pywg.tunnel.save import save_running
from pywg.tunnel.trace import Logged, Reporter, tell
from pywg.wireguard import socket as uapi_socket

TIMEOUT_S = 5.0
PROBE_S = 0.01


def down(
    name: str,
    path: Path | None = None,
    *,
    reporter: Reporter | None = None,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """By its record, else by the file at ``path``, if there is one, and by what can be seen.

    Raises PywgError; if something could not be undone, all else is, and ``down`` can be tried
    again: also where only a warning tells of it, since a tool of the host is broken. ``timeout_s``
    is what the hosting process has to end.
    """
    reporter = Logged() if reporter is None else reporter
    found = mine(name, reporter)
    location = Location() if found is None else found.location
    alive = is_alive(name, location)
    if not alive and found is None:
        raise PywgError(f"{name} is not a WireGuard interface (see: pywg show)")
    config = read_config(found.file if found else path, reporter)
    with Applier(location, config.path if config else "", reporter) as applier:
        if alive and config is not None:
            before_down(name, config, found, applier, reporter)
        undoing = remains(name, found, config)
        switch = [step for step in undoing if isinstance(step, RemoveKillSwitch)]
        with lock.held(reporter.warn):
            is_here = network.exists(name)
            errors = applier.undo_all(step for step in undoing if step not in switch)
            late = f"waiting for the process of {name} to end, {timeout_s:g} s at most"
            with told_when_late(reporter.warn, late):
                wait_for_end(name, is_here, timeout_s)
            keep(found, errors, [*switch, *applier.left])
        if config is not None:
            errors += applier.best_effort(hook_steps(name, config.interface.post_down))
        errors += unblock_last(found, switch, errors, applier, reporter)
    if errors:
        raise errors[0]


def keep(found: Record | None, errors: list[PywgError], left: Sequence[Step]) -> None:
    """The record of what is still there: of all, so that it can be tried again, or of what the
    steps ``left`` are to undo."""
    if found is None or errors:
        return
    steps = tuple(step for step in found.steps if step.undo() in left)
    if steps:
        record.write(replace(found, steps=steps, is_up=False))
    else:
        record.remove(found.name)


def unblock_last(
    found: Record | None,
    switch: list[RemoveKillSwitch],
    errors: list[PywgError],
    applier: Applier,
    reporter: Reporter,
) -> list[PywgError]:
    """The kill switch goes after all else, hooks too, and stays if something else did."""
    if not switch or found is None:
        return []
    name = found.name
    if errors:
        reporter.warn(f"the kill switch of {name} stays (take it away: pywg unblock {name})")
        return []
    with lock.held(reporter.warn):
        failed = applier.undo_all(switch)
        if not failed:
            keep(found, failed, applier.left)
            reporter.warn(f"the kill switch of {name} is gone: traffic leaves as it did before")
    return failed


def unblock(name: str, *, reporter: Reporter | None = None) -> None:
    """Takes the kill switch of a tunnel away, whether the tunnel is up or not, and nothing else.
    Raises PywgError, also if there is none."""
    reporter = Logged() if reporter is None else reporter
    found = record.read(name)
    location = Location() if found is None else found.location
    with lock.held(reporter.warn), Applier(location, "", reporter) as applier:
        if name not in kill_switch.standing():
            raise PywgError(f"{name} has no kill switch here")
        step = RemoveKillSwitch(name)
        tell(reporter, step)
        applier.apply(step)
        if found is not None:
            steps = tuple(one for one in found.steps if not isinstance(one, SetKillSwitch))
            record.write(replace(found, steps=steps))
            if not steps and not is_alive(name, location):
                record.remove(name)
    reporter.warn(f"the kill switch of {name} is gone: traffic may leave beside the tunnel")


def mine(name: str, reporter: Reporter) -> Record | None:
    """Its record, if `up` brought it up. Raises PywgError if it is in another network namespace."""
    found = record.read(name)
    if found is None:
        check_here(name)
        return None
    check_home(found)
    return without_what_is_gone(found, reporter)


def clean_up(left: Record, reporter: Reporter, *, keeps_switch: bool = False) -> None:
    """What a tunnel left whose process was killed: nothing that others use is touched."""
    check_home(left)
    found = without_what_is_gone(left, reporter)
    if found.steps:
        reporter.warn(f"{found.name} was not taken down: removing what it left")
    with Applier(found.location, found.config, reporter) as applier:
        undoing = record.undoing(found.steps)
        applier.undo_all(
            step for step in undoing if not (keeps_switch and isinstance(step, RemoveKillSwitch))
        )
    record.remove(found.name)


def without_what_is_gone(found: Record, reporter: Reporter) -> Record:
    """With a network namespace all in it has gone; name servers may be left."""
    names = tuple(step for step in found.steps if isinstance(step, SetDns))
    if is_foreign(found):
        return replace(found, steps=names)
    try:
        netns.check(found.location.netns)
        netns.check(found.location.socket_netns)
    except PywgError as error:
        reporter.warn(str(error))
        return replace(found, location=Location(found.location.backend), steps=names)
    return found


def before_down(
    name: str, config: Config, found: Record | None, applier: Applier, reporter: Reporter
) -> None:
    """PreDown and SaveConfig: if one fails, the tunnel stays."""
    for hook in hook_steps(name, config.interface.pre_down):
        tell(reporter, hook)
        applier.apply(hook)
    if config.interface.save_config:
        save_running(name, Path(config.path), found, reporter)


def remains(name: str, found: Record | None, config: Config | None) -> list[Step]:
    """All there is to undo."""
    if found is not None:
        return [DeleteInterface(name), *record.undoing(found.steps)]
    with network.Network() as kernel:
        steps: list[Step] = [DeleteInterface(name), *leftovers(name, config, kernel)]
    steps += [UnsetDns(name, "file", str(changed)) for changed in resolv_conf.changed_by(name)]
    manager, target = dns.find(name)
    if config and config.interface.dns_servers and manager == "resolvconf":
        steps.append(UnsetDns(name, manager, target))
    return steps


def read_config(path: Path | None, reporter: Reporter) -> Config | None:
    """For hooks and SaveConfig. Without the file, or with a broken one, all else is undone."""
    if path is None or not path.exists():
        return None
    try:
        config = Config.load(path)
        hooks.check_trust(config)
    except PywgError as error:
        reporter.warn(f"{error}: no hook is run")
        return None
    return config


def wait_for_end(name: str, was_here: bool, timeout_s: float) -> None:
    """Of its process. One whose interface is where we cannot see it ends without its socket, and
    one that was killed has left it."""
    if not was_here or not uapi_socket.is_alive(name):
        remove_socket(name)
    if not wait_until(lambda: is_gone(name), timeout_s):
        raise PywgError(f"{name}: its process still holds {uapi_socket.socket_path(name)}")


def remove_socket(name: str) -> None:
    try:
        uapi_socket.socket_path(name).unlink(missing_ok=True)
    except OSError as error:
        raise system_call(error, str(uapi_socket.socket_path(name))) from None


def is_gone(name: str) -> bool:
    return not network.exists(name) and not uapi_socket.socket_path(name).exists()


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    limit = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(PROBE_S)
    return True
