"""What a plan has to know about this host, and where the tunnel is to live. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Backend = Literal["userspace", "kernel"]
FirewallTool = Literal["nft", "iptables", "iptables-nft", "iptables-legacy"]
DnsManager = Literal["resolvconf", "resolved", "file"]
# Whether the interface has IPv6: it does; it has none but can be given it; it cannot, though others
# here have it; or nobody here has.
Ipv6 = Literal["on", "off", "locked", "absent"]

# The rules that every host has, in the kernel's order.
DEFAULT_PRIORITIES = {4: (0, 32766, 32767), 6: (0, 32766)}


@dataclass(frozen=True, slots=True)
class Location:
    """What hosts the interface, and its network namespaces; None is the one we are in."""

    backend: Backend = "userspace"
    netns: str | None = None
    socket_netns: str | None = None

    @property
    def is_split(self) -> bool:
        """Whether the interface is not where its sockets are."""
        return self.netns != self.socket_netns


@dataclass(frozen=True, slots=True)
class Dns:
    """Which service manages resolv.conf here, and the name under which it knows this tunnel.

    ``file`` is a resolv.conf that no service manages, and ``target`` its path. With ``none``,
    ``target`` says why name servers cannot be set. ``splits``: it can ask them for some names
    alone.
    """

    manager: DnsManager | Literal["none"]
    target: str
    splits: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """About this host, once the interface is there and PreUp has run."""

    endpoint_mtus: tuple[int, ...] = ()  # of the route or device to each endpoint
    default_route_mtu: int | None = None
    ipv6: Ipv6 = "on"
    fwmark: int | None = None  # what a PreUp hook has given the device
    used_tables: frozenset[int] = frozenset()  # of those from FIRST_TABLE on
    # Of all rules, in the kernel's order, by IP version.
    rule_priorities: Mapping[int, tuple[int, ...]] = field(
        default_factory=lambda: dict(DEFAULT_PRIORITIES)
    )
    carriers: tuple[str, ...] = ()  # other tunnels that carry a default route, by name or mark
    others: tuple[str, ...] = ()  # other tunnels of ours that are up here
    switched: tuple[str, ...] = ()  # those of them whose kill switch stands
    valid_mark: bool = False  # whether src_valid_mark is set already
    firewall: FirewallTool | None = "nft"
    dns: Dns = Dns("file", "/etc/resolv.conf")
