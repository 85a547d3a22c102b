"""pywg demo: a first tunnel without touching the host."""

from __future__ import annotations

import json
import sys

import click

from pywg.cli.words import Word, examples
from pywg.demo import TIERS, run_demo
from pywg.demo.outcome import describe


@click.command(
    epilog=examples(
        "pywg demo",
        "pywg demo --seconds 1 --json   # short, for a program",
    )
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=5.0,
    show_default=True,
    help="Length of the transfer in each direction.",
)
@click.option("--tier", type=Word(list(TIERS)), help="Only this way, not the first that works.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def demo(seconds: float, tier: str | None, as_json: bool) -> None:
    """Build a tunnel between two private namespaces, ping through it, and measure it.

    Ways, tried in this order: root (needs CAP_NET_ADMIN and CAP_SYS_ADMIN), userns (an unprivileged
    user namespace), loopback (in one process, without TUN). Nothing is left behind.
    """

    def note(line: str) -> None:
        print(line, file=sys.stderr if as_json else sys.stdout, flush=True)

    outcome = run_demo(seconds, tier, note)
    if as_json:
        click.echo(json.dumps(outcome, indent=2))
    else:
        click.echo(describe(outcome))
