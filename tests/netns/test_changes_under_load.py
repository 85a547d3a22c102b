"""Whatever `wg set` changes while packets come from both sides: what arrives is right, and soon
arrives again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tools.lab.daemon import Daemon
from tools.lab.lab import PORT, Lab, Side, Tunnel, handshake_seconds
from tools.lab.namespaces import add_address
from tools.lab.stream import RUSHED, SOON, Stream
from tools.lab.wire import Wire


class Loaded:
    """The drawing of conftest.py with a stream each way, by both families inside."""

    def __init__(self, tunnel: Tunnel, streams: tuple[Stream, Stream]) -> None:
        self.tunnel = tunnel
        self.a, self.b = tunnel.a, tunnel.b
        self.streams = streams
        self.wire = Wire(self.a.namespace)

    def flows(self, seconds: float = SOON) -> None:
        for stream in self.streams:
            stream.flows(seconds)

    def is_silent(self, seconds: float = 0.1) -> bool:
        return all(stream.is_silent(seconds) for stream in self.streams)

    def handshakes(self) -> int:
        """Initiations, from either side, since the load began."""
        counts = self.wire.counts()
        return counts["initiation_input"] + counts["initiation_output"]

    def shake_hands(self) -> None:
        """Forgets a's sessions, as only the link can make it."""
        for state in ("down", "up"):
            self.a.namespace.ip("link", "set", self.a.daemon.name, state)
        add_address(self.a.namespace, self.a.daemon.name, f"{self.a.inner6}/64")


@contextlib.contextmanager
def loaded(tunnel: Tunnel) -> Iterator[Loaded]:
    tunnel.session()
    a, b = tunnel.a, tunnel.b
    there = Stream(a.namespace, b.namespace, b.inner4)
    back = Stream(b.namespace, a.namespace, a.inner6)
    with there, back:
        there.flows()
        back.flows()
        yield Loaded(tunnel, (there, back))


def give(daemon: Daemon, *words: str, secret: str) -> None:
    daemon.wg("set", daemon.name, *words, "/dev/stdin", text=secret)


def seen_at(observer: Side, peer: Side) -> str:
    return observer.daemon.peer(peer.key.public)["endpoint"]


# Where packets go and come from: the session stays.


def test_listen_ports_change_and_the_other_side_follows(lab: Lab) -> None:
    with loaded(lab.tunnel()) as load:
        for port in (4801, 4802, PORT):
            for side, other in ((load.a, load.b), (load.b, load.a)):
                side.daemon.set("listen-port", str(port))
                load.flows()
                assert seen_at(other, side) == f"{side.outer4}:{port}"
        assert load.handshakes() == 0


@pytest.mark.pywgd_only
def test_endpoints_change_between_addresses_families_and_zones(lab: Lab) -> None:
    tunnel = lab.tunnel()
    add_address(tunnel.b.namespace, "veth", "192.0.2.20/24")
    # The kernel's own link-local addresses may not be used before it knows that they are alone.
    add_address(tunnel.a.namespace, "veth", "fe80::a/64")
    add_address(tunnel.b.namespace, "veth", "fe80::b/64")
    places = [
        f"192.0.2.20:{PORT}",
        tunnel.b.endpoint(6),
        f"[fe80::b%veth]:{PORT}",
        tunnel.b.endpoint(),
    ]
    a, b = tunnel.a, tunnel.b
    # One way only: what b still sends from the old place would take a back there.
    with Stream(a.namespace, b.namespace, b.inner4) as stream:
        stream.flows()
        wire = Wire(a.namespace)
        for place in places * 2:
            # Said in a's namespace, where the zone has its name.
            a.namespace.run("wg", "set", a.daemon.name, "peer", b.key.public, "endpoint", place)
            stream.flows(SOON)
            shown = a.namespace.run("wg", "show", a.daemon.name, "endpoints").split()[1]
            assert shown == place
            assert seen_at(b, a).startswith("[") == place.startswith("[")
        assert wire["initiation_output"] == 0


