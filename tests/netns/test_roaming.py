"""A peer that changes its address is followed, and only an authentic packet makes us follow."""

from __future__ import annotations

import socket
import time

import pytest

from tools.lab.handshake import Initiator, Session, echo_request, ipv4, with_macs
from tools.lab.keys import decode
from tools.lab.lab import PORT, Lab
from tools.lab.namespaces import Namespace, add_address
from tools.lab.programs import Program
from tools.lab.traffic import exchange
from tools.lab.waiting import wait_until

BYTES = 24 << 20


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
@pytest.mark.parametrize("mover", ["a", "b"], ids=["the-initiator-moves", "the-responder-moves"])
def test_a_transfer_goes_on_when_the_sender_changes_its_address(
    lab: Lab, subject: Program, mover: str, outer: int
) -> None:
    tunnel = lab.tunnel(outer=outer)
    tunnel.session()
    here, there = (tunnel.a, tunnel.b) if mover == "a" else (tunnel.b, tunnel.a)
    old, new, length = (
        (here.outer4, "192.0.2.77", 24) if outer == 4 else (here.outer6, "2001:db8::77", 64)
    )

    here.namespace.run("sysctl", "-q", "net.ipv4.conf.veth.promote_secondaries=1")

    def move() -> None:
        add_address(here.namespace, "veth", f"{new}/{length}")
        here.namespace.ip("address", "delete", f"{old}/{length}", "dev", "veth")

    # A source address that is gone gives ENETUNREACH (IPv4) or EINVAL (IPv6). wireguard-go knows
    # only the latter, and otherwise waits fifteen seconds for silence to become a new handshake.
    patience = 12 if subject.is_pywgd else 60
    exchange(
        here.namespace, there.namespace, there.inner4, BYTES, 1 << 20, seconds=patience, midway=move
    )
    endpoint = there.daemon.peer(here.key.public)["endpoint"]
    assert endpoint == (f"{new}:{PORT}" if outer == 4 else f"[{new}]:{PORT}")


def test_a_transfer_goes_on_when_a_peer_changes_its_port(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    exchange(
        tunnel.a.namespace,
        tunnel.b.namespace,
        tunnel.b.inner6,
        BYTES,
        1 << 20,
        midway=lambda: tunnel.a.daemon.set("listen-port", "4999"),
    )
    assert tunnel.b.daemon.peer(tunnel.a.key.public)["endpoint"] == "192.0.2.1:4999"


def test_a_peer_may_move_from_one_family_to_the_other(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    tunnel.a.daemon.set("peer", tunnel.b.key.public, "endpoint", tunnel.b.endpoint(6))
    tunnel.ping()
    assert tunnel.b.daemon.peer(tunnel.a.key.public)["endpoint"] == tunnel.a.endpoint(6)


class Roamer:
    """A peer in Python with two places to speak from."""

    def __init__(self, lab: Lab) -> None:
        a, self.namespace = lab.cabled()
        self.side = lab.side(None, 1, a)
        self.key = lab.key()
        self.side.daemon.setconf(
            self.side.interface_section()
            + f"[Peer]\nPublicKey = {self.key.public}\nAllowedIPs = 10.99.0.2/32\n"
        )
        self.side.daemon.up("10.99.0.1/24")
        self.home = speak_from(self.namespace, "192.0.2.2")
        add_address(self.namespace, "veth", "192.0.2.66/24")
        self.elsewhere = speak_from(self.namespace, "192.0.2.66")
        handshake = Initiator(decode(self.key.private), decode(self.side.key.public))
        self.first = handshake.initiation(time.time_ns())
        self.home.send(self.first)
        self.session: Session = handshake.finish(self.home.recv(2048))
        self.check(self.home)

    def echo(self) -> bytes:
        return self.session.seal(
            ipv4(bytes([10, 99, 0, 2]), bytes([10, 99, 0, 1]), echo_request(1))
        )

    def check(self, place: socket.socket) -> None:
        """An echo sent from here is answered to here."""
        place.send(self.echo())
        while True:
            inner = self.session.open(place.recv(2048))
            if inner[:1] == b"\x45" and inner[20:21] == b"\0":
                return

    def endpoint(self) -> str:
        return self.side.daemon.peer(self.key.public)["endpoint"]

    def close(self) -> None:
        self.home.close()
        self.elsewhere.close()


def at(place: socket.socket) -> str:
    address, port = place.getsockname()
    return f"{address}:{port}"


def speak_from(namespace: Namespace, address: str) -> socket.socket:
    made = namespace.socket()
    made.bind((address, 0))
    made.connect(("192.0.2.1", PORT))
    made.settimeout(30)
    return made


def test_forged_and_repeated_packets_do_not_move_the_endpoint(lab: Lab, subject: Program) -> None:
    roamer = Roamer(lab)
    at_home = roamer.endpoint()
    assert at_home == at(roamer.home)
    genuine = roamer.echo()
    roamer.home.send(genuine)
    stranger = Initiator(decode(lab.key().private), decode(roamer.side.key.public))
    index = roamer.session.keys.remote_index.to_bytes(4, "little")
    own_index = roamer.session.keys.local_index.to_bytes(4, "little")
    forged = {
        "the same datagram again": genuine,
        "its tag broken": genuine[:-1] + bytes([genuine[-1] ^ 1]),
        "a counter from the far future": genuine[:8]
        + b"\xff\xff\xff\xff\xff\xff\xff\x7f"
        + genuine[16:],
        "noise": b"\4\0\0\0" + index + bytes(8) + bytes(64),
        "the same initiation again": roamer.first,
        "the initiation of a stranger": stranger.initiation(time.time_ns()),
        "a response to nothing": with_macs(
            b"\2\0\0\0" + own_index + index + bytes(48), decode(roamer.side.key.public)
        ),
        "a cookie reply": b"\3\0\0\0" + index + bytes(56),
        "an empty datagram": b"",
    }
    for what, datagram in forged.items():
        roamer.elsewhere.send(datagram)
        roamer.check(roamer.home)
        assert roamer.endpoint() == at_home, what
    if subject.is_pywgd:
        assert roamer.side.daemon.drops()["replayed"] >= 1
        assert roamer.side.daemon.drops()["not_authentic"] >= 3
    roamer.close()


def test_one_authentic_data_packet_moves_the_endpoint(lab: Lab) -> None:
    roamer = Roamer(lab)
    roamer.check(roamer.elsewhere)
    wait_until(lambda: roamer.endpoint() == at(roamer.elsewhere), "the endpoint moved")
    roamer.elsewhere.send(b"\4" + bytes(31))
    roamer.check(roamer.home)
    assert roamer.endpoint() == at(roamer.home)
    roamer.close()
