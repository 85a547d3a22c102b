"""pywg strip: as `wg-quick strip`, to the byte. The configuration is checked first."""

from __future__ import annotations

import sys

import click

from pywg.cli import complete
from pywg.cli.names import config_file, telling_what_is_missing, warn_if_world_accessible
from pywg.cli.words import examples
from pywg.config import parse, read
from pywg.config.document import rewrite
from pywg.config.strip import strip as stripped
from pywg.config.strip import with_what_is_left


@click.command(
    epilog=examples(
        "pywg strip ./wg0.conf",
        "sudo pywg syncconf wg0 <(pywg strip wg0)",
    )
)
@click.argument("config", metavar="CONFIG|NAME", shell_complete=complete.configs)
def strip(config: str) -> None:
    """Print what wg reads of a wg-quick file, for `wg setconf` and the like."""
    _, path = config_file(config)
    warn_if_world_accessible(path)
    with telling_what_is_missing(path):
        text = read(path)
    parsed = parse(text, str(path))
    if any(peer.excluded_ips for peer in parsed.peers):
        text = rewrite(text, with_what_is_left(parsed))
    sys.stdout.flush()
    sys.stdout.buffer.write(stripped(text).encode("utf-8", errors="surrogateescape"))
