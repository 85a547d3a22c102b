"""What the kernel's driver sets on its device holds for ours: nothing enters the tunnel that nobody
sent, a hub sends no redirects, and who says unreachable is a host that is there.

    a  10.99.0.1 ---- the tunnel ---- 10.99.0.2  b, a hub that forwards;  10.99.0.3 is nobody
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lab import programs
from tools.lab.daemon import Daemon
from tools.lab.lab import Lab, Tunnel
from tools.lab.namespaces import Namespace, add_address
from tools.lab.traffic import ping, ping_attempt
from tools.lab.wire import Wire

pytestmark = pytest.mark.pywgd_only

SETTINGS = Path("/proc/sys/net")


def setting(namespace: Namespace, name: str) -> str:
    with namespace.entered():
        return (SETTINGS / name).read_text().strip()


def set_to(namespace: Namespace, name: str, value: str) -> None:
    with namespace.entered():
        (SETTINGS / name).write_text(value)


def forwards(namespace: Namespace) -> None:
    set_to(namespace, "ipv4/ip_forward", "1")
    set_to(namespace, "ipv6/conf/all/forwarding", "1")


# Nothing that nobody sent.


def sent_packets(daemon: Daemon) -> int:
    link = daemon.namespace.link(daemon.name)
    assert link is not None
    return int(link["stats64"]["tx"]["packets"])


def with_everything(lab: Lab, namespace: Namespace, **options: object) -> Daemon:
    """A peer that takes any packet, and no address."""
    side = lab.side(None, 1, namespace, **options)
    side.daemon.setconf(
        side.interface_section()
        + f"[Peer]\nPublicKey = {lab.key().public}\nAllowedIPs = 0.0.0.0/0, ::/0\n"
        "Endpoint = 192.0.2.2:51820\n"
    )
    return side.daemon


def addresses(daemon: Daemon) -> str:
    return daemon.namespace.ip("-o", "address", "show", "dev", daemon.name)


@pytest.mark.slow
def test_an_interface_without_address_is_silent_for_twenty_seconds(lab: Lab) -> None:
    """On a host, on a router, with several threads, after down and up, and after IPv6 was lost with
    a small MTU."""
    plain, router, threads, again, small = (lab.namespace("s") for _ in range(5))
    forwards(router)
    daemons = {
        "plain": with_everything(lab, plain),
        "router": with_everything(lab, router),
        "threads": with_everything(lab, threads, environment={"PYWG_THREADS": "3"}),
        "again": with_everything(lab, again),
        "small": with_everything(lab, small),
    }
    wires = {kind: Wire(daemon.namespace) for kind, daemon in daemons.items()}
    daemons["again"].up()
    daemons["again"].namespace.ip("link", "set", daemons["again"].name, "down")
    daemons["small"].up(mtu=1000)
    daemons["small"].namespace.ip("link", "set", daemons["small"].name, "down")
    daemons["small"].namespace.ip("link", "set", daemons["small"].name, "mtu", "1420")
    for daemon in daemons.values():
        daemon.up()
    time.sleep(20)  # nothing is to happen: there is no event to wait for
    for kind, daemon in daemons.items():
        assert addresses(daemon) == "", kind
        assert sent_packets(daemon) == 0, kind
        assert wires[kind]["initiation_output"] == 0, kind


def test_an_interface_makes_itself_no_address_and_joins_no_group(lab: Lab) -> None:
    host, router = lab.namespace("h"), lab.namespace("r")
    forwards(router)
    for namespace in (host, router):
        daemon = with_everything(lab, namespace)
        daemon.up()
        assert addresses(daemon) == ""
        groups = namespace.ip("-6", "maddress", "show", "dev", daemon.name)
        assert "ff02::2" not in groups, groups
        # One that is given is there, and goes on after the link was down.
        add_address(namespace, daemon.name, "fe80::1/64")
        assert "fe80::1/64" in addresses(daemon)


def test_where_proc_sys_cannot_be_written_there_is_no_address_either(lab: Lab) -> None:
    read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"
    wrapper = ("unshare", "--mount", "sh", "-c", f'{read_only} && exec "$@"', "sh")
    daemon = with_everything(lab, lab.namespace("c"), wrapper=wrapper)
    daemon.up()
    assert addresses(daemon) == ""
    assert setting(daemon.namespace, f"ipv4/conf/{daemon.name}/send_redirects") == "0"
    assert setting(daemon.namespace, "ipv4/conf/all/send_redirects") == "1"
    assert "net.ipv4.conf.all.send_redirects cannot be set to 0" in daemon.log()
    assert f"net.ipv6.conf.{daemon.name}.accept_ra cannot be set to 0" in daemon.log()


def advertisement(prefix: bytes) -> bytes:
    """A router with a prefix for everybody, an MTU of 1300 and an hour to live (RFC 4861)."""
    option = bytes([3, 4, 64, 0xC0]) + (3600).to_bytes(4) * 2 + bytes(4) + prefix + bytes(8)
    mtu = bytes([5, 1, 0, 0]) + (1300).to_bytes(4)
    return bytes([134, 0, 0, 0, 64, 0]) + (3600).to_bytes(2) + bytes(8) + option + mtu


def test_router_advertisements_from_inside_configure_nothing(lab: Lab) -> None:
    tunnel = lab.tunnel()
    a, b = tunnel.a, tunnel.b
    b.daemon.set("peer", a.key.public, "allowed-ips", "::/0,10.99.0.1/32")
    a.daemon.set("peer", b.key.public, "allowed-ips", "::/0,10.99.0.2/32")
    add_address(b.namespace, b.daemon.name, "fe80::b/64")
    tunnel.session()
    before = a.namespace.ip("-6", "route"), addresses(a.daemon)
    wire = Wire(a.namespace, arrived=f'iifname "{a.daemon.name}" icmpv6 type nd-router-advert')
    with b.namespace.entered():
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        index = socket.if_nametoindex(b.daemon.name)
    with raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        raw.bind(("fe80::b", 0, 0, index))
        for target in ("ff02::1", a.inner6):
            raw.sendto(advertisement(bytes.fromhex("20010db800aa0000")), (target, 0, 0, index))
    ping(a.namespace, b.inner6, 1)  # what was sent before has arrived
    assert wire["arrived"] == 2
    assert (a.namespace.ip("-6", "route"), addresses(a.daemon)) == before
    assert setting(a.namespace, f"ipv6/conf/{a.daemon.name}/mtu") == "1420"


# A hub.


@pytest.fixture
def hub(lab: Lab) -> Iterator[tuple[Lab, Tunnel]]:
    """b forwards; a sends all of the net to it."""
    tunnel = lab.tunnel()
    forwards(tunnel.b.namespace)
    net = "10.99.0.0/24,fd99::/64"
    tunnel.a.daemon.set("peer", tunnel.b.key.public, "allowed-ips", net)
    tunnel.session()
    yield lab, tunnel


def test_a_hub_sends_no_redirects(hub: tuple[Lab, Tunnel]) -> None:
    lab, tunnel = hub
    third = lab.key()
    # The third client is behind the same cable, and never answers.
    tunnel.b.daemon.set("peer", third.public, "allowed-ips", "10.99.0.3/32,fd99::3/128")
    tunnel.b.daemon.set("peer", third.public, "endpoint", f"{tunnel.a.outer4}:9")
    wire = Wire(
        tunnel.b.namespace,
        redirects4="icmp type redirect",
        redirects6="icmpv6 type nd-redirect",
    )
    for address in ("10.99.0.3", "fd99::3"):
        assert "100% packet loss" in ping_attempt(tunnel.a.namespace, address, 3).stdout
    counts = wire.counts()
    assert (counts["redirects4"], counts["redirects6"]) == (0, 0)
    # Other interfaces of the host keep their own value.
    assert setting(tunnel.b.namespace, "ipv4/conf/veth/send_redirects") == "1"


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("why", ["no-peer", "no-endpoint"])
def test_unreachable_comes_from_the_hub_that_says_it(
    hub: tuple[Lab, Tunnel], family: int, why: str
) -> None:
    lab, tunnel = hub
    absent, own = ("10.99.0.3", tunnel.b.inner4) if family == 4 else ("fd99::3", tunnel.b.inner6)
    if why == "no-endpoint":
        nets = "10.99.0.3/32,fd99::3/128"
        tunnel.b.daemon.set("peer", lab.key().public, "allowed-ips", nets)
    answer = ping_attempt(tunnel.a.namespace, absent, seconds=3)
    assert f"From {own} icmp_seq=" in answer.stdout, answer.stdout
    assert "nreachable" in answer.stdout


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_a_host_behind_the_hub_is_told_by_its_own_gateway(
    hub: tuple[Lab, Tunnel], family: int
) -> None:
    """As the kernel does: the address on the way back to the sender."""
    _, tunnel = hub
    # a as a host of b's local network, on the cable.
    absent, gateway = (
        ("10.99.0.3", tunnel.b.outer4) if family == 4 else ("fd99::3", tunnel.b.outer6)
    )
    tunnel.a.namespace.ip("route", "add", absent, "via", gateway)
    source = tunnel.a.outer4 if family == 4 else tunnel.a.outer6
    answer = ping_attempt(tunnel.a.namespace, absent, seconds=3, options=("-I", source))
    assert f"From {gateway} icmp_seq=" in answer.stdout, answer.stdout


def test_a_local_sender_is_told_by_its_own_address(lab: Lab) -> None:
    tunnel = lab.tunnel()
    for absent, own in (("10.99.0.200", tunnel.a.inner4), ("fd99::200", tunnel.a.inner6)):
        answer = ping_attempt(tunnel.a.namespace, absent, seconds=3)
        assert f"From {own} icmp_seq=" in answer.stdout, answer.stdout


# A port of its own.


def test_listen_port_zero_asks_for_another_port_and_the_session_goes_on(lab: Lab) -> None:
    """As the kernel: a NAT that has lost a flow is left so. The same port again changes nothing."""
    tunnel = lab.tunnel()
    tunnel.session()
    ports = [port_of(tunnel.a.daemon)]
    wire = Wire(tunnel.a.namespace)
    for _ in range(3):
        tunnel.a.daemon.set("listen-port", "0")
        ports.append(port_of(tunnel.a.daemon))
        tunnel.session()
    assert "0" not in ports and len(set(ports)) == len(ports), ports
    tunnel.a.daemon.set("listen-port", ports[-1])
    assert port_of(tunnel.a.daemon) == ports[-1]
    assert tunnel.b.daemon.peer(tunnel.a.key.public)["endpoint"].endswith(f":{ports[-1]}")
    assert wire["initiation_output"] == 0


def port_of(daemon: Daemon) -> str:
    return daemon.wg("show", daemon.name, "listen-port").strip()


# Other namespaces.


@pytest.mark.parametrize("how", ["--netns", "--socket-netns"])
def test_an_interface_that_up_moves_is_set_where_it_comes_to(
    lab: Lab, tmp_path: Path, how: str
) -> None:
    home, other = lab.namespace("h"), lab.namespace("o")
    name = lab.name("m")
    path = tmp_path / f"{name}.conf"
    path.write_text(f"[Interface]\nPrivateKey = {lab.key().private}\n")
    path.chmod(0o600)
    answer = programs.pywg(home, "up", how, other.name, str(path))
    assert answer.returncode == 0, answer.stderr
    try:
        namespace = other if how == "--netns" else home
        assert namespace.ip("-o", "address", "show", "dev", name) == ""
        assert setting(namespace, f"ipv6/conf/{name}/accept_ra") == "0"
        assert setting(namespace, "ipv4/conf/all/send_redirects") == "0"
    finally:
        assert programs.pywg(home, "down", name).returncode == 0


# The device itself.

#: The kernel's: wg_setup and wg_open in drivers/net/wireguard/device.c, and the defaults of
#: alloc_netdev. What differs is in docs/USAGE.md, with its reason.
KERNEL = {
    "link_type": "none",
    "flags": {"POINTOPOINT", "NOARP", "UP", "LOWER_UP"},
    "mtu": 1420,
    "operstate": "UNKNOWN",
    "inet6_addr_gen_mode": "none",
    "promiscuity": 0,
    "txqlen": 1000,
    "qdisc": "noqueue",
    "kind": "wireguard",
}
DIFFERS = {"txqlen", "qdisc", "kind"}


def test_the_device_is_as_the_kernels_but_for_what_is_listed(lab: Lab) -> None:
    daemon = with_everything(lab, lab.namespace("d"))
    daemon.up()
    link = daemon.namespace.link(daemon.name)
    assert link is not None
    ours = {
        **{key: link.get(key) for key in KERNEL},
        "flags": set(link["flags"]),
        "kind": link["linkinfo"]["info_kind"],
    }
    assert {key for key, value in KERNEL.items() if ours[key] != value} == DIFFERS, ours
    for name, value in {
        f"ipv4/conf/{daemon.name}/send_redirects": "0",
        "ipv4/conf/all/send_redirects": "0",
        f"ipv6/conf/{daemon.name}/addr_gen_mode": "1",
        f"ipv6/conf/{daemon.name}/accept_ra": "0",
    }.items():
        assert setting(daemon.namespace, name) == value, name
