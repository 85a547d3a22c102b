"""The network outside has one family only, or none but link-local addresses."""

from __future__ import annotations

import pytest

from tools.lab.lab import PORT, Lab, Side, Tunnel
from tools.lab.namespaces import add_address, cable
from tools.lab.stream import SOON, Stream
from tools.lab.traffic import exchange, ping

pytestmark = pytest.mark.pywgd_only  # sources that are gone are noticed, zones are shown
BYTES = 4 << 20


def tunnel_over(lab: Lab, addresses: tuple[str, str], endpoints: tuple[str, str | None]) -> Tunnel:
    """Both sides with only these addresses outside; an endpoint is said where its zone is known."""
    spaces = lab.namespace("a"), lab.namespace("b")
    for space in spaces:
        space.run("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0")
    cable((spaces[0], "veth", [addresses[0]]), (spaces[1], "veth", [addresses[1]]))
    sides = [lab.side(None, number, space) for number, space in zip((1, 2), spaces, strict=True)]
    for here, there, endpoint in zip(sides, sides[::-1], endpoints, strict=True):
        here.daemon.setconf(here.interface_section() + there.peer_section())
        if endpoint:
            name, key = here.daemon.name, there.key.public
            here.namespace.run("wg", "set", name, "peer", key, "endpoint", endpoint)
        here.daemon.up(f"{here.inner4}/24")
    return Tunnel(sides[0], sides[1], None, 6)


def without_the_other_family(side: Side, family: int) -> None:
    if family == 4:
        side.namespace.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    else:
        side.namespace.ip("-4", "address", "flush", "dev", "veth")
        side.namespace.ip("-4", "address", "flush", "dev", "lo")


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4-only", "IPv6-only"])
def test_hosts_with_one_family_outside_talk_and_follow_each_other(lab: Lab, family: int) -> None:
    a, b = lab.cabled()
    sides = [lab.side(None, 1, a), lab.side(None, 2, b)]
    for side in sides:
        without_the_other_family(side, family)
    for one, other, outer in ((sides[0], sides[1], family), (sides[1], sides[0], None)):
        one.daemon.setconf(one.interface_section() + other.peer_section(outer=outer))
        one.daemon.up(f"{one.inner4}/24")
    exchange(a, b, "10.99.0.2", BYTES, BYTES, seconds=30)
    net, length = ("192.0.2.", 24) if family == 4 else ("2001:db8::", 64)
    with Stream(a, b, "10.99.0.2") as there, Stream(b, a, "10.99.0.1") as back:
        there.flows()
        back.flows()
        a.run("sysctl", "-qw", "net.ipv4.conf.veth.promote_secondaries=1")
        add_address(a, "veth", f"{net}77/{length}")
        a.ip("address", "delete", f"{net}1/{length}", "dev", "veth")
        there.flows(SOON)
        back.flows(SOON)
    assert f"{net}77" in sides[1].daemon.peer(sides[0].key.public)["endpoint"]


OUT = "type filter hook output priority 0;"


def test_link_local_endpoints_carry_the_tunnel_and_are_shown_with_their_zone(lab: Lab) -> None:
    tunnel = tunnel_over(lab, ("fe80::a/64", "fe80::b/64"), (f"[fe80::b%veth]:{PORT}", None))
    a, b = tunnel.a, tunnel.b
    ping(a.namespace, b.inner4, 1)
    exchange(b.namespace, a.namespace, a.inner4, BYTES, BYTES, seconds=30)
    # b learnt where a is by hearing it; the zone is b's own.
    shown = b.namespace.run("wg", "show", b.daemon.name, "endpoints").split()[1]
    assert shown == f"[fe80::a%veth]:{PORT}"
    # The same address on another cable is another host. What a heard from b meanwhile, such as a
    # keepalive, would lead it back.
    b.namespace.nft(f"table inet mute {{ chain out {{ {OUT} udp sport {PORT} drop; }}; }}")
    cable((a.namespace, "other", ["fe80::a/64"]), (lab.namespace("c"), "veth", ["fe80::b/64"]))
    with Stream(a.namespace, b.namespace, b.inner4) as stream:
        for zone, is_b in (("veth", True), ("other", False), ("veth", True)):
            place = f"[fe80::b%{zone}]:{PORT}"
            a.namespace.run("wg", "set", a.daemon.name, "peer", b.key.public, "endpoint", place)
            if is_b:
                stream.flows(SOON)
            else:
                assert stream.is_silent(0.1)
