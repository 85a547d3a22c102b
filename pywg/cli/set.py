"""pywg set: changes a running interface, in the words of wg(8)."""

from __future__ import annotations

from pywg import wireguard
from pywg.cli.wg_verb import one_of_wg, warn
from pywg.config import check_name
from pywg.wireguard import setconf as wgconf

GRAMMAR = (
    "NAME [listen-port PORT] [fwmark MARK] [private-key FILE] "
    "[peer KEY [remove] [preshared-key FILE] [endpoint HOST:PORT] "
    "[persistent-keepalive SECONDS] [allowed-ips [+|-]IP/LENGTH[,[+|-]IP/LENGTH]...]]..."
)


@one_of_wg(GRAMMAR, 2, None)
def set(words: tuple[str, ...]) -> None:
    """Change a running interface: port, mark, keys, peers."""
    name = check_name(words[0])
    wireguard.change(name, wgconf.read_arguments(words[1:], warn))
