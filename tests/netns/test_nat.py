r"""Through address translation a session lives on, whatever the routers forget or change.

       a (side 1)            ra                                 rb          b (side 2)
    +--------------+   +---------------+                  +-------------+   +-----------+
    | 192.168.1.2 ====  192.168.1.1    |                  | 192.168.2.1 ==== 192.168.2.2|
    +--------------+   |  192.0.2.11  ======= (bridge) ====== 192.0.2.12|   +-----------+
                       +---------------+                  +-------------+

Only a's router: b has rb's address 192.0.2.12 itself.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.lab import programs
from tools.lab.lab import PORT, Lab, Side, handshake_seconds
from tools.lab.namespaces import add_address, cable
from tools.lab.programs import REPOSITORY
from tools.lab.router import Router
from tools.lab.stream import SOON, Stream
from tools.lab.traffic import Datagrams, ping, ping_attempt
from tools.lab.waiting import wait_until
from tools.lab.wire import Wire

PUBLIC_A, PUBLIC_B = "192.0.2.11", "192.0.2.12"
# In seconds: shorter than a router at home, longer than the keepalive.
ROUTER_MEMORY, KEEPALIVE = 2, 1


class Homes:
    """The drawing, configured by who is to know whom."""

    def __init__(self, lab: Lab, routers: int) -> None:
        self.ra = Router(lab, "ra")
        self.rb = Router(lab, "rb") if routers == 2 else None
        self.a = lab.side(None, 1, lab.namespace("a"))
        self.b = lab.side(None, 2, lab.namespace("b"))
        far = self.rb.namespace if self.rb else self.b.namespace
        cable(
            (self.ra.namespace, "public", [f"{PUBLIC_A}/24"]),
            (far, "public", [f"{PUBLIC_B}/24"]),
        )
        self._home(self.a, self.ra, "192.168.1")
        if self.rb:
            self._home(self.b, self.rb, "192.168.2")
        self.a.outer4, self.b.outer4 = PUBLIC_A, PUBLIC_B
        self.ra.translate("public", PUBLIC_A)
        if self.rb:
            self.rb.translate("public", PUBLIC_B)

    def _home(self, side: Side, router: Router, net: str) -> None:
        cable(
            (side.namespace, "veth", [f"{net}.2/24"]), (router.namespace, "home", [f"{net}.1/24"])
        )
        side.namespace.ip("route", "add", "default", "via", f"{net}.1")

    def routers(self) -> list[Router]:
        return [router for router in (self.ra, self.rb) if router]

    def start(self, side: Side, *, knows: bool, keepalive: int = 0) -> None:
        peer = self.b if side is self.a else self.a
        outer = 4 if knows else None
        side.daemon.setconf(
            side.interface_section() + peer.peer_section(outer=outer, keepalive=keepalive)
        )
        side.daemon.up(f"{side.inner4}/24", f"{side.inner6}/64")

    def seen_from(self) -> str:
        return self.b.daemon.peer(self.a.key.public)["endpoint"]


def test_a_stream_goes_on_when_the_router_gives_another_address_and_port(lab: Lab) -> None:
    homes = Homes(lab, routers=1)
    homes.ra.translate("public", f"{PUBLIC_A}:20000-20999 random")
    homes.start(homes.b, knows=False)
    homes.start(homes.a, knows=True)
    ping(homes.a.namespace, homes.b.inner4, 1)
    before = homes.seen_from()
    assert before.startswith(f"{PUBLIC_A}:20"), before
    add_address(homes.ra.namespace, "public", "192.0.2.77/24")
    wire = Wire(homes.a.namespace)
    there = Stream(homes.a.namespace, homes.b.namespace, homes.b.inner4, source=homes.a.inner4)
    back = Stream(homes.b.namespace, homes.a.namespace, homes.a.inner6, source=homes.b.inner6)
    with there, back:
        there.flows()
        back.flows()
        for address, ports in (("192.0.2.77", "30"), (PUBLIC_A, "40"), (PUBLIC_A, "50")):
            homes.ra.translate("public", f"{address}:{ports}000-{ports}999 random")
            homes.ra.forget()
            there.flows(SOON)
            back.flows(SOON)
            assert homes.seen_from().startswith(f"{address}:{ports}")
    assert wire["initiation_output"] + wire["initiation_input"] == 0, "the session lived on"


def test_keepalives_keep_a_way_in_open_through_a_router_that_soon_forgets(lab: Lab) -> None:
    homes = Homes(lab, routers=1)
    homes.ra.remember_for(ROUTER_MEMORY)
    homes.ra.refuse_strangers("public")
    homes.start(homes.b, knows=False)
    homes.start(homes.a, knows=True)
    ping(homes.a.namespace, homes.b.inner4, 1)
    homes.ra.forget()
    assert ping_attempt(homes.b.namespace, homes.a.inner4).returncode != 0, "the router is no wall"

    homes.a.daemon.set("peer", homes.b.key.public, "persistent-keepalive", str(KEEPALIVE))
    # Only time shows that nothing is forgotten in it.
    time.sleep(ROUTER_MEMORY + KEEPALIVE)
    with Datagrams(homes.b.namespace, homes.a.namespace, homes.a.inner4) as datagrams:
        datagrams.passes(b"one, and no second try")


@pytest.mark.parametrize("way", ["port-forwarded", "hole-punched"])
def test_two_ends_behind_routers_meet_again_when_both_forget(lab: Lab, way: str) -> None:
    homes = Homes(lab, routers=2)
    for router in homes.routers():
        router.remember_for(ROUTER_MEMORY)
    homes.ra.refuse_strangers("public")
    if way == "port-forwarded":
        assert homes.rb
        homes.rb.forward_port("public", PORT, "192.168.2.2")
        homes.start(homes.b, knows=False)
        homes.start(homes.a, knows=True, keepalive=KEEPALIVE)
    else:
        assert homes.rb
        homes.rb.refuse_strangers("public")
        homes.start(homes.a, knows=True, keepalive=KEEPALIVE)
        homes.start(homes.b, knows=True, keepalive=KEEPALIVE)
    # Of two who begin, the first may knock in vain: its second initiation is five seconds later.
    wait_until(lambda: handshake_seconds(homes.a, homes.b), "a session")
    wait_until(lambda: handshake_seconds(homes.b, homes.a), "a session")
    ping(homes.b.namespace, homes.a.inner4, 1)
    wires = [Wire(side.namespace) for side in (homes.a, homes.b)]
    for router in homes.routers():
        router.forget()
    ping(homes.b.namespace, homes.a.inner6, 1, seconds=3 * KEEPALIVE)
    ping(homes.a.namespace, homes.b.inner4, 1)
    assert homes.seen_from() == f"{PUBLIC_A}:{PORT}"
    assert all(wire["initiation_output"] == 0 for wire in wires), "the session lived on"


@pytest.mark.slow
@pytest.mark.pywgd_only
def test_a_source_port_that_leads_nowhere_is_left(lab: Lab, tmp_path: Path) -> None:
    """Nobody asked for that port."""
    homes = Homes(lab, routers=1)
    homes.start(homes.b, knows=False)
    a, name = homes.a.namespace, lab.name("p")
    path, log = tmp_path / f"{name}.conf", tmp_path / "log"
    path.touch(0o600)
    path.write_text(
        f"[Interface]\nPrivateKey = {homes.a.key.private}\nAddress = {homes.a.inner4}/24\n"
        + homes.b.peer_section(outer=4)
    )
    script = f'LOG_LEVEL=error exec {sys.executable} -m pywg up "$1" 2>"$2"'
    a.run("sh", "-c", script, "sh", str(path), str(log), cwd=REPOSITORY)

    def port() -> int:
        return int(a.run("wg", "show", name, "listen-port"))

    before = port()
    homes.ra.kill(before)
    flow = a.popen(["ping", "-q", "-i", "0.2", homes.b.inner4], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: port() != before, "another port", 60, every=0.1)
        ping(a, homes.b.inner4, 1)
        assert f"nobody answers at port {before}, three handshakes are lost" in log.read_text()
    finally:
        flow.kill()
        flow.wait()
        programs.pywg(a, "down", name)


@pytest.mark.pywgd_only
def test_a_host_whose_packet_was_translated_into_the_tunnel_learns_that_nobody_is_there(
    lab: Lab,
) -> None:
    """The router asks b to forward; b translates into its tunnel, where a is no peer any more."""
    homes = Homes(lab, routers=1)
    homes.start(homes.b, knows=False)
    b = homes.b.namespace
    b.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    b.nft(
        "table ip nat {\nchain out {\ntype nat hook postrouting priority srcnat\n"
        f'oifname "{homes.b.daemon.name}" snat to {homes.b.inner4}\n}}\n}}\n'
    )
    homes.ra.namespace.ip("route", "add", homes.a.inner4, "via", PUBLIC_B)
    homes.b.daemon.set("peer", homes.a.key.public, "remove")
    answer = homes.ra.namespace.attempt("ping", "-n", "-c", "1", "-W", "1", homes.a.inner4)
    assert "icmp_seq=1 Destination Host Unreachable" in answer.stdout, answer.stdout
