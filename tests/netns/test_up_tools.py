"""Programs of the host that are there and broken: `pywg up` takes the next one, else warns of what
that costs; and `pywg down` goes on, and can be tried again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.lab.host import RESOLV_CONF, Host, hosted
from tools.lab.namespaces import unique
from tools.lab.programs import Program
from tools.lab.waiting import wait_until

from .test_up_compare import FILES

pytestmark = pytest.mark.pywgd_only

FULL = FILES["full, both families"]
DENIED = "echo 'Error: Could not process rule: Operation not permitted' >&2; exit 1"
LOCKED = (
    "echo 'Another app is currently holding the xtables lock. Perhaps you want to use the -w "
    "option?' >&2; exit 4"
)
# Keeps what it is told by its name, as iptables-save would show it.
RESTORE = """
file=$RULES/${0##*/}; file=${file%-restore}; text=$(cat)
if [[ $text == *"-D "* ]]; then : > $file; else echo "$text" | sed "s/^-I /-A /" > $file; fi
"""
SAVE = 'cat $RULES/$(basename "$0" -save) 2>/dev/null; true'
MISMATCH = "echo 'resolvconf: signature mismatch: /etc/resolv.conf' >&2; [[ $1 == -l ]] || exit 1"
IPTABLES = [f"ip{v}tables{kind}" for v in ("", "6") for kind in ("", "-nft", "-legacy")]
TOOLS = ["nft", *(f"{name}-{verb}" for name in IPTABLES for verb in ("restore", "save"))]


@pytest.fixture
def host(subject: Program, tmp_path: Path) -> Iterator[Host]:
    with hosted(tmp_path) as made:
        for tool in TOOLS:
            made.program(tool, DENIED)
        yield made


def iptables(host: Host, *families: str) -> Path:
    """Programs that keep rules in files of this folder."""
    rules = host.directory / "rules"
    rules.mkdir()
    for family in families:
        host.program(f"{family}-restore", RESTORE.replace("$RULES", str(rules)))
        host.program(f"{family}-save", SAVE.replace("$RULES", str(rules)))
    return rules


def mend(host: Host, *tools: str) -> None:
    for tool in tools:
        (host.directory / "bin" / tool).unlink()


def pywg(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    return host.attempt(sys.executable, "-m", "pywg", *arguments)


def warnings(host: Host, *arguments: str) -> list[str]:
    """Of a command that does what it was told."""
    answer = pywg(host, *arguments)
    assert answer.returncode == 0, answer.stderr
    return [line for line in answer.stderr.splitlines() if line.startswith("[!] ")]


def recorded(host: Host, name: str, kind: str) -> list[dict[str, Any]]:
    steps = json.loads(host.read(f"/run/pywg/{name}.json"))["steps"]
    return [step for step in steps if step["step"] == kind]


def test_without_a_tool_that_works_there_is_a_warning_and_no_guard(host: Host) -> None:
    name = unique("b")
    before = host.look(name)
    said = warnings(host, "up", str(host.config(name, FULL)))
    for version, line in zip((4, 6), said, strict=True):
        assert f"no IPv{version} guard for {name}: nft -f -: Error: Could not process" in line
        assert "tables-save: Error" in line, "the next tool, too"
        assert "beside it" in line, "what it costs"
        assert f"mend that, then: pywg reload {name}" in line
    assert not recorded(host, name, "SetFirewall")
    mend(host, *TOOLS)
    host.pywg("reload", name)
    assert len(recorded(host, name, "SetFirewall")) == 2
    host.pywg("down", name)
    assert host.look(name) == before


def test_iptables_comes_after_an_nft_that_fails_and_is_what_down_asks(host: Host) -> None:
    rules = iptables(host, "iptables", "ip6tables")
    name = unique("b")
    before = host.look(name)
    said = warnings(host, "up", str(host.config(name, FULL)))
    assert [line.rpartition(": ")[2] for line in said] == [
        "iptables-restore -n",
        "ip6tables-restore -n",
    ]
    assert {step["tool"] for step in recorded(host, name, "SetFirewall")} == {"iptables"}
    assert "-A PREROUTING" in (rules / "iptables").read_text()
    assert "fd99::2" in (rules / "ip6tables").read_text()
    host.pywg("reload", name)
    assert {step["tool"] for step in recorded(host, name, "SetFirewall")} == {"iptables"}
    assert "-A PREROUTING" in (rules / "iptables").read_text()
    mend(host, "nft")
    assert not warnings(host, "down", name)
    assert (rules / "iptables").read_text() == (rules / "ip6tables").read_text() == ""
    assert host.look(name) == before


def test_one_family_may_have_a_guard_where_the_other_cannot(host: Host) -> None:
    """iptables, with an ip6tables that does not work."""
    iptables(host, "iptables")
    name = unique("b")
    said = warnings(host, "up", str(host.config(name, FULL)))
    assert [f"no IPv6 guard for {name}" in line for line in said] == [False, True]
    assert [step["version"] for step in recorded(host, name, "SetFirewall")] == [4]
    host.pywg("down", name)


def test_a_lock_that_others_hold_is_waited_for_and_then_told_of(host: Host) -> None:
    rules = iptables(host, "iptables", "ip6tables")
    script = (host.directory / "bin" / "iptables-restore").read_text()
    host.program("iptables-restore", f'[[ "$*" == *"-w "* ]] || {{ {LOCKED}; }}\n{script}')
    host.program("ip6tables-restore", LOCKED)
    name = unique("b")
    said = warnings(host, "up", str(host.config(name, FULL)))
    assert "xtables lock" in said[1]
    assert "-A PREROUTING" in (rules / "iptables").read_text()
    host.pywg("down", name)


def test_who_asks_for_the_kill_switch_by_name_gets_no_tunnel_without_it(host: Host) -> None:
    name = unique("b")
    before = host.look(name)
    answer = pywg(host, "up", "--kill-switch", str(host.config(name, FULL)))
    assert answer.returncode == 1
    assert f"{name}: no kill switch without nft: nft -f -: Error" in answer.stderr
    assert host.look(name) == before
    mend(host, *TOOLS)
    host.pywg("up", "--kill-switch", str(host.directory / f"{name}.conf"))
    host.program("nft", DENIED)
    answer = pywg(host, "unblock", name)
    assert answer.returncode == 1
    assert "Operation not permitted" in answer.stderr, "not: there is none"
    mend(host, "nft")
    host.pywg("down", name)
    assert host.look(name) == before


def guarded_without_nft(host: Host) -> tuple[str, dict[str, Any]]:
    """A tunnel whose guard nobody can remove, and what the host was like before it."""
    mend(host, *TOOLS)
    name = unique("b")
    path = host.config(name, FULL)
    before = host.look(name)
    host.pywg("up", str(path))
    host.program("nft", DENIED)
    return name, before


def test_a_guard_that_cannot_be_removed_is_told_of_and_down_can_be_tried_again(host: Host) -> None:
    name, before = guarded_without_nft(host)
    said = warnings(host, "down", name)
    assert [
        f"the IPv{version} guard of {name} stays: nft" in line
        for version in (4, 6)
        for line in said
    ] == [False, True, True, False]
    assert all(f"then again: pywg down {name}" in line for line in said)
    after = host.look(name)
    for what in ("addresses", "rules -4", "rules -6", "routes -4", "resolv.conf"):
        assert after[what] == before[what], "all else is undone"
    mend(host, "nft")
    assert not warnings(host, "down", name)
    assert host.look(name) == before


def test_a_guard_that_stays_when_the_interface_goes_is_removed_by_down(host: Host) -> None:
    name, before = guarded_without_nft(host)
    host.namespace.ip("link", "delete", name)
    wait_until(lambda: '"is_up": false' in host.read(f"/run/pywg/{name}.json"), "it is taken back")
    mend(host, "nft")
    assert not warnings(host, "down", name)
    assert host.look(name) == before


# Names.


def test_after_a_resolvconf_that_fails_the_file_is_replaced_and_comes_back(host: Host) -> None:
    mend(host, *TOOLS)
    told = host.directory / "told"
    host.program("resolvconf", f'echo "$*" >> {told}; {MISMATCH}')
    name = unique("b")
    before = host.look(name)
    (said,) = warnings(host, "up", str(host.config(name, FULL)))
    assert "signature mismatch" in said
    assert said.endswith("this is done instead: write /etc/resolv.conf")
    assert told.read_text().splitlines() == [f"-a {name} -m 0 -x", f"-d {name} -f"]
    assert "nameserver 10.9.0.1" in host.read("/etc/resolv.conf")
    assert [step["manager"] for step in recorded(host, name, "SetDns")] == ["file"]
    (host.directory / "resolv.conf").write_text(RESOLV_CONF)
    wait_until(lambda: "10.9.0.1" in host.read("/etc/resolv.conf"), "it is healed")
    host.pywg("reload", name)
    assert "nameserver 10.9.0.1" in host.read("/etc/resolv.conf")
    host.pywg("down", name)
    assert host.look(name) == before


def test_a_resolver_whose_bus_does_not_answer_is_passed_over(host: Host) -> None:
    mend(host, *TOOLS)
    host.program("resolvectl", "echo 'Failed to connect to bus: No such file' >&2; exit 1")
    host.run("mkdir", "-p", "/run/systemd")
    host.run("mount", "-t", "tmpfs", "none", "/run/systemd")
    host.run("mkdir", "/run/systemd/resolve")
    (host.directory / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    name = unique("b")
    before = host.look(name)
    (said,) = warnings(host, "up", str(host.config(name, FULL)))
    assert "Failed to connect to bus" in said
    assert "nameserver 10.9.0.1" in host.read("/etc/resolv.conf")
    host.pywg("down", name)
    assert host.look(name) == before


def test_where_nobody_can_be_told_names_stay_as_they_are(host: Host) -> None:
    mend(host, *TOOLS)
    host.program("resolvconf", MISMATCH)
    host.run("mount", "-o", "remount,bind,ro", "/etc/resolv.conf")
    name = unique("b")
    before = host.look(name)
    (said,) = warnings(host, "up", str(host.config(name, FULL)))
    assert "DNS is not set: resolvconf -a" in said
    assert f"beside the tunnel (mend that, then: pywg reload {name})" in said
    assert not recorded(host, name, "SetDns")
    assert host.read("/etc/resolv.conf") == RESOLV_CONF
    host.pywg("down", name)
    assert host.look(name) == before


def test_names_that_cannot_be_taken_back_are_told_of_and_down_goes_on(host: Host) -> None:
    mend(host, *TOOLS)
    host.program("resolvconf", "true")
    name = unique("b")
    before = host.look(name)
    host.pywg("up", str(host.config(name, FULL)))
    host.program("resolvconf", MISMATCH)
    (said,) = warnings(host, "down", name)
    assert f"the name servers of {name} stay: resolvconf -d {name}: resolvconf: signature" in said
    after = host.look(name)
    assert {what for what in before if before[what] != after[what]} == {"left"}
    host.program("resolvconf", "true")
    assert not warnings(host, "down", name)
    assert host.look(name) == before
