"""What is legal in a file but probably not meant: a list of ConfigWarnings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pywg.config import split_dns
from pywg.config.model import (
    AllowedIP,
    ConfigWarning,
    InterfaceSection,
    IPNetwork,
    PeerSection,
    Position,
)
from pywg.keys import PublicKey

IPV6_MTU_MIN = 1280  # RFC 8200, section 5
MTU_MOST = 65535 - 20 - 8 - 32  # what a UDP datagram over IPv4 holds
TOP = Position(1, 1)


def warnings(
    path: str,
    interface: InterfaceSection,
    peers: Sequence[PeerSection],
    positions: Sequence[Position],
    idle: Iterable[AllowedIP],
) -> list[ConfigWarning]:
    """``idle`` is what AllowedIPs take away with a `-` and did not have."""
    found = [
        *_duplicates(peers, positions),
        *_idle(idle),
        *_excluded(peers, positions),
        *_keys(interface, peers, positions),
        *_mtu(interface),
        *_dns(interface),
    ]
    return [ConfigWarning(path, at, message) for at, message in found]


def _duplicates(
    peers: Sequence[PeerSection], positions: Sequence[Position]
) -> Iterator[tuple[Position, str]]:
    lines: dict[PublicKey, int] = {}
    owners: dict[IPNetwork, tuple[PublicKey, int]] = {}
    for peer, at in zip(peers, positions, strict=True):
        first = lines.setdefault(peer.public_key, at.line)
        if first != at.line:
            yield at, f"the same peer as on line {first}: of what both say, this one counts"
        for allowed in peer.allowed_ips:
            owner, line = owners.get(allowed.network, (peer.public_key, 0))
            if owner != peer.public_key:
                claim = f"AllowedIPs: {allowed} is also on line {line}: this one wins"
                yield allowed.position, claim
            owners[allowed.network] = (peer.public_key, allowed.position.line)


def _idle(networks: Iterable[AllowedIP]) -> Iterator[tuple[Position, str]]:
    for allowed in networks:
        yield (
            allowed.position,
            f"AllowedIPs: -{allowed} takes nothing away, since the list has no such network; "
            f"to leave it out of a larger one, write #!pywg ExcludedIPs = {allowed}",
        )


def _excluded(
    peers: Sequence[PeerSection], positions: Sequence[Position]
) -> Iterator[tuple[Position, str]]:
    for peer, at in zip(peers, positions, strict=True):
        if peer.excluded_ips and not peer.networks:
            yield at, "ExcludedIPs: nothing is left of AllowedIPs"


def _keys(
    interface: InterfaceSection, peers: Sequence[PeerSection], positions: Sequence[Position]
) -> Iterator[tuple[Position, str]]:
    private_key = interface.private_key
    if private_key is None:
        if interface.private_key_file is None:
            yield TOP, "[Interface] has no PrivateKey: no tunnel can come up"
        return
    own = private_key.public
    if not private_key.is_clamped() and not private_key.is_zero():
        yield (
            TOP,
            "PrivateKey: it is not as `wg genkey` makes them, and may be a public key; peers will "
            f"know this interface as {own}",
        )
    for peer, at in zip(peers, positions, strict=True):
        if peer.public_key == own:
            yield at, "PublicKey: this is the interface's own key: the peer is ignored"
        elif bytes(peer.public_key) == bytes(private_key):
            yield at, "PublicKey: this is the interface's PrivateKey, which nobody else may know"


def _mtu(interface: InterfaceSection) -> Iterator[tuple[Position, str]]:
    mtu = interface.mtu
    if mtu is None:
        return
    if mtu > MTU_MOST:
        yield TOP, f"MTU: {mtu} cannot fit in a UDP datagram; at most {MTU_MOST}"
    if mtu < IPV6_MTU_MIN and any(address.version == 6 for address in interface.addresses):
        yield TOP, f"MTU: {mtu} is below {IPV6_MTU_MIN}: the kernel takes no IPv6 addresses then"


def _dns(interface: InterfaceSection) -> Iterator[tuple[Position, str]]:
    if split_dns.is_split(interface.dns_search) and not interface.dns_servers:
        domain = next(filter(split_dns.is_routing, interface.dns_search))
        yield TOP, f"DNS: {domain} does nothing without the address of a name server beside it"
