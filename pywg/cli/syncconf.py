"""pywg syncconf: makes a running interface what a file says, and leaves alone the sessions of the
peers that stay."""

from __future__ import annotations

from pywg.cli import complete
from pywg.cli.wg_verb import change, one_of_wg, status_of, warn
from pywg.config import check_name
from pywg.wireguard import changes
from pywg.wireguard import setconf as wgconf


@one_of_wg(
    "NAME FILE",
    2,
    2,
    "sudo pywg syncconf wg0 <(pywg strip wg0)",
    complete=complete.interface_then_file,
)
def syncconf(words: tuple[str, ...]) -> None:
    """Set a running interface from a file, without dropping sessions."""
    name = check_name(words[0])
    wanted = wgconf.read_file(words[1], append=False, warn=warn)
    change(name, changes.synchronizing(wanted, status_of(name)))
