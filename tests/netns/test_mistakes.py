"""A tunnel that does not come up says why: each mistake is told apart from every other one by what
`pywg show` says at the two ends, within some ten seconds.

PYWG_MISTAKES=FILE writes the table of docs/no-handshake.md: what is wrong, what is said, seconds.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pywg.keys import PublicKey
from pywg.wireguard import condition
from pywg.wireguard import socket as uapi_socket
from tools.lab import programs
from tools.lab.handshake import Initiator
from tools.lab.keys import decode
from tools.lab.lab import PORT, Lab, Side
from tools.lab.traffic import ping
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only

TABLE = os.environ.get("PYWG_MISTAKES", "")
DAY_NS = 24 * 3600 * 10**9


class World:
    """Two ends that would have a tunnel; a asks, and b is to answer."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        spaces = lab.cabled()
        self.a = lab.side(None, 1, spaces[0], log_level="error")
        self.b = lab.side(None, 2, spaces[1], log_level="error")
        self.psk = lab.preshared_key()
        self.of_a = self.a.interface_section() + self.b.peer_section(self.psk, 4)
        self.of_b = self.b.interface_section() + self.a.peer_section(self.psk, 4)

    def up(self, of_a: str | None = None, of_b: str | None = None) -> None:
        """With these settings, or the right ones; b first, so that it is not what is missing."""
        for side, text in ((self.b, of_b or self.of_b), (self.a, of_a or self.of_a)):
            side.daemon.setconf(text)
            side.daemon.up(f"{side.inner4}/24", f"{side.inner6}/64")

    def a_says(self, old: str, new: str) -> str:
        assert old in self.of_a
        return self.of_a.replace(old, new)

    def firewall(self, side: Side, hook: str, rule: str) -> None:
        side.namespace.nft(
            "table ip mistake {\nchain it {\n"
            f"type filter hook {hook} priority 0\n{rule}\n}}\n}}\n"
        )

    @contextlib.contextmanager
    def pinging(self, address: str) -> Iterator[None]:
        """a has something to send."""
        with (self.lab.directory / "ping").open("wb") as sink:
            process = self.a.namespace.popen(
                ["ping", "-n", "-i", "0.2", address], stdout=sink, stderr=sink
            )
            try:
                yield
            finally:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class Said:
    """What one end says: the word of its peer, and kinds of notices that are of no peer."""

    word: str
    kinds: tuple[str, ...] = ()


def said(side: Side, peer: Side, configured: str = "") -> tuple[Said, list[str]]:
    """And the same as text."""
    name = side.daemon.name
    status, report = uapi_socket.get(name), uapi_socket.report(name)
    key = PublicKey.from_base64(configured or peer.key.public)
    found = next(one for one in status.peers if one.public_key == key)
    told = condition.of_peer(found, report, int(time.time()))
    kinds = {one.kind for one in report.notices if one.kind in ("stranger", "other_key", "no_peer")}
    lines = condition.of_interface(report)
    return Said(told.word, tuple(sorted(kinds))), [
        *([] if told.is_healthy else [told.text]),
        *lines,
    ]


# ---- the mistakes; each answers what the other end is called where it is not the right key


def wrong_public_key(world: World) -> str:
    other = world.lab.key().public
    world.up(world.a_says(world.b.key.public, other))
    return other


def wrong_private_key(world: World) -> str:
    world.up(world.a_says(world.a.key.private, world.lab.key().private))
    return ""


def wrong_preshared_key(world: World) -> str:
    world.up(world.a_says(world.psk, world.lab.preshared_key()))
    return ""


def wrong_port(world: World) -> str:
    world.up(world.a_says(f"Endpoint = 192.0.2.2:{PORT}", "Endpoint = 192.0.2.2:9"))
    return ""


def port_dropped(world: World) -> str:
    world.firewall(world.b, "input", f"udp dport {PORT} drop")
    world.up()
    return ""


def port_prohibited(world: World) -> str:
    world.firewall(world.b, "input", f"udp dport {PORT} reject with icmp type admin-prohibited")
    world.up()
    return ""


def host_down(world: World) -> str:
    world.up(world.a_says("192.0.2.2:", "192.0.2.77:"))
    return ""


def no_route(world: World) -> str:
    world.up(world.a_says("192.0.2.2:", "203.0.113.2:"))
    return ""


def own_firewall(world: World) -> str:
    world.firewall(world.a, "output", f"udp dport {PORT} drop")
    world.up()
    return ""


def no_endpoint(world: World) -> str:
    line = f"Endpoint = 192.0.2.2:{PORT}\n"
    there = f"Endpoint = 192.0.2.1:{PORT}\n"
    world.up(world.a_says(line, ""), world.of_b.replace(there, ""))
    return ""


