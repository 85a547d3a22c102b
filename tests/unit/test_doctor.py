"""`pywg doctor`: each decision, from plain values to a finding."""

from __future__ import annotations

import ast
import errno
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from pywg import cli
from pywg.cli.doctor import picture, summary
from pywg.config import Endpoint
from pywg.doctor import abilities, filters, kernels, path, peers, routing, running, view
from pywg.doctor.facts import Around, Device, Host, Peer, Tun, Tunnel
from pywg.doctor.finding import Finding, Severity, note, ok, warning
from pywg.doctor.packet_filter import Ruleset, doubtful, dropping
from pywg.host.network import Link, Way
from pywg.host.path_probe import Heard
from pywg.plan.steps import SetValidMark
from pywg.rootless import refusal
from pywg.wireguard.status import Report

ROOT = Path(__file__).parents[2]
SAYS = refusal.Facts("user namespace", 0, tun_mode=0o600)
ORDINARY = Host(is_root=False, capabilities=0)
PEER = Peer("Ada", (ip_network("10.0.0.2/32"),), Endpoint("192.0.2.2", 51820), "192.0.2.2:51820")
TUNNEL = Tunnel("wg0", peers=(PEER,), listen_port=51820, mtu=1420)
FULL = replace(TUNNEL, is_up=True, mark=51820, full=frozenset({4, 6}))
CLIENTS = tuple(Peer(f"c{n}", (ip_network(f"10.0.0.{n}/32"),)) for n in (2, 3))
SERVER = replace(TUNNEL, peers=CLIENTS)
ETH0 = Device(Link("eth0", "", True), (ip_interface("192.0.2.1/24"),))
AROUND = Around(ways={"192.0.2.2": Way("eth0", 1500)}, devices=(ETH0,))


def told(findings: Any) -> list[tuple[str, str]]:
    """Without what is fine."""
    return [(str(item.severity), item.word) for item in findings if item.severity > Severity.OK]


# ---- what the host lets a tunnel do


def test_a_host_that_has_everything_has_nothing_to_be_told() -> None:
    assert told(abilities.judge(Host(), SAYS)) == []
    assert told(kernels.judge(Host())) == []
    assert told(filters.conntrack(Host(conntrack=(10, 1000)))) == []


@pytest.mark.parametrize(
    ("code", "mode", "word", "mend"),
    [
        (errno.ENOENT, None, "tun-missing", "modprobe tun"),
        (errno.EACCES, 0o600, "tun-closed", "chmod 666 /dev/net/tun"),
        (errno.EPERM, 0o666, "tun-closed", "--device /dev/net/tun"),
    ],
)
def test_tun_that_cannot_be_opened(code: int, mode: int | None, word: str, mend: str) -> None:
    found = abilities.tun(Tun(code), replace(SAYS, tun_mode=mode))
    assert (found.severity, found.word) == (Severity.ERROR, word)
    assert mend in found.mend
    assert errno.errorcode[code] in found.evidence


def test_a_tun_driver_that_would_have_to_be_loaded_is_not() -> None:
    assert told([abilities.tun(Tun(None, has_driver=False), SAYS)]) == [("note", "tun-driver")]


def test_capabilities_of_an_ordinary_user_and_of_root_in_a_container() -> None:
    assert told([abilities.capabilities(ORDINARY)]) == [("note", "not-root")]
    (found,) = [abilities.capabilities(Host(capabilities=0))]
    assert (str(found.severity), found.word) == ("error", "no-net-admin")
    assert "--cap-add NET_ADMIN" in found.mend


@pytest.mark.parametrize(
    ("says", "seen"),
    [
        (replace(SAYS, max_user_namespaces=0), "user.max_user_namespaces = 0"),
        (replace(SAYS, unprivileged_userns_clone=0), "kernel.unprivileged_userns_clone = 0"),
        (
            replace(SAYS, apparmor_restricts=True),
            "kernel.apparmor_restrict_unprivileged_userns = 1",
        ),
        (replace(SAYS, is_mapped=False), "/proc/self/uid_map has no number for this user"),
    ],
)
def test_user_namespaces_that_are_switched_off_hurt_ordinary_users_alone(
    says: refusal.Facts, seen: str
) -> None:
    found = abilities.user_namespaces(ORDINARY, says)
    assert (str(found.severity), found.word) == ("warning", "user-namespaces-off")
    assert found.evidence == seen
    assert found.mend
    assert abilities.user_namespaces(Host(), says).severity is Severity.NOTE


