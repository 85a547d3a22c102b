"""pywg unblock: the words of taking a kill switch away."""

from __future__ import annotations

import click

from pywg import tunnel
from pywg.cli import complete
from pywg.cli.names import config_file
from pywg.cli.terminal import Terminal
from pywg.cli.words import examples


@click.command(
    epilog=examples(
        "sudo pywg unblock wg0",
    )
)
@click.argument("name", metavar="NAME|CONFIG", shell_complete=complete.tunnels)
def unblock(name: str) -> None:
    """Take the kill switch of a tunnel away, up or not, and nothing else."""
    tunnel.unblock(config_file(name)[0], reporter=Terminal())
