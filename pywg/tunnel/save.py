"""Writes what runs to the file it came from; comments and all that is equal stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pywg import wireguard
from pywg.config import (
    AllowedIP,
    Config,
    InterfaceSection,
    PeerSection,
    document,
    parse,
    read,
    split_dns,
)
from pywg.errors import PywgError
from pywg.host import dns, netns, network
from pywg.plan.facts import Location
from pywg.plan.steps import AddRule, SetDns
from pywg.tunnel import record
from pywg.tunnel.record import Record
from pywg.tunnel.running import check_home, is_alive
from pywg.tunnel.trace import Logged, Reporter
from pywg.wireguard.status import InterfaceStatus, PeerStatus


def save(name: str, path: Path, *, reporter: Reporter | None = None) -> None:
    """Keys, port, mark, addresses and peers, and the MTU if the file has one.

    Comments, order and host names of endpoints stay. Raises PywgError.
    """
    found = record.read(name)
    if found is not None:
        check_home(found)
    if not is_alive(name, Location() if found is None else found.location):
        raise PywgError(f"{name} is not a WireGuard interface (see: pywg show)")
    save_running(name, path, found, Logged() if reporter is None else reporter)


def save_running(name: str, path: Path, found: Record | None, reporter: Reporter) -> None:
    text = read(path)
    config = parse(text, str(path))
    location = Location() if found is None else found.location
    reporter.doing(f"wg showconf {name}")
    with netns.entered(location.netns), network.Network() as kernel:
        status = wireguard.get(name)
        interface = _interface(name, config.interface, status, kernel)
    if found is not None and dns_is_by_resolvconf(found):
        servers, search = dns.current(name)
        if servers:
            domains = with_routing(config.interface.dns_search, search)
            interface = replace(interface, dns_servers=servers, dns_search=domains)
    if found is not None and any(
        isinstance(step, AddRule) and step.mark == status.fwmark for step in found.steps
    ):
        # Chosen for its default route; next time it may be another.
        interface = replace(interface, fwmark=config.interface.fwmark)
    if found is not None and found.peers_from:  # the others are in the store
        own = {peer.public_key for peer in config.peers}
        status.peers = [peer for peer in status.peers if peer.public_key in own]
    after = Config(interface, _peers(config, status), config.path)
    changed = document.rewrite(text, after)
    if changed != text:
        document.write(path, changed)


def with_routing(before: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    """Domains as resolvconf has them, each with the `~` that the file gives it: resolvconf is told
    such a domain without, or not at all."""
    routing = {split_dns.bare(domain): domain for domain in before if split_dns.is_routing(domain)}
    found = dict.fromkeys([*(routing.get(domain, domain) for domain in now), *routing.values()])
    return tuple(before) if set(found) == set(before) else tuple(found)


def dns_is_by_resolvconf(found: Record) -> bool:
    steps = (step for step in found.steps if isinstance(step, SetDns))
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
    same = set(before.networks) == set(status.allowed_ips)
    networks = tuple(AllowedIP(network) for network in status.allowed_ips)
    return replace(
        before,
        preshared_key=status.preshared_key,
        allowed_ips=before.allowed_ips if same else networks,
        excluded_ips=before.excluded_ips if same else (),
        endpoint=status.endpoint,
        persistent_keepalive=status.persistent_keepalive or None,
    )
