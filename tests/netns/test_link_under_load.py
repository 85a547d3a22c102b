"""The link goes down, moves or is deleted while packets come from both sides."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from tools.lab.daemon import socket_path
from tools.lab.lab import Lab, Tunnel
from tools.lab.namespaces import Namespace, add_address
from tools.lab.programs import Program
from tools.lab.stream import AFTER_A_RUSH, RUSHED, SOON, Stream
from tools.lab.traffic import exchange


@contextlib.contextmanager
def both_ways(tunnel: Tunnel) -> Iterator[tuple[Stream, Stream]]:
    a, b = tunnel.a, tunnel.b
    tunnel.session()
    there = Stream(a.namespace, b.namespace, b.inner4)
    back = Stream(b.namespace, a.namespace, a.inner4)
    with there, back:
        there.flows()
        back.flows()
        yield there, back


def test_twenty_times_down_and_up_leave_the_configuration_and_a_tunnel_that_works(lab: Lab) -> None:
    tunnel = lab.tunnel(psk=True, keepalive=25)
    daemon = tunnel.a.daemon
    before = daemon.wg("showconf", daemon.name)
    with both_ways(tunnel) as (there, back):
        for _ in range(20):
            tunnel.a.namespace.ip("link", "set", daemon.name, "down")
            tunnel.a.namespace.ip("link", "set", daemon.name, "up")
        there.flows(AFTER_A_RUSH)
        back.flows(SOON)
        # One by itself needs one handshake, which does not wait for the one before.
        time.sleep(RUSHED)
        tunnel.a.namespace.ip("link", "set", daemon.name, "down")
        assert there.is_silent(0.1)
        assert back.is_silent(0.1)
        tunnel.a.namespace.ip("link", "set", daemon.name, "up")
        back.flows(SOON)
        there.flows(SOON)
    assert daemon.wg("showconf", daemon.name) == before


def test_a_link_deleted_under_load_ends_the_daemon_at_once(lab: Lab, subject: Program) -> None:
    tunnel = lab.tunnel()
    daemon = tunnel.a.daemon
    with both_ways(tunnel):
        tunnel.a.namespace.ip("link", "delete", daemon.name)
        assert daemon.wait(SOON) == 0
    assert not socket_path(daemon.name).exists()
    if not subject.is_pywgd:
        return
    errors = [line for line in daemon.log().splitlines() if "error" in line.lower()]
    assert len(errors) <= 2, errors


def test_a_moved_interface_goes_on_through_the_sockets_of_its_birthplace(lab: Lab) -> None:
    """The places it moves to have no other interface; b sends all the while."""
    tunnel = lab.tunnel()
    daemon, b = tunnel.a.daemon, tunnel.b
    tunnel.session()
    first, second = lab.namespace("c"), lab.namespace("d")
    here = tunnel.a.namespace
    with Stream(b.namespace, b.namespace, tunnel.a.inner4, bind=b.inner4):
        for place in (first, second, first, second, tunnel.a.namespace, second):
            time.sleep(RUSHED)
            move(here, place, daemon.name, tunnel.a.inner4)
            here = place
            there = Stream(place, b.namespace, b.inner4, source=tunnel.a.inner4)
            back = Stream(b.namespace, place, tunnel.a.inner4, source=b.inner4)
            with there, back:
                there.flows(SOON)
                back.flows(SOON)
        exchange(second, b.namespace, b.inner4, 4 << 20, 4 << 20, seconds=30)
        second.ip("link", "delete", daemon.name)
        assert daemon.wait(SOON) == 0


def move(here: Namespace, place: Namespace, name: str, address: str) -> None:
    """The kernel takes it down for that, and its addresses away."""
    here.ip("link", "set", name, "netns", place.name)
    add_address(place, name, f"{address}/24")
    place.ip("link", "set", name, "up")
