"""pywg save: writes what runs to the file it came from; comments and all that is equal stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from pywg.host import dns, netns, network
from pywg.tunnel import record as state
from pywg.wireguard.status import InterfaceStatus, PeerStatus
from pywg import wireguard
from pywg.cli import complete
from pywg.cli.down import is_alive
from pywg.cli.names import config_file
from pywg.config import AllowedIP, Config, InterfaceSection, PeerSection, document, parse, read
from pywg.errors import PywgError
from pywg.tunnel.apply import say
from pywg.plan import AddRule, Place, SetDns


@click.command()
@click.argument("name", metavar="NAME|CONFIG", shell_complete=complete.tunnels)
def save(name: str) -> None:
    """Write what runs to the file: keys, port, peers, addresses, and MTU if the file has one.
    Comments, order and host names of endpoints stay.

    NAME means the file that `pywg up` was given, else /etc/wireguard/NAME.conf.
    """
    interface, path = config_file(name)
    record = state.read(interface)
    if record is not None and "/" not in name and not name.endswith(".conf"):
        path = Path(record.config)
    place = Place() if record is None else record.place
    if not is_alive(interface, place):
        raise PywgError(f"{interface} is not a WireGuard interface (see: pywg show)")
    save_running(interface, path, record)


def save_running(name: str, path: Path, record: state.Record | None) -> None:
    text = read(path)
    config = parse(text, str(path))
    place = Place() if record is None else record.place
    say(f"wg showconf {name}")
    with netns.entered(place.netns), network.Network() as kernel:
        status = wireguard.get(name)
        interface = _interface(name, config.interface, status, kernel)
    if record is not None and dns_is_by_resolvconf(record):
        servers, search = dns.current(name)
        if servers:
            interface = replace(interface, dns_servers=servers, dns_search=search)
    if record is not None and any(
        isinstance(step, AddRule) and step.mark == status.fwmark for step in record.steps
    ):
        # Chosen for its default route; next time it may be another.
        interface = replace(interface, fwmark=config.interface.fwmark)
    after = Config(interface, _peers(config, status), config.path)
    changed = document.rewrite(text, after)
    if changed != text:
        document.write(path, changed)


def dns_is_by_resolvconf(record: state.Record) -> bool:
    steps = (step for step in record.steps if isinstance(step, SetDns))
    return any(step.manager == "resolvconf" for step in steps)


def _interface(
    name: str, before: InterfaceSection, status: InterfaceStatus, kernel: network.Network
) -> InterfaceSection:
    addresses = tuple(
        address
        for address in kernel.addresses(name)
        if not address.is_link_local or address in before.addresses
    )
    same = set(addresses) == set(before.addresses)
    return replace(
        before,
        private_key=status.private_key,
        listen_port=status.listen_port or None,
        fwmark=status.fwmark or None,
        addresses=before.addresses if same else addresses,
        mtu=kernel.mtu(name) if before.mtu is not None else None,
    )


def _peers(config: Config, status: InterfaceStatus) -> tuple[PeerSection, ...]:
    known = {peer.public_key: peer for peer in config.peers}
    return tuple(
        _peer(known.get(peer.public_key, PeerSection(peer.public_key)), peer)
        for peer in status.peers
    )


def _peer(before: PeerSection, status: PeerStatus) -> PeerSection:
    """An order that means nothing is that of the file."""
    same = {allowed.network for allowed in before.allowed_ips} == set(status.allowed_ips)
    networks = tuple(AllowedIP(network) for network in status.allowed_ips)
    return replace(
        before,
        preshared_key=status.preshared_key,
        allowed_ips=before.allowed_ips if same else networks,
        endpoint=status.endpoint,
        persistent_keepalive=status.persistent_keepalive or None,
    )
