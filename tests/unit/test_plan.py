"""The plan of `pywg up`: values in, steps out, and all or nothing."""

from __future__ import annotations

import json
import time

import pytest

from pywg.config import parse
from pywg.config.model import Config
from pywg.plan import build, codec, steps
from pywg.plan.facts import Dns, Facts, Location
from pywg.plan.steps import Step

KEYS = [
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
]


def config(interface: str = "", *allowed_ips: str) -> Config:
    peers = "".join(
        f"[Peer]\nPublicKey={key}\nAllowedIPs={allowed}\n"
        for key, allowed in zip(KEYS, allowed_ips, strict=False)
    )
    return parse(f"[Interface]\n{interface}\n{peers}", "wg0.conf")


def lines(config: Config, facts: Facts = Facts(), place: Location = Location()) -> list[str]:  # noqa: B008 - frozen values
    return [str(step) for step in build.plan("wg0", config, facts, place)]


def test_steps_read_as_wg_quick_prints_them() -> None:
    assert lines(
        config("Address=10.0.0.1/24,fd00::1/64", "10.0.0.2/32,10.1.0.0/16,fd00:1::/64")
    ) == [
        "pywg run wg0",
        "wg addconf wg0 /dev/stdin",
        "ip -4 address add 10.0.0.1/24 dev wg0",
        "ip -6 address add fd00::1/64 dev wg0",
        "ip link set mtu 1420 up dev wg0",
        "ip -6 route add fd00:1::/64 dev wg0",
        "ip -4 route add 10.1.0.0/16 dev wg0",
    ]


def test_everything_comes_in_the_order_of_wg_quick() -> None:
    full = config(
        "Address=10.0.0.2/32\nDNS=10.0.0.1,example.com\nPreUp=one %i\nPreUp=two\nPostUp=three %i%i",
        "0.0.0.0/0,10.1.0.0/16",
    )
    assert lines(full) == [
        "pywg run wg0",
        "one wg0",
        "two",
        "wg addconf wg0 /dev/stdin",
        "ip -4 address add 10.0.0.2/32 dev wg0",
        "ip link set mtu 1420 up dev wg0",
        "write /etc/resolv.conf",
        "ip -4 route add 10.1.0.0/16 dev wg0",
        "sysctl -q net.ipv4.conf.all.src_valid_mark=1",
        "nft -f -",
        "ip -4 rule add table main suppress_prefixlength 0",
        "ip -4 rule add not fwmark 51820 table 51820",
        "ip -4 route add 0.0.0.0/0 dev wg0 table 51820",
        "three wg0wg0",
    ]


def test_the_device_is_given_the_mark_before_the_link_is_up() -> None:
    planned = build.plan("wg0", config("", "::/0"), Facts())
    assert [step.mark for step in planned if isinstance(step, steps.Configure)] == [51820]


def rules(planned: list[Step]) -> list[tuple[int, int | None]]:
    return [(step.priority, step.mark) for step in planned if isinstance(step, steps.AddRule)]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ((0, 32766, 32767), [(32764, None), (32765, 51820)]),
        ((0, 32764, 32765, 32766, 32767), [(32762, None), (32763, 51820)]),
        ((0, 100, 32766), [(98, None), (99, 51820)]),
        ((0,), [(0, None), (0, 51820)]),
    ],
)
def test_rules_get_the_places_the_kernel_would_give_them(
    present: tuple[int, ...], expected: list[tuple[int, int | None]]
) -> None:
    planned = build.plan("wg0", config("", "0.0.0.0/0"), Facts(rule_priorities={4: present}))
    assert rules(planned) == expected


@pytest.mark.parametrize(
    ("interface", "allowed", "used", "mark"),
    [
        ("", "10.0.0.0/8", (), None),
        ("FwMark=7", "10.0.0.0/8", (), 7),
        ("", "0.0.0.0/0", (), 51820),
        ("FwMark=off", "0.0.0.0/0", (), 51820),
        ("FwMark=7", "0.0.0.0/0", (), 7),
        ("", "0.0.0.0/0,::/0", (51820, 51821), 51822),
        ("Table=off", "0.0.0.0/0", (), None),
        ("Table=99", "0.0.0.0/0", (), None),
    ],
)
def test_the_mark_is_the_given_one_or_the_first_free_table(
    interface: str, allowed: str, used: tuple[int, ...], mark: int | None
) -> None:
    assert build.mark_of(config(interface, allowed), Facts(used_tables=frozenset(used))) == mark


