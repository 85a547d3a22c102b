"""Addresses for clients: which networks they are of, and which address is free. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from pywg.config import IPAddress, IPNetwork

RANDOM_LENGTH = 9  # bytes: 2 of IPv4, 5 and 2 of IPv6


def made_up(randomness: bytes) -> tuple[IPv4Network, IPv6Network]:
    """Networks that hardly anybody else has: 10.x.y.0/24, and fd00::/8 with a random global ID and
    subnet ID (RFC 4193, section 3.1), /64. From RANDOM_LENGTH bytes."""
    assert len(randomness) == RANDOM_LENGTH  # noqa: S101 - the caller's promise
    v4 = IPv4Network((bytes((10, *randomness[:2], 0)), 24))
    v6 = IPv6Network((bytes((0xFD, *randomness[2:])) + bytes(8), 64))
    return v4, v6


def next_free(pool: IPNetwork, taken: Iterable[IPNetwork]) -> IPAddress | None:
    """The lowest address that a host may have and that is in none of these networks; None if there
    is none. What is as wide as the pool or wider takes nothing: the longer prefix wins."""
    first, last = _hosts(pool)
    inside = [
        (int(network.network_address), int(network.broadcast_address))
        for network in taken
        if network.version == pool.version
        and (network.prefixlen > pool.prefixlen or network.num_addresses == 1)
    ]
    for start, end in sorted(inside):
        if start > first:
            break
        first = max(first, end + 1)
    if first > last:
        return None
    return ip_address(first) if pool.version == 4 else type(pool.network_address)(first)


def _hosts(pool: IPNetwork) -> tuple[int, int]:
    """Not the network's own address (in IPv6 the routers' anycast: RFC 4291, section 2.6.1), nor
    IPv4's broadcast; networks of one or two addresses have neither."""
    first, last = int(pool.network_address), int(pool.broadcast_address)
    if pool.max_prefixlen - pool.prefixlen < 2:
        return first, last
    return first + 1, last - (1 if pool.version == 4 else 0)


def overlap(network: IPNetwork, others: Sequence[IPNetwork]) -> IPNetwork | None:
    """One of the others that is the same network or a part of it, or of which it is a part."""
    same = (other for other in others if other.version == network.version)
    return next((other for other in same if other.overlaps(network)), None)
