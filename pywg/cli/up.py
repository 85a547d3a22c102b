"""pywg up: the words and options of bringing a tunnel up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import click

from pywg import tunnel
from pywg.cli import complete
from pywg.cli.names import config_file, load, log_settings
from pywg.cli.options import (
    location_options,
    log_format_option,
    metrics_place,
    peer_source_of,
    tuning_options,
)
from pywg.cli.terminal import Explained, ExplainedListing, Listing, Terminal
from pywg.cli.words import examples
from pywg.config import Config
from pywg.config.model import PeerSource
from pywg.errors import PywgError
from pywg.monitor.place import Place
from pywg.plan.facts import Location
from pywg.service.log import LogFormat
from pywg.service.supervisor import Tuning
from pywg.tunnel.foreground import guarded, stay


@click.command(
    epilog=examples(
        "sudo pywg up ./wg0.conf",
        "sudo pywg up wg0            # /etc/wireguard/wg0.conf",
        "pywg up --dry-run wg0       # what would be done, without doing it",
    )
)
@click.argument("config", metavar="CONFIG|NAME", shell_complete=complete.configs)
@click.option(
    "--foreground", is_flag=True, help="Stay, and take the tunnel down at SIGTERM (for systemd)."
)
@click.option("--kill-switch", is_flag=True, help="Let nothing leave beside the tunnel.")
@click.option("--no-heal", is_flag=True, help="Leave what other programs take away as it is.")
@click.option(
    "--peers",
    metavar="SOURCE",
    callback=peer_source_of,
    help="Follow more peers in a folder, at a URL or in etcd: /DIR, https://..., etcd://HOST/PREFIX.",
)
@click.option(
    "--metrics",
    metavar="ADDR:PORT",
    callback=metrics_place,
    help="Serve metrics there for as long as the tunnel is up, as pywg exporter does.",
)
@click.option("--dry-run", is_flag=True, help="Print the steps on stdout, and do none of them.")
@click.option("--explain", is_flag=True, help="Say after each step why it is done.")
@log_format_option
@location_options
@tuning_options
def up(
    *,
    config: str,
    foreground: bool,
    kill_switch: bool,
    no_heal: bool,
    peers: PeerSource | None,
    metrics: Place | None,
    dry_run: bool,
    explain: bool,
    log_format: LogFormat,
    location_of: Callable[[Config], Location],
    tuning: Tuning,
) -> None:
    """Bring a tunnel up. NAME means /etc/wireguard/NAME.conf."""
    name, path = config_file(config)
    parsed = load(path)
    if kill_switch:
        parsed = replace(parsed, interface=replace(parsed.interface, kill_switch="on"))
    if peers is not None:
        parsed = replace(parsed, interface=replace(parsed.interface, peers_from=peers))
    location = location_of(parsed)
    if foreground and location.backend == "kernel":
        raise PywgError("--foreground is for a userspace interface: the kernel needs nobody")
    if metrics is not None and location.backend == "kernel":
        raise PywgError(f"--metrics is for a userspace interface: pywg exporter {name}")
    if dry_run:
        listing = ExplainedListing() if explain else Listing()
        tunnel.dry_run(parsed, name, location=location, reporter=listing)
        return
    level, keep_log = log_settings()
    log_fd = 2 if keep_log or foreground else -1
    tuning = replace(tuning, log_level=level, log_fd=log_fd, log_format=log_format)
    reporter = Explained() if explain else Terminal()
    with (
        guarded(name, reporter) if foreground else contextlib.nullcontext(),
        metrics_at(metrics) as (serve, where),
        tunnel.hosted(
            parsed,
            name,
            location=location,
            tuning=tuning,
            reporter=reporter,
            heals=not no_heal,
            foreground=foreground,
            metrics=where,
        ) as supervisor,
    ):
        serve(name, foreground)
        if foreground and supervisor is not None:
            click.get_current_context().exit(stay(name, supervisor, reporter))


@contextlib.contextmanager
def metrics_at(place: Place | None) -> Iterator[tuple[Callable[[str, bool], None], str]]:
    """Listens before anything is done, so that a port that is taken is told then. What it gives
    starts to serve, and says where."""
    if place is None:
        yield lambda name, keeps_stderr: None, ""
        return
    from pywg.cli.exporter import tell
    from pywg.monitor import exposition, helper, server

    exposition.check_installed()
    with server.listen(place) as listening:

        def serve(name: str, keeps_stderr: bool) -> None:
            helper.start(name, listening, keeps_stderr=keeps_stderr)
            tell(place, listening)

        yield serve, server.place_of(listening)
