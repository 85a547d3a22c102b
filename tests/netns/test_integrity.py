r"""What arrives is what was sent, under every combination of offloads, with loss and reordering
under way.

      namespace a             namespace r               namespace b
    +--------------+   +------------------------+    +--------------+
    |   daemon A   |   |         relay          |    |   daemon B   |
    | 192.0.2.1 ===|===|=== .254 <----> .254 ===|====|=== 203.0.113.2
    |              |   | 192.0.2.    203.0.113. |    |              |
    +--------------+   +------------------------+    +--------------+
                        nftables drops 1 % of what
                        comes in, trains as a whole

The relay loses 1 % of the datagrams out of the middle of trains, too, and holds back 2 % until
others have passed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import struct
from collections.abc import Iterator

import pytest

from tools.lab.daemon import Daemon
from tools.lab.lab import PORT, Lab
from tools.lab.namespaces import Namespace, cable
from tools.lab.overlay import OVERLAY, make_overlay
from tools.lab.relay import Relay
from tools.lab.traffic import Datagrams, exchange, payload, ping

OFFLOADS = ("tun_tso", "tun_uso", "udp_gso", "udp_gro")
LOSS, REORDER = 0.01, 0.02
FORWARD, BACKWARD = 1 << 20, 1 << 19


def switched_off(choice: tuple[bool, ...]) -> str:
    return ",".join(name for name, on in zip(OFFLOADS, choice, strict=True) if not on)


def label(choice: tuple[bool, ...]) -> str:
    return "+".join(name for name, on in zip(OFFLOADS, choice, strict=True) if on) or "none"


COMBINATIONS = list(itertools.product([True, False], repeat=len(OFFLOADS)))


class Course:
    """The drawing above; each end is restarted only when its offloads change."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.a, self.r, self.b = lab.namespace("a"), lab.namespace("r"), lab.namespace("b")
        cable((self.a, "veth", ["192.0.2.1/24"]), (self.r, "left", ["192.0.2.254/24"]))
        cable((self.b, "veth", ["203.0.113.2/24"]), (self.r, "right", ["203.0.113.254/24"]))
        # Only data: losing a handshake message would test the five seconds until the next attempt,
        # 256 times.
        self.r.nft(
            "table inet weather { counter lost {}\n"
            "chain input { type filter hook input priority 0;\n"
            "meta l4proto udp @th,64,8 4 numgen random mod 100 == 0 counter name lost drop\n}\n}"
        )
        relay = Relay(
            self.r,
            left=("192.0.2.254", 5000),
            left_daemon=("192.0.2.1", PORT),
            right=("203.0.113.254", 5000),
            right_daemon=("203.0.113.2", PORT),
            loss=LOSS,
            reorder=REORDER,
        )
        lab.stack.callback(relay.close)
        self.relay = relay
        self.keys = (lab.key(), lab.key())
        self.names = (lab.name("a"), lab.name("b"))
        self.daemons: list[Daemon | None] = [None, None]
        self.choices: list[tuple[bool, ...] | None] = [None, None]

    def set(self, a: tuple[bool, ...], b: tuple[bool, ...]) -> None:
        changed = [end for end, choice in enumerate((a, b)) if self.choices[end] != choice]
        for end in changed:
            self._restart(end, (a, b)[end])
        # The restarted end has no session and so makes a new one; the other would first trust its
        # old one.
        if changed:
            here, target = ((self.a, "10.99.0.2"), (self.b, "10.99.0.1"))[changed[-1]]
            ping(here, target, 1)

    def _restart(self, end: int, choice: tuple[bool, ...]) -> None:
        old = self.daemons[end]
        if old is not None:
            old.close()
        namespace, relay = ((self.a, "192.0.2.254"), (self.b, "203.0.113.254"))[end]
        daemon = self.lab.daemon(
            None, namespace, self.names[end], no_offload=switched_off(choice), log_level="error"
        )
        inner, far = (1, 2) if end == 0 else (2, 1)
        daemon.setconf(
            f"[Interface]\nPrivateKey = {self.keys[end].private}\nListenPort = {PORT}\n"
            f"[Peer]\nPublicKey = {self.keys[1 - end].public}\nAllowedIPs = 10.99.0.{far}/32\n"
            f"Endpoint = {relay}:5000\n"
        )
        namespace.run("sysctl", "-q", f"net.ipv6.conf.{daemon.name}.disable_ipv6=1")
        daemon.up(f"10.99.0.{inner}/32")
        # A lost tail costs one retransmission timeout, 200 ms by default.
        route = f"10.99.0.{far} dev {daemon.name} rto_min 10ms initcwnd 40"
        namespace.ip("route", "add", *route.split())
        self.daemons[end], self.choices[end] = daemon, choice


