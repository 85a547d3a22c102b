"""pywg down: the words of taking a tunnel down."""

from __future__ import annotations

import click

from pywg import tunnel
from pywg.cli import complete
from pywg.cli.names import config_file
from pywg.cli.terminal import Terminal
from pywg.cli.words import examples


@click.command(
    epilog=examples(
        "sudo pywg down wg0",
    )
)
@click.argument("name", metavar="NAME|CONFIG", shell_complete=complete.tunnels)
def down(name: str) -> None:
    """Take a tunnel down: interface, addresses, routes, DNS and background process."""
    tunnel.down(*config_file(name), reporter=Terminal())
