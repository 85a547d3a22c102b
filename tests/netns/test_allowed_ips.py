r"""What arrives is from the peer that owns its source, by the longest prefix of all peers, and what
is sent goes to the owner of its destination; also while peers go and prefixes move.

    b (side 2) ==== veth2  a (side 1)  veth3 ==== c (side 3)

b and c both have the address 10.99.0.42 inside.
"""

from __future__ import annotations

import socket
import time

import pytest

from tools.lab.keys import decode, new_key
from tools.lab.lab import PORT, Lab, Side, handshake_seconds
from tools.lab.namespaces import cable
from tools.lab.programs import Program
from tools.lab.silent import request
from tools.lab.stream import SOON, Stream
from tools.lab.traffic import ping
from tools.lab.waiting import wait_until

SHARED = "10.99.0.42"


class Hub:
    """The drawing; b and c take from a whatever it sends."""

    def __init__(self, lab: Lab) -> None:
        space = lab.namespace("a")
        self.a = lab.side(None, 1, space)
        self.b = self._spoke(lab, 2)
        self.c = self._spoke(lab, 3)
        self.a.daemon.setconf(
            self.a.interface_section() + self.b.peer_section(outer=4) + self.c.peer_section(outer=4)
        )
        self.a.daemon.up(f"{self.a.inner4}/24", f"{self.a.inner6}/64")
        for spoke in (self.b, self.c):
            ping(spoke.namespace, self.a.inner4, 1)

    def _spoke(self, lab: Lab, number: int) -> Side:
        spoke = lab.side(None, number, lab.namespace("bc"[number - 2]))
        net = f"192.168.{number}"
        cable(
            (self.a.namespace, f"veth{number}", [f"{net}.1/24"]),
            (spoke.namespace, "veth", [f"{net}.2/24"]),
        )
        spoke.outer4 = f"{net}.2"
        spoke.daemon.setconf(
            spoke.interface_section()
            + f"[Peer]\nPublicKey = {self.a.key.public}\nAllowedIPs = 10.99.0.0/16, fd99::/64\n"
            f"Endpoint = {net}.1:{PORT}\n"
        )
        spoke.daemon.up(f"{spoke.inner4}/16", f"{spoke.inner6}/64", f"{SHARED}/32")
        return spoke

    def give(self, owner: Side, *prefixes: str) -> None:
        """These and its own addresses are the owner's from now on, and nobody else's."""
        all_of_them = ",".join((f"{owner.inner4}/32", f"{owner.inner6}/128", *prefixes))
        self.a.daemon.set("peer", owner.key.public, "allowed-ips", all_of_them)

    def refused(self) -> int:
        return self.a.daemon.drops()["disallowed_source"]


@pytest.fixture
def hub(lab: Lab) -> Hub:
    return Hub(lab)


def to_hub(hub: Hub, spoke: Side, source: str) -> Stream:
    return Stream(spoke.namespace, hub.a.namespace, hub.a.inner4, source=source)


def test_a_prefix_that_moves_takes_both_directions_with_it(hub: Hub) -> None:
    hub.give(hub.b, f"{SHARED}/32")
    a, b, c = hub.a.namespace, hub.b.namespace, hub.c.namespace
    with (
        to_hub(hub, hub.b, SHARED) as from_b,
        to_hub(hub, hub.c, SHARED) as from_c,
        Stream(a, b, SHARED) as out,
        c.socket() as at_c,
    ):
        at_c.bind((SHARED, out.target[1]))
        at_c.setblocking(False)
        for _ in range(5):
            hub.give(hub.b, f"{SHARED}/32")
            out.flows(SOON)
            from_b.flows(SOON)
            assert from_c.is_silent(0.05), "c speaks with an address that is b's"
            drain(at_c)
            out.flows(SOON)
            assert not drain(at_c), "c hears what is meant for b"

            hub.give(hub.c, f"{SHARED}/32")
            from_c.flows(SOON)
            wait_until(lambda: drain(at_c), "c hears what is meant for it", SOON)
            assert from_b.is_silent(0.05), "b speaks with an address that is c's"
            assert out.is_silent(0.05), "b hears what is meant for c"


def drain(place: socket.socket) -> int:
    """How many datagrams wait here; they are taken away."""
    count = 0
    try:
        while place.recv(2048):
            count += 1
    except BlockingIOError:
        return count
    return count


