"""Links, addresses, routes and rules of this network namespace, by netlink: questions that answer
plain values, and verbs that change one thing.

No question costs more where the host has more that nobody asked for.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)
from typing import Self

from pywg.config import IPInterface, IPNetwork
from pywg.errors import NetworkError
from pywg.host import rtnetlink
from pywg.host.rtnetlink import Attributes, attribute, attributes, number

MAIN = 254  # RT_TABLE_MAIN
_KERNEL, _BOOT = 2, 3  # RTPROT_BOOT: what ip(8) marks its routes with
_LOCAL_TABLE = 255  # RT_TABLE_LOCAL
_UNICAST, _LOCAL_ROUTE, _UNREACHABLE = 1, 2, 7  # RTN_
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_UP = 1  # IFF_UP
_TO_TABLE = 1  # FR_ACT_TO_TBL
_INVERT = 2  # FIB_RULE_INVERT: the `not` of a rule
_ADDRESS, _LOCAL = 1, 2  # IFA_
_DESTINATION, _OUTPUT, _METRICS, _TABLE, _MARK = 1, 4, 8, 15, 16  # RTA_
_RTAX_MTU = 2
_NAME, _MTU, _LINK_INFO, _NAMESPACE = 3, 4, 18, 28  # IFLA_; IFLA_NET_NS_FD
_INFO_KIND = 1
_PRIORITY, _RULE_MARK, _SUPPRESS, _RULE_TABLE = 6, 10, 14, 15  # FRA_
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESSED = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg, and struct fib_rule_hdr
# Of the discard-only block of RFC 6666, which nobody sends to.
_NOBODY = IPv6Network("100::7079:7767/128")
# Longer than any work queue should take; who waits in vain goes on.
_ADDRESSES_S = 1.0
# Where a family, or a table, never was.
_ABSENT = frozenset({errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
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


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of this network namespace; ``kind`` as ``Network.kind`` says it, empty for a
    card's."""

    name: str
    kind: str
    is_up: bool


@dataclass(frozen=True, slots=True)
class Way:
    """Where the kernel would send what is for an address; ``mtu`` of the route, else of its device.
    ``device`` is empty where it has no way there, and says why in ``problem``."""

    device: str = ""
    mtu: int = 0
    is_local: bool = False
    problem: str = ""


