"""The only module that talks netlink: gathers Facts for plan.py and carries its Steps out.

pyroute2 is imported when a Network is made, since it takes a third of a second. Its NetlinkError is
no OSError; it leaves this module as NetworkError.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from pywg import plan
from pywg.config import Config
from pywg.errors import NetworkError

_BOOT = 3  # RTPROT_BOOT: what ip(8) marks its routes with
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


class Network:
    """A netlink socket, for the length of a with block."""

    def __init__(self) -> None:
        from pyroute2 import IPRoute, NetlinkError

        self._failure: type[Exception] = NetlinkError
        try:
            self._ip: Any = IPRoute()
        except OSError as error:
            raise NetworkError(f"no netlink: {error.strerror}", error.errno or 0) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ip.close()

    # Facts

    def facts(self, config: Config) -> plan.Facts:
        """What the plan needs; endpoints must be numeric. An unreachable one tells nothing."""
        mtus = []
        for peer in config.peers:
            if peer.endpoint is not None:
                mtu = self._route_mtu(peer.endpoint.host)
                if mtu is not None:
                    mtus.append(mtu)
        return plan.Facts(tuple(mtus), self._default_route_mtu())

    def _route_mtu(self, host: str) -> int | None:
        try:
            found = self._ip.route("get", dst=host.partition("%")[0])
        except (self._failure, OSError):
            return None
        return self._mtu_of(found[0]) if found else None

    def _default_route_mtu(self) -> int | None:
        try:
            found = [self._mtu_of(route) for route in self._ip.get_default_routes()]
        except (self._failure, OSError):
            return None
        return min((mtu for mtu in found if mtu), default=None)

    def _mtu_of(self, route: Any) -> int | None:
        """The MTU of the route, else of its device."""
        metrics = route.get_attr("RTA_METRICS")
        mtu = metrics.get_attr("RTAX_MTU") if metrics is not None else None
        if mtu:
            return int(mtu)
        index = route.get_attr("RTA_OIF")
        links = self._ip.get_links(index) if index else ()
        return next((int(link.get_attr("IFLA_MTU")) for link in links), None)

    def is_tun(self, name: str) -> bool:
        """Whether an interface is a TUN device, as every userspace WireGuard makes it."""
        with self._wrapped(f"ip -d link show dev {name}"):
            links = self._ip.get_links(socket.if_nametoindex(name))
        return any(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "tun" for link in links)

    # Steps

    def apply(self, step: plan.Step) -> None:
        """Does one step; raises NetworkError when the kernel refuses."""
        with self._wrapped(str(step)):
            self._apply(step)

    def _apply(self, step: plan.Step) -> None:
        index = socket.if_nametoindex(step.name)
        match step:
            case plan.AddAddress(address=address):
                self._ip.addr("add", index=index, **_address(address))
            case plan.DeleteAddress(address=address):
                self._ip.addr("delete", index=index, **_address(address))
            case plan.LinkUp(mtu=mtu):
                self._ip.link("set", index=index, mtu=mtu)
                self._ip.link("set", index=index, state="up")
            case plan.LinkDown():
                self._ip.link("set", index=index, state="down")
            case plan.AddRoute(network=network):
                self._ip.route("add", dst=str(network), oif=index, **_route_options(network))
            case plan.DeleteRoute(network=network):
                self._ip.route("delete", dst=str(network), oif=index, **_route_options(network))
            case plan.DeleteInterface():
                self._ip.link("delete", index=index)
            case _:
                raise NetworkError(f"no such step: {step}")

    @contextmanager
    def _wrapped(self, doing: str) -> Iterator[None]:
        try:
            yield
        except self._failure as error:
            code = int(getattr(error, "code", 0))
        except OSError as error:
            code = error.errno or 0
        else:
            return
        hint = f" ({_HINTS[code]})" if code in _HINTS else ""
        raise NetworkError(f"{doing}: {os.strerror(code)}{hint}", code) from None


def _address(address: Any) -> dict[str, Any]:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return {"address": str(address.ip), "prefixlen": address.network.prefixlen, "family": family}


def _route_options(network: Any) -> dict[str, Any]:
    """`ip route add … dev X` gives IPv4 routes link scope: there is no next hop."""
    if network.version == 4:
        return {"family": socket.AF_INET, "proto": _BOOT, "scope": 253}
    return {"family": socket.AF_INET6, "proto": _BOOT}
