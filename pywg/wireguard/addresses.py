"""Addresses as wg(8) writes them, which is how the C library does.

ipaddress writes ::ffff:1.2.3.4 in two ways, depending on the version of Python, and knows no names
of interfaces. Nothing is looked up outside this machine.
"""

from __future__ import annotations

import socket

from pywg.config import Endpoint, IPNetwork
from pywg.host.resolver import spelled


def address_text(network: IPNetwork) -> str:
    """The address of a network, without its length."""
    if network.version == 4:
        return str(network.network_address)
    return socket.inet_ntop(socket.AF_INET6, network.network_address.packed)


def network_text(network: IPNetwork) -> str:
    return f"{address_text(network)}/{network.prefixlen}"


def endpoint_text(endpoint: Endpoint) -> str:
    """A zone is the name of an interface where there is one of that name or index here."""
    return str(spelled(endpoint) if ":" in endpoint.host else endpoint)
