"""`pywg doctor` finds each fault that is planted in a namespace, names it, and changes nothing; and
of a healthy tunnel it finds nothing worse than a note."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pywg.host import features
from tools.lab.host import Host
from tools.lab.keys import Key, new_key
from tools.lab.lab import Lab, Side
from tools.lab.nameserver import NameServer
from tools.lab.namespaces import Namespace, cable, run, unique
from tools.lab.programs import REPOSITORY, Program
from tools.lab.router import Router
from tools.lab.traffic import ping

pytestmark = pytest.mark.pywgd_only

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
DOCTOR = [sys.executable, "-m", "pywg", "doctor", "--json"]
EVERYTHING = "0.0.0.0/0, ::/0"


@dataclass
class Place:
    """A host, and the far end of its tunnel."""

    host: Host
    far: Side
    key: Key
    name: str

    def config(
        self, networks: str = EVERYTHING, interface: str = "DNS = 10.99.0.2", endpoint: str = ""
    ) -> str:
        """Written; the path."""
        text = (
            f"[Interface]\nPrivateKey = {self.key.private}\nAddress = 10.99.0.1/24, fd99::1/64\n"
            f"{interface}\n[Peer]\n#!pywg Name = far\nPublicKey = {self.far.key.public}\n"
            f"AllowedIPs = {networks}\nEndpoint = {endpoint or self.far.endpoint()}\n"
        )
        return str(self.host.config(self.name, text))

    def server(self, port: int = 51820) -> str:
        clients = "".join(
            f"[Peer]\nPublicKey = {new_key().public}\nAllowedIPs = 10.98.0.{number}/32\n"
            for number in (2, 3)
        )
        text = f"[Interface]\nPrivateKey = {self.key.private}\nListenPort = {port}\n"
        return str(self.host.config(self.name, f"{text}Address = 10.98.0.1/24\n{clients}"))

    def up(self, *options: str, networks: str = EVERYTHING, **more: Any) -> None:
        self.host.pywg("up", *options, self.config(networks, **more))
        ping(self.host.namespace, self.far.inner4, 1, once=True)

    def doctor(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """Its findings by their words; of a running tunnel without arguments."""
        answer = self.host.attempt(*DOCTOR, *(arguments or [self.name]))
        assert answer.returncode in (0, 1, 2), answer.stderr
        assert answer.stderr == ""
        found = json.loads(answer.stdout)
        worst = {item["severity"] for item in found}
        expected = 2 if "error" in worst else 1 if "warning" in worst else 0
        assert answer.returncode == expected
        assert self.key.private not in answer.stdout
        return {item["word"]: item for item in found}


@pytest.fixture
def place(subject: Program, lab: Lab, host: Host) -> Iterator[Place]:
    key = lab.key()
    far = lab.side(None, 2, host.far)
    far.daemon.setconf(
        far.interface_section()
        + f"[Peer]\nPublicKey = {key.public}\nAllowedIPs = 10.99.0.1/32, fd99::1/128\n"
    )
    far.daemon.up(f"{far.inner4}/24", f"{far.inner6}/64")
    made = Place(host, far, key, unique("o"))
    yield made
    host.attempt(sys.executable, "-m", "pywg", "down", made.name)


def bad(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Word -> severity, of what is worse than a note."""
    return {
        word: item["severity"]
        for word, item in found.items()
        if item["severity"] in ("warning", "error")
    }


# ---- what is healthy, and that nothing changes


@pytest.mark.parametrize(
    "networks",
    [EVERYTHING, "10.99.0.0/24", f"{EVERYTHING}\n#!pywg ExcludedIPs = 203.0.113.0/24"],
    ids=["everything", "split", "but for one network"],
)
def test_a_healthy_tunnel_has_nothing_worse_than_a_note(place: Place, networks: str) -> None:
    path = place.config(networks)
    assert bad(place.doctor(path)) == {}
    place.up(networks=networks)
    before = place.host.look(place.name)
    found = place.doctor()
    assert bad(found) == {}
    assert {"handshake", "in-effect", "mtu", "names", "firewall"} <= set(found)
    assert ("leaks" in found) == networks.startswith(EVERYTHING)
    assert bad(place.doctor(path)) == {}
    assert place.host.look(place.name) == before


def test_it_changes_nothing_where_it_finds_much(place: Place) -> None:
    place.host.namespace.nft("table inet f {\nchain c {\ntype filter hook input priority 0\n}\n}\n")
    path = place.config(interface="MTU = 9000", endpoint="198.51.100.7:51820")
    before = place.host.look(place.name), settings(place.host)
    assert "mtu-too-big" in place.doctor(path)
    assert (place.host.look(place.name), settings(place.host)) == before
    place.host.pywg("up", path)
    before = place.host.look(place.name), settings(place.host)
    assert "mtu-too-big" in place.doctor()
    assert (place.host.look(place.name), settings(place.host)) == before


