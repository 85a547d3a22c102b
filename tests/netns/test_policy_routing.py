"""Routes that send everything into the tunnel: the daemon's own packets stay out of it by their
mark, and where they do not, nothing runs hot; answers leave from the address written to."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest

from tools.lab.daemon import Daemon
from tools.lab.lab import PORT, Lab, Tunnel
from tools.lab.namespaces import add_address, cable
from tools.lab.stream import SOON, Stream
from tools.lab.traffic import exchange, ping, ping_attempt
from tools.lab.waiting import wait_until
from tools.lab.wire import Wire

MARK = "51820"
# Addresses behind b that only the tunnel leads to.
FAR4, FAR6 = "203.0.113.7", "2001:db8:7::7"
# The kernel's own selftest allows this much for packets that run in a circle.
LOOP_BYTES_MAX = 70_000
BYTES = 4 << 20


def everything_through(tunnel: Tunnel) -> None:
    """a sends every packet without the mark into its tunnel, also those to b's outer address."""
    for address in (f"{FAR4}/32", f"{FAR6}/128"):
        add_address(tunnel.b.namespace, tunnel.b.daemon.name, address)
    name = tunnel.a.daemon.name
    tunnel.a.daemon.set("peer", tunnel.b.key.public, "allowed-ips", "0.0.0.0/0,::/0")
    for family in ("-4", "-6"):
        tunnel.a.namespace.ip(family, "route", "add", "default", "dev", name, "table", MARK)
        tunnel.a.namespace.ip(family, "rule", "add", "not", "fwmark", MARK, "table", MARK)


def cpu_seconds(daemon: Daemon) -> float:
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sent_bytes(tunnel: Tunnel) -> int:
    return int(tunnel.a.daemon.peer(tunnel.b.key.public)["tx"])


# The mark.


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
def test_with_a_mark_all_goes_through_the_tunnel_but_the_daemon_itself(
    lab: Lab, outer: int
) -> None:
    tunnel = lab.tunnel(outer=outer)
    tunnel.a.daemon.set("fwmark", MARK)
    everything_through(tunnel)
    name = tunnel.a.daemon.name
    wire = Wire(tunnel.a.namespace, looped=f'oifname "{name}" udp sport {PORT}')
    there = Stream(tunnel.a.namespace, tunnel.b.namespace, FAR4, source=tunnel.a.inner4)
    other = Stream(tunnel.a.namespace, tunnel.b.namespace, FAR6, source=tunnel.a.inner6)
    with there, other:
        there.flows()
        other.flows()
        # Even b's outer address: what is to it and bears no mark is inside.
        ping(tunnel.a.namespace, tunnel.b.outer4, 1)
        ping(tunnel.a.namespace, tunnel.b.outer6, 1)
        there.flows(SOON)
    assert wire["looped"] == 0
    assert wire["data_output"] > 0


@pytest.mark.pywgd_only
@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
def test_without_the_mark_packets_do_not_circle_and_with_it_the_session_goes_on(
    lab: Lab, outer: int
) -> None:
    tunnel = lab.tunnel(outer=outer)
    tunnel.a.daemon.set("fwmark", MARK)
    everything_through(tunnel)
    ping(tunnel.a.namespace, FAR4, 1)
    tunnel.a.daemon.set("fwmark", "off")
    wire = Wire(tunnel.a.namespace)
    sent, spent = sent_bytes(tunnel), cpu_seconds(tunnel.a.daemon)
    for address in (FAR4, FAR6):
        assert ping_attempt(tunnel.a.namespace, address).returncode != 0
    assert sent_bytes(tunnel) - sent < LOOP_BYTES_MAX
    assert cpu_seconds(tunnel.a.daemon) - spent < 0.5
    assert tunnel.a.daemon.drops()["routing_loop"] > 0
    tunnel.a.daemon.set("fwmark", MARK)
    ping(tunnel.a.namespace, FAR4, 1, seconds=SOON)
    assert wire["initiation_output"] <= 1