def test_marks_change_and_everything_sent_bears_the_new_one(lab: Lab) -> None:
    with loaded(lab.tunnel()) as load:
        marks = ("0x11", "0x22", "off")
        rules = "".join(
            f"udp sport {PORT} meta mark {mark} counter name m{mark}\n" for mark in marks[:2]
        )
        load.a.namespace.nft(
            "table inet marks {\ncounter m0x11 {}\ncounter m0x22 {}\n"
            f"chain out {{\ntype filter hook output priority 0\n{rules}}}\n}}\n"
        )

        def marked() -> list[int]:
            shown = load.a.namespace.run("nft", "list", "counters", "table", "inet", "marks")
            words = shown.split()
            return [int(words[i + 1]) for i, word in enumerate(words) if word == "packets"]

        seen = []
        for mark in marks:
            load.a.daemon.set("fwmark", mark)
            load.flows()
            seen.append(marked())
            load.flows()
            seen.append(marked())
        first, second = zip(*seen, strict=True)
        assert first[0] < first[1] <= first[2] == first[3] == first[4] == first[5]
        assert second[0] == second[1] < second[2] < second[3] <= second[4] == second[5]
        assert load.handshakes() == 0


def test_addresses_inside_come_and_go(lab: Lab) -> None:
    tunnel = lab.tunnel()
    with loaded(tunnel) as load:
        here, name = load.a.namespace, load.a.daemon.name
        for _ in range(3):
            here.ip("address", "delete", f"{load.a.inner4}/24", "dev", name)
            here.ip("address", "delete", f"{load.a.inner6}/64", "dev", name)
            assert load.is_silent()
            add_address(here, name, f"{load.a.inner4}/24")
            add_address(here, name, f"{load.a.inner6}/64")
            load.flows()
        assert load.handshakes() == 0


# Keys.


@pytest.mark.pywgd_only
def test_the_same_again_under_load_is_nothing_at_all(lab: Lab) -> None:
    tunnel = lab.tunnel(psk=True)
    with loaded(tunnel) as load:
        for _ in range(10):
            for side, label in ((load.a, "a"), (load.b, "b")):
                give(side.daemon, "private-key", secret=side.key.private)
                side.daemon.wg(
                    "syncconf",
                    side.daemon.name,
                    "/dev/stdin",
                    text=tunnel.configuration(label),
                )
            load.flows()
        assert load.handshakes() == 0


@pytest.mark.parametrize("who", ["a", "b"], ids=["of-the-initiator", "of-the-responder"])
def test_a_new_private_key_is_used_at_once(lab: Lab, who: str) -> None:
    tunnel = lab.tunnel(psk=True)
    changer, other = (tunnel.a, tunnel.b) if who == "a" else (tunnel.b, tunnel.a)
    with loaded(tunnel) as load:
        for _ in range(3):
            time.sleep(RUSHED)
            old, changer.key = changer.key, lab.key()
            give(changer.daemon, "private-key", secret=changer.key.private)
            name = other.daemon.name
            other.daemon.wg("set", name, "peer", old.public, "remove")
            section = changer.peer_section(psk=tunnel.psk, outer=4)
            other.daemon.wg("addconf", name, "/dev/stdin", text=section)
            load.flows()
        assert load.handshakes() >= 3


@pytest.mark.pywgd_only  # link down ends sessions
def test_a_new_preshared_key_leaves_the_session_alone_and_is_asked_for_by_the_next(
    lab: Lab,
) -> None:
    tunnel = lab.tunnel(psk=True)
    with loaded(tunnel) as load:

        def give_psk(side: Side, psk: str) -> None:
            other = load.b if side is load.a else load.a
            give(side.daemon, "peer", other.key.public, "preshared-key", secret=psk)

        for psk in (lab.preshared_key(), lab.preshared_key()):
            give_psk(load.a, psk)
            load.flows()
            give_psk(load.b, psk)
            load.flows()
        assert load.handshakes() == 0, "the session lived on"
        load.shake_hands()
        load.flows()
        assert load.handshakes() >= 1

        psk = lab.preshared_key()
        give_psk(load.b, psk)
        load.flows()
        load.shake_hands()
        assert load.is_silent(0.3), "one side has another key"
        give_psk(load.a, psk)
        load.shake_hands()
        load.flows()


# Peers.


def test_a_peer_that_is_removed_is_silent_and_one_that_comes_back_is_not(lab: Lab) -> None:
    tunnel = lab.tunnel(psk=True)
    with loaded(tunnel) as load:
        for side, other in ((load.a, load.b), (load.b, load.a)) * 2:
            side.daemon.set("peer", other.key.public, "remove")
            assert load.is_silent()
            section = other.peer_section(psk=tunnel.psk, outer=4)
            side.daemon.wg("addconf", side.daemon.name, "/dev/stdin", text=section)
            load.flows()
            assert handshake_seconds(side, other) > 0
