"""Who else has a say in where packets go: other VPNs, networks in two places, the reverse path
filter; what a server has to forward; and what leaks beside a running tunnel. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address

from pywg.config import IPInterface, IPNetwork
from pywg.doctor.facts import Around, Tunnel
from pywg.doctor.finding import Finding, error, note, ok, warning
from pywg.doctor.path import is_vpn

_STRICT = 1
_FORWARD = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}


def judge(tunnel: Tunnel, around: Around) -> Iterator[Finding]:
    yield from other_vpns(tunnel, around)
    yield from overlaps(tunnel, around)
    yield from reverse_path(tunnel, around)
    yield from forwarding(tunnel, around)
    if tunnel.is_up:
        yield from leaks(tunnel, around)


def other_vpns(tunnel: Tunnel, around: Around) -> Iterator[Finding]:
    """Those that catch everything by their routes: a default route, or its two halves."""
    for device in around.devices:
        name = device.link.name
        wide = sorted(map(str, (route for route in device.routes if route.prefixlen <= 1)))
        if name == tunnel.name or not wide or not is_vpn(device) or not device.link.is_up:
            continue
        tell = warning if tunnel.full else note
        what = f"also wants all that {tunnel.name} carries" if tunnel.full else "carries everything"
        yield tell(
            "other-vpn",
            f"another tunnel, {name}, {what}",
            f"{name} ({device.link.kind}) has routes for {', '.join(wide)}",
            f"take one of them down, such as: ip link set {name} down",
        )


def overlaps(tunnel: Tunnel, around: Around) -> Iterator[Finding]:
    """Networks of the tunnel that are also on another interface, as of two homes with 192.168.1."""
    wanted = [
        network for peer in tunnel.peers for network in peer.networks if network.prefixlen > 1
    ]
    for device in around.devices:
        if device.link.name == tunnel.name:
            continue
        for own in device.networks:
            for network in wanted:
                if _clash(own, network):
                    yield warning(
                        "networks-overlap",
                        f"{network} is to go through the tunnel, and is here already",
                        f"{device.link.name} has the address {own}",
                        "another network at one of both ends, or AllowedIPs without it",
                    )


def _clash(own: IPInterface, network: IPNetwork) -> bool:
    """The more exact route wins: one to a single address is meant, and a wider one does no harm."""
    return network.num_addresses > 1 and _contains(own.network, network)


def _contains(outer: IPNetwork, inner: IPNetwork) -> bool:
    if isinstance(outer, IPv4Network) and isinstance(inner, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(outer, IPv6Network) and isinstance(inner, IPv6Network):
        return inner.subnet_of(outer)
    return False


def reverse_path(tunnel: Tunnel, around: Around) -> Iterator[Finding]:
    """A strict filter looks for the way back without the mark of the tunnel's datagrams, finds the
    tunnel, and drops what peers answer; with src_valid_mark it looks with it."""
    if 4 not in tunnel.full or not tunnel.is_up or around.valid_mark:
        return
    used = {way.device for host, way in around.ways.items() if ":" not in host}
    for device in around.devices:
        effective = max(device.rp_filter or 0, around.rp_filter_all)
        if device.link.name in used and effective == _STRICT:
            yield error(
                "reverse-path-filter",
                f"what peers answer is dropped at {device.link.name}: it would go back through "
                "the tunnel",
                f"rp_filter of {device.link.name} is 1, net.ipv4.conf.all.src_valid_mark is 0",
                "sysctl -w net.ipv4.conf.all.src_valid_mark=1",
            )


def forwarding(tunnel: Tunnel, around: Around) -> Iterator[Finding]:
    """Several peers with one address each are clients, who want to reach each other, or what lies
    behind this host."""
    if not tunnel.is_server:
        return
    for version in (4, 6):
        clients = [
            peer.label
            for peer in tunnel.peers
            if any(net.version == version and net.num_addresses == 1 for net in peer.networks)
        ]
        if len(clients) > 1 and around.forwarding.get(version) is False:
            yield warning(
                "forwarding-off",
                "clients reach this host alone: neither each other nor what lies behind it",
                f"{len(clients)} peers with one IPv{version} address each, {_FORWARD[version]} = 0",
                f"sysctl -w {_FORWARD[version]}=1",
            )


# ---- what leaves beside a tunnel that is to carry everything


def leaks(tunnel: Tunnel, around: Around) -> Iterator[Finding]:
    if not tunnel.full:
        return
    if tunnel.has_owners:
        yield note("leaks-by-owner", "Only or Except choose who goes through: leaks are not judged")
        return
    if tunnel.switch == "on":
        yield ok("leaks", "the kill switch lets nothing out beside the tunnel")
        return
    packets = [] if tunnel.switch else _of_packets(tunnel, around)
    found = [*packets, *_of_names(tunnel, around)]
    yield from found
    if not found:
        yield ok("leaks", "what is for the Internet goes into the tunnel, names too")


def _of_packets(tunnel: Tunnel, around: Around) -> Iterator[Finding]:
    for version in (4, 6):
        beside = {
            way.device
            for way in around.probes.get(version, ())
            if not way.problem and way.device != tunnel.name
        }
        if not beside:
            continue
        if version in tunnel.full:
            yield error(
                f"leak-ipv{version}",
                f"IPv{version} for the Internet leaves beside the tunnel",
                f"ip -{version} route get: dev {', '.join(sorted(beside))}",
                f"pywg reload {tunnel.name}; if it stays, look with: ip -{version} rule",
            )
        else:
            wide = {4: "0.0.0.0/0", 6: "::/0"}[version]
            yield warning(
                f"leak-ipv{version}",
                f"IPv{version} is not the tunnel's: it leaves beside it, whatever IPv{10 - version}"
                " does",
                f"AllowedIPs have no {wide}; ip -{version} route get: "
                f"dev {', '.join(sorted(beside))}",
                f"{wide} in AllowedIPs, or #!pywg KillSwitch = on",
            )


def _of_names(tunnel: Tunnel, around: Around) -> Iterator[Finding]:
    if tunnel.splits_dns:
        return
    for server, way in around.servers.items():
        if ip_address(server).is_loopback or way.is_local:
            if not tunnel.dns:
                yield note(
                    "dns-stub",
                    "names are asked for at a resolver of this host; whom it asks is not seen",
                    f"nameserver {server} in /etc/resolv.conf",
                    "DNS = ADDRESS in [Interface]",
                )
        elif not way.problem and way.device != tunnel.name:
            yield warning(
                "leak-dns",
                "names are asked for beside the tunnel: who carries that sees them",
                f"nameserver {server} in /etc/resolv.conf, ip route get {server}: dev {way.device}",
                "DNS = ADDRESS of a server that is reached through the tunnel, in [Interface]",
            )
