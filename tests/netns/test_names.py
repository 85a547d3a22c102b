r"""Names of endpoints as users have them: what a name that cannot be had costs, and who is asked
while a tunnel is up.

         host                                      far
    +-----------------------+            +-----------------------------------+
    |  resolv.conf:         |            |  198.51.100.53: a name server,    |
    |  198.51.100.53        |   cable    |  by the default route alone       |
    |  veth 192.0.2.1 ==========================  192.0.2.2: the peer        |
    +-----------------------+            |  192.0.2.99: nobody               |
                                         +-----------------------------------+
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from pywg.host import marked_dns
from tools.lab.host import Host
from tools.lab.lab import PORT, Lab, Side
from tools.lab.nameserver import NameServer
from tools.lab.namespaces import add_address, unique
from tools.lab.traffic import ping
from tools.lab.waiting import wait_until

from .test_up_compare import PEERS, PRIVATE

pytestmark = pytest.mark.pywgd_only

NAME, SERVER, OTHER_SERVER = "vpn.example.test", "198.51.100.53", "198.51.100.54"
BOTH = "AllowedIPs = 10.1.0.0/16\nEndpoint = 192.0.2.2:51820"


@pytest.fixture
def server(host: Host) -> Iterator[NameServer]:
    add_address(host.far, "lo", f"{SERVER}/32")
    (host.directory / "resolv.conf").write_text(f"nameserver {SERVER}\n")
    with NameServer(host.far, SERVER) as made:
        yield made


def file(*peers: str, more: str = "") -> str:
    sections = [
        f"[Peer]\nPublicKey = {key}\n{peer}\n" for key, peer in zip(PEERS, peers, strict=False)
    ]
    return f"[Interface]\nPrivateKey = {PRIVATE}\n{more}\n" + "".join(sections)


def named(host: str, networks: str = "10.2.0.0/16") -> str:
    return f"AllowedIPs = {networks}\nEndpoint = {host}:51820"


def endpoints(host: Host, name: str) -> list[str]:
    """In the order of PEERS."""
    lines = host.run("wg", "show", name, "endpoints").split()
    found = dict(zip(lines[::2], lines[1::2], strict=True))
    return [found[key] for key in PEERS if key in found]


def logging(host: Host, name: str) -> tuple[list[str], Path]:
    """How to be `pywg up` whose background process logs to a file, and that file."""
    log = host.directory / f"{name}.log"
    command = f'exec {sys.executable} -m pywg up "$1" 2>>"$2"'
    path = host.directory / f"{name}.conf"
    return ["env", "LOG_LEVEL=error", "sh", "-c", command, "sh", str(path), str(log)], log


# ---- a name that cannot be had


def test_a_name_that_does_not_exist_keeps_no_other_peer_waiting(
    host: Host, server: NameServer
) -> None:
    name = unique("n")
    host.config(name, file(BOTH, named("nx.invalid")))
    command, log = logging(host, name)
    host.run(*command, WG_ENDPOINT_RESOLUTION_RETRIES="infinity")
    assert endpoints(host, name) == ["192.0.2.2:51820", "(none)"]
    assert (
        f"[!] peer {PEERS[1][:4]}…: nx.invalid does not resolve (Name or service not known): "
        "asked again every 20 s; nothing is sent to it until then\n"
    ) in log.read_text()
    wait_until(lambda: "nx.invalid" in log.read_text().partition("try 2:")[2], "two tries")
    assert "try 1: asked again in 1 s" in log.read_text()
    server.records["nx.invalid"] = ["192.0.2.99"]
    wait_until(lambda: endpoints(host, name)[1] == "192.0.2.99:51820", "it is found")
    assert f"nx.invalid resolves by now: its endpoint is 192.0.2.99:{PORT}" in log.read_text()
    host.pywg("down", name)


def test_a_name_server_that_never_answers_keeps_nobody_waiting_for_long(
    host: Host, server: NameServer
) -> None:
    server.is_silent = True
    name = unique("n")
    path = host.config(name, file(BOTH, named(NAME)))
    began = time.monotonic()
    command = [sys.executable, "-m", "pywg", "up", str(path)]
    answer = host.attempt(*command, WG_ENDPOINT_RESOLUTION_RETRIES="infinity")
    assert answer.returncode == 0, answer.stderr
    assert time.monotonic() - began < 60, "five seconds, on a busy machine"
    said = answer.stderr
    assert f"[!] waiting for the resolver, 5 s at most: {NAME}\n" in said
    assert f"{NAME} does not resolve (the resolver does not answer): asked again every" in said
    assert endpoints(host, name) == ["192.0.2.2:51820", "(none)"]
    server.is_silent = False
    server.records[NAME] = ["192.0.2.99"]
    wait_until(lambda: endpoints(host, name)[1] == "192.0.2.99:51820", "it is found", 40)
    host.pywg("down", name)


def test_a_file_of_names_that_do_not_exist_is_refused_with_its_line(
    host: Host, server: NameServer
) -> None:
    name = unique("n")
    before = host.look(name)
    path = host.config(name, file(named("nx.invalid"), named("ny.invalid")))
    answer = host.attempt(sys.executable, "-m", "pywg", "up", str(path))
    assert answer.returncode == 1
    assert f"{path}:7:" in answer.stderr
    assert "Endpoint: cannot resolve nx.invalid: Name or service not known" in answer.stderr
    assert host.look(name) == before


def test_a_reload_without_an_answer_leaves_an_endpoint_as_it_is(
    host: Host, server: NameServer
) -> None:
    name = unique("n")
    server.records[NAME] = ["192.0.2.99"]
    path = host.config(name, file(BOTH, named(NAME)))
    host.pywg("up", str(path))
    server.is_silent = True
    answer = host.attempt(sys.executable, "-m", "pywg", "reload", str(path))
    assert answer.returncode == 0, answer.stderr
    assert "until then it keeps the address that it has" in answer.stderr
    assert endpoints(host, name) == ["192.0.2.2:51820", "192.0.2.99:51820"]
    host.pywg("down", name)


def test_set_tells_each_try_in_the_words_of_wg(host: Host, server: NameServer) -> None:
    """A name server that refuses is no answer for good; SERVFAIL would do as well."""
    server.close()
    name = unique("n")
    host.pywg("up", str(host.config(name, file(BOTH))))
    words = ["set", name, "peer", PEERS[0], "endpoint", f"{NAME}:5"]
    answer = host.attempt(
        *(sys.executable, "-m", "pywg", *words), WG_ENDPOINT_RESOLUTION_RETRIES="1"
    )
    assert answer.returncode == 1
    assert (
        f"Temporary failure in name resolution: `{NAME}:5'. Trying again in 1.00 seconds...\n"
        in answer.stderr
    )
    host.pywg("down", name)


def test_pre_up_may_wait_until_the_name_resolves(host: Host, server: NameServer) -> None:
    """It points resolv.conf to where there is an answer, then waits for one as users do."""
    server.records[NAME] = ["192.0.2.99"]
    (host.directory / "resolv.conf").write_text("nameserver 192.0.2.99\n")
    name = unique("n")
    hook = (
        f"PreUp = echo nameserver {SERVER} > /etc/resolv.conf; "
        f"until getent hosts {NAME} > /dev/null; do sleep 0.1; done"
    )
    host.pywg("up", str(host.config(name, file(named(NAME), more=hook))))
    assert endpoints(host, name) == ["192.0.2.99:51820"]
    host.pywg("down", name)


# ---- beside the tunnel


def test_a_name_server_with_a_zone_is_asked_and_its_options_count(host: Host) -> None:
    """As a router announces it. Two dots are fewer than three, so the search list comes first."""
    shown = host.far.run("ip", "-o", "-6", "address", "show", "dev", "veth", "scope", "link")
    link_local = shown.split()[3].partition("/")[0]
    text = (
        f"nameserver {link_local}%veth\nsearch corp.example\n"
        "options ndots:3 timeout:1 attempts:1 edns0 trust-ad\n"
    )

    def answer() -> list[str]:
        try:
            found = marked_dns.addresses("a.b.c", (6, 4), text, None)
        except socket.gaierror:
            return []  # duplicate address detection may still go on
        return [str(address) for address in found]

    with NameServer(host.far, "::") as server, host.namespace.entered():
        server.records["a.b.c.corp.example"] = ["192.0.2.7", "2001:db8::7"]
        assert wait_until(answer, "an answer") == ["2001:db8::7", "192.0.2.7"]


def test_servers_that_are_gone_or_refuse_are_passed_over(host: Host, server: NameServer) -> None:
    server.records[NAME] = ["192.0.2.7"]
    text = f"nameserver 192.0.2.2\nnameserver {SERVER}\noptions timeout:1\n"
    with host.namespace.entered():
        assert marked_dns.addresses(NAME, (4,), text, None) == [ip_address("192.0.2.7")]


class Home:
    """A peer at 192.0.2.2 behind the whole internet, and a tunnel to its name. The name server of
    the tunnel is inside."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self.host = host
        self.name = unique("n")
        self.key = lab.key()
        self.peer: Side = lab.side(None, 2, host.far)
        self.peer.daemon.setconf(
            self.peer.interface_section()
            + f"[Peer]\nPublicKey = {self.key.public}\nAllowedIPs = 10.99.0.1/32\n"
        )
        self.peer.daemon.up("10.99.0.2/24")
        for place in ("all", "veth"):
            host.run("sysctl", "-q", f"net.ipv4.conf.{place}.rp_filter=0")

    def text(self) -> str:
        return (
            f"[Interface]\nPrivateKey = {self.key.private}\nAddress = 10.99.0.1/32\n"
            f"DNS = 10.99.0.2\n[Peer]\nPublicKey = {self.peer.key.public}\n"
            f"AllowedIPs = 0.0.0.0/0\nEndpoint = {NAME}:{PORT}\nPersistentKeepalive = 5\n"
        )

    def up(self) -> None:
        self.host.pywg("up", str(self.host.config(self.name, self.text())))

    def handshake(self) -> int:
        return int(self.peer.daemon.peer(self.key.public)["handshake"])


