"""Addresses as wg(8) writes them, which is how the C library does.

ipaddress writes ::ffff:1.2.3.4 in two ways, depending on the version of Python, and knows no names
of interfaces. Nothing is looked up outside this machine.
"""

from __future__ import annotations

import socket

from pywg.config import Endpoint, IPNetwork


def address_text(network: IPNetwork) -> str:
    """The address of a network, without its length."""
    if network.version == 4:
        return str(network.network_address)
    return socket.inet_ntop(socket.AF_INET6, network.network_address.packed)


def network_text(network: IPNetwork) -> str:
    return f"{address_text(network)}/{network.prefixlen}"


def endpoint_text(endpoint: Endpoint) -> str:
    """A zone is the name of an interface where there is one of that name or index here."""
    if ":" not in endpoint.host:
        return str(endpoint)
    try:
        found = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )
        numeric = socket.NI_DGRAM | socket.NI_NUMERICSERV | socket.NI_NUMERICHOST
        host, port = socket.getnameinfo(found[0][4], numeric)
    except OSError:
        return str(endpoint)  # a zone of another network namespace: as the device spells it
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