def test_small_buffers_are_told_to_whom_they_limit() -> None:
    found = abilities.buffers(replace(ORDINARY, rmem_max=212992))
    assert (found.word, found.mend) == (
        "buffers-small",
        f"sudo sysctl -w net.core.rmem_max={7 << 20}",
    )
    assert abilities.buffers(Host(rmem_max=212992)).severity is Severity.OK


@pytest.mark.parametrize(("now", "built"), [(0.0, 0.0), (1.6e9, 0.0), (1.8e9, 1.8e9 + 2 * 86400)])
def test_a_clock_that_is_behind(now: float, built: float) -> None:
    found = abilities.clock(Host(now_s=now, built_s=built))
    assert (str(found.severity), found.word) == ("error", "clock-behind")


def test_a_clock_that_may_be_right() -> None:
    assert abilities.clock(Host(now_s=1.8e9, built_s=1.8e9 + 3600)).severity is Severity.OK


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("6.6.44-generic", ["kernel-tun-gso", "kernel-old"]),
        ("6.6.45", ["kernel-old"]),
        ("6.10.3", ["kernel-tun-gso", "kernel-old"]),
        ("7.0", ["kernel-udp-segment"]),
        ("7.1.4-rc1", ["kernel-udp-segment"]),
        ("7.1.5", []),
        ("6.18.44-fc", []),
        ("4.19.0", ["kernel-old"]),
        ("nonsense", ["kernel-unknown"]),
    ],
)
def test_kernels_with_known_faults(release: str, words: list[str]) -> None:
    found = list(kernels.judge(Host(release=release)))
    assert told(found) == [("note", word) for word in words]


def test_a_fault_that_needs_a_vxlan_is_told_beside_one() -> None:
    old = Host(release="6.8.4")
    assert ("note", "kernel-uso-vxlan") not in told(kernels.judge(old))
    beside = replace(old, kinds=frozenset({"vxlan"}))
    assert ("note", "kernel-uso-vxlan") in told(kernels.judge(beside))


def test_every_fault_of_a_kernel_cites_a_file_of_this_repository() -> None:
    root = Path(kernels.__file__).parents[2]
    for fault in kernels.FAULTS:
        assert (root / fault.cite.partition(",")[0]).is_file(), fault.cite


# ---- the way to the endpoints


def test_a_way_that_is_wide_enough_is_fine() -> None:
    assert told(path.judge(TUNNEL, AROUND)) == []
    assert told(routing.judge(TUNNEL, AROUND)) == []


def test_names_without_an_address() -> None:
    lost = replace(PEER, endpoint=None, source="vpn.example:51820", problem="not known")
    tunnel = replace(TUNNEL, peers=(lost,))
    assert told(path.judge(tunnel, Around())) == [("warning", "name-unanswered")]
    tunnel = replace(tunnel, peers=(replace(lost, is_hopeless=True),))
    (found,) = path.names(tunnel)
    assert (str(found.severity), found.word) == ("error", "name-unknown")
    assert found.evidence == "vpn.example:51820: not known"
    assert "getent ahosts vpn.example" in found.mend


def test_no_way_and_a_way_into_the_tunnel_itself() -> None:
    nowhere = replace(AROUND, ways={"192.0.2.2": Way(problem="Network is unreachable")})
    assert told(path.ways(TUNNEL, nowhere)) == [("error", "no-route")]
    into = replace(AROUND, ways={"192.0.2.2": Way("wg0", 1420)})
    (found,) = path.ways(FULL, into)
    assert found.word == "endpoint-in-tunnel"
    assert found.evidence == "ip route get 192.0.2.2 mark 51820: dev wg0"


