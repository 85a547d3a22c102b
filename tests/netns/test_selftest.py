"""What the kernel's own selftest of its driver asks for and no other file here does. Which block of
it is which test: tools/selftest.py."""

from __future__ import annotations

import ipaddress
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tools.lab.daemon import Daemon
from tools.lab.keys import decode, encode, new_key, new_psk
from tools.lab.lab import Lab
from tools.lab.namespaces import add_address
from tools.lab.stream import SOON
from tools.lab.traffic import Datagrams, exchange, payload, ping
from tools.reference import wireguard

# As large as an interface can be made over a loopback device of the kernel's usual size.
LARGE_MTU = 34816 - 80
BYTES = 1 << 20


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
def test_everything_passes_at_a_large_mtu_and_at_the_usual_one_again(lab: Lab, outer: int) -> None:
    tunnel = lab.tunnel(outer=outer)
    a, b = tunnel.a.namespace, tunnel.b.namespace
    for namespace in (a, b):
        namespace.ip("link", "set", "veth", "mtu", "65535")
    for mtu in (LARGE_MTU, 1420):
        for side in (tunnel.a, tunnel.b):
            side.namespace.ip("link", "set", side.daemon.name, "mtu", str(mtu))
        for address in (tunnel.b.inner4, tunnel.b.inner6):
            ping(a, address, size=mtu - 48)
            exchange(a, b, address, BYTES, BYTES)
            with Datagrams(a, b, address) as datagrams:
                for length in (1, mtu - 48, 60_000):
                    datagrams.passes(payload(length, length))


