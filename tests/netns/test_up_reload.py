"""`pywg reload` and `save`: a running tunnel follows its file, sessions and all; and the file
follows the tunnel."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.lab import programs
from tools.lab.daemon import ask
from tools.lab.host import Host
from tools.lab.lab import Lab
from tools.lab.namespaces import unique
from tools.lab.traffic import ping

from .test_up_compare import FILES, file

pytestmark = pytest.mark.pywgd_only

PLAIN = file("Address = 10.9.0.2/24", "AllowedIPs = 10.1.0.0/16")
# What each may become from what it was, and back again.
CHANGES = {
    "address": (PLAIN, PLAIN.replace("10.9.0.2", "10.9.0.5")),
    "address and network": (PLAIN, PLAIN.replace("10.9.0.2/24", "10.7.0.1/16, fd99::1/64")),
    "first of several addresses": (PLAIN.replace("10.9.0.2/24", "10.9.0.2/24, 10.9.0.3/24"), PLAIN),
    "last of several addresses": (
        PLAIN.replace("10.9.0.2/24", "10.9.0.3/24, 10.9.0.2/24"),
        PLAIN.replace("10.9.0.2/24", "10.9.0.2/24"),
    ),
    "no address": (PLAIN, PLAIN.replace("Address = 10.9.0.2/24", "")),
    "routes": (PLAIN, PLAIN.replace("10.1.0.0/16", "10.1.0.0/17, 10.2.0.0/16, fd01::/64")),
    "mtu": (PLAIN, PLAIN.replace("[Peer]", "MTU = 1300\n[Peer]")),
    "names": (PLAIN.replace("[Peer]", "DNS = 10.9.0.1\n[Peer]"), FILES["full"]),
    "table": (PLAIN, PLAIN.replace("[Peer]", "Table = 77\n[Peer]")),
    "full": (FILES["full"], FILES["split"]),
    "one family more": (FILES["full"], FILES["full, both families"]),
    "mark": (
        FILES["full, with a mark"],
        FILES["full, with a mark"]
        .replace("0x1234", "0x4321")
        .replace("10.9.0.2/32", "10.9.0.4/32"),
    ),
    "everything": (FILES["full, both families"], FILES["several addresses"]),
}


def essence(host: Host, name: str) -> dict[str, object]:
    """What counts: the numbers of rules count only by their order, and addresses by their kind."""
    seen = host.look(name)
    del seen["left"]
    for family in ("-4", "-6"):
        for rule in seen[f"rules {family}"]:
            del rule["priority"]
        seen[f"routes {family}"].sort(key=str)
    for link in seen["addresses"]:
        for address in link["addr_info"]:
            address.pop("secondary", None)
        link["addr_info"].sort(key=str)
    # A port may be random, and an endpoint stays until there is another, as with `wg syncconf`.
    passing = ("ListenPort", "Endpoint")
    seen["showconf"] = [line for line in host.showconf(name) if not line.startswith(passing)]
    return seen


@pytest.mark.parametrize("what", CHANGES)
def test_a_reload_ends_where_down_and_up_would(host: Host, what: str) -> None:
    name = unique("r")
    before = host.look(name)
    texts = CHANGES[what]
    wanted = []
    for text in texts:
        path = host.config(name, text)
        host.pywg("up", str(path))
        wanted.append(essence(host, name))
        if text == texts[0]:
            host.pywg("down", name)
    for index in (0, 1):
        path.write_text(texts[index])
        host.pywg("reload", name)
        seen = essence(host, name)
        for item, expected in wanted[index].items():
            assert seen[item] == expected, item
    host.pywg("down", name)
    assert host.look(name) == before


def test_a_reload_that_fails_changes_nothing(host: Host) -> None:
    name = unique("r")
    before = host.look(name)
    path = host.config(name, FILES["full"])
    host.pywg("up", str(path))
    up = essence(host, name)
    host.namespace.ip("route", "add", "10.77.0.0/16", "dev", "veth")
    taken = FILES["full, both families"].replace("10.30.0.0/16", "10.77.0.0/16")
    path.write_text(taken.replace("10.9.0.2", "10.9.0.8"))
    answer = host.attempt(sys.executable, "-m", "pywg", "reload", name)
    host.namespace.ip("route", "delete", "10.77.0.0/16", "dev", "veth")
    assert answer.returncode == 1
    assert "10.77.0.0/16" in answer.stderr.splitlines()[-1]
    assert essence(host, name) == up
    host.pywg("down", name)
    assert host.look(name) == before


def test_sessions_survive_a_reload(lab: Lab, tmp_path: Path) -> None:
    here, there = lab.cabled()
    key, name = lab.key(), lab.name("r")
    peer = lab.side(None, 2, there)
    peer.daemon.setconf(
        peer.interface_section()
        + f"[Peer]\nPublicKey = {key.public}\nAllowedIPs = 10.99.0.0/24, 10.98.0.1/32\n"
    )
    peer.daemon.up("10.99.0.2/24")
    there.ip("route", "add", "10.98.0.1/32", "dev", peer.daemon.name)
    path = tmp_path / f"{name}.conf"
    path.touch(0o600)
    text = f"[Interface]\nPrivateKey = {key.private}\nAddress = 10.99.0.1/32\n"
    path.write_text(text + peer.peer_section(outer=4))
    assert programs.pywg(here, "up", str(path)).returncode == 0
    ping(here, "10.99.0.2", 1)

    def handshake() -> str:
        return here.run("wg", "show", name, "latest-handshakes")

    first = handshake()
    transferred = here.run("wg", "show", name, "transfer").split()
    path.write_text(
        text.replace("10.99.0.1/32", "10.98.0.1/32")
        + peer.peer_section(outer=4).replace("AllowedIPs = ", "AllowedIPs = 10.97.0.0/16, ")
    )
    answer = programs.pywg(here, "reload", name)
    assert answer.returncode == 0, answer.stderr
    ping(here, "10.99.0.2", 1)
    assert handshake() == first
    after = here.run("wg", "show", name, "transfer").split()
    assert int(after[2]) > int(transferred[2])
    assert programs.pywg(here, "down", name).returncode == 0


def test_a_reload_of_what_is_not_up_says_so(host: Host) -> None:
    answer = host.attempt(sys.executable, "-m", "pywg", "reload", "nothere")
    assert answer.returncode == 1
    assert "nothere is not up by `pywg up`" in answer.stderr


# Saving.

SAVED = """# at home
[Interface]
PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk= # mine
address = 10.9.0.2/24
MTU=1400
ListenPort = 51820
PostUp = true # hook