def test_a_way_through_another_tunnel_is_a_note() -> None:
    other = Device(Link("tun7", "tun", True))
    around = Around(ways={"192.0.2.2": Way("tun7", 1500)}, devices=(other,))
    assert told(path.ways(TUNNEL, around)) == [("note", "endpoint-in-vpn")]


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        (Heard(), []),
        (Heard(has_arrived=True), [("warning", "port-closed")]),
        (Heard(problem="EHOSTUNREACH"), [("warning", "unreachable")]),
        (Heard(problem="EPERM"), []),
    ],
)
def test_what_comes_back_from_an_endpoint(heard: Heard, expected: list[tuple[str, str]]) -> None:
    around = replace(AROUND, heard={"192.0.2.2": heard})
    assert told(path.answers(TUNNEL, around)) == expected


@pytest.mark.parametrize(
    ("route", "heard", "expected"),
    [
        (1480, None, []),
        (1479, None, [1399]),
        (1500, 1300, [1220]),
        (1500, 1480, []),
        (0, None, []),
    ],
)
def test_the_narrowest_place_of_a_way_counts(
    route: int, heard: int | None, expected: list[int]
) -> None:
    around = replace(
        AROUND,
        ways={"192.0.2.2": Way("eth0", route)},
        heard={"192.0.2.2": Heard(heard)},
    )
    found = [item for item in path.mtu(TUNNEL, around) if item.severity > Severity.OK]
    assert [item.mend for item in found] == [f"MTU = {mtu} in [Interface]" for mtu in expected]
    assert all(item.word == "mtu-too-big" for item in found)


def test_over_ipv6_there_is_less_room() -> None:
    peer = replace(PEER, endpoint=Endpoint("2001:db8::2", 1))
    around = Around(ways={"2001:db8::2": Way("eth0", 1499)})
    (found,) = path.mtu(replace(TUNNEL, peers=(peer,)), around)
    assert "MTU 1420 makes datagrams of 1500 bytes" in found.evidence


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"tx-checksum-ip-generic", "tx-generic-segmentation", "rx-gro"}, []),
        ({"tx-checksum-ipv4", "tx-generic-segmentation", "rx-gro"}, []),
        ({"tx-generic-segmentation", "rx-gro"}, ["no-checksum-offload"]),
        ({"tx-checksum-ipv4", "rx-gro"}, ["no-gso"]),
        ({"tx-checksum-ipv4", "tx-generic-segmentation"}, ["no-gro"]),
    ],
)
def test_what_the_outgoing_device_does_not_offload(features: set[str], words: list[str]) -> None:
    device = replace(ETH0, features=frozenset(features))
    around = replace(AROUND, devices=(device, replace(device, link=Link("eth1", "", True))))
    assert told(path.features(around)) == [("note", word) for word in words]
    virtual = replace(device, link=Link("eth0", "veth", True))
    found = told(path.features(replace(AROUND, devices=(virtual,))))
    assert found == [("note", word) for word in words if word != "no-gro"]


# ---- others


def test_another_tunnel_that_catches_everything() -> None:
    halves = frozenset(map(ip_network, ("0.0.0.0/1", "128.0.0.0/1")))
    other = Device(Link("tun7", "tun", True), routes=halves)
    around = replace(AROUND, devices=(ETH0, other))
    (found,) = [x for x in routing.judge(replace(FULL, is_up=False), around) if x.severity]
    assert (str(found.severity), found.word) == ("warning", "other-vpn")
    assert found.evidence == "tun7 (tun) has routes for 0.0.0.0/1, 128.0.0.0/1"
    assert told(routing.judge(TUNNEL, around)) == [("note", "other-vpn")]
    own = replace(other, link=Link("wg0", "tun", True))
    assert told(routing.other_vpns(FULL, replace(AROUND, devices=(own,)))) == []


@pytest.mark.parametrize(
    ("network", "is_told"),
    [
        ("192.0.2.0/24", True),
        ("192.0.2.0/25", True),
        ("192.0.2.7/32", False),  # a way to one host is meant
        ("192.0.0.0/16", False),  # the more exact route goes first
        ("0.0.0.0/0", False),
        ("2001:db8::/64", False),
    ],
)
def test_networks_that_are_here_already(network: str, is_told: bool) -> None:
    peer = replace(PEER, networks=(ip_network(network),))
    found = told(routing.overlaps(replace(TUNNEL, peers=(peer,)), AROUND))
    assert found == [("warning", "networks-overlap")] * is_told


