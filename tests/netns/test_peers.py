r"""A server made by `pywg init` and clients of `pywg peer add`, end to end, with the commands of
docs/peers.md; and other keys for a client while echoes go to and fro.

      namespace a: the server                          namespace b: a client
    +---------------------------+                    +---------------------------+
    |  wg0                      |  (the tunnel)      |  laptop                   |
    |  veth 192.0.2.1 ===================================== veth 192.0.2.2       |
    +---------------------------+                    +---------------------------+
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pywg.config import Config
from tools.lab.echoes import Echoes
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace, run
from tools.lab.programs import REPOSITORY
from tools.lab.traffic import ping, ping_attempt
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only

FOLDER = Path("/etc/wireguard")
DOCUMENT = REPOSITORY / "docs" / "peers.md"
SERVER_NAME = "192.0.2.1"


@pytest.fixture
def folder() -> Iterator[Path]:
    """/etc/wireguard, empty and only ours; the mount namespace is that of the tests."""
    is_new = not FOLDER.exists()
    FOLDER.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "none", str(FOLDER))
    try:
        yield FOLDER
    finally:
        run("umount", str(FOLDER))
        if is_new:
            FOLDER.rmdir()


class Place:
    """Two hosts with a folder to work in, and the documented commands."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.server, self.client = lab.cabled()
        self.directory = directory
        blocks = re.findall(r"^```\n(.*?)^```$", DOCUMENT.read_text(), re.S | re.M)
        self.blocks = [
            [line.removeprefix("sudo pywg ").split() for line in block.splitlines()]
            for block in blocks
        ]

    def attempt(self, where: Namespace, *words: str) -> subprocess.CompletedProcess[str]:
        said = [word.replace("vpn.example.com", SERVER_NAME) for word in words]
        with where.entered():
            return subprocess.run(
                [sys.executable, "-m", "pywg", *said],
                cwd=self.directory,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )

    def pywg(self, where: Namespace, *words: str) -> str:
        answer = self.attempt(where, *words)
        assert answer.returncode == 0, f"{words}: {answer.stderr}"
        return answer.stdout

    def connect(self) -> None:
        """The first two blocks of the document."""
        for words in self.blocks[0]:
            self.pywg(self.server, *words)
        for words in self.blocks[1]:
            self.pywg(self.client, *words)

    def addresses(self, file: Path) -> list[str]:
        return [str(one.ip) for one in Config.load(file).interface.addresses]

    def listed(self) -> dict[str, dict[str, object]]:
        found = json.loads(self.pywg(self.server, "peer", "list", "wg0", "--json"))
        return {str(one.get("name")): one for one in found}

    def down(self) -> None:
        self.pywg(self.client, "down", "laptop")
        self.pywg(self.server, "down", "wg0")


@pytest.fixture
def place(lab: Lab, folder: Path, tmp_path: Path) -> Place:
    work = tmp_path / "work"
    work.mkdir()
    return Place(lab, work)


