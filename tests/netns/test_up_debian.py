"""`pywg up` with the programs that Debian has for names and for a guard, not with stand-ins: both
kinds of resolvconf, dnsmasq behind one of them, and both kinds of iptables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.lab.host import Host
from tools.lab.nameserver import NameServer
from tools.lab.namespaces import add_address, unique
from tools.lab.waiting import wait_until

from .test_up_compare import FILES

pytestmark = pytest.mark.pywgd_only

FULL = FILES["full, both families"]
RESOLVCONFS = ("openresolv", "resolvconf")
BEFORE = "nameserver 192.0.2.53\nsearch lan.example\n"


def script(host: Host, text: str) -> str:
    return host.run("sh", "-ec", text)


def resolvconf(host: Host, package: str) -> None:
    """As a host has it whose network brought a name server."""
    host.unpack(package)
    if package == "resolvconf":
        script(host, "mkdir /run/resolvconf; resolvconf --enable-updates")
        script(host, "ln -sf ../run/resolvconf/resolv.conf /etc/resolv.conf")
    script(host, f"printf '{BEFORE}' | resolvconf -a veth.dhcp")
    assert servers(host) == ["192.0.2.53"]


def servers(host: Host) -> list[str]:
    lines = host.read("/etc/resolv.conf").splitlines()
    return [line.split()[1] for line in lines if line.startswith("nameserver")]


def recorded(host: Host, name: str, kind: str) -> list[dict[str, Any]]:
    steps = json.loads(host.read(f"/run/pywg/{name}.json"))["steps"]
    return [step for step in steps if step["step"] == kind]


def up(host: Host, name: str, text: str, *options: str) -> list[str]:
    """Its warnings."""
    command = [sys.executable, "-m", "pywg", "up", *options, str(host.config(name, text))]
    answer = host.attempt(*command)
    assert answer.returncode == 0, answer.stderr
    return [line for line in answer.stderr.splitlines() if line.startswith("[!] ")]


@pytest.mark.parametrize("package", RESOLVCONFS)
def test_names_come_heal_and_go_with_resolvconf(host: Host, package: str) -> None:
    resolvconf(host, package)
    before, entries = host.read("/etc/resolv.conf"), script(host, "resolvconf -l")
    name = unique("d")
    assert not up(host, name, FULL)
    (step,) = recorded(host, name, "SetDns")
    assert step["manager"] == "resolvconf"
    assert step["target"] == (name if package == "openresolv" else f"tun.{name}")
    told = servers(host)
    assert told[:2] == ["10.9.0.1", "fd99::1"], told
    assert "corp.example lab.example" in host.read("/etc/resolv.conf")
    script(host, f"resolvconf -d {step['target']} -f")
    wait_until(lambda: servers(host) == told, "another program takes it away")
    script(host, "rm /etc/resolv.conf; echo nameserver 192.0.2.99 > /etc/resolv.conf")
    host.pywg("reload", name)
    assert servers(host)[:2] == told[:2], "another program writes the file"
    host.pywg("down", name)
    assert script(host, "resolvconf -l") == entries
    if package == "openresolv":
        assert host.read("/etc/resolv.conf") == before
    else:
        assert servers(host) == ["192.0.2.99"], "what is no longer its link is left alone"


@pytest.mark.parametrize("package", RESOLVCONFS)
def test_a_resolvconf_that_reaches_no_program_is_passed_over(host: Host, package: str) -> None:
    """openresolv that cannot write the file, and Debian's without its link: both exit with 0."""
    host.unpack(package)
    script(
        host,
        "[ -e /etc/resolvconf.conf ] || { mkdir /run/resolvconf; resolvconf --enable-updates; }",
    )
    if package == "openresolv":
        script(host, "sed -i s,^resolv_conf=.*,resolv_conf=/proc/nowhere, /etc/resolvconf.conf")
    name = unique("d")
    before = host.read("/etc/resolv.conf")
    (said,) = up(host, name, FULL)
    assert "/etc/resolv.conf stays as it was" in said
    assert said.endswith("this is done instead: write /etc/resolv.conf")
    assert servers(host) == ["10.9.0.1", "fd99::1"]
    assert name not in script(host, "resolvconf -l || true")
    host.pywg("down", name)
    assert host.read("/etc/resolv.conf") == before


