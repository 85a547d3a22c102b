r"""What fits changes under way: a narrow link behind a router, and the MTU of the tunnel itself.

    +----------------------+      +-------------------+      +----------------------+
    | a   192.168.1.2     ======== .1     r       .1 ========  192.168.2.2        b |
    |     2001:db8:1::2    |      |        1280 bytes -->    |  2001:db8:2::2       |
    +----------------------+      +-------------------+      +----------------------+

A link that is narrow at both ends is in test_stepdown.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.lab.lab import Lab, Tunnel
from tools.lab.namespaces import Namespace, cable
from tools.lab.router import Router
from tools.lab.stream import SOON, Stream
from tools.lab.traffic import exchange, ping

WIDE, NARROW = 1500, 1280
BYTES = 4 << 20


class Path3:
    """The drawing, with the tunnel through it."""

    def __init__(self, lab: Lab, outer: int) -> None:
        self.outer = outer
        self.router = Router(lab).namespace
        sides = []
        for number, role in ((1, "a"), (2, "b")):
            namespace = lab.namespace(role)
            net4, net6 = f"192.168.{number}", f"2001:db8:{number}:"
            cable(
                (namespace, "veth", [f"{net4}.2/24", f"{net6}:2/64"]),
                (self.router, f"to_{role}", [f"{net4}.1/24", f"{net6}:1/64"]),
            )
            namespace.ip("route", "add", "default", "via", f"{net4}.1")
            namespace.ip("-6", "route", "add", "default", "via", f"{net6}:1")
            side = lab.side(None, number, namespace)
            side.outer4, side.outer6 = f"{net4}.2", f"{net6}:2"
            sides.append(side)
        self.tunnel = Tunnel(sides[0], sides[1], None, outer)
        for here, there in (sides, sides[::-1]):
            here.daemon.setconf(here.interface_section() + there.peer_section(outer=outer))
            here.daemon.up(f"{here.inner4}/24", f"{here.inner6}/64")

    def narrow(self, mtu: int) -> None:
        """The link between router and b; a sees nothing of it."""
        self.router.ip("link", "set", "to_b", "mtu", str(mtu))
        self.tunnel.b.namespace.ip("link", "set", "veth", "mtu", str(mtu))

    def reassembled(self) -> int:
        """Datagrams that reached b in pieces."""
        net = Path(f"/proc/{self.tunnel.b.daemon.pid}/net")
        if self.outer == 6:
            rows = (line.split() for line in (net / "snmp6").read_text().splitlines())
            return int(dict(rows)["Ip6ReasmOKs"])
        names, values = [
            line.split() for line in (net / "snmp").read_text().splitlines() if line[:3] == "Ip:"
        ]
        return int(dict(zip(names, values, strict=True))["ReasmOKs"])


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
def test_a_narrow_link_behind_a_router_carries_what_a_wide_one_does(lab: Lab, outer: int) -> None:
    """The router fragments IPv4, which we send without DF; for IPv6 it says how much fits, and the
    kernel here fragments, but no train."""
    path = Path3(lab, outer)
    path.narrow(NARROW)
    tunnel = path.tunnel
    tunnel.session()
    before = path.reassembled()
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, BYTES, BYTES, seconds=30)
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner6, BYTES, BYTES, seconds=30)
    ping(tunnel.a.namespace, tunnel.b.inner4, 1, size=1392, options=("-M", "do"))
    assert path.reassembled() > before
    if outer == 6:
        route = tunnel.a.namespace.ip("-6", "route", "get", tunnel.b.outer6)
        assert f"mtu {NARROW}" in route, route


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
def test_a_stream_goes_on_when_the_link_narrows_and_widens(lab: Lab, outer: int) -> None:
    path = Path3(lab, outer)
    path.tunnel.session()
    a, b = path.tunnel.a, path.tunnel.b
    there = Stream(a.namespace, b.namespace, b.inner4, size=1380)
    back = Stream(b.namespace, a.namespace, a.inner6, size=1360)
    with there, back:
        for mtu in (WIDE, NARROW, 1400, WIDE, NARROW):
            path.narrow(mtu)
            there.flows(SOON)
            back.flows(SOON)


def test_a_stream_goes_on_while_the_mtu_of_the_tunnel_changes(lab: Lab) -> None:
    tunnel = lab.tunnel()
    a, b = tunnel.a, tunnel.b

    def set_mtu(namespace: Namespace, name: str, mtu: int) -> None:
        namespace.ip("link", "set", name, "mtu", str(mtu))

    # Small enough for the narrowest, by IPv4: the kernel takes IPv6 away below 1280.
    there = Stream(a.namespace, b.namespace, b.inner4, size=500)
    back = Stream(b.namespace, a.namespace, a.inner4, size=500)
    with there, back:
        for _ in range(3):
            for mtu in (576, 1279, 1420, 9000, 65535, 1421):
                for side in (a, b):
                    set_mtu(side.namespace, side.daemon.name, mtu)
                there.flows(SOON)
                back.flows(SOON)
    ping(a.namespace, b.inner4, 1, size=1421 - 28, options=("-M", "do"))
    exchange(a.namespace, b.namespace, b.inner4, BYTES, BYTES, seconds=30)
