"""In which order `pywg up` and `down` ask and act: PreUp before any question, rules before routes;
one command at a time on a host."""

from __future__ import annotations

import select
import subprocess
import sys

import pytest

from tools.lab import programs
from tools.lab.host import Host
from tools.lab.lab import Lab
from tools.lab.namespaces import unique
from tools.lab.waiting import wait_until

from .test_up_compare import FILES, file

pytestmark = pytest.mark.pywgd_only

FULL = FILES["full, both families"]


def with_hook(text: str, hook: str) -> str:
    return text.replace("[Peer]", f"{hook}\n[Peer]", 1)


# ---- PreUp changes what is found


def test_a_name_that_pre_up_adds_is_found(host: Host) -> None:
    name = unique("o")
    text = FILES["split"].replace("192.0.2.2:51820", "vpn.example.test:51820")
    hook = 'PreUp = echo "192.0.2.2 vpn.example.test" >> /etc/hosts'
    host.pywg("up", str(host.config(name, with_hook(text, hook))))
    assert "Endpoint = 192.0.2.2:51820" in host.showconf(name)
    host.pywg("down", name)


def test_a_route_that_pre_up_adds_gives_the_mtu(host: Host) -> None:
    name = unique("o")
    hook = "PreUp = ip route add 192.0.2.2/32 dev veth mtu 1300"
    host.pywg("up", str(host.config(name, with_hook(FILES["split"], hook))))
    assert host.look(name)["mtu"][name] == 1220
    host.pywg("down", name)


def test_ipv6_that_pre_up_switches_on_is_used(host: Host) -> None:
    host.run("sysctl", "-q", "net.ipv6.conf.default.disable_ipv6=1")
    name = unique("o")
    hook = "PreUp = sysctl -q net.ipv6.conf.%i.disable_ipv6=0"
    text = file("Address = fd99::2/64", "AllowedIPs = fd30::/32")
    host.pywg("up", str(host.config(name, with_hook(text, hook))))
    assert "fd30::/32" in host.namespace.ip("-6", "route")
    host.pywg("down", name)


def test_a_table_that_pre_up_fills_is_not_taken(host: Host) -> None:
    name = unique("o")
    hook = "PreUp = ip route add 198.51.100.0/24 dev veth table 51820"
    host.pywg("up", str(host.config(name, with_hook(FILES["full"], hook))))
    assert "fwmark 0xca6d" in host.namespace.ip("rule"), "51821"
    host.pywg("down", name)


def test_what_pre_up_gives_the_device_stays(host: Host) -> None:
    name = unique("o")
    key = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
    hook = f"PreUp = wg set %i fwmark 77 peer {key} allowed-ips 10.3.0.0/16"
    host.pywg("up", str(host.config(name, with_hook(FILES["full"], hook))))
    shown = host.showconf(name)
    assert f"PublicKey = {key}" in shown
    assert "FwMark = 0x4d" in shown
    assert "not from all fwmark 0x4d lookup 77" in host.namespace.ip("rule")
    host.pywg("down", name)


# ---- rules before routes


def monitored(host: Host, command: list[str]) -> list[str]:
    """What changes of rules and of routes in tables while a command runs, in short words."""
    with host.namespace.entered():
        monitor = subprocess.Popen(
            ["ip", "monitor", "rule", "route"], stdout=subprocess.PIPE, text=True
        )
    assert monitor.stdout is not None
    try:
        # Whether it listens already can only be seen by what it tells.
        wait_until(lambda: _is_heard(host, monitor), "the monitor listens")
        host.attempt(*command)
        host.namespace.ip("route", "add", "203.0.113.77/32", "dev", "veth", "table", "99")
        host.namespace.ip("route", "delete", "203.0.113.77/32", "dev", "veth", "table", "99")
        words: list[str] = []
        for line in monitor.stdout:
            if "Deleted 203.0.113.77" in line:
                return words
            words += _short(line)
    finally:
        monitor.kill()
        monitor.wait()
        monitor.stdout.close()
    raise AssertionError("the monitor ended")


def _is_heard(host: Host, monitor: subprocess.Popen[str]) -> bool:
    host.namespace.ip("route", "add", "203.0.113.1/32", "dev", "veth", "table", "98")
    host.namespace.ip("route", "delete", "203.0.113.1/32", "dev", "veth", "table", "98")
    assert monitor.stdout is not None
    return bool(select.select([monitor.stdout], [], [], 0.2)[0])


