r"""What Linux asks of its own driver in tools/testing/selftests/wireguard/netns.sh, asked of a
daemon, block by block, in words of our own.

Sockets in a middle namespace that has nothing but a loopback, interfaces moved elsewhere:

      namespace left               namespace middle               namespace right
    +------------------+    +----------------------------+    +------------------+
    |  left's TUN ............ daemon    lo     daemon ............ right's TUN  |
    |  192.168.241.1   |    |  port 1                port 2 |    |  192.168.241.2   |
    |  fd00::1         |    |                            |    |  fd00::2         |
    +------------------+    +----------------------------+    +------------------+

Not here, since a daemon cannot have it: padding by the MTU of a route; a loop over two namespaces
that ends at once; link statistics that count whole datagrams; that an ICMP error to somebody whose
packet was translated on its way into the tunnel comes from the router's outer address; objects of
the kernel.
`scripts/selftest` runs this file again and again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.lab.daemon import Daemon
from tools.lab.keys import Key, encode
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace, add_address, cable, run
from tools.lab.traffic import Datagrams, exchange, payload, ping, ping_attempt
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only

# Curve points of small order, by which a key exchange always gives zero (RFC 7748, section 6.1).
SMALL_ORDER = [
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ec" + "ff" * 30 + "7f"),
    bytes.fromhex("ed" + "ff" * 30 + "7f"),
    bytes.fromhex("ee" + "ff" * 30 + "7f"),
]
MEBIBYTE = 1 << 20
MANY = 50
# What a loopback takes whole.
BIG_MTU = 34_736


@dataclass
class End:
    """An interface, the daemon that has its sockets, and where it is."""

    place: Namespace
    daemon: Daemon
    key: Key
    inner4: str
    inner6: str
    port: int

    @property
    def name(self) -> str:
        return self.daemon.name

    def endpoint(self, host: str = "127.0.0.1") -> str:
        return f"{host}:{self.port}"

    def set(self, *words: str) -> None:
        self.daemon.set(*words)

    def shown(self, what: str) -> list[list[str]]:
        return self.daemon.show(what)


class Secrets:
    """Files with keys, as `wg set` reads them."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory / "keys"
        self.directory.mkdir()

    def file(self, text: str) -> str:
        path = self.directory / f"key{len(list(self.directory.iterdir()))}"
        path.write_text(text + "\n")
        return str(path)


class Ring:
    """The drawing."""

    def __init__(self, lab: Lab, directory: Path, middle: Namespace | None = None) -> None:
        self.lab = lab
        self.secrets = Secrets(lab, directory)
        self.psk = self.secrets.file(lab.preshared_key())
        self.middle = middle or lab.namespace("m")
        self.left, self.right = self._end("l", 1), self._end("r", 2)
        self.meet()

    def _end(self, role: str, number: int) -> End:
        place = self.lab.namespace(role)
        daemon = self.lab.daemon(None, self.middle)
        self.middle.ip("link", "set", daemon.name, "netns", place.name)
        inner = f"192.168.241.{number}", f"fd00::{number}"
        return End(place, daemon, self.lab.key(), *inner, number)

    def meet(self) -> None:
        """Both know each other's keys and networks, not yet where the other is."""
        for here, there in (self.left, self.right), (self.right, self.left):
            add_address(here.place, here.name, f"{here.inner4}/24")
            add_address(here.place, here.name, f"{here.inner6}/112")
            here.set(
                "private-key", self.secrets.file(here.key.private), "listen-port", f"{here.port}"
            )
            self.know(here, there)
            here.place.ip("link", "set", here.name, "up")

    def know(self, here: End, there: End, *words: str) -> None:
        networks = f"{there.inner4}/32,{there.inner6}/128"
        peer = ("peer", there.key.public, "preshared-key", self.psk, "allowed-ips", networks)
        here.set(*peer, *words)

    def point(self, host: str = "127.0.0.1") -> None:
        self.left.set("peer", self.right.key.public, "endpoint", self.right.endpoint(host))
        self.right.set("peer", self.left.key.public, "endpoint", self.left.endpoint(host))

    def set_mtu(self, mtu: int) -> None:
        for end in (self.left, self.right):
            end.place.ip("link", "set", end.name, "mtu", str(mtu))

    def ping(self) -> None:
        ping(self.left.place, self.right.inner4, 1)

    def traffic(self) -> None:
        """Both families both ways: echoes, streams alone and many at once, datagrams."""
        for here, there in (self.left, self.right), (self.right, self.left):
            for address in (there.inner4, there.inner6):
                ping(here.place, address, 10)
        left, right = self.left, self.right
        exchange(left.place, right.place, right.inner4, MEBIBYTE, MEBIBYTE)
        exchange(right.place, left.place, left.inner6, MEBIBYTE, MEBIBYTE)
        with Datagrams(right.place, left.place, left.inner4) as datagrams:
            for length in (0, 1, 500, 1392, 20_000):
                datagrams.passes(payload(length, length))
        with Datagrams(left.place, right.place, right.inner6) as datagrams:
            datagrams.passes(payload(1000, 1))
        with ThreadPoolExecutor(MANY) as pool:
            streams = [
                pool.submit(
                    exchange, left.place, right.place, right.inner4, 1 << 14, 1 << 14, seed=number
                )
                for number in range(MANY)
            ]
            for stream in streams:
                stream.result()


