"""Links, addresses, routes and rules of this network namespace, by netlink: questions that answer
plain values, and verbs that change one thing.

pyroute2 is imported when a Network is made, since it takes a third of a second. Its NetlinkError is
no OSError; it leaves this module as NetworkError.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import Any, Self

from pywg.config import IPInterface, IPNetwork
from pywg.errors import NetworkError

_KERNEL, _BOOT = 2, 3  # RTPROT_BOOT: what ip(8) marks its routes with
_UNREACHABLE = 7  # RTN_UNREACHABLE
_UP = 1  # IFF_UP
MAIN = 254  # RT_TABLE_MAIN
_INVERT = 2  # FIB_RULE_INVERT: the `not` of a rule
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_HINTS = {
    errno.EPERM: "run it with sudo",
    errno.EACCES: "IPv6 may be disabled: sysctl net.ipv6.conf.all.disable_ipv6",
    errno.EEXIST: "it is there already; look with: ip route, ip address",
    errno.EOPNOTSUPP: "IPv6 may be disabled: sysctl net.ipv6.conf.all.disable_ipv6",
}


def exists(name: str) -> bool:
    """Whether an interface of this name is in our network namespace."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def port_is_free(port: int) -> bool:
    """Whether a UDP port can be bound. The device binds it only when its link goes up, and by then
    it could not tell us."""
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule, as far as a tunnel's can be told from others by it."""

    priority: int
    table: int = MAIN
    mark: int | None = None
    is_inverted: bool = False
    suppresses_defaults: bool = False


