"""pywg up: file to plan, plan to deeds; all or nothing."""

from __future__ import annotations

import contextlib
import sys

import click

from pywg import network, plan, resolve, uapi
from pywg.cli.names import (
    config_file,
    is_realtime,
    log_settings,
    no_offload_option,
    priority_option,
    threads_option,
    warn_if_world_accessible,
)
from pywg.config import Config
from pywg.device import Offload
from pywg.errors import PywgError
from pywg.supervisor import Hosting, Supervisor


@click.command()
@click.argument("config", metavar="CONFIG|NAME")
@threads_option
@priority_option
@no_offload_option
def up(config: str, threads: int, priority: str, no_offload: Offload) -> None:
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
    bring_up(name, resolve.resolve(parsed), threads, is_realtime(priority, threads), no_offload)


def bring_up(name: str, config: Config, threads: int, realtime: bool, no_offload: Offload) -> None:
    level, keep_log = log_settings()
    hosting = Hosting(
        name,
        uapi.set_text(config),
        offload_disable=int(no_offload),
        threads=threads,
        realtime=realtime,
        log_level=level,
        log_fd=2 if keep_log else -1,
    )
    with Supervisor(keep_fds=(2,) if keep_log else ()) as supervisor, network.Network() as kernel:

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