@pytest.fixture
def ring(lab: Lab, tmp_path: Path) -> Ring:
    return Ring(lab, tmp_path)


# ---- two interfaces whose sockets are elsewhere


def test_ten_echoes_are_counted_to_the_byte(ring: Ring) -> None:
    ring.point()
    ping(ring.right.place, ring.left.inner4, 10, once=True)
    # Handshake, ten datagrams of 128 bytes, and the keepalive that confirms or one more.
    received, sent = map(int, ring.right.shown("transfer")[0][1:])
    assert received == 92 + 10 * 128
    assert sent in (148 + 10 * 128, 148 + 10 * 128 + 32)
    assert [sent, received] == list(map(int, ring.left.shown("transfer")[0][1:]))[0:2]
    assert int(ring.left.shown("latest-handshakes")[0][1]) > 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("mtu", [1420, BIG_MTU])
def test_all_traffic_passes_over_either_family(ring: Ring, host: str, mtu: int) -> None:
    ring.set_mtu(mtu)
    ring.point(host)
    ring.traffic()


def test_each_end_may_move_in_either_family(ring: Ring) -> None:
    ring.point()
    ring.ping()
    ring.middle.ip("-4", "address", "flush", "dev", "lo")
    ring.middle.ip("address", "add", "127.212.121.99/8", "dev", "lo")
    ring.left.set("listen-port", "9999", "peer", ring.right.key.public, "endpoint", "127.0.0.1:2")
    ping(ring.left.place, ring.right.inner6, 1)
    assert ring.right.shown("endpoints") == [[ring.left.key.public, "127.212.121.99:9999"]]
    ring.left.set("listen-port", "9998", "peer", ring.right.key.public, "endpoint", "[::1]:2")
    ping(ring.left.place, ring.right.inner4, 1)
    assert ring.right.shown("endpoints") == [[ring.left.key.public, "[::1]:9998"]]


def test_who_may_not_use_an_address_moves_no_packet_but_the_endpoint(ring: Ring) -> None:
    ring.point("[::1]")
    ring.left.set("peer", ring.right.key.public, "allowed-ips", "192.168.241.0/24")
    with Datagrams(ring.right.place, ring.left.place, ring.left.inner4) as datagrams:
        datagrams.passes(b"X")
        stranger = ring.lab.key().public
        ring.left.set("peer", stranger, "allowed-ips", f"{ring.right.inner4}/32")
        ring.right.set("listen-port", "9997")
        datagrams.send(b"X")
        refused = "dropped_disallowed_source"
        wait_until(lambda: int(ring.left.daemon.report()[refused]) > 0, "it is refused")
        datagrams.receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            datagrams.receive()
    ring.left.set("peer", stranger, "remove")
    assert ring.left.shown("endpoints") == [[ring.right.key.public, "[::1]:9997"]]


