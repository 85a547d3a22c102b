"""What is said to have changed on a device, by the changes and what ran before."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from pywg import (
    AllowedIP,
    Config,
    Diff,
    Endpoint,
    InterfaceSection,
    InterfaceStatus,
    PeerDiff,
    PeerSection,
    PeerStatus,
    PresharedKey,
    PrivateKey,
    PublicKey,
)
from pywg.wireguard.changes import NO_PRIVATE_KEY, Changes, of_config, of_peer, synchronizing
from pywg.wireguard.diff import diff

A, B, C = (PublicKey(bytes([number]) * 32) for number in (1, 2, 3))
PSK = PresharedKey(bytes([7]) * 32)
NET = ip_network("10.0.0.0/24")
OWN = PrivateKey(bytes([8]) * 32)


def told(config: Config, present: InterfaceStatus) -> Diff:
    return diff(synchronizing(of_config(config), present), present)


def running(*peers: PeerStatus) -> InterfaceStatus:
    return InterfaceStatus(OWN, 51820, 0, list(peers))


def section(*peers: PeerSection) -> Config:
    return Config(InterfaceSection(OWN, 51820), peers)


def test_what_is_as_it_was_is_no_difference() -> None:
    peer = PeerStatus(A, PSK, Endpoint("192.0.2.1", 5), [NET], persistent_keepalive=25)
    same = PeerSection(A, PSK, (AllowedIP(NET),), Endpoint("192.0.2.1", 5), 25)
    assert told(section(same), running(peer)) == Diff()
    assert not Diff()


def test_peers_that_come_stay_and_go() -> None:
    assert told(section(PeerSection(A)), running()) == Diff(added=(A,))
    assert told(section(), running(PeerStatus(A), PeerStatus(B))) == Diff(removed=(A, B))
    assert told(section(PeerSection(B), PeerSection(C)), running(PeerStatus(A), PeerStatus(B))) == (
        Diff(added=(C,), removed=(A,))
    )


def test_each_field_of_a_peer_is_named() -> None:
    before = PeerStatus(A, PSK, Endpoint("192.0.2.1", 5), [NET], persistent_keepalive=25)
    now = PeerSection(A, PSK, (AllowedIP(NET),), Endpoint("192.0.2.1", 5), 25)
    cases = {
        "preshared_key": replace(now, preshared_key=None),
        "allowed_ips": replace(now, allowed_ips=()),
        "endpoint": replace(now, endpoint=Endpoint("192.0.2.1", 6)),
        "persistent_keepalive": replace(now, persistent_keepalive=None),
    }
    for name, peer in cases.items():
        assert told(section(peer), running(before)) == Diff(changed=(PeerDiff(A, (name,)),))
    # An endpoint that is left out stays.
    assert not told(section(replace(now, endpoint=None)), running(before))


def test_each_field_of_the_interface_is_named() -> None:
    present = replace(running(), bind_device="eth0", bind_addresses=(ip_address("192.0.2.1"),))
    changes = Changes(NO_PRIVATE_KEY, 1, 2, bind_device="", bind_addresses=())
    assert diff(changes, present).interface == (
        "private_key",
        "listen_port",
        "fwmark",
        "bind_device",
        "bind_addresses",
    )
    assert not diff(Changes(OWN, 51820, 0, bind_device="eth0"), present)


def test_a_peer_in_two_sections_is_one_peer() -> None:
    other = AllowedIP(ip_network("10.0.1.0/24"))
    twice = section(PeerSection(A, PSK, (AllowedIP(NET),)), PeerSection(A, None, (other,)))
    assert told(twice, running()) == Diff(added=(A,))
    there = PeerStatus(A, None, None, [NET])
    assert told(twice, running(there)).changed == (PeerDiff(A, ("allowed_ips", "preshared_key")),)


def test_one_peer_alone_says_all_of_itself_and_nothing_of_others() -> None:
    there = running(PeerStatus(A, PSK, None, [], persistent_keepalive=5), PeerStatus(B))
    assert diff(of_peer(PeerSection(A)), there) == Diff(
        changed=(PeerDiff(A, ("persistent_keepalive", "preshared_key")),)
    )


def test_no_difference_shows_a_secret() -> None:
    found = told(Config(InterfaceSection(OWN), (PeerSection(A, PSK),)), InterfaceStatus())
    for secret in (OWN, PSK):
        assert secret.to_base64() not in repr(found) and secret.to_hex() not in repr(found)
