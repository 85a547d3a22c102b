"""pywg up: file to plan, plan to deeds; all or nothing."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict, replace

import click

from pywg import network, plan, resolve, uapi, watch
from pywg.cli import complete
from pywg.cli.foreground import stay
from pywg.cli.names import (
    config_file,
    log_settings,
    warn_if_world_accessible,
)
from pywg.cli.tuning import Tuning, tuning_options
from pywg.config import Config
from pywg.errors import PywgError
from pywg.supervisor import Hosting, Supervisor


@click.command()
@click.argument("config", metavar="CONFIG|NAME", shell_complete=complete.configs)
@click.option(
    "--foreground", is_flag=True, help="Stay, and take the tunnel down at SIGTERM (for systemd)."
)
@tuning_options
def up(config: str, foreground: bool, tuning: Tuning) -> None:
    """Bring a tunnel up. NAME means /etc/wireguard/NAME.conf."""
    name, path = config_file(config)
    warn_if_world_accessible(path)
    parsed = Config.load(path)
    for warning in parsed.warnings:
        print(warning, file=sys.stderr)
    plan.refuse_default_route(name, parsed)
    if network.exists(name) or uapi.is_interface(name):
        raise PywgError(f"{name} already exists (take it down first: pywg down {name})")
    port = parsed.interface.listen_port
    if port and not network.port_is_free(port):
        taken = f"ListenPort {port} is taken; choose another, or find its owner: ss -ulpn"
        raise PywgError(f"{name}: {taken}")
    level, keep_log = log_settings()
    hosting = Hosting(
        name,
        **asdict(tuning),
        log_level=level,
        log_fd=2 if keep_log or foreground else -1,
        names=tuple(found.to_json() for found in watch.names_of(parsed)),
    )
    with Supervisor((hosting.log_fd,) if hosting.log_fd >= 0 else ()) as supervisor:
        bring_up(resolve.resolve(parsed), hosting, supervisor)
        if foreground:
            click.get_current_context().exit(stay(name, supervisor))


def bring_up(config: Config, hosting: Hosting, supervisor: Supervisor) -> None:
    name = hosting.name
    hosting = replace(hosting, config_text=uapi.set_text(config))
    with network.Network() as kernel:

        def perform(step: plan.Step) -> None:
            if isinstance(step, plan.CreateInterface):
                supervisor.start(hosting)
                return
            if isinstance(step, plan.DeleteInterface):
                # Before we look for the interface: a process that is not ready yet then gives up.
                supervisor.close()
            try:
                kernel.apply(step)
            except Exception:
                # A signal inside pyroute2 can leave its event loop of no use: without its socket
                # the process ends too.
                if isinstance(step, plan.DeleteInterface) and network.exists(name):
                    uapi.socket_path(name).unlink(missing_ok=True)
                raise

        plan.execute(plan.plan(name, config, kernel.facts(config)), perform, echo)


def echo(step: plan.Step) -> None:
    """People paste this trace into reports: it reads as wg-quick's."""
    with contextlib.suppress(OSError):  # nobody may be reading it any more (`| head`)
        print(f"[#] {step}", file=sys.stderr, flush=True)