def test_two_hosts_are_connected_by_the_documented_commands(place: Place, folder: Path) -> None:
    place.connect()
    server = place.addresses(folder / "wg0.conf")
    client = place.addresses(place.directory / "laptop.conf")
    for here, there in zip((place.client,) * 2, server, strict=True):
        ping(here, there, 1)
    for address in client:
        ping(place.server, address, 1)
    for path in (folder / "wg0.conf", place.directory / "laptop.conf"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    laptop = place.listed()["laptop"]
    assert laptop["running"] and laptop["latestHandshake"]
    assert str(laptop["endpoint"]).startswith("192.0.2.2:")
    assert "name: laptop" in place.pywg(place.server, "show", "wg0")
    place.down()


def test_clients_come_and_go_while_the_session_of_another_goes_on(
    place: Place, folder: Path
) -> None:
    pytest.importorskip("segno")
    place.connect()
    server = place.addresses(folder / "wg0.conf")[0]
    with Echoes(place.client, place.server, server) as echoes:
        before = place.listed()["laptop"]["latestHandshake"]
        shown = [place.pywg(place.server, *words) for words in place.blocks[2]]
        assert "\N{LOWER HALF BLOCK}" in shown[0]
        assert [line.split()[0] for line in shown[1].splitlines()] == ["name", "laptop", "phone"]
        assert place.listed()["phone"]["running"]
        routes = place.server.ip("route", "show", "dev", "wg0")
        place.pywg(place.server, "peer", "remove", "wg0", "phone", "--apply")
        echoes.flow()
        assert list(place.listed()) == ["laptop"]
        assert place.server.run("wg", "show", "wg0", "peers").count("\n") == 1
        assert place.server.ip("route", "show", "dev", "wg0") == routes
        assert place.listed()["laptop"]["latestHandshake"] == before
    place.down()


def test_what_cannot_be_applied_changes_no_file(place: Place, folder: Path) -> None:
    place.pywg(place.server, *place.blocks[0][0])
    text = (folder / "wg0.conf").read_text()
    answer = place.attempt(place.server, "peer", "add", "wg0", "ada", "--apply")
    assert answer.returncode == 1
    assert "wg0 does not run: leave --apply out" in answer.stderr
    assert (folder / "wg0.conf").read_text() == text
    assert list(place.directory.iterdir()) == []


def shake_hands(place: Place) -> None:
    """The server forgets its sessions, as only the link can make it."""
    for state in ("down", "up"):
        place.server.ip("link", "set", "wg0", state)


def test_a_preshared_key_changes_under_traffic(place: Place, folder: Path) -> None:
    place.connect()
    server = place.addresses(folder / "wg0.conf")[0]
    with Echoes(place.client, place.server, server) as echoes:
        before = place.listed()["laptop"]["latestHandshake"]
        words = ["peer", "rotate", "wg0", "laptop", "--psk", "--client", "laptop.conf", "--apply"]
        assert words in place.blocks[4]
        place.pywg(place.server, *words)
        echoes.flow()
        place.pywg(place.client, "reload", "laptop")
        echoes.flow()
        assert place.listed()["laptop"]["latestHandshake"] == before, "the session went on"
    keys = [
        where.run("wg", "show", name, "preshared-keys").split()[1]
        for where, name in ((place.server, "wg0"), (place.client, "laptop"))
    ]
    assert keys[0] == keys[1] != "(none)"
    shake_hands(place)
    ping(place.client, server, 1)
    place.down()


def test_a_key_pair_changes_under_traffic(place: Place, folder: Path) -> None:
    place.connect()
    server = place.addresses(folder / "wg0.conf")[0]
    first = place.listed()["laptop"]["publicKey"]
    rotate, finish = place.blocks[5]
    with Echoes(place.client, place.server, server) as echoes:
        place.pywg(place.server, *rotate)
        echoes.flow()
        assert place.listed()["laptop"]["publicKey"] == first, "the old key is good"
        with place.server.entered():
            waiting = subprocess.Popen(
                [sys.executable, "-m", "pywg", *finish],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )
        assert waiting.stderr is not None
        assert "waiting for the client's new key" in waiting.stderr.readline()
        place.pywg(place.client, "reload", "laptop")
        _, said = waiting.communicate(timeout=60)
        assert waiting.returncode == 0, said
        assert "laptop has its new key" in said
        echoes.flow()
    print(f"the slowest echo took {echoes.slowest_seconds:.3f} s")
    laptop = place.listed()["laptop"]
    assert laptop["publicKey"] != first
    assert place.server.run("wg", "show", "wg0", "peers").split() == [laptop["publicKey"]]
    assert place.server.run("wg", "show", "wg0", "persistent-keepalive").split()[1] == "off"
    assert "Replaces" not in (folder / "wg0.conf").read_text()
    shake_hands(place)
    wait_until(lambda: place.listed()["laptop"]["running"], "it is there")
    ping(place.client, server, 1)
    place.down()


def test_until_somebody_finishes_the_client_waits(place: Place, folder: Path) -> None:
    place.connect()
    server = place.addresses(folder / "wg0.conf")[0]
    place.pywg(place.server, *place.blocks[5][0])
    text = (folder / "wg0.conf").read_text()
    answer = place.attempt(place.server, *place.blocks[5][1], "--wait", "0")
    assert answer.returncode == 1
    assert "nothing has come with the new key yet" in answer.stderr
    assert (folder / "wg0.conf").read_text() == text
    shake_hands(place)
    ping(place.client, server, 1)
    place.pywg(place.client, "reload", "laptop")
    assert ping_attempt(place.client, server, seconds=1).returncode != 0
    place.pywg(place.server, *place.blocks[5][1], "--wait", "60")
    ping(place.client, server, 1)
    place.down()


def test_an_interface_of_another_program_gets_the_peer_alone(place: Place, lab: Lab) -> None:
    daemon = lab.daemon(None, place.server)
    file = f"./{daemon.name}.conf"
    place.pywg(place.server, "init", file, "--endpoint", SERVER_NAME)
    place.pywg(place.server, "peer", "add", file, "ada")
    daemon.setconf(place.pywg(place.server, "strip", file))
    place.pywg(place.server, "peer", "add", file, "bob", "--apply")
    listed = json.loads(place.pywg(place.server, "peer", "list", file, "--json"))
    assert [(one["name"], one["running"]) for one in listed] == [("ada", True), ("bob", True)]
    place.pywg(place.server, "peer", "remove", file, "ada", "--apply")
    assert daemon.wg("show", daemon.name, "peers").split() == [listed[1]["publicKey"]]
