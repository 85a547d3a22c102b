"""The way of a tunnel's datagrams: names, routes, MTU, and what the device on it offloads. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pywg.doctor.facts import Around, Device, Peer, Tunnel
from pywg.doctor.finding import Finding, error, note, ok, warning
from pywg.host.path_probe import Heard

#: IP, UDP and WireGuard around a packet (whitepaper section 5.4.6).
OVERHEAD = {4: 60, 6: 80}
#: What `up` takes off, whatever the family.
OVERHEAD_MOST = 80
_CHECKSUM = frozenset({"tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6"})


def judge(tunnel: Tunnel, around: Around) -> Iterator[Finding]:
    yield from names(tunnel)
    yield from ways(tunnel, around)
    yield from answers(tunnel, around)
    yield from mtu(tunnel, around)
    yield from features(around)


def names(tunnel: Tunnel) -> Iterator[Finding]:
    failed = [peer for peer in tunnel.peers if peer.problem]
    for peer in failed:
        tell = error if peer.is_hopeless else warning
        host = peer.source.rpartition(":")[0]
        yield tell(
            "name-unknown" if peer.is_hopeless else "name-unanswered",
            f"{peer.label}: the name of its endpoint has no address, so nothing is sent to it",
            f"{peer.source}: {peer.problem}",
            f"getent ahosts {host}, then the name in Endpoint, or /etc/resolv.conf",
        )
    if not failed and any(peer.source for peer in tunnel.peers):
        yield ok("names", "every endpoint has an address")


def ways(tunnel: Tunnel, around: Around) -> Iterator[Finding]:
    problems = False
    for peer in _with_endpoint(tunnel):
        assert peer.endpoint is not None  # noqa: S101 - see _with_endpoint
        way = around.ways.get(peer.endpoint.host)
        if way is None:
            continue
        asked = f"ip route get {peer.endpoint.host}"
        if way.problem:
            problems = True
            yield error(
                "no-route",
                f"{peer.label}: there is no way to its endpoint",
                f"{asked}: {way.problem}",
                "a route there, such as: ip route add default via GATEWAY",
            )
        elif way.device == tunnel.name:
            problems = True
            yield error(
                "endpoint-in-tunnel",
                f"{peer.label}: its endpoint lies inside the tunnel, which cannot carry itself",
                f"{asked}{f' mark {tunnel.mark}' if tunnel.mark else ''}: dev {way.device}",
                f"#!pywg ExcludedIPs = {peer.endpoint.host} in its [Peer], or its AllowedIPs "
                "without that address",
            )
        elif _is_tunnel(way.device, around):
            yield note(
                "endpoint-in-vpn",
                f"{peer.label}: its endpoint is reached through another tunnel",
                f"{asked}: dev {way.device}",
            )
    if around.ways and not problems:
        yield ok("routes", "there is a way to every endpoint")


def answers(tunnel: Tunnel, around: Around) -> Iterator[Finding]:
    """What came back for datagrams to the endpoints, beside their size. EPERM is this host's own
    firewall, which is judged by its rules."""
    for peer in _with_endpoint(tunnel):
        assert peer.endpoint is not None  # noqa: S101 - see _with_endpoint
        heard = around.heard.get(peer.endpoint.host, Heard())
        if heard.has_arrived:
            yield warning(
                "port-closed",
                f"{peer.label}: nobody listens at its endpoint",
                f"UDP to {peer.endpoint}: ICMP port unreachable",
                "the port in Endpoint, or ListenPort at the other end, where the tunnel has to run",
            )
        elif heard.problem not in ("", "EPERM"):
            yield warning(
                "unreachable",
                f"{peer.label}: somebody on the way says that its endpoint cannot be reached",
                f"UDP to {peer.endpoint}: {heard.problem}",
                f"look where: tracepath -n {peer.endpoint.host}",
            )


def mtu(tunnel: Tunnel, around: Around) -> Iterator[Finding]:
    """For each way that is narrower than what the tunnel sends at most."""
    if tunnel.mtu is None:
        return
    found = False
    for peer in _with_endpoint(tunnel):
        endpoint = peer.endpoint
        assert endpoint is not None  # noqa: S101 - see _with_endpoint
        path = path_mtu(endpoint.host, around)
        version = 6 if ":" in endpoint.host else 4
        needed = tunnel.mtu + OVERHEAD[version]
        if path is None or needed <= path:
            continue
        found = True
        heard = around.heard.get(endpoint.host)
        by = "a router on it says so" if heard is not None and heard.mtu == path else "its route"
        yield warning(
            "mtu-too-big",
            f"{peer.label}: the largest packets of the tunnel do not fit the way to it: they are "
            "cut, which is slow, or lost",
            f"MTU {tunnel.mtu} makes datagrams of {needed} bytes, the way to {endpoint.host} takes "
            f"{path} ({by})",
            f"MTU = {path - OVERHEAD_MOST} in [Interface]",
        )
    if not found and around.ways:
        yield ok("mtu", f"nothing says that an MTU of {tunnel.mtu} is too big for a way")


def path_mtu(host: str, around: Around) -> int | None:
    """The smallest that is known."""
    way, heard = around.ways.get(host), around.heard.get(host)
    known = [way.mtu if way is not None else 0, (heard.mtu or 0) if heard is not None else 0]
    return min((mtu for mtu in known if mtu), default=None)


def features(around: Around) -> Iterator[Finding]:
    """Of the devices that datagrams leave by."""
    used = {way.device for way in around.ways.values()}
    for device in around.devices:
        if device.link.name in used and device.features is not None:
            yield from _features(device, device.features)


def _features(device: Device, on: frozenset[str]) -> Iterator[Finding]:
    """Of GRO only for a card, which has no kind: a veth passes trains on whole without it."""
    name = device.link.name
    if name != "lo" and not on & _CHECKSUM:
        yield note(
            "no-checksum-offload",
            f"{name} makes no checksums, so it takes no trains of datagrams: slower",
            f"ethtool -k {name}: tx-checksumming: off",
            f"ethtool -K {name} tx on",
        )
    elif "tx-generic-segmentation" not in on:
        yield note(
            "no-gso",
            f"{name} takes no trains of datagrams whole: slower",
            f"ethtool -k {name}: generic-segmentation-offload: off",
            f"ethtool -K {name} gso on",
        )
    if not device.link.kind and name != "lo" and "rx-gro" not in on:
        yield note(
            "no-gro",
            f"{name} hands up every datagram by itself: slower",
            f"ethtool -k {name}: generic-receive-offload: off",
            f"ethtool -K {name} gro on",
        )


def _with_endpoint(tunnel: Tunnel) -> list[Peer]:
    return [peer for peer in tunnel.peers if peer.endpoint is not None]


def _is_tunnel(device: str, around: Around) -> bool:
    return any(item.link.name == device and is_vpn(item) for item in around.devices)


def is_vpn(device: Device) -> bool:
    """Whether packets go inside others there, by its kind."""
    return device.link.kind in ("tun", "wireguard", "ppp", "ipip", "gre", "sit", "xfrm", "vti")
