"""pywg save: the words of writing what runs to its file."""

from __future__ import annotations

import click

from pywg import tunnel
from pywg.cli import complete
from pywg.cli.names import config_file, is_name
from pywg.cli.terminal import Terminal
from pywg.cli.words import examples
from pywg.tunnel import record


@click.command(
    epilog=examples(
        "sudo pywg save wg0",
    )
)
@click.argument("name", metavar="NAME|CONFIG", shell_complete=complete.tunnels)
def save(name: str) -> None:
    """Write what runs to the file: keys, port, peers, addresses, and MTU if the file has one.
    Comments, order and host names of endpoints stay.

    NAME means the file that `pywg up` was given, else /etc/wireguard/NAME.conf.
    """
    interface, path = config_file(name)
    found = record.read(interface)
    if found is not None and is_name(name):
        path = found.file
    tunnel.save(interface, path, reporter=Terminal())
