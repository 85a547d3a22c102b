"""pywg demo: a first tunnel without touching the host."""

from __future__ import annotations

import json
import sys

import click

from pywg.cli.live import progress
from pywg.cli.words import Word, examples
from pywg.demo import TIERS, run_demo
from pywg.demo.next_steps import next_steps, reader
from pywg.demo.outcome import as_json as as_json_steps
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
    default=3.0,
    show_default=True,
    help="Length of each transfer: two through pywg, and others of at most 2 seconds beside it.",
)
@click.option("--tier", type=Word(list(TIERS)), help="Only this way, not the first that works.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def demo(seconds: float, tier: str | None, as_json: bool) -> None:
    """Build a tunnel between two private namespaces, ping through it, and measure it, beside the
    bare cable and, where it is installed, wireguard-go.

    Ways, tried in this order: root (needs CAP_NET_ADMIN and CAP_SYS_ADMIN), userns (an unprivileged
    user namespace), loopback (in one process, without TUN). Nothing is left behind.
    """

    from pywg.cli import COMMANDS

    reporter = progress(sys.stderr if as_json else sys.stdout)
    try:
        outcome = run_demo(seconds, tier, reporter)
    finally:
        reporter.close()
    steps = next_steps(outcome["tier"], reader(COMMANDS))
    outcome["next"] = as_json_steps(steps)
    if outcome["tier"] == "loopback":
        outcome["unlock"] = f"{steps[0].what}: {steps[0].command}"
    if as_json:
        click.echo(json.dumps(outcome, indent=2))
    else:
        unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        click.echo(describe(outcome, unicode=unicode))
