"""A client: its section in the server's file, and its own file. Pure.

Invariant: the client's private key is in its own file and nowhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network

from pywg.config import (
    AllowedIP,
    Config,
    Endpoint,
    InterfaceSection,
    IPAddress,
    IPNetwork,
    PeerSection,
    document,
    parse,
)
from pywg.config.names import NAME_PATTERN
from pywg.enroll import pool
from pywg.enroll.server import Server
from pywg.errors import ConfigError, PywgError
from pywg.keys import PresharedKey, PrivateKey, PublicKey

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))
# Most clients are behind a NAT that forgets them after a minute or less.
KEEPALIVE_SECONDS = 25
_NAME_MAX = 15  # of an interface


@dataclass(frozen=True, slots=True)
class Keys:
    """Of a client. ``private``: None for one that has made its own, and keeps it."""

    public: PublicKey
    private: PrivateKey | None
    preshared: PresharedKey | None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client is told. ``routes``: what it sends here beyond the pools, or everything.
    ``keepalive``: seconds. ``endpoint``, ``dns``: None for what the server's file says."""

    routes: tuple[IPNetwork, ...] = ()
    keepalive: int = KEEPALIVE_SECONDS
    endpoint: Endpoint | None = None
    dns: tuple[IPAddress | str, ...] | None = None


def keys(public: PublicKey | None, *, with_psk: bool) -> Keys:
    """New ones, but for the public key of a client that has made its own."""
    private = PrivateKey.generate() if public is None else None
    psk = PresharedKey.generate() if with_psk else None
    return Keys(private.public if private else _given(public), private, psk)


def _given(public: PublicKey | None) -> PublicKey:
    assert public is not None  # noqa: S101 - else there is a private one
    return public


def section(
    server: Server, name: str, keys: Keys, behind: tuple[IPNetwork, ...] = ()
) -> PeerSection:
    """Of the server's file, with the next free address of each pool. ``behind``: networks that the
    client leads to. Raises PywgError."""
    if keys.public == server.public_key:
        raise PywgError("public key: this is the server's own")
    if any(peer.public_key == keys.public for peer in server.config.peers):
        raise PywgError(f"public key: {server.path} has this peer already")
    for network in behind:
        # A default route is no claim: every other network is a part of it.
        same = pool.overlap(network, [one for one in server.taken if one.prefixlen])
        if same is not None:
            raise PywgError(f"allowed-ips: {network} meets {same}, which is somebody's already")
    mine = dict.fromkeys((*server.free_addresses(behind), *behind))
    return PeerSection(keys.public, keys.preshared, tuple(map(AllowedIP, mine)), name=name)


def file(server: Server, peer: PeerSection, wish: Wish, keys: Keys) -> str:
    """The client's own. ``peer`` is its section in the server's. Raises PywgError if nobody knows
    where the server is, or if the file would not say what is meant."""
    endpoint = wish.endpoint or server.config.interface.public_endpoint
    if endpoint is None:
        raise PywgError(
            f"{server.path} does not say where clients find this host: write "
            '"#!pywg PublicEndpoint = HOST:PORT" into its [Interface], or give --endpoint'
        )
    dns = server.config.interface.client_dns if wish.dns is None else wish.dns
    interface = InterfaceSection(
        private_key=keys.private,
        addresses=tuple(ip_interface(network) for network in own_addresses(server, peer)),
        dns_servers=tuple(item for item in dns if not isinstance(item, str)),
        dns_search=tuple(item for item in dns if isinstance(item, str)),
    )
    routes = dict.fromkeys(wish.routes if _is_all(wish.routes) else (*server.pools, *wish.routes))
    other = PeerSection(
        server.public_key,
        keys.preshared,
        tuple(map(AllowedIP, routes)),
        endpoint,
        wish.keepalive or None,
        name=server.name,
    )
    lines = document.written("Interface", interface)
    missing = [] if keys.private else _placeholder(keys.public)
    peers = document.written("Peer", other)
    text = "\n".join(["[Interface]", *missing, *lines, "", "[Peer]", *peers, ""])
    _check(text, Config(interface, (other,)))
    return text


def _check(text: str, meant: Config) -> None:
    try:
        said: Config | None = parse(text)
    except ConfigError:
        said = None
    if said != meant:
        raise PywgError(
            "the client's file cannot say this: a # in an endpoint or a domain begins a comment"
        )


def _is_all(routes: tuple[IPNetwork, ...]) -> bool:
    return any(network.prefixlen == 0 for network in routes)


def _placeholder(public: PublicKey) -> list[str]:
    return [
        "# The private key is not here: whoever uses this file has made it, and has to put it in",
        "# the place of the dots, without the # before it. Its public key is",
        f"#   {public}",
        "# PrivateKey = ...",
    ]


def own_addresses(server: Server, peer: PeerSection) -> tuple[IPNetwork, ...]:
    """Of a client's networks those that are addresses of a pool."""
    return tuple(
        network
        for network in dict.fromkeys(peer.networks)
        if network.num_addresses == 1 and pool.overlap(network, server.pools) is not None
    )


def file_name(name: str) -> str:
    """NAME.conf, for a name that can be an interface's: `pywg up` takes it as it is."""
    if NAME_PATTERN.fullmatch(name) and name not in (".", ".."):
        return f"{name}.conf"
    stem = re.sub(r"[^a-zA-Z0-9_=+.-]+", "-", name).strip("-.")[:_NAME_MAX].rstrip("-.")
    if not stem:
        raise PywgError(f'no file can be called "{name}": say which by --out FILE')
    return f"{stem}.conf"


# ---- its file, when a key of it changes


def with_new_keys(
    text: str,
    path: str,
    server: PublicKey,
    before: PublicKey,
    *,
    private: PrivateKey | None = None,
    preshared: PresharedKey | None = None,
) -> str:
    """The client's file with another key in its place, and every other line as it was. Raises
    PywgError if it is not the file of this client of this server."""
    config = parse(text, path)
    own = config.interface.private_key
    if own is not None and own.public != before:
        raise PywgError(f"{path} is another client's: its private key does not belong to this peer")
    if not any(peer.public_key == server for peer in config.peers):
        raise PywgError(f"{path} has no [Peer] with this server's public key")
    if private is not None:
        if own is None:
            raise PywgError(f"{path} has no PrivateKey; a client with its own says --public-key")
        text = document.with_interface(text, private_key=private)
    if preshared is not None:
        text = document.with_changed(text, server, preshared_key=preshared)
    return text
