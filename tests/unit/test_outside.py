"""Who is asked beside a tunnel: what the files of this host say without it. No network."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from pywg.config import Endpoint, IPAddress
from pywg.config.model import Family
from pywg.host import destinations, dns, outside, resolv_conf, resolver
from pywg.host.outside import Outside

INSIDE, BEFORE = "nameserver 10.9.0.1\n", "nameserver 192.0.2.53\n"
TUNNEL = Outside("wg0", own=("10.9.0.1",))


@pytest.fixture(autouse=True)
def etc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Instead of the folders of this machine."""
    for name in ("etc", "resolve", "resolvconf", "lib"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(dns, "ETC", tmp_path / "etc")
    monkeypatch.setattr(dns, "RESOLVED_DIRECTORY", tmp_path / "resolve")
    monkeypatch.setattr(dns, "RESOLVCONF_DIRECTORY", tmp_path / "resolvconf")
    monkeypatch.setattr(resolv_conf, "DIRECTORY", tmp_path / "lib")
    return tmp_path / "etc"


def servers(asked: Outside) -> list[str]:
    return dns.servers_in(asked.resolv_conf())


def test_a_file_that_the_tunnel_has_replaced_counts_as_it_was(etc: Path) -> None:
    path = etc / "resolv.conf"
    path.write_text(BEFORE + "options ndots:2\n")
    resolv_conf.add(path, "wg0", INSIDE)
    assert "10.9.0.1" in path.read_text()
    assert servers(TUNNEL) == ["192.0.2.53"]
    assert "options ndots:2" in TUNNEL.resolv_conf()


def test_a_link_that_gave_way_is_followed(etc: Path) -> None:
    (etc / "other").write_text(BEFORE)
    (etc / "resolv.conf").symlink_to("other")
    resolv_conf.add(etc / "resolv.conf", "wg0", INSIDE)
    assert servers(TUNNEL) == ["192.0.2.53"]


def test_what_another_has_written_since_counts(etc: Path) -> None:
    path = etc / "resolv.conf"
    path.write_text(BEFORE)
    resolv_conf.add(path, "wg0", INSIDE)
    path.write_text("nameserver 203.0.113.5\n")
    assert servers(TUNNEL) == ["203.0.113.5"]


def test_a_tunnel_in_a_tunnel_asks_the_name_servers_of_the_outer_one(etc: Path) -> None:
    path = etc / "resolv.conf"
    path.write_text(BEFORE)
    resolv_conf.add(path, "outer", "nameserver 10.8.0.1\n")
    resolv_conf.add(path, "wg0", INSIDE)
    assert servers(TUNNEL) == ["10.8.0.1"]
    assert servers(Outside("outer", own=("10.8.0.1",))) == ["192.0.2.53"]


def test_behind_resolved_those_are_asked_whom_it_asks(etc: Path, tmp_path: Path) -> None:
    (etc / "resolv.conf").write_text("nameserver 127.0.0.53\noptions edns0\n")
    upstream = "nameserver 10.9.0.1\nnameserver 192.0.2.53\nsearch corp.example\n"
    (tmp_path / "resolve" / "resolv.conf").write_text(upstream)
    assert servers(TUNNEL) == ["192.0.2.53"]


@pytest.mark.parametrize(
    ("folder", "entry"), [("interface", "tun.wg0"), ("interfaces", "wg0"), ("keys", "wg0")]
)
def test_what_resolvconf_knows_from_others_counts(
    etc: Path, tmp_path: Path, folder: str, entry: str
) -> None:
    (etc / "resolv.conf").write_text(INSIDE)
    place = tmp_path / "resolvconf" / folder
    place.mkdir()
    (place / entry).write_text(INSIDE)
    (place / "eth0.dhclient").write_text("nameserver 203.0.113.5\n")
    assert servers(TUNNEL) == ["203.0.113.5"]


def test_where_a_service_hides_what_it_knows_that_of_before_counts(etc: Path) -> None:
    path = etc / "resolv.conf"
    path.write_text(BEFORE)
    asked = outside.present("wg0", [ip_address("10.9.0.1")])
    path.write_text(INSIDE)
    assert servers(asked) == ["192.0.2.53"]
    assert Outside.from_json(json.loads(json.dumps(_fields(asked)))) == asked


def _fields(asked: Outside) -> dict[str, object]:
    return {"name": asked.name, "before": asked.before, "own": asked.own}


def test_a_server_of_the_tunnel_that_was_there_before_is_asked(etc: Path) -> None:
    path = etc / "resolv.conf"
    path.write_text(INSIDE)
    assert servers(outside.present("wg0", [ip_address("10.9.0.1")])) == ["10.9.0.1"]


def test_a_tunnel_without_name_servers_asks_those_of_the_host(etc: Path) -> None:
    (etc / "resolv.conf").write_text("nameserver fe80::1%eth0\nnameserver nonsense\n")
    assert servers(outside.present("wg0", ())) == ["fe80::1%eth0"]


def test_without_any_server_the_c_library_is_asked(
    etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def look_up(endpoint: Endpoint, family: Family = "auto") -> Sequence[Endpoint]:
        asked.append((endpoint.host, family))
        return (Endpoint("192.0.2.7", endpoint.port),)

    monkeypatch.setattr(resolver, "look_up", look_up)
    (etc / "resolv.conf").write_text(INSIDE)
    assert TUNNEL.look_up(Endpoint("vpn.example", 5), "ipv4") == (Endpoint("192.0.2.7", 5),)
    (etc / "resolv.conf").write_text(BEFORE)
    for local in ("printer.local", "localhost"):
        TUNNEL.look_up(Endpoint(local, 5))
    assert asked == [("vpn.example", "ipv4"), ("printer.local", "auto"), ("localhost", "auto")]


def test_the_hosts_file_comes_first_and_is_read_anew(etc: Path) -> None:
    (etc / "hosts").write_text("127.0.0.1 localhost\n# 127.0.0.2 vpn\n127.0.0.3 a VPN.example #b\n")
    assert TUNNEL.look_up(Endpoint("vpn.Example", 5)) == (Endpoint("127.0.0.3", 5),)
    (etc / "hosts").write_text("nonsense vpn.example\n127.0.0.4 vpn.example\n::1 vpn.example\n")
    assert TUNNEL.look_up(Endpoint("vpn.example", 5), "ipv4") == (Endpoint("127.0.0.4", 5),)
    assert TUNNEL.look_up(Endpoint("vpn.example", 5), "ipv6") == (Endpoint("::1", 5),)


def test_what_can_be_no_host_name_does_not_exist(etc: Path) -> None:
    (etc / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    with pytest.raises(socket.gaierror) as caught:
        TUNNEL.look_up(Endpoint("x" * 70 + ".example", 5))
    assert caught.value.errno in resolver.FINAL


def test_a_resolv_conf_that_cannot_be_read_is_no_answer_and_no_end(etc: Path) -> None:
    (etc / "resolv.conf").write_text(f"nameserver 192.0.2.53\nsearch {'x' * 70}\n")
    with pytest.raises(socket.gaierror, match=r"resolv\.conf cannot be read") as caught:
        TUNNEL.look_up(Endpoint("vpn.example", 5))
    assert caught.value.errno == socket.EAI_AGAIN


# ---- the order: RFC 6724, section 10.2

GLOBAL6, GLOBAL4, LINK6, LINK4 = "2001:db8:1::1", "198.51.100.121", "fe80::1", "169.254.13.78"


@pytest.mark.parametrize(
    ("sources", "given", "order"),
    [
        # Prefer matching scope
        ({GLOBAL6: "2001:db8:1::2", GLOBAL4: LINK4}, [GLOBAL4, GLOBAL6], [GLOBAL6, GLOBAL4]),
        ({GLOBAL6: "fe80::2", GLOBAL4: "198.51.100.117"}, [GLOBAL6, GLOBAL4], [GLOBAL4, GLOBAL6]),
        # Prefer higher precedence
        ({GLOBAL6: "2001:db8:1::2", GLOBAL4: "10.1.2.4"}, [GLOBAL4, GLOBAL6], [GLOBAL6, GLOBAL4]),
        # Prefer smaller scope
        ({GLOBAL6: "2001:db8:1::2", LINK6: "fe80::2"}, [GLOBAL6, LINK6], [LINK6, GLOBAL6]),
        # Prefer matching label: a unique local source is no way to the world
        ({GLOBAL6: "fd00::2", GLOBAL4: "10.1.2.4"}, [GLOBAL6, GLOBAL4], [GLOBAL4, GLOBAL6]),
        # Avoid unusable destinations
        ({GLOBAL4: "10.1.2.4"}, [GLOBAL6, GLOBAL4], [GLOBAL4, GLOBAL6]),
        # Otherwise leave the order unchanged
        ({GLOBAL4: "10.1.2.4", "192.0.2.1": "10.1.2.4"}, ["192.0.2.1", GLOBAL4], None),
        ({}, [GLOBAL4, "192.0.2.1"], None),
    ],
)
def test_the_examples_of_the_rfc(
    monkeypatch: pytest.MonkeyPatch, sources: dict[str, str], given: list[str], order: list[str]
) -> None:
    def source_for(address: IPAddress, mark: int | None) -> IPAddress | None:
        found = sources.get(str(address))
        return ip_address(found) if found else None

    monkeypatch.setattr(destinations, "_source_for", source_for)
    found = destinations.in_order(map(ip_address, given), None)
    assert [str(address) for address in found] == (order or given)


def test_the_kernel_says_which_source_is_taken() -> None:
    assert destinations._source_for(ip_address("127.0.0.9"), None) == ip_address("127.0.0.1")
