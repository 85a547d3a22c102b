"""pywg upgrade: the words of going on with a running tunnel in another version."""

from __future__ import annotations

import contextlib
import sys
import time

import click

from pywg import tunnel
from pywg._version import __version__
from pywg.cli import complete
from pywg.cli.names import load
from pywg.cli.terminal import Terminal
from pywg.cli.words import examples
from pywg.config import check_name
from pywg.errors import PywgError
from pywg.tunnel.running import recorded
from pywg.tunnel.trace import Reporter

#: Until the old process has let go of the port of its metrics, in seconds.
PORT_S, PROBE_S = 5.0, 0.05


@click.command(
    epilog=examples(
        "sudo pywg upgrade wg0",
        "sudo systemctl reload pywg@wg0   # the same for a tunnel of systemd's",
    )
)
@click.argument("name", shell_complete=complete.tunnels)
@click.option("--reload", "reloads", is_flag=True, help="Then change it to what its file says now.")
@click.option("--force", is_flag=True, help="Also where this version hosts it already.")
@click.option("--resume", is_flag=True, hidden=True)
def upgrade(*, name: str, reloads: bool, force: bool, resume: bool) -> None:
    """Let the installed version of pywg go on with a tunnel that another version brought up.

    Sessions and connections go on, no hook is run, addresses, routes, DNS and kill switch stay, and
    the tunnel has the options that it was brought up with. If it cannot be, the old version goes
    on.
    """
    check_name(name)
    reporter = Terminal()
    if resume:
        from pywg.tunnel.foreground import resume as stay_on

        click.get_current_context().exit(stay_on(name, reporter))
    failure: PywgError | None = None
    try:
        take_over(name, reporter, force=force)
    except PywgError as error:
        if not reloads:
            raise
        failure = error
    if reloads:  # also beside an old version
        tunnel.reload(name, load(recorded(name).file), reporter=reporter)
    if failure is not None:
        raise failure


def take_over(name: str, reporter: Reporter, *, force: bool) -> None:
    manner = tunnel.upgrade(name, force=force, reporter=reporter)
    if manner is None:
        print(f"pywg: {name} runs in {__version__} already", file=sys.stderr)
        return
    print(f"pywg: {name} goes on in {__version__}", file=sys.stderr)
    if manner.metrics:
        serve_metrics(name, manner.metrics, reporter, keeps_stderr=manner.foreground)


def serve_metrics(name: str, where: str, reporter: Reporter, *, keeps_stderr: bool) -> None:
    """At the place where the old version served them, which goes away with it."""
    try:
        from pywg.monitor import exposition, helper, place, server

        exposition.check_installed()
        limit = time.monotonic() + PORT_S
        while True:
            with contextlib.suppress(PywgError):
                listening = server.listen(place.parse(where))
                break
            if time.monotonic() > limit:
                raise PywgError(f"{where} is taken")
            time.sleep(PROBE_S)
        with listening:
            helper.start(name, listening, keeps_stderr=keeps_stderr)
    except (PywgError, ValueError) as error:
        reporter.warn(f"metrics of {name} are not served any more: {error}")