@pytest.fixture
def home(lab: Lab, host: Host, server: NameServer) -> Home:
    return Home(lab, host)


@pytest.mark.slow
def test_a_server_that_moves_is_found_though_its_tunnel_carries_everything(
    home: Home, server: NameServer
) -> None:
    """Nobody is at the first address, so that three initiations are lost at once."""
    server.records[NAME] = ["192.0.2.99"]
    home.up()
    host = home.host
    assert "nameserver 10.99.0.2" in host.read("/etc/resolv.conf")
    assert home.name in host.namespace.ip("route", "get", SERVER)
    asked = len(server.asked)
    server.records[NAME] = ["192.0.2.2"]
    server.cuts_udp = True
    wait_until(home.handshake, "a handshake where the name says", 40, every=0.1)
    ping(host.namespace, "10.99.0.2", 1)
    later = server.asked[asked:]
    assert later, "asked outside"
    assert all(line.endswith("192.0.2.1") for line in later), later
    assert any(line.startswith("tcp") for line in later), "what was cut is asked for by TCP"
    host.pywg("down", home.name)


def test_a_reload_finds_a_server_that_has_moved(home: Home, server: NameServer) -> None:
    server.records[NAME] = ["192.0.2.99"]
    home.up()
    server.records[NAME] = ["192.0.2.2"]
    home.host.pywg("reload", home.name)
    wait_until(home.handshake, "a handshake where the name says", 20, every=0.1)
    home.host.pywg("down", home.name)


@pytest.mark.slow
def test_name_servers_that_came_with_another_network_are_asked(
    home: Home, server: NameServer
) -> None:
    """As when a DHCP client writes resolv.conf under the tunnel."""
    server.records[NAME] = ["192.0.2.99"]
    home.up()
    server.close()
    add_address(home.host.far, "lo", f"{OTHER_SERVER}/32")
    (home.host.directory / "resolv.conf").write_text(f"nameserver {OTHER_SERVER}\n")
    with NameServer(home.host.far, OTHER_SERVER) as other:
        other.records[NAME] = ["192.0.2.2"]
        wait_until(home.handshake, "a handshake where the name says", 40, every=0.1)
    home.host.pywg("down", home.name)
