"""What is judged: values that gather.py finds, and tests make up. None is what was not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pywg.config import Endpoint, IPAddress, IPInterface, IPNetwork
from pywg.host.network import Link, Way
from pywg.host.path_probe import Heard


@dataclass(frozen=True, slots=True)
class Tun:
    """``os_errno``: of opening /dev/net/tun, 0 if that went well, None if it was not tried since it
    might have loaded a driver. ``has_driver``: whether the kernel has it already."""

    os_errno: int | None = 0
    has_driver: bool = True


@dataclass(frozen=True, slots=True)
class Host:
    """``release``: as `uname -r` says. ``rmem_max``, ``wmem_max``: bytes. ``conntrack``:
    connections, and the most there may be. ``kinds``: of the interfaces that are up.
    ``built_s``, ``now_s``: Unix time of the package's files, and that of the clock."""

    is_root: bool = True
    capabilities: int = (1 << 64) - 1
    tun: Tun = Tun()
    release: str = "6.18.0"
    kinds: frozenset[str] = frozenset()
    rmem_max: int | None = 7 << 20
    wmem_max: int | None = 7 << 20
    conntrack: tuple[int, int] | None = None
    built_s: float = 0.0
    now_s: float = 2e9


@dataclass(frozen=True, slots=True)
class Peer:
    """``label``: its name, or how its key begins. ``endpoint``: numeric, None without one.
    ``source``: as the file has it. ``problem``: why a name has no address, and whether it will
    have none."""

    label: str
    networks: tuple[IPNetwork, ...] = ()
    endpoint: Endpoint | None = None
    source: str = ""
    problem: str = ""
    is_hopeless: bool = False
    # Of a running tunnel: Unix time in nanoseconds, 0 for never; bytes; what its device says of it.
    last_handshake_ns: int = 0
    sent: int = 0
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """``is_up``: it runs; else it is what its file says. ``full``: the IP versions that it carries
    everything of. ``mark``: of its datagrams, 0 for none. ``mtu``: of its interface, or what it
    will be. ``has_owners``: who goes through it is chosen by Only or Except.
    ``switch``: of its kill switch that stands, whether it lets the local network through."""

    name: str
    is_up: bool = False
    peers: tuple[Peer, ...] = ()
    addresses: tuple[IPInterface, ...] = ()
    dns: tuple[IPAddress, ...] = ()
    splits_dns: bool = False
    listen_port: int | None = None
    mark: int = 0
    mtu: int | None = None
    is_mtu_given: bool = False
    full: frozenset[int] = frozenset()
    has_owners: bool = False
    switch: Literal["", "on", "lan"] = ""

    @property
    def is_server(self) -> bool:
        """Whether peers have to reach it first."""
        return any(not peer.source for peer in self.peers)


@dataclass(frozen=True, slots=True)
class Device:
    """One of this host. ``routes``: networks that go out by it, by whatever table."""

    link: Link
    networks: tuple[IPInterface, ...] = ()
    routes: frozenset[IPNetwork] = frozenset()
    rp_filter: int | None = None
    features: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Around:
    """What a tunnel meets here. ``ways``: of its datagrams, by address. ``heard``: what datagrams
    that may not be cut met on these, where they were sent. ``probes``: the ways of packets of this
    host for addresses all over the Internet, by IP version. ``servers``: the name servers of
    /etc/resolv.conf, each with the way of a question to it."""

    ways: Mapping[str, Way] = field(default_factory=dict)
    heard: Mapping[str, Heard] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    probes: Mapping[int, tuple[Way, ...]] = field(default_factory=dict)
    servers: Mapping[str, Way] = field(default_factory=dict)
    valid_mark: bool = False
    rp_filter_all: int = 0
    forwarding: Mapping[int, bool] = field(default_factory=dict)
