"""pywg top: peers, rates, handshakes and drops, live."""

from __future__ import annotations

import json
import sys
import time

import click

from pywg.cli import complete
from pywg.cli.words import Word, examples
from pywg.config import check_name
from pywg.errors import PywgError
from pywg.top import plain
from pywg.top.observe import Observers, Views
from pywg.top.sampler import InterfaceView
from pywg.top.table import Sort


@click.command(
    epilog=examples(
        "sudo pywg top wg0",
        "sudo pywg top --once --sort handshake",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete.interfaces)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks; what rates are over.",
)
@click.option(
    "--sort",
    type=Word([sort.value for sort in Sort]),
    default=Sort.TRAFFIC.value,
    show_default=True,
    help="What is on top.",
)
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option(
    "--filter",
    "wanted",
    default="",
    metavar="WORDS",
    help="Only peers with these words in name, key, endpoint or interface.",
)
@click.option("--once", is_flag=True, help="One table after one interval. So without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="As --once, as one JSON object.")
def top(
    *,
    names: tuple[str, ...],
    interval: float,
    sort: str,
    reverse: bool,
    wanted: str,
    once: bool,
    as_json: bool,
) -> int:
    """Show what the peers of running interfaces do, live: rates, handshakes, endpoints, drops.

    Without NAME all interfaces. Needs textual: pip install "pywg-tunnel[tui]"; --once does without.

    Keys: / filter, s sort, r reverse, p pause, Enter details of a peer, q quit.
    """
    observers = Observers([check_name(name) for name in names])
    if once or as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        views, failed = _once(observers, interval)
        if as_json:
            click.echo(json.dumps(plain.to_json(views), indent=2))
        elif views:
            click.echo(plain.text(views, Sort(sort), reverse=reverse, wanted=wanted))
        return 1 if failed else 0
    try:
        from pywg.top.app import Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise PywgError(
            'pywg top needs textual: pip install "pywg-tunnel[tui]"; '
            "pywg top --once prints one table without it"
        ) from None
    check(observers.views())  # a name that nobody has is told before the screen is taken
    Top(observers.views, interval, Sort(sort), reverse=reverse, wanted=wanted).run()
    return 0


def check(found: Views) -> None:
    """Raises PywgError where there is nothing to look at, and why."""
    if not found:
        raise PywgError("there is no WireGuard interface here")
    errors = [view for view in found.values() if isinstance(view, PywgError)]
    if len(errors) == len(found):
        raise errors[0]


def _once(observers: Observers, interval: float) -> tuple[dict[str, InterfaceView], bool]:
    """What they do in one interval, and whether one of them did not answer."""
    observers.views()
    time.sleep(interval)
    found = observers.views()
    check(found)
    errors = {name: view for name, view in found.items() if isinstance(view, PywgError)}
    for error in errors.values():
        print(f"pywg: {error}", file=sys.stderr)
    views = {name: view for name, view in found.items() if isinstance(view, InterfaceView)}
    return views, bool(errors)