def test_a_strict_reverse_path_filter_without_the_mark() -> None:
    strict = replace(AROUND, rp_filter_all=1)
    (found,) = routing.reverse_path(FULL, strict)
    assert (str(found.severity), found.word) == ("error", "reverse-path-filter")
    assert found.mend == "sysctl -w net.ipv4.conf.all.src_valid_mark=1"
    on_device = replace(AROUND, devices=(replace(ETH0, rp_filter=1),))
    assert told(routing.reverse_path(FULL, on_device)) == [("error", "reverse-path-filter")]
    loose = replace(on_device, rp_filter_all=2)
    for tunnel, around in (
        (FULL, replace(strict, valid_mark=True)),
        (FULL, loose),
        (TUNNEL, strict),
        (replace(FULL, is_up=False), strict),  # `up` sets the mark
    ):
        assert told(routing.reverse_path(tunnel, around)) == []


def test_a_server_that_does_not_forward() -> None:
    closed = Around(forwarding={4: False, 6: False})
    assert told(routing.forwarding(SERVER, closed)) == [("warning", "forwarding-off")]
    assert told(routing.forwarding(SERVER, Around(forwarding={4: True, 6: False}))) == []
    assert told(routing.forwarding(replace(SERVER, peers=CLIENTS[:1]), closed)) == []
    assert told(routing.forwarding(TUNNEL, closed)) == []


def leaking(tunnel: Tunnel, **more: Any) -> list[tuple[str, str]]:
    inside = {4: (Way("wg0", 1420),), 6: (Way("wg0", 1420),)}
    return told(routing.leaks(tunnel, Around(**{"probes": inside, **more})))


def test_what_leaves_beside_a_full_tunnel() -> None:
    beside = (Way("wg0", 1420), Way("eth0", 1500))
    nowhere = (Way(problem="Network is unreachable"),)
    inside = (Way("wg0", 1420),)
    assert leaking(FULL) == []
    assert leaking(TUNNEL, probes={4: beside, 6: beside}) == []
    assert leaking(FULL, probes={4: beside, 6: inside}) == [("error", "leak-ipv4")]
    assert leaking(FULL, probes={4: inside, 6: nowhere}) == []
    only4 = replace(FULL, full=frozenset({4}))
    assert leaking(only4, probes={4: inside, 6: beside}) == [("warning", "leak-ipv6")]
    switched = replace(only4, switch="on")
    assert leaking(switched, probes={4: beside, 6: beside}) == []
    lan = replace(only4, switch="lan")
    assert leaking(lan, servers={"192.168.1.1": Way("eth0", 1500)}) == [("warning", "leak-dns")]
    chosen = replace(FULL, has_owners=True)
    assert leaking(chosen, probes={4: beside, 6: beside}) == [("note", "leaks-by-owner")]


def test_names_that_are_asked_for_beside_a_full_tunnel() -> None:
    outside = {"192.0.2.53": Way("eth0", 1500)}
    assert leaking(FULL, servers=outside) == [("warning", "leak-dns")]
    assert leaking(FULL, servers={"10.0.0.1": Way("wg0", 1420)}) == []
    stub = {"127.0.0.53": Way("lo", 65536, is_local=True)}
    assert leaking(FULL, servers=stub) == [("note", "dns-stub")]
    assert leaking(replace(FULL, dns=(ip_address("10.0.0.1"),)), servers=stub) == []
    assert leaking(replace(FULL, splits_dns=True), servers=outside) == []


@pytest.mark.parametrize(
    ("networks", "versions"),
    [
        (["0.0.0.0/0"], {4}),
        (["0.0.0.0/1", "128.0.0.0/1", "::/0"], {4, 6}),
        (["0.0.0.0/1", "10.0.0.0/8"], set()),
        ([], set()),
    ],
)
def test_which_tunnels_carry_everything(networks: list[str], versions: set[int]) -> None:
    assert view.full_versions(map(ip_network, networks)) == versions


