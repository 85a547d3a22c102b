"""Gathers the Facts of this host that a plan has to know. Decides nothing.

With two network namespaces, the way to the endpoints begins in the one of the sockets, and all
else concerns the one of the interface.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pywg import wireguard
from pywg.config import Config, split_dns
from pywg.host import dns, firewall, netns, network, tables
from pywg.host.network import Rule
from pywg.plan.build import FIRST_TABLE, default_networks
from pywg.plan.facts import Dns, Facts, Ipv6, Location
from pywg.tunnel import record
from pywg.tunnel.apply import IPV6, VALID_MARK

#: What a tool of the host that takes long is waited for.
LATE = "waiting for what this host says of itself (nft, iptables, resolvconf, routes)"


def facts(
    name: str,
    config: Config,
    location: Location,
    mark: int | None = None,
    *,
    is_there: bool = True,
) -> Facts:
    """What is not needed for this configuration is not asked. ``mark`` is what a tunnel that is up
    marks its datagrams with: they take another way than ours. An interface that is not there will
    be as new ones are here."""
    with netns.entered(location.socket_netns), network.Network() as kernel:
        mtus = () if config.interface.mtu else kernel.path_mtus(_hosts(config), mark)
        default = None if config.interface.mtu or mtus else kernel.default_route_mtu(mark)
    found = Dns("none", "there is no DNS")
    if config.interface.dns_servers:
        wants_split = split_dns.is_split(config.interface.dns_search)
        way = dns.find(name, location.netns, wants_split=wants_split)
        found = Dns(way.manager, way.target, dns.splits(way))
    used = used_tables(name, location) if default_networks(config) else frozenset()
    with netns.entered(location.netns), network.Network() as kernel:
        given = wireguard.fwmark(name) if is_there else None
        others, switched = record.others(name)
        basic = Facts(
            mtus,
            default,
            ipv6=ipv6_of(name if is_there else "default"),
            fwmark=given,
            others=others,
            switched=switched,
            dns=found,
        )
        if not default_networks(config):
            return basic
        rules = {version: kernel.rules(version) for version in (4, 6)}
        return replace(
            basic,
            used_tables=used,
            rule_priorities={
                version: tuple(rule.priority for rule in found) for version, found in rules.items()
            },
            carriers=carriers(name, (*rules[4], *rules[6])),
            valid_mark=_read(VALID_MARK) == "1",
            firewall=next(iter(firewall.tools()), None),
        )


def carriers(name: str, rules: Iterable[Rule]) -> tuple[str, ...]:
    """Other tunnels that lead everything into themselves, by their rules: names of ours, marks of
    others'."""
    names = record.leading_in()
    marks = {rule.mark for rule in rules if rule.is_inverted and rule.table == rule.mark}
    known = sorted(mark for mark in marks if mark is not None and names.get(mark) != name)
    return tuple(names.get(mark, f"the tunnel with fwmark {mark}") for mark in known)


def used_tables(name: str, location: Location) -> frozenset[int]:
    """By anybody but this tunnel. The number is also the mark of its datagrams, so it is to be free
    where its sockets are, too: there it may be the mark of a tunnel that is to carry them."""
    promised = record.marks_of_others(name)
    places = list(dict.fromkeys((location.netns, location.socket_netns)))
    used: frozenset[int] = frozenset()
    while True:
        before = used
        for place in places:
            with netns.entered(place):
                used = tables.used_from(FIRST_TABLE, promised | used)
        if used == before or len(places) == 1:
            return used


def _hosts(config: Config) -> list[str]:
    """The addresses of all endpoints, which are numeric."""
    return sorted({peer.endpoint.host for peer in config.peers if peer.endpoint is not None})


def ipv6_of(name: str) -> Ipv6:
    """Of this interface. Where /proc does not say, it is taken to have IPv6."""
    if not IPV6.exists():
        return "absent" if IPV6.parents[1].exists() else "on"
    switch = IPV6 / name / "disable_ipv6"
    if _read(switch) != "1":
        return "on"
    if os.access(switch, os.W_OK):
        return "off"
    others = (place for place in IPV6.iterdir() if place.name not in {"all", "default", "lo"})
    has_any = any(_read(place / "disable_ipv6") == "0" for place in others)
    return "locked" if has_any else "absent"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
