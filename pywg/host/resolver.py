"""Endpoint names to addresses, with the patience of wg(8).

The only module that asks the resolver. Time is an argument: ``sleep`` can be replaced.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from pywg.config import Config, Endpoint, Family, PeerSection
from pywg.config.values import shown_host
from pywg.errors import ConfigError

RETRIES_DEFAULT = 15
DELAY_FIRST_S = 1.0
DELAY_GROWTH = 1.2
DELAY_MAX_S = 20.0
# The name does not exist: waiting will not help.
FINAL = frozenset({socket.EAI_NONAME, socket.EAI_FAIL, getattr(socket, "EAI_NODATA", -5)})

FAMILIES: dict[Family, socket.AddressFamily] = {
    "auto": socket.AF_UNSPEC,
    "ipv4": socket.AF_INET,
    "ipv6": socket.AF_INET6,
}


def retries_from_environment() -> float:
    """WG_ENDPOINT_RESOLUTION_RETRIES: a number, or `infinity`."""
    text = os.environ.get("WG_ENDPOINT_RESOLUTION_RETRIES", "")
    if text == "infinity":
        return float("inf")
    return float(text) if text.isascii() and text.isdigit() else float(RETRIES_DEFAULT)


def is_name(endpoint: Endpoint) -> bool:
    """Whether its host can come to mean another address."""
    return endpoint.address() is None


def family_of(peer: PeerSection) -> Family:
    """``EndpointFamily``; an address that is written out has its own."""
    family = peer.endpoint_family
    return family if peer.endpoint is not None and is_name(peer.endpoint) else "auto"


def look_up(endpoint: Endpoint, family: Family = "auto") -> tuple[Endpoint, ...]:
    """All addresses of the host, in the resolver's order. Asks once.

    Raises socket.gaierror, also for what can be no host name. The resolver puts first what this
    machine can reach (RFC 6724): on a host without IPv6 that is an IPv4 address.
    """
    try:
        found = socket.getaddrinfo(
            endpoint.host, endpoint.port, family=FAMILIES[family], type=socket.SOCK_DGRAM
        )
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    numeric = (_numeric(endpoint, entry[4]) for entry in found)
    return tuple(dict.fromkeys(numeric))


def spelled(endpoint: Endpoint) -> Endpoint:
    """A numeric endpoint as the C library writes it: a zone by the name of its interface, where
    there is one of that name or index here. Nothing is looked up outside this machine."""
    try:
        found = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )
        numeric = socket.NI_DGRAM | socket.NI_NUMERICSERV | socket.NI_NUMERICHOST
        host, _ = socket.getnameinfo(found[0][4], numeric)
    except OSError:
        return endpoint  # a zone of another network namespace: as the device spells it
    return replace(endpoint, host=host)


def resolve(config: Config, sleep: Callable[[float], None] = time.sleep) -> Config:
    """The same configuration with every endpoint numeric: the first address that is found."""
    peers = tuple(
        peer
        if peer.endpoint is None
        else replace(peer, endpoint=_resolve(peer.endpoint, family_of(peer), config.path, sleep))
        for peer in config.peers
    )
    return replace(config, peers=peers)


def _resolve(
    endpoint: Endpoint, family: Family, path: str, sleep: Callable[[float], None]
) -> Endpoint:
    if not is_name(endpoint) and "%" not in endpoint.host:
        return endpoint
    attempts = retries_from_environment()
    delay = DELAY_FIRST_S
    while True:
        try:
            return look_up(endpoint, family)[0]
        except socket.gaierror as error:
            attempts -= 1
            if error.errno in FINAL or attempts < 0:
                at = endpoint.position
                what = "" if family == "auto" else f" to an {_spelled(family)} address"
                message = (
                    f"Endpoint: cannot resolve {shown_host(endpoint.host)}{what}: {error.strerror}"
                )
                raise ConfigError(path, at.line, at.column, message) from None
        sleep(delay)
        delay = min(delay * DELAY_GROWTH, DELAY_MAX_S)


def _spelled(family: Family) -> str:
    return "IPv4" if family == "ipv4" else "IPv6"


def _numeric(endpoint: Endpoint, address: tuple[object, ...]) -> Endpoint:
    """One address found; a zone becomes its interface index."""
    host = str(address[0]).partition("%")[0]
    scope_id = address[3] if len(address) == 4 else 0
    return replace(endpoint, host=f"{host}%{scope_id}" if scope_id else host)
