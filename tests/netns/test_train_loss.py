"""A path that takes trains and loses or damages them, which no call tells: pywg finds it out by the
TCP inside, sends single datagrams there, and says so. A path that is as bad for single datagrams,
or fine, is not blamed.

      namespace a             namespace r               namespace b
    +--------------+   +------------------------+    +--------------+
    |   daemon A   |   |         relay          |    |   daemon B   |
    | 192.0.2.1 ===|===|=== .254 <----> .254 ===|====|=== 203.0.113.2
    +--------------+   +------------------------+    +--------------+
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tools.lab.daemon import Daemon
from tools.lab.lab import PORT, Lab
from tools.lab.namespaces import cable
from tools.lab.relay import Relay
from tools.lab.traffic import exchange, ping
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only

Train = list[bytes]
BYTES = 4 << 20
INNER = ("10.99.0.1", "10.99.0.2")


def lost(_: Train) -> Train:
    return []


def damaged(train: Train) -> Train:
    return [datagram[:-1] + bytes([datagram[-1] ^ 1]) for datagram in train]


def without_its_equal_tail(train: Train) -> Train:
    """As kernels 7.0 to 7.1.4 do it with some drivers."""
    return train[:-1] if len(train[-1]) == len(train[0]) else train


class Path:
    """The drawing above."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.namespaces = (lab.namespace("a"), lab.namespace("b"))
        middle = lab.namespace("r")
        a, b = self.namespaces
        cable((a, "veth", ["192.0.2.1/24"]), (middle, "left", ["192.0.2.254/24"]))
        cable((b, "veth", ["203.0.113.2/24"]), (middle, "right", ["203.0.113.254/24"]))
        self.relay = Relay(
            middle,
            left=("192.0.2.254", 5000),
            left_daemon=("192.0.2.1", PORT),
            right=("203.0.113.254", 5000),
            right_daemon=("203.0.113.2", PORT),
        )
        lab.stack.callback(self.relay.close)
        keys = (lab.key(), lab.key())
        self.endpoints = ("192.0.2.254:5000", "203.0.113.254:5000")
        self.daemons: list[Daemon] = []
        for end, namespace in enumerate(self.namespaces):
            daemon = lab.daemon(None, namespace, lab.name("ab"[end]))
            daemon.setconf(
                f"[Interface]\nPrivateKey = {keys[end].private}\nListenPort = {PORT}\n"
                f"[Peer]\nPublicKey = {keys[1 - end].public}\n"
                f"AllowedIPs = {INNER[1 - end]}/32\nEndpoint = {self.endpoints[end]}\n"
            )
            daemon.up(f"{INNER[end]}/32")
            # The waits of TCP are no part of this test.
            route = f"{INNER[1 - end]} dev {daemon.name} rto_min 10ms initcwnd 40"
            namespace.ip("route", "add", *route.split())
            self.daemons.append(daemon)
        ping(a, INNER[1], 1)

    def carry(self, size: int) -> None:
        """Both ways."""
        exchange(*self.namespaces, INNER[1], size, size)

    def blamed(self) -> list[str | None]:
        return [daemon.report().get("gso_lost") for daemon in self.daemons]

    def told(self, end: int) -> list[str]:
        log = self.daemons[end].log().splitlines()
        return [line for line in log if "trains get lost" in line]


@pytest.fixture
def path(lab: Lab) -> Path:
    return Path(lab)


@pytest.mark.parametrize("fate", [lost, damaged, without_its_equal_tail])
def test_trains_that_do_not_arrive_are_found_out(
    path: Path, fate: Callable[[Train], Train]
) -> None:
    path.relay.on_train = fate

    def are_both_found_out() -> bool:
        path.carry(BYTES)
        return path.blamed() == list(path.endpoints)

    # Chance may acquit once; the next test is a minute later.
    wait_until(are_both_found_out, "both ends found out that trains do not arrive", seconds=100)
    trains = path.relay.trains
    path.carry(4 * BYTES)
    assert path.relay.trains == trains, "from now on there are single datagrams"
    for end, daemon in enumerate(path.daemons):
        assert daemon.report()["offload_udp_gso"] == "active", (
            "one path is no reason to give up all"
        )
        assert len(path.told(end)) == 1
        assert path.endpoints[end] in path.told(end)[0]


def test_a_path_that_loses_of_everything_is_not_blamed_on_trains(path: Path) -> None:
    path.relay.loss = 0.05
    for _ in range(4):
        path.carry(BYTES // 4)
    assert path.blamed() == [None, None]


def test_a_path_that_is_dead_now_and_then_is_not_blamed_on_trains(path: Path) -> None:
    def die() -> None:
        path.relay.dead_until = time.monotonic() + 0.4

    for _ in range(5):
        exchange(*path.namespaces, INNER[1], BYTES, BYTES, midway=die)
    assert path.blamed() == [None, None]


def test_a_path_that_is_fine_is_not_blamed(path: Path) -> None:
    for _ in range(4):
        path.carry(4 * BYTES)
    assert path.blamed() == [None, None]
    assert path.relay.trains > 0
