"""pywg reload: the words of changing a tunnel that is up."""

from __future__ import annotations

import click

from pywg import tunnel
from pywg.cli import complete
from pywg.cli.names import config_file, is_name, load
from pywg.cli.terminal import Terminal
from pywg.cli.words import examples
from pywg.tunnel.running import recorded


@click.command(
    epilog=examples(
        "sudo pywg reload wg0",
    )
)
@click.argument("name", metavar="NAME|CONFIG", shell_complete=complete.tunnels)
def reload(name: str) -> None:
    """Change a running tunnel to what its file says now: peers and keys, and also addresses, MTU,
    routes and DNS. Sessions of peers that stay are kept, and no hook is run.

    NAME means the file that `pywg up` was given.
    """
    interface, path = config_file(name)
    record = recorded(interface)
    tunnel.reload(interface, load(record.file if is_name(name) else path), reporter=Terminal())