@pytest.fixture(scope="module")
def course(shared_lab: Lab) -> Iterator[Course]:
    made = Course(shared_lab)
    yield made
    assert all(daemon is None or daemon.process.poll() is None for daemon in made.daemons), (
        "a daemon died"
    )


@pytest.mark.matrix
@pytest.mark.parametrize("b", COMBINATIONS, ids=[f"b={label(choice)}" for choice in COMBINATIONS])
@pytest.mark.parametrize("a", COMBINATIONS, ids=[f"a={label(choice)}" for choice in COMBINATIONS])
def test_data_survives_loss_and_reordering(
    course: Course, a: tuple[bool, ...], b: tuple[bool, ...]
) -> None:
    course.set(a, b)
    exchange(course.a, course.b, "10.99.0.2", FORWARD, BACKWARD, seed=hash((a, b)) & 0xFFFF)
    datagrams_survive(course.a, course.b, "10.99.0.2")
    datagrams_survive(course.b, course.a, "10.99.0.1")


def datagrams_survive(sender: Namespace, receiver: Namespace, address: str) -> None:
    """UDP trains through the weather: some are lost, and those that come are what was sent."""
    with Datagrams(sender, receiver, address) as datagrams:
        datagrams.receiver.settimeout(0.1)
        sent: list[bytes] = []
        arrived: list[bytes] = []
        # nftables drops whole trains, and all sixty may have travelled as one: then once more.
        for _ in range(5):
            sent += [_numbered(len(sent) + number, 1000) for number in range(60)]
            for start in range(len(sent) - 60, len(sent), 20):
                datagrams.send_train(sent[start : start + 20])
            with contextlib.suppress(TimeoutError):
                while len(arrived) < len(sent):
                    arrived.append(datagrams.receive())
            assert set(arrived) <= set(sent), "a datagram changed on its way"
            assert len(set(arrived)) == len(arrived), "a datagram came twice"
            if len(arrived) >= 10:
                return
    pytest.fail("five times in a row fewer than 10 of 60 datagrams had arrived")


@pytest.mark.matrix
def test_there_was_loss_and_reordering_in_that(course: Course) -> None:
    if course.relay.held_back == 0:
        course.set(COMBINATIONS[0], COMBINATIONS[0])
        exchange(course.a, course.b, "10.99.0.2", 8 << 20, 1 << 20)
    assert course.relay.lost > 0
    assert course.relay.held_back > 0


@pytest.mark.parametrize("b", [COMBINATIONS[0], COMBINATIONS[-1]], ids=["b=all", "b=none"])
@pytest.mark.parametrize("a", [COMBINATIONS[0], COMBINATIONS[-1]], ids=["a=all", "a=none"])
def test_sixteen_mebibytes_survive_loss_and_reordering(
    course: Course, a: tuple[bool, ...], b: tuple[bool, ...]
) -> None:
    course.set(a, b)
    exchange(course.a, course.b, "10.99.0.2", 16 << 20, 16 << 20)


@pytest.mark.parametrize("checksums", [False, True], ids=["zero", "checksums"])
@pytest.mark.parametrize("b", [COMBINATIONS[0], COMBINATIONS[-1]], ids=["b=all", "b=none"])
@pytest.mark.parametrize("a", [COMBINATIONS[0], COMBINATIONS[-1]], ids=["a=all", "a=none"])
def test_a_tunnel_inside_survives_loss_and_reordering(
    course: Course, a: tuple[bool, ...], b: tuple[bool, ...], checksums: bool
) -> None:
    course.set(a, b)
    with contextlib.ExitStack() as stack:
        for space, near, far in ((course.a, 1, 2), (course.b, 2, 1)):
            ends = (f"10.99.0.{near}", f"10.99.0.{far}")
            inner = f"10.88.0.{near}/24"
            said = make_overlay(space, "vxlan", ends, inner, checksums=checksums, mtu=1370)
            if said is not None:
                pytest.skip(f"this kernel cannot make vxlan interfaces: {said}")
            stack.callback(space.ip, "link", "del", OVERLAY)
        exchange(course.a, course.b, "10.88.0.2", FORWARD, BACKWARD)


