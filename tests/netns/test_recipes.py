"""The files of docs/first-tunnel.md and docs/recipes.md, as they stand there.

laptop 192.0.2.1 ---- 192.0.2.2 server 192.168.7.1 ---- 192.168.7.2 lan [and the world behind it]
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lab.host import Host, hosted
from tools.lab.keys import new_key
from tools.lab.namespaces import Namespace, add_address, cable, unique

pytestmark = pytest.mark.pywgd_only

FIRST = "first-tunnel.md"
DOCS = Path(__file__).parents[2] / "docs"
SERVER = "A server whose clients reach the network behind it"
ELSEWHERE = ("198.51.100.1", "2001:db8:99::1")


def files(page: str, heading: str) -> list[str]:
    """The configuration files below a heading."""
    text = (DOCS / page).read_text().partition(f"# {heading}\n")[2]
    section = re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```ini\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


class World:
    """What the words in capitals stand for, and who is where."""

    def __init__(self, laptop: Host, lan: Namespace) -> None:
        self.laptop, self.server, self.lan = laptop, laptop.far, lan
        server, client = new_key(), new_key()
        self.words = {
            "SERVER_PRIVATE_KEY": server.private,
            "SERVER_PUBLIC_KEY": server.public,
            "LAPTOP_PRIVATE_KEY": client.private,
            "LAPTOP_PUBLIC_KEY": client.public,
            "SERVER_ADDRESS": "192.0.2.2",
            "SERVER_LAN": "192.168.7.0/24",
            "DNS_ADDRESS": "10.8.0.1",
            "LOCAL_NETWORK": "172.20.0.0/16",
        }
        self.names = (unique("rs"), unique("rl"))

    def filled(self, text: str) -> str:
        return re.sub(r"\b[A-Z]+_[A-Z_]+\b", lambda found: self.words[found[0]], text)

    def up(self, server: str, laptop: str) -> None:
        """As two people would: each at its own host."""
        at_server, at_laptop = self.names
        self.server.run(*PYWG, "up", str(self.laptop.config(at_server, self.filled(server))))
        self.laptop.pywg("up", str(self.laptop.config(at_laptop, self.filled(laptop))))

    def down(self) -> None:
        self.laptop.pywg("down", self.names[1])
        self.server.run(*PYWG, "down", self.names[0])

    def way_to(self, address: str) -> str:
        """The interface by which the laptop sends there."""
        found = json.loads(self.laptop.namespace.ip("-j", "route", "get", address))
        return str(found[0]["dev"])

    def ping(self, address: str) -> None:
        self.laptop.run("ping", "-c", "2", "-i", "0.2", "-W", "5", address)


PYWG = (sys.executable, "-m", "pywg")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with hosted(tmp_path) as laptop:
        lan = Namespace("l")
        try:
            cable(
                (laptop.far, "lan", ["192.168.7.1/24", "fd77::1/64"]),
                (lan, "veth", ["192.168.7.2/24", "fd77::2/64"]),
            )
            for address in ELSEWHERE:
                add_address(lan, "lo", address)
            laptop.far.ip("route", "add", "default", "via", "192.168.7.2")
            laptop.far.ip("-6", "route", "add", "default", "via", "fd77::2")
            yield World(laptop, lan)
        finally:
            lan.close()


def test_a_first_tunnel(world: World) -> None:
    server, laptop = files(FIRST, "A first tunnel")
    world.up(server, laptop)
    world.ping("10.8.0.1")
    shown = world.laptop.pywg("show", world.names[1])
    assert "latest handshake" in shown
    assert "name: server" in shown
    world.down()


def test_a_server_whose_clients_reach_the_network_behind_it(world: World) -> None:
    """Nobody there knows the way to the clients, so only masquerading lets an answer come."""
    server, laptop = files("recipes.md", SERVER)
    world.up(server, laptop)
    world.ping("192.168.7.2")
    world.ping("10.8.0.1")
    assert world.way_to(ELSEWHERE[0]) == "veth"
    world.down()
    assert f"nat-{world.names[0]}" not in world.server.run("nft", "list", "tables")


def test_everything_through_the_server(world: World) -> None:
    (laptop,) = files("recipes.md", "Everything through the server")
    world.up(files("recipes.md", SERVER)[0], laptop)
    for address in ELSEWHERE:
        world.ping(address)
        assert world.way_to(address) == world.names[1]
    assert "nameserver 10.8.0.1" in world.laptop.read("/etc/resolv.conf")
    assert f"pywg-kill-{world.names[1]}" in world.laptop.run("nft", "list", "tables")
    world.down()


def test_everything_but_the_local_network(world: World) -> None:
    (laptop,) = files("recipes.md", "Everything but the local network")
    add_address(world.server, "lo", "172.20.0.1/32")  # the laptop's router is its server here
    world.up(files("recipes.md", SERVER)[0], laptop)
    world.ping(ELSEWHERE[0])
    assert world.way_to(ELSEWHERE[0]) == world.names[1]
    world.ping("172.20.0.1")
    assert world.way_to("172.20.0.1") == "veth"
    world.down()


def test_every_file_is_brought_up_here() -> None:
    text = (DOCS / "recipes.md").read_text()
    assert text.count("```ini") == 4
    assert (DOCS / FIRST).read_text().count("```ini") == 2