def test_a_private_key_is_replaced_and_hands_are_shaken_at_once(ring: Ring) -> None:
    ring.point()
    ring.ping()
    third = ring.lab.key()
    ring.left.set("private-key", ring.secrets.file(third.private))
    ring.right.set("peer", ring.left.key.public, "remove")
    ring.left.key = third
    ring.know(ring.right, ring.left)
    ring.ping()


def test_a_tunnel_goes_through_a_tunnel(ring: Ring) -> None:
    ring.point()
    inner = Ring.__new__(Ring)
    inner.lab, inner.secrets, inner.psk = ring.lab, ring.secrets, ring.psk
    ends = []
    for number, outer in enumerate((ring.left, ring.right), 1):
        outer.place.ip("address", "flush", "dev", outer.name)
        outer.inner4, outer.inner6 = f"10.5.0.{number}", f"fd00::5:{number}"
        for address in (f"{outer.inner4}/24", f"{outer.inner6}/112"):
            add_address(outer.place, outer.name, address)
        daemon = ring.lab.daemon(None, outer.place)
        place = f"192.168.241.{number}", f"fd00::{number}"
        ends.append(End(outer.place, daemon, ring.lab.key(), *place, 5))
    for here, there in (ring.left, ring.right), (ring.right, ring.left):
        ring.know(here, there)
    inner.left, inner.right = ends
    inner.meet()
    inner.left.set("peer", inner.right.key.public, "endpoint", f"[{ring.right.inner6}]:5")
    inner.right.set("peer", inner.left.key.public, "endpoint", f"[{ring.left.inner6}]:5")
    inner.set_mtu(1340)
    inner.traffic()


# ---- a router between the two