def destination_not_allowed(world: World) -> str:
    world.up(world.a_says("10.99.0.2/32", "10.99.0.3/32"))
    return ""


def source_not_allowed(world: World) -> str:
    world.up(of_b=world.of_b.replace("10.99.0.1/32", "10.99.0.4/32"))
    return ""


def clock_set_back(world: World) -> str:
    """b has seen a handshake of a's that is a day later than those to come."""
    world.up()
    name = world.b.daemon.name
    world.a.daemon.namespace.ip("link", "set", world.a.daemon.name, "down")
    private, psk = decode(world.a.key.private), decode(world.psk)
    initiator = Initiator(private, decode(world.b.key.public), psk)
    with world.a.namespace.socket() as wire:
        wire.settimeout(10)
        wire.sendto(initiator.initiation(time.time_ns() + DAY_NS), ("192.0.2.2", PORT))
        wire.recv(2048)
    wait_until(lambda: uapi_socket.report(name).peers, "b answered")
    world.a.daemon.up()
    return ""


def path_too_narrow(world: World) -> str:
    """The path takes 1300 bytes and loses what is longer, without a word."""
    world.firewall(world.b, "input", f"udp dport {PORT} meta length > 1300 drop")
    world.up()
    ping(world.a.namespace, world.b.inner4, 1)
    with world.b.namespace.socket(kind=socket.SOCK_STREAM) as listener:
        listener.bind((world.b.inner4, 0))
        listener.listen()
        stream = world.a.namespace.socket(kind=socket.SOCK_STREAM)
        world.lab.stack.callback(stream.close)
        stream.settimeout(10)
        stream.connect(listener.getsockname())
        arrived, _ = listener.accept()
        world.lab.stack.callback(arrived.close)
    stream.setblocking(False)
    stream.send(bytes(1 << 17))
    return ""


def mapping_expired(world: World) -> str:
    """There was a session, and then nothing passes any more, as behind a router that forgot."""
    world.up()
    ping(world.a.namespace, world.b.inner4, 1)
    world.firewall(world.b, "input", f"udp dport {PORT} drop")
    return ""


@dataclass(frozen=True)
class Mistake:
    what: str
    make: Callable[[World], str]
    a: Said
    # None: it knows no more than that something is missing, sooner or later.
    b: Said | None
    # Of the sentences of either end.
    a_text: str = ""
    b_text: str = ""
    target: str = "10.99.0.2"


NO_ANSWER = Said("no_answer")
IDLE = Said("idle")
MISTAKES = [
    Mistake(
        "`PublicKey` of the peer is another's",
        wrong_public_key,
        NO_ANSWER,
        Said("idle", ("other_key",)),
        "times in",
        "it is for another public key than this interface's",
    ),
    Mistake(
        "`PrivateKey` here is another one than the peer knows",
        wrong_private_key,
        NO_ANSWER,
        Said("idle", ("stranger",)),
        "no answer",
        "is no peer here",
    ),
    Mistake(
        "`PresharedKey` differs",
        wrong_preshared_key,
        Said("wrong_answer"),
        Said("unconfirmed"),
        "the preshared key differs",
        "none was confirmed",
    ),
    Mistake(
        "the port of `Endpoint` is wrong",
        wrong_port,
        Said("port_unreachable"),
        IDLE,
        "nobody listens on that port (ICMP port unreachable from 192.0.2.2)",
    ),
    Mistake("a firewall drops the port", port_dropped, NO_ANSWER, IDLE, "a firewall"),
    Mistake(
        "a firewall rejects the port",
        port_prohibited,
        Said("prohibited"),
        IDLE,
        "a firewall forbids it (ICMP administratively prohibited from 192.0.2.2)",
    ),
    Mistake(
        "the host of `Endpoint` is down",
        host_down,
        Said("host_unreachable"),
        IDLE,
        "the host cannot be reached (ICMP host unreachable",
    ),
    Mistake(
        "there is no route to `Endpoint`",
        no_route,
        Said("no_route"),
        IDLE,
        "this host has no route to the endpoint",
    ),
    Mistake(
        "a firewall here drops what is sent",
        own_firewall,
        Said("not_let_out"),
        IDLE,
        "this host does not let datagrams out",
    ),
    Mistake(
        "neither end has an `Endpoint`",
        no_endpoint,
        Said("no_endpoint"),
        IDLE,
        "nobody knows where the peer is",
    ),
    Mistake(
        "`AllowedIPs` lack the destination",
        destination_not_allowed,
        Said("idle", ("no_peer",)),
        IDLE,
        "packets to 10.99.0.2",
    ),
    Mistake(
        "`AllowedIPs` of the other end lack our address",
        source_not_allowed,
        Said("connected"),
        Said("disallowed_source"),
        "",
        "from 10.99.0.1 dropped: that address is not in the peer's AllowedIPs",
    ),
    Mistake(
        "the clock was set back",
        clock_set_back,
        NO_ANSWER,
        Said("old_timestamp"),
        "",
        "the peer's clock was set back",
    ),
    Mistake(
        "`MTU` is too big for the path, which says nothing",
        path_too_narrow,
        Said("hole"),
        Said("connected"),
        "seem not to arrive, shorter ones do",
    ),
    Mistake(
        "a router has forgotten the session",
        mapping_expired,
        Said("silent"),
        None,
        "nothing came back",
    ),
]
NAMES = [mistake.make.__name__ for mistake in MISTAKES]


