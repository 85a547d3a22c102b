"""What other programs take away from a tunnel that is up comes back: by `pywg reload`, and by
itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.lab.host import Host
from tools.lab.namespaces import unique
from tools.lab.waiting import wait_until

from .test_up_compare import FILES
from .test_up_reload import essence

pytestmark = pytest.mark.pywgd_only

FULL = FILES["full, both families"]


def _rules(host: Host, name: str) -> None:
    for family in ("-4", "-6"):
        host.namespace.ip(family, "rule", "flush")
        for priority, table in (("32766", "main"), ("32767", "default")):
            if (family, table) != ("-6", "default"):
                host.namespace.ip(family, "rule", "add", "priority", priority, "table", table)


def _one_rule(host: Host, name: str) -> None:
    host.namespace.ip("rule", "delete", "table", "main", "suppress_prefixlength", "0")


def _table(host: Host, name: str) -> None:
    host.namespace.ip("route", "flush", "table", "51820")


def _route(host: Host, name: str) -> None:
    host.namespace.ip("route", "delete", "10.30.0.0/16")


def _link(host: Host, name: str) -> None:
    host.namespace.ip("link", "set", name, "down")
    host.namespace.ip("link", "set", name, "up")


def _link_down(host: Host, name: str) -> None:
    host.namespace.ip("link", "set", name, "down")


def _mtu(host: Host, name: str) -> None:
    host.namespace.ip("link", "set", name, "mtu", "1300")


def _address(host: Host, name: str) -> None:
    host.namespace.ip("address", "flush", "dev", name)


def _firewall(host: Host, name: str) -> None:
    host.namespace.run("nft", "flush", "ruleset")


def _part_of_firewall(host: Host, name: str) -> None:
    host.namespace.run("nft", "flush", "table", "ip", f"pywg-{name}")


def _resolv_conf(host: Host, name: str) -> None:
    (host.directory / "resolv.conf").write_text("nameserver 192.0.2.99\n")


def _ipv6(host: Host, name: str) -> None:
    host.run("sysctl", "-q", f"net.ipv6.conf.{name}.disable_ipv6=1")
    host.run("sysctl", "-q", f"net.ipv6.conf.{name}.disable_ipv6=0")


TAKEN: list[Callable[[Host, str], None]] = [
    _rules,
    _one_rule,
    _table,
    _route,
    _link,
    _link_down,
    _mtu,
    _address,
    _firewall,
    _part_of_firewall,
    _resolv_conf,
    _ipv6,
]


@pytest.mark.parametrize("take", TAKEN, ids=lambda take: take.__name__.strip("_"))
def test_reload_ends_as_a_fresh_up_whatever_was_taken_away(
    host: Host, take: Callable[[Host, str], None]
) -> None:
    name = unique("e")
    host.pywg("up", "--no-heal", str(host.config(name, FULL)))
    up = essence(host, name)
    take(host, name)
    assert essence(host, name) != up
    host.pywg("reload", name)
    assert essence(host, name) == up
    host.pywg("down", name)


@pytest.mark.parametrize(
    "take", [take for take in TAKEN if take is not _mtu], ids=lambda take: take.__name__.strip("_")
)
def test_it_comes_back_by_itself_and_is_counted(
    host: Host, take: Callable[[Host, str], None]
) -> None:
    name = unique("e")
    host.pywg("up", str(host.config(name, FULL)))
    up = essence(host, name)
    take(host, name)
    wait_until(lambda: essence(host, name) == up, "all is back")
    wait_until(lambda: count(host, name) > 0, "it is counted")
    assert "put back" in host.pywg("show", name, "--offload")
    host.pywg("down", name)


def count(host: Host, name: str) -> int:
    shown = json.loads(host.pywg("show", name, "--json"))
    return int(shown[name].get("healed", {}).get("count", 0))


def test_what_a_hook_took_back_stays_so(host: Host) -> None:
    name = unique("e")
    hook = "PostUp = ip route delete 10.30.0.0/16"
    host.pywg("up", str(host.config(name, FULL.replace("[Peer]", f"{hook}\n[Peer]", 1))))
    up = essence(host, name)
    _table(host, name)
    wait_until(lambda: essence(host, name) == up, "the other route is back")
    host.pywg("reload", name)
    assert "10.30.0.0/16" not in host.namespace.ip("route")
    host.pywg("down", name)


def test_what_was_taken_before_the_interface_stays_away(host: Host) -> None:
    """As `wg-quick down` does it, which healing may meet half-way."""
    name = unique("e")
    before = host.look(name)
    host.pywg("up", str(host.config(name, FULL)))
    up = essence(host, name)
    _rules(host, name)
    wait_until(lambda: essence(host, name) == up, "all is back")
    host.namespace.ip("link", "delete", name)
    wait_until(lambda: not host.hosts_of(name), "its process ends")
    after = host.look(name)
    assert [after[f"rules {family}"] for family in ("-4", "-6")] == [
        before[f"rules {family}"] for family in ("-4", "-6")
    ]
    assert host.attempt(sys.executable, "-m", "pywg", "down", name).returncode == 0
    assert host.look(name) == before


@pytest.mark.parametrize("end", ["wg-quick down", "ip link delete"])
def test_who_ends_it_by_other_means_finds_nothing_left(host: Host, end: str) -> None:
    name = unique("e")
    before = host.look(name)
    path = host.config(name, FULL)
    host.pywg("up", str(path))
    assert host.look(name) != before
    if end == "wg-quick down":
        host.run("wg-quick", "down", str(path))
    else:
        host.namespace.ip("link", "delete", name)
    wait_until(lambda: not host.hosts_of(name), "its process ends")
    assert {**host.look(name), "left": before["left"]} == before  # but for the record
    assert (
        "was not taken down"
        not in host.attempt(sys.executable, "-m", "pywg", "up", str(path)).stderr
    )
    host.pywg("down", name)
    assert host.look(name) == before


def test_a_kill_switch_stays_when_the_interface_is_deleted(host: Host) -> None:
    name = unique("e")
    before = host.look(name)
    host.pywg("up", "--kill-switch", str(host.config(name, FULL)))
    host.namespace.ip("link", "delete", name)
    wait_until(lambda: not host.hosts_of(name), "its process ends")
    assert f"pywg-kill-{name}" in host.namespace.run("nft", "list", "tables")
    host.pywg("down", name)
    assert host.look(name) == before


def test_a_program_that_insists_gets_its_way_and_is_told_of(host: Host, tmp_path: Path) -> None:
    name = unique("e")
    log = tmp_path / "log"
    path = str(host.config(name, FULL))
    command = f"LOG_LEVEL=error {sys.executable} -m pywg up {path} 2> {log}"
    host.run("sh", "-c", command)

    def is_there() -> bool:
        return "10.30.0.0/16" in host.namespace.ip("route")

    def has_given_up() -> bool:
        return "stays undone: ip -4 route add 10.30.0.0/16" in log.read_text()

    for _ in range(10):
        wait_until(lambda: is_there() or has_given_up(), "it is back")
        if has_given_up():
            break
        host.namespace.ip("route", "delete", "10.30.0.0/16")
    assert not is_there()
    assert count(host, name) == 5
    host.pywg("reload", name)
    assert is_there()
    host.namespace.ip("route", "delete", "10.30.0.0/16")
    wait_until(is_there, "reload begins anew")
    host.pywg("down", name)


def test_without_healing_nothing_comes_back(host: Host) -> None:
    """Seen by a second tunnel, which heals, and whose route was taken later."""
    names = [unique("e"), unique("e")]
    other = FILES["split"].replace("10.9.0.", "10.8.0.").replace("\nListenPort = 51820", "")
    host.pywg("up", "--no-heal", str(host.config(names[0], FULL)))
    host.pywg("up", str(host.config(names[1], other)))
    host.namespace.ip("route", "delete", "10.30.0.0/16")
    host.namespace.ip("route", "delete", "10.20.0.0/16")
    wait_until(lambda: "10.20.0.0/16" in host.namespace.ip("route"), "the second's")
    assert "10.30.0.0/16" not in host.namespace.ip("route")
    for name in names:
        host.pywg("down", name)


def test_the_mtu_follows_the_way_unless_it_was_given(host: Host) -> None:
    names = [unique("e"), unique("e")]
    given = FILES["split"].replace("10.9.0.", "10.8.0.").replace("10.20", "10.21")
    given = given.replace("\nListenPort = 51820", "\nMTU = 1400")
    host.pywg("up", str(host.config(names[0], FULL)))
    host.pywg("up", str(host.config(names[1], given)))
    host.namespace.ip("-6", "route", "replace", "2001:db8::2/128", "dev", "veth", "mtu", "1400")
    host.namespace.ip("-6", "route", "replace", "default", "via", "2001:db8::2", "metric", "7")
    wait_until(lambda: host.look("")["mtu"][names[0]] == 1320, "it follows")
    assert host.look("")["mtu"][names[1]] == 1400
    for name in names:
        host.pywg("down", name)
