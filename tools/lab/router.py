"""A namespace between others: forwards, translates addresses as a home router does, and forgets
what it translated."""

from __future__ import annotations

from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace


class Router:
    def __init__(self, lab: Lab, role: str = "r") -> None:
        self.namespace: Namespace = lab.namespace(role)
        self.namespace.run(
            "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"
        )

    def translate(self, device: str, to: str) -> None:
        """Whatever leaves by this device does so from here: an IPv4 address, with ports if wanted.
        From now on, for new flows; `forget` makes all of them new."""
        self.namespace.nft(
            "add table ip nat\ndelete table ip nat\ntable ip nat {\nchain out {\n"
            "type nat hook postrouting priority srcnat\n"
            f"oifname {device} meta l4proto udp snat to {to}\n}}\n}}\n"
        )

    def forward_port(self, device: str, port: int, to: str) -> None:
        """What comes in by this device for a UDP port goes to a host behind us."""
        self.namespace.nft(
            "table ip portforward {\nchain in {\ntype nat hook prerouting priority dstnat\n"
            f"iifname {device} udp dport {port} dnat to {to}\n}}\n}}\n"
        )

    def refuse_strangers(self, device: str) -> None:
        """Nobody gets in by this device who was not spoken to from inside."""
        chains = "".join(
            f"chain {hook} {{\ntype filter hook {hook} priority 0\n"
            f"iifname {device} meta l4proto udp ct state new drop\n}}\n"
            for hook in ("input", "forward")
        )
        self.namespace.nft(f"table ip wall {{\n{chains}}}\n")

    def kill(self, port: int) -> None:
        """Of the flows from a UDP port inside nothing passes any more, as behind a router that has
        forgotten them and refuses to know them anew while packets come."""
        self.namespace.nft(
            "table ip killed {\nchain forward {\ntype filter hook forward priority 0\n"
            f"udp sport {port} drop\nudp dport {port} drop\n}}\n}}\n"
        )

    def remember_for(self, seconds: int) -> None:
        """How long a translation lives without packets; routers at home have 30 s and more."""
        for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
            self.namespace.run("sysctl", "-qw", f"net.netfilter.{name}={seconds}")

    def forget(self) -> None:
        """As after a restart: no translation is known any more."""
        with self.namespace.entered(), NFCTSocket() as conntrack:
            conntrack.flush()