@dataclass
class Rows:
    rows: dict[str, str] = field(default_factory=dict)

    def add(self, mistake: Mistake, seconds: float, at_a: list[str], at_b: list[str]) -> None:
        texts = ("; ".join(lines) or "-" for lines in (at_a, at_b))
        here, there = (re.sub(r"[A-Za-z0-9+/]{43}=", "KEY", text) for text in texts)
        self.rows[mistake.what] = f"| {mistake.what} | {here} | {there} | {seconds:.0f} |\n"

    def write(self) -> None:
        """In the order of the list; those that did not run are missing."""
        if TABLE:
            made = (self.rows.get(mistake.what, "") for mistake in MISTAKES)
            Path(TABLE).write_text("".join(made))


@pytest.fixture(scope="module")
def rows() -> Iterator[Rows]:
    made = Rows()
    yield made
    made.write()


def test_no_two_mistakes_say_the_same() -> None:
    assert len(MISTAKES) >= 14
    assert len({(mistake.a, mistake.b) for mistake in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize("mistake", MISTAKES, ids=NAMES)
def test_a_mistake_is_told_by_name(lab: Lab, mistake: Mistake, rows: Rows) -> None:
    world = World(lab)
    configured = mistake.make(world)
    began = time.monotonic()
    last: list[object] = []

    def told() -> bool:
        a, a_lines = said(world.a, world.b, configured)
        b, b_lines = said(world.b, world.a)
        last[:] = [a, b, a_lines, b_lines]
        texts = mistake.a_text in "; ".join(a_lines) and mistake.b_text in "; ".join(b_lines)
        return a == mistake.a and mistake.b in (b, None) and texts

    with world.pinging(mistake.target):
        try:
            wait_until(told, "it is told", every=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}; said: {last}") from None
        rows.add(mistake, time.monotonic() - began, *(said_texts(last)))
        for side, text in ((world.a, mistake.a_text), (world.b, mistake.b_text)):
            shown = programs.pywg(side.namespace, "show", side.daemon.name)
            assert text in shown.stdout, shown.stderr


def said_texts(last: list[object]) -> tuple[list[str], list[str]]:
    _, _, a_lines, b_lines = last
    assert isinstance(a_lines, list)
    assert isinstance(b_lines, list)
    return a_lines, b_lines


def test_the_log_says_once_when_it_begins_and_once_when_it_ends(lab: Lab) -> None:
    world = World(lab)
    wrong_port(world)
    with world.pinging(world.b.inner4):
        wait_until(lambda: "nobody listens on that port" in world.a.daemon.log(), "it is logged")
        world.a.daemon.set("peer", world.b.key.public, "endpoint", f"192.0.2.2:{PORT}")
        wait_until(lambda: "there is a session again" in world.a.daemon.log(), "its end, too")
    log = world.a.daemon.log()
    assert log.count("nobody listens on that port") == 1
    assert log.count("there is a session again") == 1
    shown = programs.pywg(world.a.namespace, "show", world.a.daemon.name)
    assert "status" not in shown.stdout


def test_the_responder_logs_who_knocks(lab: Lab) -> None:
    world = World(lab)
    stranger = lab.key()
    world.up(world.a_says(world.a.key.private, stranger.private))
    with world.pinging(world.b.inner4):
        wait_until(lambda: stranger.public in world.b.daemon.log(), "its public key is logged")
    assert "is no peer's here" in world.b.daemon.log()


def test_what_the_kernel_sends_by_itself_is_no_drop_without_peer(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.ping()
    with tunnel.a.namespace.socket() as group:
        group.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(tunnel.a.inner4)
        )
        group.sendto(b"x", ("224.0.0.251", 5353))
        wait_until(lambda: tunnel.a.daemon.report()["dropped_multicast"] != "0", "it is counted")
    assert tunnel.a.daemon.report()["dropped_no_peer"] == "0"
