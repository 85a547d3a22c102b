"""pywg setconf: makes a running interface what a file says. Peers are made anew, without their
sessions; see syncconf."""

from __future__ import annotations

from pywg.cli import complete
from pywg.cli.wg_verb import change, one_of_wg, warn
from pywg.config import check_name
from pywg.wireguard import setconf as wgconf


@one_of_wg(
    "NAME FILE",
    2,
    2,
    "sudo pywg setconf wg0 <(pywg strip wg0)",
    complete=complete.interface_then_file,
)
def setconf(words: tuple[str, ...]) -> None:
    """Set a running interface from a file."""
    name = check_name(words[0])
    change(name, wgconf.read_file(words[1], append=False, warn=warn))