[Peer]
# Ann
PublicKey=xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
AllowedIPs = 10.2.0.0/16,10.1.0.0/16
Endpoint = localhost:7
"""


def test_saving_what_did_not_change_changes_nothing(host: Host) -> None:
    name = unique("r")
    path = host.config(name, SAVED)
    host.pywg("up", str(path))
    status = path.stat()
    host.pywg("save", name)
    host.pywg("down", name)
    assert path.read_text() == SAVED
    assert path.stat() == status


def test_what_changed_is_saved_and_nothing_else(host: Host) -> None:
    name = unique("r")
    path = host.config(name, SAVED.replace("PostUp", "SaveConfig = true\nPostUp"))
    host.pywg("up", str(path))
    key = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
    host.run(
        "wg", "set", name, "peer", key, "allowed-ips", "10.3.0.0/16", "endpoint", "192.0.2.9:9"
    )
    host.namespace.ip("address", "add", "10.8.0.1/24", "dev", name)
    host.namespace.ip("link", "set", name, "mtu", "1350")
    host.pywg("down", name)
    assert path.read_text() == SAVED.replace("PostUp", "SaveConfig = true\nPostUp").replace(
        "10.9.0.2/24", "10.9.0.2/24, 10.8.0.1/24"
    ).replace("1400", "1350") + (
        f"\n[Peer]\nPublicKey = {key}\nAllowedIPs = 10.3.0.0/16\nEndpoint = 192.0.2.9:9\n"
    )


def test_a_mark_that_was_chosen_for_a_default_route_is_not_saved(host: Host) -> None:
    name = unique("r")
    text = FILES["full"].replace("[Peer]", "ListenPort = 51820\n[Peer]")
    path = host.config(name, text)
    host.pywg("up", str(path))
    host.pywg("save", name)
    host.pywg("down", name)
    assert path.read_text() == text


def test_names_and_bindings_follow_the_file(host: Host) -> None:
    name = unique("r")
    first = file(
        "#!pywg BindDevice = veth\n#!pywg BindAddress = 192.0.2.1", "Endpoint = localhost:1"
    )
    path = host.config(name, first)
    host.pywg("up", str(path))
    report = ask(name, "pywg_get=1")
    assert (report["pywg_bind_device"], report["pywg_bind_address"]) == ("veth", "192.0.2.1")
    assert '"localhost"' in host.read(f"/run/pywg/{name}.json")
    host.config(name, file("", "Endpoint = 192.0.2.2:1"))
    host.pywg("reload", name)
    report = ask(name, "pywg_get=1")
    assert not report.get("pywg_bind_device")
    assert not report.get("pywg_bind_address")
    assert '"localhost"' not in host.read(f"/run/pywg/{name}.json")
    host.pywg("down", name)
