"""Only and Except: what the keys say, when they are refused, and the rules they become. How packets
then go is in netns/test_who.py."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from pywg.config import parse
from pywg.config.model import Config
from pywg.errors import ConfigError
from pywg.host import owners
from pywg.plan import build, codec
from pywg.plan.change import change
from pywg.plan.facts import Facts
from pywg.plan.steps import AddRule, Replace, SetOwners, Step

KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
FULL = "0.0.0.0/0, ::/0"


def config(interface: str, allowed: str = FULL) -> Config:
    text = f"[Interface]\n{interface}\n[Peer]\nPublicKey = {KEY}\nAllowedIPs = {allowed}\n"
    return parse(text, "wg0.conf")


def planned(interface: str, allowed: str = FULL) -> list[Step]:
    return build.plan("wg0", config(interface, allowed), Facts())


def test_several_are_named_in_one_line_or_in_many() -> None:
    found = config("#!pywg Except = user:a, group:7\n#!pywg Except = cgroup:/sys/fs/cgroup/x.slice")
    assert [str(owner) for owner in found.interface.excepted] == [
        "user:a",
        "group:7",
        "cgroup:x.slice",
    ]


def test_it_comes_before_the_rules_that_lead_into_the_tunnel() -> None:
    steps = planned("Address = 10.9.0.2/32, fd99::2/128\nDNS = 10.9.0.1\n#!pywg Only = user:7")
    places = [at for at, step in enumerate(steps) if isinstance(step, AddRule)]
    at = next(at for at, step in enumerate(steps) if isinstance(step, SetOwners))
    assert at < places[0]
    assert steps[at] == SetOwners(
        "wg0", 51820, True, ("user:7",), ("10.9.0.2", "fd99::2"), ("10.9.0.1",)
    )
    assert str(steps[at]) == "nft -f - # only user:7"
    assert str(steps[at].undo()) == "nft delete table inet pywg-owners-wg0"
    assert codec.from_json(codec.to_json(steps[at])) == steps[at]


@pytest.mark.parametrize(
    ("interface", "allowed", "message"),
    [
        ("#!pywg Only = user:1", "10.0.0.0/8", "AllowedIPs with 0.0.0.0/0 or ::/0"),
        ("#!pywg Except = user:1\nTable = 7", FULL, "and Table = auto"),
        ("#!pywg Only = user:1\n#!pywg Except = user:2", FULL, "either Only or Except"),
    ],
)
def test_a_tunnel_that_cannot_tell_is_refused(interface: str, allowed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        planned(interface, allowed)
    assert (caught.value.path, caught.value.line) == ("wg0.conf", 2)


def test_a_reload_puts_the_new_ones_in_their_place_at_once() -> None:
    old, new = planned("#!pywg Except = user:1"), planned("#!pywg Only = user:2")
    steps, _ = change(old, new)
    assert [step for step in steps if isinstance(step, Replace)] == [
        Replace(
            "wg0",
            next(step for step in old if isinstance(step, SetOwners)),
            next(step for step in new if isinstance(step, SetOwners)),
        )
    ]
    gone, _ = change(old, planned(""))
    assert [str(step) for step in gone[1:]] == ["nft delete table inet pywg-owners-wg0"]


def output_of(*names: str, is_only: bool) -> list[str]:
    text = owners.rules(
        "wg0", 9, names, is_only=is_only, addresses=["10.9.0.2"], servers=["10.9.0.1", "fd99::1"]
    )
    start = "add rule inet pywg-owners-wg0 output "
    return [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)]


ALWAYS = [
    "meta mark 9 accept",
    'oifname "lo" accept',
    'oifname != "wg0" fib daddr type { broadcast, multicast } accept',
    "ip daddr { 10.9.0.1 } meta l4proto { tcp, udp } th dport { 53, 853 } goto through",
    "ip6 daddr { fd99::1 } meta l4proto { tcp, udp } th dport { 53, 853 } goto through",
    "ip saddr { 10.9.0.2 } ct status & confirmed == confirmed ct mark != 9 goto through",
]


def test_the_rules_of_except() -> None:
    assert output_of("user:7", "group:8", "cgroup:a.slice/b.service", is_only=False) == [
        *ALWAYS,
        "meta skuid 7 goto beside",
        "meta skgid 8 goto beside",
        'socket cgroupv2 level 2 "a.slice/b.service" goto beside',
        "meta skuid >= 0 goto through",
        "ct mark 9 goto beside",
    ]


def test_the_rules_of_only() -> None:
    assert output_of("user:7", is_only=True) == [
        *ALWAYS,
        "meta skuid 7 goto through",
        "meta skuid >= 0 goto beside",
        "ct mark 9 goto beside",
        "ct state new meta l4proto != tcp goto beside",
        "ct state new tcp flags & (fin|syn|rst|ack) == syn goto beside",
    ]


def test_a_connection_older_than_the_table_is_marked_by_its_owner_alone() -> None:
    """Else what its socket sends after it was closed would leave beside the tunnel."""
    text = owners.rules("wg0", 9, ["user:7"], is_only=True, addresses=[], servers=[])
    start = 'add rule inet pywg-owners-wg0 prerouting iifname != { "wg0", "lo" } '
    found = [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)]
    assert found == [
        "ct state new meta mark set 9",
        "ct state new meta l4proto != tcp ct mark set 9",
        "ct state new tcp flags & (fin|syn|rst|ack) == syn ct mark set 9",
        "ct state new fib daddr type != local ct mark set 9",
        "ct mark 9 meta mark set 9",
    ]


def test_names_become_numbers() -> None:
    mine = pwd.getpwuid(os.getuid()).pw_name
    found = owners.numeric(config(f"#!pywg Except = user:{mine}, user:77, group:88"))
    assert [str(owner) for owner in found.interface.excepted] == [
        f"user:{os.getuid()}",
        "user:77",
        "group:88",
    ]


@pytest.mark.parametrize(
    ("owner", "column", "message"),
    [
        ("user:nobody-of-this-name", 17, "Except: there is no user nobody-of-this-name"),
        ("group:no-such-group", 17, "Except: there is no group no-such-group"),
        ("cgroup:no.slice", 17, "Except: there is no cgroup no.slice below"),
    ],
)
def test_who_is_not_there_is_told_with_the_place(
    owner: str, column: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "CGROUPS", tmp_path)
    (tmp_path / "cgroup.controllers").touch()
    with pytest.raises(ConfigError, match=message) as caught:
        owners.numeric(config(f"#!pywg Except = {owner}"))
    assert (caught.value.line, caught.value.column) == (2, column)


def test_a_cgroup_needs_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "CGROUPS", tmp_path)
    with pytest.raises(ConfigError, match="is no cgroup v2"):
        owners.numeric(config("#!pywg Only = cgroup:a.slice"))
