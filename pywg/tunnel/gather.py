"""Gathers the Facts of this host that a plan has to know. Decides nothing.

With two network namespaces, the way to the endpoints begins in the one of the sockets, and all
else concerns the one of the interface.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pywg.config import Config
from pywg.host import dns, firewall, netns, network
from pywg.plan.build import FIRST_TABLE, allowed_networks
from pywg.plan.facts import Dns, Facts, Location
from pywg.tunnel.apply import VALID_MARK

NO_IPV6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


def facts(name: str, config: Config, location: Location, mark: int | None = None) -> Facts:
    """What is not needed for this configuration is not asked. ``mark`` is what a tunnel that is up
    marks its datagrams with: they take another way than ours."""
    with netns.entered(location.socket_netns), network.Network() as kernel:
        mtus = () if config.interface.mtu else kernel.path_mtus(_hosts(config), mark)
        default = None if config.interface.mtu or mtus else kernel.default_route_mtu()
    servers = config.interface.dns_servers
    found = Dns(*dns.find(name, location.netns)) if servers else Dns("none", "there is no DNS")
    with netns.entered(location.netns), network.Network() as kernel:
        basic = Facts(mtus, default, ipv6=has_ipv6(), dns=found)
        if not any(allowed.prefixlen == 0 for allowed in allowed_networks(config)):
            return basic
        return replace(
            basic,
            used_tables=kernel.used_tables(FIRST_TABLE),
            rule_priorities={
                version: tuple(rule.priority for rule in kernel.rules(version))
                for version in (4, 6)
            },
            valid_mark=_read(VALID_MARK) == "1",
            firewall=firewall.find_tool(),
        )


def _hosts(config: Config) -> list[str]:
    """The addresses of all endpoints, which are numeric."""
    return sorted({peer.endpoint.host for peer in config.peers if peer.endpoint is not None})


def has_ipv6() -> bool:
    """Whether a new interface here may have IPv6 addresses. Where /proc does not say, it may."""
    if not NO_IPV6.exists():
        return not Path("/proc/sys/net/ipv4").exists()
    return _read(NO_IPV6) != "1"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
