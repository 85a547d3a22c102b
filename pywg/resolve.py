"""Endpoint names to addresses, with the patience of wg(8).

The only module that asks the resolver. Time is an argument: ``sleep`` can be replaced.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from pywg.config import Config, Endpoint
from pywg.errors import ConfigError

RETRIES_DEFAULT = 15
DELAY_FIRST_S = 1.0
DELAY_GROWTH = 1.2
DELAY_MAX_S = 20.0
# The name does not exist: waiting will not help.
FINAL = frozenset({socket.EAI_NONAME, socket.EAI_FAIL, getattr(socket, "EAI_NODATA", -5)})


def retries_from_environment() -> float:
    """WG_ENDPOINT_RESOLUTION_RETRIES: a number, or `infinity`."""
    text = os.environ.get("WG_ENDPOINT_RESOLUTION_RETRIES", "")
    if text == "infinity":
        return float("inf")
    return float(text) if text.isascii() and text.isdigit() else float(RETRIES_DEFAULT)


def resolve(config: Config, sleep: Callable[[float], None] = time.sleep) -> Config:
    """The same configuration with every endpoint numeric."""
    peers = tuple(
        peer
        if peer.endpoint is None
        else replace(peer, endpoint=_resolve(peer.endpoint, config.path, sleep))
        for peer in config.peers
    )
    return replace(config, peers=peers)


def _resolve(endpoint: Endpoint, path: str, sleep: Callable[[float], None]) -> Endpoint:
    numeric = endpoint.address()
    if numeric is not None and "%" not in endpoint.host:
        return endpoint
    attempts = retries_from_environment()
    delay = DELAY_FIRST_S
    while True:
        try:
            found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM)
            return _numeric(endpoint, found[0][4])
        except (socket.gaierror, UnicodeError) as error:
            code = error.errno if isinstance(error, socket.gaierror) else socket.EAI_NONAME
            attempts -= 1
            if code in FINAL or attempts < 0:
                at = endpoint.position
                reason = error.strerror if isinstance(error, socket.gaierror) else "not a host name"
                message = f"Endpoint: cannot resolve {endpoint.host}: {reason}"
                raise ConfigError(path, at.line, at.column, message) from None
        sleep(delay)
        delay = min(delay * DELAY_GROWTH, DELAY_MAX_S)


def _numeric(endpoint: Endpoint, address: tuple[object, ...]) -> Endpoint:
    """The first address found; a zone becomes its interface index."""
    host = str(address[0]).partition("%")[0]
    scope_id = address[3] if len(address) == 4 else 0
    return replace(endpoint, host=f"{host}%{scope_id}" if scope_id else host)