class Routed(Ring):
    """The left end behind a router that translates: its socket and its TUN are in one place."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.router = lab.namespace("n")
        super().__init__(lab, directory)

    def _end(self, role: str, number: int) -> End:
        place = self.lab.namespace(role)
        outside = {"l": ("192.168.1.1", "192.168.1.100"), "r": ("10.0.0.1", "10.0.0.100")}[role]
        cable(
            (self.router, f"veth{role}", [f"{outside[0]}/24"]),
            (place, "veth", [f"{outside[1]}/24"]),
        )
        if role == "l":
            place.ip("route", "add", "default", "via", outside[0])
        inner = f"192.168.241.{number}", f"fd00::{number}"
        return End(place, self.lab.daemon(None, place), self.lab.key(), *inner, number)

    def start(self, keepalive: int) -> None:
        self.router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.router.nft(
            "table ip nat {\nchain out {\ntype nat hook postrouting priority srcnat\n"
            "ip saddr 192.168.1.0/24 ip daddr 10.0.0.0/24 snat to 10.0.0.1\n}\n}\n"
        )
        for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
            self.router.run("sysctl", "-qw", f"net.netfilter.{name}=2")
        where = ("endpoint", "10.0.0.100:2", "persistent-keepalive", str(keepalive))
        self.left.set("peer", self.right.key.public, *where)
        self.ping()


@pytest.fixture
def routed(lab: Lab, tmp_path: Path) -> Routed:
    return Routed(lab, tmp_path)


def keepalives(end: End) -> int:
    return int(end.shown("transfer")[0][2])


def test_keepalives_outlive_the_memory_of_a_router(routed: Routed) -> None:
    routed.start(keepalive=1)
    ping(routed.right.place, routed.left.inner4, 1)
    assert routed.right.shown("endpoints") == [[routed.left.key.public, "10.0.0.1:1"]]
    # Three beats later the router, which forgets in two seconds, still knows the way in.
    before = keepalives(routed.left)
    wait_until(lambda: keepalives(routed.left) >= before + 3 * 32, "three keepalives")
    ping(routed.right.place, routed.left.inner4, 1)


def test_a_socket_bound_to_the_tunnel_and_a_mark_that_changes_the_route_lose_nothing(
    routed: Routed,
) -> None:
    routed.start(keepalive=0)
    left, there = routed.left, routed.right.inner4
    ping(left.place, there, 1, options=("-I", left.name))
    left.place.nft(
        "table ip marks {\nchain out {\ntype route hook output priority mangle\n"
        "meta mark set 1\n}\n}\n"
    )
    ping(left.place, there, 1)
    ping(left.place, there, 1, options=("-I", left.name))


def test_a_tunnel_within_is_reached_by_another_peer_and_a_circle_ends(routed: Routed) -> None:
    routed.start(keepalive=0)
    left, right = routed.left, routed.right
    third = routed.lab.key()
    words = ("allowed-ips", "192.168.242.2/32", "endpoint", f"{right.inner4}:5")
    left.set("peer", third.public, *words)
    add_address(left.place, left.name, "192.168.242.1/24")
    within = routed.lab.daemon(None, right.place)
    within.up("192.168.242.2/24")
    within.set("private-key", routed.secrets.file(third.private), "listen-port", "5")
    within.set("peer", left.key.public, "allowed-ips", "192.168.242.1/32")
    ping(left.place, "192.168.242.2", 1)
    left.set("peer", third.public, "endpoint", "192.168.242.2:5")
    assert ping_attempt(left.place, "192.168.242.2").returncode != 0
    left.set("peer", third.public, "remove")
    routed.ping()


def test_a_default_route_by_mark_carries_a_hundred_echoes_of_each_family(routed: Routed) -> None:
    routed.start(keepalive=0)
    left, right = routed.left, routed.right
    add_address(left.place, "veth", "fc00::9/96")
    left.place.ip("-6", "route", "add", "default", "via", "fc00::1")
    for address in ("192.168.99.7/32", "abab::1111/128"):
        add_address(right.place, right.name, address)
    peer = ("peer", right.key.public, "allowed-ips", "192.168.99.7,abab::1111")
    left.set("fwmark", "51820", *peer)
    for family in ("-4", "-6"):
        ip = left.place.ip
        ip(family, "route", "add", "default", "dev", left.name, "table", "51820")
        ip(family, "rule", "add", "not", "fwmark", "51820", "table", "51820")
        ip(family, "rule", "add", "table", "main", "suppress_prefixlength", "0")
    left.place.run("sysctl", "-qw", "net.ipv4.conf.veth.rp_filter=0")
    ping(left.place, "192.168.99.7", 100)
    ping(left.place, "abab::1111", 100)


def test_who_is_translated_into_the_tunnel_is_told_that_nobody_is_there(routed: Routed) -> None:
    routed.start(keepalive=0)
    right, router = routed.right, routed.router
    right.place.nft(
        "table ip nat {\nchain out {\ntype nat hook postrouting priority srcnat\n"
        f"ip saddr 10.0.0.0/24 ip daddr 192.168.241.0/24 snat to {right.inner4}\n}}\n}}\n"
    )
    right.place.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    router.ip("route", "add", routed.left.inner4, "via", "10.0.0.100")
    right.set("peer", routed.left.key.public, "remove")
    answer = router.attempt("ping", "-n", "-c", "1", "-W", "1", routed.left.inner4)
    assert "icmp_seq=1 Destination Host Unreachable" in answer.stdout, answer.stdout


# ---- source addresses: kept, but not for ever


class Cabled(Ring):
    """A cable without addresses between the two."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.spaces = dict(zip("lr", (lab.namespace("l"), lab.namespace("r")), strict=True))
        cable((self.spaces["l"], "veth", []), (self.spaces["r"], "veth", []))
        super().__init__(lab, directory)

    def _end(self, role: str, number: int) -> End:
        place = self.spaces[role]
        inner = f"192.168.241.{number}", f"fd00::{number}"
        return End(place, self.lab.daemon(None, place), self.lab.key(), *inner, number)

    def goes_to(self, host: str) -> None:
        """The right end speaks to the left one there, and is answered from there."""
        self.right.set("peer", self.left.key.public, "endpoint", f"{host}:1")
        ping(self.right.place, self.left.inner4, 1)
        assert self.right.shown("endpoints") == [[self.left.key.public, f"{host}:1"]]


@pytest.fixture
def cabled(lab: Lab, tmp_path: Path) -> Cabled:
    return Cabled(lab, tmp_path)


