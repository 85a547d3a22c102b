"""A peer given by name is found again where the name says by now, and a tunnel follows its uplink.

The device lives in the process of the test, inside namespace a, so that its resolver can be one
that the test makes up. Timers of the protocol are the real ones; those of the watcher are short.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pywg.config import Config, Endpoint, parse
from pywg.native.device import Device
from pywg.service import endpoints as watch
from pywg.service.endpoints import Name, Watcher
from pywg.wireguard import uapi
from pywg.wireguard.changes import of_config
from tools.lab.lab import PORT, Lab, Side
from tools.lab.namespaces import Namespace, add_address, cable
from tools.lab.programs import REPOSITORY, Program
from tools.lab.traffic import exchange, ping
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only

NAME = "vpn.example.com"


@dataclass
class Resolver:
    """Says what it is told to, and remembers how often it was asked."""

    hosts: list[str]
    asked: list[str] = field(default_factory=list)

    def look_up(self, endpoint: Endpoint, family: str) -> Sequence[Endpoint]:
        self.asked.append(endpoint.host)
        return [Endpoint(host, endpoint.port) for host in self.hosts]


class Home:
    """Namespace a for a device and its watcher, and a peer in b that does not know where a is."""

    def __init__(self, lab: Lab, hosts: list[str]) -> None:
        self.a, b = lab.cabled()
        self.key = lab.key()
        self.name = lab.name("h")
        self.resolver = Resolver(hosts)
        self.peer: Side = lab.side(None, 2, b)
        self.forget()
        self.peer.daemon.up("10.99.0.2/24")

    def forget(self) -> None:
        """The peer as after a start: no session, and no idea where we are."""
        self.peer.daemon.setconf(
            self.peer.interface_section()
            + f"[Peer]\nPublicKey = {self.key.public}\nAllowedIPs = 10.99.0.1/32\n"
        )

    def config(self) -> Config:
        return parse(
            f"[Interface]\nPrivateKey = {self.key.private}\n"
            f"[Peer]\nPublicKey = {self.peer.key.public}\nAllowedIPs = 10.99.0.2/32\n"
            f"Endpoint = {NAME}:{PORT}\nPersistentKeepalive = 1\n"
        )

    @contextlib.contextmanager
    def tunnel(self, *, stale_s: float, patience_s: float) -> Iterator[Device]:
        """Begins with the first address that the resolver says."""
        config = self.config()
        names = watch.names_of(config)
        numeric = uapi.changes_text(of_config(_resolved(config, self.resolver.hosts[0])))
        with self.a.entered(), Device(self.name, numeric) as device:
            self.a.ip("address", "add", "10.99.0.1/24", "dev", self.name)
            self.a.ip("link", "set", self.name, "up")
            watcher = Watcher(
                device,
                [Name.from_json(name.to_json()) for name in names],
                look_up=self.resolver.look_up,
                stale_s=stale_s,
                patience_s=patience_s,
                probe_s=0.1,
            )
            watcher.start()
            try:
                yield device
            finally:
                watcher.stop()

    def handshake(self) -> int:
        """When the peer last shook hands with us; 0 if never."""
        return int(self.peer.daemon.peer(self.key.public)["handshake"])


def _resolved(config: Config, host: str) -> Config:
    peers = tuple(replace(peer, endpoint=Endpoint(host, PORT)) for peer in config.peers)
    return replace(config, peers=peers)


def endpoint_of(device: Device) -> str:
    return str(device.get().peers[0].endpoint)


def test_a_peer_that_moved_while_the_link_was_down_is_found_by_its_name(
    lab: Lab, subject: Program
) -> None:
    home = Home(lab, ["192.0.2.2"])
    with home.tunnel(stale_s=0.5, patience_s=1) as device:
        wait_until(home.handshake, "the first handshake")
        home.a.ip("link", "set", home.name, "down")
        there = home.peer.namespace
        there.ip("address", "delete", "192.0.2.2/24", "dev", "veth")
        add_address(there, "veth", "192.0.2.99/24")
        home.forget()
        home.resolver.hosts = ["192.0.2.99"]
        home.a.ip("link", "set", home.name, "up")
        wait_until(home.handshake, "a handshake at the new address")
        assert endpoint_of(device) == f"192.0.2.99:{PORT}"
        ping(home.a, "10.99.0.2", 1)
        assert set(home.resolver.asked) == {NAME}


def test_the_other_family_is_tried_where_the_first_does_not_answer(
    lab: Lab, subject: Program
) -> None:
    home = Home(lab, ["2001:db8::99", "192.0.2.2"])
    with home.tunnel(stale_s=60, patience_s=0.5) as device:
        wait_until(home.handshake, "a handshake over IPv4")
        assert endpoint_of(device) == f"192.0.2.2:{PORT}"
        ping(home.a, "10.99.0.2", 1)


def test_a_family_this_host_lacks_is_passed_over(lab: Lab, subject: Program) -> None:
    home = Home(lab, ["2001:db8::2", "192.0.2.2"])
    home.a.run("sysctl", "-q", "net.ipv6.conf.veth.disable_ipv6=1")
    with home.tunnel(stale_s=60, patience_s=0.5) as device:
        wait_until(home.handshake, "a handshake over IPv4")
        assert endpoint_of(device) == f"192.0.2.2:{PORT}"


def test_a_resolver_that_hangs_holds_up_no_packet(lab: Lab, subject: Program) -> None:
    home = Home(lab, ["192.0.2.2"])
    asked, release = threading.Event(), threading.Event()

    def hang(endpoint: Endpoint, family: str) -> Sequence[Endpoint]:
        asked.set()
        release.wait(20)
        return [endpoint]

    home.resolver.look_up = hang  # type: ignore[method-assign]
    try:
        with home.tunnel(stale_s=0, patience_s=0):
            ping(home.a, "10.99.0.2", 1)
            assert asked.wait(5)
            ping(home.a, "10.99.0.2", 3)
            assert not release.is_set()
    finally:
        release.set()


@pytest.mark.slow
def test_a_tunnel_of_pywg_up_follows_its_names(lab: Lab, subject: Program, tmp_path: Path) -> None:
    """All of it as users have it: the real resolver, with an /etc/hosts of its own."""
    home = Home(lab, [])
    hosts, file = tmp_path / "hosts", tmp_path / f"{home.name}.conf"
    hosts.write_text(f"192.0.2.99 {NAME}\n")
    file.touch(0o600)
    file.write_text(
        f"[Interface]\nPrivateKey = {home.key.private}\nAddress = 10.99.0.1/32\n"
        f"[Peer]\nPublicKey = {home.peer.key.public}\nAllowedIPs = 10.99.0.2/32\n"
        f"Endpoint = {NAME}:{PORT}\nPersistentKeepalive = 5\n"
    )
    script = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
    up = [sys.executable, "-m", "pywg", "up", str(file)]
    home.a.run("unshare", "--mount", "sh", "-c", script, "sh", str(hosts), *up, cwd=REPOSITORY)
    try:
        assert home.a.run("wg", "show", home.name, "endpoints").split()[1] == f"192.0.2.99:{PORT}"
        hosts.write_text(f"192.0.2.2 {NAME}\n")  # in place: it is mounted
        wait_until(home.handshake, "a handshake where the name says", seconds=40, every=0.1)
    finally:
        home.a.ip("link", "delete", "dev", home.name)


def test_a_transfer_goes_on_when_the_default_route_moves_to_another_uplink(
    lab: Lab, subject: Program
) -> None:
    """A second cable, and a peer at an address of its own behind both."""
    tunnel = lab.tunnel()
    a, b = tunnel.a.namespace, tunnel.b.namespace
    cable((a, "second", ["198.51.100.1/24"]), (b, "second", ["198.51.100.2/24"]))
    add_address(b, "lo", "203.0.113.9/32")
    # Also when b has to choose anew: to its cable's address a would not need the default route.
    for net, link in (("192.0.2", "veth"), ("198.51.100", "second")):
        b.ip("route", "replace", f"{net}.0/24", "dev", link, "src", "203.0.113.9")
    for namespace in (a, b):
        for link in ("all", "veth", "second"):
            namespace.run("sysctl", "-q", f"net.ipv4.conf.{link}.rp_filter=0")
    a.ip("route", "add", "default", "via", "192.0.2.2", "dev", "veth")
    tunnel.a.daemon.set("peer", tunnel.b.key.public, "endpoint", f"203.0.113.9:{PORT}")
    tunnel.session()

    def seen() -> str:
        return tunnel.b.daemon.peer(tunnel.a.key.public)["endpoint"]

    assert seen() == f"192.0.2.1:{PORT}"
    exchange(
        a,
        b,
        tunnel.b.inner4,
        24 << 20,
        1 << 20,
        midway=lambda: _move(a),
    )

    def moved() -> bool:
        ping(a, tunnel.b.inner4, 1)
        return seen() == f"198.51.100.1:{PORT}"

    wait_until(moved, "the peer sees the other uplink", every=0.1)


def _move(namespace: Namespace) -> None:
    namespace.ip("route", "replace", "default", "via", "198.51.100.2", "dev", "second")
