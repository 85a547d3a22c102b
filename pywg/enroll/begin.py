"""A server's first file: its key, its addresses, and what its clients are to be told. Pure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from pywg.config import Endpoint, InterfaceSection, IPAddress, IPInterface, document, values
from pywg.config.values import BadValue
from pywg.enroll import pool
from pywg.errors import PywgError
from pywg.keys import PrivateKey

LISTEN_PORT = 51820
AUTO, NONE = "auto", "none"


@dataclass(frozen=True, slots=True)
class Plan:
    """``addresses``: of the server, whose networks are the pools."""

    addresses: tuple[IPInterface, ...]
    listen_port: int = LISTEN_PORT
    public_endpoint: Endpoint | None = None
    client_dns: tuple[IPAddress | str, ...] = ()


def addresses(v4: str, v6: str, randomness: bytes) -> tuple[IPInterface, ...]:
    """What the words of the command line come to: a network, of which the server has the first
    address, or its address with the length; ``auto`` is a random network, ``none`` no address.
    Raises PywgError."""
    found = []
    for version, word, made_up in zip((4, 6), (v4, v6), pool.made_up(randomness), strict=True):
        if word == NONE:
            continue
        found.append(_server_address(str(made_up) if word == AUTO else word, version))
    if not found:
        raise PywgError("a server needs an address, of IPv4 or of IPv6")
    return tuple(found)


def _server_address(text: str, version: int) -> IPInterface:
    option = "address" if version == 4 else "address6"
    try:
        said = values.prefix(text)
    except BadValue as error:
        raise PywgError(f"{option}: {error}") from None
    if said.version != version:
        raise PywgError(f"{option}: expected IPv{version}; the other is said by another option")
    if said.network.num_addresses < 3:
        raise PywgError(f"{option}: {said.network} has no room for clients; 10.7.0.0/24 has")
    if said.ip != said.network.network_address:
        return said
    first = pool.next_free(said.network, ())
    return ip_interface(f"{first}/{said.network.prefixlen}")


def text(plan: Plan, private_key: PrivateKey) -> str:
    """The whole file."""
    section = InterfaceSection(
        private_key=private_key,
        listen_port=plan.listen_port,
        addresses=plan.addresses,
        pools=tuple(address.network for address in plan.addresses),
        public_endpoint=plan.public_endpoint,
        client_dns=plan.client_dns,
    )
    return "\n".join(["[Interface]", *document.written("Interface", section), ""])


def randomness() -> bytes:
    return os.urandom(pool.RANDOM_LENGTH)


def what_next(name: str, said: str, plan: Plan) -> Sequence[str]:
    """Lines for a person; ``said`` is how the file was named."""
    port = plan.listen_port
    shown = [
        "next:",
        f"  pywg peer add {said} NAME      # a client; for a phone: --qr terminal",
        f"  pywg up {said}",
        f"  let UDP port {port} in, if there is a firewall: ufw allow {port}/udp, or",
        f"    nft insert rule inet filter input udp dport {port} accept",
        "  if clients are to reach more than this host, it has to forward:",
        "    sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    ]
    if plan.public_endpoint is None:
        shown.insert(
            1, f'  say where clients find this host: a line "#!pywg PublicEndpoint = HOST:{port}"'
        )
    return shown