def test_a_table_of_ones_own_takes_all_routes_and_needs_no_rule() -> None:
    found = lines(config("Address=10.0.0.1/24\nTable=99", "0.0.0.0/0,10.0.0.0/24"))
    assert found[-2:] == [
        "ip -4 route add 10.0.0.0/24 dev wg0 table 99",
        "ip -4 route add 0.0.0.0/0 dev wg0 table 99",
    ]


def test_table_off_adds_no_route() -> None:
    assert "route" not in str(lines(config("Table=off", "0.0.0.0/0,10.0.0.0/8")))


def test_an_address_does_not_cover_a_default_route() -> None:
    assert "ip -4 route add 0.0.0.0/0 dev wg0 table 51820" in lines(
        config("Address=10.0.0.1/0", "0.0.0.0/0")
    )


def test_what_this_host_lacks_becomes_a_note() -> None:
    facts = Facts(ipv6="absent", firewall=None, valid_mark=True, dns=Dns("none", "no resolvconf"))
    planned = build.plan(
        "wg0", config("Address=10.0.0.1/24,fd00::1/64\nDNS=10.0.0.1", "0.0.0.0/0,::/0"), facts
    )
    notes = [str(step) for step in planned if isinstance(step, steps.Note)]
    assert [note.partition(": ")[0] for note in notes] == [
        "no address fd00::1/64",
        "DNS is not set",
        "neither nft nor iptables is here",
        "no route ::/0",
    ]
    assert all(note.endswith(")") for note in notes), "how to mend it"
    assert not any(isinstance(step, (steps.SetValidMark, steps.SetFirewall)) for step in planned)


def test_a_host_that_cannot_tell_names_apart_asks_for_all_and_says_so() -> None:
    wanted = config("DNS=10.0.0.1, ~corp.example, lan.example")
    (note, step) = build.plan("wg0", wanted, Facts())[-2:]
    assert isinstance(note, steps.Note)
    assert "all are asked for at 10.0.0.1, not only those in corp.example" in note.text
    assert isinstance(step, steps.SetDns)
    assert step.search == ("lan.example",)
    (step,) = build.plan("wg0", wanted, Facts(dns=Dns("resolvconf", "wg0", splits=True)))[-1:]
    assert isinstance(step, steps.SetDns)
    assert step.search == ("~corp.example", "lan.example")
    assert str(step) == "resolvconf -a wg0 -m 0 -p"


def test_search_domains_alone_set_nothing() -> None:
    assert not any("resolv" in line for line in lines(config("DNS=example.com")))


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (Location(netns="in"), "ip link set wg0 netns in"),
        (Location(socket_netns="out"), "ip -n out link set wg0 netns $$"),
        (Location(netns="in", socket_netns="out"), "ip -n out link set wg0 netns in"),
        (Location(netns="in", socket_netns="in"), None),
        (Location(), None),
    ],
)
def test_an_interface_is_moved_away_from_its_sockets(place: Location, line: str | None) -> None:
    moves = [found for found in lines(config(), place=place) if "netns" in found]
    assert moves == ([line] if line else [])


def test_the_kernel_can_host_it() -> None:
    assert lines(config(), place=Location("kernel"))[0] == "ip link add wg0 type wireguard"


def test_every_step_survives_being_written_down() -> None:
    full = config(
        "Address=10.0.0.2/32,fd00::1/64\nDNS=10.0.0.1,a.example\nPreUp=x", "0.0.0.0/0,::/0"
    )
    for step in build.plan("wg0", full, Facts(), Location(netns="in")):
        for kind in (step, step.undo()):
            if kind is not None:
                written = json.dumps(codec.to_json(kind))
                assert codec.from_json(json.loads(written)) == kind


def test_what_is_no_step_is_a_value_error() -> None:
    for data in ({}, {"step": "Explode", "name": "wg0"}, {"step": "AddRule", "name": "wg0"}):
        with pytest.raises(ValueError, match="no such step"):
            codec.from_json(data)