def test_an_address_that_goes_away_is_left_for_another(cabled: Cabled) -> None:
    left, right = cabled.left.place, cabled.right.place
    left.run("sysctl", "-qw", "net.ipv4.conf.veth.promote_secondaries=1")
    for namespace, number in ((left, 1), (right, 2)):
        for address in (f"10.0.0.{number}/24", f"fd00:aa::{number}/96"):
            add_address(namespace, "veth", address)
    for host, old, new in (
        ("10.0.0.2", "10.0.0.1/24", "10.0.0.10/24"),
        ("[fd00:aa::2]", "fd00:aa::1/96", "fd00:aa::10/96"),
    ):
        cabled.left.set("peer", cabled.right.key.public, "endpoint", f"{host}:2")
        cabled.ping()
        add_address(left, "veth", new)
        left.ip("address", "delete", old, "dev", "veth")
        cabled.ping()


def test_answers_come_from_the_address_that_was_written_to(cabled: Cabled) -> None:
    left, right = cabled.left.place, cabled.right.place
    for address in ("10.0.0.1/24", "10.0.0.2/24", "fd00:aa::1/96", "fd00:aa::2/96"):
        add_address(left, "veth", address)
    for address in ("10.0.0.3/24", "fd00:aa::3/96"):
        add_address(right, "veth", address)
    for host in ("10.0.0.1", "[fd00:aa::1]", "10.0.0.2", "[fd00:aa::2]"):
        cabled.goes_to(host)
    # Also from one of another interface than the route back.
    left.ip("link", "add", "other", "type", "veth", "peer", "name", "nobody")
    add_address(left, "other", "10.50.0.1/24")
    left.ip("link", "set", "other", "up")
    right.ip("route", "add", "10.50.0.0/24", "dev", "veth")
    cabled.goes_to("10.50.0.1")


def test_a_better_route_is_taken_over_an_address_that_was_kept(cabled: Cabled) -> None:
    left, right = cabled.left.place, cabled.right.place
    cable((left, "second", ["10.0.0.3/24"]), (right, "second", []))
    add_address(left, "veth", "10.0.0.1/24")
    add_address(right, "veth", "10.0.0.2/24")
    for namespace in (left, right):
        for name in ("all", "veth", "second"):
            namespace.run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")
    for name in ("veth", "second"):
        left.ip("route", "flush", "dev", name)
    route = ("route", "add", "10.0.0.0/24", "dev")
    left.ip(*route, "veth", "src", "10.0.0.1", "metric", "2")
    cabled.left.set("peer", cabled.right.key.public, "endpoint", "10.0.0.2:2")
    cabled.ping()
    assert cabled.right.shown("endpoints") == [[cabled.left.key.public, "10.0.0.1:1"]]
    left.ip(*route, "second", "src", "10.0.0.3", "metric", "1")

    def follows() -> bool:
        ping(left, cabled.right.inner4, 1)
        return cabled.right.shown("endpoints") == [[cabled.left.key.public, "10.0.0.3:1"]]

    wait_until(follows, "the better route is taken")


# ---- configurations


@dataclass
class Bare:
    """One interface that nobody speaks to."""

    lab: Lab
    place: Namespace
    daemon: Daemon
    secrets: Secrets

    def setconf(self, lines: list[str]) -> None:
        self.daemon.setconf("\n".join(lines) + "\n")

    def allowed(self) -> list[list[str]]:
        """For each peer, its key and its networks."""
        return [[line[0], *line[1].split()] for line in self.daemon.show("allowed-ips")]


@pytest.fixture
def bare(lab: Lab, tmp_path: Path) -> Bare:
    place = lab.namespace("c")
    return Bare(lab, place, lab.daemon(None, place), Secrets(lab, tmp_path))


def test_long_configurations_are_told_as_they_were_set(bare: Bare) -> None:
    lines = ["[Interface]", f"PrivateKey = {bare.lab.key().private}"]
    lines += ["[Peer]", f"PublicKey = {bare.lab.key().public}"]
    lines += [
        f"AllowedIPs = {a}.{b}.0.0/16,{a}::{b}/128" for a in range(1, 256) for b in range(256)
    ]
    bare.setconf(lines)
    assert [len(line) for line in bare.allowed()] == [1 + 255 * 256 * 2]

    lines = []
    for a in range(1, 41):
        lines += ["[Peer]", f"PublicKey = {bare.lab.key().public}"]
        lines += [f"AllowedIPs = {a}.{b}.0.0/16" for b in range(1, 53)]
    bare.setconf(lines)
    assert [len(line) for line in bare.allowed()] == [53] * 40

    lines = []
    for _ in range(30):
        lines += ["[Peer]", f"PublicKey = {bare.lab.key().public}"]
    bare.setconf([*lines, "AllowedIPs = 255.2.3.4/32,abcd::255/128"])
    assert bare.daemon.wg("showconf", bare.daemon.name).count("[Peer]") == 30