# The guard.


def iptables(host: Host, kind: str) -> None:
    """No nft that works, and `iptables` leads to this kind, by a link as Debian's alternatives."""
    host.program("nft", "echo 'Operation not permitted' >&2; exit 1")
    for family in ("iptables", "ip6tables"):
        for verb in ("restore", "save"):
            link = host.directory / "bin" / f"{family}-{verb}"
            link.unlink(missing_ok=True)
            link.symlink_to(f"/usr/sbin/{family}-{kind}-{verb}")


def rules(host: Host, kind: str, name: str) -> list[str]:
    saved = script(host, f"iptables-{kind}-save; ip6tables-{kind}-save")
    return [line for line in saved.splitlines() if f"pywg rule for {name}" in line]


@pytest.mark.parametrize(("kind", "other"), [("nft", "legacy"), ("legacy", "nft")])
def test_the_guard_of_either_iptables(host: Host, kind: str, other: str) -> None:
    host.unpack("iptables")
    iptables(host, kind)
    name = unique("d")
    before = host.look(name)
    said = up(host, name, FULL)
    assert len(said) == 2, said
    assert {step["tool"] for step in recorded(host, name, "SetFirewall")} == {f"iptables-{kind}"}
    made = rules(host, kind, name)
    drops = [line.split() for line in made if "-j DROP" in line]
    assert [line[line.index("-d") + 1] for line in drops] == ["10.9.0.2/32", "fd99::2/128"]
    assert all(f"! -i {name}" in " ".join(line) for line in drops)
    assert len([line for line in made if "CONNMARK" in line]) == 4
    assert not rules(host, other, name)
    script(host, f"iptables-{kind} -t raw -F; ip6tables-{kind} -t mangle -F")
    if kind == "legacy":  # of which the kernel does not tell
        host.namespace.ip("route", "delete", "10.30.0.0/16")
    wait_until(lambda: sorted(rules(host, kind, name)) == sorted(made), "it heals")
    script(host, f"iptables-{kind} -t raw -F; ip6tables-{kind} -t mangle -F")
    host.pywg("reload", name)
    assert sorted(rules(host, kind, name)) == sorted(made)
    iptables(host, other)  # what `iptables` leads to may change meanwhile
    host.pywg("down", name)
    assert not rules(host, kind, name)
    after = host.look(name)
    assert {what for what in before if after[what] != before[what]} <= {"nft"}, "empty chains"


def test_an_iptables_that_the_kernel_refuses_gives_way_to_the_other(host: Host) -> None:
    host.unpack("iptables")
    iptables(host, "nft")
    for family in ("iptables", "ip6tables"):
        host.program(f"{family}-nft-save", "echo 'Protocol not supported' >&2; exit 1")
    name = unique("d")
    up(host, name, FULL)
    used = {step["tool"] for step in recorded(host, name, "SetFirewall")}
    assert used == {"iptables-legacy"}
    assert len(rules(host, "legacy", name)) == 6
    host.pywg("down", name)
    assert not rules(host, "legacy", name)


