"""The packet filters in the way of a tunnel, and the table of connections. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pywg.doctor.facts import Host, Tunnel
from pywg.doctor.finding import Finding, error, note, ok, warning
from pywg.doctor.packet_filter import Packet, Ruleset, doubtful, dropping

#: A part of what the table of connections holds.
_NEARLY_FULL = 0.95


def conntrack(host: Host) -> Iterator[Finding]:
    if host.conntrack is None:
        return
    count, most = host.conntrack
    if most and count >= most * _NEARLY_FULL:
        yield warning(
            "conntrack-full",
            "the table of connections is full: new ones are dropped",
            f"net.netfilter.nf_conntrack_count = {count}, nf_conntrack_max = {most}",
            f"sysctl -w net.netfilter.nf_conntrack_max={most * 4}",
        )


def judge(tunnel: Tunnel, ruleset: Ruleset, devices: dict[str, str]) -> Iterator[Finding]:
    """``devices``: by which device each endpoint is reached, by its address."""
    found = [
        *_incoming(tunnel, ruleset),
        *_outgoing(tunnel, ruleset, devices),
        *_forwarded(tunnel, ruleset),
    ]
    yield from found
    if not found:
        yield ok("firewall", "no rule of nftables is seen to drop the tunnel's datagrams")


def _incoming(tunnel: Tunnel, ruleset: Ruleset) -> Iterator[Finding]:
    """New ones, where peers come first; else only what answers ours has to come in."""
    port = tunnel.listen_port
    if not port:
        return
    state = "new" if tunnel.is_server else "established"
    told: set[str] = set()
    for family in (4, 6):
        packet = {
            **_datagram(family),
            "dport": port,
            "ct state": state,
            "not iifname": ("lo", tunnel.name),
        }
        for chain in dropping(ruleset, "input", packet):
            if chain in told:
                continue
            told.add(chain)
            yield warning(
                "firewall-input",
                "the firewall drops what peers send to this host"
                if state == "new"
                else "the firewall drops what peers answer",
                f"nft list chain {chain}: UDP to port {port}, {state}",
                f"nft insert rule {chain} udp dport {port} accept",
            )
        if state == "new":
            for chain in doubtful(ruleset, "input", packet):
                if chain not in told:
                    told.add(chain)
                    yield note(
                        "firewall-input-unsure",
                        f"whether the firewall lets UDP to port {port} in cannot be said here",
                        f"nft list chain {chain}: its policy is to drop",
                        f"nft insert rule {chain} udp dport {port} accept",
                    )


def _outgoing(tunnel: Tunnel, ruleset: Ruleset, devices: dict[str, str]) -> Iterator[Finding]:
    told: set[str] = set()
    for peer in tunnel.peers:
        if peer.endpoint is None:
            continue
        host = peer.endpoint.host
        packet: dict[str, Any] = {
            **_datagram(6 if ":" in host else 4),
            "daddr": host.partition("%")[0],
            "dport": peer.endpoint.port,
            "mark": tunnel.mark,
            "ct state": "new",
        }
        if host in devices:
            packet["oifname"] = devices[host]
        for hook in ("output", "postrouting"):
            for chain in dropping(ruleset, hook, packet):
                if chain not in told:
                    told.add(chain)
                    yield error(
                        "firewall-output",
                        f"{peer.label}: the firewall lets nothing out to its endpoint",
                        f"nft list chain {chain}: UDP to {peer.endpoint}",
                        _unblocking(chain)
                        or f"nft insert rule {chain} udp dport {peer.endpoint.port} accept",
                    )


def _unblocking(chain: str) -> str:
    """A kill switch of ours has a command of its own."""
    table = chain.split(" ")[1]
    name = table.removeprefix("pywg-kill-")
    return f"pywg unblock {name}" if name != table else ""


def _forwarded(tunnel: Tunnel, ruleset: Ruleset) -> Iterator[Finding]:
    """From clients to what lies behind a server."""
    if not tunnel.is_server:
        return
    told: set[str] = set()
    for family in (4, 6):
        packet: Packet = {**_datagram(family), "iifname": tunnel.name, "ct state": "new"}
        for chain in dropping(ruleset, "forward", packet):
            if chain not in told:
                told.add(chain)
                yield note(
                    "firewall-forward",
                    "the firewall lets nothing of the clients through to other networks",
                    f'nft list chain {chain}: iifname "{tunnel.name}"',
                    f'nft insert rule {chain} iifname "{tunnel.name}" accept',
                )


def translation(tunnel: Tunnel, ruleset: Ruleset, *, forwards: bool) -> Iterator[Finding]:
    """Private addresses of clients mean nothing on the Internet."""
    clients = [net for peer in tunnel.peers for net in peer.networks if net.num_addresses == 1]
    private = [net for net in clients if net.version == 4 and net.is_private]
    if not tunnel.is_server or not forwards or len(private) < 2 or ruleset.translates:
        return
    yield note(
        "no-nat",
        "clients do not reach the Internet through this host: nobody translates their addresses",
        "net.ipv4.ip_forward = 1, and no rule of nftables masquerades",
        "nft 'table ip nat { chain out { type nat hook postrouting priority srcnat; "
        f'iifname "{tunnel.name}" masquerade; }} }}\'',
    )


def _datagram(family: int) -> dict[str, Any]:
    return {"family": family, "l4proto": "udp"}
