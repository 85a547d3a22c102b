"""A wg-quick file as frozen dataclasses. Knows no syntax and reads no file.

Invariant: no repr shows a private or preshared key.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    collapse_addresses,
    ip_address,
)
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from pywg.keys import PresharedKey, PrivateKey, PublicKey

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network
Table = int | Literal["auto", "off"]
BackendChoice = Literal["userspace", "kernel", "auto"]
Family = Literal["auto", "ipv4", "ipv6"]
# Whether anything may leave beside the tunnel: yes; nothing; what is for the local network.
KillSwitch = Literal["off", "on", "lan"]
# Where a name is asked for while the tunnel is up.
EndpointDns = Literal["outside", "tunnel"]
OwnerKind = Literal["user", "group", "cgroup"]
SourceKind = Literal["folder", "url", "etcd"]


class Position(NamedTuple):
    """Where in the file something was said."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class ConfigWarning:
    """Something legal that is probably not meant."""

    path: str
    position: Position
    message: str
    #: How wg(8) says it, if it does: the verbs of wg say it so.
    as_wg: str = ""

    def __str__(self) -> str:
        where = f"{self.path}:{self.position.line}:{self.position.column}"
        return f"{where}: warning: {self.message}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``host`` (name, IPv4, or IPv6 without brackets, perhaps with %zone) and UDP ``port``;
    ``position``: where the file says so."""

    host: str
    port: int
    position: Position = field(default=Position(), repr=False, compare=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def address(self) -> IPAddress | None:
        """The numeric address, or None for a name that is still to be resolved."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class AllowedIP:
    """A ``network`` whose packets go to, and may come from, a peer; ``position``: where the file
    says so."""

    network: IPNetwork
    position: Position = field(default=Position(), repr=False, compare=False)

    def __str__(self) -> str:
        return str(self.network)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose sockets are meant: a user or a group, by name or number, or a cgroup v2, by its path
    below /sys/fs/cgroup."""

    kind: OwnerKind
    name: str
    position: Position = field(default=Position(), repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class PeerSource:
    """Where peers are listed, beside those of the file.

    ``place``: a folder, a URL, or the prefix of keys in etcd, which ends with a slash.
    ``endpoints``: members of etcd, tried in turn. ``interval_s``: how often a folder or a URL is
    looked at. ``ca``, ``cert``, ``key``: PEM files; ``login``: a file with USER:PASSWORD;
    ``token``: one with a token; ``fernet``: one with keys of encrypted preshared keys. ``text`` is
    what all this was read from.
    """

    kind: SourceKind
    place: str
    text: str
    endpoints: tuple[tuple[str, int], ...] = ()
    is_tls: bool = False
    interval_s: int = 30
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    login: Path | None = None
    token: Path | None = None
    fernet: Path | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class InterfaceSection:
    """``[Interface]``: each field is the key of its name, None or empty where the file has none.

    ``private_key``, ``listen_port``, ``fwmark``: the device's. ``addresses``, ``mtu``,
    ``dns_servers``, ``dns_search`` (those with a ``~`` too), ``table``: what ``up`` sets.
    ``pre_up``, ``post_up``, ``pre_down``, ``post_down``: shell text in which ``%i`` has not been
    replaced. ``save_config``: whether ``down`` writes the file.

    Beyond wg-quick: ``private_key_file``; ``bind_device``, ``bind_addresses``: what sockets are
    held to; ``backend``; ``netns``, ``socket_netns``: names of network namespaces;
    ``memory_limit``: MiB; ``kill_switch``; ``only``, ``excepted``: who goes through the tunnel
    (empty is everybody), and who beside it; ``on_peer_up``, ``on_peer_down``,
    ``on_endpoint_change``: shell text for what happens to a peer; ``peers_from``: a store of more
    peers. What clients are given:
    ``pools``, networks of which each gets an address; ``public_endpoint``, where they find this
    host; ``client_dns``, servers and search domains.
    """

    private_key: PrivateKey | None = None
    listen_port: int | None = None
    fwmark: int | None = None
    addresses: tuple[IPInterface, ...] = ()
    mtu: int | None = None
    dns_servers: tuple[IPAddress, ...] = ()
    dns_search: tuple[str, ...] = ()
    table: Table = "auto"
    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    save_config: bool = False
    private_key_file: Path | None = None
    bind_device: str | None = None
    bind_addresses: tuple[IPAddress, ...] = ()
    backend: BackendChoice | None = None
    netns: str | None = None
    socket_netns: str | None = None
    memory_limit: int | None = None
    kill_switch: KillSwitch | None = None
    only: tuple[Owner, ...] = ()
    excepted: tuple[Owner, ...] = ()
    on_peer_up: tuple[str, ...] = ()
    on_peer_down: tuple[str, ...] = ()
    on_endpoint_change: tuple[str, ...] = ()
    peers_from: PeerSource | None = None
    pools: tuple[IPNetwork, ...] = ()
    public_endpoint: Endpoint | None = None
    client_dns: tuple[IPAddress | str, ...] = ()


def without(networks: Iterable[IPNetwork], excluded: Iterable[IPNetwork]) -> list[IPNetwork]:
    """What is left of them, in as few networks as that takes."""
    holes: dict[int, list[IPNetwork]] = {4: [], 6: []}
    for hole in excluded:
        holes[hole.version].append(hole)
    apart = {
        version: list(collapse_addresses(found))  # type: ignore[type-var]
        for version, found in holes.items()
    }
    return [part for network in networks for part in _left(network, apart[network.version])]


def _left(network: IPNetwork, holes: Sequence[IPNetwork]) -> Iterator[IPNetwork]:
    """Of one network; the holes are in order and apart. It is halved as long as there is a hole in
    it, so that each hole is looked for only where it is."""
    first = bisect_left(holes, network.network_address, key=lambda hole: hole.broadcast_address)
    inside = holes[
        first : bisect_right(
            holes, network.broadcast_address, key=lambda hole: hole.network_address
        )
    ]
    if not inside:
        yield network
    elif inside[0].prefixlen > network.prefixlen:
        for half in network.subnets():
            yield from _left(half, inside)


@dataclass(frozen=True, slots=True)
class PeerSection:
    """``[Peer]``: each field is the key of its name, None or empty where the file has none.

    ``public_key``, ``preshared_key``, ``allowed_ips``, ``endpoint``. ``persistent_keepalive``:
    seconds. Beyond wg-quick: ``preshared_key_file``; ``endpoint_family``: which addresses of a name
    are taken; ``endpoint_dns``: who is asked for it; ``excluded_ips``: left out of ``allowed_ips``;
    ``name``: what people call the peer; ``replaces``: the peer whose next key this one is.
    """

    public_key: PublicKey
    preshared_key: PresharedKey | None = None
    allowed_ips: tuple[AllowedIP, ...] = ()
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    preshared_key_file: Path | None = None
    endpoint_family: Family = "auto"
    endpoint_dns: EndpointDns = "outside"
    excluded_ips: tuple[IPNetwork, ...] = ()
    name: str = ""
    replaces: PublicKey | None = None

    @property
    def networks(self) -> tuple[IPNetwork, ...]:
        """What AllowedIPs are without ExcludedIPs: those the peer really has."""
        listed = tuple(allowed.network for allowed in self.allowed_ips)
        return tuple(without(listed, self.excluded_ips)) if self.excluded_ips else listed


@dataclass(frozen=True, slots=True)
class FileOwner:
    """Who may write a file, or a folder on the way to it."""

    path: str
    uid: int
    mode: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The file first, then the folders on the way to it, through links."""

    owners: tuple[FileOwner, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """One file.

    ``interface`` and ``peers``: its sections. ``path``: where it is from, for messages.
    ``warnings``: what is legal and probably not meant. ``origin``: who could have written it, empty
    for a text. ``load(path)`` reads a file: ConfigError tells all that is wrong with it.
    """

    interface: InterfaceSection = InterfaceSection()
    peers: tuple[PeerSection, ...] = ()
    path: str = field(default="<config>", compare=False)
    warnings: tuple[ConfigWarning, ...] = field(default=(), compare=False, repr=False)
    origin: Origin = field(default=Origin(), compare=False, repr=False)

    #: ``Config.load(path)``: see source.py, which knows files and puts it here.
    load: ClassVar[Callable[[str | Path], Config]]
