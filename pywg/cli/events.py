"""pywg events: what happens to running interfaces, one object of JSON a line."""

from __future__ import annotations

import contextlib
import json

import click

from pywg.cli import complete
from pywg.cli.words import examples
from pywg.config import check_name
from pywg.monitor.watching import Watch


@click.command(
    epilog=examples(
        "sudo pywg events wg0 | jq .event",
    )
)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete.interfaces)
def events(names: tuple[str, ...]) -> None:
    """Tell what happens to these interfaces, or to all, in lines of JSON: one object each.

    Ends with the last of those that were named. A tunnel of `pywg up` tells by itself; any other
    interface is looked at every second.
    """
    for name in names:
        check_name(name)
    watch = Watch(names)
    watch.open()
    with contextlib.suppress(KeyboardInterrupt):
        for told in watch.events():
            click.echo(json.dumps(told, ensure_ascii=False))  # flushes