# ---- the firewall: what nft -j prints, shortened

UDP = {"meta": {"key": "l4proto"}}
DPORT = {"payload": {"protocol": "udp", "field": "dport"}}
STATE = {"ct": {"key": "state"}}
PACKET = {"family": 4, "l4proto": "udp", "dport": 51820, "ct state": "new"}


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def chain(*rules: list[Any], policy: str = "accept", hook: str = "input") -> list[dict[str, Any]]:
    where = {"family": "inet", "table": "f"}
    base = {"type": "filter", "hook": hook, "prio": 0, "policy": policy}
    return [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "f"}},
        {"chain": {**where, "name": "c", **base}},
        {"chain": {**where, "name": "sub"}},
        {"set": {**where, "name": "ports", "elem": [80, {"range": [51820, 51830]}]}},
        {"rule": {**where, "chain": "sub", "expr": [match(DPORT, 51820), {"drop": None}]}},
        *({"rule": {**where, "chain": "c", "expr": rule}} for rule in rules),
    ]


ACCEPT, DROP = {"accept": None}, {"drop": None}
UNKNOWN = {"limit": {"rate": 1, "per": "second"}}
KNOWN = match(STATE, ["established", "related"], "in")


@pytest.mark.parametrize(
    ("rules", "policy", "verdict"),
    [
        ([], "accept", ""),
        ([], "drop", "dropped"),
        ([[match(DPORT, 51820), ACCEPT]], "drop", ""),
        ([[match(DPORT, 22), ACCEPT]], "drop", "dropped"),
        ([[match(DPORT, {"set": [53, {"range": [51000, 52000]}]}), ACCEPT]], "drop", ""),
        ([[match(DPORT, "@ports"), ACCEPT]], "drop", ""),
        ([[match(DPORT, 51820, "!="), DROP]], "accept", ""),
        ([[match(DPORT, 1024, ">"), DROP]], "accept", "dropped"),
        ([[KNOWN, ACCEPT]], "drop", "dropped"),
        ([[match(STATE, "invalid"), DROP], [match(UDP, "udp"), ACCEPT]], "drop", ""),
        ([[match(UDP, 17), DROP]], "accept", "dropped"),
        ([[{"counter": {}}, {"reject": {}}]], "accept", "dropped"),
        ([[UNKNOWN, ACCEPT]], "drop", "doubtful"),
        ([[UNKNOWN, DROP]], "accept", ""),
        ([[{"xt": None}, ACCEPT]], "drop", "doubtful"),
        ([[match({"meta": {"key": "iifname"}}, "lo"), ACCEPT]], "drop", "doubtful"),
        ([[{"jump": {"target": "sub"}}]], "accept", "dropped"),
        ([[{"goto": {"target": "sub"}}], [ACCEPT]], "accept", "dropped"),
        ([[match(DPORT, 80), {"jump": {"target": "sub"}}]], "accept", ""),
        ([[{"return": None}], [ACCEPT]], "drop", "dropped"),
        (
            [[{"vmap": {"key": STATE, "data": {"set": [["established", ACCEPT], ["new", DROP]]}}}]],
            "accept",
            "dropped",
        ),
        (
            [[{"vmap": {"key": STATE, "data": {"set": [["established", ACCEPT]]}}}]],
            "drop",
            "dropped",
        ),
        ([[match({"payload": {"protocol": "tcp", "field": "dport"}}, 51820), DROP]], "accept", ""),
        (
            [[match({"payload": {"protocol": "ip6", "field": "saddr"}}, "::1"), DROP]],
            "accept",
            "",
        ),
    ],
)
def test_what_becomes_of_a_datagram_in_a_ruleset(
    rules: list[list[Any]], policy: str, verdict: str
) -> None:
    ruleset = Ruleset.of(chain(*rules, policy=policy))
    assert dropping(ruleset, "input", PACKET) == ["inet f c"] * (verdict == "dropped")
    assert doubtful(ruleset, "input", PACKET) == ["inet f c"] * (verdict == "doubtful")
    assert dropping(ruleset, "output", PACKET) == []


