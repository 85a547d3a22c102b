"""The order in which addresses of a host are tried: RFC 6724, section 6, for datagrams that carry a
mark.

Rules 1 (a way there), 2 (scope), 5 (label), 6 (precedence) and 8 (smaller scope). Not rules 3, 4
and 7, about addresses of ours that are deprecated, at home or tunnelled, and not 9: between equals
the name server's order stands, by which it may share out its load.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from pywg.config import IPAddress

# Section 2.1: prefix, precedence, label. The longest prefix counts.
POLICY: Final = sorted(
    (
        (IPv6Network("::1/128"), 50, 0),
        (IPv6Network("::/0"), 40, 1),
        (IPv6Network("::ffff:0:0/96"), 35, 4),
        (IPv6Network("2002::/16"), 30, 2),
        (IPv6Network("2001::/32"), 5, 5),
        (IPv6Network("fc00::/7"), 3, 13),
        (IPv6Network("::/96"), 1, 3),
        (IPv6Network("fec0::/10"), 1, 11),
        (IPv6Network("3ffe::/16"), 1, 12),
    ),
    key=lambda row: -row[0].prefixlen,
)
LINK_LOCAL, SITE_LOCAL, GLOBAL = 2, 5, 14
# Nothing is sent there: a UDP socket only finds its way.
_DISCARD = 9


def in_order(addresses: Iterable[IPAddress], mark: int | None) -> list[IPAddress]:
    """Best first. Asks the kernel, by which of our addresses each would be reached."""
    return sorted(dict.fromkeys(addresses), key=lambda address: _rank(address, mark))


def _rank(address: IPAddress, mark: int | None) -> tuple[bool, bool, bool, int, int]:
    source = _source_for(address, mark)
    precedence, label = _policy(address)
    scope = _scope(address)
    return (
        source is None,
        source is not None and _scope(source) != scope,
        source is not None and _policy(source)[1] != label,
        -precedence,
        scope,
    )


def _source_for(address: IPAddress, mark: int | None) -> IPAddress | None:
    """None where there is no way."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            if mark:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            sock.connect((str(address), _DISCARD))
            return ip_address(sock.getsockname()[0])
    except OSError:
        return None


def _policy(address: IPAddress) -> tuple[int, int]:
    """(precedence, label)"""
    mapped = _as_ipv6(address)
    return next((row[1], row[2]) for row in POLICY if mapped in row[0])


def _as_ipv6(address: IPAddress) -> IPv6Address:
    """Without its zone."""
    if isinstance(address, IPv4Address):
        return IPv6Address(f"::ffff:{address}")
    return IPv6Address(int(address))


def _scope(address: IPAddress) -> int:
    """Section 3.1 and 3.2: private addresses are global."""
    if address.is_loopback or address.is_link_local:
        return LINK_LOCAL
    is_site = isinstance(address, IPv6Address) and address.is_site_local
    return SITE_LOCAL if is_site else GLOBAL