def settings(host: Host) -> str:
    """All that /proc/sys/net has, but for what only counts."""
    lines = host.run("sysctl", "-e", "net").splitlines()
    return "\n".join(line for line in lines if "conntrack_count" not in line)


def test_a_tunnel_that_somebody_else_made_has_no_file(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    found = doctor_in(tunnel.a.namespace, tunnel.a.daemon.name)
    assert bad({item["word"]: item for item in found}) == {}
    assert {"handshake", "mtu", "routes"} <= {item["word"] for item in found}


def test_a_tunnel_with_its_sockets_elsewhere_is_looked_at_in_both_places(place: Place) -> None:
    inner = Namespace("i")
    try:
        place.config(interface=f"#!pywg Netns = {inner.name}")
        path = str(place.host.directory / f"{place.name}.conf")
        place.host.pywg("up", path)
        ping(inner, place.far.inner4, 1, once=True)
        inner.ip("link", "set", place.name, "mtu", "1480")
        place.host.namespace.ip("link", "set", "veth", "mtu", "1500")
        found = place.doctor()
        assert found["mtu-too-big"]["mend"] == "MTU = 1420 in [Interface]"
        assert "undone" in found, "the MTU is another than that of up"
        assert not {"leak-ipv4", "leak-ipv6", "no-route"} & set(found)
        place.host.pywg("down", path)
    finally:
        inner.close()


def test_a_tunnel_of_another_namespace_is_to_be_looked_at_there(place: Place) -> None:
    place.up(networks="10.99.0.0/24")
    with place.host.far.entered():
        text = run(*place.host.inside(*DOCTOR, place.name), check=False, env=ENVIRONMENT)
    found = {item["word"]: item for item in json.loads(text)}
    assert bad(found) == {"elsewhere": "error"}
    assert place.host.namespace.name in found["elsewhere"]["text"]


# ---- what is planted


def test_names_that_do_not_exist(place: Place) -> None:
    with NameServer(place.host.far, "192.0.2.2"):
        (place.host.directory / "resolv.conf").write_text("nameserver 192.0.2.2\n")
        found = place.doctor(place.config(endpoint="no.example.test:51820"))
    assert found["name-unknown"]["severity"] == "error"
    assert "no.example.test:51820" in found["name-unknown"]["evidence"]


def test_no_way_to_an_endpoint(place: Place) -> None:
    place.host.namespace.ip("route", "delete", "default")
    found = place.doctor(place.config(endpoint="198.51.100.7:51820"))
    assert found["no-route"]["severity"] == "error"
    assert "Network is unreachable" in found["no-route"]["evidence"]


def test_an_endpoint_inside_its_own_tunnel(place: Place) -> None:
    path = place.config("198.51.100.0/24", endpoint="198.51.100.7:51820")
    place.host.pywg("up", path)
    found = place.doctor()["endpoint-in-tunnel"]
    assert found["severity"] == "error"
    assert f"dev {place.name}" in found["evidence"]


def test_a_route_that_is_narrower_than_the_tunnel(place: Place) -> None:
    place.up(interface="MTU = 1420\nDNS = 10.99.0.2")
    place.host.namespace.ip("link", "set", "veth", "mtu", "1400")
    found = place.doctor()["mtu-too-big"]
    assert found["severity"] == "warning"
    assert found["mend"] == "MTU = 1320 in [Interface]"
    assert "far: " in found["text"]


def test_a_router_that_is_narrower_is_asked(lab: Lab, tmp_path: Path) -> None:
    """As behind a DSL line: nothing here shows it."""
    router, near, far = Router(lab).namespace, lab.namespace("n"), lab.namespace("f")
    for number, space in ((1, near), (2, far)):
        net4, net6 = f"192.168.{number}", f"2001:db8:{number}:"
        cable(
            (space, "veth", [f"{net4}.2/24", f"{net6}:2/64"]),
            (router, f"to{number}", [f"{net4}.1/24", f"{net6}:1/64"]),
        )
        space.ip("route", "add", "default", "via", f"{net4}.1")
        space.ip("-6", "route", "add", "default", "via", f"{net6}:1")
    for space, device in ((router, "to2"), (far, "veth")):
        space.ip("link", "set", device, "mtu", "1380")
    for endpoint in ("192.168.2.2:51820", "[2001:db8:2::2]:51820"):
        path = tmp_path / f"{unique('o')}.conf"
        path.write_text(
            f"[Interface]\nPrivateKey = {lab.key().private}\nAddress = 10.9.0.2/32\n"
            f"[Peer]\nPublicKey = {new_key().public}\nAllowedIPs = 10.9.0.0/24\n"
            f"Endpoint = {endpoint}\n"
        )
        found = {item["word"]: item for item in doctor_in(near, str(path))}
        assert "takes 1380 (a router on it says so)" in found["mtu-too-big"]["evidence"]
        assert found["mtu-too-big"]["mend"] == "MTU = 1300 in [Interface]"


def doctor_in(namespace: Namespace, *arguments: str) -> list[dict[str, Any]]:
    with namespace.entered():
        text = run(*DOCTOR, *arguments, check=False, cwd=REPOSITORY)
    found: list[dict[str, Any]] = json.loads(text)
    return found


def test_a_firewall_before_a_server_and_no_forwarding(place: Place) -> None:
    path = place.server()
    assert bad(place.doctor(path)) == {"forwarding-off": "warning"}
    place.host.namespace.nft(
        "table inet f {\nchain c {\ntype filter hook input priority 0; policy drop;\n"
        'ct state established,related accept\niif "lo" accept\ntcp dport 22 accept\n'
        "meta l4proto { icmp, icmpv6 } accept\n}\n}\n"
    )
    found = place.doctor(path)
    assert bad(found) == {"forwarding-off": "warning", "firewall-input": "warning"}
    assert found["firewall-input"]["mend"] == "nft insert rule inet f c udp dport 51820 accept"
    place.host.namespace.run(*found["firewall-input"]["mend"].split())
    place.host.namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    found = place.doctor(path)
    assert bad(found) == {}
    assert found["no-nat"]["severity"] == "note"


def test_a_firewall_that_lets_nothing_out(place: Place) -> None:
    place.up()
    place.host.namespace.nft(
        "table ip f {\nchain c {\ntype filter hook output priority 0\n"
        "ip daddr 192.0.2.0/24 udp dport { 51000-52000 } drop\n}\n}\n"
    )
    found = place.doctor()
    assert bad(found) == {"firewall-output": "error"}
    assert "nft list chain ip f c" in found["firewall-output"]["evidence"]


def test_a_strict_reverse_path_filter(place: Place) -> None:
    place.up("--no-heal")
    for setting in ("all.src_valid_mark=0", "veth.rp_filter=1"):
        place.host.namespace.run("sysctl", "-qw", f"net.ipv4.conf.{setting}")
    found = place.doctor()
    assert found["reverse-path-filter"]["severity"] == "error"
    assert "src_valid_mark" in found["undone"]["evidence"]
    place.host.namespace.run(*found["reverse-path-filter"]["mend"].split())
    assert bad(place.doctor()) == {}


def test_another_tunnel_that_catches_everything(place: Place) -> None:
    place.host.namespace.ip("tuntap", "add", "tun7", "mode", "tun")
    place.host.namespace.ip("link", "set", "tun7", "up")
    for half in ("0.0.0.0/1", "128.0.0.0/1"):
        place.host.namespace.ip("route", "add", half, "dev", "tun7")
    found = place.doctor(place.config())
    assert found["other-vpn"]["severity"] == "warning"
    assert "tun7 (tun) has routes for 0.0.0.0/1" in found["other-vpn"]["evidence"]
    place.host.namespace.ip("link", "delete", "tun7")


def test_another_tunnel_of_ours_that_carries_everything(place: Place) -> None:
    place.up()
    text = Path(place.config(endpoint="198.51.100.7:51820")).read_text()
    found = place.doctor(str(place.host.config(unique("o"), text)))
    assert found["other-vpn"]["severity"] == "warning"
    assert f"{place.name} carries everything here" in found["plan"]["text"]
    assert found["endpoint-in-vpn"]["severity"] == "note"


def test_a_network_that_is_here_already(place: Place) -> None:
    found = place.doctor(place.config("192.0.2.0/24", endpoint="203.0.113.9:1"))
    assert found["networks-overlap"]["evidence"] == "veth has the address 192.0.2.1/24"


def test_leaks_of_a_tunnel_whose_rules_are_gone(place: Place) -> None:
    place.up("--no-heal")
    rules = json.loads(place.host.namespace.ip("-j", "rule"))
    (ours,) = [str(rule["priority"]) for rule in rules if "not" in rule]
    place.host.namespace.ip("rule", "delete", "priority", ours)
    found = place.doctor()
    assert found["leak-ipv4"]["severity"] == "error"
    assert "dev veth" in found["leak-ipv4"]["evidence"]
    assert found["undone"]["severity"] == "warning"
    assert "leak-ipv6" not in found


def test_leaks_of_what_a_tunnel_was_not_told_to_carry(place: Place) -> None:
    place.up(networks="0.0.0.0/0", interface="")
    found = bad(place.doctor())
    assert found == {"leak-ipv6": "warning", "leak-dns": "warning"}


def test_behind_a_kill_switch_nothing_leaks_unless_it_is_gone(place: Place) -> None:
    place.up("--no-heal", "--kill-switch", networks="0.0.0.0/0", interface="")
    assert bad(place.doctor()) == {}
    place.host.namespace.nft(f"delete table inet pywg-kill-{place.name}\n")
    found = bad(place.doctor())
    assert found == {"undone": "warning", "leak-ipv6": "warning", "leak-dns": "warning"}


def test_a_link_that_is_down_and_a_port_that_is_taken(place: Place) -> None:
    place.up("--no-heal")
    place.host.namespace.ip("link", "set", place.name, "down")
    assert place.doctor()["link-down"]["severity"] == "error"
    other = place.host.config(unique("o"), Path(place.server(51999)).read_text())
    with place.host.namespace.socket() as taken:
        taken.bind(("0.0.0.0", 51999))
        found = place.doctor(str(other))
    assert "ListenPort 51999 is taken" in found["refused"]["text"]


def test_what_is_wrong_with_the_file_is_told_once(place: Place) -> None:
    path = place.config("10.99.0.0/24", interface="#!pywg Only = user:root")
    answer = place.host.attempt(*DOCTOR, path)
    errors = [item for item in json.loads(answer.stdout) if item["severity"] == "error"]
    assert [item["word"] for item in errors] == ["config"]
    path = place.config(interface="#!pywg Only = user:not-yet-here")
    assert "there is no user not-yet-here" in place.doctor(path)["refused"]["text"]


def test_what_the_outgoing_device_does_not_offload(place: Place) -> None:
    path = place.config()
    found = place.doctor(path)
    assert not {"no-gso", "no-checksum-offload"} & set(found)
    place.host.namespace.run("ethtool", "-K", "veth", "gso", "off")
    assert place.doctor(path)["no-gso"]["severity"] == "note"
    place.host.namespace.run("ethtool", "-K", "veth", "tx", "off")
    found = place.doctor(path)
    assert found["no-checksum-offload"]["mend"] == "ethtool -K veth tx on"


def test_features_are_those_that_ethtool_shows(place: Place) -> None:
    shown = place.host.namespace.run("ethtool", "-k", "veth")
    # Those below its headings have the kernel's names, all others ethtool's own.
    inner = [line.strip().partition(": ") for line in shown.splitlines() if line[:1] == "\t"]
    on = {name for name, _, state in inner if state.startswith("on")}
    with place.host.namespace.entered():
        active = features.active("veth")
        assert features.active("none-such") is None
    assert active is not None
    assert len(on) > 3
    assert on == active & {name for name, _, _ in inner}


def test_a_port_at_which_nobody_listens(place: Place) -> None:
    for endpoint in ("192.0.2.2:51999", "[2001:db8::2]:51999"):
        found = place.doctor(place.config(endpoint=endpoint))
        assert bad(found) == {"port-closed": "warning"}


def test_a_peer_that_never_answers(place: Place) -> None:
    path = place.config("10.99.0.0/24", endpoint="192.0.2.2:51999")
    place.host.pywg("up", path)
    place.host.attempt("ping", "-c1", "-W1", "10.99.0.2")
    found = place.doctor()["no-handshake"]
    assert found["severity"] == "warning"
    assert "ICMP port unreachable" in found["text"]


def test_no_tun_here(place: Place) -> None:
    script = 'mount -t tmpfs none /dev/net && exec "$@"'
    answer = place.host.attempt("unshare", "--mount", "sh", "-c", script, "sh", *DOCTOR)
    assert answer.returncode == 2
    found = {item["word"]: item for item in json.loads(answer.stdout)}
    assert found["tun-missing"]["severity"] == "error"
    assert "mknod /dev/net/tun" in found["tun-missing"]["mend"]


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_an_ordinary_user_is_told_what_only_root_could_look_at(
    place: Place, open_to_all: Path
) -> None:
    path = open_to_all / f"{place.name}.conf"
    path.write_text(Path(place.config()).read_text())
    path.chmod(0o644)
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
    answer = place.host.attempt(*nobody, *DOCTOR, str(path))
    assert answer.stderr == ""
    found = json.loads(answer.stdout)
    words = [item["word"] for item in found]
    assert {"not-root", "world-accessible", "mtu"} <= set(words)
    unseen = [item["text"] for item in found if item["word"] == "unseen"]
    assert "the firewall (nft list ruleset): not looked at" in unseen
    place.up()
    answer = place.host.attempt(*nobody, *DOCTOR, place.name)
    assert answer.stderr == ""
    unseen = [item["text"] for item in json.loads(answer.stdout) if item["word"] == "unseen"]
    assert "the tunnel: not looked at" in unseen