@pytest.mark.parametrize("count", [4, 5, 50])
def test_tcp_connections_side_by_side_all_end_well(lab: Lab, count: int) -> None:
    tunnel = lab.tunnel()
    a, b, address = tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4
    tunnel.session()
    with ThreadPoolExecutor(count) as pool:
        runs = [
            pool.submit(exchange, a, b, address, BYTES // 4, BYTES // 4, seconds=60, seed=seed)
            for seed in range(count)
        ]
        for run in runs:
            run.result()


def test_a_socket_that_is_bound_to_the_interface_sends_through_it_also_when_marked(
    lab: Lab,
) -> None:
    """A mark that a firewall sets makes the kernel route the packet once more."""
    tunnel = lab.tunnel()
    a, bound = tunnel.a.namespace, ("-I", tunnel.a.daemon.name)
    ping(a, tunnel.b.inner4, options=bound)
    a.nft(
        "table inet marks { chain output { type route hook output priority mangle;"
        " meta mark set 1; }; }"
    )
    for options in ((), bound):
        ping(a, tunnel.b.inner4, options=options)
        ping(a, tunnel.b.inner6, options=options)


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
def test_a_session_leaves_an_address_that_is_taken_away(lab: Lab, outer: int) -> None:
    tunnel = lab.tunnel(outer=outer)
    a, peer = tunnel.a, tunnel.b
    tunnel.session()
    old, fresh = (
        ("192.0.2.1/24", "192.0.2.10") if outer == 4 else ("2001:db8::1/64", "2001:db8::10")
    )
    a.namespace.run("sysctl", "-qw", "net.ipv4.conf.veth.promote_secondaries=1")
    add_address(a.namespace, "veth", f"{fresh}/{24 if outer == 4 else 64}")
    a.namespace.ip("address", "delete", old, "dev", "veth")
    ping(a.namespace, peer.inner4, 1, seconds=SOON)
    endpoint = peer.daemon.peer(a.key.public)["endpoint"]
    assert endpoint.rpartition(":")[0].strip("[]") == fresh


# What is told to it.


def allowed_ips(daemon: Daemon) -> dict[str, list[str]]:
    rows = daemon.show("allowed-ips")
    return {public: prefixes.split() for public, prefixes in rows}


def test_a_peer_with_more_prefixes_than_any_answer_of_netlink_holds(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    wanted = {
        prefix
        for a in range(1, 256)
        for b in range(256)
        for prefix in (f"{a}.{b}.0.0/16", f"{ipaddress.ip_address(f'{a}::{b}')}/128")
    }
    key, peer = lab.key(), new_key().public
    lines = ["[Interface]", f"PrivateKey = {key.private}", "[Peer]", f"PublicKey = {peer}"]
    lines += [f"AllowedIPs = {prefix}" for prefix in wanted]
    daemon.setconf("\n".join(lines) + "\n")
    (found,) = allowed_ips(daemon).values()
    assert len(found) == 255 * 256 * 2
    assert set(found) == wanted


def test_many_peers_with_many_prefixes_are_shown_whole(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    wanted = {new_key().public: [f"{a}.{b}.0.0/16" for b in range(1, 53)] for a in range(1, 41)}
    daemon.setconf(
        "[Interface]\n"
        + "".join(
            f"[Peer]\nPublicKey = {peer}\nAllowedIPs = {', '.join(prefixes)}\n"
            for peer, prefixes in wanted.items()
        )
    )
    assert {peer: sorted(found) for peer, found in allowed_ips(daemon).items()} == {
        peer: sorted(prefixes) for peer, prefixes in wanted.items()
    }
    bare, full = new_key().public, new_key().public
    many = [f"abcd::{number:x}/128" for number in range(1, 198)]
    daemon.setconf("[Interface]\n")
    daemon.set("peer", bare, "peer", full, "allowed-ips", ",".join(many))
    found = allowed_ips(daemon)
    assert found[bare] == ["(none)"]
    assert sorted(found[full]) == sorted(many)


def test_keys_are_set_and_taken_away_and_our_own_is_no_peer(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    ours, other, psk = lab.key(), lab.key(), new_psk()

    def give(private: str) -> None:
        daemon.wg("set", daemon.name, "private-key", "/dev/stdin", text=private)

    give(ours.private)
    daemon.set("peer", other.public)
    daemon.wg(*("set", daemon.name, "peer", other.public, "preshared-key", "/dev/stdin"), text=psk)
    assert daemon.show("private-key") == [[ours.private]]
    assert daemon.show("preshared-keys") == [[other.public, psk]]
    daemon.set("private-key", "/dev/null", "peer", other.public, "preshared-key", "/dev/null")
    assert daemon.show("private-key") == [["(none)"]]
    assert daemon.show("preshared-keys") == [[other.public, "(none)"]]
    # A key that makes a peer ourselves removes it, and while it is ours there is no such peer.
    give(other.private)
    assert daemon.show("public-key") == [[other.public]]
    assert daemon.show("peers") == []
    daemon.set("peer", other.public)
    assert daemon.show("peers") == []
    give(ours.private)
    daemon.set("peer", other.public)
    assert daemon.show("peers") == [[other.public]]


def test_a_private_key_that_is_not_clamped_is_shown_as_what_it_is(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    wild = bytes([255]) + decode(lab.key().private)[1:31] + bytes([255])
    text = encode(wild)
    lab.secrets.append(text)
    daemon.wg("set", daemon.name, "private-key", "/dev/stdin", text=text)
    assert daemon.show("private-key") == [[encode(wireguard.clamp(wild))]]


def test_prefixes_that_hold_others_come_and_go(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    peer = new_key().public
    for prefixes in (
        "0.0.0.0/0,10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16",
        "0.0.0.0/0",
        "::/0,1700::/111,5000::/4,e000::/37,9000::/75",
        "::/0",
    ):
        daemon.set("peer", peer, "allowed-ips", prefixes)
        assert sorted(allowed_ips(daemon)[peer]) == sorted(prefixes.split(","))
    daemon.set("peer", peer, "remove")
    assert daemon.show("peers") == []


LOW_ORDER_POINTS = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    *((2**255 - 19 + number).to_bytes(32, "little") for number in (-1, 0, 1)),
]


def test_peers_with_keys_of_small_order_are_never_written_to(lab: Lab) -> None:
    """One that is honest has the same endpoint, so that something comes there at all."""
    namespace = lab.namespace("a")
    daemon = lab.daemon(None, namespace)
    honest = wireguard.dh_pubkey(wireguard.clamp(bytes(range(32))))
    with namespace.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        peers = [
            f"[Peer]\nPublicKey = {encode(point)}\nEndpoint = {endpoint}\nPersistentKeepalive = 1\n"
            for point in (*LOW_ORDER_POINTS, honest)
        ]
        daemon.setconf(f"[Interface]\nPrivateKey = {lab.key().private}\n{''.join(peers)}")
        assert len(daemon.show("peers")) == len(LOW_ORDER_POINTS) + 1
        daemon.up()
        arrived = arrivals(listener, seconds=2)
    assert arrived
    assert all(wireguard.has_valid_mac1(message, honest) for message in arrived)


def arrivals(listener: socket.socket, seconds: float) -> list[bytes]:
    """The first comes when it comes; of the others, those within so many seconds after it."""
    listener.settimeout(30)
    found = [listener.recv(2048)]
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            found.append(listener.recv(2048))
        except TimeoutError:
            break
    return found


def test_an_interface_that_is_not_there_is_an_error(lab: Lab) -> None:
    answer = lab.namespace("a").attempt("wg", "show", "doesnotexist")
    assert answer.returncode != 0
