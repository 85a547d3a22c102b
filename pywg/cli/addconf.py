"""pywg addconf: adds what a file says to a running interface, and leaves the rest as it is."""

from __future__ import annotations

from pywg.cli import complete
from pywg.cli.wg_verb import change, one_of_wg, warn
from pywg.config import check_name
from pywg.wireguard import setconf as wgconf


@one_of_wg(
    "NAME FILE", 2, 2, "sudo pywg addconf wg0 more.conf", complete=complete.interface_then_file
)
def addconf(words: tuple[str, ...]) -> None:
    """Add a file to a running interface."""
    name = check_name(words[0])
    change(name, wgconf.read_file(words[1], append=True, warn=warn))