class Network:
    """A netlink socket, for the length of a with block.

    Verbs raise NetworkError with what the kernel said; the caller knows what was to be done.
    """

    def __init__(self) -> None:
        from pyroute2 import IPRoute, NetlinkError

        self._failure: type[Exception] = NetlinkError
        try:
            self._ip: Any = IPRoute(strict_check=True)
        except OSError as error:
            raise NetworkError(f"no netlink: {error.strerror}", error.errno or 0) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ip.close()

    # Questions

    def path_mtus(self, hosts: Iterable[str], mark: int | None = None) -> tuple[int, ...]:
        """On the way to each of these addresses, for datagrams with this mark. An unreachable one
        tells nothing."""
        found = (self._route_mtu(host, mark) for host in hosts)
        return tuple(mtu for mtu in found if mtu is not None)

    def _route_mtu(self, host: str, mark: int | None) -> int | None:
        marked = {} if mark is None else {"mark": mark}
        try:
            found = self._ip.route("get", dst=host.partition("%")[0], **marked)
        except (self._failure, OSError):
            return None
        return self._mtu_of(found[0]) if found else None

    def default_route_mtu(self, mark: int | None = None) -> int | None:
        """The smallest on the way to anywhere, in either family. The addresses are of blocks that
        nobody has a route to of their own."""
        return min(self.path_mtus(("203.0.113.1", "2000::1"), mark), default=None)

    def _mtu_of(self, route: Any) -> int | None:
        """The MTU of the route, else of its device."""
        metrics = route.get_attr("RTA_METRICS")
        mtu = metrics.get_attr("RTAX_MTU") if metrics is not None else None
        if mtu:
            return int(mtu)
        index = route.get_attr("RTA_OIF")
        links = self._ip.get_links(index) if index else ()
        return next((int(link.get_attr("IFLA_MTU")) for link in links), None)

    def _routes(self, **wanted: int) -> Iterator[Any]:
        """The kernel chooses, by rtnetlink(7)'s strict check, which needs Linux 4.20; else we get
        all, and choose. A table that was never used is an error to it."""
        try:
            for route in self._ip.route("dump", dump_filter=_anything, **wanted):
                if all(_field_of(route, name) == value for name, value in wanted.items()):
                    yield route
        except self._failure as error:
            if getattr(error, "code", 0) != errno.ENOENT:
                raise

    def rules(self, version: int) -> list[Rule]:
        """All of them, in the kernel's order; none where the family is missing."""
        try:
            found = list(self._ip.get_rules(family=_family(version)))
        except (self._failure, OSError):
            return []
        return [_rule_of(rule) for rule in found]

    def kind(self, name: str) -> str | None:
        """`tun`, which every userspace WireGuard is, `wireguard`, ...; None if it is not there."""
        if not exists(name):
            return None
        with self._wrapped(f"ip -d link show dev {name}"):
            links = self._ip.get_links(_index(name))
            kinds = (link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") for link in links)
            return next((str(kind) for kind in kinds if kind), "")

    def addresses(self, name: str, *, of_kernel: bool = False) -> list[IPInterface]:
        """Those of an interface, IPv4 first; what the kernel gives it by itself, a link-local one,
        only if it is asked for."""
        with self._wrapped(f"ip address show dev {name}"):
            index = _index(name)
            told = self._ip.addr("dump", index=index, dump_filter=_anything)
            found = [item for item in told if item["index"] == index]
        own = [item for item in found if of_kernel or item["scope"] != _SCOPE_LINK]
        # IPv6 ones are listed with the newest first.
        sixes = [item for item in reversed(own) if item["family"] == socket.AF_INET6]
        fours = [item for item in own if item["family"] == socket.AF_INET]
        return [_interface_of(item) for item in (*fours, *sixes)]

    def routes(self, name: str) -> frozenset[tuple[IPNetwork, int]]:
        """Networks that are routed out of an interface, each with its table, but for what the
        kernel made by itself."""
        with self._wrapped(f"ip route show dev {name} table all"):
            return frozenset(
                (_network_of(route), int(route.get_attr("RTA_TABLE")))
                for version in (4, 6)
                for route in self._routes(family=_family(version), oif=_index(name))
                if route["proto"] != _KERNEL
            )

    def blocked(self, table: int) -> frozenset[IPNetwork]:
        """Networks that a table says are unreachable."""
        with self._wrapped(f"ip route show type unreachable table {table}"):
            return frozenset(
                _network_of(route)
                for version in (4, 6)
                for route in self._routes(family=_family(version), table=table, type=_UNREACHABLE)
            )

    def is_up(self, name: str) -> bool:
        with self._wrapped(f"ip link show dev {name}"):
            (link,) = self._ip.get_links(_index(name))
            return bool(link["flags"] & _UP)

    def mtu(self, name: str) -> int:
        with self._wrapped(f"ip link show dev {name}"):
            (link,) = self._ip.get_links(_index(name))
            return int(link.get_attr("IFLA_MTU"))

    # Verbs

    def create_wireguard(self, name: str) -> None:
        """An interface of the kernel's own driver."""
        with self._wrapped():
            self._ip.link("add", ifname=name, kind="wireguard")

    def delete_link(self, name: str) -> None:
        with self._wrapped():
            self._ip.link("delete", index=_index(name))

    def move_link(self, name: str, namespace: int) -> None:
        """To the network namespace behind this file descriptor."""
        with self._wrapped():
            self._ip.link("set", index=_index(name), net_ns_fd=namespace)

    def link_up(self, name: str, mtu: int) -> None:
        with self._wrapped():
            self._ip.link("set", index=_index(name), mtu=mtu)
            self._ip.link("set", index=_index(name), state="up")

    def link_down(self, name: str) -> None:
        with self._wrapped():
            self._ip.link("set", index=_index(name), state="down")

    def add_address(self, name: str, address: IPInterface) -> None:
        with self._wrapped():
            self._ip.addr("add", index=_index(name), **_address(address))

    def delete_address(self, name: str, address: IPInterface) -> None:
        with self._wrapped():
            self._ip.addr("delete", index=_index(name), **_address(address))

    def add_route(self, name: str, network: IPNetwork, table: int | None) -> None:
        """``table`` None is the main one."""
        with self._wrapped():
            self._ip.route("add", oif=_index(name), **_route(network, table))

    def delete_route(self, name: str, network: IPNetwork, table: int | None) -> None:
        with self._wrapped():
            self._ip.route("delete", oif=_index(name), **_route(network, table))

    def block_route(self, network: IPNetwork, table: int) -> None:
        """Whoever sends there is told that it is unreachable."""
        with self._wrapped():
            self._ip.route("add", **_unreachable(network, table))

    def unblock_route(self, network: IPNetwork, table: int) -> None:
        with self._wrapped():
            self._ip.route("delete", **_unreachable(network, table))

    def add_rule(self, version: int, priority: int, mark: int | None) -> None:
        """With a mark: all but what carries it looks in the table of that number. Without: in the
        main table, all but default routes."""
        with self._wrapped():
            self._ip.rule("add", priority=priority, **_rule(version, mark))

    def delete_rule(self, version: int, priority: int, mark: int | None) -> None:
        with self._wrapped():
            self._ip.rule("delete", priority=priority, **_rule(version, mark))

    @contextmanager
    def _wrapped(self, asked: str = "") -> Iterator[None]:
        try:
            yield
        except self._failure as error:
            code = int(getattr(error, "code", 0))
        except OSError as error:
            code = error.errno or 0
        else:
            return
        before = f"{asked}: " if asked else ""
        hint = f" ({_HINTS[code]})" if code in _HINTS else ""
        raise NetworkError(f"{before}{os.strerror(code)}{hint}", code) from None


def _index(name: str) -> int:
    """Python's own error has no errno."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _address(address: IPInterface) -> dict[str, Any]:
    return {
        "address": str(address.ip),
        "prefixlen": address.network.prefixlen,
        "family": _family(address.version),
    }


def _interface_of(message: Any) -> IPInterface:
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return ip_interface(f"{address}/{message['prefixlen']}")


def _anything(message: Any) -> bool:
    """For pyroute2, which else asks the kernel for everything and chooses itself."""
    return True


def _field_of(route: Any, name: str) -> int:
    attributes = {"table": "RTA_TABLE", "oif": "RTA_OIF"}
    found = route.get_attr(attributes[name]) if name in attributes else route[name]
    return int(found or 0)


def _network_of(route: Any) -> IPNetwork:
    anywhere = "0.0.0.0" if route["family"] == socket.AF_INET else "::"  # noqa: S104 - no bind
    return ip_network(f"{route.get_attr('RTA_DST') or anywhere}/{route['dst_len']}")


def _route(network: IPNetwork, table: int | None) -> dict[str, Any]:
    """`ip route add … dev X` gives IPv4 routes link scope: there is no next hop."""
    route: dict[str, Any] = {
        "dst": str(network),
        "family": _family(network.version),
        "proto": _BOOT,
        "table": MAIN if table is None else table,
    }
    if network.version == 4:
        route["scope"] = _SCOPE_LINK
    return route


def _unreachable(network: IPNetwork, table: int) -> dict[str, Any]:
    return {**_route(network, table), "type": "unreachable", "scope": _SCOPE_UNIVERSE}


def _rule(version: int, mark: int | None) -> dict[str, Any]:
    if mark is None:
        return {"family": _family(version), "table": MAIN, "suppress_prefixlen": 0}
    return {"family": _family(version), "table": mark, "fwmark": mark, "flags": _INVERT}


def _rule_of(message: Any) -> Rule:
    suppress = message.get_attr("FRA_SUPPRESS_PREFIXLEN")
    table = message.get_attr("FRA_TABLE")
    return Rule(
        priority=message.get_attr("FRA_PRIORITY") or 0,
        table=message["table"] if table is None else table,
        mark=message.get_attr("FRA_FWMARK"),
        is_inverted=bool(message["flags"] & _INVERT),
        suppresses_defaults=suppress == 0,
    )