def test_crossed_prefixes_let_nothing_through(hub: Hub, subject: Program) -> None:
    """a has b's address for c's and the other way round."""
    with (
        to_hub(hub, hub.b, hub.b.inner4) as from_b,
        to_hub(hub, hub.c, hub.c.inner4) as from_c,
        Stream(hub.a.namespace, hub.b.namespace, hub.b.inner4) as out,
    ):
        for stream in (from_b, from_c, out):
            stream.flows()
        for spoke, other in ((hub.b, hub.c), (hub.c, hub.b)):
            hub.a.daemon.set("peer", spoke.key.public, "allowed-ips", f"{other.inner4}/32")
        for stream in (from_b, from_c, out):
            assert stream.is_silent(0.1), stream
        if subject.is_pywgd:
            assert hub.refused() > 0
        hub.give(hub.b)
        hub.give(hub.c)
        for stream in (from_b, from_c, out):
            stream.flows(SOON)


def test_the_longest_prefix_of_all_peers_decides_who_may_speak(hub: Hub) -> None:
    """What b has is wide; what is c's within it is not b's, and what c no longer has is again."""
    wide, narrow = "10.99.0.0/24", f"{SHARED}/32"
    hub.give(hub.b, wide)
    with to_hub(hub, hub.b, SHARED) as from_b, to_hub(hub, hub.c, SHARED) as from_c:
        from_b.flows(SOON)
        assert from_c.is_silent(0.05)
        hub.give(hub.c, narrow)
        from_c.flows(SOON)
        assert from_b.is_silent(0.05)
        hub.give(hub.c)
        from_b.flows(SOON)
        assert from_c.is_silent(0.05)
        hub.give(hub.c, narrow)
        from_c.flows(SOON)
        hub.a.daemon.set("peer", hub.c.key.public, "remove")
        from_b.flows(SOON)
        assert from_c.is_silent(0.05)


def test_a_prefix_moved_to_a_stranger_silences_its_owner(hub: Hub, lab: Lab) -> None:
    """The stranger never speaks; b keeps its prefix, its session, and its place is still known."""
    stranger = lab.key()
    with to_hub(hub, hub.b, hub.b.inner4) as stream:
        stream.flows()
        before = handshake_seconds(hub.a, hub.b)
        address = f"{hub.b.inner4}/32"
        hub.a.daemon.set("peer", stranger.public, "allowed-ips", address)
        assert stream.is_silent(0.1)
        # Nothing comes through, but it is authentic: it tells where b is.
        hub.b.daemon.set("listen-port", "4999")
        wait_until(
            lambda: hub.a.daemon.peer(hub.b.key.public)["endpoint"] == f"{hub.b.outer4}:4999",
            "b is followed",
        )
        hub.give(hub.b)
        stream.flows(SOON)
        assert handshake_seconds(hub.a, hub.b) == before


def test_a_peer_removed_in_the_middle_leaves_the_others_alone(hub: Hub) -> None:
    with (
        to_hub(hub, hub.b, hub.b.inner4) as from_b,
        to_hub(hub, hub.c, hub.c.inner4) as from_c,
        Stream(hub.a.namespace, hub.c.namespace, hub.c.inner4) as to_c,
        Stream(hub.a.namespace, hub.b.namespace, hub.b.inner4) as to_b,
    ):
        for stream in (from_b, from_c, to_b, to_c):
            stream.flows()
        before = handshake_seconds(hub.a, hub.b)
        for _ in range(3):
            arrived, started = from_b.arrived, time.monotonic()
            hub.a.daemon.set("peer", hub.c.key.public, "remove")
            assert from_c.is_silent(0.05)
            assert to_c.is_silent(0.05)
            section = hub.c.peer_section(outer=4)
            hub.a.daemon.wg("addconf", hub.a.daemon.name, "/dev/stdin", text=section)
            to_c.flows(SOON)
            from_c.flows(SOON)
            assert from_b.arrived > arrived
            to_b.flows(SOON)
            assert time.monotonic() - started < 2 * SOON
        assert handshake_seconds(hub.a, hub.b) == before


def test_a_replacement_takes_back_what_stands_before_it_in_the_text(lab: Lab) -> None:
    tunnel = lab.tunnel()
    daemon = tunnel.a.daemon
    ours, other = tunnel.b.key.public, new_key().public
    daemon.set("peer", other, "allowed-ips", "10.1.0.0/16,10.2.0.0/16")
    request(
        daemon,
        f"set=1\npublic_key={decode(ours).hex()}\nallowed_ip=10.1.0.0/16\n"
        "replace_allowed_ips=true\nallowed_ip=10.3.0.0/16\n",
    )
    found = {line[0]: line[1] for line in daemon.show("allowed-ips")}
    assert found == {ours: "10.3.0.0/16", other: "10.2.0.0/16"}