class Network:
    """A netlink socket, for the length of a with block.

    Verbs raise NetworkError with what the kernel said; the caller knows what was to be done.
    """

    def __init__(self) -> None:
        try:
            self._kernel = rtnetlink.Socket()
        except OSError as error:
            raise NetworkError(f"no netlink: {error.strerror}", error.errno or 0) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._kernel.__exit__(*error)

    # Questions

    def path_mtus(self, hosts: Iterable[str], mark: int | None = None) -> tuple[int, ...]:
        """On the ways to these addresses, for datagrams with this mark. An unreachable one tells
        nothing."""
        ways = {self._way(host, mark) for host in hosts}
        found = [mtu or self._mtu_of(index) for mtu, index in sorted(ways)]
        return tuple(mtu for mtu in found if mtu)

    def _way(self, host: str, mark: int | None) -> tuple[int, int]:
        """The MTU of the route, and the index of its device; 0 for what it does not have."""
        try:
            found = attributes(self._route_to(host, mark), _ROUTE.size)
        except OSError:
            return 0, 0
        metrics = attributes(found.get(_METRICS, b""))
        return number(metrics.get(_RTAX_MTU)), number(found.get(_OUTPUT))

    def way(self, host: str, mark: int | None = None) -> Way:
        """To a numeric address, for what carries this mark. Sends nothing."""
        try:
            body = self._route_to(host, mark)
        except OSError as error:
            return Way(problem=os.strerror(error.errno or 0))
        found = attributes(body, _ROUTE.size)
        index = number(found.get(_OUTPUT))
        mtu = number(attributes(found.get(_METRICS, b"")).get(_RTAX_MTU))
        try:
            device = socket.if_indextoname(index)
        except OSError:
            return Way(problem="there is no device")
        return Way(device, mtu or self._mtu_of(index), body[7] == _LOCAL_ROUTE)

    def _route_to(self, host: str, mark: int | None) -> bytes:
        address = ip_address(host.partition("%")[0])
        header = (_family(address.version), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
        body = _ROUTE.pack(*header) + attribute(_DESTINATION, address.packed)
        if mark is not None:
            body += attribute(_MARK, mark)
        return self._kernel.ask(rtnetlink.GET_ROUTE, body)

    def _mtu_of(self, index: int) -> int:
        try:
            return number(self._link(index)[1].get(_MTU)) if index else 0
        except OSError:
            return 0

    def default_route_mtu(self, mark: int | None = None) -> int | None:
        """The smallest on the way to anywhere, in either family. The addresses are of blocks that
        nobody has a route to of their own."""
        return min(self.path_mtus(("203.0.113.1", "2000::1"), mark), default=None)

    def rules(self, version: int) -> list[Rule]:
        """All of them, in the kernel's order; none where the family is missing."""
        header = _ROUTE.pack(_family(version), 0, 0, 0, 0, 0, 0, 0, 0)
        try:
            found = self._kernel.dump(rtnetlink.GET_RULE, header, lambda body: True)
        except OSError:
            return []
        return [_rule_of(body) for body in found if body[0] == _family(version)]

    def kind(self, name: str) -> str | None:
        """`tun`, which every userspace WireGuard is, `wireguard`, ...; None if it is not there."""
        if not exists(name):
            return None
        with _wrapped(f"ip -d link show dev {name}"):
            info = attributes(self._link(_index(name))[1].get(_LINK_INFO, b""))
        return info.get(_INFO_KIND, b"").rstrip(b"\0").decode()

    def _link(self, index: int) -> tuple[int, Attributes]:
        """Its flags, and the rest."""
        body = self._kernel.ask(rtnetlink.GET_LINK, _LINK.pack(0, 0, index, 0, 0))
        _, _, _, flags, _ = _LINK.unpack_from(body)
        return flags, attributes(body, _LINK.size)

    def links(self) -> list[Link]:
        """All interfaces here."""
        with _wrapped("ip link show"):
            found = self._kernel.dump(
                rtnetlink.GET_LINK, _LINK.pack(0, 0, 0, 0, 0), lambda body: True
            )
        return [_link_of(body) for body in found]

    def is_up(self, name: str) -> bool:
        with _wrapped(f"ip link show dev {name}"):
            return bool(self._link(_index(name))[0] & _UP)

    def mtu(self, name: str) -> int:
        with _wrapped(f"ip link show dev {name}"):
            return number(self._link(_index(name))[1].get(_MTU))

    def addresses(self, name: str, *, of_kernel: bool = False) -> list[IPInterface]:
        """Those of an interface, IPv4 first; what the kernel gives it by itself, a link-local one,
        only if it is asked for."""
        with _wrapped(f"ip address show dev {name}"):
            index = _index(name)
            header = _ADDRESSED.pack(socket.AF_UNSPEC, 0, 0, 0, index)
            found = self._kernel.dump(
                rtnetlink.GET_ADDRESS, header, lambda body: _ADDRESSED.unpack_from(body)[4] == index
            )
        own = [body for body in found if of_kernel or body[3] != _SCOPE_LINK]
        # IPv6 ones are listed with the newest first.
        sixes = [body for body in reversed(own) if body[0] == socket.AF_INET6]
        fours = [body for body in own if body[0] == socket.AF_INET]
        return [_interface_of(body) for body in (*fours, *sixes)]

    def routes(self, name: str) -> frozenset[tuple[IPNetwork, int]]:
        """Networks that are routed out of an interface, each with its table, but for what the
        kernel made by itself."""
        with _wrapped(f"ip route show dev {name} table all"):
            found = list(self._routes({_OUTPUT: _index(name)}))
        return frozenset(
            (_network_of(body), number(attributes(body, _ROUTE.size).get(_TABLE)))
            for body in found
            if body[5] != _KERNEL
        )

    def local_addresses(self, name: str) -> frozenset[IPv4Address | IPv6Address]:
        """Those of an interface that take packets: there is a route of type local for each."""
        with _wrapped(f"ip route show type local dev {name} table local"):
            found = list(self._routes({_OUTPUT: _index(name), _TABLE: _LOCAL_TABLE}, _LOCAL_ROUTE))
        return frozenset(_network_of(body).network_address for body in found)

    def blocked(self, table: int) -> frozenset[IPNetwork]:
        """Networks that a table says are unreachable."""
        with _wrapped(f"ip route show type unreachable table {table}"):
            return frozenset(map(_network_of, self._routes({_TABLE: table}, _UNREACHABLE)))

    def _routes(self, wanted: dict[int, int], kind: int = 0) -> Iterator[bytes]:
        """Of both families, with these attributes; of one kind, or of all."""
        asked = b"".join(attribute(key, value) for key, value in wanted.items())

        def is_wanted(body: bytes) -> bool:
            said = attributes(body, _ROUTE.size)
            return (
                body[0] == family
                and kind in (0, body[7])
                and all(number(said.get(key)) == value for key, value in wanted.items())
            )

        for family in (socket.AF_INET, socket.AF_INET6):
            header = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, kind, 0)
            try:
                yield from self._kernel.dump(rtnetlink.GET_ROUTE, header + asked, is_wanted)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise

    # Verbs

    def create_wireguard(self, name: str) -> None:
        """An interface of the kernel's own driver."""
        info = attribute(_INFO_KIND, b"wireguard")
        body = attribute(_NAME, name.encode() + b"\0") + attribute(_LINK_INFO, info)
        with _wrapped():
            self._tell_link(rtnetlink.NEW_LINK, 0, body, flags=rtnetlink.EXCLUSIVELY)

    def delete_link(self, name: str) -> None:
        with _wrapped():
            self._tell_link(rtnetlink.DEL_LINK, _index(name))

    def move_link(self, name: str, namespace: int) -> None:
        """To the network namespace behind this file descriptor."""
        with _wrapped():
            self._tell_link(rtnetlink.NEW_LINK, _index(name), attribute(_NAMESPACE, namespace))

    def link_up(self, name: str, mtu: int) -> None:
        """Up, and its IPv6 addresses can be used. The kernel makes them ready by a work queue,
        which is late on a busy host: a program could not bind to one yet, and what arrives for it
        would be lost."""
        with _wrapped():
            index = _index(name)
            self._tell_link(rtnetlink.NEW_LINK, index, attribute(_MTU, mtu))
            self._tell_link(rtnetlink.NEW_LINK, index, state=_UP, changed=_UP)
        wanted = {address.ip for address in self.addresses(name) if address.version == 6}
        deadline = time.monotonic() + _ADDRESSES_S
        while not wanted <= self.local_addresses(name) and time.monotonic() < deadline:
            time.sleep(0.001)

    def link_down(self, name: str) -> None:
        with _wrapped():
            self._tell_link(rtnetlink.NEW_LINK, _index(name), changed=_UP)

    def _tell_link(
        self,
        verb: int,
        index: int,
        body: bytes = b"",
        *,
        state: int = 0,
        changed: int = 0,
        flags: int = 0,
    ) -> None:
        self._kernel.tell(verb, _LINK.pack(0, 0, index, state, changed) + body, flags)

    def add_address(self, name: str, address: IPInterface) -> None:
        with _wrapped():
            body = _address(_index(name), address)
            self._kernel.tell(rtnetlink.NEW_ADDRESS, body, rtnetlink.EXCLUSIVELY)

    def delete_address(self, name: str, address: IPInterface) -> None:
        with _wrapped():
            self._kernel.tell(rtnetlink.DEL_ADDRESS, _address(_index(name), address))

    def add_route(self, name: str, network: IPNetwork, table: int | None) -> None:
        """``table`` None is the main one."""
        with _wrapped():
            body = _route(network, table, _index(name))
            self._kernel.tell(rtnetlink.NEW_ROUTE, body, rtnetlink.EXCLUSIVELY)
            if network.prefixlen == 0 and table is not None:
                self._make_sockets_ask_again(network.version)

    def delete_route(self, name: str, network: IPNetwork, table: int | None) -> None:
        with _wrapped():
            self._kernel.tell(rtnetlink.DEL_ROUTE, _route(network, table, _index(name)))

    def block_route(self, network: IPNetwork, table: int) -> None:
        """Whoever sends there is told that it is unreachable."""
        with _wrapped():
            body = _route(network, table)
            self._kernel.tell(rtnetlink.NEW_ROUTE, body, rtnetlink.EXCLUSIVELY)
            self._make_sockets_ask_again(network.version)

    def unblock_route(self, network: IPNetwork, table: int) -> None:
        with _wrapped():
            self._kernel.tell(rtnetlink.DEL_ROUTE, _route(network, table))

    def add_rule(self, version: int, priority: int, mark: int | None) -> None:
        """With a mark: all but what carries it looks in the table of that number. Without: in the
        main table, all but default routes."""
        with _wrapped():
            body = _rule(version, priority, mark)
            self._kernel.tell(rtnetlink.NEW_RULE, body, rtnetlink.EXCLUSIVELY)
            self._make_sockets_ask_again(version)

    def _make_sockets_ask_again(self, version: int) -> None:
        """A connected socket keeps the way it found. IPv4's forget it with each new rule or route;
        IPv6's only with a new route in the table that they found it in, and would go on in clear by
        the default route of the main table. So one comes and goes there."""
        if version == 6:
            body = _route(_NOBODY, None)
            self._kernel.tell(rtnetlink.NEW_ROUTE, body, rtnetlink.ALSO_INSTEAD)
            with suppress(OSError):  # another one who does the same took it away
                self._kernel.tell(rtnetlink.DEL_ROUTE, body)

    def delete_rule(self, version: int, priority: int, mark: int | None) -> None:
        with _wrapped():
            self._kernel.tell(rtnetlink.DEL_RULE, _rule(version, priority, mark))


