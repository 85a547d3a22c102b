"""`pywg up --peers`: one list of peers for many gateways, in a folder, at a URL or in etcd.

    store (folder, web server, etcd)  -->  the follower of a tunnel  -->  its peers, by UAPI

The store is on this machine, and so is all traffic: on loopback, in the tunnel's namespace.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pywg.keys import PrivateKey
from tools.lab.host import Host
from tools.lab.namespaces import unique
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only


def public(number: int) -> str:
    """A public key that is the same in every run."""
    return str(PrivateKey(number.to_bytes(32, "big")).public)


class Gateway:
    """A tunnel that follows a store, with one peer of its own."""

    own = public(1)

    def __init__(self, host: Host, source: str, more: str = "") -> None:
        self.host = host
        self.name = unique("g")
        self.key = PrivateKey.generate()
        self.file = host.config(
            self.name,
            f"[Interface]\nPrivateKey = {self.key.to_base64()}\nAddress = 10.9.0.1/16\n"
            f"#!pywg Peers = {source}\n{more}\n"
            f"[Peer]\nPublicKey = {self.own}\nAllowedIPs = 10.9.0.2/32\n",
        )

    def up(self) -> None:
        self.host.pywg("up", str(self.file))

    def down(self) -> None:
        self.host.pywg("down", self.name)

    def peers(self) -> dict[str, str]:
        """Public key -> allowed IPs, without its own."""
        lines = self.host.run("wg", "show", self.name, "allowed-ips").splitlines()
        found = dict(line.split("\t", 1) for line in lines)
        found.pop(self.own)
        return found

    def has(self, expected: dict[str, str]) -> None:
        wait_until(lambda: self.peers() == expected, f"{self.name} has {expected}", every=0.05)

    def told(self) -> dict[str, Any]:
        """What `show` tells of the store."""
        answer = json.loads(self.host.pywg("show", self.name, "--json"))
        found: dict[str, Any] = answer[self.name].get("peersFrom", {})
        return found

    def tells(self, key: str, word: str) -> None:
        wait_until(lambda: word in str(self.told().get(key, "")), f"{word} in {key}", every=0.1)


def peer(number: int, networks: str) -> str:
    return f"[Peer]\nPublicKey = {public(number)}\nAllowedIPs = {networks}\n"


def test_a_folder_is_followed(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "a.conf").write_text(peer(2, "10.9.1.2/32"))
    gateway = Gateway(host, str(folder))
    gateway.up()
    gateway.has({public(2): "10.9.1.2/32"})
    (folder / "b.json").write_text(
        json.dumps({"publicKey": public(3), "allowedIPs": ["10.9.1.3/32"]})
    )
    gateway.has({public(2): "10.9.1.2/32", public(3): "10.9.1.3/32"})
    (folder / "a.conf").unlink()
    gateway.has({public(3): "10.9.1.3/32"})
    (folder / "c.conf").write_text(peer(4, "10.9.1.3/32, 10.9.1.4/32"))
    gateway.has({public(3): "10.9.1.3/32", public(4): "10.9.1.4/32"})
    gateway.tells("disputes", "1")
    gateway.down()


def test_a_reload_keeps_the_peers_of_the_store(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "a.conf").write_text(peer(2, "10.9.1.2/32") + peer(3, "10.9.1.3/32"))
    gateway = Gateway(host, str(folder))
    gateway.up()
    both = {public(2): "10.9.1.2/32", public(3): "10.9.1.3/32"}
    gateway.has(both)
    text = gateway.file.read_text()
    gateway.file.write_text(text + peer(2, "10.9.2.0/24, 10.9.1.3/32") + peer(5, "10.9.5.0/24"))
    host.pywg("reload", gateway.name)
    own = {public(2): "10.9.2.0/24 10.9.1.3/32", public(5): "10.9.5.0/24"}
    gateway.has({**own, public(3): "(none)"})
    gateway.file.write_text(text)
    host.pywg("reload", gateway.name)
    gateway.has(both)
    gateway.file.write_text(text.replace(str(folder), "/elsewhere"))
    answer = host.attempt(sys.executable, "-m", "pywg", "reload", gateway.name)
    assert answer.returncode == 1
    assert "Peers changes only with `pywg down` and `pywg up`" in answer.stderr
    gateway.down()
