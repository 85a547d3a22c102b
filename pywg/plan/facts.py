"""What a plan has to know about this host, and where the tunnel is to live. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Backend = Literal["userspace", "kernel"]
FirewallTool = Literal["nft", "iptables"]

# The rules that every host has, in the kernel's order.
DEFAULT_PRIORITIES = {4: (0, 32766, 32767), 6: (0, 32766)}


@dataclass(frozen=True, slots=True)
class Place:
    """Who hosts the interface, and the network namespaces; None is the one we are in."""

    backend: Backend = "userspace"
    netns: str | None = None
    socket_netns: str | None = None

    @property
    def is_split(self) -> bool:
        """Whether the interface is not where its sockets are."""
        return self.netns != self.socket_netns


@dataclass(frozen=True, slots=True)
class Dns:
    """Who is told about name servers, and by which name he knows the tunnel (or which file it is).

    ``file`` is a resolv.conf that nobody manages; ``none`` says in ``target`` why there is nobody.
    """

    manager: Literal["resolvconf", "resolved", "file", "none"]
    target: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule, as far as ours can be told from others by it."""

    priority: int
    table: int = 254
    mark: int | None = None
    is_inverted: bool = False
    suppresses_defaults: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """About this host."""

    endpoint_mtus: tuple[int, ...] = ()  # of the route or device to each endpoint
    default_route_mtu: int | None = None
    ipv6: bool = True  # whether a new interface may have IPv6 addresses
    used_tables: frozenset[int] = frozenset()  # of those from FIRST_TABLE on
    # Of all rules, in the kernel's order, by IP version.
    rule_priorities: Mapping[int, tuple[int, ...]] = field(
        default_factory=lambda: dict(DEFAULT_PRIORITIES)
    )
    valid_mark: bool = False  # whether src_valid_mark is set already
    firewall: FirewallTool | None = "nft"
    dns: Dns = Dns("file", "/etc/resolv.conf")
