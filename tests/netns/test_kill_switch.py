"""With a kill switch nothing leaves beside the tunnel, from before the first step of `up` to after
the last of `down`, whatever becomes of the tunnel in between."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lab.host import Host, hosted
from tools.lab.namespaces import unique
from tools.lab.programs import Program
from tools.lab.waiting import wait_until

from .test_up_compare import FILES

pytestmark = pytest.mark.pywgd_only

FULL = FILES["full, both families"].replace("[Peer]", "#!pywg KillSwitch = on\n[Peer]", 1)
# Each hook says that it runs, and waits until it may go on.
HOOK = "touch {0}.began; while [ ! -e {0}.may ]; do sleep 0.01; done; rm {0}.may {0}.began"
COUNTER = """table inet wire {
    counter ipv4 {}
    counter ipv6 {}
    chain arriving { type filter hook prerouting priority -300;
        iifname veth meta nfproto ipv4 udp dport 51777 counter name ipv4
        iifname veth meta nfproto ipv6 udp dport 51777 counter name ipv6
    }
}
"""
SENDER = """
import socket, time
ends = []
for family, address in ((socket.AF_INET, "198.51.100.10"), (socket.AF_INET6, "2001:db8:100::10")):
    ends.append((socket.socket(family, socket.SOCK_DGRAM), (address, 51777)))
print("ready", flush=True)
while True:
    for end, address in ends:
        try:
            end.sendto(b"leak", address)
        except OSError:
            pass
    time.sleep(0.0005)
"""


@pytest.fixture
def host(subject: Program, tmp_path: Path) -> Iterator[Host]:
    with hosted(tmp_path) as made:
        made.far.nft(COUNTER)
        yield made


@contextlib.contextmanager
def sending(host: Host) -> Iterator[None]:
    process = host.namespace.popen(
        [sys.executable, "-c", SENDER], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        # Of both families: what waits for a neighbour has passed the firewall, and leaves later.
        wait_until(lambda: all(arrived(host)), "datagrams arrive")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def arrived(host: Host) -> list[int]:
    """In clear, of each family."""
    text = host.far.run("nft", "-j", "list", "counters", "table", "inet", "wire")
    items = json.loads(text)["nftables"]
    return [item["counter"]["packets"] for item in items if "counter" in item]


def in_clear(host: Host) -> int:
    return sum(arrived(host))


def start(host: Host, *arguments: str) -> subprocess.Popen[str]:
    with host.namespace.entered():
        return subprocess.Popen(
            host.inside(sys.executable, "-m", "pywg", *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def pause(place: Path) -> None:
    wait_until(lambda: place.with_suffix(".began").exists(), f"{place.name} runs", seconds=30)


def go_on(place: Path) -> None:
    place.with_suffix(".may").touch()


def tables(host: Host) -> str:
    return host.namespace.run("nft", "list", "tables")


def test_nothing_leaves_beside_the_tunnel_whatever_happens(host: Host) -> None:
    name = unique("s")
    before = host.look(name)
    pre_up, post_down = host.directory / "preup", host.directory / "postdown"
    hooks = f"PreUp = {HOOK.format(pre_up)}\nPostDown = {HOOK.format(post_down)}\n"
    path = host.config(name, FULL.replace("[Peer]", f"{hooks}[Peer]", 1))
    with sending(host):
        up = start(host, "up", str(path))
        pause(pre_up)
        stood = in_clear(host)
        go_on(pre_up)
        assert up.communicate(timeout=60)[0]
        assert up.returncode == 0
        host.pywg("reload", name)
        host.namespace.ip("route", "replace", "default", "via", "192.0.2.2", "metric", "7")
        host.namespace.ip("link", "set", name, "down")
        host.kill_host(name)
        wait_until(lambda: host.namespace.link(name) is None, "the interface is gone")
        # What a service does then; and the first try fails.
        path.write_text(path.read_text().replace("PreUp = touch", "PostUp = false\nPreUp = touch"))
        go_on(pre_up)
        assert host.attempt(sys.executable, "-m", "pywg", "up", str(path)).returncode == 1
        assert f"inet pywg-kill-{name}" in tables(host)
        path.write_text(path.read_text().replace("PostUp = false\n", ""))
        go_on(pre_up)
        host.pywg("up", str(path))
        host.namespace.ip("link", "delete", name)
        go_on(pre_up)
        wait_until(lambda: not host.hosts_of(name), "its process ends")
        host.pywg("up", str(path))
        down = start(host, "down", name)
        pause(post_down)
        assert in_clear(host) == stood, "nothing since the first hook"
        go_on(post_down)
        said = down.communicate(timeout=60)[0]
        assert down.returncode == 0, said
        assert f"the kill switch of {name} is gone" in said
        wait_until(lambda: in_clear(host) > stood, "without it they go as before")
    host.namespace.ip("route", "delete", "default", "via", "192.0.2.2", "metric", "7")
    assert host.look(name) == before


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
    wait_until(lambda: f"pywg-kill-{name}" in tables(host), "it is back", seconds=20)
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
