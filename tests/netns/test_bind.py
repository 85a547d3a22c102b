r"""The daemon bound to an interface, a VRF or an address. Two ways lead from a to b, whose address
lies behind both, and the kernel prefers the first:

      namespace a                                 namespace b
    +----------------------------+              +--------------------------+
    |  first   192.0.2.1/24    ====================  first   192.0.2.2/24  |
    |          192.0.2.11/24     |              |                          |
    |          2001:db8:1::1/64  |              |          2001:db8:1::2   |
    |                            |              |    lo    203.0.113.1     |
    |                            |              |          2001:db8:ff::1  |
    |  second  198.51.100.1/24 ====================  second  198.51.100.2  |
    |          2001:db8:2::1/64  |              |          2001:db8:2::2   |
    +----------------------------+              +--------------------------+
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from tools.lab.daemon import ask
from tools.lab.lab import PORT, Lab, Side
from tools.lab.namespaces import Namespace, add_address, cable
from tools.lab.squatter import squatting
from tools.lab.traffic import exchange, ping
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only

FIRST, SECOND = ("first", "192.0.2", "2001:db8:1:"), ("second", "198.51.100", "2001:db8:2:")
BEHIND = {4: "203.0.113.1", 6: "2001:db8:ff::1"}


class Ways:
    """The drawing, with a daemon at each end; only a knows where the other is."""

    def __init__(self, lab: Lab, outer: int = 4, **options: Any) -> None:
        self.lab, self.outer = lab, outer
        self.near, self.far = lab.namespace("a"), lab.namespace("b")
        self.cable(FIRST)
        self.cable(SECOND)
        add_address(self.near, "first", "192.0.2.11/24")
        for address in (f"{BEHIND[4]}/32", f"{BEHIND[6]}/128"):
            add_address(self.far, "lo", address)
        self.a = self._side(1, self.near, **options)
        self.b = self._side(2, self.far)
        self.b.outer4, self.b.outer6 = BEHIND[4], BEHIND[6]
        self._configure(self.a, self.b, outer)
        self._configure(self.b, self.a, None)

    def cable(self, way: tuple[str, str, str]) -> None:
        name, net4, net6 = way
        ends = [[f"{net4}.{host}/24", f"{net6}:{host}/64"] for host in (1, 2)]
        cable((self.near, name, ends[0]), (self.far, name, ends[1]))
        for namespace in (self.near, self.far):
            # Answers may come by the way that the kernel would not have taken.
            namespace.run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")
        self.route(way)

    def route(self, way: tuple[str, str, str], *table: str) -> None:
        name, net4, net6 = way
        metric = "10" if way is FIRST else "20"
        for target, gateway in ((BEHIND[4], f"{net4}.2"), (BEHIND[6], f"{net6}:2")):
            by = ["via", gateway, "dev", name, "metric", metric]
            self.near.ip("route", "replace", target, *by, *table)

    def _side(self, number: int, namespace: Namespace, **options: Any) -> Side:
        return self.lab.side(None, number, namespace, **options)

    def _configure(self, side: Side, peer: Side, outer: int | None) -> None:
        side.daemon.setconf(side.interface_section() + peer.peer_section(outer=outer))
        side.daemon.up(f"{side.inner4}/24", f"{side.inner6}/64")

    def set(self, *lines: str) -> int:
        """The errno that the daemon answers with, positive; 0 when it was done."""
        return -int(ask(self.a.daemon.name, "\n".join(["set=1", *lines]))["errno"])

    def bound_to(self) -> dict[str, str]:
        report = self.a.daemon.report()
        return {key: value for key, value in report.items() if key.startswith("pywg_bind_")}

    def ping(self) -> None:
        ping(self.near, self.b.inner4, 1)

    def seen_from(self) -> str:
        """The address that b hears a from, after a has spoken."""
        self.ping()
        host, _, port = self.b.daemon.peer(self.a.key.public)["endpoint"].rpartition(":")
        assert port == str(PORT)
        return host.strip("[]")

    def sockets(self) -> list[tuple[str, str]]:
        """Family and local place of every socket on our port, as the kernel tells them."""
        found = []
        for family in ("-4", "-6"):
            lines = self.near.run("ss", "-Huan", family, f"sport = :{PORT}").splitlines()
            found += [(family, line.split()[3]) for line in lines]
        return found


@pytest.fixture
def ways(lab: Lab) -> Ways:
    return Ways(lab)


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
@pytest.mark.parametrize("threads", [1, 3])
def test_bind_device_takes_the_second_way_and_back(lab: Lab, threads: int, outer: int) -> None:
    ways = Ways(lab, outer, environment={"PYWG_THREADS": str(threads)})
    first, second = "192.0.2.1", "198.51.100.1"
    if outer == 6:
        first, second = "2001:db8:1::1", "2001:db8:2::1"
    assert ways.seen_from() == first
    assert ways.set("pywg_bind_device=second") == 0
    assert ways.bound_to() == {"pywg_bind_device": "second"}
    assert ways.seen_from() == second
    assert len(ways.sockets()) == 2 * threads
    assert all("%second" in place for _, place in ways.sockets())
    exchange(ways.near, ways.far, ways.b.inner4, 4 << 20, 4 << 20)
    assert ways.seen_from() == second
    assert ways.set("pywg_bind_device=") == 0
    assert ways.bound_to() == {}
    assert ways.seen_from() == first


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
def test_bind_address_chooses_the_second_address_of_a_device(lab: Lab, outer: int) -> None:
    ways = Ways(lab, outer)
    add_address(ways.near, "first", "2001:db8:1::11/64")
    ways.ping()  # a source is learnt, which is not to be used any more
    chosen = "192.0.2.11" if outer == 4 else "2001:db8:1::11"
    assert ways.set(f"pywg_bind_address={chosen}") == 0
    assert ways.seen_from() == chosen
    # The other family has no address, so it has no socket.
    assert [family for family, _ in ways.sockets()] == [f"-{outer}"]
    assert ways.set("pywg_bind_address=192.0.2.11", "pywg_bind_address=2001:db8:1::11") == 0
    assert ways.seen_from() == chosen
    assert [family for family, _ in ways.sockets()] == ["-4", "-6"]
    assert ways.set("pywg_bind_address=") == 0
    assert ways.bound_to() == {}
    ways.ping()


def test_what_is_bound_stays_so_through_down_and_up_and_a_mark(ways: Ways) -> None:
    assert ways.set("pywg_bind_device=second", "pywg_bind_address=198.51.100.1") == 0
    assert ways.seen_from() == "198.51.100.1"
    ways.a.daemon.set("fwmark", "0x77")
    assert ways.seen_from() == "198.51.100.1"
    ways.a.daemon.set("fwmark", "0")
    name = ways.a.daemon.name
    ways.near.ip("link", "set", name, "down")
    wait_until(lambda: ways.a.daemon.report()["up"] == "false", "the link is down")
    assert ways.sockets() == []
    ways.near.ip("link", "set", name, "up")
    wait_until(lambda: ways.a.daemon.report()["up"] == "true", "the link is up")
    assert ways.seen_from() == "198.51.100.1"
    assert ways.sockets() == [("-4", f"198.51.100.1%second:{PORT}")]


def test_wg_reads_a_bound_interface_without_a_word(ways: Ways) -> None:
    before = ways.a.daemon.wg("showconf", ways.a.daemon.name)
    assert ways.set("pywg_bind_device=second", "pywg_bind_address=198.51.100.1") == 0
    assert ways.a.daemon.wg("showconf", ways.a.daemon.name) == before
    shown = ways.near.attempt("wg", "show", ways.a.daemon.name)
    assert shown.returncode == 0 and shown.stderr == ""
    assert "pywg" not in ask(ways.a.daemon.name, "get=1")


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        (
            ["pywg_bind_device=nosuchlink"],
            errno.ENODEV,
            "there is no interface nosuchlink to bind to (BindDevice): "
            "make it first, or correct its name",
        ),
        (
            ["pywg_bind_address=192.0.2.99"],
            errno.EADDRNOTAVAIL,
            "no interface has the address 192.0.2.99 to bind to (BindAddress): "
            "add it first, or correct it",
        ),
        (
            ["pywg_bind_device=", "pywg_bind_address=fe80::1"],
            errno.EINVAL,
            "the link-local address fe80::1 (BindAddress) means nothing without its interface: "
            "name that with BindDevice",
        ),
        (
            ["pywg_bind_address=192.0.2.1", "pywg_bind_address=192.0.2.11"],
            errno.EINVAL,
            "line 2: a second pywg_bind_address of the same family",
        ),
    ],
    ids=["no-device", "no-address", "link-local", "two-of-a-family"],
)
def test_what_fails_leaves_the_old_sockets_at_work(
    ways: Ways, lines: list[str], code: int, said: str
) -> None:
    assert ways.set("pywg_bind_device=second") == 0
    sockets = ways.sockets()
    assert ways.set(*lines) == code
    assert said in ways.a.daemon.log()
    assert ways.sockets() == sockets
    assert ways.seen_from() == "198.51.100.1"


def test_a_port_that_another_has_on_that_address_refuses(ways: Ways) -> None:
    assert ways.set("pywg_bind_address=192.0.2.1") == 0
    with ways.near.socket() as other:
        other.bind(("192.0.2.11", PORT))
        assert ways.set("pywg_bind_address=192.0.2.11") == errno.EADDRINUSE
        assert ways.seen_from() == "192.0.2.1"
    assert ways.set("pywg_bind_address=192.0.2.11") == 0
    assert ways.seen_from() == "192.0.2.11"


def test_two_daemons_share_a_port_on_different_addresses(ways: Ways) -> None:
    assert ways.set("pywg_bind_address=192.0.2.1") == 0
    other = ways.lab.daemon(None, ways.near)
    answer = ask(other.name, f"set=1\nlisten_port={PORT}\npywg_bind_address=192.0.2.11")
    assert answer["errno"] == "0"
    other.up()
    wait_until(lambda: other.report()["up"] == "true", "the second daemon is up")
    # Neither gets into the other's group, however many threads either has.
    assert ask(other.name, "set=1\npywg_bind_address=192.0.2.1")["errno"] == str(-errno.EADDRINUSE)
    assert ways.seen_from() == "192.0.2.1"


@pytest.mark.parametrize("threads", [1, 3])
def test_nobody_else_gets_the_port_while_it_is_bound_anew(lab: Lab, threads: int) -> None:
    ways = Ways(lab, environment={"PYWG_THREADS": str(threads)})
    add_address(ways.near, "first", "2001:db8:1::11/64")
    # Each shares the port, and at least one of its places, with the one before.
    bindings: list[list[str]] = [
        ["pywg_bind_device=second"],
        ["pywg_bind_device=second", "pywg_bind_address=198.51.100.1", "pywg_bind_address=::"],
        ["pywg_bind_device=", "pywg_bind_address=198.51.100.1", "pywg_bind_address=::"],
        ["pywg_bind_address=198.51.100.1", "pywg_bind_address=2001:db8:1::11"],
        ["pywg_bind_address="],
    ]
    # Those that the daemon has all the time, and all of them.
    with squatting(ways.near, PORT, "198.51.100.1", "0.0.0.0", "::") as squatter:
        for lines in bindings * 40:
            assert ways.set(*lines) == 0
        assert squatter.stop() == ""
    assert ways.bound_to() == {}
    ways.ping()


def test_an_interface_that_comes_back_is_bound_to_again(ways: Ways) -> None:
    assert ways.set("pywg_bind_device=second") == 0
    assert ways.seen_from() == "198.51.100.1"
    ways.near.ip("link", "delete", "second")
    ways.cable(SECOND)  # to the kernel it is another one
    wait_until(lambda: "bound to second again" in ways.a.daemon.log(), "it is noticed")
    assert ways.seen_from() == "198.51.100.1"


def test_an_address_that_comes_late_brings_the_tunnel_up(ways: Ways) -> None:
    assert ways.set("pywg_bind_address=192.0.2.11") == 0
    name = ways.a.daemon.name
    ways.near.ip("link", "set", name, "down")
    wait_until(lambda: ways.a.daemon.report()["up"] == "false", "the link is down")
    ways.near.ip("address", "delete", "192.0.2.11/24", "dev", "first")
    ways.near.ip("link", "set", name, "up")
    wait_until(lambda: "bind: EADDRNOTAVAIL" in ways.a.daemon.log(), "it says why not")
    assert ways.a.daemon.report()["up"] == "false"
    add_address(ways.near, "first", "192.0.2.11/24")
    wait_until(lambda: ways.a.daemon.report()["up"] == "true", "the link is up")
    assert ways.seen_from() == "192.0.2.11"


@pytest.fixture
def vrf(ways: Ways) -> Iterator[Ways]:
    """The second way lies in a VRF, with its own table."""
    made = ways.near.attempt("ip", "link", "add", "red", "type", "vrf", "table", "100")
    if made.returncode != 0:
        pytest.skip(f"this kernel has no VRF: {made.stderr.strip()}")
    ways.near.ip("link", "set", "red", "up")
    ways.near.ip("link", "set", "second", "master", "red")
    # Lost when an interface changes its table.
    ways.near.ip("address", "replace", "2001:db8:2::1/64", "dev", "second", "nodad")
    ways.route(SECOND, "vrf", "red")
    yield ways


def test_a_vrf_is_bound_to_by_the_name_of_its_master(vrf: Ways) -> None:
    assert vrf.set("pywg_bind_device=red") == 0
    assert vrf.seen_from() == "198.51.100.1"
    exchange(vrf.near, vrf.far, vrf.b.inner4, 1 << 20, 1 << 20)
    assert vrf.set("pywg_bind_address=192.0.2.1") == errno.EADDRNOTAVAIL  # it is outside
    assert vrf.set("pywg_bind_address=198.51.100.1") == 0
    assert vrf.seen_from() == "198.51.100.1"
