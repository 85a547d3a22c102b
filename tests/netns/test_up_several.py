r"""Several tunnels on one host: one after the other, and one inside the other.

     host                                      far
+-----------------------+            +----------------------------------------+
|  outer, inner: up     |   cable    |  outer's peer: 192.0.2.2:51820         |
|  veth 192.0.2.1 ==========================  inner's peer: 198.51.100.7:51777 |
+-----------------------+            |  203.0.113.9: what they lead to        |
                                     +----------------------------------------+
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tools.lab.daemon import Daemon
from tools.lab.host import Host
from tools.lab.keys import Key, new_key
from tools.lab.namespaces import Namespace, add_address, unique
from tools.lab.programs import Program
from tools.lab.traffic import ping, ping_attempt

from .test_up_compare import FILES

pytestmark = pytest.mark.pywgd_only

# In one process, which is quicker than an interpreter for each.
IN_A_LOOP = """
import sys
from pathlib import Path
import pywg
from pywg import tunnel
verb, directory, *names = sys.argv[1:]
for name in names:
    if verb == "up":
        tunnel.up(pywg.Config.load(Path(directory, f"{name}.conf")))
    else:
        tunnel.down(name)
"""
EVERYTHING = "0.0.0.0/0, ::/0"
ENDPOINTS = ("192.0.2.2:51820", "198.51.100.7:51777")
GOAL = "203.0.113.9"
COUNTERS = """table inet wire {
    counter inner {}
    chain arriving { type filter hook prerouting priority -300;
        iifname veth udp dport 51777 counter name inner
    }
}
"""


@dataclass
class Ends:
    """The far ends of two tunnels, whose files are named here by what they carry."""

    host: Host
    names: tuple[str, str]
    ours: tuple[Key, Key]
    theirs: tuple[Key, Key]

    def config(self, number: int, networks: str, *lines: str) -> str:
        text = (
            f"[Interface]\nPrivateKey = {self.ours[number].private}\n"
            f"Address = 10.7{number}.0.2/32\n" + "".join(f"{line}\n" for line in lines) +
            f"[Peer]\nPublicKey = {self.theirs[number].public}\n"
            f"AllowedIPs = {networks}\nEndpoint = {ENDPOINTS[number]}\n"
        )  # fmt: skip
        return str(self.host.config(self.names[number], text))

    def in_clear(self) -> bool:
        """Whether datagrams of the inner tunnel were seen on the cable."""
        return "packets 0 " not in self.host.far.run(
            "nft", "list", "counter", "inet", "wire", "inner"
        )


@pytest.fixture
def ends(host: Host, subject: Program) -> Iterator[Ends]:
    far = host.far
    for address in ("198.51.100.7/32", f"{GOAL}/32"):
        add_address(far, "lo", address)
    far.nft(COUNTERS)
    made = Ends(
        host,
        (unique("s"), unique("s")),
        (new_key(), new_key()),
        (new_key(), new_key()),
    )
    with contextlib.ExitStack() as stack:
        for number, endpoint in enumerate(ENDPOINTS):
            daemon = Daemon(subject, far, unique("s"), host.directory)
            stack.callback(daemon.close)
            daemon.setconf(
                f"[Interface]\nPrivateKey = {made.theirs[number].private}\n"
                f"ListenPort = {endpoint.rpartition(':')[2]}\n"
                f"[Peer]\nPublicKey = {made.ours[number].public}\n"
                f"AllowedIPs = 10.7{number}.0.2/32\n"
            )
            daemon.up(f"10.7{number}.0.1/24")
        yield made


def up(host: Host, path: str) -> str:
    answer = host.attempt(sys.executable, "-m", "pywg", "up", path)
    assert answer.returncode == 0, answer.stderr
    return answer.stderr


# ---- one inside the other


def test_of_two_full_tunnels_the_second_goes_inside_the_first_and_says_so(ends: Ends) -> None:
    host = ends.host
    before = host.look("")
    assert "goes inside" not in up(host, ends.config(0, EVERYTHING))
    said = up(host, ends.config(1, EVERYTHING))
    assert f"[!] {ends.names[0]} carries everything here: {ends.names[1]} goes inside it" in said
    ping(host.namespace, GOAL, 2)
    assert not ends.in_clear()
    mtus = host.look("")["mtu"]
    assert [mtus[name] for name in ends.names] == [1420, 1340]
    host.pywg("reload", ends.names[0])
    host.pywg("reload", ends.names[1])
    ping(host.namespace, GOAL, 1)
    assert not ends.in_clear()
    host.pywg("down", ends.names[0])
    ping(host.namespace, GOAL, 1)
    assert ends.in_clear(), "the second alone has no other way"
    host.pywg("down", ends.names[1])
    assert host.look("") == before


def test_the_first_may_stay_when_the_second_goes(ends: Ends) -> None:
    host = ends.host
    up(host, ends.config(0, EVERYTHING))
    one = host.look("")
    up(host, ends.config(1, EVERYTHING))
    host.pywg("down", ends.names[1])
    assert host.look("") == one
    ping(host.namespace, GOAL, 1)
    host.pywg("down", ends.names[0])


@pytest.mark.parametrize("first", [0, 1], ids=["outer first", "inner first"])
def test_a_tunnel_may_carry_the_endpoint_of_another(ends: Ends, first: int) -> None:
    host = ends.host
    before = host.look("")
    networks = ("198.51.100.7/32", EVERYTHING)
    for number in (first, 1 - first):
        said = up(host, ends.config(number, networks[number]))
        assert "goes inside" not in said
    ping(host.namespace, GOAL, 2)
    assert not ends.in_clear()
    host.pywg("down", ends.names[1])
    host.pywg("down", ends.names[0])
    assert host.look("") == before


def test_a_tunnel_may_have_its_sockets_where_only_another_leads_out(ends: Ends) -> None:
    host, between = ends.host, Namespace("between")
    before = host.look("")
    try:
        up(host, ends.config(0, EVERYTHING, f"#!pywg Netns = {between.name}"))
        up(host, ends.config(1, EVERYTHING, f"#!pywg SocketNetns = {between.name}"))
        ping(host.namespace, GOAL, 2)
        assert not ends.in_clear()
        host.pywg("down", ends.names[1])
        host.pywg("down", ends.names[0])
        assert between.link(ends.names[0]) is None
    finally:
        between.close()
    assert host.look("") == before


def test_a_kill_switch_is_for_one_tunnel_alone_and_says_so(ends: Ends) -> None:
    host = ends.host
    outer, inner = ends.names
    before = host.look("")
    up(host, ends.config(0, EVERYTHING, "#!pywg KillSwitch = on"))
    said = up(host, ends.config(1, EVERYTHING))
    assert f"[!] the kill switch of {outer} lets nothing into {inner}" in said
    assert ping_attempt(host.namespace, GOAL, 1, seconds=1).returncode != 0
    host.pywg("unblock", outer)
    ping(host.namespace, GOAL, 1)
    assert not ends.in_clear()
    host.pywg("down", inner)
    said = up(host, ends.config(1, EVERYTHING, "#!pywg KillSwitch = on"))
    assert f"[!] the kill switch of {inner} lets nothing of {outer} out" in said
    assert ping_attempt(host.namespace, GOAL, 1, seconds=1).returncode != 0
    assert not ends.in_clear()
    for name in (outer, inner):
        host.pywg("down", name)
    assert host.look("") == before


# ---- one after the other


def test_fifty_tunnels_come_and_go_and_leave_nothing(host: Host) -> None:
    before = host.look("")
    names = [unique("s") for _ in range(50)]
    for number, name in enumerate(names):
        networks = EVERYTHING if number % 10 == 0 else f"10.{number}.0.0/16, fd{number:02}::/64"
        text = FILES["split"].replace("10.9.0.", f"10.99.{number}.")
        text = text.replace("ListenPort = 51820", "DNS = 10.99.0.1" if number % 5 == 0 else "")
        text = text.replace("10.20.0.0/16", networks)
        host.config(name, text)
    for first in range(0, 50, 10):
        host.run(
            sys.executable, "-c", IN_A_LOOP, "up", str(host.directory), *names[first : first + 10]
        )
    assert len(host.run("wg", "show", "interfaces").split()) == 50
    mixed = names[::2] + names[1::2]
    for first in range(0, 50, 10):
        host.run(
            sys.executable, "-c", IN_A_LOOP, "down", str(host.directory), *mixed[first : first + 10]
        )
    assert host.look("") == before
    assert host.run("ls", "/run/wireguard").split() == []