def judged(tunnel: Tunnel, objects: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return told(filters.judge(tunnel, Ruleset.of(objects), {"192.0.2.2": "eth0"}))


def test_a_firewall_in_front_of_a_server_and_of_a_client() -> None:
    closed = chain([KNOWN, ACCEPT], policy="drop")
    assert judged(SERVER, closed) == [("warning", "firewall-input")]
    assert judged(TUNNEL, closed) == []
    assert judged(TUNNEL, chain(policy="drop")) == [("warning", "firewall-input")]
    assert judged(SERVER, chain([match(DPORT, 51820), ACCEPT], policy="drop")) == []
    by = {"meta": {"key": "iifname"}}
    lo, eth = ([[match(by, name), ACCEPT]] for name in ("lo", "eth0"))
    assert judged(SERVER, chain(*lo, policy="drop")) == [("warning", "firewall-input")]
    assert judged(SERVER, chain(*eth, policy="drop")) == [("note", "firewall-input-unsure")]
    assert judged(SERVER, chain([match(by, "lo", "!="), ACCEPT], policy="drop")) == []
    unsure = chain([UNKNOWN, ACCEPT], policy="drop")
    assert judged(SERVER, unsure) == [("note", "firewall-input-unsure")]
    (found, *_) = filters.judge(SERVER, Ruleset.of(closed), {})
    assert found.mend == "nft insert rule inet f c udp dport 51820 accept"


def test_a_firewall_that_lets_nothing_out() -> None:
    to_it = {"payload": {"protocol": "ip", "field": "daddr"}}
    prefix = {"prefix": {"addr": "192.0.2.0", "len": 24}}
    out = chain([match(to_it, prefix), DROP], hook="output")
    assert judged(TUNNEL, out) == [("error", "firewall-output")]
    assert judged(SERVER, out) == []


def test_a_kill_switch_of_another_tunnel_has_a_command_that_takes_it_away() -> None:
    text = json.dumps(
        chain(
            [match({"meta": {"key": "oifname"}}, {"set": ["wg9", "lo"]}), ACCEPT],
            [match({"meta": {"key": "mark"}}, 99), ACCEPT],
            [DROP],
            hook="output",
            policy="drop",
        )
    ).replace('"f"', '"pywg-kill-wg9"')
    (found,) = filters.judge(TUNNEL, Ruleset.of(json.loads(text)), {"192.0.2.2": "eth0"})
    assert (found.word, found.mend) == ("firewall-output", "pywg unblock wg9")
    assert judged(replace(TUNNEL, mark=99), json.loads(text)) == []


def test_clients_that_are_not_let_through_or_not_translated() -> None:
    assert judged(SERVER, chain(hook="forward", policy="drop")) == [("note", "firewall-forward")]
    plain, nat = Ruleset.of(chain()), Ruleset.of(chain([{"masquerade": None}]))
    assert told(filters.translation(SERVER, plain, forwards=True)) == [("note", "no-nat")]
    assert told(filters.translation(SERVER, plain, forwards=False)) == []
    assert told(filters.translation(SERVER, nat, forwards=True)) == []
    assert told(filters.translation(TUNNEL, plain, forwards=True)) == []


def test_a_table_of_connections_that_is_full() -> None:
    (found,) = filters.conntrack(Host(conntrack=(995, 1000)))
    assert (str(found.severity), found.word) == ("warning", "conntrack-full")
    assert found.mend == "sysctl -w net.netfilter.nf_conntrack_max=4000"


# ---- a running tunnel


def test_what_a_device_tells_of_itself() -> None:
    assert told(running.judge("wg0", Report(offloads={"udp_gso": "active"}))) == []
    report = Report(
        offloads={"udp_gso": "stepped_down EIO", "udp_gro": "disabled"},
        gso_refused=["192.0.2.2:1"],
        gso_lost=["192.0.2.3:1"],
        other={"listen_error": "EADDRINUSE"},
    )
    assert told(running.judge("wg0", report)) == [
        ("error", "listen-error"),
        ("note", "offload-stepped-down"),
        ("note", "gso-refused"),
        ("note", "gso-lost"),
    ]


def test_what_others_took_away_and_a_link_that_is_down() -> None:
    (found,) = running.undone("wg0", [SetValidMark("wg0")])
    assert (found.word, found.mend) == ("undone", "pywg reload wg0")
    assert "src_valid_mark" in found.evidence
    assert told(running.undone("wg0", [])) == []
    assert told([running.down("wg0")]) == [("error", "link-down")]


def test_peers_that_never_answered_and_a_clock_that_was_set_back() -> None:
    silent = replace(PEER, sent=148)
    assert told(peers.judge(replace(TUNNEL, peers=(silent,)), 2e9)) == [("warning", "no-handshake")]
    assert told(peers.judge(TUNNEL, 2e9)) == []
    refused = replace(PEER, trouble="refused: nobody listens on that port")
    (found,) = peers.judge(replace(TUNNEL, peers=(refused,)), 2e9)
    assert (found.word, found.text) == ("no-handshake", f"{PEER.label}: {refused.trouble}")
    silent_now = replace(PEER, last_handshake_ns=1, trouble="silent")
    assert ("warning", "peer-trouble") in told(
        peers.judge(replace(TUNNEL, peers=(silent_now,)), 2e9)
    )
    ahead = replace(silent, last_handshake_ns=int(3e9 * 1e9))
    assert told(peers.judge(replace(TUNNEL, peers=(ahead,)), 2e9)) == [("warning", "clock-stepped")]


# ---- the document


def words_in_code() -> set[str]:
    """Of every call that makes a finding; a part in braces is filled in."""
    found: set[str] = set()
    for file in (ROOT / "pywg" / "doctor").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            at = {"Finding": 1, "Fault": 0, "ok": 0, "tell": 0, "note": 0}
            at |= {"warning": 0, "error": 0}
            if node.func.id in at and len(node.args) > at[node.func.id]:
                found |= set(spelled(node.args[at[node.func.id]]))
    return found


def spelled(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.IfExp):
        yield from (*spelled(node.body), *spelled(node.orelse))
    elif isinstance(node, ast.JoinedStr):
        first, rest = node.values
        assert isinstance(first, ast.Constant)
        assert isinstance(rest, ast.FormattedValue)
        for part in ("4", "6") if first.value == "leak-ipv" else ("refused", "lost"):
            yield str(first.value) + part


def test_every_word_of_a_finding_is_documented_and_no_other() -> None:
    document = (ROOT / "docs" / "doctor.md").read_text().partition("## Findings")[2]
    told = {
        word
        for row in re.findall(r"^\| (`.*?) \|", document, re.MULTILINE)
        for word in re.findall(r"`([a-z0-9-]+)`", row)
    }
    (fine,) = re.findall(r"^What is fine has one of these words: (.*?)\.$", document, re.M | re.S)
    told |= set(re.findall(r"`([a-z0-9-]+)`", fine))
    assert told == words_in_code()


# ---- the command


def test_findings_are_printed_with_evidence_and_what_mends_them() -> None:
    item = warning("word", "Something is wrong.", "seen here", "do that")
    assert picture(item).splitlines() == [
        "warning  Something is wrong. [word]",
        "         seen: seen here",
        "         mend: do that",
    ]
    assert picture(ok("fine", "Good.", "evidence")) == "ok       Good. (evidence)"
    assert picture(item, color=True).startswith("\033[33mwarning\033[0m  ")
    assert summary([item, ok("fine", "Good.")]) == "2 findings: 0 errors, 1 warning, 0 notes"


def test_the_exit_code_and_json_are_those_of_the_findings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [note("a", "A."), warning("b", "B.", mend="do")]

    def examine(*_: object) -> list[Finding]:
        return found

    monkeypatch.setattr("pywg.doctor.examine.examine", examine)
    assert cli.main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"severity": "note", "word": "a", "text": "A."},
        {"severity": "warning", "word": "b", "text": "B.", "mend": "do"},
    ]
    assert cli.main(["doctor", "--quiet"]) == 1
    assert "A." not in capsys.readouterr().out
    found[1:] = []
    assert cli.main(["doctor"]) == 0