@pytest.mark.pywgd_only
def test_an_offload_switched_off_is_reported_as_disabled(course: Course) -> None:
    for choice in (COMBINATIONS[0], *[tuple(name != off for name in OFFLOADS) for off in OFFLOADS]):
        course.set(choice, COMBINATIONS[0])
        daemon = course.daemons[0]
        assert daemon is not None
        report = daemon.report()
        for name, on in zip(OFFLOADS, choice, strict=True):
            found = report[f"offload_{name}"]
            assert found in ("active", "unsupported") if on else found == "disabled", (name, found)


# Datagrams, over the plain cable.

NO_OFFLOAD = ["", "all", "tun_tso,tun_uso", "udp_gso,udp_gro"]


@pytest.mark.parametrize("no_offload", NO_OFFLOAD, ids=["all-on", "all-off", "tun-off", "udp-off"])
def test_datagrams_of_every_size_arrive_unchanged(lab: Lab, no_offload: str) -> None:
    tunnel = lab.tunnel(no_offload=no_offload, log_level="error")
    tunnel.session()
    content = payload(65507, 3)
    for address, largest in ((tunnel.b.inner4, 1392), (tunnel.b.inner6, 1372)):
        with Datagrams(tunnel.a.namespace, tunnel.b.namespace, address) as datagrams:
            for size in range(largest + 2):
                datagrams.passes(content[:size])
            for size in (2000, 9000, 20000, 65487, 65507):
                datagrams.passes(content[:size])


@pytest.mark.parametrize("no_offload", NO_OFFLOAD, ids=["all-on", "all-off", "tun-off", "udp-off"])
def test_datagrams_sent_as_one_train_arrive_as_they_were(lab: Lab, no_offload: str) -> None:
    tunnel = lab.tunnel(no_offload=no_offload, log_level="error")
    tunnel.session()
    for address in (tunnel.b.inner4, tunnel.b.inner6):
        with Datagrams(tunnel.a.namespace, tunnel.b.namespace, address) as datagrams:
            for size, count, tail in (
                (1372, 40, 1372),
                (1372, 47, 7),
                (1000, 60, 999),
                (100, 64, 1),
                (2, 3, 1),
            ):
                train = [_numbered(number, size) for number in range(count - 1)] + [
                    _numbered(count, size)[:tail]
                ]
                datagrams.send_train(train)
                arrived = [datagrams.receive() for _ in train]
                assert arrived == train, f"{count} datagrams of {size} bytes"


def test_many_flows_at_once_keep_their_order(lab: Lab) -> None:
    tunnel = lab.tunnel(log_level="error")
    tunnel.session()
    flows = [Datagrams(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4) for _ in range(4)]
    sizes = [1200, 1200, 40, 1200, 900, 1372, 1372, 1]
    for burst in range(40):
        for number in range(16):
            for flow in flows:
                flow.send(_numbered(burst * 16 + number, sizes[number % len(sizes)] + 8))
        for flow in flows:
            for number in range(16):
                expected = _numbered(burst * 16 + number, sizes[number % len(sizes)] + 8)
                assert flow.receive() == expected, "changed, or out of order"
    for flow in flows:
        flow.__exit__()


@pytest.mark.parametrize("gro", ["on", "off"])
def test_a_wire_that_splits_trains_or_merges_datagrams_changes_nothing(lab: Lab, gro: str) -> None:
    """As with a real network card: no segmentation below us, and perhaps coalescing above."""
    tunnel = lab.tunnel(log_level="error")
    for side in (tunnel.a, tunnel.b):
        side.namespace.run(
            "ethtool", "-K", "veth", "tx-udp-segmentation", "off", "gso", "off", "gro", gro
        )
    tunnel.session()
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, 8 << 20, 8 << 20)
    tunnel.ping()


def _numbered(number: int, size: int) -> bytes:
    start = struct.pack(">Q", number)
    while len(start) < size:
        start += hashlib.sha256(start).digest()
    return start[:size]
