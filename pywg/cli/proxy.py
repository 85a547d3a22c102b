"""pywg proxy: SOCKS5 and HTTP proxies into a tunnel of its own, without root."""

from __future__ import annotations

from pathlib import Path

import click

from pywg.cli import complete, execution
from pywg.cli.options import tuning_options
from pywg.cli.words import examples
from pywg.proxy import access, running
from pywg.proxy.access import Place
from pywg.proxy.client import Limits
from pywg.proxy.running import Proxying
from pywg.rootless.forward import Forward
from pywg.service.supervisor import Tuning


def _places(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[Place]:
    try:
        return [access.parse_place(text) for text in value]
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command(
    epilog=examples(
        "pywg proxy work.conf --socks5 1080",
        "pywg proxy work.conf --http 127.0.0.1:8080 -L 5432:db.example:5432",
    )
)
@click.argument("configs", metavar="[CONFIG|NAME]...", nargs=-1, shell_complete=complete.configs)
@click.option(
    "--socks5",
    metavar="[ADDRESS:]PORT|unix:PATH",
    multiple=True,
    callback=_places,
    help="Speak SOCKS5 there (default: 127.0.0.1:1080 if nothing else is asked for).",
)
@click.option(
    "--http",
    metavar="[ADDRESS:]PORT|unix:PATH",
    multiple=True,
    callback=_places,
    help="Speak HTTP there: CONNECT, http:// and /healthz.",
)
@click.option(
    "--auth-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Clients need this user and password: one line USER:PASSWORD, for your eyes only. Or in "
    f"{access.VARIABLE}.",
)
@click.option("--allow-remote", is_flag=True, help="Listen at addresses of other than loopback.")
@click.option(
    "--max-connections",
    metavar="N",
    type=click.IntRange(1, 65536),
    default=1024,
    show_default=True,
    help="Refuse more than that.",
)
@click.option(
    "--idle",
    "idle_s",
    metavar="SECONDS",
    type=click.FloatRange(1),
    default=3600.0,
    help="End a connection on which nothing moves for so long (default: an hour).",
)
@execution.tunnel_options
@tuning_options
@click.pass_context
def proxy(
    ctx: click.Context,
    *,
    configs: tuple[str, ...],
    socks5: list[Place],
    http: list[Place],
    auth_file: Path | None,
    allow_remote: bool,
    max_connections: int,
    idle_s: float,
    wait_s: float | None,
    share: str | None,
    forwards: list[Forward],
    tuning: Tuning,
) -> None:
    """Give other programs a way into the tunnel of a file, as an ordinary user: by SOCKS5, by HTTP,
    and by ports that lead to one place. Nothing of this host is changed.

    Names are looked up at the file's DNS, inside. It runs until a signal ends it, or its tunnel. Of
    several files the first carries the second. With --share and no file it joins a tunnel that
    runs.

    The exit code is 0 after a signal, 1 when the tunnel has ended, and 125 if there was none.
    """
    if not configs and share is None:
        raise click.UsageError("which tunnel: pywg proxy CONFIG", ctx)
    places = [*(("socks5", each) for each in socks5), *(("http", each) for each in http)]
    if not places and not forwards:
        places = [("socks5", access.parse_place("127.0.0.1:1080"))]
    for _, place in places:
        if place.is_remote and not allow_remote:
            raise click.UsageError(
                f"{place} is open to other machines: say so with --allow-remote", ctx
            )
    with execution.own_failures():
        credentials = access.credentials(auth_file)
        if credentials is None and any(place.is_remote for _, place in places):
            execution.tell("anybody who reaches it may use it: see --auth-file")
        limits = Limits(connections=max_connections, idle_s=idle_s)
        wanted = Proxying(tuple(places), credentials, limits)
        tunnels = execution.keepings(configs, tuning, wait_s, share)
        ctx.exit(
            execution.within(
                tunnels, share, forwards, lambda opened: running.run(opened, wanted, execution.tell)
            )
        )
    ctx.exit(execution.OWN_FAILURE)
