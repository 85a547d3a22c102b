"""Thousands of peers in one go, under load: the tunnel with one of them goes on, all are shown in
the order in which they came, and their memory is used again. Those that never answer cost the
others nothing."""

from __future__ import annotations

import time

import pytest

from tools.lab.keys import new_key
from tools.lab.lab import Lab
from tools.lab.programs import Program
from tools.lab.silent import deafen, request, silent_address, silent_peers
from tools.lab.stream import SOON, Stream
from tools.lab.waiting import wait_until
from tools.lab.wire import Wire

COUNT = 10_000


def strangers() -> str:
    sections = []
    for number in range(COUNT):
        network = f"10.{100 + number // 250}.{number % 250}.0/24"
        key = new_key().public
        sections.append(f"[Peer]\nPublicKey = {key}\nAllowedIPs = {network}\n")
    return "".join(sections)


@pytest.mark.pywgd_only
def test_they_are_set_under_load_and_go_again(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    daemon, own = tunnel.a.daemon, tunnel.configuration("a")
    many = own + strangers()
    before = int(daemon.report()["memory_bytes"])
    with Stream(tunnel.b.namespace, tunnel.a.namespace, tunnel.a.inner4) as stream:
        stream.flows()
        began = time.monotonic()
        daemon.wg("syncconf", daemon.name, "/dev/stdin", text=many)
        assert time.monotonic() - began < 20
        stream.flows(SOON)
        assert len(daemon.show("dump")) == COUNT + 2
        daemon.wg("syncconf", daemon.name, "/dev/stdin", text=own)
        stream.flows(SOON)
    assert len(daemon.show("dump")) == 2
    grown = int(daemon.report()["memory_bytes"]) - before
    assert grown < COUNT * 4096, grown
    # A second time it takes no more: what was taken is used again.
    daemon.wg("syncconf", daemon.name, "/dev/stdin", text=many)
    daemon.wg("syncconf", daemon.name, "/dev/stdin", text=own)
    assert int(daemon.report()["memory_bytes"]) - before <= grown
    tunnel.ping()


def test_each_that_is_silent_is_tried_and_a_stream_flows_meanwhile(lab: Lab) -> None:
    count = 2000
    tunnel = lab.tunnel()
    deafen(tunnel.b.namespace)
    tunnel.session()
    wire = Wire(tunnel.a.namespace)
    with Stream(tunnel.b.namespace, tunnel.a.namespace, tunnel.a.inner4) as stream:
        stream.flows()
        request(tunnel.a.daemon, "set=1\n" + silent_peers(count, tunnel.b.outer4))
        wait_until(
            lambda: wire["initiation_output"] >= count, "every silent peer was tried", seconds=60
        )
        stream.flows(SOON)


@pytest.mark.pywgd_only
def test_packets_for_silent_peers_cost_none_of_the_first_for_one_that_is_there(lab: Lab) -> None:
    count, portion = 1100, 100
    tunnel = lab.tunnel()
    deafen(tunnel.b.namespace)
    daemon, namespace = tunnel.a.daemon, tunnel.a.namespace
    request(daemon, "set=1\n" + silent_peers(count, tunnel.b.outer4, keepalive=0))
    namespace.ip("route", "add", "10.100.0.0/14", "dev", daemon.name)
    wire = Wire(namespace)
    with namespace.socket() as sender:
        for first in range(0, count, portion):
            for number in range(first, first + portion):
                sender.sendto(b"for nobody", (silent_address(number), 9))
            # The queue of the interface is short: what is in staging has asked for a handshake.
            wait_until(lambda: wire["initiation_output"] >= first + portion, "they were tried", 30)  # noqa: B023
    tunnel.session()  # by its first packet


def test_the_same_configuration_again_leaves_the_peers_in_their_order(
    lab: Lab, subject: Program
) -> None:
    if not subject.is_pywgd:
        pytest.skip("wireguard-go tells its peers in no order")
    tunnel = lab.tunnel()
    daemon = tunnel.a.daemon
    text = tunnel.configuration("a")
    others = [new_key().public for _ in range(6)]
    text += "".join(f"[Peer]\nPublicKey = {key}\n" for key in others)
    daemon.setconf(text)
    before = daemon.show("peers")
    assert [line[0] for line in before] == [tunnel.b.key.public, *others]
    daemon.setconf(text)
    assert daemon.show("peers") == before
    daemon.set("peer", others[0], "remove")
    daemon.set("peer", others[0], "persistent-keepalive", "0")
    assert [line[0] for line in daemon.show("peers")][-1] == others[0]