@pytest.mark.pywgd_only
@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
def test_an_endpoint_within_its_own_allowed_ips_does_not_run_hot(lab: Lab, outer: int) -> None:
    tunnel = lab.tunnel(outer=outer)
    tunnel.session()
    daemon, key = tunnel.a.daemon, tunnel.b.key.public
    daemon.set("peer", key, "allowed-ips", "0.0.0.0/0,::/0")
    where = tunnel.b.outer4 if outer == 4 else tunnel.b.outer6
    sent, spent = sent_bytes(tunnel), cpu_seconds(daemon)
    tunnel.a.namespace.ip("route", "add", where, "dev", daemon.name)
    for size in ("56", "3000"):  # also one that is fragmented inside
        options = ("-f", "-W", "1", "-c", "10", "-s", size)
        assert tunnel.a.namespace.attempt("ping", *options, tunnel.b.inner4).returncode != 0
    assert sent_bytes(tunnel) - sent < 2 * LOOP_BYTES_MAX
    assert cpu_seconds(daemon) - spent < 0.5
    tunnel.a.namespace.ip("route", "delete", where, "dev", daemon.name)
    ping(tunnel.a.namespace, tunnel.b.inner4, 1, seconds=SOON)


@pytest.mark.pywgd_only
def test_a_tunnel_within_the_tunnel_works_by_another_peer_of_the_same_interface(lab: Lab) -> None:
    tunnel = lab.tunnel()
    inner = lab.side(None, 3, tunnel.b.namespace)
    inner.daemon.setconf(
        f"[Interface]\nPrivateKey = {inner.key.private}\nListenPort = 5\n"
        f"[Peer]\nPublicKey = {tunnel.a.key.public}\nAllowedIPs = 10.98.0.1/32\n"
    )
    inner.daemon.up("10.98.0.2/24")
    add_address(tunnel.a.namespace, tunnel.a.daemon.name, "10.98.0.1/24")
    peer = ("peer", inner.key.public)
    tunnel.a.daemon.set(*peer, "allowed-ips", "10.98.0.2/32", "endpoint", f"{tunnel.b.inner4}:5")
    with Stream(tunnel.a.namespace, tunnel.b.namespace, "10.98.0.2", source="10.98.0.1") as stream:
        stream.flows()
        # Now its way leads through itself: it ends, and the other peer is none the worse.
        tunnel.a.daemon.set(*peer, "endpoint", "10.98.0.2:5")
        spent, started = cpu_seconds(tunnel.a.daemon), time.monotonic()
        ping(tunnel.a.namespace, tunnel.b.inner4, 20)
        wait_until(lambda: time.monotonic() > started + 1, "a second is over", every=0.05)
        assert cpu_seconds(tunnel.a.daemon) - spent < 0.6
        tunnel.a.daemon.set(*peer, "endpoint", f"{tunnel.b.inner4}:5")
        stream.flows()


def test_a_tunnel_of_another_interface_works_within_the_tunnel(lab: Lab) -> None:
    tunnel = lab.tunnel()
    outer = {"a": tunnel.a, "b": tunnel.b}
    inner = {role: lab.side(None, 7, side.namespace) for role, side in outer.items()}
    for role, other, net in (("a", "b", 1), ("b", "a", 2)):
        inner[role].daemon.setconf(
            f"[Interface]\nPrivateKey = {inner[role].key.private}\nListenPort = 5\n"
            f"[Peer]\nPublicKey = {inner[other].key.public}\nAllowedIPs = 10.98.0.0/24\n"
            f"Endpoint = [{outer[other].inner6}]:5\n"
        )
        inner[role].daemon.up(f"10.98.0.{net}/24", mtu=1340)
    a, b = tunnel.a.namespace, tunnel.b.namespace
    ping(a, "10.98.0.2", 1)
    exchange(a, b, "10.98.0.2", BYTES, BYTES, seconds=30)


