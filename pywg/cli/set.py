"""pywg set: changes a running interface, in the words of wg(8)."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from pywg.cli import complete
from pywg.cli.wg_verb import change, one_of_wg, warn
from pywg.cli.words import did_you_mean
from pywg.config import IPNetwork, check_name
from pywg.errors import PywgError
from pywg.tunnel.names import names_of
from pywg.wireguard import setconf as wgconf
from pywg.wireguard.changes import Changes

GRAMMAR = (
    "NAME [listen-port PORT] [fwmark MARK] [private-key FILE] "
    "[peer KEY|NAME [remove] [preshared-key FILE] [endpoint HOST:PORT] "
    "[persistent-keepalive SECONDS] [allowed-ips [+|-]IP/LENGTH[,[+|-]IP/LENGTH]...]]..."
)

#: So many networks are looked at for a missing route; nobody reads of more.
LOOKED_AT = 100


@one_of_wg(
    GRAMMAR,
    2,
    None,
    "sudo pywg set wg0 listen-port 51820 private-key private.key",
    "sudo pywg set wg0 peer 5PThu5cmVQRg0w2VkmFTPyfmZpb6hFHJ3RcXSRFzLUA= allowed-ips 10.0.0.2/32",
    "sudo pywg set wg0 peer laptop endpoint vpn.example.com:51820   # its name in the file",
    "sudo pywg set wg0 peer laptop remove",
    complete=complete.words_of_set,
)
def set(words: tuple[str, ...]) -> None:
    """Change a running interface: port, mark, keys, peers.

    A peer that has a name in the file of the tunnel may be called by it. Routes are not changed;
    `pywg reload` makes them.
    """
    name = check_name(words[0])

    def key_of(peer: str) -> str | None:
        names = names_of(name)
        found = [key for key, called in names.items() if called == peer]
        if names and not found:  # the word is not repeated: it may be a part of a key
            some = ", ".join(sorted(names.values())[:5])
            hint = did_you_mean(peer, names.values()) or f", such as {some}"
            raise PywgError(f"peer: no key, and no name of a peer of {name}{hint}")
        if len(found) > 1:
            raise PywgError(f"several peers of {name} are called {peer}: give the key")
        return found[0].to_base64() if found else None

    changes = wgconf.read_arguments(list(wgconf.with_keys(words[1:], key_of)), warn)
    change(name, changes)
    if sys.stderr.isatty():
        tell_of_routes(name, changes)


def tell_of_routes(name: str, changes: Changes) -> None:
    """That a network which a peer has now is not led into the interface: wg makes no routes, and
    many expect it."""
    networks = [
        change.network for peer in changes.peers for change in peer.allowed_ips if not change.remove
    ]
    if not networks:
        return
    networks = networks[:LOOKED_AT]
    from pywg.host.network import Network

    try:
        with Network() as kernel:
            led = [network for network, _ in kernel.routes(name)]
            led += [address.network for address in kernel.addresses(name)]
    except (PywgError, OSError):
        return  # the interface is in another network namespace
    if missing := without_route(networks, led):
        shown = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
        warn(
            f"pywg: set makes no route, and none leads {shown} into {name}: "
            f"ip route add {missing[0]} dev {name}"
        )


def without_route(networks: Iterable[IPNetwork], led: Iterable[IPNetwork]) -> list[IPNetwork]:
    """Those that no route covers as a whole."""
    known = list(led)
    return [network for network in networks if not any(_covers(way, network) for way in known)]


def _covers(way: IPNetwork, network: IPNetwork) -> bool:
    return (
        way.version == network.version
        and way.prefixlen <= network.prefixlen
        and network.network_address in way
    )