@pytest.mark.parametrize(
    ("interface", "facts", "mtu"),
    [
        ("", Facts(), 1420),
        ("", Facts(default_route_mtu=9000), 8920),
        ("", Facts((1500, 1400), 9000), 1320),
        ("MTU=1280", Facts((1500,), 1500), 1280),
    ],
)
def test_mtu_is_the_given_one_or_the_smallest_path_less_80(
    interface: str, facts: Facts, mtu: int
) -> None:
    assert build.choose_mtu(config(interface), facts) == mtu


@pytest.mark.parametrize(
    ("addresses", "allowed", "routes"),
    [
        # longest first, and a shorter one is not covered by a longer
        ("", ["10.0.0.0/8,10.1.0.0/16,10.1.1.1/32"], ["10.1.1.1/32", "10.1.0.0/16", "10.0.0.0/8"]),
        # covered by the network of an address
        ("10.0.0.1/24", ["10.0.0.7/32,10.0.0.0/24,10.0.0.0/16"], ["10.0.0.0/16"]),
        # the kernel makes no route for an IPv4 /32 ...
        ("10.0.0.1/32", ["10.0.0.1/32"], ["10.0.0.1/32"]),
        # ... but one for an IPv6 /128
        ("fd00::1/128", ["fd00::1/128,fd00::2/128"], ["fd00::2/128"]),
        # several peers, both families, no duplicates
        ("", ["10.0.0.0/8", "10.0.0.0/8,fd00::/8"], ["10.0.0.0/8", "fd00::/8"]),
        ("", [], []),
    ],
)
def test_routes(addresses: str, allowed: list[str], routes: list[str]) -> None:
    found = build.routes(config(f"Address={addresses}", *allowed))
    assert [str(network) for network in found] == routes


def test_every_step_of_a_plan_knows_its_undo() -> None:
    planned = build.plan("wg0", config("Address=10.0.0.1/24", "10.1.0.0/16"), Facts())
    assert [str(step.undo()) for step in planned] == [
        "ip link delete dev wg0",
        "None",
        "ip -4 address delete 10.0.0.1/24 dev wg0",
        "ip link set down dev wg0",
        "ip -4 route delete 10.1.0.0/16 dev wg0",
    ]


def test_routes_of_thousands_of_networks_take_no_time() -> None:
    networks = (f"10.{number >> 8}.{number & 255}.0/24" for number in range(8000))
    parsed = config("Address=192.0.2.1/24", ",".join(networks))
    began = time.process_time()
    assert len(build.routes(parsed)) == 8000
    assert time.process_time() - began < 3


def test_the_rest_of_a_default_route_goes_where_the_default_route_would() -> None:
    """So the tunnel's own datagrams, which are marked, never enter it."""
    text = "AllowedIPs=0.0.0.0/0\n#!pywg ExcludedIPs=128.0.0.0/2"
    parsed = parse(f"[Interface]\n[Peer]\nPublicKey={KEYS[0]}\n{text}\n", "wg0.conf")
    found = [str(step) for step in build.plan("wg0", parsed, Facts(valid_mark=True))]
    assert found[3:] == [
        "nft -f -",
        "ip -4 rule add table main suppress_prefixlength 0",
        "ip -4 rule add not fwmark 51820 table 51820",
        "ip -4 route add 192.0.0.0/2 dev wg0 table 51820",
        "ip -4 route add 0.0.0.0/1 dev wg0 table 51820",
    ]


def test_ipv6_that_can_be_switched_on_is() -> None:
    planned = lines(config("Address=fd00::1/64", "10.0.0.0/8"), Facts(ipv6="off"))
    assert planned[2:4] == [
        "sysctl -q net.ipv6.conf.wg0.disable_ipv6=0",
        "ip -6 address add fd00::1/64 dev wg0",
    ]
    assert "sysctl" not in str(lines(config("Address=10.0.0.1/24"), Facts(ipv6="off")))


def test_ipv6_that_cannot_be_switched_on_is_blocked() -> None:
    planned = lines(config("", "::/0, fd00::/8"), Facts(ipv6="locked"))
    assert planned[3:] == [
        f"no route fd00::/8: {build.NO_IPV6}",
        "net.ipv6.conf.wg0.disable_ipv6 is 1 and cannot be written: IPv6 is blocked, but for local "
        "networks, until wg0 is down (to carry it, make /proc/sys/net writable)",
        "ip -6 rule add table main suppress_prefixlength 0",
        "ip -6 rule add not fwmark 51820 table 51820",
        "ip -6 route add unreachable ::/0 table 51820",
    ]