# Source addresses.


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
def test_answers_leave_from_the_address_that_was_written_to(lab: Lab, outer: int) -> None:
    tunnel = lab.tunnel(outer=outer)
    # One more beside the first, and one of another interface than the answers leave by.
    beside, behind = (
        ("192.0.2.20", "198.51.100.9") if outer == 4 else ("2001:db8::20", "2001:db8:9::9")
    )
    add_address(tunnel.b.namespace, "veth", f"{beside}/{24 if outer == 4 else 64}")
    add_address(tunnel.b.namespace, "lo", f"{behind}/{32 if outer == 4 else 128}")
    via = tunnel.b.outer4 if outer == 4 else tunnel.b.outer6
    tunnel.a.namespace.ip("route", "add", behind, "via", via)
    first = via
    for address in (first, beside, behind, beside, first):
        endpoint = f"{address}:{PORT}" if outer == 4 else f"[{address}]:{PORT}"
        tunnel.a.daemon.set("peer", tunnel.b.key.public, "endpoint", endpoint)
        ping(tunnel.a.namespace, tunnel.b.inner4, 1, seconds=SOON)
        # Had the answer come from elsewhere, a would have followed it there.
        assert tunnel.a.daemon.peer(tunnel.b.key.public)["endpoint"] == endpoint


def second_way(tunnel: Tunnel) -> None:
    """A second cable; b has one address only, so a never follows it elsewhere."""
    a, b = tunnel.a.namespace, tunnel.b.namespace
    cable((a, "second", ["198.51.100.1/24"]), (b, "second", []))
    b.ip("route", "add", "198.51.100.0/24", "dev", "second")
    for namespace in (a, b):
        # Answers may come by another way than the kernel here would take.
        for name in ("all", "veth", "second"):
            namespace.run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")


def has_moved(sent: Wire, place: str, other: str) -> bool:
    """Between two looks, packets left from one address and none from the other."""
    before, after = sent.counts(), sent.counts()
    return after[place] > before[place] and after[other] == before[other]


@pytest.mark.pywgd_only
def test_a_better_route_takes_the_stream_over_and_its_end_gives_it_back(lab: Lab) -> None:
    tunnel = lab.tunnel()
    a, b = tunnel.a.namespace, tunnel.b.namespace
    second_way(tunnel)

    def is_seen_from(address: str) -> bool:
        return tunnel.b.daemon.peer(tunnel.a.key.public)["endpoint"] == f"{address}:{PORT}"

    tunnel.session()
    with Stream(a, b, tunnel.b.inner4) as stream, Stream(b, a, tunnel.a.inner4) as back:
        stream.flows()
        back.flows()
        assert is_seen_from("192.0.2.1")
        better = (f"{tunnel.b.outer4}/32", "dev", "second")
        for verb, source in (("add", "198.51.100.1"), ("delete", "192.0.2.1")) * 2:
            # What b still sends to the old place must not call a back there.
            a.ip("route", verb, *better)
            wait_until(partial(is_seen_from, source), f"a sends from {source}")
            stream.flows(SOON)
            back.flows(SOON)
            assert is_seen_from(source)


@pytest.mark.pywgd_only
def test_ten_changes_of_the_route_in_a_row_are_each_followed_at_once(lab: Lab) -> None:
    tunnel = lab.tunnel()
    a, b = tunnel.a.namespace, tunnel.b.namespace
    second_way(tunnel)
    tunnel.session()
    # The kernel here takes the better way by itself; the source is what the daemon has to change.
    sources = {"veth": "192.0.2.1", "second": "198.51.100.1"}
    sent = Wire(
        a, **{place: f"ip saddr {source} udp sport 51820" for place, source in sources.items()}
    )
    better = (f"{tunnel.b.outer4}/32", "dev", "second")
    took = []
    with Stream(a, b, tunnel.b.inner4) as stream, Stream(b, a, tunnel.a.inner4) as back:
        back.flows()
        for verb, place in (("add", "second"), ("delete", "veth")) * 5:
            a.ip("route", verb, *better)
            started, other = time.monotonic(), "second" if place == "veth" else "veth"
            wait_until(partial(has_moved, sent, place, other), f"a sends from {sources[place]}")
            took.append(time.monotonic() - started)
            stream.flows(SOON)
    # Looking once a second, it would take nine seconds or more.
    assert sum(took) < 4, took
