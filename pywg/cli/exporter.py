"""pywg exporter: metrics of running interfaces, for Prometheus."""

from __future__ import annotations

import contextlib
import socket
import sys
from functools import partial

import click

from pywg._version import __version__
from pywg.cli import complete
from pywg.cli.options import metrics_place
from pywg.cli.words import examples
from pywg.config import check_name
from pywg.errors import CoreLoadError
from pywg.monitor import exposition, helper, place, server
from pywg.monitor.exposition import Families
from pywg.monitor.gathering import DEADLINE_S, Gatherer
from pywg.monitor.place import Place
from pywg.service import capabilities
from pywg.service.supervisor import forbid_dumps


@click.command(
    epilog=examples(
        "sudo pywg exporter --listen 127.0.0.1:9586 wg0",
    )
)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete.interfaces)
@click.option(
    "--listen",
    metavar="ADDR:PORT",
    default=str(place.DEFAULT),
    show_default=True,
    callback=metrics_place,
    help="Where to serve /metrics. Any address but one of this host's own is open to others.",
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 60),
    default=DEADLINE_S,
    show_default=True,
    help="How long an interface may take to answer; it holds up no other.",
)
@click.option("--once", is_flag=True, help="Print the metrics on stdout, and end.")
@click.option("--listen-fd", type=int, hidden=True)
@click.option("--beside-fd", type=int, hidden=True)
def exporter(
    *,
    names: tuple[str, ...],
    listen: Place,
    timeout_s: float,
    once: bool,
    listen_fd: int | None,
    beside_fd: int | None,
) -> None:
    """Serve metrics of running interfaces to Prometheus: of these, or of all.

    The names of series are those of other exporters for WireGuard, so their dashboards work.
    """
    for name in names:
        check_name(name)
    exposition.check_installed()
    families = families_of(names, timeout_s)
    if once:
        click.echo(exposition.text(families), nl=False)
        return
    if listen_fd is None:
        listening = server.listen(listen)
        tell(listen, listening)
    else:
        listening = socket.socket(fileno=listen_fd)
    forbid_dumps()
    work = partial(server.serve, listening, exposition.application(families))
    if beside_fd is not None:
        capabilities.keep_only(0)  # the sockets of user space ask for none
        helper.keep(beside_fd, work)
        return
    capabilities.keep_only(capabilities.NET_ADMIN)  # the kernel's interfaces ask for it
    with contextlib.suppress(KeyboardInterrupt):  # what `pywg` makes of SIGTERM too
        work()


def families_of(names: tuple[str, ...], timeout_s: float) -> Families:
    """A question for one scrape."""
    import time

    from pywg.monitor.series import Exporter, samples

    gatherer = Gatherer(names, timeout_s)
    core = core_version()

    def families() -> exposition.Answer:
        seen = gatherer.gather()
        told = Exporter(__version__, core, dict(gatherer.errors))
        return samples(seen, told, time.time())

    return families


def core_version() -> str:
    """Empty where there is no core to load: other implementations have metrics, too."""
    from pywg._version import core_version

    try:
        return core_version()
    except CoreLoadError:
        return ""


def tell(wanted: Place, listening: socket.socket) -> None:
    print(f"pywg: metrics at http://{server.place_of(listening)}/metrics", file=sys.stderr)
    if not wanted.is_local:
        print(
            "[!] others can reach this: it says which peers there are, where, and how much they "
            "send; keep them out by a firewall",
            file=sys.stderr,
        )