def test_many_networks_of_one_peer_and_none_of_another(bare: Bare) -> None:
    first, second = bare.lab.key().public, bare.lab.key().public
    networks = ",".join(f"abcd::{number}" for number in range(1, 198))
    bare.daemon.set("peer", first)
    bare.daemon.set("peer", second, "allowed-ips", networks)
    assert bare.allowed()[0] == [first, "(none)"]
    assert len(bare.allowed()[1]) == 198


def test_an_interface_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AssertionError, match="gave 1"):
        run("wg", "show", "doesnotexist")


def test_keys_come_and_go(bare: Bare) -> None:
    first, second = bare.lab.key(), bare.lab.key()
    psk = bare.lab.preshared_key()
    file, show = bare.secrets.file, bare.daemon.show
    peer = ("peer", second.public)
    bare.daemon.set("private-key", file(first.private), *peer, "preshared-key", file(psk))
    assert show("private-key") == [[first.private]]
    assert show("preshared-keys") == [[second.public, psk]]
    bare.daemon.set("private-key", "/dev/null", *peer, "preshared-key", "/dev/null")
    assert show("private-key") == [["(none)"]]
    assert show("preshared-keys") == [[second.public, "(none)"]]
    # Whoever is a peer of itself is none.
    bare.daemon.set("private-key", file(second.private))
    assert show("public-key") == [[second.public]]
    assert show("peers") == []
    bare.daemon.set(*peer)
    assert show("peers") == []
    bare.daemon.set("private-key", file(first.private))
    bare.daemon.set(*peer)
    assert show("peers") == [[second.public]]


def test_a_private_key_is_shown_as_the_curve_uses_it(bare: Bare) -> None:
    bare.daemon.set("private-key", bare.secrets.file(encode(b"\xff" * 32)))
    assert bare.daemon.show("private-key") == [[encode(b"\xf8" + b"\xff" * 30 + b"\x7f")]]


def test_networks_within_networks_are_taken_and_replaced(bare: Bare) -> None:
    key = bare.lab.key().public
    for networks in (
        "0.0.0.0/0,10.0.0.0/8,100.0.0.0/10,172.16.0.0/12,192.168.0.0/16",
        "0.0.0.0/0",
        "::/0,1700::/111,5000::/4,e000::/37,9000::/75",
        "::/0",
    ):
        bare.daemon.set("peer", key, "allowed-ips", networks)
        assert sorted(bare.allowed()[0][1:]) == sorted(networks.split(","))
    bare.daemon.set("peer", key, "remove")
    assert bare.allowed() == []


def test_nothing_is_sent_to_a_key_of_small_order(bare: Bare) -> None:
    honest = bare.lab.key().public
    with Datagrams(bare.place, bare.place, "127.0.0.1") as listener:
        port = listener.receiver.getsockname()[1]
        where = ("persistent-keepalive", "1", "endpoint", f"127.0.0.1:{port}")
        bare.daemon.set("private-key", bare.secrets.file(bare.lab.key().private))
        for point in SMALL_ORDER:
            bare.daemon.set("peer", encode(point), *where)
        assert len(bare.daemon.show("peers")) == len(SMALL_ORDER)
        bare.place.ip("link", "set", bare.daemon.name, "up")
        # What is asked for last comes last: were there anything for the others, it had come.
        bare.daemon.set("peer", honest, *where)
        assert listener.receive()[:1] == b"\1"
        sent = {line[0]: int(line[2]) for line in bare.daemon.show("transfer")}
    assert sent.pop(honest) > 0
    assert set(sent.values()) == {0}
