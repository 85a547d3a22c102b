"""What a kill switch lets through, when there is none, and who takes it away. That nothing leaves
beside the tunnel meanwhile: test_leaks.py."""

from __future__ import annotations

import sys

import pytest

from tools.lab.host import Host
from tools.lab.namespaces import unique
from tools.lab.waiting import wait_until

from .test_up_compare import FILES

pytestmark = pytest.mark.pywgd_only

FULL = FILES["full, both families"].replace("[Peer]", "#!pywg KillSwitch = on\n[Peer]", 1)


def tables(host: Host) -> str:
    return host.namespace.run("nft", "list", "tables")


def test_a_first_up_that_fails_leaves_no_switch(host: Host) -> None:
    name = unique("s")
    before = host.look(name)
    path = host.config(name, FULL.replace("[Peer]", "PostUp = false\n[Peer]", 1))
    assert host.attempt(sys.executable, "-m", "pywg", "up", str(path)).returncode == 1
    assert host.look(name) == before


def test_the_tunnel_and_what_a_network_needs_pass(host: Host) -> None:
    name = unique("s")
    host.pywg("up", "--kill-switch", str(host.config(name, FILES["full, both families"])))
    rules = host.namespace.run("nft", "list", "table", "inet", f"pywg-kill-{name}")
    assert rules.count("policy drop") == 2
    # Neighbours are found, the tunnel's own datagrams leave, and others do not.
    host.namespace.ip("neighbour", "flush", "dev", "veth")
    assert host.attempt("ping", "-c1", "-W1", "192.0.2.2").returncode != 0
    host.run("ping", "-c1", "-W5", "-m", "51820", "192.0.2.2")
    host.run("ping", "-c1", "-W5", "-m", "51820", "2001:db8::2")
    host.run("ping", "-c1", "-W5", "127.0.0.1")
    host.pywg("reload", name)
    assert f"pywg-kill-{name}" in tables(host), "the file is silent, the option stays"
    answer = host.attempt(sys.executable, "-m", "pywg", "unblock", name)
    assert f"the kill switch of {name} is gone" in answer.stderr
    assert f"pywg-kill-{name}" not in tables(host)
    host.pywg("down", name)
    assert host.attempt(sys.executable, "-m", "pywg", "unblock", name).returncode == 1


def test_the_local_network_may_pass(host: Host) -> None:
    name = unique("s")
    text = FULL.replace("KillSwitch = on", "KillSwitch = lan")
    host.namespace.ip("address", "add", "192.168.7.1/24", "dev", "veth")
    host.far.ip("address", "add", "192.168.7.2/24", "dev", "veth")
    host.pywg("up", str(host.config(name, text)))
    host.run("ping", "-c1", "-W5", "192.168.7.2")
    assert host.attempt("ping", "-c1", "-W1", "192.0.2.2").returncode != 0
    host.pywg("down", name)


def test_it_comes_back_when_another_flushes_the_firewall(host: Host) -> None:
    name = unique("s")
    host.pywg("up", str(host.config(name, FULL)))
    host.namespace.run("nft", "flush", "ruleset")
    wait_until(lambda: f"pywg-kill-{name}" in tables(host), "it is back")
    host.pywg("down", name)


def test_without_nft_there_is_no_tunnel(host: Host) -> None:
    name = unique("s")
    before = host.look(name)
    empty = host.directory / "empty"
    empty.mkdir()
    path = host.config(name, FULL)
    answer = host.attempt("env", f"PATH={empty}", sys.executable, "-m", "pywg", "up", str(path))
    assert answer.returncode == 1
    assert "no kill switch without nft" in answer.stderr
    assert host.look(name) == before


def test_a_tunnel_that_carries_no_default_route_has_none(host: Host) -> None:
    name = unique("s")
    path = host.config(name, FILES["split"])
    answer = host.attempt(sys.executable, "-m", "pywg", "up", "--kill-switch", str(path))
    assert answer.returncode == 1
    assert "AllowedIPs with 0.0.0.0/0 or ::/0" in answer.stderr