def test_the_lock_of_the_tables_is_waited_for(host: Host) -> None:
    host.unpack("iptables")
    iptables(host, "legacy")
    name = unique("d")
    path = host.config(name, FULL.replace("DNS = 10.9.0.1, fd99::1, corp.example, lab.example", ""))
    with host.namespace.entered():
        holder = subprocess.Popen(
            host.inside("flock", "/run/xtables.lock", "sh", "-c", "echo held; exec cat"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        coming = subprocess.Popen(
            host.inside(sys.executable, "-m", "pywg", "up", str(path)),
            stderr=subprocess.PIPE,
            text=True,
        )
    assert coming.stderr is not None
    with holder, coming:
        lines: list[str] = []
        while not lines or "iptables-legacy" not in lines[-1]:
            lines.append(coming.stderr.readline())
            assert lines[-1], lines
        wait_until(lambda: waits_for_lock(host), "it waits")
        holder.communicate()
        lines += coming.stderr.readlines()
        assert coming.wait() == 0, lines
    assert not [line for line in lines if "xtables lock" in line and "[!]" in line]
    assert len(rules(host, "legacy", name)) == 6
    host.pywg("down", name)


def waits_for_lock(host: Host) -> bool:
    return "-> FLOCK" in Path("/proc/locks").read_text()


# Which names, by a resolver of the host's own: openresolv tells dnsmasq who is to be asked.

RESOLVCONF_CONF = """
resolv_conf=/etc/resolv.conf
name_servers=127.0.0.1
dnsmasq_conf=/run/names/servers.conf
dnsmasq_resolv=/run/names/resolv.conf
dnsmasq_restart=/etc/restart
"""
RESTART = """#!/bin/sh
exec > /dev/null 2>&1 < /dev/null
cd /run/names
[ ! -s pid ] || kill $(cat pid)
for try in $(seq 500); do  # as long as the old one holds the port
    dnsmasq --conf-file=/run/names/servers.conf --resolv-file=/run/names/resolv.conf \
        --pid-file=/run/names/pid --user=root --listen-address=127.0.0.1 --bind-interfaces \
        --no-hosts --cache-size=0 && exit
    sleep 0.01
done
"""
SPLIT = FILES["split"].replace("[Peer]", "DNS = 192.0.2.2, ~corp.example\n[Peer]", 1)


@pytest.fixture
def dnsmasq(host: Host) -> None:
    """127.0.0.1 asks whoever resolvconf knows; the network brought 192.0.2.53."""
    add_address(host.far, "veth", "192.0.2.53/24")
    host.unpack("openresolv", "dnsmasq-base")
    script(host, f"cat > /etc/resolvconf.conf <<'END'\n{RESOLVCONF_CONF}\nEND")
    script(host, f"cat > /etc/restart <<'END'\n{RESTART}\nEND\nchmod +x /etc/restart")
    script(host, f"mkdir /run/names; printf '{BEFORE}' | resolvconf -a veth.dhcp")
    assert servers(host) == ["127.0.0.1"]


def asked(host: Host, name: str) -> tuple[bool, bool]:
    """Whether the tunnel's server is asked for a name, and whether the network's is."""
    records = {name: ["203.0.113.7"]}
    with NameServer(host.far, "192.0.2.2", **records) as inside:
        with NameServer(host.far, "192.0.2.53", **records) as outside:
            assert "203.0.113.7" in host.run("getent", "ahostsv4", name)
        return bool(inside.asked), bool(outside.asked)


def test_some_names_go_to_the_tunnel_where_a_resolver_can_split(host: Host, dnsmasq: None) -> None:
    name = unique("d")
    path = host.directory / f"{name}.conf"
    assert not up(host, name, SPLIT)
    assert asked(host, "www.corp.example") == (True, False)
    assert asked(host, "www.other.example") == (False, True)
    host.pywg("save", name)
    assert path.read_text() == SPLIT
    path.write_text(SPLIT.replace("~corp", "corp"))
    host.pywg("reload", name)
    assert asked(host, "www.other.example") == (True, False), "no ~: all names"
    host.pywg("down", name)
    assert asked(host, "www.corp.example") == (False, True)


def test_all_names_go_there_where_nobody_can_split_and_that_is_told(host: Host) -> None:
    resolvconf(host, "resolvconf")
    name = unique("d")
    (said,) = up(host, name, SPLIT)
    assert "all are asked for at 192.0.2.2, not only those in corp.example" in said
    assert servers(host)[0] == "192.0.2.2"
    assert "~" not in host.read("/etc/resolv.conf")
    host.pywg("save", name)
    assert (host.directory / f"{name}.conf").read_text() == SPLIT
    host.pywg("down", name)
