"""Gathers the facts of this host that are judged. Decides nothing and changes nothing: a node that
might load a driver is not opened, and no packet leaves but those of host/path_probe.py."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pywg.doctor.finding as package
from pywg.config import IPNetwork
from pywg.doctor.facts import Around, Device, Host, Peer, Tun, Tunnel
from pywg.doctor.path import is_vpn
from pywg.errors import PywgError
from pywg.host import dns, features, netns, sysctl
from pywg.host.network import Link, Network, Way
from pywg.host.path_probe import Heard, Target, probe
from pywg.plan.facts import Location
from pywg.rootless import refusal
from pywg.rootless.messages import Failed

TUN = Path("/dev/net/tun")
#: All over the Internet, in both halves of it. Nothing is sent there.
ANYWHERE = {4: ("9.9.9.9", "203.0.113.1"), 6: ("2000::1", "a000::1")}


def host() -> Host:
    with Network() as kernel:
        kinds = frozenset(link.kind for link in kernel.links() if link.is_up)
    count, most = (sysctl.number(f"net.netfilter.nf_conntrack_{word}") for word in ("count", "max"))
    return Host(
        is_root=os.geteuid() == 0,
        capabilities=sysctl.capabilities(),
        tun=tun(),
        release=platform.release(),
        kinds=kinds,
        rmem_max=sysctl.number("net.core.rmem_max"),
        wmem_max=sysctl.number("net.core.wmem_max"),
        conntrack=None if count is None or most is None else (count, most),
        built_s=_written_s(),
        now_s=time.time(),
    )


def says() -> refusal.Facts:
    """What the host says of namespaces; no step was refused yet."""
    return refusal.gather(Failed("user namespace", 0, ""))


def tun() -> Tun:
    has_driver = sysctl.has_misc_device("tun")
    try:
        TUN.stat()
        if not has_driver:
            return Tun(None, has_driver=False)
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Tun(error.errno or 0, has_driver)
    return Tun()


def _written_s() -> float:
    try:
        return Path(package.__file__).stat().st_mtime
    except OSError:
        return 0.0


# ---- around a tunnel


def around(tunnel: Tunnel, location: Location, *, probes: bool) -> Around:
    """``probes``: whether datagrams are sent towards endpoints."""
    hosts = _hosts(tunnel.peers)
    with netns.entered(location.socket_netns), Network() as kernel:
        ways = {host: kernel.way(host, tunnel.mark or None) for host in hosts}
        used = {way.device for way in ways.values()}
        devices = _devices(kernel, used)
        heard = _heard(tunnel, ways) if probes else {}
        valid_mark = sysctl.number("net.ipv4.conf.all.src_valid_mark") == 1
        rp_filter_all = sysctl.number("net.ipv4.conf.all.rp_filter") or 0
    with netns.entered(location.netns), Network() as kernel:
        if location.is_split:
            devices = (*devices, *_devices(kernel, set()))
        wanted = [network for peer in tunnel.peers for network in peer.networks]
        return Around(
            ways=ways,
            heard=heard,
            devices=devices,
            probes={version: _probes(kernel, version, wanted) for version in (4, 6)},
            servers={server: kernel.way(server) for server in _servers(location)},
            valid_mark=valid_mark,
            rp_filter_all=rp_filter_all,
            forwarding={
                4: sysctl.number("net.ipv4.ip_forward") == 1,
                6: sysctl.number("net.ipv6.conf.all.forwarding") == 1,
            },
        )


def _hosts(peers: Iterable[Peer]) -> list[str]:
    """Without those in a zone: their device is in the address."""
    hosts = {peer.endpoint.host for peer in peers if peer.endpoint is not None}
    return sorted(host for host in hosts if "%" not in host)


def _devices(kernel: Network, used: set[str]) -> tuple[Device, ...]:
    found = []
    for link in kernel.links():
        with suppress(PywgError):  # it may be gone by now
            found.append(_device(kernel, link, link.name in used))
    return tuple(found)


def _device(kernel: Network, link: Link, is_used: bool) -> Device:
    """Routes only of tunnels: a card may have a million."""
    device = Device(
        link,
        tuple(kernel.addresses(link.name)),
        rp_filter=sysctl.number(f"net/ipv4/conf/{link.name}/rp_filter"),
        features=features.active(link.name) if is_used else None,
    )
    if not is_vpn(device):
        return device
    routes = frozenset(network for network, _ in kernel.routes(link.name))
    return Device(link, device.networks, routes, device.rp_filter, device.features)


def _heard(tunnel: Tunnel, ways: dict[str, Way]) -> dict[str, Heard]:
    """Not through the tunnel itself, nor to this host."""
    targets = {
        peer.endpoint.host: Target(peer.endpoint.host, peer.endpoint.port, way.mtu)
        for peer in tunnel.peers
        if peer.endpoint is not None
        and (way := ways.get(peer.endpoint.host)) is not None
        and _is_outside(way, tunnel)
    }
    found = probe(targets.values(), tunnel.mark)
    return {host: found[target] for host, target in targets.items() if target in found}


def _is_outside(way: Way, tunnel: Tunnel) -> bool:
    return bool(way.device) and way.device != tunnel.name and not way.is_local and way.mtu < 65536


def _probes(kernel: Network, version: int, wanted: Sequence[IPNetwork]) -> tuple[Way, ...]:
    """Of a family that the tunnel carries everything of, to what it does carry: ExcludedIPs may
    hold one of these."""
    networks = [network for network in wanted if network.version == version]
    addresses = [ip_address(text) for text in ANYWHERE[version]]
    inside = [address for address in addresses if any(address in network for network in networks)]
    return tuple(kernel.way(str(address)) for address in inside or addresses)


def _servers(location: Location) -> list[str]:
    """Those of the file that programs in the tunnel's namespace have."""
    own = dns.ETC / "netns" / (location.netns or "") / "resolv.conf"
    path = own if location.netns and own.exists() else dns.ETC / "resolv.conf"
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    return [server for server in dict.fromkeys(dns.servers_in(text)) if _is_address(server)]


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return "%" not in text
