"""Whatever arrives that should not: dropped, counted once under its reason, and the tunnel goes on.

The peer here is the initiator of tools/lab/handshake.py, which can misbehave where a daemon would
not.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from tools.lab import handshake
from tools.lab.handshake import Initiator, Session, echo_request, ipv4, ipv6, with_macs
from tools.lab.keys import decode
from tools.lab.lab import PORT, Lab, Side
from tools.lab.programs import Program
from tools.lab.waiting import wait_until

OURS, THEIRS, STRANGE = bytes([10, 99, 0, 2]), bytes([10, 99, 0, 1]), bytes([10, 99, 0, 3])
OURS6 = socket.inet_pton(socket.AF_INET6, "fd99::2")
THEIRS6 = socket.inet_pton(socket.AF_INET6, "fd99::1")
NOTHING = None


class Peer:
    """One configured peer of the daemon, with a session."""

    def __init__(self, lab: Lab, subject: Program) -> None:
        self.counted = subject.is_pywgd
        a, self.namespace = lab.cabled()
        # No IPv6 inside on the daemon's side of the kernel: its router solicitations would be
        # packets of their own.
        self.side: Side = lab.side(None, 1, a)
        a.run("sysctl", "-q", f"net.ipv6.conf.{self.side.daemon.name}.addr_gen_mode=1")
        self.key = lab.key()
        self.side.daemon.setconf(
            self.side.interface_section()
            + f"[Peer]\nPublicKey = {self.key.public}\nAllowedIPs = 10.99.0.2/32, fd99::2/128\n"
        )
        self.side.daemon.up("10.99.0.1/24")
        self.responder = decode(self.side.key.public)
        self.socket = self.namespace.socket()
        self.socket.connect(("192.0.2.1", PORT))
        self.socket.settimeout(5)
        self.shake_hands()

    def initiator(self) -> Initiator:
        return Initiator(decode(self.key.private), self.responder)

    def shake_hands(self) -> None:
        # The daemon answers a peer at most fifty times a second.
        time.sleep(0.025)
        attempt = self.initiator()
        self.first = attempt.initiation(time.time_ns())
        self.socket.send(self.first)
        self.session: Session = attempt.finish(self.receive(handshake.RESPONSE))
        self.ping()

    def receive(self, kind: int) -> bytes:
        while True:
            datagram = self.socket.recv(65536)
            if datagram[0] == kind:
                return datagram

    def data(self, inner: bytes) -> bytes:
        return self.session.seal(inner)

    def ping(self) -> None:
        self.socket.send(self.data(ipv4(OURS, THEIRS, echo_request(7))))
        while True:
            inner = self.session.open(self.receive(handshake.DATA))
            if inner[:1] == b"\x45" and inner[20:21] == b"\0":
                assert inner[12:20] == THEIRS + OURS
                return

    def delivered(self) -> int:
        """Packets the daemon gave to its kernel."""
        link = self.side.namespace.link(self.side.daemon.name)
        assert link is not None
        return int(link["stats64"]["rx"]["packets"])


@pytest.fixture(scope="module")
def peer(shared_lab: Lab, subject: Program) -> Iterator[Peer]:
    made = Peer(shared_lab, subject)
    yield made
    made.socket.close()


def _own_index(peer: Peer) -> bytes:
    return struct.pack("<I", peer.session.keys.remote_index)


def _other_index(peer: Peer) -> bytes:
    return struct.pack("<I", peer.session.keys.remote_index ^ 0x5A5A5A5A)


def _flip(message: bytes, place: int) -> bytes:
    return message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]


def _fresh(peer: Peer) -> bytes:
    return peer.initiator().initiation(time.time_ns())


def _broken_static(peer: Peer) -> bytes:
    return with_macs(_flip(_fresh(peer), 50)[:116], peer.responder)


def _low_order(peer: Peer) -> bytes:
    return with_macs(b"\1\0\0\0" + os.urandom(4) + bytes(32) + os.urandom(76), peer.responder)


def _of_a_stranger(peer: Peer) -> bytes:
    return Initiator(os.urandom(32), peer.responder).initiation(time.time_ns())


def _response(peer: Peer, index: bytes) -> bytes:
    return with_macs(b"\2\0\0\0" + os.urandom(4) + index + os.urandom(48), peer.responder)


def _again(peer: Peer) -> bytes:
    """A datagram the daemon has already taken."""
    taken = peer.session.seal(b"")
    peer.socket.send(taken)
    return taken


def _total_length(peer: Peer, total: int) -> bytes:
    return peer.data(ipv4(OURS, THEIRS, bytes(28), total=total))


def _payload_length(peer: Peer, length: int, content: int = 24) -> bytes:
    return peer.data(ipv6(OURS6, THEIRS6, bytes(content), length=length))


# What is sent, and the reason under which it must be counted.
DATAGRAMS: dict[str, tuple[Callable[[Peer], bytes], str | None]] = {
    # Not one of the four messages.
    "an empty datagram": (lambda peer: b"", "malformed"),
    "one byte": (lambda peer: b"\4", "malformed"),
    "three bytes": (lambda peer: b"\4\0\0", "malformed"),
    "four bytes": (lambda peer: b"\4\0\0\0", "malformed"),
    "type zero": (lambda peer: bytes(64), "malformed"),
    "type five": (lambda peer: b"\5" + bytes(63), "malformed"),
    "type 255": (lambda peer: b"\xff" * 148, "malformed"),
    "a long datagram of no type": (lambda peer: b"\xfe" * 65507, "malformed"),
    "reserved bytes in a data message": (lambda peer: _flip(peer.data(b""), 1), "malformed"),
    "reserved bytes in an initiation": (lambda peer: _flip(_fresh(peer), 3), "malformed"),
    "an initiation too short": (lambda peer: _fresh(peer)[:-1], "malformed"),
    "an initiation too long": (lambda peer: _fresh(peer) + b"\0", "malformed"),
    "a response too short": (lambda peer: _response(peer, _own_index(peer))[:-1], "malformed"),
    "a response too long": (lambda peer: _response(peer, _own_index(peer)) + b"\0", "malformed"),
    "a cookie reply too short": (
        lambda peer: b"\3\0\0\0" + _own_index(peer) + bytes(55),
        "malformed",
    ),
    "a data message without a tag": (lambda peer: peer.data(b"")[:31], "malformed"),
    # Handshake messages.
    "an initiation with a wrong MAC1": (lambda peer: _flip(_fresh(peer), 116), "invalid_mac1"),
    "a response with a wrong MAC1": (
        lambda peer: _flip(_response(peer, _own_index(peer)), 60),
        "invalid_mac1",
    ),
    "an initiation meant for another": (
        lambda peer: Initiator(os.urandom(32), handshake.public(os.urandom(32))).initiation(
            time.time_ns()
        ),
        "invalid_mac1",
    ),
    "an initiation that does not decrypt": (_broken_static, "invalid_handshake"),
    "an initiation with an ephemeral key of low order": (_low_order, "invalid_handshake"),
    "an initiation of a stranger": (_of_a_stranger, "unknown_peer"),
    "the same initiation again": (lambda peer: peer.first, "replayed_initiation"),
    "an initiation from yesterday": (
        lambda peer: peer.initiator().initiation(time.time_ns() - 86_400 * 10**9),
        "replayed_initiation",
    ),
    "a response to nobody": (lambda peer: _response(peer, _other_index(peer)), "unknown_index"),
    "a cookie reply that does not decrypt": (
        lambda peer: b"\3\0\0\0" + _own_index(peer) + os.urandom(56),
        "invalid_cookie_reply",
    ),
    # Data messages before they are opened.
    "a data message to nobody": (
        lambda peer: b"\4\0\0\0" + _other_index(peer) + bytes(24),
        "unknown_index",
    ),
    "a broken tag": (lambda peer: _flip(peer.data(bytes(64)), -1 % 96), "not_authentic"),
    "a changed byte": (lambda peer: _flip(peer.data(bytes(64)), 20), "not_authentic"),
    "a changed counter": (lambda peer: _flip(peer.data(bytes(64)), 8), "not_authentic"),
    "a forged counter at the end of all counters": (
        lambda peer: b"\4\0\0\0" + _own_index(peer) + struct.pack("<Q", 2**63) + bytes(32),
        "not_authentic",
    ),
    "the same data message again": (_again, "replayed"),
    # Data messages after that.
    "an inner packet of one byte": (lambda peer: peer.session.seal(b"\x45"), "malformed_inner"),
    "zeros": (lambda peer: peer.data(bytes(64)), "malformed_inner"),
    "inner version 5": (
        lambda peer: peer.data(ipv4(OURS, THEIRS, bytes(28), version=5)),
        "malformed_inner",
    ),
    "inner version 15": (
        lambda peer: peer.data(ipv4(OURS, THEIRS, bytes(28), version=15)),
        "malformed_inner",
    ),
    "an IPv4 total length of 0": (lambda peer: _total_length(peer, 0), "malformed_inner"),
    "an IPv4 total length below the header": (
        lambda peer: _total_length(peer, 19),
        "malformed_inner",
    ),
    "an IPv4 total length beyond the packet": (
        lambda peer: _total_length(peer, 49),
        "malformed_inner",
    ),
    "an IPv4 total length of 65535": (lambda peer: _total_length(peer, 65535), "malformed_inner"),
    "an IPv6 payload length beyond the packet": (
        lambda peer: _payload_length(peer, 25),
        "malformed_inner",
    ),
    "an IPv6 payload length of 65535": (
        lambda peer: _payload_length(peer, 65535),
        "malformed_inner",
    ),
    "an IPv6 payload length of 65496": (
        lambda peer: _payload_length(peer, 65496),
        "malformed_inner",
    ),
    "an IPv6 header cut short": (lambda peer: peer.data(b"\x60" + bytes(31)), "malformed_inner"),
    "an IPv4 source not allowed": (
        lambda peer: peer.data(ipv4(STRANGE, THEIRS, bytes(28))),
        "disallowed_source",
    ),
    "the daemon's own address as source": (
        lambda peer: peer.data(ipv4(THEIRS, OURS, bytes(28))),
        "disallowed_source",
    ),
    "an IPv6 source not allowed": (
        lambda peer: peer.data(ipv6(THEIRS6, OURS6, bytes(24))),
        "disallowed_source",
    ),
    # Right ones, for comparison.
    "a keepalive": (lambda peer: peer.session.seal(b""), NOTHING),
    "a data message whose padding is long": (
        lambda peer: peer.data(ipv4(OURS, STRANGE, bytes(8), protocol=253) + bytes(100)),
        NOTHING,
    ),
}


# Every wireguard-go takes 65496 + 40 for 0 (mod 2^16), and the one of 2022 dies of it.
FATAL_ELSEWHERE = {"an IPv6 payload length of 65496", "an IPv6 payload length of 65535"}


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=pytest.mark.pywgd_only if what in FATAL_ELSEWHERE else ())
        for what in DATAGRAMS
    ],
)
def test_it_is_dropped_for_its_reason_and_the_tunnel_goes_on(peer: Peer, what: str) -> None:
    make, reason = DATAGRAMS[what]
    peer.ping()
    before, delivered = (peer.side.daemon.drops() if peer.counted else {}), peer.delivered()
    peer.socket.send(make(peer))
    peer.ping()
    if not peer.counted:
        return
    expected = {reason: 1} if reason else {}

    def new_drops() -> dict[str, int]:
        now = peer.side.daemon.drops()
        return {name: count - before[name] for name, count in now.items() if count != before[name]}

    wait_until(lambda: new_drops() == expected, f"drops are {expected}: {new_drops()}")
    passed = 1 if reason is NOTHING and "keepalive" not in what else 0
    assert peer.delivered() - delivered == 1 + passed, (
        "the ping, and nothing else, reached the kernel"
    )


def test_a_wrong_mac2_is_fine_while_there_is_no_load(peer: Peer) -> None:
    time.sleep(0.025)
    attempt = peer.initiator()
    message = attempt.initiation(time.time_ns())
    peer.first = message
    peer.socket.send(message[:-16] + os.urandom(16))
    peer.session = attempt.finish(peer.receive(handshake.RESPONSE))
    peer.ping()


def test_an_empty_datagram_does_not_end_the_batch_it_came_in(peer: Peer) -> None:
    for _ in range(50):
        for datagram in (b"", peer.data(ipv4(OURS, THEIRS, echo_request(9))), b""):
            peer.socket.send(datagram)
    answers = 0
    while answers < 50:
        inner = peer.session.open(peer.receive(handshake.DATA))
        answers += inner[20:21] == b"\0" and inner[26:28] == struct.pack(">H", 9)


def test_counters_may_come_in_any_order_within_the_window(peer: Peer) -> None:
    start = peer.session.counter
    peer.session.counter += 8000
    echo = ipv4(OURS, THEIRS, echo_request(11))
    for counter in (start + 7999, start, start + 4000, start + 1):
        peer.socket.send(peer.session.seal(echo, counter))
        while peer.session.open(peer.receive(handshake.DATA))[26:28] != struct.pack(">H", 11):
            pass
    peer.ping()


def test_a_new_handshake_succeeds_after_all_of_them(peer: Peer) -> None:
    peer.shake_hands()
    peer.ping()