def _short(line: str) -> list[str]:
    gone = "-" if line.startswith("Deleted") else "+"
    if "suppress_prefixlength" in line:
        return [gone + "suppress"]
    if "not from all fwmark" in line:
        return [gone + "rule"]
    if line.split()[0 if gone == "+" else 1] == "default" and "table 51820" in line:
        return [gone + "route"]
    return []


def test_rules_come_before_the_route_and_the_one_into_the_tunnel_goes_first(host: Host) -> None:
    name = unique("o")
    path = str(host.config(name, FILES["full"]))
    pywg = [sys.executable, "-m", "pywg"]
    assert monitored(host, [*pywg, "up", path]) == ["+suppress", "+rule", "+route"]
    assert monitored(host, [*pywg, "down", path])[:2] == ["-rule", "-suppress"]


def test_a_roll_back_goes_the_same_way_backwards(host: Host) -> None:
    name = unique("o")
    path = str(host.config(name, with_hook(FILES["full"], "PostUp = false")))
    seen = monitored(host, [sys.executable, "-m", "pywg", "up", path])
    assert seen == ["+suppress", "+rule", "+route", "-route", "-rule", "-suppress"]


# ---- several at once


def test_two_full_tunnels_come_up_and_go_at_once(host: Host) -> None:
    names = [unique("o"), unique("o")]
    other = FULL.replace("10.9.0.", "10.8.0.").replace("fd99:", "fd88:")
    other = other.replace("10.30", "10.31").replace("fd30", "fd31")
    paths = [str(host.config(names[0], FULL)), str(host.config(names[1], other))]
    before = host.look("")
    for _ in range(5):
        for verb in ("up", "down"):
            running = [host.start(verb, path) for path in paths]
            for process in running:
                said = process.communicate(timeout=60)[0]
                assert process.returncode == 0, said
            if verb == "up":
                rules = host.namespace.ip("rule")
                assert "lookup 51820" in rules
                assert "lookup 51821" in rules
        assert host.look("") == before


def test_the_same_tunnel_comes_up_once(host: Host) -> None:
    name = unique("o")
    path = str(host.config(name, with_hook(FULL, "PreUp = sleep 0.5")))
    before = host.look(name)
    running = [host.start("up", path) for _ in range(3)]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert sorted(process.returncode for process in running) == [0, 1, 1], said
    assert sum("already exists" in text for text in said) == 2, said
    host.pywg("down", name)
    assert host.look(name) == before


def test_a_hook_may_bring_up_another(host: Host) -> None:
    names = [unique("o"), unique("o")]
    inner = host.config(names[1], FILES["split"].replace("10.9.0.2", "10.8.0.2"))
    call = f"{sys.executable} -m pywg"
    hooks = "".join(
        f"{when} = {call} {verb} {inner}\n"
        for when, verb in (("PreUp", "up"), ("PostDown", "down"))
    )
    path = host.config(names[0], with_hook(FULL, hooks))
    before = host.look("")
    host.pywg("up", str(path))
    assert host.namespace.link(names[1]) is not None
    host.pywg("down", names[0])
    assert host.look("") == before


# ---- one name in two network namespaces


def test_down_in_another_namespace_refuses_and_names_the_right_one(host: Host, lab: Lab) -> None:
    name, other = unique("o"), lab.namespace("other")
    host.pywg("up", str(host.config(name, FILES["full"])))
    up = host.look(name)
    elsewhere = ["ip", "netns", "exec", other.name, sys.executable, "-m", "pywg"]
    for verb in ("down", "reload", "save"):
        answer = host.attempt(*elsewhere, verb, name)
        assert answer.returncode == 1, verb
        assert f"network namespace, {host.namespace.name}" in answer.stderr, verb
    assert host.look(name) == up
    answer = host.attempt(*elsewhere, "up", str(host.directory / f"{name}.conf"))
    assert answer.returncode == 1
    assert "already exists" in answer.stderr
    assert host.look(name) == up
    host.pywg("down", name)


def test_down_of_a_daemon_in_another_namespace_refuses_too(lab: Lab) -> None:
    there, here = lab.namespace("there"), lab.namespace("here")
    daemon = lab.daemon(None, there)
    answer = programs.pywg(here, "down", daemon.name)
    assert answer.returncode == 1
    assert there.name in answer.stderr
    assert there.link(daemon.name) is not None
