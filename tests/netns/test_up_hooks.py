"""Hooks get their text as it stands in the file."""

from __future__ import annotations

import pytest

from tools.lab.host import Host
from tools.lab.namespaces import unique

from .test_up_compare import FILES

pytestmark = pytest.mark.pywgd_only


def test_a_hash_in_a_hook_is_the_shells(host: Host) -> None:
    name, place = unique("k"), host.directory
    hooks = (
        f'PostUp = x=eth0.5; echo "${{x#eth0.}}" > {place}/F1; echo "a#b" > {place}/F2   # said\n'
        f'PostDown = echo "gone #1" > {place}/F3\n'
    )
    path = host.config(name, FILES["split"].replace("[Peer]", f"{hooks}[Peer]", 1))
    host.pywg("up", str(path))
    host.pywg("down", name)
    said = [(place / file).read_text() for file in ("F1", "F2", "F3")]
    assert said == ["5\n", "a#b\n", "gone #1\n"]


def test_saving_leaves_hooks_as_they_are(host: Host) -> None:
    name = unique("k")
    hook = "PostUp = true # SaveConfig must not eat this   "
    text = FILES["split"].replace("[Peer]", f"{hook}\n[Peer]", 1)
    path = host.config(name, text)
    host.pywg("up", str(path))
    host.run("wg", "set", name, "listen-port", "51999")
    host.pywg("save", name)
    host.pywg("down", name)
    assert path.read_text() == text.replace("51820\n", "51999\n", 1)


def test_what_is_excluded_goes_beside_the_tunnel(host: Host) -> None:
    name = unique("k")
    excluded = "AllowedIPs = 0.0.0.0/0\n#!pywg ExcludedIPs = 203.0.113.0/24"
    path = host.config(name, FILES["full"].replace("AllowedIPs = 0.0.0.0/0", excluded))
    before = host.look(name)
    host.pywg("up", str(path))

    def way(address: str) -> str:
        return host.namespace.ip("route", "get", address)

    assert "dev veth" in way("203.0.113.9")
    assert name in way("203.0.114.9")
    assert name in way("198.51.100.1")
    assert "dev veth" in host.namespace.ip("route", "get", "198.51.100.1", "mark", "51820")
    stripped = host.pywg("strip", str(path))
    assert "203.0.112.0/24" in stripped
    allowed = stripped.split("AllowedIPs = ")[1].splitlines()[0]
    assert "203.0.113.0/24" not in allowed
    assert sorted(host.run("wg", "show", name, "allowed-ips").split()[1:]) == sorted(
        allowed.split(", ")
    )
    host.pywg("save", name)
    assert "ExcludedIPs = 203.0.113.0/24" in path.read_text()
    host.pywg("reload", name)
    host.pywg("down", name)
    assert host.look(name) == before