@contextmanager
def _wrapped(asked: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        before = f"{asked}: " if asked else ""
        hint = f" ({_HINTS[code]})" if code in _HINTS else ""
        raise NetworkError(f"{before}{os.strerror(code)}{hint}", code) from None


def _link_of(body: bytes) -> Link:
    _, _, _, flags, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)
    kind = attributes(found.get(_LINK_INFO, b"")).get(_INFO_KIND, b"")
    name = found.get(_NAME, b"").rstrip(b"\0").decode(errors="replace")
    return Link(name, kind.rstrip(b"\0").decode(errors="replace"), bool(flags & _UP))


def _index(name: str) -> int:
    """Python's own error has no errno."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


# ---- addresses


def _address(index: int, address: IPInterface) -> bytes:
    header = _ADDRESSED.pack(_family(address.version), address.network.prefixlen, 0, 0, index)
    own = attribute(_LOCAL, address.ip.packed) if address.version == 4 else b""
    return header + own + attribute(_ADDRESS, address.ip.packed)


def _interface_of(body: bytes) -> IPInterface:
    found = attributes(body, _ADDRESSED.size)
    kind = IPv4Interface if body[0] == socket.AF_INET else IPv6Interface
    return kind((found.get(_LOCAL) or found[_ADDRESS], body[1]))


# ---- routes


def _route(network: IPNetwork, table: int | None, index: int | None = None) -> bytes:
    """`ip route add ... dev X` gives IPv4 routes link scope: there is no next hop. Without an
    index it is unreachable."""
    family = _family(network.version)
    is_link = index is not None and network.version == 4
    scope = _SCOPE_LINK if is_link else _SCOPE_UNIVERSE
    kind = _UNREACHABLE if index is None else _UNICAST
    header = _ROUTE.pack(family, network.prefixlen, 0, 0, 0, _BOOT, scope, kind, 0)
    body = attribute(_DESTINATION, network.network_address.packed) + attribute(
        _TABLE, MAIN if table is None else table
    )
    return header + body + (b"" if index is None else attribute(_OUTPUT, index))


def _network_of(body: bytes) -> IPNetwork:
    packed = attributes(body, _ROUTE.size).get(_DESTINATION)
    if body[0] == socket.AF_INET:
        return IPv4Network((packed or bytes(4), body[1]))
    return IPv6Network((packed or bytes(16), body[1]))


# ---- rules


def _rule(version: int, priority: int, mark: int | None) -> bytes:
    flags = 0 if mark is None else _INVERT
    header = _ROUTE.pack(_family(version), 0, 0, 0, 0, 0, 0, _TO_TABLE, flags)
    which = attribute(_SUPPRESS, 0) if mark is None else attribute(_RULE_MARK, mark)
    table = attribute(_RULE_TABLE, MAIN if mark is None else mark)
    return header + attribute(_PRIORITY, priority) + which + table


def _rule_of(body: bytes) -> Rule:
    found = attributes(body, _ROUTE.size)
    *_, short_table, _, _, _, flags = _ROUTE.unpack_from(body)
    mark = found.get(_RULE_MARK)
    return Rule(
        priority=number(found.get(_PRIORITY)),
        table=number(found[_RULE_TABLE]) if _RULE_TABLE in found else short_table,
        mark=None if mark is None else number(mark),
        is_inverted=bool(flags & _INVERT),
        suppresses_defaults=found.get(_SUPPRESS) == bytes(4),
    )
